"""`make quickstart`'s program: what it leaves behind, and what it says while it runs."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from scripts import lab, quickstart
from scripts.notebook_execution import Screen

WRITE = "import os, pathlib\nout = pathlib.Path(os.environ['DIFFUSION_EDU_RUNS'])\n"


def notebook(tmp_path: Path, *sources: str) -> Path:
    path = tmp_path / "small.ipynb"
    cells = [new_code_cell(source, id=f"cell-{n}") for n, source in enumerate(sources)]
    nbformat.write(new_notebook(cells=cells), path)
    return path


def run(tmp_path: Path, path: Path) -> int:
    return quickstart.main(["--notebook", str(path), "--out", str(tmp_path / "runs" / "quickstart")])


def left(tmp_path: Path) -> list[str]:
    return sorted(str(p.relative_to(tmp_path / "runs")) for p in (tmp_path / "runs").rglob("*"))


def test_results_and_executed_notebook_are_left_and_named(tmp_path, capfd):
    path = notebook(tmp_path, WRITE + "(out / 'samples.png').write_bytes(b'png')", "print('trained')")
    assert run(tmp_path, path) == 0
    assert left(tmp_path) == ["quickstart", "quickstart/samples.png", "quickstart/small.ipynb"]
    executed = nbformat.read(tmp_path / "runs" / "quickstart" / "small.ipynb", as_version=4)
    assert executed.cells[1].outputs[0].text == "trained\n"
    assert not nbformat.read(path, as_version=4).cells[1].outputs, "the notebook itself must stay as it was"
    said = capfd.readouterr().out
    assert "[2/2] print('trained')" in said and "samples.png" in said and "make lab" in said


def test_a_failed_run_says_why_and_keeps_the_results_of_the_run_before(tmp_path, capfd):
    out = tmp_path / "runs" / "quickstart"
    assert run(tmp_path, notebook(tmp_path, WRITE + "(out / 'samples.png').write_bytes(b'good')")) == 0
    bad = notebook(tmp_path, WRITE + "(out / 'samples.png').write_bytes(b'bad')", "1 / 0", "print('never')")
    assert run(tmp_path, bad) == 1
    assert (out / "samples.png").read_bytes() == b"good"
    partial = nbformat.read(out / "small.failed.ipynb", as_version=4)
    assert partial.cells[1].outputs[0].ename == "ZeroDivisionError" and not partial.cells[2].outputs
    assert "ZeroDivisionError: division by zero" in capfd.readouterr().err
    assert left(tmp_path) == [
        "quickstart",
        "quickstart/samples.png",
        "quickstart/small.failed.ipynb",
        "quickstart/small.ipynb",
    ]
    assert run(tmp_path, notebook(tmp_path, "print('good again')")) == 0
    assert not (out / "small.failed.ipynb").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="os.kill cannot send Ctrl-C on Windows")
def test_ctrl_c_reaches_the_running_cell_and_what_was_done_is_kept(tmp_path, capfd):
    started = tmp_path / "started"
    busy = f"import pathlib, time\npathlib.Path({str(started)!r}).touch()\ntime.sleep(60)"
    path = notebook(tmp_path, "print('before')", busy)

    def press() -> None:
        while not started.exists():
            time.sleep(0.05)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    assert run(tmp_path, path) == 130
    partial = nbformat.read(tmp_path / "runs" / "quickstart" / "small.failed.ipynb", as_version=4)
    assert partial.cells[0].outputs[0].text == "before\n"
    assert partial.cells[1].outputs[0].ename == "KeyboardInterrupt"
    assert "Interrupted" in capfd.readouterr().err


def test_output_is_shown_as_it_comes_and_silence_is_broken(tmp_path):
    out = io.StringIO()
    screen = Screen(out, quiet_for=0.05)
    with screen.watch():
        screen.stream("50 %\r100 %")
        time.sleep(0.4)
    assert out.getvalue().startswith("50 %\n100 %\n    ... still running, 0 s\n")


def test_lab_opens_the_executed_quickstart_when_there_is_one(tmp_path):
    assert lab.address(tmp_path) == "/lab/tree/notebooks/README.md"
    assert (lab.ROOT / "notebooks" / "README.md").is_file()
    executed = tmp_path / "runs" / "quickstart" / "00_quickstart.ipynb"
    executed.parent.mkdir(parents=True)
    executed.touch()
    assert lab.address(tmp_path) == "/lab/tree/runs/quickstart/00_quickstart.ipynb"


def test_root_is_told_how_to_start_lab_once_it_has_refused():
    assert "make lab LAB=--allow-root" in lab.hint(1, ["--no-browser"], 0)
    assert not lab.hint(0, [], 0), "it has started"
    assert not lab.hint(1, ["--allow-root"], 0) and not lab.hint(1, ["--ServerApp.allow_root=True"], 0)
    assert not lab.hint(1, [], 1000) and not lab.hint(1, [], None), "not root"


def test_the_hint_comes_after_jupyterlabs_own_words(monkeypatch, capsys):
    monkeypatch.setattr(lab.subprocess, "call", lambda command, env: 1)
    monkeypatch.setattr(lab.os, "geteuid", lambda: 0, raising=False)
    monkeypatch.setattr(sys, "argv", ["lab"])
    assert lab.main() == 1 and "--allow-root" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["", "--no-browser --port 8889"])
def test_make_hands_options_to_lab(given):
    said = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", "lab", f"LAB={given}"],
        cwd=lab.ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said.rstrip().endswith(f"-m scripts.lab {given}".rstrip())


def test_a_slow_browser_keeps_its_kernels(tmp_path):
    environment = {**lab.environment(), "JUPYTER_CONFIG_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "jupyterlab", "--show-config-json"]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert json.loads(said)["ServerApp"]["tornado_settings"]["ws_ping_timeout"] == 600_000  # milliseconds
