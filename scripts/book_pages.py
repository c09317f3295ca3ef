"""The pages of the book that are drawn from the course itself, and what its notebooks say of themselves.

The syllabus, the index of equations, the map from module to notebook to equation, and the reference: none of them is
written by hand, so none can lag behind.
"""

from __future__ import annotations

import argparse
import ast
import base64
import io
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nbformat
from PIL import Image

from diffusion_edu.checks import find_claims, parsed

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "diffusion_edu"

# How a check of ``diffusion_edu.checks.Claim`` convinces, in a word.
KINDS = {
    "zero": "symbolic",
    "close": "exact value",
    "statistic": "statistic",
    "true": "condition",
    "assert": "condition",
}
PARTS = {
    "First": ("00",),
    "Leaned on": ("A",),
    "Part I: derived, on data whose exact answers are known": ("01", "02", "03", "04", "05"),
    "Part II: built, and trained on images": ("06", "07", "08"),
    "Part III: what the field added since": ("09", "10", "11", "12", "13", "14", "15", "16"),
}


@cache
def repository() -> str:
    """The repository's address, from pyproject.toml."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        address: str = tomllib.load(file)["project"]["urls"]["Repository"]
    return address


def notebooks() -> list[Path]:
    """The course's notebooks in its order: the refresher, then by number."""
    return sorted((ROOT / "notebooks").glob("*.ipynb"), key=lambda path: (path.stem[0] != "A", path.stem))


def chosen(parser: argparse.ArgumentParser, names: Sequence[str], paths: Sequence[Path]) -> dict[str, Path]:
    """Notebooks by name: those that were named on a command line, or all. An unknown name ends it with a sentence."""
    there = {path.stem: path for path in paths}
    unknown = sorted(set(names) - set(there))
    if unknown:
        parser.error(f"there is no notebook {', '.join(unknown)}; the names are {', '.join(there)}.")
    return {name: there[name] for name in names or there}


def launch_links(name: str) -> str:
    """A line of links that open a notebook elsewhere."""
    place = repository().removeprefix("https://github.com/")
    links = {
        "Colab": f"https://colab.research.google.com/github/{place}/blob/main/notebooks/{name}.ipynb",
        "Binder": f"https://mybinder.org/v2/gh/{place}/HEAD?urlpath=lab/tree/notebooks/{name}.ipynb",
        "Codespaces": f"https://codespaces.new/{place}",
        "source": f"{repository()}/blob/main/notebooks/{name}.ipynb",
    }
    return "Open in " + " · ".join(f"[{where}]({link})" for where, link in links.items())


# ------------------------------------------------------------------------------------------------ what notebooks say


@dataclass(frozen=True)
class Equation:
    """A numbered equation, with all that claims it."""

    tag: str
    notebook: str  # the notebook's file name, without its ending
    statements: tuple[str, ...]
    kinds: tuple[str, ...]
    green: bool  # each of its claims printed its tick in the stored outputs


@dataclass(frozen=True)
class Summary:
    """What a notebook's first cell says."""

    name: str
    title: str
    aims: tuple[str, ...]
    needs: str
    time: str
    modules: tuple[str, ...]  # of the package, that its code imports from


@cache
def read(path: Path) -> nbformat.NotebookNode:
    """A notebook."""
    return nbformat.read(path, as_version=4)


def text_of(cell: nbformat.NotebookNode) -> str:
    """What a code cell printed, in its stored outputs."""
    return "".join(output.get("text", "") for output in cell.get("outputs", []))


@cache
def equations() -> tuple[Equation, ...]:
    """Every numbered equation of the course, in the order of the notebooks."""
    found = []
    for path in notebooks():
        cells = read(path).cells
        claims = [(claim, cell) for cell in cells if cell.cell_type == "code" for claim in find_claims(cell.source)]
        for cell in cells:
            if cell.cell_type != "markdown":
                continue
            for tag in re.findall(r"\\tag\{([^}]+)\}", cell.source):
                own = [(claim, where) for claim, where in claims if claim.tag == tag]
                kinds = {KINDS[kind] for claim, _ in own for kind in claim.kinds}
                ticks = [f"✓ ({tag}) {claim.statement}" in text_of(where) for claim, where in own]
                found.append(
                    Equation(
                        tag,
                        path.stem,
                        tuple(claim.statement for claim, _ in own),
                        tuple(sorted(kinds)),
                        bool(ticks) and all(ticks),
                    )
                )
    return tuple(found)


