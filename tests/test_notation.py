"""The notation page, run: each row is converted there and back, each equation holds, each name exists.

A table's third column makes a letter of theirs from ours, its fourth makes one of ours from theirs. A round trip alone
would not see a mistake made in both, so the equations under each table, which are the papers' own, are evaluated too.
"""

import importlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import expit

import diffusion_edu
from diffusion_edu import V, edm, q_posterior, q_transition

PAGE = (Path(__file__).resolve().parents[1] / "book" / "notation.md").read_text(encoding="utf-8")
HEADER = "| in words | theirs | theirs from ours | ours from theirs |"
FUNCTIONS: dict[str, object] = {n: getattr(np, n) for n in ("log", "exp", "sqrt", "sin", "cos", "arctan2")}
FUNCTIONS["sigmoid"] = expit


@dataclass(frozen=True)
class Section:
    title: str
    schedule: str
    rows: list[tuple[str, str]]  # (theirs from ours, ours from theirs), as Python assignments
    equations: list[str]

    def ours(self) -> dict[str, object]:
        """Every letter of ours at six times, with one number of data each; hats are a denoiser's wrong answer."""
        schedule = eval(self.schedule, vars(diffusion_edu))
        T = 1000
        k = torch.tensor([2.0, 10, 137, 500, 900, 999], dtype=torch.float64)
        t, s = k / T, (k - 1) / T
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        draw = torch.Generator().manual_seed(0)
        x_0, eps, off = torch.randn(3, 6, dtype=torch.float64, generator=draw)
        x_t = alpha * x_0 + sigma * eps
        x_0_hat = x_0 + off
        eps_hat = (x_t - alpha * x_0_hat) / sigma
        alpha_rate, sigma_rate = schedule.rates(t)
        posterior = q_posterior(schedule, x_t, x_0, s, t)
        on_x_t, on_x_0 = (
            q_posterior(schedule, x_t * a, x_0 * b, s, t).mean / x for a, b, x in ((1, 0, x_t), (0, 1, x_0))
        )
        letters = {
            "T": torch.tensor(T), "k": k, "t": t, "alpha": alpha, "sigma": sigma, "log_snr": schedule.log_snr(t),
            "beta": q_transition(schedule, x_0, s, t).std.expand(6) ** 2, "alpha_bar_before": schedule.alpha(s) ** 2,
            "on_x_0": on_x_0, "on_x_t": on_x_t, "posterior_std": posterior.std.expand(6),
            "drift": schedule.drift(t), "diffusion": schedule.diffusion(t),
            "x_0": x_0, "eps": eps, "x_t": x_t, "x_0_hat": x_0_hat, "eps_hat": eps_hat,
            "v_hat": V.target(schedule, x_0_hat, eps_hat, t), "score_hat": -eps_hat / sigma,
            "velocity_hat": alpha_rate * x_0_hat + sigma_rate * eps_hat,
            "edm_hat": edm(0.5).target(schedule, x_0_hat, eps_hat, t),
        }  # fmt: skip
        return {name: np.asarray(value) for name, value in letters.items()}

    def theirs(self) -> dict[str, object]:
        """Every letter of theirs, made from ours."""
        ours = self.ours()
        made: dict[str, object] = {}
        for statement, _ in self.rows:
            name, expression = split(statement)
            assert name not in ours, f"{name} is a letter of ours: mark theirs"
            made[name] = eval(expression, {**FUNCTIONS, **ours})
        return made


def split(assignment: str) -> tuple[str, str]:
    name, expression = assignment.split(" = ", maxsplit=1)
    return name, expression


def code(cell: str) -> str:
    found = re.fullmatch(r"\s*`([^`]+)`\s*", cell)
    assert found, f"a conversion is code in backticks: {cell}"
    return found[1]


def sections() -> list[Section]:
    found = []
    for part in re.split(r"(?m)^## ", PAGE)[1:]:
        title, body = part.split("\n", maxsplit=1)
        if HEADER in body:
            lines = body.split(HEADER)[1].strip().splitlines()[1:]
            table = [line.strip().strip("|").split("|") for line in lines[: lines.index("")]]
            schedule = re.search(r"Schedule: `([^`]+)`", body)
            fence = re.search(r"```python\n(.*?)```", body, re.DOTALL)
            assert schedule and fence, f"{title} names no schedule or no equation"
            equations = [line.split("  #")[0] for line in fence[1].strip().splitlines()]
            found.append(Section(title, schedule[1], [(code(row[2]), code(row[3])) for row in table], equations))
    return found


