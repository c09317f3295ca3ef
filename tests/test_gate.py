"""The gate is red where something is wrong: a failed step, no tests, a failed cell, a changed output."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from scripts import gate

ROOT = Path(__file__).resolve().parents[1]


def program(name: str, text: str) -> gate.Step:
    return gate.Step(name, (sys.executable, "-c", text))


def test_a_red_step_does_not_hide_the_next_and_makes_the_gate_red(monkeypatch, capfd):
    steps = [program("first", "print('one'); raise SystemExit(3)"), program("second", "print('two')")]
    monkeypatch.setattr(gate, "steps", lambda: steps)
    assert gate.main([]) == 1
    said = capfd.readouterr().out
    assert "RED (exit code 3)" in said and "two" in said and said.rstrip().endswith("RED: first")
    assert gate.main(["second"]) == 0
    assert gate.main(["third"]) == 2


def nbval(path: Path) -> int:
    (step,) = [step for step in gate.steps() if step.name == "notebooks"]
    options = [part for part in step.command if not part.endswith(".ipynb") and part != "notebooks"]
    options += ["-n", "0", "-p", "no:cacheprovider"]  # one notebook needs no processes beside
    return subprocess.run([*options, str(path)], cwd=ROOT, capture_output=True).returncode


@pytest.mark.parametrize(
    ("source", "stored", "code"),
    [
        ("print('same')", "same\n", 0),
        ("print('new')", "old\n", 1),
        ("print('same'); 1 / 0", "same\n", 1),
        (None, "", 5),
    ],
    ids=["same output", "changed output", "failed cell", "no cells"],
)
def test_notebook_step_compares_stored_outputs(source, stored, code, tmp_path):
    output = [new_output("stream", name="stdout", text=stored)]
    cells = [] if source is None else [new_code_cell(source, outputs=output, execution_count=1)]
    path = tmp_path / "some.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    assert nbval(path) == code


def test_the_steps_are_those_that_the_readme_promises():
    assert [step.name for step in gate.steps()] == ["format", "lint", "types", "tests", "notebooks"]
