"""Every exercise of every notebook: the stub is 'not attempted', the solution passes, and wrong answers are told why.

An exercise is a code cell with the tag `exercise`: the stub, and as its last line the call of the check. The next cell
holds the folded solution, with its code in a ```python fence.
"""

import ast
import copy
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

from diffusion_edu.checks import Verdict, parsed
from diffusion_edu.exercises import n00, n04, n07, n08, n12
from tests import wrong_answers

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))


class Found:
    """An exercise as it stands in a notebook."""

    def __init__(self, notebook: Path, preamble: str, cell: str, after: str) -> None:
        *stub, call = ast.parse(cell).body
        assert isinstance(call, ast.Expr), f"{notebook.name}: an exercise ends in the call of its check:\n{cell}"
        self.notebook = notebook.stem
        self.preamble, self.call = preamble, ast.unparse(call)
        self.stub = "\n".join(ast.unparse(part) for part in stub)
        fences = re.findall(r"```python\n(.*?)```", after, re.DOTALL)
        folded = re.search(r"<details>.*</details>", after, re.DOTALL)
        self.solution = fences[0] if fences and folded else None
        hint = re.search(
            r"<summary>Hint</summary>\n\n(.+?)\n\n</details>.*<summary>Solution</summary>", after, re.DOTALL
        )
        self.hint = hint[1] if hint else None

    def try_(self, attempt: str) -> Verdict:
        space: dict[str, object] = {"torch": torch}
        exec(self.preamble, space)
        exec(self.stub, space)
        exec(attempt, space)
        verdict = eval(self.call, space)
        assert isinstance(verdict, Verdict)
        return verdict

    @property
    def number(self) -> str:
        found = re.search(r"\d+\.\d+|[A-Z]\.\d+", self.try_("").message)
        assert found is not None
        return found.group()


def exercises() -> Iterator[Found]:
    for path in NOTEBOOKS:
        cells = nbformat.read(path, as_version=4).cells
        imports = [
            ast.unparse(node)
            for cell in cells
            if cell.cell_type == "code" and "exercise" not in cell.metadata.get("tags", [])
            for node in parsed(cell.source).body
            if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        for cell, after in zip(cells, [*cells[1:], None], strict=True):
            if "exercise" in cell.metadata.get("tags", []):
                yield Found(path, "\n".join(imports), cell.source, after.source if after is not None else "")


ALL = {f"{found.notebook}-{found.number}": found for found in exercises()}
every_exercise = pytest.mark.parametrize("found", ALL.values(), ids=ALL.keys())


@every_exercise
def test_the_stub_is_not_attempted(found):
    assert found.try_("").status == "not attempted"


@every_exercise
def test_the_folded_solution_is_right(found):
    assert found.solution is not None, "no folded solution with a python fence follows the exercise"
    verdict = found.try_(found.solution)
    assert verdict.status == "right", verdict.message


@every_exercise
def test_a_folded_hint_stands_before_the_folded_solution(found):
    assert found.hint is not None and "```" not in found.hint, "no folded hint, or one that is the solution already"


@every_exercise
def test_wrong_answers_are_caught_and_each_is_told_why(found):
    attempts = wrong_answers.of(found.notebook)[found.number]
    verdicts = [found.try_(code) for code, _ in attempts]
    for verdict, (code, words) in zip(verdicts, attempts, strict=True):
        assert verdict.status == "wrong" and words in verdict.message, f"{code}\nwas told: {verdict.message}"
    assert len({v.message for v in verdicts}) == len(verdicts), "two mistakes were told the same"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_notebook_has_at_least_three_exercises_with_wrong_answers(path):
    numbers = {found.number for found in ALL.values() if found.notebook == path.stem}
    assert len(numbers) >= 3 and numbers == wrong_answers.of(path.stem).keys()


class Listed(ast.NodeTransformer):
    """Turns `return a, b` into `return [a, b]`."""

    def visit_Return(self, node):
        if isinstance(node.value, ast.Tuple):
            node.value = ast.List(node.value.elts, ast.Load())
        return node


@every_exercise
def test_several_answers_may_come_as_a_list(found):
    assert found.solution is not None
    listed = ast.unparse(ast.fix_missing_locations(Listed().visit(ast.parse(found.solution))))
    verdict = found.try_(listed)
    assert verdict.status == "right", verdict.message


def test_some_exercises_ask_for_several_answers():
    tuples = [n for f in ALL.values() for n in ast.walk(ast.parse(f.solution or "")) if isinstance(n, ast.Return)]
    assert sum(isinstance(node.value, ast.Tuple) for node in tuples) >= 3


def test_there_are_exercises():
    assert len(ALL) >= 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_two_letters_are_no_program_of_a_hunt(path):
    module = importlib.import_module(f"diffusion_edu.exercises.n{path.stem.split('_')[0].lower()}")
    letters = ("PROGRAMS", "NETWORKS", "NAMES", "LOOPS", "SIMULATORS", "PROTOCOLS")
    for names in (getattr(module, word, ()) for word in letters):
        assert "CD" not in names and "" not in names


@pytest.mark.parametrize("name", ["CD", ""])
def test_a_hunt_runs_one_program_at_a_time(name):
    with pytest.raises(ValueError, match=r"run_program"):
        n04.run_program(name, 1.0, 50)


def test_a_right_answer_that_works_in_place_is_right():
    def noising(x_0, eps, alpha, sigma):
        x_0 *= alpha
        x_0 += sigma * eps
        return x_0

    def step(x_t, x_0_hat, a_s, s_s, a_t, s_t, z):
        rho = (a_t * s_s / (a_s * s_t)) ** 2
        z *= s_s * torch.sqrt(1 - rho)
        return a_t / a_s * s_s**2 / s_t**2 * x_t + a_s * (1 - rho) * x_0_hat + z

    def reverse(x, t, s, f, g, S, z):
        x += (-f * x + g**2 * S) * (t - s)
        x += g * torch.sqrt(t - s) * z
        return x

    for exercise, attempt in ((n00.noising, noising), (n08.skipped_step, step), (n12.reverse_step, reverse)):
        assert exercise(attempt).status == "right"


def test_a_resumed_step_may_be_numpys():
    def save(network, optimiser, average, step):
        return copy.deepcopy([part.state_dict() for part in (network, optimiser, average)]), np.int64(step)

    def load(checkpoint, *parts):
        for part, state in zip(parts, checkpoint[0], strict=True):
            part.load_state_dict(state)
        return checkpoint[1]

    assert n07.resume(save, load).status == "right"
