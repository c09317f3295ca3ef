"""Build the course as a web page that needs no kernel and no network: ``book/_build/html``.

    python -m scripts.book [--out FOLDER]

1. **Stage.** Pages and notebooks are copied to ``book/_build/source``, with their stored outputs. On the way, pictures
   that lie inside a notebook's HTML become files, which a browser loads when they are near; each figure gets its title
   as words for a screen reader; and links that lead out of the book lead to the repository.
2. **Generate.** ``scripts/book_pages.py`` writes the pages that are drawn from the course itself.
3. **Build.** Sphinx, with every warning an error. MathJax comes from npm's registry once, with a checksum. A second
   build reads only the pages that have changed.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import filecmp
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat

from scripts import book_pages, colab

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "book" / "_build"

# Where each file of the repository stands in the book. What is not here is linked to in the repository.
PLACES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "docs/training_at_scale.md": "training_at_scale.md",
    "benchmarks/README.md": "measurements.md",
    "notebooks/README.md": "syllabus.md",  # GitHub's; the book draws its own
}

# MathJax as one file, whole: it fetches no fonts.
MATHJAX = (
    "https://registry.npmjs.org/mathjax/-/mathjax-3.2.2.tgz",
    "1b9c0a1c44df864e915690558e72adb9cc5203360daefd385084ced3b6c64c09",
    "package/es5/tex-svg.js",
)


class BookError(Exception):
    """The book cannot be built. The message is for the one who runs the command."""


# ------------------------------------------------------------------------------------------------ links


def outside_code(change: Callable[[str], str], text: str) -> str:
    """Markdown, changed everywhere but in fenced code and between backticks."""
    parts = re.split(r"(^(?:```|~~~).*?^(?:```|~~~)[^\n]*$|`+[^`\n]+`+)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if k % 2 else change(part) for k, part in enumerate(parts))


def with_links(text: str, at: str, place: str, places: dict[str, str]) -> str:
    """A page's Markdown with its relative links turned to where their targets stand in the book.

    Args:
        text: the page.
        at: its path in the repository.
        place: its path in the book's source.
        places: the same for every page of the book.

    Returns:
        the page; a target that is in the repository and not in the book is linked to in the repository.

    Raises:
        BookError: for a target that is nowhere.
    """

    def turned(match: re.Match[str]) -> str:
        target, anchor = match[1], match[2] or ""
        if not target or re.match(r"[a-z]+:", target):
            return match[0]
        path = os.path.normpath(os.path.join(os.path.dirname(at), target))
        if path in places:
            return f"]({os.path.relpath(places[path], os.path.dirname(place) or '.')}{anchor})"
        if not (ROOT / path).exists():
            raise BookError(f"{at} links to {target}, and there is no {path} in the repository.")
        kind = "tree" if (ROOT / path).is_dir() else "blob"
        return f"]({book_pages.repository()}/{kind}/main/{path}{anchor})"

    return outside_code(lambda part: re.sub(r"\]\(([^()\s#]*)(#[^()\s]*)?\)", turned, part), text)


# ------------------------------------------------------------------------------------------------ notebooks


@dataclass
class Stage:
    """The book's source folder, as it is being filled.

    Attributes:
        folder: ``book/_build/source``.
        places: path in the repository -> path in the folder, for every page.
    """

    folder: Path
    places: dict[str, str]

    def page(self, at: str) -> None:
        """Copy one Markdown page."""
        text = (ROOT / at).read_text(encoding="utf-8")
        self.write(self.places[at], book_pages.cited(with_links(text, at, self.places[at], self.places)))

    def write(self, place: str, text: str) -> None:
        """Write a page of the book."""
        path = self.folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def notebook(self, at: str) -> None:
        """Copy one notebook: links, pictures, words for figures."""
        notebook = nbformat.read(ROOT / at, as_version=4)
        place = self.places[at]
        heading = ""
        notebook.cells = [cell for cell in notebook.cells if cell.get("id") != colab.CELL]
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                heading = (re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE) or [heading])[-1]
                cell.source = book_pages.cited(with_links(cell.source, at, place, self.places))
                continue
            words = book_pages.figure_in_words(cell.source) or heading
            cell.metadata["mystnb"] = {"image": {"alt": words}}
            for output in cell.get("outputs", []):
                data = output.get("data", {})
                if "text/html" in data:
                    data["text/html"] = self.without_pictures(data["text/html"], place)
                    data.pop("application/vnd.jupyter.widget-view+json", None)
        launch = book_pages.launch_links(Path(at).stem)
        first = notebook.cells[0]
        title, _, rest = first.source.partition("\n")
        first.source = f"{title}\n\n{launch}\n{rest}"
        path = self.folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, path)

    def without_pictures(self, html: str, place: str) -> str:
        """HTML whose inline PNGs have become files, loaded when they come near the window."""
        up = os.path.relpath("_static/frames", os.path.dirname(place) or ".")

        def moved(match: re.Match[str]) -> str:
            try:
                content = base64.b64decode(match[1], validate=True)
            except binascii.Error as error:
                raise BookError(f"{place} has an inline picture that is not base64: {error}.") from error
            name = f"{hashlib.sha256(content).hexdigest()[:16]}.png"
            path = self.folder / "_static" / "frames" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            return f'loading="lazy" decoding="async" src="{up}/{name}"'

        return re.sub(r'src="data:image/png;base64,([A-Za-z0-9+/=]+)"', moved, html)


def stage(folder: Path) -> Stage:
    """Fill the book's source folder anew.

    Raises:
        BookError: for a link to a file that is not there.
    """
    shutil.rmtree(folder, ignore_errors=True)
    notebooks = book_pages.notebooks()
    own = sorted((ROOT / "book").glob("*.md"))
    places = {
        **PLACES,
        **{f"book/{page.name}": page.name for page in own if page.name != "index.md"},
        **{f"notebooks/{path.name}": f"notebooks/{path.name}" for path in notebooks},
    }
    places["book/index.md"] = "index.md"
    drawn = book_pages.generated()
    places |= {f"book/{place}": place for place in drawn}
    staged = Stage(folder, places)
    for at in places:
        if at.endswith(".ipynb"):
            staged.notebook(at)
        elif places[at] not in drawn and at != "README.md":  # the README's twin in the book is index.md
            staged.page(at)
    shutil.copytree(ROOT / "book" / "_static", folder / "_static", dirs_exist_ok=True)
    shutil.copy(ROOT / "book" / "references.bib", folder)
    for place, text in drawn.items():
        staged.write(place, text)
    index = (folder / "index.md").read_text(encoding="utf-8")
    player = staged.without_pictures(book_pages.landing_slider(), "index.md")
    index = index.replace("<!-- slider -->", book_pages.landing(player))
    staged.write("index.md", index.replace("<!-- notebooks -->", book_pages.contents()))
    book_pages.draw_cards(folder / "_static" / "cards")
    shutil.copy(fetched(*MATHJAX), folder / "_static")
    return staged


def fetched(url: str, sha256: str, member: str) -> Path:
    """One file of a package on npm's registry; fetched once into the user's cache.

    Raises:
        BookError: if it is not there and cannot be fetched, or is not what it was.
    """
    import pooch

    try:
        processor = pooch.Untar(members=[member])
        cache = pooch.os_cache("diffusion_edu")
        found = pooch.retrieve(url, f"sha256:{sha256}", path=cache, processor=processor, progressbar=False)
    except Exception as error:
        raise BookError(
            f"{url} cannot be fetched ({type(error).__name__}: {error}). It is needed once; "
            "try again with a connection."
        ) from error
    return Path(found[0])


def renewed(folder: Path, fresh: Path) -> None:
    """Put a fresh folder in the place of an old one. A file that is as it was keeps its time.

    Sphinx reads a page again when its time has changed.
    """
    for path in fresh.rglob("*"):
        old = folder / path.relative_to(fresh)
        if path.is_file() and old.is_file() and filecmp.cmp(path, old, shallow=False):
            stat = old.stat()
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


def build(out: Path) -> None:
    """Stage and run Sphinx. Raises BookError if a page has a mistake."""
    source, doctrees = BUILD / "source", BUILD / "doctrees"
    stage(BUILD / "fresh")
    renewed(source, BUILD / "fresh")
    command = [
        *(sys.executable, "-m", "sphinx", "--builder", "html", "--jobs", "auto"),
        *("--fail-on-warning", "--nitpicky", "--quiet", "--conf-dir", str(ROOT / "book")),
        *("--define", f"html_static_path={source / '_static'}", "--doctree-dir", str(doctrees)),
        *(str(source), str(out)),
    ]
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        shutil.rmtree(doctrees, ignore_errors=True)  # a page that is not read again would not be warned of again
        raise BookError("Sphinx found mistakes; they are listed above.")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Build the book from the notebooks' stored outputs.")
    parser.add_argument("--out", type=Path, default=BUILD / "html", help="where the site is written")
    out: Path = parser.parse_args().out.resolve()
    started = time.monotonic()
    try:
        build(out)
    except BookError as error:
        raise SystemExit(f"The book was not built. {error}") from error
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{out / 'index.html'}: {size / 1e6:.0f} MB in all, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
