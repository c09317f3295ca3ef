"""The exercises of ``12_sdes``."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from ..analytic import GaussianMixture
from ..checks import Exercise, diagnose, hunted, strange
from ..data import seeded
from ..sampler import times
from ..schedule import VPSchedule

__all__ = ["SIMULATORS", "betas_of", "bug_hunt", "flow_sde", "ito_cube", "reverse_step", "run_simulator"]

VP = VPSchedule()
T = 2000  # steps of the table that is asked for
SIMULATORS = tuple("ABCDE")
HONEST = "C"
STEPS = 100  # of each simulator
RUNS = 4000  # independent walks of each
HONEST_RUNS = 16  # how often a statistic is taken on the honest simulator, to learn how much it varies by itself
LIMIT = 7.0  # of its own standard deviations: further out, a statistic accuses a simulator


# ------------------------------------------------------------------------------------------------ 12.1


def _rate(t: Tensor) -> Tensor:
    return 0.5 + 4 * t**2


def _integral(t: Tensor) -> Tensor:
    return 0.5 * t + 4 * t**3 / 3


def _betas_of(attempt: Callable[..., object]) -> str | None:
    answer = attempt(_rate, T)
    if not isinstance(answer, Tensor):
        return "a tensor of T betas was asked for"
    if answer.shape != (T,):
        return f"the table has the shape {tuple(answer.shape)}, and for T = {T} it should have ({T},): one beta a step"
    betas, t = answer.detach().double(), torch.arange(1, T + 1, dtype=torch.float64) / T
    rate, integral = _rate(t), _integral(t)
    known = {
        "this is the rate itself; in one step, which lasts 1/T, the variance that comes in is the rate times 1/T": rate,
        "this is the standard deviation of a step's noise; a beta is its variance": torch.sqrt(rate / T),
        "this is half of it: the half stands in the drift, -beta/2 x, because a root is taken there; the variance of a "
        "step is the whole rate times 1/T": rate / (2 * T),
        "this is 1 - alpha_bar, the noise of all the steps so far; a beta is what one step adds": -torch.expm1(
            -integral
        ),
        "this is the integral of the rate from 0 on; a beta is the part of it that belongs to one step": integral,
        "this is alpha_bar; a beta is what one step adds": torch.exp(-integral),
        "the rate is read backwards in time: step 1 is the cleanest, at t near 0": rate.flip(0) / T,
        "the rate was asked at k, and the time of step k is k / T": _rate(t * T) / T,
        "the rate was divided by T twice: one step of a table for T steps lasts 1/T": rate / T**2,
    }
    for words, wrong in known.items():
        if bool(torch.isclose(betas, wrong, rtol=0.02, atol=2e-2 * float(wrong.max())).all()):
            return words
    if not bool(((betas > 0) & (betas < 1)).all()):
        return "a beta lies between 0 and 1: it is the share of the variance that one step replaces by noise"
    gap = torch.log1p(-betas).cumsum(0) + integral
    if float(gap.abs().max()) < 0.01:
        return None
    k = int(gap.abs().argmax())
    return (
        f"at t = {(k + 1) / T:.2f} this table has log alpha_bar = {float(gap[k] - integral[k]):.3f}, and in the limit "
        f"it is {-float(integral[k]):.3f}: for T = {T} they should be within 0.01 of each other"
    )


# ------------------------------------------------------------------------------------------------ 12.2


def _flow_sde(attempt: Callable[..., object]) -> str | None:
    t = torch.tensor([0.1, 0.25, 0.3, 0.4, 0.48], dtype=torch.float64)
    answer = attempt(t)
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        return "two things were asked for, the drift f and the noise g: return f, g"
    f, g = answer
    right_f = -1 / (1 - t)
    wrong_f = {
        "f has the wrong sign: the signal shrinks, so alpha' is negative": -right_f,
        "f is the slope of log alpha: alpha' has to be divided by alpha": -torch.ones_like(t),
        "f is alpha'/alpha, and this is alpha/alpha'": -(1 - t),
        "in f, the derivative is that of log sigma; the mean is carried by alpha": 1 / t,
        "f has a factor 1/2: that is the VP's -beta/2, where beta is the slope of -2 log alpha": right_f / 2,
    }
    diagnosis = diagnose(f, right_f, wrong_f)
    if diagnosis is not None:
        return diagnosis if diagnosis.startswith(("f ", "in f")) else f"f: {diagnosis}"
    squared = 2 * t / (1 - t)
    wrong_g = {
        "this is g^2, so take the root": squared,
        "g^2 is only the growth of sigma^2 here; but the noise already there shrinks, and g^2 has to make up for that, "
        "too, by -2 f sigma^2": torch.sqrt(2 * t),
        "in g^2 a factor 2 is lost: the derivative of sigma^2 is 2 sigma sigma', and f comes twice as well": torch.sqrt(
            squared / 2
        ),
        "in g^2 the term with f has the wrong sign: f is negative, and minus 2 f sigma^2 is positive": torch.sqrt(
            2 * t - 2 * t**2 / (1 - t)
        ),
        "in g^2 the term with f lacks its factor 2": torch.sqrt(2 * t + t**2 / (1 - t)),
        "in g^2 sigma stands where sigma^2 belongs": torch.sqrt(1 + 2 * t / (1 - t)),
    }
    diagnosis = diagnose(g, torch.sqrt(squared), wrong_g)
    return f"f is right, and g is not: {diagnosis}" if diagnosis is not None else None


# ------------------------------------------------------------------------------------------------ 12.3


def _ito_cube(attempt: Callable[..., object]) -> str | None:
    x = torch.tensor([-1.3, -0.4, 0.2, 0.7, 1.9], dtype=torch.float64)
    f, g = torch.tensor(-0.6, dtype=torch.float64), torch.tensor(1.7, dtype=torch.float64)
    answer = attempt(x, f, g)
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        return "two things were asked for, what stands before dt and what stands before dw: return them as a pair"
    before_dt, before_dw = answer
    right = 3 * f * x**3 + 3 * g**2 * x
    wrong = {
        "before dt this is the ordinary chain rule: Ito's new term, half of g^2 times the second derivative, is "
        "missing": 3 * f * x**3,
        "before dt the new term lacks its half": 3 * f * x**3 + 6 * g**2 * x,
        "before dt, g stands where g^2 belongs: it comes from the square of the step": 3 * f * x**3 + 3 * g * x,
        "before dt, the drift of x is f x, and f alone stands here": 3 * f * x**2 + 3 * g**2 * x,
        "before dt the new term has the wrong sign": 3 * f * x**3 - 3 * g**2 * x,
        "before dt, the first term lacks the derivative of the cube, 3 x^2": f * x + 3 * g**2 * x,
        "before dt this is the new term alone; the drift of x carries y, too": 3 * g**2 * x,
        "the two are swapped: first what stands before dt": 3 * g * x**2,
    }
    diagnosis = diagnose(before_dt, right, wrong, what="before dt")
    if diagnosis is not None:
        return diagnosis
    wrong = {
        "before dw stands g times the derivative of the cube; the derivative is missing": g.expand_as(x),
        "before dw stands g times the derivative of the cube; g is missing": 3 * x**2,
        "before dw, g comes as it is; its square belongs before dt": 3 * g**2 * x**2,
        "before dw stands g times the derivative of the cube, and this is g times the cube itself": g * x**3,
        "before dw, this is the noise of an SDE whose noise is g x; here it is g": 3 * g * x**3,
    }
    diagnosis = diagnose(before_dw, 3 * g * x**2, wrong)
    return f"what stands before dt is right, and before dw not yet: {diagnosis}" if diagnosis is not None else None


# ------------------------------------------------------------------------------------------------ 12.4


def _reverse_step(attempt: Callable[..., object]) -> str | None:
    t, s = torch.tensor(0.6, dtype=torch.float64), torch.tensor(0.53, dtype=torch.float64)
    f, g = torch.tensor(-2.3, dtype=torch.float64), torch.tensor(1.7, dtype=torch.float64)
    x, S, z = torch.randn(3, 7, 2, generator=seeded(12, 4), dtype=torch.float64)
    h = t - s
    root = torch.sqrt(h)

    def step(
        on_f: float = -1.0, on_S: Tensor | float = 1.0, noise: Tensor | float = 1.0, pull: Tensor = g**2, h: Tensor = h
    ) -> Tensor:
        return x + (on_f * f * x + on_S * pull * S) * h + noise * g * root * z

    wrong = {
        "the score's term has the wrong sign: particles run away from the data": step(on_S=-1.0),
        "the drift f x has the wrong sign: upwards in time x moves by f x dt, downwards by minus that": step(on_f=1.0),
        "both terms of the drift have the wrong sign: in the form of Song et al., dt = s - t is negative": step(
            -1.0, 1.0, h=-h
        ),
        "half of the score belongs to the ODE, which has no noise; with the full noise the full g^2 score pulls": step(
            on_S=0.5
        ),
        "g stands before the score, and g^2 belongs there": step(pull=g),
        "the noise has the size g h; in a step of length h its standard deviation is g sqrt(h)": step(noise=root),
        "g^2 stands before the noise, and g belongs there": step(noise=g),
        "the noise is missing, and the full score then pulls too hard": step(noise=0.0),
        "this is a step of the ODE: no noise and half the score; the SDE was asked for": step(on_S=0.5, noise=0.0),
        "this is a step of the forward SDE: it knows no score": x + f * x * h + g * root * z,
        "the length of the step is missing: both terms of the drift have to be multiplied by t - s": step(
            h=torch.ones_like(h)
        ),
        "the noise has no g: its standard deviation is g sqrt(h)": step(noise=1 / g),
        "the noise is not multiplied by sqrt(h)": step(noise=1 / root),
        "this is what x changes by; return x plus that": step() - x,
    }
    return diagnose(attempt(x, t, s, f, g, S, z), step(), wrong)


# ------------------------------------------------------------------------------------------------ 12.5


def _data() -> GaussianMixture:
    half = torch.tensor([0.5, 0.5], dtype=torch.float64)
    return GaussianMixture(half, torch.tensor([[-1.0], [1.0]], dtype=torch.float64), 0.2 * half)


@lru_cache(maxsize=64)
def _walk(name: str, seed: int) -> Tensor:
    mixture, generator = _data(), seeded(12, ord(name), seed)
    x = torch.randn(RUNS, 1, generator=generator, dtype=torch.float64)
    walk = [x]
    for t, s in itertools.pairwise(times(STEPS)):
        h, f, g = t - s, VP.drift(t), VP.diffusion(t)
        pull = g**2 * mixture.marginal(VP, t).score(x)
        if name == "B":
            pull = pull / 2
        drift = f * x + pull if name == "D" else -f * x + pull
        width = g * (h if name == "A" else torch.sqrt(h))
        if s == 0 and name != "E":
            width = torch.zeros_like(width)
        x = x + drift * h + width * torch.randn(x.shape, generator=generator, dtype=torch.float64)
        walk.append(x)
    return torch.stack(walk[::-1]).squeeze(2)


def run_simulator(name: str, seed: int = 0) -> Tensor:
    """The walk of one of five programs that simulate the reverse SDE of the VP, with the exact score.

    The data are two narrow heaps at -1 and +1, equally likely, of standard deviation 0.1.

    Args:
        name: "A", "B", "C", "D" or "E".
        seed: of the draws.

    Returns:
        x of shape (101, 4000), float64: x[k] holds 4000 independent walks at t = k / 100, and x[0] are the samples.

    Raises:
        ValueError: for another name.
    """
    if name not in SIMULATORS:
        raise ValueError(f"the simulators are A, B, C, D and E, and {name!r} was asked for.")
    return _walk(name, seed).clone()


_MISSED = {
    "A": "A has far too little noise on the way: look at the variance of x[k] for some k in the middle",
    "B": "B's particles are pulled too weakly: look at the spread of the samples, or at the variance on the way",
    "D": "D's particles are pulled inwards twice: look at the variance of x[k] in the middle, which should be near 1",
    "E": "E's samples have the right mean and, nearly, the right variance; but the heaps are wider than they should "
    "be: look at how far the samples lie from the nearer of -1 and +1",
}


def _bug_hunt(statistic: Callable[..., object]) -> str | None:
    accused = strange(
        lambda name, seed: statistic(run_simulator(name, seed)),
        SIMULATORS,
        HONEST,
        runs=HONEST_RUNS,
        limit=LIMIT,
        atol=1e-9,
    )
    if accused is None:
        return "on the honest simulator your statistic gives numbers that are not finite"
    if HONEST in accused:
        return (
            f"it accuses simulator {HONEST}, which is honest: another run of the same program gives quite another "
            "value. Average over the walks"
        )
    return hunted(accused, _MISSED)


betas_of = Exercise(
    "12.1",
    _betas_of,
    hint="step k lasts from (k - 1) / T to k / T, and a rate times a time is a variance.",
    praise="for T = 2000 the table is within 0.01 of its limit, in log alpha_bar, at every step",
)
flow_sde = Exercise(
    "12.2", _flow_sde, hint="(12.6) with alpha = 1 - t and sigma = t: alpha' = -1, and (sigma^2)' = 2 t."
)
ito_cube = Exercise("12.3", _ito_cube, hint="(12.8) with a = f x and phi = x^3, whose derivatives are 3 x^2 and 6 x.")
reverse_step = Exercise(
    "12.4", _reverse_step, hint="(12.17) with lambda = 1, over a time h = t - s, with sqrt(h) z for dw."
)
bug_hunt = Exercise(
    "12.5",
    _bug_hunt,
    hint="a statistic may have several entries, torch.stack([...]): some of the samples x[0], some of the way.",
    praise="it accuses A, B, D and E, and lets the honest C go",
)
