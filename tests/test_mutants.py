"""The list of mutants fits the code that it would spoil; running it is a command of its own (scripts/mutants.py)."""

import ast
import re

import pytest

from scripts import mutants as script
from scripts.mutants import ROOT, Mutant, main, mutants

MUTANTS = mutants()
MATHEMATICS = {
    *("schedule", "process", "parameterization", "denoiser", "sampler", "loss", "likelihood", "guidance"),
    *("gaussian", "ode", "adaptive", "analytic", "metrics"),
}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.module}-{mutant.why}")
def test_a_mutant_changes_one_place_of_code_that_still_parses(mutant):
    source = (ROOT / mutant.path).read_text(encoding="utf-8")
    assert source.count(mutant.old) == 1
    spoilt = source.replace(mutant.old, mutant.new)
    assert ast.dump(ast.parse(spoilt)) != ast.dump(ast.parse(source))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.module}-{mutant.why}")
def test_the_tests_of_a_mutant_exist(mutant):
    assert mutant.nodes
    for node in mutant.nodes:
        file, name = node.split("::")
        assert re.search(rf"(?m)^def {name}\(", (ROOT / file).read_text(encoding="utf-8")), node


def test_there_are_enough_in_every_module_of_the_mathematics():
    counted = {mutant.module: sum(m.module == mutant.module for m in MUTANTS) for mutant in MUTANTS}
    assert len(MUTANTS) >= 60 and counted.keys() >= MATHEMATICS and min(counted[m] for m in MATHEMATICS) >= 3
    assert len({(m.module, m.new, m.old) for m in MUTANTS}) == len(MUTANTS)


def test_list_prints_the_reasons_and_runs_nothing(capsys, monkeypatch):
    monkeypatch.setattr(script, "run", lambda *arguments: pytest.fail("it ran"))
    assert main(["--list", "Langevin"]) == 0
    assert capsys.readouterr().out == "sampler          Langevin's noise without sqrt(2)\n"
    assert main(["--list", "no such word"]) == 2


@pytest.mark.parametrize(
    ("codes", "killed", "expected"),
    [
        ((0, 1), "1 of 1 killed: 100.0%; 0 of them on import", 0),
        ((0, 0), "survived", 1),
        ((0, 3), "broken", 2),
        ((0, 4), "1 of them on import", 0),
        ((0, -14), "endless", 0),
        ((1,), "red", 2),
    ],
)
def test_the_exit_code_says_whether_all_were_killed(codes, killed, expected, capsys, monkeypatch):
    """What pytest answers for the code as it is, and then for a mutant, which is taken back afterwards."""
    answers, seen = iter(codes), []

    def run(nodes, folder, seconds):
        seen.append((folder / "diffusion_edu" / "gaussian.py").read_text(encoding="utf-8"))
        (folder / "output").write_text("what pytest printed", encoding="utf-8")
        return next(answers)

    monkeypatch.setattr(script, "run", run)
    assert main(["nats called bits"]) == expected
    assert killed in capsys.readouterr().out
    right = (ROOT / "diffusion_edu" / "gaussian.py").read_text(encoding="utf-8")
    assert seen[0] == right and all(spoilt != right for spoilt in seen[1:])


def test_a_survivor_needs_a_reason_and_a_reason_a_survivor(capsys, monkeypatch):
    codes = iter((0, 0, 0, 1))
    monkeypatch.setattr(script, "run", lambda nodes, folder, seconds: next(codes))
    monkeypatch.setattr(script, "SURVIVORS", {"nats called bits": "it is for a test"})
    assert main(["nats called bits"]) == 0
    assert "survived: nats called bits (it is for a test)" in capsys.readouterr().out
    assert main(["nats called bits"]) == 1
    assert "take it out" in capsys.readouterr().out


def test_every_reason_is_that_of_a_mutant():
    whys = [mutant.why for mutant in MUTANTS]
    assert all(whys.count(why) == 1 and reason for why, reason in script.SURVIVORS.items())


def test_a_mutant_that_no_longer_fits_is_broken(tmp_path):
    folder = tmp_path / "diffusion_edu"
    folder.mkdir()
    (folder / "ode.py").write_text("x = 1\n", encoding="utf-8")
    assert script.verdict(Mutant("ode", "x = 2", "x = 3", "the_tableau_is_scipys", "gone"), tmp_path).startswith(
        "broken"
    )
