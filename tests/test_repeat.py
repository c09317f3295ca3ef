"""Runs of the notebooks again and again: what differs is found, and a series goes on where it stopped."""

import shutil
import subprocess

import nbformat
import pytest

from benchmarks import report
from scripts import repeat

SOURCES = {
    "same": "import os\nprint('the same', os.environ['OMP_NUM_THREADS'] in '12', len(os.listdir()))",
    "random": "import os\nprint(os.urandom(8).hex())",
    "network": "import socket\nprint(len(socket.if_nameindex()))",
}
OUTPUTS = {"same": "the same True 1\n", "random": "0123456789abcdef\n", "network": "1\n"}  # where the network is cut
CAN_CUT = shutil.which("unshare") is not None and (
    subprocess.run(["unshare", "--map-root-user", "--net", "true"], capture_output=True, check=False).returncode == 0
)


@pytest.fixture
def three_notebooks(tmp_path, monkeypatch):
    """One that always says the same, one that never does, and one that counts its networks."""
    paths = []
    for name, source in SOURCES.items():
        stored = [nbformat.v4.new_output("stream", text=OUTPUTS[name])]
        cell = nbformat.v4.new_code_cell(source, outputs=stored, execution_count=1)
        paths.append(tmp_path / f"{name}.ipynb")
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), paths[-1])
    monkeypatch.setattr(repeat, "notebooks", lambda: paths)
    return tmp_path


def test_a_difference_is_named_and_a_series_goes_on(three_notebooks, capsys):
    command = ["same", "random", "--times", "1", "--threads", "1", "2", "--file", str(three_notebooks / "runs.csv")]
    assert repeat.main([*command, "--minutes", "0"]) == 1
    assert capsys.readouterr().out.strip() == "0 green, 0 red, 4 not made yet"
    assert repeat.main([*command, "--jobs", "2"]) == 1
    said = capsys.readouterr()
    assert "same, 1 threads, run 1: green" in said.out and "random, 2 threads, run 1: 1 failed" in said.out
    assert said.out.strip().endswith("2 green, 2 red, 0 not made yet") and "0123456789abcdef" in said.err
    assert len(report.read_rows(three_notebooks / "runs.csv", repeat.Run)) == 4
    assert all("PyTorch" in run.machine for run in report.read_rows(three_notebooks / "runs.csv", repeat.Run))

    assert repeat.main(["same", *command[2:]]) == 0, "all that is asked for was made before, and is green"
    assert capsys.readouterr().out.strip() == "2 green, 0 red, 0 not made yet"
    notebook = three_notebooks / "same.ipynb"
    changed = nbformat.read(notebook, 4)
    changed.cells.append(nbformat.v4.new_markdown_cell("A word more."))
    nbformat.write(changed, notebook)
    assert repeat.main(["same", *command[2:], "--minutes", "0"]) == 0, "text does not run"
    capsys.readouterr()
    notebook.write_text(notebook.read_text().replace("the same", "another thing"))
    assert repeat.main(["same", *command[2:], "--minutes", "0"]) == 1
    assert capsys.readouterr().out.strip() == "0 green, 0 red, 2 not made yet", "a changed notebook is run anew"
    assert repeat.main(["same", *command[2:], "--threads", "1"]) == 0
    left = report.read_rows(three_notebooks / "runs.csv", repeat.Run)
    assert [run.name for run in left] == ["random", "random", "same"], "the lines of its old state are gone"


def test_a_run_of_another_package_is_told_apart(tmp_path, monkeypatch):
    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        return subprocess.run(["git", *who, *words], cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    monkeypatch.setattr(repeat, "ROOT", tmp_path)
    (tmp_path / "diffusion_edu").mkdir()
    git("init")
    commits = []
    for text in ("old", "new"):
        (tmp_path / "diffusion_edu" / "unet.py").write_text(text)
        git("add", ".")
        git("commit", "-m", text)
        commits.append(repeat.commit())
    assert [repeat.of_this_package(commit) for commit in (*commits, commits[1] + "+")] == [False, True, False]
    repeat.of_this_package.cache_clear()
    (tmp_path / "diffusion_edu" / "unet.py").write_text("newer")
    assert not repeat.of_this_package(commits[1]) and repeat.commit() == commits[1] + "+"
    repeat.of_this_package.cache_clear()


@pytest.mark.skipif(not CAN_CUT, reason="this system lets no process cut its network off")
def test_offline_there_is_no_network(three_notebooks, capsys):
    command = ["network", "--times", "1", "--threads", "1", "--file", str(three_notebooks / "runs.csv")]
    assert repeat.main([*command, "--offline"]) == 0
    assert "1 green, 0 red" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(["99_nothing"], "there is no notebook 99_nothing"), (["--times", "0"], "must be at least 1")],
)
def test_what_cannot_be_done_gets_a_sentence(arguments, sentence, capsys):
    with pytest.raises(SystemExit):
        repeat.main(arguments)
    assert sentence in capsys.readouterr().err
