"""The exercises of ``A_refresher``."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from ..checks import Exercise, diagnose, hunted, truth
from ..data import seeded
from ..gaussian import bits_per_dim

__all__ = ["bits", "bug_hunt", "coin_denoiser", "product", "run_kl"]

NATS, DIMS = -1200.0, 784  # minus the log-density of one picture, in nats, and how many numbers it has
HONEST = "C"
HONEST_RUNS = 30  # how often a learner's test sees the honest program: one that accuses it by chance is found out
BROKEN_RUNS = 3  # how often it sees each broken one, which it must accuse every time


def _product(attempt: Callable[..., object]) -> str | None:
    m_1, m_2 = torch.randn(2, 4, generator=seeded(100, 1), dtype=torch.float64)
    v_1, v_2 = torch.rand(2, 4, generator=seeded(100, 2), dtype=torch.float64) + torch.tensor([[0.3], [1.5]])
    answer = attempt(m_1, v_1, m_2, v_2)
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        return "two things were asked for, in this order: return mean, variance"
    precision = 1 / v_1 + 1 / v_2
    pull = m_1 / v_1 + m_2 / v_2
    s_1, s_2 = v_1.sqrt(), v_2.sqrt()
    of_mean = {
        "the mean is the plain average: the surer measurement should pull more": (m_1 + m_2) / 2,
        "the weights of the mean have changed places: here the measurement with the larger variance pulls more": (
            (v_1 * m_1 + v_2 * m_2) / (v_1 + v_2)
        ),
        "the mean is weighted by 1 / standard deviation, and the weights are precisions, 1 / variance": (
            (m_1 / s_1 + m_2 / s_2) / (1 / s_1 + 1 / s_2)
        ),
        "this is the sum of precision times mean, the b of (A.7): it has to be divided by the precision": pull,
        "the means were added: that is the mean of the sum of two numbers, (A.3), and not of a product of densities": (
            m_1 + m_2
        ),
    }
    of_variance = {
        "the variance is still the precision: the precisions were added, and the variance is one over that": precision,
        "this is the standard deviation: the variance was asked for": precision**-0.5,
        "the variances were added: that is (A.3), for the sum of two numbers; two measurements of one number make it "
        "surer": v_1 + v_2,
        "the variance is the average of the two; the product is narrower than both": (v_1 + v_2) / 2,
        "1 / standard deviation was added: it is 1 / variance that adds": 1 / (1 / s_1 + 1 / s_2),
        "precisions were averaged, and they add: two measurements are surer than one": 2 / precision,
    }
    mean, variance = answer
    return diagnose(mean, pull / precision, of_mean, what="the mean") or diagnose(
        variance, 1 / precision, of_variance, what="the variance"
    )


def _bits(bits: object) -> str | None:
    per_number = NATS / DIMS
    offset = math.log2(127.5)
    right = bits_per_dim(torch.tensor(NATS, dtype=torch.float64), DIMS, scale=1 / 127.5)
    in_bits = per_number / math.log(2)
    wrong = {
        "this is in the unit of x: the term for the unit, log2(127.5), is missing": in_bits,
        "the term for the unit has the wrong sign: the density of x is 127.5 times that of the pixel, which makes the "
        "model look better than it is": in_bits - offset,
        "nats were not turned into bits: divide by log 2": per_number + offset,
        "nats were multiplied by log 2: a bit is smaller than a nat, so there are more of them": (
            per_number * math.log(2) + offset
        ),
        "8 bits were added: a pixel has 256 values, but what counts is by how much lengths shrink": in_bits + 8,
        "255 is the factor for a scale from 0 to 1; from -1 to 1 lengths shrink by 127.5": in_bits + math.log2(255),
        "7 bits were added: close, but from 0..255 to [-1, 1] the factor is 127.5, not 128": in_bits + 7,
        "the term for the unit is in nats here, and the rest in bits": in_bits + math.log(127.5),
        "the term for the unit belongs to each number, and here the whole picture got one": in_bits + offset / DIMS,
        "this is the whole picture: divide by its 784 numbers": lambda b: abs(float(b) - DIMS * float(right)) < 5,
        "the sign is turned around: bits per dimension are minus the logarithm": -float(right),
    }
    return diagnose(bits, float(right), wrong, atol=0.005, rtol=0.0)


def _coin_denoiser(attempt: Callable[..., object]) -> str | None:
    x = torch.linspace(-1.5, 1.5, 7, dtype=torch.float64)
    s, w = 0.7, 0.3
    log_odds = math.log(w / (1 - w))
    total = 2 * x / s**2 + log_odds  # log of P(+1 | x) / P(-1 | x)
    mean, variance = 2 * w - 1, 4 * w * (1 - w)
    wrong = {
        "this is the probability of +1; a squared error learns the mean of y, which is 2 P(+1 | x) - 1": (
            torch.sigmoid(total)
        ),
        "this is the more probable of the two values; a squared error learns their mean": torch.sign(total),
        "w was forgotten: this is right for a fair coin only": torch.tanh(x / s**2),
        "s is a standard deviation, and the Gaussian's exponent is divided by the variance s^2": (
            torch.tanh(x / s + log_odds / 2)
        ),
        "a half is missing: with l = log(P(+1 | x) / P(-1 | x)) the mean is 2 / (1 + exp(-l)) - 1 = tanh(l / 2)": (
            torch.tanh(total)
        ),
        "log(w / (1 - w)) needs the same factor one half as 2 x / s^2": torch.tanh(x / s**2 + log_odds),
        "w and 1 - w have changed places": torch.tanh(x / s**2 - log_odds / 2),
        "this is the best straight line: it uses the mean and the variance of y only, and y takes two values": (
            mean + variance / (variance + s**2) * (x - mean)
        ),
        "this does not look at x: it is the mean of y when nothing is seen": torch.full_like(x, mean),
        "this is x itself; its noise is still in it": x,
    }
    return diagnose(attempt(x, s, w), torch.tanh(total / 2), wrong)


def run_kl(name: str, m_1: float, s_1: float, m_2: float, s_2: float) -> float:
    """What one of the four programs says KL(N(m_1, s_1^2) || N(m_2, s_2^2)) is, in nats.

    Args:
        name: "A", "B", "C" or "D".
        m_1: mean of the first Gaussian.
        s_1: its standard deviation, > 0.
        m_2: mean of the second.
        s_2: its standard deviation, > 0.

    Raises:
        ValueError: for another name.
    """
    if name not in _PROGRAMS:
        raise ValueError(f"the programs are A, B, C and D, and {name!r} was asked for.")
    return _PROGRAMS[name](float(m_1), float(s_1), float(m_2), float(s_2))


def _honest(m_1: float, s_1: float, m_2: float, s_2: float) -> float:
    return math.log(s_2 / s_1) + (s_1**2 + (m_1 - m_2) ** 2) / (2 * s_2**2) - 0.5


def _arguments_swapped(m_1: float, s_1: float, m_2: float, s_2: float) -> float:
    return _honest(m_2, s_2, m_1, s_1)


def _std_for_variance(m_1: float, s_1: float, m_2: float, s_2: float) -> float:
    return math.log(s_2 / s_1) + (s_1 + (m_1 - m_2) ** 2) / (2 * s_2) - 0.5


def _half_forgotten(m_1: float, s_1: float, m_2: float, s_2: float) -> float:
    return math.log(s_2**2 / s_1**2) + (s_1**2 + (m_1 - m_2) ** 2) / (2 * s_2**2) - 0.5


_PROGRAMS: dict[str, Callable[[float, float, float, float], float]] = {
    "A": _arguments_swapped,
    "B": _std_for_variance,
    "C": _honest,
    "D": _half_forgotten,
}
_MISSED = {
    "A": "A is never negative and 0 for equal Gaussians: it is a KL, but not the one that was asked for. Only two "
    "Gaussians of different widths show it",
    "B": "B says the right thing wherever both standard deviations are 1",
    "D": "D says the right thing wherever the two standard deviations are equal",
}


def _bug_hunt(test: Callable[..., object]) -> str | None:
    def passes(name: str) -> bool:
        def kl(m_1: float, s_1: float, m_2: float, s_2: float) -> float:
            return run_kl(name, m_1, s_1, m_2, s_2)

        answer = test(kl)
        verdict = truth(answer)
        if verdict is None:
            raise TypeError(f"a test must return True or False, and yours returned {type(answer).__name__}")
        return verdict

    accusations = sum(not passes(HONEST) for _ in range(HONEST_RUNS))
    if accusations == HONEST_RUNS:
        return (
            f"it accuses program {HONEST}, which is honest, every time. Either your test allows for no rounding or "
            "chance, or what it expects is not KL(first || second): in the definition x is drawn from the first "
            "Gaussian, and the second one's log-density is subtracted from the first one's"
        )
    if accusations:
        return (
            f"it accuses program {HONEST}, which is honest, in {accusations} of {HONEST_RUNS} runs, by bad luck. "
            "Allow more standard errors"
        )
    return hunted([name for name in _MISSED if not any([passes(name) for _ in range(BROKEN_RUNS)])], _MISSED)


product = Exercise(
    "A.1", _product, hint="precisions, 1 / variance, add; the mean averages the two means, weighted by precision."
)
bits = Exercise(
    "A.2", _bits, hint="nats to bits, a picture to one number, the unit of x to the unit of a pixel: one factor each."
)
coin_denoiser = Exercise(
    "A.3", _coin_denoiser, hint="the conditional mean is P(+1 | x) - P(-1 | x); find their ratio by Bayes' rule."
)
bug_hunt = Exercise(
    "A.4",
    _bug_hunt,
    hint="compare with an average over draws from the first of two Gaussians that differ in mean and in width.",
    praise="it accuses A, B and D, and lets the honest C go",
)
