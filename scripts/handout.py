"""Copy the notebooks for a class, without the folded hints and solutions.

    python -m scripts.handout FOLDER [names of notebooks]

Exercises and their checks stay, and so does all else. The solutions are still in the repository, which anybody can
read: this takes them out of sight while somebody tries, and no more.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from scripts.book_pages import chosen, notebooks
from scripts.canonical_notebooks import dumps
from scripts.notebook_execution import read, write_beside


def without_solutions(path: Path) -> str:
    """The text of a notebook without its cells ``solution-1``, ``solution-2``, ..."""
    notebook = read(path)
    notebook.cells = [cell for cell in notebook.cells if not cell.id.startswith("solution-")]
    return dumps(notebook)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0; a file that is there already is left alone, and the command says so and returns 1."""
    parser = argparse.ArgumentParser(description="Copy the notebooks for a class, without the solutions.")
    parser.add_argument("folder", type=Path, help="where to; it is made if there is none")
    parser.add_argument("names", nargs="*", help="notebooks, such as 04_elbo; all of them if none is named")
    given = parser.parse_args(arguments)
    paths = chosen(parser, given.names, notebooks()).values()
    there = [path.name for path in paths if (given.folder / path.name).exists()]
    if there:
        print(f"{given.folder} has {', '.join(there)} already, maybe with somebody's work in it; give another folder.")
        return 1
    for path in paths:
        write_beside(given.folder / path.name, without_solutions(path))
    print(f"{len(paths)} notebooks without their solutions are in {given.folder}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
