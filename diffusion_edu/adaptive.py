r"""Steps as long as the error allows: adaptive samplers for the probability-flow ODE and for the reverse SDE.

Notebook: ``13_solvers``, which draws where the steps go.

A grid of times is a guess about where the path bends. Both samplers here try a step, estimate its error from two
answers, one better than the other, and take it, or throw it away and try a shorter one.

*The ODE*, by an embedded Runge-Kutta pair with a PI controller (``ode``). Its time is the angle of (alpha, sigma),
in which the path is smooth whatever the schedule is. The tolerance is for each step. Errors of the steps add up and are
passed on by the flow, which mostly draws paths together on the way down, so that on the course's examples the error at
the end is within a factor of 10 of atol + rtol |x|.

*The SDE*, by the method of Jolicoeur-Martineau et al. 2021, "Gotta go fast when generating data with score-based
models", algorithm 1. With F(x, t) = f x - g^2 score, a step of length h backwards in time is

    x'  = x - h F(x, t) + g(t) dW                   Euler-Maruyama
    x'' = (x' + x - h F(x', t - h) + g(t - h) dW) / 2      the same dW; strong order 1, like x', as g has no x in it
    error = rms((x' - x'') / max(atol, rtol |x'|, rtol |x' of the step before|))
    h <- 0.9 error^(-0.9) h

and x'' is kept if error <= 1. A draw of dW that makes the error large is thrown away more often than others, so drawing
anew after a rejection, as in the paper, favours small noise and noise against the drift: variance and mean are wrong.
Here a rejected dW is remembered and *divided*: the shorter step gets its part by the Brownian bridge, a later one the
rest (Rackauckas & Nie 2017, "Adaptive methods for stochastic differential equations via natural embeddings and
rejection sampling with memory").

Both stop at the noise-to-signal ratio ``sigma_min``, and the last step into t = 0 returns x_0_hat: no denoiser is asked
at t = 0. Where alpha(1) = 0 the SDE's drift is infinite at t = 1, and ``adaptive_sde`` starts where sigma / alpha = 80
instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .denoiser import Denoiser, State, angle, check_batch, forget, time_at_angle, velocity_in_angle
from .door import check_counts, check_generator, is_real
from .gaussian import noise_like
from .ode import DORMAND_PRINCE, Pair, integrate, rms
from .schedule import LARGEST_RATIO, NoiseSchedule, expand

__all__ = ["AdaptiveState", "adaptive_ode", "adaptive_sde"]

TimeOf = Callable[[float], Tensor]


@dataclass(frozen=True)
class AdaptiveState(State):
    """A state that also says what it cost to get here.

    Args:
        t, x, x_0_hat, previous: as in ``State``: () float64, and (B, ...).
        evaluations: calls of the denoiser so far, rejected steps included.
        rejected: steps tried and thrown away so far.
        error: of the step that led here, in units of the tolerance, at most 1; 0 at the start and for the step into 0.
    """

    evaluations: int = 0
    rejected: int = 0
    error: float = 0.0


@torch.no_grad()
def adaptive_ode(
    denoiser: Denoiser,
    x: Tensor,
    atol: float = 1e-3,
    rtol: float = 1e-3,
    *,
    pair: Pair = DORMAND_PRINCE,
    sigma_min: float | None = None,
    condition: Tensor | None = None,
    max_evaluations: int = 10_000,
) -> Iterator[AdaptiveState]:
    """The probability-flow ODE (Song et al. 2021, eq. 13) from t = 1 to 0, in steps that keep to a tolerance.

    One step size serves the whole batch, and its worst example decides. Each step waits for the device.

    Args:
        denoiser: what says x_0_hat. A network must be in eval mode.
        x: x at t = 1, (B, ...), finite; in float64 for tolerances below about 1e-5.
        atol, rtol: error allowed in each step, atol + rtol |x|, as the root mean square over an example's numbers;
            >= 0, not both 0.
        pair: ``DORMAND_PRINCE``, or ``BOGACKI_SHAMPINE``, which is cheaper above tolerances of about 1e-3.
        sigma_min: noise-to-signal ratio at which the last step, to x_0_hat, starts. It leaves a relative error of
            about (sigma_min / s)^2 / 2 where s is the finest scale of the data; None for sqrt(max(atol, rtol)) / 10.
        condition: (B,) labels, or None.
        max_evaluations: how often to call the denoiser before giving up.

    Yields:
        the start, each accepted state, and the state at t = 0.

    Raises:
        ValueError: if x is not a finite float batch, the batch sizes differ, the denoiser is in training mode, or a
            number is out of range.
        ArithmeticError: if the tolerance cannot be kept: see ``ode.integrate``.
    """
    check_batch("adaptive_ode", denoiser, x, condition)
    check_counts("adaptive_ode", max_evaluations=max_evaluations)
    schedule = denoiser.schedule
    if sigma_min is None and is_real(atol, rtol):
        sigma_min = math.sqrt(max(atol, rtol, 0.0)) / 10
    end = _end("adaptive_ode", schedule, x, sigma_min, atol, rtol)
    start = float(angle(schedule, torch.ones((), dtype=torch.float64)))
    time_of = _times_between(schedule, start)
    said: list[Tensor] = []  # the newest x_0_hat: the pair's last call in a step is at the step's end

    def slope(u: float, y: Tensor) -> Tensor:
        x_0_hat, dx = velocity_in_angle(denoiser, y.reshape(x.shape), time_of(u), condition)
        said[:] = [x_0_hat]
        return dx.flatten(1)

    state = None
    for point in integrate(
        slope,
        x.flatten(1),
        start,
        2 / math.pi * math.atan(float(torch.exp(-schedule.log_snr(end) / 2))),
        pair=pair,
        atol=atol,
        rtol=rtol,
        max_evaluations=max_evaluations,
    ):
        x_0_hat = None if state is None else said[0]
        state = AdaptiveState(
            time_of(point.t),
            point.y.reshape(x.shape),
            x_0_hat,
            forget(state),
            point.evaluations,
            point.rejected,
            point.error,
        )
        yield state
    assert state is not None
    yield replace(state, t=torch.zeros_like(end), x=said[0], x_0_hat=said[0], previous=forget(state), error=0.0)


@torch.no_grad()
def adaptive_sde(
    denoiser: Denoiser,
    x: Tensor,
    atol: float = 0.0078,
    rtol: float = 0.05,
    *,
    sigma_min: float = 0.002,
    condition: Tensor | None = None,
    generator: torch.Generator | None = None,
    max_evaluations: int = 10_000,
) -> Iterator[AdaptiveState]:
    """The reverse SDE (Song et al. 2021, eq. 6) in adaptive steps (Jolicoeur-Martineau et al. 2021, algorithm 1).

    A step costs two calls of the denoiser, a rejected one just one: the slope at its start is kept. In the paper
    each example has its own step size; here the batch has one, and its worst example decides. Each step waits for the
    device.

    Args:
        denoiser: what says x_0_hat. A network must be in eval mode.
        x: x at t = 1, (B, ...), finite.
        atol, rtol: error allowed in each step, max(atol, rtol |x|), as the root mean square over an example's numbers;
            >= 0, not both 0. The default atol is the paper's: one level of an 8-bit picture on [-1, 1].
        sigma_min: noise-to-signal ratio at which the last step, to x_0_hat and without noise, starts.
        condition: (B,) labels, or None.
        generator: source of all noise.
        max_evaluations: how often to call the denoiser before giving up.

    Yields:
        the start, each accepted state, and the state at t = 0. The first has t = 1; where alpha(1) = 0 it has the
        time at which sigma / alpha = 80, and x is treated as a draw from that time.

    Raises:
        ValueError: if x is not a finite float batch, the batch sizes differ, the denoiser is in training mode, or a
            number is out of range.
        ArithmeticError: if the tolerance cannot be kept within ``max_evaluations``, or the denoiser returns NaN or
            infinity.
    """
    check_batch("adaptive_sde", denoiser, x, condition)
    check_counts("adaptive_sde", max_evaluations=max_evaluations)
    check_generator("adaptive_sde", generator)
    schedule = denoiser.schedule
    end = _end("adaptive_sde", schedule, x, sigma_min, atol, rtol)
    t = torch.ones_like(end)
    if float(schedule.alpha(t)) == 0:
        t = schedule.time_at(torch.full_like(end, -2 * math.log(LARGEST_RATIO)))
    noise = _Brownian(x, generator)

    def reverse_drift(x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:  # x_0_hat, and F(x, t)
        alpha_t, _ = schedule.scales(t, like=x_t)
        x_0_hat = denoiser(x_t, t, condition)
        pull = (schedule.diffusion(t) / schedule.sigma(t)) ** 2  # on sigma^2 score
        return x_0_hat, expand(schedule.drift(t), x_t) * x_t - expand(pull, x_t) * (alpha_t * x_0_hat - x_t)

    x_0_hat, F = reverse_drift(x, t)
    x_before, evaluations, rejected = x, 1, 0
    h = min(0.01, float(t - end))
    state = AdaptiveState(t, x, None, None, evaluations)
    yield state
    while t > end:
        s = end if h >= float(t - end) * (1 - 1e-12) else t - h
        h = float(t - s)
        if evaluations >= max_evaluations or h <= 1e-14:
            raise ArithmeticError(
                f"adaptive_sde stands at t = {float(t):.4g} after {evaluations} evaluations with a step of {h:.3g}: "
                f"loosen the tolerance atol={atol:g}, rtol={rtol:g}, or allow more with max_evaluations."
            )
        dW = noise.increment(h)
        x_euler = x - h * F + expand(schedule.diffusion(t), x) * dW
        _, F_s = reverse_drift(x_euler, s)
        x_s = (x_euler + x - h * F_s + expand(schedule.diffusion(s), x) * dW) / 2
        evaluations += 1

        unit = (rtol * torch.maximum(x_euler.abs(), x_before.abs())).clamp(min=atol)
        error = float(rms(((x_euler - x_s) / unit).flatten(1)).max())
        if not math.isfinite(error):
            raise ArithmeticError(
                f"adaptive_sde got NaN or infinity from the denoiser between t = {float(t):.4g} and {float(s):.4g}."
            )
        if error <= 1:
            x_before, x, t = x_euler, x_s, s
            x_0_hat, F = reverse_drift(x, t)
            evaluations += 1
            state = AdaptiveState(t, x, x_0_hat, forget(state), evaluations, rejected, error)
            yield state
        else:
            noise.give_back()
            rejected += 1
        h = h * min(10.0, 0.9 * max(error, 1e-6) ** -0.9)
    yield replace(state, t=torch.zeros_like(end), x=x_0_hat, x_0_hat=x_0_hat, previous=forget(state), error=0.0)


class _Brownian:
    """Increments of one Brownian path; an increment can be returned, and then be drawn again in parts."""

    def __init__(self, like: Tensor, generator: torch.Generator | None) -> None:
        self.like, self.generator = like, generator
        self.known: list[tuple[float, Tensor]] = []  # (length, increment) of what lies ahead, the nearest last
        self.taken: list[tuple[float, Tensor]] = []  # what the last increment is the sum of

    def increment(self, h: float) -> Tensor:
        """W(now + h) - W(now), where ``now`` is the current place on the path; it moves on by h."""
        self.taken, left = [], h
        while self.known and left > 0:
            length, dW = self.known.pop()
            if length > left * (1 + 1e-12):  # the bridge: given dW over length, its part over left
                part = dW * (left / length)
                part = part + math.sqrt(left * (length - left) / length) * noise_like(self.like, self.generator)
                self.known.append((length - left, dW - part))
                length, dW = left, part
            self.taken.append((length, dW))
            left -= length
        if left > 1e-12 * h:
            self.taken.append((left, math.sqrt(left) * noise_like(self.like, self.generator)))
        return sum((dW for _, dW in self.taken), torch.zeros_like(self.like))

    def give_back(self) -> None:
        """The step was rejected: ``now`` moves back to its start, and the pieces drawn for it are kept for later."""
        self.known += reversed(self.taken)


def _times_between(schedule: NoiseSchedule, start: float) -> TimeOf:
    """angle -> t, () float64, with t = 1 exactly at the angle where a path starts."""

    def time_of(u: float) -> Tensor:
        t = time_at_angle(schedule, torch.tensor(u, dtype=torch.float64)).cpu().double()
        return torch.ones_like(t) if u >= start else t

    return time_of


def _end(who: str, schedule: NoiseSchedule, x: Tensor, sigma_min: float | None, atol: float, rtol: float) -> Tensor:
    """The time at which the noise-to-signal ratio is ``sigma_min``, () float64."""
    if x.is_meta:
        raise ValueError(
            f"{who} got x on the device meta, which holds no values; its steps depend on them: "
            "give x on the CPU or a GPU."
        )
    if (
        sigma_min is None
        or not is_real(atol, rtol, sigma_min)
        or not math.isfinite(atol + rtol)
        or not (atol >= 0 and rtol >= 0 and atol + rtol > 0 and 0 < sigma_min < 1)
    ):
        raise ValueError(
            f"{who} got atol={atol!r}, rtol={rtol!r} and sigma_min={sigma_min!r}; the tolerances must be at least 0 "
            "and not both 0, and the smallest noise-to-signal ratio above 0 and below 1."
        )
    end = schedule.time_at(torch.tensor(-2 * math.log(sigma_min), dtype=torch.float64)).cpu().double()
    if end >= 1:
        most = float(torch.exp(-schedule.log_snr(torch.ones_like(end)) / 2))
        raise ValueError(
            f"{who} walks down to the noise-to-signal ratio sigma_min={sigma_min:.3g}, and under this "
            f"{type(schedule).__name__} it is {most:.3g} at most: give a smaller one, or a schedule with more noise."
        )
    return end