@cache
def summary(path: Path) -> Summary:
    """What a notebook says of itself in its first cell."""
    cells = read(path).cells
    header = cells[0].source
    title = re.match(r"# (.+)", header)
    if title is None:
        raise ValueError(f"{path.name} must open with its title, `# NN · ...`.")
    needs = re.search(r"\*\*You need\*\* ?:?(.+?)(?:\n\n|$)", header, re.DOTALL)
    before = header.partition("**You need**")[0]
    time = re.search(r"\*\*Time\*\*: ?(.+?)(?:\. |\.\n|\n\n|$)", header, re.DOTALL)
    imported: set[str] = set()
    for cell in cells:
        if cell.cell_type == "code":
            imported |= modules_of(cell.source)
    return Summary(
        path.stem,
        title[1],
        tuple(re.sub(r"\s+", " ", aim).rstrip(";.") for aim in re.findall(r"^- (.+(?:\n  .+)*)", before, re.MULTILINE)),
        re.sub(r"\]\((?=\w+\.ipynb)", "](notebooks/", re.sub(r"\s+", " ", needs[1]).strip()) if needs else "",
        re.sub(r"\s+", " ", time[1]).strip() if time else "",
        tuple(sorted(imported)),
    )


@cache
def homes() -> dict[str, str]:
    """Public name of the package -> the module that defines it."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    return {
        alias.asname or alias.name: node.module
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 1
        for alias in node.names
    }


def modules_of(source: str) -> set[str]:
    """The package's modules that a cell's imports come from."""
    found = set()
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "diffusion_edu":
            found |= {homes().get(alias.name, alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("diffusion_edu."):
            found.add((node.module or "").split(".")[1])
    return found & {path.stem for path in modules()}


def modules() -> list[Path]:
    """The package's public modules; the command line, whose ``load_run`` the notebooks use, is a folder."""
    files = [path for path in PACKAGE.glob("*.py") if not path.stem.startswith("_")]
    return sorted([*files, PACKAGE / "cli"])


@cache
def docstring_of(path: Path) -> str:
    """What a module, or a folder, says of itself."""
    file = path / "__init__.py" if path.is_dir() else path
    return ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""


@cache
def imports(path: Path) -> frozenset[str]:
    """The other modules of the package that a module imports, wherever in it."""
    names = {module.stem for module in modules()}
    found = set()
    level = 2 if path.is_dir() else 1  # as many dots lead to the package
    for file in path.glob("*.py") if path.is_dir() else [path]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == level:
                found |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
    return frozenset((found & names) - {path.stem})


def figure_in_words(source: str) -> str:
    """The titles that a cell gives its pictures, for a reader who cannot see them; "" if it gives none."""
    titles = []
    for node in ast.walk(parsed(source)):
        if not isinstance(node, ast.Call):
            continue
        named = [keyword.value for keyword in node.keywords if keyword.arg == "title"]
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("suptitle", "set_title"):
            named += node.args[:1]
        titles += [(value.lineno, value.col_offset, written(value)) for value in named]
    words = [re.sub(r"[$\\{}]", "", re.sub(r"\s+", " ", text)).strip() for _, _, text in sorted(titles) if text]
    return ". ".join(dict.fromkeys(words))


def written(node: ast.expr) -> str:
    """The words of a string or an f-string; what is filled in shows as dots."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(written(part) if isinstance(part, ast.Constant) else "…" for part in node.values)
    if isinstance(node, ast.BinOp):
        return written(node.left) + written(node.right)
    return ""


# ------------------------------------------------------------------------------------------------ citations


@cache
def keys() -> dict[str, str]:
    """Address of a paper -> its key in references.bib."""
    found = {}
    for entry in re.split(r"^@", (ROOT / "book" / "references.bib").read_text(encoding="utf-8"), flags=re.MULTILINE):
        key, address = re.match(r"\w+\{([^,]+),", entry), re.search(r"url\s*=\s*\{([^}]+)\}", entry)
        if key and address:
            found[address[1]] = key[1]
    return found


def cited(text: str) -> str:
    """Markdown whose links to papers of references.bib carry a citation of the book's bibliography."""

    def with_key(match: re.Match[str]) -> str:
        key = keys().get(match[1])
        return f"{match[0]} {{cite}}`{key}`" if key else match[0]

    return re.sub(r"\]\((https?://(?:[^()\s]|\([^()\s]*\))+)\)", with_key, text)


