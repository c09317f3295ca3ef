"""The exercises of ``13_solvers``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ..checks import Exercise, diagnose, hunt
from ..denoiser import Denoiser, x_0_hat_and_velocity
from ..schedule import CosineSchedule

__all__ = ["PROGRAMS", "bug_hunt", "embedded_pair", "grid", "order_of", "run_program", "weights_2m"]

PROGRAMS = tuple("ABCDE")
HONEST = "D"
SMALLEST = 0.02  # the noise ratio at which program C stops
TOLERANCE, FIRST = 1e-3, 1e-3  # of exercise 13.3
PATIENCE = 20_000  # calls of f before a solver is taken for one that never ends


# ------------------------------------------------------------------------------------------------ 13.1


def _order_of(attempt: Callable[..., object]) -> str | None:
    cases = ((0.08, 0.02, 10, 20), (0.27, 0.01, 5, 15), (3e-3, 1e-3, 40, 90))
    found = torch.tensor([float(torch.as_tensor(attempt(*case))) for case in cases], dtype=torch.float64)

    def over(rule: Callable[[float, float], float]) -> Tensor:  # of the ratio of errors, and of steps
        return torch.tensor([rule(a / b, n / m) for a, b, m, n in cases], dtype=torch.float64)

    wrong = {
        "this is right only where the steps are doubled: the base of the logarithm has to be the steps' ratio, not 2": (
            over(lambda e, _: math.log2(e))
        ),
        "the sign is turned: an error that falls with more steps has a positive order": (
            over(lambda e, n: -math.log(e) / math.log(n))
        ),
        "this is the logarithm of the errors' ratio; it still has to be divided by that of the steps' ratio": (
            over(lambda e, _: math.log(e))
        ),
        "no logarithm was taken: e = C h^p, so the ratio of the errors is the p-th POWER of the ratio of the steps": (
            over(lambda e, n: e / n)
        ),
        "this is upside down: the logarithm of the errors' ratio belongs in the numerator": (
            over(lambda e, n: math.log(n) / math.log(e))
        ),
    }
    return diagnose(found, over(lambda e, n: math.log(e) / math.log(n)), wrong)


# ------------------------------------------------------------------------------------------------ 13.2


def _weights_2m(attempt: Callable[..., object]) -> str | None:
    before, now, after = -1.0, -0.4, 0.8  # lambda
    answer = attempt(before, now, after)
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        return "two numbers were asked for: the weight of x_0_hat, and the weight of x_0_hat of the step before"
    found = torch.stack([torch.as_tensor(part, dtype=torch.float64) for part in answer])

    def both(on_difference: float) -> Tensor:
        return torch.tensor([1 + on_difference, -on_difference], dtype=torch.float64)

    h, h_before = after - now, now - before
    exact = (h - 1 + math.exp(-h)) / (1 - math.exp(-h)) / h_before
    wrong = {
        "r is upside down: it is the step before over this one, and a LONGER step now extrapolates further": (
            both(h_before / (2 * h))
        ),
        "this continues the line to the END of the step; D is its value in the middle: half of that": (
            both(h / h_before)
        ),
        "these are the weights for equal steps; here the step before was half as long": both(0.5),
        "the sign is turned: the line goes on AWAY from what was said before": both(-h / (2 * h_before)),
        "the two have changed places: the weight of the newer x_0_hat comes first": both(h / (2 * h_before)).flip(0),
        "this is the weight of (13.14), exact on a line; the published step has 1 / (2 r)": both(exact),
        "they have to sum to 1: where x_0_hat does not change, D is x_0_hat": lambda a: abs(float(a.sum()) - 1) > 1e-6,
    }
    return diagnose(found, both(h / (2 * h_before)), wrong)


# ------------------------------------------------------------------------------------------------ 13.3


def _jolt(t: float, y: float) -> float:
    """The f of y' = f(t, y); its solution from y(0) = 0 is still for a while, rises like an arctangent, and fades."""
    return 6 / (1 + (30 * (t - 0.9)) ** 2) - 0.3 * y


def _solve(
    f: Callable[[float, float], float],
    y: float,
    t: float,
    end: float,
    tol: float,
    h: float,
    *,
    power: float = 0.5,
    safety: float = 0.9,
    carry: str = "heun",
    cut: bool = True,
    reject: bool = True,
    limits: tuple[float, float] = (0.2, 5.0),
    count_all: bool = False,
    half: float = 1.0,
) -> tuple[float, int, int]:
    """Heun-Euler with a controller. The options are the usual mistakes.

    Returns:
        y at the end, accepted steps, rejected steps.
    """
    accepted = rejected = 0
    while t < end - 1e-12:
        h = min(h, end - t) if cut else h
        k_1 = f(t, y)
        k_2 = f(t + h, y + h * k_1)
        y_euler, y_heun = y + h * k_1, y + h * (k_1 + k_2) / 2
        error = half * abs(y_heun - y_euler) / tol
        if error <= 1 or not reject:
            t, y, accepted = t + h, y_heun if carry == "heun" else y_euler, accepted + 1
        else:
            rejected += 1
        h *= min(limits[1], max(limits[0], safety * max(error, 1e-12) ** -power))
        if accepted + rejected > PATIENCE:
            break
    return y, accepted + (rejected if count_all else 0), rejected


