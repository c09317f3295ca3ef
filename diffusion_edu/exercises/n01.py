"""The exercises of ``01_forward_process``."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..checks import Exercise, diagnose, hunted, strange
from ..data import seeded
from ..process import q_transition
from ..schedule import BetaSchedule

__all__ = ["BETA", "bug_hunt", "one_step", "run_chain", "steps_to_forget"]

BETA = 0.02  # of every step of the four chains
STEPS, RUNS = 150, 1000  # how long a chain is, and how many independent runs of it are seen at once
HONEST = "B"
HONEST_RUNS = 32  # how often a statistic is taken on an honest chain, to learn how much it varies by itself
LIMIT = 8.0  # of its own standard deviations: further out, a statistic accuses a chain


def _one_step(attempt: Callable[..., object]) -> str | None:
    beta = torch.tensor(0.3)
    x, eps = torch.randn(2, 5, 3, generator=seeded(1, 1))
    start = torch.zeros((), dtype=torch.float64)
    normal = q_transition(BetaSchedule(beta[None]), x, start, start + 1)
    keep = torch.sqrt(1 - beta)
    wrong = {
        "the noise is multiplied by beta, the variance; a draw is multiplied by the standard deviation sqrt(beta)": (
            keep * x + beta * eps
        ),
        "x does not shrink, so that every step makes the variance larger": x + torch.sqrt(beta) * eps,
        "x is multiplied by 1 - beta, but its root was asked for: the variance would settle at 1 / (2 - beta)": (
            (1 - beta) * x + torch.sqrt(beta) * eps
        ),
        "both roots are missing: variances stand where standard deviations belong": (1 - beta) * x + beta * eps,
        "the two factors have changed places": torch.sqrt(beta) * x + keep * eps,
        "x shrinks and no noise is added": keep * x,
    }
    answer = attempt(x, beta, eps)
    again = attempt(x, beta, eps)
    if isinstance(answer, Tensor) and isinstance(again, Tensor) and not torch.equal(answer, again):
        return "two calls with the same noise give different answers: use the eps that is given and draw none"
    return diagnose(answer, normal.mean + normal.std * eps, wrong)


def _steps_to_forget(k: object) -> str | None:
    log_keep = math.log1p(-BETA) / 2  # log of the factor of one step
    steps = math.log(0.01) / log_keep
    wrong = {
        "at this step the amplitude is still a little above 1 %; steps are whole, and the first one at which it has "
        "fallen to 1 % was asked for: round up": lambda k: math.floor(steps) <= float(k) < math.ceil(steps),
        "this is the step at which the variance (1 - beta)^k has fallen to 1 %; one step multiplies the amplitude by "
        "the root, sqrt(1 - beta)": lambda k: abs(float(k) - steps / 2) <= 0.6,
        "here log(1 - beta) was taken to be -beta; that is nearly so, but over hundreds of steps the difference "
        "shows": lambda k: abs(float(k) - 2 * math.log(100) / BETA) <= 0.6,
        "two logarithms are mixed here: log10 of 1 % divided by the natural logarithm of sqrt(1 - beta)": lambda k: (
            abs(float(k) - math.log10(0.01) / log_keep) <= 0.6
        ),
        "1 / beta steps shrink the amplitude only to about exp(-1/2) = 61 %": 1 / BETA,
    }
    return diagnose(k, math.ceil(steps), wrong, atol=1e-6, rtol=0.0)


def run_chain(name: str, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Many runs of one of the four chains, with beta = ``BETA`` at each step.

    Args:
        name: "A", "B", "C" or "D".
        seed: of the draws.

    Returns:
        x of shape (151, 1000) and eps of shape (150, 1000): x[k] is x_k of 1000 independent runs, and eps[k - 1] is
        what the chain returns as the noise of its step k. x_0 has mean 1 and variance 1.

    Raises:
        ValueError: for another name.
    """
    if name not in _CHAINS:
        raise ValueError(f"the chains are A, B, C and D, and {name!r} was asked for.")
    generator = seeded(1, ord(name), seed)
    x_k = 1 + torch.randn(RUNS, generator=generator)
    x, noises = [x_k], []
    for _ in range(STEPS):
        x_k, eps_k = _CHAINS[name](x_k, generator)
        x.append(x_k)
        noises.append(eps_k)
    return torch.stack(x), torch.stack(noises)


def _honest(x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    eps = torch.randn(x.shape, generator=generator)
    return math.sqrt(1 - BETA) * x + math.sqrt(BETA) * eps, eps


def _beta_for_its_root(x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    eps = torch.randn(x.shape, generator=generator)
    return math.sqrt(1 - BETA) * x + BETA * eps, eps


def _noise_drawn_twice(x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    x = math.sqrt(1 - BETA) * x + math.sqrt(BETA) * torch.randn(x.shape, generator=generator)
    return x, torch.randn(x.shape, generator=generator)  # not the noise that is in x


def _no_shrinking(x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    eps = torch.randn(x.shape, generator=generator)
    return x + math.sqrt(BETA) * eps, eps


_CHAINS = {"A": _beta_for_its_root, "B": _honest, "C": _noise_drawn_twice, "D": _no_shrinking}
_MISSED = {
    "A": "A's x has the right mean, and its eps is the noise that went into it, but its spread shrinks",
    "C": "C's x has the right variance at every step, and so has its eps: neither variance can show that the two do "
    "not belong together",
    "D": "D's x moves with its noise as it should, but its mean never fades and its spread grows",
}


def _bug_hunt(statistic: Callable[..., object]) -> str | None:
    accused = strange(
        lambda name, seed: statistic(*run_chain(name, seed)),
        _CHAINS,
        HONEST,
        runs=HONEST_RUNS,
        limit=LIMIT,
        atol=1e-5,  # float32 rounds at about 1e-7
    )
    if accused is None:
        return "on an honest chain your statistic gives numbers that are not finite"
    if HONEST in accused:
        return (
            f"it accuses chain {HONEST}, which is honest: with another seed the same chain gives a very different "
            "value. Average over the 1000 runs"
        )
    return hunted(accused, _MISSED)


one_step = Exercise(
    "1.1", _one_step, hint="beta is a variance, and so is 1 - beta; a draw is multiplied by standard deviations."
)
steps_to_forget = Exercise(
    "1.2", _steps_to_forget, hint="the amplitude after k steps is sqrt(1 - beta)^k; take logarithms on both sides."
)
bug_hunt = Exercise(
    "1.3",
    _bug_hunt,
    hint="a statistic may have several entries, torch.stack([...]); averaged over the steps too, it sees smaller bugs.",
    praise="it accuses A, C and D, and lets the honest B go",
)