# ------------------------------------------------------------------------------------------------ pages


def generated() -> dict[str, str]:
    """Path in the book -> text, for every page that is drawn from the course."""
    pages = {
        "syllabus.md": syllabus(),
        "equations.md": equation_index(),
        "map.md": course_map(),
        "reference/index.md": reference(),
    }
    for path in modules():
        pages[f"reference/{path.stem}.rst"] = module_page(path.stem)
    return pages


def contents() -> str:
    """The table of contents' entries of the notebooks, a block a part."""
    lines = []
    for part, here in parts():
        lines += ["```{toctree}", ":hidden:", f":caption: {part}", ""]
        lines += [f"{summary(path).title.replace('$', '')} <notebooks/{path.stem}>" for path in here] + ["```", ""]
    return "\n".join(lines)


def parts() -> list[tuple[str, list[Path]]]:
    """The parts of the course with the notebooks that exist.

    Raises:
        ValueError: for a notebook that is in no part.
    """
    by_number = {path.stem.split("_")[0]: path for path in notebooks()}
    homeless = set(by_number) - {number for numbers in PARTS.values() for number in numbers}
    if homeless:
        raise ValueError(f"PARTS in scripts/book_pages.py does not say where notebook {min(homeless)} belongs.")
    found = [(part, [by_number[n] for n in numbers if n in by_number]) for part, numbers in PARTS.items()]
    return [(part, here) for part, here in found if here]


def landing(player: str) -> str:
    """The top of the landing page: a player, and what this is."""
    words = (
        "<p class='says'><strong>A course in notebooks that derives diffusion models, and the PyTorch package that it "
        "builds.</strong></p><p>These digits are drawn by the model that the first notebook trains, in minutes "
        "on a laptop. Drag the slider.</p>"
    )
    return "\n".join(["```{raw} html", f"<div class='landing'><div>{player}</div><div>{words}</div></div>", "```"])


def syllabus() -> str:
    """The notebooks with their time, their needs and where to open them."""
    lines = [
        "# Syllabus",
        "",
        "From top to bottom; nothing later is needed for anything earlier. The refresher is for looking things up.",
        "",
    ]
    for part, here in parts():
        lines += [f"## {part}", "", ":::::{grid} 1 1 2 2", ":gutter: 3", ""]
        for path in here:
            about = summary(path)
            lines += [
                f"::::{{grid-item-card}} {about.title}",
                f":link: notebooks/{path.stem}",
                ":link-type: doc",
                f":img-top: _static/cards/{path.stem}.png",
                f":img-alt: A picture from notebook {path.stem}",
                "",
                *(f"- {aim}" for aim in about.aims[:3]),
                "",
                ":::{card-footer}",
                about.time,
                ":::",
                "::::",
                "",
            ]
        lines += [":::::", ""]
        lines += ["| notebook | you need | open in |", "|---|---|---|"]
        for path in here:
            about = summary(path)
            launch = launch_links(path.stem).removeprefix("Open in ")
            lines.append(
                f"| [{path.stem}](notebooks/{path.name}) | {about.needs.replace('|', chr(92) + '|')} | {launch} |"
            )
        lines.append("")
    return "\n".join(lines)