def _embedded_pair(attempt: Callable[..., object]) -> str | None:
    problem = (0.0, 0.0, 2.0, TOLERANCE, FIRST)  # y, start, end, tol, first step
    calls: list[float] = []

    def f(t: float, y: float) -> float:
        calls.append(float(t))
        if len(calls) > PATIENCE:
            raise RuntimeError(
                f"f was asked {PATIENCE} times and the end is not in sight: does the step become shorter after a "
                "rejection, and does t move on after a success?"
            )
        return _jolt(float(t), float(y))

    answer = attempt(f, *problem)
    if not isinstance(answer, tuple | list) or len(answer) != 3:
        return "three things were asked for: y at the end, the number of accepted and the number of rejected steps"
    found = torch.tensor([float(part) for part in answer], dtype=torch.float64)

    def known(**options: object) -> Tensor:
        return torch.tensor(_solve(_jolt, *problem, **options), dtype=torch.float64)  # type: ignore[arg-type]

    right = known()
    if max(calls, default=0.0) > problem[2] + 1e-9:
        return (
            "f was asked beyond the end: shorten the step to what is left, so that the last one ends exactly at the end"
        )
    wrong = {
        "each step was accepted, however large its error: where the error is above 1, y and t stay, and the step is "
        "tried again, shorter": known(reject=False),
        "the step was corrected by error^-1; the estimate falls with h^2, so the power is -1/2": known(power=1.0),
        "the step was corrected by error^(-1/3), as if the estimate fell with h^3; it is Euler's error, which falls "
        "with h^2": known(power=1 / 3),
        "Euler's answer was carried on, and the better one was asked for: Heun's costs nothing more": (
            known(carry="euler")
        ),
        "the safety factor of 0.9 is missing": (  # its errors lie at 1, so that rounding decides how many are rejected
            lambda a: bool((a[:2] - known(safety=1.0)[:2]).abs().max() < 1e-6)
        ),
        "the limits of 0.2 and 5 on the change of a step are missing": known(limits=(0.0, math.inf)),
        "tries that failed were counted among the accepted steps": known(count_all=True),
        "the estimate is half of what it should be: h / 2 (k_2 - k_1) is the whole difference": known(half=0.5),
    }
    if bool(((found - right).abs() < torch.tensor([1e-7, 1.5, 0.5])).all()) and found[1] >= right[1]:
        return None  # rounding may leave a last step of 1e-16 before the end, and it is counted
    diagnosis = diagnose(found, right, wrong, atol=1e-7)
    if diagnosis is not None and "usual mistakes" in diagnosis and abs(float(found[0] - right[0])) < 10 * TOLERANCE:
        return (
            f"y at the end is about right, but by the rules of the exercise there are {int(right[1])} accepted and "
            f"{int(right[2])} rejected steps; yours has {int(found[1])} and {int(found[2])}"
        )
    return diagnosis


# ------------------------------------------------------------------------------------------------ 13.4


def _harm(place: Tensor) -> Tensor:
    return torch.exp(3 * torch.sin(2 * place)) / place


def _nodes(p: int, N: int, power: float) -> Tensor:
    fine = torch.linspace(1, 3, 20_001, dtype=torch.float64)
    share = torch.cat([fine.new_zeros(1), torch.cumulative_trapezoid(_harm(fine) ** power, fine)])
    share = share / share[-1]
    wanted = torch.linspace(0, 1, N + 1, dtype=torch.float64)
    index = torch.searchsorted(share, wanted).clamp(1, len(fine) - 1)
    left, right = share[index - 1], share[index]
    return fine[index - 1] + (wanted - left) / (right - left) * (fine[index] - fine[index - 1])


def _grid(attempt: Callable[..., object]) -> str | None:
    p, N = 2, 12
    nodes = torch.as_tensor(attempt(_harm, p, N)).detach().double()
    if nodes.shape != (N + 1,):
        return f"{N} steps have {N + 1} nodes, so the shape ({N + 1},) was asked for, and yours is {tuple(nodes.shape)}"
    wrong = {
        "the density is c itself: these steps have the same c h each, which would be right for p = 0": _nodes(
            p, N, 1.0
        ),
        "the density is c^(1/p); the error of one step falls with h^(p+1), and p + 1 is the root to take": (
            _nodes(p, N, 1 / p)
        ),
        "the steps are longest where they do most harm: their density has to rise with c": _nodes(p, N, -1 / (p + 1)),
        "these are equal steps, which do not look at c": _nodes(p, N, 0.0),
        "the nodes fall; they should rise from 1 to 3": _nodes(p, N, 1 / (p + 1)).flip(0),
    }
    return diagnose(nodes, _nodes(p, N, 1 / (p + 1)), wrong, atol=4e-3, rtol=0.0)


