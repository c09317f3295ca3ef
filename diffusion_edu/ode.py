r"""Ordinary differential equations with a step size that adapts itself: dy/dt = f(t, y), and nothing about diffusion.

Notebook: ``13_solvers`` builds an embedded pair and its controller.

An explicit Runge-Kutta method asks for slopes at a few points inside a step of length h and adds them up:

    k_i = f(t + c_i h, y + h sum_j a_ij k_j),      y(t + h) = y + h sum_i b_i k_i

A second set of weights over the *same* slopes gives a less exact answer at no extra cost, and the difference of the
two, h sum_i e_i k_i, says how wrong the step may be. It is measured in units of the tolerance,

    error = norm(difference / (atol + rtol max(|y|, |y_new|))),

and the step is accepted if error <= 1. The next one is h times

    (2 error)^(-0.7/p) (2 error_before)^(0.4/p),        difference = O(h^p),

a PI controller, which aims at an error of 1/2: it looks at the error and at how it has changed, so that steps do not
swing (Hairer & Wanner 1996, "Solving ordinary differential equations II", section IV.2). In both pairs here the last
slope of a step is the first of the next ("first same as last"), so a step costs one call less than it has stages.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .door import check_counts, is_real, said

__all__ = ["BOGACKI_SHAMPINE", "DORMAND_PRINCE", "Pair", "Point", "attempt", "integrate", "next_step", "rms"]

Slope = Callable[[float, Tensor], Tensor]


@dataclass(frozen=True)
class Pair:
    """An embedded pair, first same as last.

    Args:
        name: what to call it in print.
        nodes: c_i of the stages after the first.
        stages: a_ij, a row for each of them; the last row is the weights b of the solution that is carried on.
        error: e_i = b_i - b*_i, b* the other solution's weights; one for each stage, the first included.
        order: of the solution carried on; the difference is O(h^order).
    """

    name: str
    nodes: tuple[float, ...]
    stages: tuple[tuple[float, ...], ...]
    error: tuple[float, ...]
    order: int


# Dormand & Prince 1980, "A family of embedded Runge-Kutta formulae", table 2: six calls per step; the RK45 of SciPy.
DORMAND_PRINCE = Pair(
    "Dormand-Prince 5(4)",
    (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1),
    (
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    (71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
    5,
)

# Bogacki & Shampine 1989, "A 3(2) pair of Runge-Kutta formulas": three calls per step, for loose tolerances.
BOGACKI_SHAMPINE = Pair(
    "Bogacki-Shampine 3(2)",
    (1 / 2, 3 / 4, 1),
    ((1 / 2,), (0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
    (-5 / 72, 1 / 12, 1 / 9, -1 / 8),
    3,
)


@dataclass(frozen=True)
class Point:
    """A point of the solution.

    Args:
        t: where.
        y: the solution there, (B, N).
        error: of the step that led here, in units of the tolerance, at most 1; 0 at the start.
        evaluations: calls of f so far.
        rejected: steps tried and thrown away so far.
    """

    t: float
    y: Tensor
    error: float
    evaluations: int
    rejected: int


def rms(z: Tensor) -> Tensor:
    """Root mean square of each example. (B, N) to (B,)."""
    return z.to(torch.promote_types(z.dtype, torch.float32)).square().mean(1).sqrt()  # 256^2 is too much for float16


def attempt(pair: Pair, f: Slope, t: float, y: Tensor, h: float, slope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One step of length h, good or bad.

    Args:
        pair: the method.
        f: (t, y) -> dy/dt, shape of y.
        t: where the step starts.
        y: (B, N).
        h: the step's length; negative to go backwards.
        slope: f(t, y), known from the step before, (B, N).

    Returns:
        y(t + h), the slope there, and the difference of the pair's two answers, each (B, N).
    """
    slopes, y_new = [slope], y
    for c, row in zip(pair.nodes, pair.stages, strict=True):
        y_new = y + h * sum((a * k for a, k in zip(row, slopes, strict=True) if a), torch.zeros_like(y))
        slopes.append(f(t + c * h, y_new))
    difference = h * sum((e * k for e, k in zip(pair.error, slopes, strict=True) if e), torch.zeros_like(y))
    return y_new, slopes[-1], difference


def next_step(error: float, before: float, order: int) -> float:
    """What to multiply the step by, from 0.2 to 10: the PI controller after an accepted step.

    Args:
        error: of this step, in units of the tolerance, >= 0.
        before: the error of the accepted step before it.
        order: p, where the error is O(h^p).
    """
    factor = max(2 * error, 1e-8) ** (-0.7 / order) * max(2 * before, 1e-8) ** (0.4 / order)
    return min(10.0, max(0.2, factor))


