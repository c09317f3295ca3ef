"""The cell that lets a notebook run in Colab: put into each notebook, behind its header.

    python -m scripts.colab

Where the package is there already, the cell does nothing. Elsewhere it installs the course, from the same constraints
as everything else.
"""

import re

import nbformat
from nbformat import NotebookNode

from scripts.book_pages import notebooks, repository
from scripts.canonical_notebooks import canonical, dumps
from scripts.notebook_execution import write_beside

CELL = "colab"


def source() -> str:
    """What the cell says."""
    address = repository()
    raw = re.sub(r"^https://github\.com/", "https://raw.githubusercontent.com/", address)
    return "\n".join(
        [
            "import importlib.util",
            "",
            'if importlib.util.find_spec("diffusion_edu") is None:  # in Colab: install the course. Elsewhere: nothing',
            f'    pins = "{raw}/main/constraints.txt"',
            f'    course = "diffusion-edu[course] @ git+{address}"',
            '    %pip install -q -c {pins} "{course}"',
        ]
    )


def with_cell(notebook: NotebookNode) -> NotebookNode:
    """The notebook with the cell behind its header, in its present form."""
    cells = [cell for cell in notebook.cells if cell.id != CELL]
    cell = nbformat.v4.new_code_cell(source(), id=CELL, metadata={"tags": ["nbval-skip"]})
    notebook.cells = [*cells[:1], cell, *cells[1:]]
    return canonical(notebook)


def main() -> None:
    """Put it into all of them."""
    for path in notebooks():
        write_beside(path, dumps(with_cell(nbformat.read(path, as_version=4))))


if __name__ == "__main__":
    main()
