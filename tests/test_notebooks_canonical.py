"""Every committed notebook is in the one stored form, and the tool that brings it there can be trusted."""

import copy
import json
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from scripts.canonical_notebooks import WIDGET_VIEW, canonical, dumps, executed, main, problems
from scripts.notebook_execution import NotebookFailedError

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_stored_notebook_is_canonical(path):
    assert not problems(path), "\n".join(problems(path))


def as_an_editor_leaves_it() -> NotebookNode:
    view = {"model_id": "0123", "version_major": 2, "version_minor": 0}
    slider = {WIDGET_VIEW: view, "text/html": "<figure></figure>", "text/plain": "FrameSlider(2 frames)"}
    cells = [
        new_markdown_cell("# A title", id="title"),
        new_code_cell(
            "print(1)",
            id="print-one",
            execution_count=7,
            metadata={
                "execution": {"iopub.status.busy": "2026-01-01"},
                "tags": ["b", "a"],
                "scrolled": True,
            },
            outputs=[
                new_output("stream", name="stdout", text="1"),
                new_output("stream", name="stdout", text="\n"),
            ],
        ),
        new_code_cell("", id="empty", execution_count=8),
        new_code_cell(
            "slider",
            id="slider",
            execution_count=9,
            outputs=[new_output("execute_result", data=slider, execution_count=9)],
        ),
        new_code_cell("install()", id="skipped", metadata={"tags": ["skip-execution"]}),
    ]
    metadata = {
        "kernelspec": {"name": "my-env", "display_name": "My environment"},
        "language_info": {"name": "python", "version": "3.11.7"},
        "widgets": {"application/vnd.jupyter.widget-state+json": {}},
        "title": "kept",
    }
    return new_notebook(cells=cells, metadata=metadata)


def test_what_changes_from_run_to_run_is_dropped():
    nb = canonical(as_an_editor_leaves_it())
    assert nb.metadata.kernelspec.name == "python3" and nb.metadata.language_info == {"name": "python"}
    assert "widgets" not in nb.metadata
    assert nb.cells[1].metadata == {"tags": ["a", "b"]}
    assert [o.text for o in nb.cells[1].outputs] == ["1\n"]
    assert [c.execution_count for c in nb.cells if c.cell_type == "code"] == [1, None, 2, None]
    assert nb.cells[3].outputs[0].execution_count == 2
    assert set(nb.cells[3].outputs[0].data) == {"text/html", "text/plain"}


def test_what_an_author_wrote_is_kept():
    nb = canonical(as_an_editor_leaves_it())
    assert [c.id for c in nb.cells] == ["title", "print-one", "empty", "slider", "skipped"]
    assert nb.metadata.title == "kept"
    assert [c.source for c in nb.cells] == [c.source for c in as_an_editor_leaves_it().cells]


def test_canonical_form_is_a_fixed_point():
    once = canonical(as_an_editor_leaves_it())
    assert dumps(canonical(copy.deepcopy(once))) == dumps(once)
    assert dumps(once).endswith("}\n") and not dumps(once).endswith("\n\n")


def test_a_cell_without_id_gets_the_same_one_each_time():
    raw = json.loads(dumps(canonical(as_an_editor_leaves_it())))
    for cell in raw["cells"]:
        del cell["id"]
    raw["nbformat_minor"] = 4
    ids = [[c.id for c in canonical(nbformat.from_dict(copy.deepcopy(raw))).cells] for _ in range(2)]
    assert ids[0] == ids[1] and len(set(ids[0])) == len(ids[0])


def check(nb: NotebookNode, tmp_path: Path) -> str:
    path = tmp_path / "some.ipynb"
    path.write_text(dumps(nb), encoding="utf-8")
    return " ".join(problems(path))


def test_check_passes_a_canonical_notebook(tmp_path):
    assert check(canonical(as_an_editor_leaves_it()), tmp_path) == ""


def test_check_finds_what_an_editor_left(tmp_path):
    assert "not in canonical form" in check(as_an_editor_leaves_it(), tmp_path)


def test_check_finds_a_cell_that_was_not_run(tmp_path):
    nb = canonical(as_an_editor_leaves_it())
    nb.cells[1].execution_count = None
    assert "has not been executed" in check(nb, tmp_path)