def integrate(
    f: Slope,
    y: Tensor,
    start: float,
    end: float,
    *,
    pair: Pair = DORMAND_PRINCE,
    atol: float = 1e-6,
    rtol: float = 1e-6,
    norm: Callable[[Tensor], Tensor] = rms,
    max_evaluations: int = 100_000,
) -> Iterator[Point]:
    """Follow dy/dt = f(t, y) from ``start`` to ``end``, upwards or downwards.

    One step size serves the whole batch, and the worst example decides: which steps are taken for an example depends on
    the others in its batch. Whether a step was good enough must be read from the device, so each step waits for it.

    Args:
        f: (t, y) -> dy/dt, shape of y.
        y: where to start, (B, N).
        start, end: any two different numbers.
        pair: the method.
        atol, rtol: the error allowed in each step, >= 0 and not both 0: atol + rtol |y| for a number y.
        norm: maps (B, N), the errors in units of the tolerance, to (B,), one number for each example.
        max_evaluations: how often to call f before giving up.

    Yields:
        the start, and then the end of each accepted step; the last has t = ``end`` exactly.

    Raises:
        ValueError: if a tolerance is negative or both are 0, start and end are the same or not finite, or y is not
            a non-empty float batch (B, N), or is on the meta device.
        TypeError: if ``pair`` is not a ``Pair``.
        ArithmeticError: if f gives NaN or infinity, the step shrinks below what floats resolve, or the evaluations
            run out.
    """
    if not isinstance(pair, Pair):
        raise TypeError(f"integrate got pair = {said(pair)}; give DORMAND_PRINCE or BOGACKI_SHAMPINE.")
    check_counts("integrate", max_evaluations=max_evaluations)
    if not isinstance(y, Tensor) or y.ndim != 2 or y.numel() == 0 or not y.is_floating_point() or y.is_meta:
        raise ValueError(f"integrate got y = {said(y)}; it needs floats (B, N), not empty and not on the meta device.")
    if not is_real(atol, rtol, start, end) or not (
        atol >= 0 and rtol >= 0 and atol + rtol > 0 and math.isfinite(atol + rtol + end - start) and start != end
    ):
        raise ValueError(
            f"integrate got atol={atol!r}, rtol={rtol!r} from {start} to {end}; it needs tolerances of at least 0 that "
            "are finite and not both 0, and an interval: a start and an end that are finite and differ."
        )
    t, slope, direction = start, f(start, y), math.copysign(1.0, end - start)
    unit = atol + rtol * y.abs()  # 0 where atol and y are both 0: such a number is left out of the first step
    h = _first_step(
        f, t, y, slope, direction, abs(end - start), pair.order, lambda z: norm(torch.where(unit > 0, z / unit, 0.0))
    )
    evaluations, rejected, before = 2, 0, 0.5
    yield Point(t, y, 0.0, evaluations, rejected)

    grow = True  # the step may grow, except straight after a rejection
    while t != end:
        last = h >= abs(end - t) * (1 - 1e-12)
        if last:
            h = abs(end - t)
        if evaluations + len(pair.nodes) > max_evaluations or t + direction * h == t:
            raise ArithmeticError(
                f"the ODE solver stands at t = {t:.6g} after {evaluations} evaluations with a step of {h:.3g}: the "
                f"tolerance atol={atol:g}, rtol={rtol:g} is below what {y.dtype} gives here, or the equation is "
                "stiff. Loosen the tolerance, use float64, or allow more with max_evaluations."
            )
        y_new, slope_new, difference = attempt(pair, f, t, y, direction * h, slope)
        evaluations += len(pair.nodes)
        unit = atol + rtol * torch.maximum(y.abs(), y_new.abs())  # 0 if atol = 0 and a number is and stays 0
        error = float(norm(torch.where((unit == 0) & (difference == 0), 0.0, difference / unit)).max())
        if not math.isfinite(error):
            raise _not_finite(t, t + direction * h)
        if error <= 1:
            t = end if last else t + direction * h
            y, slope = y_new, slope_new
            factor = next_step(error, before, pair.order)
            h *= factor if grow else min(1.0, factor)
            before, grow = max(error, 1e-4), True
            yield Point(t, y, error, evaluations, rejected)
        else:
            rejected, grow = rejected + 1, False
            h *= max(0.2, (2 * error) ** (-1 / pair.order))


def _first_step(
    f: Slope,
    t: float,
    y: Tensor,
    slope: Tensor,
    direction: float,
    longest: float,
    order: int,
    size: Callable[[Tensor], Tensor],
) -> float:
    """A first guess of the step, from the sizes of y, y' and y'' (Hairer, Nørsett & Wanner 1993, section II.4).

    One call of f.
    """
    d_0, d_1 = float(size(y).max()), float(size(slope).max())
    if not math.isfinite(d_1):
        raise ArithmeticError(f"the ODE solver got a slope that is NaN or infinite at t = {t:.6g}, where it starts.")
    h_0 = min(longest, 0.01 * d_0 / d_1 if min(d_0, d_1) > 1e-5 else 1e-4 * longest)
    d_2 = float(size(f(t + direction * h_0, y + direction * h_0 * slope) - slope).max()) / h_0
    if math.isinf(d_2):
        raise _not_finite(t, t + direction * h_0)
    h_1 = (0.01 / max(d_1, d_2)) ** (1 / order) if max(d_1, d_2) > 1e-15 else 100 * h_0
    return min(100 * h_0, h_1, longest)


def _not_finite(t: float, end: float) -> ArithmeticError:
    return ArithmeticError(f"the ODE solver got a slope that is NaN or infinite between t = {t:.6g} and {end:.6g}.")