SECTIONS = sections()
every_row = pytest.mark.parametrize(
    ("section", "row"),
    [
        pytest.param(section, row, id=f"{section.title}-{split(row[0])[0]}")
        for section in SECTIONS
        for row in section.rows
    ],
)


@every_row
def test_a_row_converts_there_and_back(section, row):
    ours, theirs = section.ours(), section.theirs()
    name, expression = split(row[1])
    own = split(row[0])[0]
    assert re.search(rf"\b{own}\b", expression), f"{row[1]} does not use {own}"
    # The way back may use their letters and what is known at the start, but not the letter that it makes.
    known = {letter: value for letter, value in ours.items() if letter != name}
    np.testing.assert_allclose(eval(expression, {**FUNCTIONS, **known, **theirs}), ours[name], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("section", "equation"),
    [
        pytest.param(section, equation, id=f"{section.title}-{number}")
        for section in SECTIONS
        for number, equation in enumerate(section.equations, 1)
    ],
)
def test_the_papers_equation_holds_in_their_letters(section, equation):
    left, right = equation.split(" == ")
    letters = {**FUNCTIONS, **section.ours(), **section.theirs()}
    np.testing.assert_allclose(eval(left, letters), eval(right, letters), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.title)
def test_each_letter_of_a_table_is_held_by_an_equation_or_is_only_a_name(section):
    """A letter that no equation uses must be one of ours under another name: nothing could be wrong with it."""
    used = " ".join(section.equations)
    for statement, _ in section.rows:
        name, expression = split(statement)
        renamed = expression in section.ours()
        converted_back = any(name in back for forth, back in section.rows if forth != statement)
        assert re.search(rf"\b{name}\b", used) or renamed or converted_back, name


@pytest.mark.parametrize("t_index", [0, 1, 998, 999])
def test_the_index_of_tutorials_is_one_less_than_ours(t_index):
    schedule = diffusion_edu.BetaSchedule.linear(1000)
    cumprod = torch.cumprod(1 - torch.linspace(1e-4, 2e-2, 1000, dtype=torch.float64), 0)  # as they make it
    torch.testing.assert_close(schedule.alpha(schedule.time(t_index + 1)) ** 2, cumprod[t_index], rtol=1e-12, atol=0)


def names_of_the_package() -> list[tuple[str, str]]:
    rows = re.findall(r"(?m)^\|[^|]+\| `([\w.]+)` \| `(\w+)` \|$", PAGE.split("| you know | here | module |")[1])
    assert len(rows) >= 10
    return rows


@pytest.mark.parametrize(("name", "module"), names_of_the_package())
def test_the_names_that_the_page_gives_exist(name, module):
    place = importlib.import_module(f"diffusion_edu.{module}")
    for part in name.split("."):
        place = getattr(place, part)
    assert callable(place)
    first = name.split(".")[0]
    assert hasattr(diffusion_edu, first) or first == "ResidualBlock"


def test_each_convention_of_diffusers_names_a_test_that_exists():
    rows = re.findall(r"(?m)^\|.*\| `(test_\w+)` \|$", PAGE.split("## Conventions: ours and diffusers'")[1])
    files = (Path(__file__).parent / "agreement").glob("test_diffusers_*.py")
    there = set(re.findall(r"(?m)^def (test_\w+)", "".join(file.read_text(encoding="utf-8") for file in files)))
    assert len(rows) >= 15 and set(rows) <= there


def test_the_page_has_the_alphabets_that_it_promises():
    wanted = ("DDPM", "DDIM", "Tutorials", "diffusers", "Score SDE, variance preserving", "EDM")
    titles = [section.title for section in SECTIONS]
    assert set(wanted) <= set(titles) and any("Flow matching" in title for title in titles)
    assert sum(len(section.rows) for section in SECTIONS) > 40


def test_a_wrong_conversion_would_be_seen():
    wrong = Section("wrong", "FlowSchedule()", [("t_flow = 1 - t", "t = t_flow")], ["x_t == t_flow * eps"])
    with pytest.raises(AssertionError):
        test_a_row_converts_there_and_back(wrong, wrong.rows[0])
    with pytest.raises(AssertionError):
        test_the_papers_equation_holds_in_their_letters(wrong, wrong.equations[0])
    assert wrong.theirs()["t_flow"][0] == 0.998