def equation_index() -> str:
    """Every tag: its statement, its notebook, how it is checked, and whether the stored run was green."""
    all_of_them = equations()
    green = sum(equation.green for equation in all_of_them)
    lines = [
        "# Index of equations",
        "",
        f"The course has {len(all_of_them)} numbered equations. Each is checked by code in the cell below it; "
        f"{green} of {len(all_of_them)} were green when the notebooks were last run, and continuous integration runs "
        "them all again. A number leads to its equation.",
        "",
        "*Symbolic*: SymPy proves the identity. *exact value*: two independent ways to one number agree to rounding. "
        "*statistic*: an average over draws agrees within six standard errors. *condition*: a statement that is true "
        "or false, such as an order or a count.",
        "",
    ]
    for path in notebooks():
        own = [equation for equation in all_of_them if equation.notebook == path.stem]
        if not own:
            continue
        lines += [f"## {summary(path).title}", "", "| equation | statement | checked by | |", "|---|---|---|---|"]
        for equation in own:
            where = f"[({equation.tag})](notebooks/{path.name}#{anchor(equation.tag)})"
            statements = "; ".join(plain_cell(s) for s in equation.statements)
            tick = "✓ green" if equation.green else "✗ not green"
            lines.append(f"| {where} | {statements} | {', '.join(equation.kinds)} | {tick} |")
        lines.append("")
    return "\n".join(lines)


def anchor(tag: str) -> str:
    """The name of an equation's place on its page."""
    return f"equation-{tag.replace('.', '-').lower()}"


def plain_cell(text: str) -> str:
    """Text for a table's cell, in which nothing means anything to Markdown."""
    return re.sub(r"([\\`*_{}\[\]<>|$#^~])", r"\\\1", text)


def course_map() -> str:
    """Module, the notebooks that use it, their equations; and the imports as a picture."""
    taught = {path.stem: summary(path) for path in notebooks()}
    lines = [
        "# Map: module, notebook, equation",
        "",
        "The package in floors. A module imports only from lower floors, so that you can read it from the bottom up. "
        "The lines are the real imports, read from the source when this page was built; the tests forbid one upwards.",
        "",
        "```{raw} html",
        f'<div class="map-scroll">{drawing()}</div>',
        "```",
        "",
        "| module | notebooks that use it | their equations |",
        "|---|---|---|",
    ]
    for path in modules():
        users = [name for name, about in taught.items() if path.stem in about.modules]
        tags = []
        for name in users:
            own = [equation.tag for equation in equations() if equation.notebook == name]
            if own:
                tags.append(f"[({own[0]}) to ({own[-1]})](notebooks/{name}.ipynb#{anchor(own[0])})")
        links = ", ".join(f"[{name.split('_')[0]}](notebooks/{name}.ipynb)" for name in users)
        lines.append(f"| [`{path.stem}`](reference/{path.stem}.rst) | {links} | {', '.join(tags)} |")
    return "\n".join([*lines, ""])


def floors() -> dict[str, int]:
    """Module -> its floor: 0 for one that imports no other, else one above the highest that it imports."""
    needs = {path.stem: imports(path) for path in modules()}
    height: dict[str, int] = {}

    def floor(name: str, above: tuple[str, ...] = ()) -> int:
        if name in above:
            raise ValueError(f"modules import each other in a circle: {' -> '.join((*above, name))}.")
        if name not in height:
            height[name] = max((floor(low, (*above, name)) + 1 for low in needs[name]), default=0)
        return height[name]

    for name in needs:
        floor(name)
    return height


def drawing() -> str:
    """The modules and their imports as an SVG."""
    height = floors()
    rows = [[name for name, k in height.items() if k == floor] for floor in range(max(height.values()) + 1)]
    wide, tall, gap, rise, margin = 132, 30, 16, 62, 10
    across = max(len(row) for row in rows) * (wide + gap) - gap
    place = {}
    for k, row in enumerate(rows):
        start = margin + (across - (len(row) * (wide + gap) - gap)) / 2
        for j, name in enumerate(row):
            place[name] = (start + j * (wide + gap), margin + (len(rows) - 1 - k) * rise)
    width, depth = across + 2 * margin, (len(rows) - 1) * rise + tall + 2 * margin
    parts = [
        f'<svg class="course-map" viewBox="0 0 {width:.0f} {depth:.0f}" role="group" '
        'aria-label="The modules of the package and what each imports; the table below says the same in words" '
        'xmlns="http://www.w3.org/2000/svg">'
    ]
    for path in modules():
        x, y = place[path.stem]
        for low in sorted(imports(path)):
            to_x, to_y = place[low]
            middle = (y + tall + to_y) / 2
            parts.append(
                f'<path d="M{x + wide / 2:.0f} {y + tall} C{x + wide / 2:.0f} {middle:.0f} '
                f'{to_x + wide / 2:.0f} {middle:.0f} {to_x + wide / 2:.0f} {to_y}"><title>{path.stem} imports {low}'
                "</title></path>"
            )
    for name, (x, y) in place.items():
        parts.append(
            f'<a href="reference/{name}.html"><rect x="{x:.0f}" y="{y}" width="{wide}" height="{tall}" rx="5"/>'
            f'<text x="{x + wide / 2:.0f}" y="{y + tall / 2 + 4.5}" text-anchor="middle">{name}</text></a>'
        )
    return "".join([*parts, "</svg>"])


