"""Bring notebooks into one form, so that a diff shows what an author changed and nothing else.

    python -m scripts.canonical_notebooks --check     say which notebooks are not in that form
    python -m scripts.canonical_notebooks --write     bring the stored notebooks into it without running them
    python -m scripts.canonical_notebooks --execute   run each, then bring it into that form

Give paths for some notebooks; give none for all in notebooks/. The canonical form:

- one kernelspec, and a language_info that holds the name only;
- no widget state, no timings, no editor's marks; tags sorted;
- execution counts 1, 2, 3, ... over the cells that run; text that one cell printed in one piece a stream;
- no widget view (its state is not stored, so it would point at nothing);
- cell ids as their author named them: never renumbered, or one new cell would rename all after it;
- valid nbformat 4.5; keys sorted, one space of indent, one newline at the end.
"""

import argparse
import difflib
import hashlib
import json
import sys
import tempfile
from pathlib import Path

import nbformat.reader
from nbformat import NotebookNode

from scripts.notebook_execution import NotebookFailedError, Screen, execute, read, write_beside

ROOT = Path(__file__).resolve().parents[1]
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE_INFO = {"name": "python"}
NOTEBOOK_NOISE = ("widgets", "vscode", "colab", "toc-autonumbering", "toc-showcode", "accelerator")
CELL_NOISE = (
    "execution",
    "ExecuteTime",
    "collapsed",
    "scrolled",
    "trusted",
    "vscode",
    "id",
    "outputId",
    "colab",
)
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
MAX_OUTPUT_BYTES = 2_000_000
CELL_TIMEOUT = 600  # seconds


def runs(cell: NotebookNode) -> bool:
    """Whether executing the notebook executes this cell."""
    tags = cell.metadata.get("tags", [])
    return cell.cell_type == "code" and bool(cell.source.strip()) and "skip-execution" not in tags


