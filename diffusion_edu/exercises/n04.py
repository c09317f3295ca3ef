"""The exercises of ``04_elbo``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..checks import Exercise, diagnose, hunted
from ..data import seeded
from ..gaussian import bits_per_dim
from ..process import posterior_kl, posterior_std, transition_std
from ..sampler import times
from ..schedule import BetaSchedule

__all__ = ["NAMES", "audit", "bits", "missing", "one_term", "report", "run_program"]

SCHEDULE = BetaSchedule.linear()
LIMIT = 1e-6  # nats: an audit accuses a program whose number is further from 0
HONEST = "D"
PROGRAMS = tuple("ABCDE")
NAMES = ("L_T", "L_1", "L_0", "widths", "none")


# ------------------------------------------------------------------------------------------------- 4.1


def _bits(attempt: Callable[..., object]) -> str | None:
    nats = torch.tensor([-2500.0, -1200.0, 310.0], dtype=torch.float64)
    dims = 784
    in_bits, offset = nats / (dims * math.log(2)), math.log2(127.5)
    wrong = {
        "this is in nats for each number: a bit is log 2 = 0.69 nats, so divide by log 2 as well": nats / dims,
        "these are the bits in the unit of the range [-1, 1]; the unit of an 8-bit pixel is 127.5 times smaller, and "
        "log2(127.5) was forgotten": in_bits,
        "log2(127.5) was subtracted: in the smaller unit the density is smaller, so it takes more bits": (
            in_bits - offset
        ),
        "the offset here is 8 bits, and that is for data on [0, 1] with 256 values; data on [-1, 1] have the offset "
        "log2(127.5)": lambda answer: bool(
            ((answer - in_bits - 8).abs() < 1e-3).all() or ((answer - in_bits - math.log2(255)).abs() < 1e-3).all()
        ),
        "the offset here is 7 bits, and that is for a bin of width 2 / 256; neighbouring values of 8-bit data are "
        "2 / 255 apart": in_bits + 7,
        "the offset is in nats here, log(127.5), and the rest in bits": in_bits + math.log(127.5),
        "the offset was divided by the number of dimensions; each pixel changes its own unit, so each gets all of it": (
            in_bits + offset / dims
        ),
        "these are the bits of a whole picture: divide by the number of dimensions": nats / math.log(2) + offset * dims,
    }
    return diagnose(attempt(nats, dims), bits_per_dim(nats, dims, scale=1 / 127.5), wrong, atol=1e-4, rtol=0.0)


# ------------------------------------------------------------------------------------------------- 4.2


def _one_term(attempt: Callable[..., object]) -> str | None:
    s, t = SCHEDULE.time(torch.tensor(40)), SCHEDULE.time(torch.tensor(50))
    before, now = SCHEDULE.alpha(s) ** 2, SCHEDULE.alpha(t) ** 2
    error = torch.randn(5, generator=seeded(4, 2), dtype=torch.float64)
    variance = 0.9 * transition_std(SCHEDULE, s, t) ** 2
    right = posterior_kl(SCHEDULE, error, variance.sqrt(), s, t)
    w = posterior_std(SCHEDULE, s, t) ** 2 / variance
    fall = before / (1 - before) - now / (1 - now)
    widths = (w - 1 - torch.log(w)) / 2
    wrong = {
        "this is the term of a model that has the posterior's variance; this model has another one, given by the "
        "argument variance": fall / 2 * error**2,
        "the price of the wrong width, (w - 1 - log w) / 2, is missing": w * fall / 2 * error**2,
        "the error's part has no factor w: it is measured in the model's variance, not in the posterior's": (
            widths + fall / 2 * error**2
        ),
        "w is upside down: it is the posterior's variance divided by the model's": (1 / w - 1 + torch.log(w)) / 2
        + fall / 2 * error**2 / w,
        "the error is not squared": widths + w * fall / 2 * error,
        "the factor 1/2 before the SNR difference is missing": widths + w * fall * error**2,
        "the SNR falls with k, so SNR_k - SNR_{k-1} is negative: take SNR_{k-1} - SNR_k": widths
        - w * fall / 2 * error**2,
        "here log w has the wrong sign: the price of a width is (w - 1 - log w) / 2, and is never negative": (
            w - 1 + torch.log(w)
        )
        / 2
        + w * fall / 2 * error**2,
    }
    return diagnose(attempt(error, before, now, variance), right, wrong, atol=1e-9, rtol=1e-7)


# ------------------------------------------------------------------------------------------------- 4.3


def _terms(v_0: float, steps: int) -> dict[str, Tensor]:
    """What the programs below need, for data N(0, v_0) and T = ``steps`` equal steps.

    "signal", "noise" and "left" have entries for k = 0 ... T; "beta", "posterior" and "gain" for k = 2 ... T.
    """
    t = times(steps).flip(0)
    signal, noise = SCHEDULE.alpha(t) ** 2, SCHEDULE.sigma(t) ** 2
    left = torch.full_like(t, v_0)  # Var[x_0 | x_k]
    left[1:] = v_0 * noise[1:] / (v_0 * signal[1:] + noise[1:])
    beta = transition_std(SCHEDULE, t[1:-1], t[2:]) ** 2
    posterior = posterior_std(SCHEDULE, t[1:-1], t[2:]) ** 2
    gain = torch.sqrt(signal[1:-1]) * beta / noise[2:]
    return {"signal": signal, "noise": noise, "left": left, "beta": beta, "posterior": posterior, "gain": gain}


def _parts(v_0: float, steps: int) -> tuple[float, Tensor, Tensor, float]:
    """L_T, the widths' parts and the errors' parts for k = 2 ... T, and L_0: for the variance beta."""
    a = _terms(v_0, steps)
    w = a["posterior"] / a["beta"]
    prior = a["signal"][-1] * v_0 / a["noise"][-1] / 2
    widths = (w - 1 - torch.log(w)) / 2
    errors = a["gain"] ** 2 * a["left"][2:] / a["beta"] / 2
    decoder = torch.log(2 * math.pi * a["noise"][1]) / 2 + a["left"][1] / a["noise"][1] / 2
    return float(prior), widths, errors, float(decoder)


def report(name: str) -> float:
    """What a colleague reports as the bound, in nats: data N(0, 4), T = 1000 equal steps, the variance beta.

    Args:
        name: "A" to "E". Each has left out one thing of ``NAMES``.

    Raises:
        ValueError: for another name.
    """
    if name not in _LEFT_OUT:
        raise ValueError(f"the reports are A, B, C, D and E, and {name!r} was asked for.")
    prior, widths, errors, decoder = _parts(4.0, 1000)
    whole = prior + float((widths + errors).sum()) + decoder
    left_out = {
        "L_T": prior,
        "L_1": float(widths[0] + errors[0]),
        "L_0": decoder,
        "widths": float(widths.sum()),
        "none": 0.0,
    }
    return whole - left_out[_LEFT_OUT[name]]


_LEFT_OUT = {"A": "widths", "B": "L_0", "C": "none", "D": "L_1", "E": "L_T"}
_WHY = {
    "A": "report A lies 0.34 nats below the exact value, and no single step explains that; sum each of the two parts "
    "of (4.10) alone",
    "B": "report B lies more than 3 nats above the exact value; leaving a part out makes a sum larger only if the part "
    "is negative, and only one of them is",
    "C": "report C lies above the exact value by less than a thousandth, which is what (4.22) promises for a sum that "
    "has everything",
    "D": "report D lies 0.39 nats below the exact value; compute the first step's term (k = 2) alone",
    "E": "reports C and E differ by 0.00008; compute L_T",
}


def _missing(answer: object) -> str | None:
    if not isinstance(answer, Mapping) or set(answer) != set(_LEFT_OUT):
        return f"a dictionary with the keys A, B, C, D and E is asked for, and this is {answer!r}"
    for name in _LEFT_OUT:
        if answer[name] is None or answer[name] is ...:
            return f"nothing is said about report {name}"
        if answer[name] not in NAMES:
            return f"for {name} it says {answer[name]!r}; the names to choose from are {', '.join(NAMES)}"
    for name, right in _LEFT_OUT.items():
        if answer[name] != right:
            return f"{answer[name]} is not what {name} left out: {_WHY[name]}"
    return None


# ------------------------------------------------------------------------------------------------- 4.4


def run_program(name: str, v_0: float, steps: int) -> tuple[float, float, float]:
    """What one of the five programs reports: L_T, the sum of L_{k-1}, and L_0, averaged over the data, in nats.

    The data are N(0, v_0), the denoiser is the exact one, the model's variance is beta, and there are T equal steps of
    the linear schedule. Four of the programs have a bug.

    Args:
        name: "A" to "E".
        v_0: variance of the data, > 0.
        steps: T, at least 3.

    Raises:
        ValueError: for another name, variance or number of steps.
    """
    if name not in PROGRAMS or v_0 <= 0 or steps < 3:
        raise ValueError(
            f"run_program got {name!r}, v_0 = {v_0} and T = {steps}; it takes A to E, v_0 > 0 and T from 3 on."
        )
    a = _terms(v_0, steps)
    prior, widths, errors, decoder = _parts(v_0, steps)
    if name == "A":  # the widths' part left out
        widths = torch.zeros_like(widths)
    elif name == "B":  # beta-tilde with its two variances the wrong way round
        w = a["noise"][2:] / a["noise"][1:-1]
        widths = (w - 1 - torch.log(w)) / 2
    elif name == "C":  # the denoiser is asked one step too early: the error of x_{k-1} stands where x_k's belongs
        errors = errors * a["left"][1:-1] / a["left"][2:]
    elif name == "E":  # the decoder's variance used as its standard deviation
        variance = a["noise"][1] ** 2
        decoder = float(torch.log(2 * math.pi * variance) / 2 + a["left"][1] / variance / 2)
    return prior, float((widths + errors).sum()), decoder


_MISSED = {
    "A": "A forgets the price of a wrong width, and so its sum is too small",
    "B": "B has a wrong posterior variance, and its sum is too large: it still lies above the exact value, so the "
    "test 'is it above?' does not find it",
    "C": "C takes the error at the wrong one of two neighbouring steps: each term is a little too small",
    "E": "E's decoder has a variance where a standard deviation belongs, and its sum is too large: it still lies above "
    "the exact value, so the test 'is it above?' does not find it",
}


def _audit(attempt: Callable[..., object]) -> str | None:
    accused = []
    for name in PROGRAMS:

        def program(v_0: float, steps: int, name: str = name) -> tuple[float, float, float]:
            return run_program(name, v_0, steps)

        found = torch.as_tensor(attempt(program)).detach().double().flatten()
        if not bool((found.abs() <= LIMIT).all()):  # also where it is not a number
            accused.append(name)
    if HONEST in accused:
        return (
            f"it accuses program {HONEST}, which is honest. A bound may lie above the exact value: choose data for "
            "which the honest bound has no gap, and compare with the entropy of those data"
        )
    return hunted(accused, _MISSED)


bits = Exercise("4.1", _bits, hint="two things happen: nats become bits, and a density changes its unit, (4.14).")
one_term = Exercise("4.2", _one_term, hint="this is (4.10); SNR = alpha_bar / (1 - alpha_bar), and w is a ratio.")
missing = Exercise(
    "4.3",
    _missing,
    hint="compute each part with expected_parts or its lines; compare them with how far each report is from 2.112086.",
    praise="you now know how large each part is, and which one is negative",
)
audit = Exercise(
    "4.4",
    _audit,
    hint="in (4.22) there is no gap if every r_k is 1: with (4.18), for which variance of the data is that so?",
    praise="it accuses A, B, C and E, and lets the honest D go",
)
