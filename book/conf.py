"""Sphinx's settings for the book. ``python -m scripts.book`` stages the pages and calls Sphinx with them."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # so that the reference is of this checkout's package

from scripts.book_pages import anchor  # noqa: E402

project = "diffusion_edu"
author = "the diffusion_edu authors"
copyright = "the diffusion_edu authors, MIT licence"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxcontrib.bibtex",
]
root_doc = "index"
bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "alpha"

# The notebooks hold their outputs. A slider has two faces in one output; the book shows the one without a kernel.
nb_execution_mode = "off"
nb_mime_priority_overrides = [("html", "text/html", 5)]
nb_ipywidgets_js: dict[str, Any] = {}
nb_merge_streams = True
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
myst_dmath_double_inline = True
myst_update_mathjax = False

# MathJax 3 in one file; Sphinx's own choice is fetched from elsewhere.
mathjax_path = "tex-svg.js"
mathjax3_config = {
    "options": {"processHtmlClass": "math|tex2jax_process|mathjax_process", "ignoreHtmlClass": "no-math"},
    "svg": {"fontCache": "global"},
}

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"show-inheritance": True}
python_use_unqualified_type_names = True
add_module_names = False
nitpick_ignore_regex = [
    (r"py:.*", r"(?!diffusion_edu\.).*"),  # what is not ours is documented elsewhere
    (r"py:.*", r"diffusion_edu\..*\.(_\w+|Model|[A-Z])"),  # private bases, and type variables
    (r"py:.*", r"diffusion_edu\.cli\.\w+\..*"),  # the command line's parts, of which its page shows what it offers
]

html_theme = "sphinx_book_theme"
html_context = {"default_mode": "auto"}
html_title = "diffusion_edu"
html_favicon = "_static/icon.svg"
html_css_files = ["course.css"]
html_js_files = [("course.js", {"defer": "defer"})]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "use_download_button": False,
    "use_fullscreen_button": False,
    "show_toc_level": 2,
    "home_page_in_toc": False,
    "navbar_persistent": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
copybutton_selector = "div.cell_input div.highlight pre, div.highlight-sh pre, div.highlight-python pre"


def formulas(app: Sphinx, doctree: nodes.document) -> None:
    """Displayed formulas as MathJax wants them, and a name for the place of each numbered one.

    Sphinx would wrap a formula of several lines into ``split``, in which MathJax accepts no ``tag``.
    """
    labels = app.env.domains.standard_domain
    for node in doctree.findall(nodes.math_block):
        text = node.astext().strip()
        for tag in re.findall(r"\\tag\{([^}]+)\}", text):
            name = anchor(tag)
            node["ids"].append(name)
            labels.anonlabels[name] = app.env.docname, name
            labels.labels[name] = app.env.docname, name, f"({tag})"
        node["nowrap"] = node["no-wrap"] = True
        node.children = [nodes.Text(rf"\[{text}\]")]


class Pictures(SphinxPostTransform):
    """Pictures are fetched when they come near the window."""

    default_priority = 900

    def run(self, **_: Any) -> None:
        """Mark each picture of the page."""
        for node in self.document.findall(nodes.image):
            node["loading"] = "lazy"


def docstring(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """A docstring's formulas, which are indented, stay as they were typed; its stars and bars mean themselves."""
    del app, what, name, obj, options
    changed: list[str] = []
    literal = field = False
    for number, line in enumerate(lines):
        indented = line.startswith("    ")
        before = lines[number - 1] if number else ""
        if re.match(r"(Args|Attributes|Raises|Returns|Yields|Example|Examples|Note|Notes|References):\s*$", line):
            field = True
        elif line and not indented:
            field = False
        if indented and not field and not literal and not before.strip():
            changed += ["::", ""]
            literal = True
        elif literal and line.strip() and not indented:
            literal = False
        changed.append(line if literal else escaped(line))
    lines[:] = changed


def escaped(line: str) -> str:
    """A line in which a star or a bar outside double backquotes means itself. Emphasis like *this* stays."""
    parts = re.split(r"(``.*?``)", line)
    for k in range(0, len(parts), 2):
        part = re.sub(r"(?<![\w*\\])\*([A-Za-z][^*\n]*?[\w.)])\*(?![\w*])", "\0\\1\0", parts[k])
        part = re.sub(r"(?<!\\)([*|])", r"\\\1", part)
        part = re.sub(r"(?<=\w)_(?=\W|$)", r"\\_", part)
        parts[k] = part.replace("\0", "*")
    return "".join(parts)


def bibliography(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """An entry of the bibliography is an item of its list: docutils calls it by a role that lists may not hold."""
    del app, page, template, doctree
    if "body" in context:
        context["body"] = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry."""
    app.connect("doctree-read", formulas)
    app.add_post_transform(Pictures)
    app.connect("autodoc-process-docstring", docstring, priority=100)
    app.connect("html-page-context", bibliography)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