def reference() -> str:
    """The list of the package's modules."""
    lines = ["# The package", "", "Read it from the bottom up; the [map](../map.md) shows what rests on what.", ""]
    height = floors()
    for path in sorted(modules(), key=lambda path: (height[path.stem], path.stem)):
        first = docstring_of(path).split("\n\n")[0].replace("\n", " ")
        lines.append(f"- [`{path.stem}`]({path.stem}.rst): {first}")
    listed = "\n".join(path.stem for path in modules())
    return "\n".join([*lines, "", "```{toctree}", ":hidden:", "", listed, "```", ""])


def module_page(name: str) -> str:
    """The reference of one module, from its docstrings."""
    title = f"``{name}``"
    return "\n".join([title, "=" * len(title), "", f".. automodule:: diffusion_edu.{name}", "   :members:", ""])


# ------------------------------------------------------------------------------------------------ pictures


def pictures(path: Path) -> Iterator[Image.Image]:
    """A notebook's pictures: its sliders' frames from the middle, then its figures."""
    for cell in read(path).cells:
        for output in cell.get("outputs", []):
            text = output.get("data", {}).get("text/html", "")
            inline = re.search(
                r'width:([\d.]+)%;height:([\d.]+)%[^>]*src="data:image/png;base64,([A-Za-z0-9+/=]+)"', text
            )
            if inline:
                sheet = Image.open(io.BytesIO(base64.b64decode(inline[3]))).convert("RGB")
                columns, rows = round(float(inline[1]) / 100), round(float(inline[2]) / 100)
                last = len(re.findall(r'"labels": \[(.*?)\]', text)[0].split('", "')) - 1
                k = last // 2
                wide, tall = sheet.width // columns, sheet.height // rows
                yield sheet.crop(box(k, columns, wide, tall))
    for cell in read(path).cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                yield Image.open(io.BytesIO(base64.b64decode(output["data"]["image/png"]))).convert("RGB")


def box(k: int, columns: int, wide: int, tall: int) -> tuple[int, int, int, int]:
    """Where frame k lies on a sheet."""
    left, top = (k % columns) * wide, (k // columns) * tall
    return left, top, left + wide, top + tall


def draw_cards(folder: Path) -> None:
    """One picture a notebook, 640 x 320, for its card on the syllabus."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in notebooks():
        picture = next(pictures(path), None)
        if picture is None:
            raise ValueError(f"{path.name} has no picture for its card.")
        scale = min(616 / picture.width, 296 / picture.height)
        size = (round(picture.width * scale), round(picture.height * scale))
        card = Image.new("RGB", (640, 320), "white")
        way = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
        card.paste(picture.resize(size, way), ((640 - size[0]) // 2, (320 - size[1]) // 2))
        card.save(folder / f"{path.stem}.png", optimize=True)


def landing_slider() -> str:
    """The quickstart's denoising slider, as HTML."""
    for cell in read(ROOT / "notebooks" / "00_quickstart.ipynb").cells:
        if cell.get("id") == "denoising":
            for output in cell.outputs:
                if "text/html" in output.get("data", {}) and "<figure" in output.data["text/html"]:
                    return str(output.data["text/html"])
    raise ValueError("00_quickstart has no slider in its cell `denoising` any more.")