# ------------------------------------------------------------------------------------------------ 13.5


def run_program(name: str, denoiser: Denoiser, x: Tensor, times: Tensor) -> Tensor:
    """One of five programs that claim to solve the probability-flow ODE to second order.

    Args:
        name: "A", "B", "C", "D" or "E".
        denoiser: what says x_0_hat, with a schedule.
        x: x at times[0], (B, ...), float64.
        times: (N + 1,), falling, in (0, 1], or down to 0.

    Returns:
        x at times[-1], (B, ...).

    Raises:
        ValueError: for another name.
    """
    if name not in PROGRAMS:
        raise ValueError(f"the programs are A, B, C, D and E, and {name!r} was asked for.")
    return _multistep(denoiser, x, times) if name == "B" else _heun(name, denoiser, x, times)


def _heun(name: str, denoiser: Denoiser, x: Tensor, times: Tensor) -> Tensor:
    schedule = denoiser.schedule
    if name == "C" and times[-1] == 0:  # C: the last noise level is not 0, and there is no last step to x_0_hat
        end = schedule.time_at(torch.tensor(-2 * math.log(SMALLEST), dtype=torch.float64))
        times = torch.cat([times[:-1], end[None]])
    for t, s in itertools.pairwise(times):
        _, slope = x_0_hat_and_velocity(denoiser, x, t)
        x_s = x + (s - t) * slope
        if s > 0:
            asked = t if name == "A" else s  # A: the second slope at the new place, and at the old time
            _, slope_at_s = x_0_hat_and_velocity(denoiser, x_s, asked)
            mean = (2 * slope + slope_at_s) / 3 if name == "E" else (slope + slope_at_s) / 2  # E: not the mean
            x_s = x + (s - t) * mean
        x = x_s
    return x


def _multistep(denoiser: Denoiser, x: Tensor, times: Tensor) -> Tensor:
    schedule = denoiser.schedule
    before, h_before = None, None
    for t, s in itertools.pairwise(times):
        x_0_hat = denoiser(x, t)
        if s == 0:
            return x_0_hat
        h = (schedule.log_snr(s) - schedule.log_snr(t)) / 2
        D = x_0_hat
        if before is not None and h_before is not None:
            D = x_0_hat + (x_0_hat - before) * h / h_before  # B: the line's value at the end, and not in the middle
        x = schedule.sigma(s) / schedule.sigma(t) * x - schedule.alpha(s) * torch.expm1(-h) * D
        before, h_before = x_0_hat, h
    return x


_MISSED = {
    "A": "A takes its second slope at the new place, but at the old time; measure its order on an interval",
    "B": "B continues x_0_hat on a line, as 2M does, but too far; measure its order on an interval",
    "C": "C is of second order on every interval above 0, and only stops too early at the end: let the grid end at 0",
    "E": "E weighs its two slopes differently from Heun; measure its order on an interval",
}


def _bug_hunt(attempt: Callable[..., object]) -> str | None:
    return hunt(
        lambda name: attempt(partial(run_program, name), CosineSchedule()),
        PROGRAMS,
        HONEST,
        _MISSED,
        advice="Take more steps, so that the order shows, and compare with "
        "an exact answer; allow the measured order to be a little below 2",
    )


order_of = Exercise("13.1", _order_of, hint="e = C / N^p at both; divide one by the other, and take logarithms.")
weights_2m = Exercise(
    "13.2", _weights_2m, hint="D = x_0_hat + h / (2 h_before) (x_0_hat - before), h in lambda; collect the terms."
)
embedded_pair = Exercise(
    "13.3",
    _embedded_pair,
    hint="a while loop: cut h, two slopes, the error in units of tol; if it is at most 1 move on; then the new h, "
    "whatever happened.",
    praise="it shortens its steps before the jolt, counts what it throws away, and ends where it should",
)
grid = Exercise(
    "13.4",
    _grid,
    hint="the share of the steps below a place is the integral of c^(1/(p+1)) up to there, divided by all of it.",
)
bug_hunt = Exercise(
    "13.5",
    _bug_hunt,
    hint="measure the order from errors at N and 2N steps: on an interval inside (0, 1), and down to 0.",
    praise="it accuses A, B, C and E, and lets the honest D go",
)