def test_check_finds_a_stored_error(tmp_path):
    nb = canonical(as_an_editor_leaves_it())
    nb.cells[1].outputs = [new_output("error", ename="ValueError", evalue="", traceback=[])]
    assert "stores an error, ValueError" in check(nb, tmp_path)
    nb.cells[1].metadata["tags"] = ["raises-exception"]
    assert check(nb, tmp_path) == ""


def test_check_finds_outputs_that_are_too_large(tmp_path):
    nb = canonical(as_an_editor_leaves_it())
    nb.cells[1].outputs = [new_output("stream", name="stdout", text="x" * 2_100_000)]
    assert "2.1 MB" in check(nb, tmp_path)


def test_check_finds_two_cells_with_one_id(tmp_path):
    nb = canonical(as_an_editor_leaves_it())
    nb.cells[3]["id"] = nb.cells[1].id
    path = tmp_path / "some.ipynb"
    path.write_text(json.dumps(nb), encoding="utf-8")
    assert problems(path) == ["Two cells have the id print-one: give one of them another."]


def write(tmp_path: Path, *sources: str) -> Path:
    cells = [new_code_cell(source, id=f"cell-{n}") for n, source in enumerate(sources)]
    path = tmp_path / "folder" / "small.ipynb"
    path.parent.mkdir()
    path.write_text(dumps(new_notebook(cells=cells)), encoding="utf-8")
    return path


def test_executing_twice_gives_the_same_bytes_and_runs_in_the_notebooks_folder(tmp_path, monkeypatch):
    path = write(
        tmp_path,
        "import os, sys\nprint(os.path.basename(os.getcwd()))",
        "for k in range(3):\n    print(k, flush=True)\n    print('to stderr', file=sys.stderr, flush=True)",
        "import ipywidgets\nipywidgets.IntSlider()",
        "open(os.path.join(os.environ['DIFFUSION_EDU_RUNS'], 'made.txt'), 'w').close()",
    )
    monkeypatch.chdir(tmp_path)
    assert main(["--execute", "folder/small.ipynb"]) == 0
    first = path.read_bytes()
    assert main(["--execute", str(path)]) == 0
    assert path.read_bytes() == first
    assert main(["--check", str(path)]) == 0
    assert nbformat.reads(first.decode(), as_version=4).cells[0].outputs[0].text == "folder\n"
    assert sorted(p.name for p in path.parent.iterdir()) == ["small.ipynb"]


def test_a_failing_cell_leaves_the_file_as_it_was(tmp_path, capsys):
    path = write(tmp_path, "print('before')", "raise ValueError('on purpose')")
    old = path.read_bytes()
    with pytest.raises(NotebookFailedError, match="Cell 1 failed with ValueError: on purpose"):
        executed(path, screen=None)
    assert main(["--execute", str(path)]) == 1
    assert "on purpose" in capsys.readouterr().err
    assert path.read_bytes() == old


def test_the_kernel_is_this_python_whatever_else_is_installed(tmp_path, monkeypatch):
    elsewhere = tmp_path / "share" / "kernels" / "python3"
    elsewhere.mkdir(parents=True)
    spec = {
        "argv": ["/nowhere/python", "-f", "{connection_file}"],
        "display_name": "wrong",
        "language": "python",
    }
    (elsewhere / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share"))
    path = write(tmp_path, "import sys\nprint(sys.executable)")
    import sys

    assert executed(path, screen=None).cells[0].outputs[0].text.strip() == sys.executable


def test_figures_are_stored_whatever_backend_the_shell_asks_for(tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    path = write(tmp_path, "import matplotlib.pyplot as plt\n_ = plt.plot([0, 1])\nplt.show()")
    (output,) = executed(path, screen=None).cells[0].outputs
    assert "image/png" in output.data


def test_check_of_what_is_no_notebook_gets_a_sentence(tmp_path, capsys):
    broken = tmp_path / "broken.ipynb"
    broken.write_text("{", encoding="utf-8")
    assert problems(broken) and "JSON" in problems(broken)[0]
    with pytest.raises(SystemExit):
        problems(tmp_path / "nowhere.ipynb")
    assert "There is no notebook at" in capsys.readouterr().err
