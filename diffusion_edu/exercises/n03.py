"""The exercises of ``03_reverse_process``."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from ..checks import Exercise, diagnose, hunted, strange
from ..data import seeded
from ..process import q_posterior
from ..schedule import BetaSchedule

__all__ = ["BETAS", "bug_hunt", "coin", "posterior", "run_sampler", "sampler_variance"]

BETAS = torch.linspace(0.001, 0.2, 100, dtype=torch.float64)  # of the four samplers, in 100 steps
RUNS = 2000  # independent walks of a sampler
HONEST = "A"
HONEST_RUNS = 32  # how often a statistic is taken on an honest sampler, to learn how much it varies by itself
LIMIT = 8.0  # of its own standard deviations: further out, a statistic accuses a sampler


def _posterior(attempt: Callable[..., object]) -> str | None:
    schedule, k = BetaSchedule(torch.tensor([0.3, 0.2, 0.4])), 3
    b, now, before = schedule.betas[k - 1], schedule.alpha_bars[k], schedule.alpha_bars[k - 1]
    x_k, x_0 = torch.randn(2, 5, 3, generator=seeded(3, 1), dtype=torch.float64)
    right = q_posterior(schedule, x_k, x_0, schedule.time(k - 1), schedule.time(k))
    answer = attempt(x_k, x_0, b, now, before)
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        return "two things were asked for, the mean and the variance: return mean, variance"
    mean, variance = answer
    on_x_k, on_x_0 = torch.sqrt(1 - b) * (1 - before) / (1 - now), torch.sqrt(before) * b / (1 - now)
    wrong_mean = {
        "in the mean, x_k and x_0 have changed places": on_x_k * x_0 + on_x_0 * x_k,
        "in the mean, x_0 has sqrt(alpha_bar_k) for a factor, where sqrt(alpha_bar_{k-1}) belongs: x_0 enters with the "
        "factor that it has in x_{k-1}": on_x_k * x_k + torch.sqrt(now) * b / (1 - now) * x_0,
        "in the mean, the factor of x_k lacks its sqrt(1 - beta)": on_x_k / torch.sqrt(1 - b) * x_k + on_x_0 * x_0,
        "in the mean, the roots are missing: sqrt(1 - beta) and sqrt(alpha_bar_{k-1}) belong there": (
            (1 - b) * (1 - before) / (1 - now) * x_k + before * b / (1 - now) * x_0
        ),
        "the mean is divided by 1 - alpha_bar_{k-1}, but 1 - alpha_bar_k, the variance in x_k, belongs there": (
            torch.sqrt(1 - b) * x_k + torch.sqrt(before) * b / (1 - before) * x_0
        ),
        "this is the mean of the step forward, which does not know x_0": torch.sqrt(1 - b) * x_k,
    }
    wrong_variance = {
        "for the variance, this is the standard deviation: the variance itself was asked for": right.std,
        "this is beta, the variance of the step forward; knowing x_0 makes it smaller": b,
        "the fraction in the variance is upside down: 1 - alpha_bar_{k-1} belongs above, 1 - alpha_bar_k below": (
            (1 - now) / (1 - before) * b
        ),
        "the variance was not divided by 1 - alpha_bar_k": (1 - before) * b,
    }
    return diagnose(mean, right.mean, wrong_mean, what="the mean") or diagnose(
        variance, right.variance, wrong_variance, what="the mean is right, but the variance is not"
    )


def _coin(attempt: Callable[..., object]) -> str | None:
    kept = torch.tensor(0.7, dtype=torch.float64)
    x_k = torch.tensor([-1.5, -0.4, 0.0, 0.2, 0.9, 2.0], dtype=torch.float64)
    root, var = torch.sqrt(kept), 1 - kept
    h = root * x_k / var
    wrong = {
        "this is the probability of +1, between 0 and 1; the mean is that probability minus that of -1": (
            torch.sigmoid(2 * h)
        ),
        "this is the more likely of the two, but the mean was asked for: at x_k = 0.2 neither is certain": (
            torch.sign(x_k)
        ),
        "x_k is divided by sigma, the standard deviation, but sigma^2 = 1 - alpha_bar belongs there": (
            torch.tanh(root * x_k / torch.sqrt(var))
        ),
        "there is a factor 2 too many: the two exponents differ by 2h, and tanh(h) has it already": torch.tanh(2 * h),
        "a factor 2 is missing: each exponent has the product 2 x_k sqrt(alpha_bar), divided by 2 sigma^2": (
            torch.tanh(h / 2)
        ),
        "alpha_bar stands where its root belongs": torch.tanh(kept * x_k / var),
        "here the shrinking was undone and nothing was averaged: x_k / sqrt(alpha_bar) is not between -1 and 1": (
            x_k / root
        ),
        "this is the best straight line in x_k, right for Gaussian data; a coin's data are two points": root * x_k,
    }
    return diagnose(attempt(x_k, kept), torch.tanh(h), wrong)


def _variances(
    betas: Tensor, tilde: bool, last: bool = False, root: bool = False, squared: bool = True, shrink: bool = True
) -> float:
    alpha_bars = BetaSchedule(betas).alpha_bars
    variance = 1.0
    for k in range(len(betas), 0, -1):
        b = float(betas[k - 1])
        added = b * float((1 - alpha_bars[k - 1]) / (1 - alpha_bars[k])) if tilde else b
        added = math.sqrt(added) if root else added
        keep = (1 - b) if squared else math.sqrt(1 - b)
        variance = (keep if shrink else 1.0) * variance + (added if k > 1 or last else 0.0)
    return variance


def _sampler_variance(attempt: Callable[..., object]) -> str | None:
    betas = torch.tensor([0.2, 0.1, 0.3, 0.5], dtype=torch.float64)
    wide, narrow = (attempt(betas.clone(), tilde) for tilde in (False, True))
    wrong = {
        "noise was added in the last step, and the sampler adds none there": _variances(betas, False, last=True),
        "one step multiplies the standard deviation by sqrt(1 - beta), so the variance by 1 - beta": (
            _variances(betas, False, squared=False)
        ),
        "a variance is added to a variance: no root is taken of it": _variances(betas, False, root=True),
        "the mean shrinks x_k, by sqrt(1 - beta), and the variance shrinks with it": (
            _variances(betas, False, shrink=False)
        ),
        "the steps are walked from the first to the last here; the sampler goes from k = T down to 1": (
            _variances(betas.flip(0), False)
        ),
    }
    diagnosis = diagnose(wide, _variances(betas, False), wrong, atol=1e-6, what="with beta")
    if diagnosis is not None:
        return diagnosis
    wrong = {
        "with tilde=True this is the answer for beta: the variance of each step should be beta-tilde there": (
            _variances(betas, False)
        ),
        "with beta it is right; with beta-tilde a root was taken, but beta-tilde is a variance already": (
            _variances(betas, True, root=True)
        ),
    }
    what = "with beta it is right, but with beta-tilde it is not"
    return diagnose(narrow, _variances(betas, True), wrong, atol=1e-6, what=what)


@lru_cache(maxsize=64)
def _walk(name: str, seed: int) -> Tensor:
    schedule = BetaSchedule(BETAS)
    alpha_bars, generator = schedule.alpha_bars, seeded(3, ord(name), seed)
    x_k = torch.randn(RUNS, generator=generator, dtype=torch.float64)
    x = [x_k]
    for k in range(len(BETAS), 0, -1):
        b, now, before = BETAS[k - 1], alpha_bars[k], alpha_bars[k - 1]
        x_0_hat = torch.tanh(torch.sqrt(now) * x_k / (1 - now))
        on_x_k = torch.sqrt(1 - b) * (1 - before) / (1 - now)
        on_x_0 = torch.sqrt(now if name == "D" else before) * b / (1 - now)
        variance = b * (1 - before) / (1 - now)
        width = variance if name == "C" else torch.sqrt(variance)
        if name == "B" and k == 1:
            width = torch.sqrt(b)
        x_k = on_x_k * x_k + on_x_0 * x_0_hat
        x_k = x_k + width * torch.randn(RUNS, generator=generator, dtype=torch.float64)  # the honest width ends at 0
        x.append(x_k)
    return torch.stack(x[::-1])


def run_sampler(name: str, seed: int = 0) -> Tensor:
    """The walk of one of the four samplers of a coin, x_0 = -1 or +1, with the betas ``BETAS``.

    Args:
        name: "A", "B", "C" or "D".
        seed: of the draws.

    Returns:
        x of shape (101, 2000), float64: x[k] is x_k of 2000 independent walks, and x[0] are the samples.

    Raises:
        ValueError: for another name.
    """
    if name not in ("A", "B", "C", "D"):
        raise ValueError(f"the samplers are A, B, C and D, and {name!r} was asked for.")
    return _walk(name, seed).clone()


_MISSED = {
    "B": "B walks as it should, and its samples have the right size on average; but they scatter around -1 and +1, "
    "and a coin's values are exactly -1 and +1",
    "C": "C's samples are perfect; on the way it has hardly any noise, so look at x[k] in the middle of the walk",
    "D": "D's samples are all a little too small, by less than 0.1 %: look at their size, which does not vary in an "
    "honest sampler",
}


def _bug_hunt(statistic: Callable[..., object]) -> str | None:
    accused = strange(
        lambda name, seed: statistic(run_sampler(name, seed)),
        "ABCD",
        HONEST,
        runs=HONEST_RUNS,
        limit=LIMIT,
        atol=1e-6,
    )
    if accused is None:
        return "on an honest sampler your statistic gives numbers that are not finite"
    if HONEST in accused:
        return (
            f"it accuses sampler {HONEST}, which is honest: with another seed the same sampler gives a very different "
            "value. Average over the 2000 runs"
        )
    return hunted(accused, _MISSED)


posterior = Exercise(
    "3.1",
    _posterior,
    hint="both factors and the variance have the denominator 1 - alpha_bar; with alpha_bar_before = 1 the mean is x_0 "
    "and the variance 0.",
)
coin = Exercise(
    "3.2", _coin, hint="the weights of +1 and -1 are exp(+h) and exp(-h), with h = sqrt(alpha_bar) x_k / sigma^2."
)
sampler_variance = Exercise(
    "3.3",
    _sampler_variance,
    hint="the mean of a step back is sqrt(1 - beta) x_k here; then (1.2) of notebook 01 gives the variance.",
    praise="beta keeps N(0, 1) except in the last step, and beta-tilde makes it narrower",
)
bug_hunt = Exercise(
    "3.4",
    _bug_hunt,
    hint="a statistic may have several entries, torch.stack([...]): some of the samples x[0], some of the way.",
    praise="it accuses B, C and D, and lets the honest A go",
)