def merge_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join neighbouring pieces of one stream: where they were cut is a matter of timing."""
    merged: list[NotebookNode] = []
    for output in outputs:
        last = merged[-1] if merged else None
        if output.output_type == "stream" and last is not None and last.get("name") == output.name:
            last.text += output.text
        else:
            merged.append(output)
    return merged


def canonical(notebook: NotebookNode) -> NotebookNode:
    """A copy of `notebook` in canonical form. Applying it twice changes nothing more.

    Raises ValueError when the notebook cannot be brought into it; the message says why.
    """
    # Through nbformat's own form first: sources and texts as single strings, not lists of lines.
    nb = nbformat.reader.reads(json.dumps(notebook))
    nb.nbformat, nb.nbformat_minor = 4, 5
    for key in NOTEBOOK_NOISE:
        nb.metadata.pop(key, None)
    nb.metadata["kernelspec"] = dict(KERNELSPEC)
    nb.metadata["language_info"] = dict(LANGUAGE_INFO)

    count = 0
    seen: dict[str, int] = {}
    for cell in nb.cells:
        for key in CELL_NOISE:
            cell.metadata.pop(key, None)
        if "tags" in cell.metadata:
            cell.metadata["tags"] = sorted(set(cell.metadata["tags"]))
            if not cell.metadata["tags"]:
                del cell.metadata["tags"]
        if not cell.get("id"):  # a file from before nbformat 4.5
            name = hashlib.sha256(cell.source.encode()).hexdigest()[:8]
            seen[name] = seen.get(name, 0) + 1
            cell["id"] = name if seen[name] == 1 else f"{name}-{seen[name]}"
        if cell.cell_type != "code":
            continue
        number = None
        if runs(cell):
            count += 1
            number = count
        cell.execution_count = number
        cell.outputs = merge_streams(cell.outputs)
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = number
            if "data" in output and len(output.data) > 1:
                output.data.pop(WIDGET_VIEW, None)
    ids = [cell.id for cell in nb.cells]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:  # asked before validate(), which would give them random ones
        raise ValueError(f"Two cells have the id {twice[0]}: give one of them another.")
    try:
        nbformat.validate(nb)
    except nbformat.ValidationError as error:
        raise ValueError(f"It is not a valid nbformat 4.5 notebook: {error.message}.") from None
    return nb


def dumps(notebook: NotebookNode) -> str:
    """The one text of a notebook."""
    return nbformat.writes(notebook, version=nbformat.NO_CONVERT).rstrip("\n") + "\n"


def problems(path: Path) -> list[str]:
    """What keeps the file at `path` from being canonical, a sentence each; empty when nothing does."""
    try:
        notebook = read(path)
        text, wanted = path.read_text(encoding="utf-8"), canonical(notebook)
    except (ValueError, OSError) as error:
        return [str(error)]
    found = []
    for index, (cell, new) in enumerate(zip(notebook.cells, wanted.cells, strict=True)):
        if cell.cell_type != "code":
            continue
        if runs(new) and cell.execution_count is None:
            found.append(f"Cell {index} ({cell.get('id')}) has not been executed: run `make notebooks`.")
        errors = [o.get("ename") for o in cell.outputs if o.output_type == "error"]
        if errors and "raises-exception" not in cell.metadata.get("tags", []):
            found.append(
                f"Cell {index} ({cell.get('id')}) stores an error, {errors[0]}, and has no tag raises-exception."
            )
    size = sum(len(json.dumps(cell.outputs)) for cell in notebook.cells if cell.cell_type == "code")
    if size > MAX_OUTPUT_BYTES:
        found.append(
            f"Its outputs take {size / 1e6:.1f} MB and may take {MAX_OUTPUT_BYTES / 1e6:.0f} MB: "
            "show fewer or smaller pictures."
        )
    if text != dumps(wanted):
        lines = difflib.unified_diff(
            text.splitlines(), dumps(wanted).splitlines(), "stored", "canonical", n=0, lineterm=""
        )
        shown = [line[:120] for line in lines][2:10]
        found.append(
            "It is not in canonical form: run `make notebooks`. The first differences:\n      " + "\n      ".join(shown)
        )
    return found


def executed(path: Path, screen: Screen | None) -> NotebookNode:
    """The notebook at `path`, run in its own folder. What it writes goes to a temporary folder."""
    notebook = canonical(read(path))
    with tempfile.TemporaryDirectory() as folder:
        execute(notebook, folder=path.resolve().parent, runs=Path(folder), screen=screen, timeout=CELL_TIMEOUT)
    return canonical(notebook)


def main(arguments: list[str] | None = None) -> int:
    """Returns 0, or 1 when a notebook failed or is not canonical, or 2 when there is none."""
    parser = argparse.ArgumentParser(description="Bring notebooks into one form.")
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--check", action="store_true", help="say what is not canonical; change nothing")
    mode.add_argument("--write", action="store_true", help="bring the files into canonical form without running them")
    mode.add_argument("--execute", action="store_true", help="run each notebook, then bring it into canonical form")
    parser.add_argument("paths", nargs="*", type=Path, help="notebooks; all of notebooks/ when none is given")
    given = parser.parse_args(arguments)

    paths: list[Path] = given.paths or sorted((ROOT / "notebooks").glob("*.ipynb"))
    if not paths:
        print("There are no notebooks in notebooks/, and none was given.", file=sys.stderr)
        return 2
    red = 0
    for path in paths:
        if given.check:
            found = problems(path)
            for sentence in found:
                print(f"{path}: {sentence}")
            red += bool(found)
            continue
        old = path.read_text(encoding="utf-8") if path.is_file() else None
        try:
            if given.execute:
                print(f"--- {path}", flush=True)
            new = dumps(executed(path, Screen(sys.stdout)) if given.execute else canonical(read(path)))
        except (NotebookFailedError, ValueError) as error:
            print(f"{path}: {error}\nThe file is as it was.", file=sys.stderr)
            red += 1
            continue
        if new != old:
            write_beside(path, new)
        print(f"{path}: {'unchanged' if new == old else 'written'}")
    if given.check and not red:
        print(f"{len(paths)} notebook(s) canonical")
    return 1 if red else 0


if __name__ == "__main__":
    raise SystemExit(main())
