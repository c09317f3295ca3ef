r"""Sampling: from noise at t = 1 to data at t = 0, one step at a time.

Notebooks: ``08_sampling`` (ancestral), ``09_ddim``, ``13_solvers``.

A step takes a state at t to a state at s < t, and asks the denoiser once for x_0_hat. In the course's two coordinates

    x_t = alpha_t x_0_hat + sigma_t eps_hat          defines eps_hat
    x_s = alpha_s x_0_hat + sqrt(sigma_s^2 - std^2) eps_hat + std z,      z ~ N(0, I)

and a sampler is a choice of std. std = 0 is DDIM, the posterior's std is DDPM. At s = 0 all of them return x_0_hat.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from .denoiser import Denoiser, State, denoise_with_std, x_0_hat_and_velocity
from .gaussian import noise_like
from .process import posterior_std, q_posterior
from .schedule import NoiseSchedule, expand

__all__ = [
    "Step",
    "ancestral",
    "ddim",
    "dpmpp_2m",
    "euler",
    "euler_maruyama",
    "heun",
    "karras",
    "sample",
    "times",
    "trajectory",
]


class Step(Protocol):
    """Takes a state at time t to a state at an earlier time s. To add a sampler, write a factory of one."""

    def __call__(
        self,
        denoiser: Denoiser,
        state: State,
        s: Tensor,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> State:
        """One step from ``state.t`` to ``s``.

        Args:
            denoiser: what says x_0_hat.
            state: x_t at state.t, (B, ...).
            s: (), float64, with 0 <= s < state.t.
            condition: (B,) labels or None.
            generator: source of the step's noise.

        Returns:
            the state at s.
        """
        ...


def ancestral(std: Callable[[NoiseSchedule, Tensor, Tensor], Tensor] = posterior_std) -> Step:
    """DDPM's sampler: draw x_s from q(x_s | x_t, x_0) with x_0_hat for x_0 (Ho et al. 2020, algorithm 2).

    Args:
        std: (schedule, s, t) -> the step's standard deviation. ``posterior_std`` is sqrt(beta-tilde),
            ``transition_std`` is sqrt(beta), ``learnt_std`` is what a ``LearntVarianceModel`` says. The step into s = 0
            returns its mean, whatever the std.
    """

    def step(
        denoiser: Denoiser,
        state: State,
        s: Tensor,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> State:
        t, x_t = state.t, state.x
        x_0_hat, width = denoise_with_std(denoiser, std, x_t, s, t, condition)
        x_s = q_posterior(denoiser.schedule, x_t, x_0_hat, s, t).mean
        if s > 0:
            x_s = x_s + width * noise_like(x_t, generator)
        return State(s, x_s, x_0_hat, state)

    return step


def ddim(eta: float = 0.0) -> Step:
    """DDIM: the family with the same marginals q(x_t | x_0) and any amount of noise (Song et al. 2021, eq. 12 and 16).

    Args:
        eta: 0 for the deterministic sampler; 1 for ``ancestral()``; in [0, 1].

    Raises:
        ValueError: if eta is outside [0, 1].
    """
    if not 0 <= eta <= 1:
        raise ValueError(
            f"ddim got eta={eta}; it is the share of the posterior's standard deviation to add, from 0 to 1."
        )

    def step(
        denoiser: Denoiser,
        state: State,
        s: Tensor,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> State:
        t, x_t, schedule = state.t, state.x, denoiser.schedule
        alpha_t, sigma_t = schedule.scales(t, like=x_t)
        alpha_s, _ = schedule.scales(s, like=x_t)
        # The two parts of sigma_s: old noise, kept, and new noise.
        std = eta * posterior_std(schedule, s, t)
        kept = torch.sqrt((schedule.sigma(s) ** 2 - std**2).clamp(min=0))

        x_0_hat = denoiser(x_t, t, condition)
        eps_hat = (x_t - alpha_t * x_0_hat) / sigma_t
        x_s = alpha_s * x_0_hat + expand(kept, x_t) * eps_hat
        if eta > 0 and s > 0:
            x_s = x_s + expand(std, x_t) * noise_like(x_t, generator)
        return State(s, x_s, x_0_hat, state)

    return step


def euler() -> Step:
    """Euler's method for the probability-flow ODE, x_s = x_t + (s - t) dx/dt (Song et al. 2021, eq. 13).

    Order 1 in t.
    """

    def step(
        denoiser: Denoiser,
        state: State,
        s: Tensor,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> State:
        x_0_hat, slope = x_0_hat_and_velocity(denoiser, state.x, state.t, condition)
        return State(s, state.x + expand(s - state.t, state.x) * slope, x_0_hat, state)

    return step


def heun() -> Step:
    """Heun's method for the probability-flow ODE: Euler's step, corrected by the slope at its end (Karras et al. 2022,
    alg. 1).

    Order 2 in t, two calls a step. The step into s = 0 stays Euler's, because no denoiser is asked at t = 0.
    """

    def step(
        denoiser: Denoiser,
        state: State,
        s: Tensor,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> State:
        x_t, dt = state.x, expand(s - state.t, state.x)
        x_0_hat, slope = x_0_hat_and_velocity(denoiser, x_t, state.t, condition)
        x_s = x_t + dt * slope
        if s > 0:
            _, slope_at_s = x_0_hat_and_velocity(denoiser, x_s, s, condition)
            x_s = x_t + dt * (slope + slope_at_s) / 2
        return State(s, x_s, x_0_hat, state)

    return step


def euler_maruyama() -> Step:
    """Euler-Maruyama for the reverse SDE, dx = (f x - g^2 score) dt + g dw backwards in time (Song et al. 2021, eq. 6).

    The step into s = 0 adds no noise. Where alpha(1) = 0 the drift is infinite at t = 1: start below it.
    """

    def step(
        denoiser: Denoiser,
        state: State,
        s: Tensor,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> State:
        t, x_t, schedule = state.t, state.x, denoiser.schedule
        f, g = schedule.drift(t), schedule.diffusion(t)
        if not f.is_meta and not bool(torch.isfinite(f) & torch.isfinite(g)):
            raise ValueError(
                f"euler_maruyama was asked to step from t = {float(t):.4g}, where the SDE of "
                f"{type(schedule).__name__} is "
                "infinite because alpha = 0: start just below 1, or use ancestral(), which has no such limit."
            )
        alpha_t, sigma_t = schedule.scales(t, like=x_t)
        x_0_hat = denoiser(x_t, t, condition)
        score = (alpha_t * x_0_hat - x_t) / sigma_t**2
        x_s = x_t - expand(t - s, x_t) * (expand(f, x_t) * x_t - expand(g**2, x_t) * score)
        if s > 0:
            x_s = x_s + expand(g * torch.sqrt(t - s), x_t) * noise_like(x_t, generator)
        return State(s, x_s, x_0_hat, state)

    return step


def dpmpp_2m() -> Step:
    """DPM-Solver++(2M): the ODE solved exactly but for x_0_hat, which is extrapolated from two calls (Lu et al. 2022,
    alg. 2).

    With lambda = log(alpha / sigma), h = lambda_s - lambda_t, and h' the step before:

        D   = x_0_hat + h / (2 h') (x_0_hat - x_0_hat of the step before)
        x_s = sigma_s / sigma_t x_t - alpha_s (exp(-h) - 1) D

    Order 2 in lambda, one call a step. The first step, and the one into s = 0, use D = x_0_hat.
    """

    def step(
        denoiser: Denoiser,
        state: State,
        s: Tensor,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> State:
        t, x_t, schedule = state.t, state.x, denoiser.schedule
        x_0_hat = denoiser(x_t, t, condition)
        if s == 0:
            return State(s, x_0_hat, x_0_hat, state)
        h = (schedule.log_snr(s) - schedule.log_snr(t)) / 2
        D = x_0_hat
        if state.x_0_hat is not None and state.previous is not None:
            h_before = (schedule.log_snr(t) - schedule.log_snr(state.previous.t)) / 2
            D = x_0_hat + expand(h / (2 * h_before), x_t) * (x_0_hat - state.x_0_hat)
        keep = schedule.sigma(s) / schedule.sigma(t)
        gain = -schedule.alpha(s) * torch.expm1(-h)
        return State(s, expand(keep, x_t) * x_t + expand(gain, x_t) * D, x_0_hat, state)

    return step


def times(steps: int, warp: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """The grid that a sampler walks down: from 1 to exactly 0 in equal steps.

    Args:
        steps: number of steps, >= 1.
        warp: an increasing map of [0, 1] onto itself that moves the inner times; None for equal steps.

    Returns:
        (steps + 1,), float64, falling from 1 to 0.

    Raises:
        ValueError: if steps < 1, or the warped grid does not fall from 1 to 0.
    """
    if steps < 1:
        raise ValueError(f"times got steps={steps}; sampling takes at least one step.")
    grid = torch.arange(steps, -1, -1, dtype=torch.float64) / steps
    if warp is None:
        return grid
    grid = warp(grid)
    if grid[0] != 1 or grid[-1] != 0 or not bool((grid[1:] < grid[:-1]).all()):
        raise ValueError(
            "times got a warp that does not map [0, 1] onto itself in rising order; warp(0) must be 0 and warp(1) "
            "must be 1."
        )
    return grid


def karras(
    schedule: NoiseSchedule, steps: int, sigma_min: float = 0.002, rho: float = 7.0, sigma_max: float | None = None
) -> Tensor:
    """EDM's grid as times: (sigma/alpha)^(1/rho) falls in equal steps from t = 1 until sigma/alpha is ``sigma_min``.

    (Karras et al. 2022, eq. 5.)

    Args:
        schedule: whose times are wanted.
        steps: number of steps, >= 2; the last goes from ``sigma_min`` to 0.
        sigma_min: the smallest noise-to-signal ratio, > 0, in units of the data.
        rho: 7 crowds the steps at low noise; 1 spaces them evenly.
        sigma_max: the largest ratio; None for the schedule's own at t = 1, or 80 where that is infinite.

    Returns:
        (steps + 1,), float64, falling from 1 to 0.

    Raises:
        ValueError: if steps < 2, or sigma_min is not below the largest ratio.
    """
    end = torch.ones((), dtype=torch.float64)
    largest = float(schedule.sigma(end) / schedule.alpha(end))
    largest = min(largest, sigma_max if sigma_max is not None else (largest if largest < float("inf") else 80.0))
    if steps < 2 or not 0 < sigma_min < largest or rho <= 0:
        raise ValueError(
            f"karras got steps={steps}, sigma_min={sigma_min}, rho={rho} for noise up to {largest:.4g}; "
            "it needs steps >= 2, rho > 0 and 0 < sigma_min < the largest noise."
        )
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    ratio = (largest ** (1 / rho) + ramp * (sigma_min ** (1 / rho) - largest ** (1 / rho))) ** rho
    grid = schedule.time_at(-2 * torch.log(ratio)).cpu().double()
    grid[0] = 1.0
    return torch.cat([grid, grid.new_zeros(1)])


@torch.no_grad()
def trajectory(
    step: Step,
    denoiser: Denoiser,
    x: Tensor,
    times: Tensor,
    condition: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[State]:
    """Every state on the way, the start first. The caller decides what to draw, keep or measure.

    Args:
        step: how to go from one time to the next, for example ``ddim()``.
        denoiser: what says x_0_hat. A network must be in eval mode.
        x: x at times[0], (B, ...), finite; ``prior(schedule, shape)`` makes it for times[0] = 1.
        times: (N + 1,), falling, in [0, 1], for example ``times(50)``.
        condition: (B,) labels, or None.
        generator: source of all noise; with None the global one is used.

    Yields:
        N + 1 states; their ``previous`` reaches back one step, so that a long walk keeps no history.

    Raises:
        ValueError: if the times do not fall within [0, 1], x is not finite, the batch sizes differ,
            or the denoiser is a network in training mode.
    """
    _check(denoiser, x, times, condition)
    state = State(times[0], x)
    yield state
    for s in times[1:]:
        state = step(denoiser, replace(state, previous=_forget(state.previous)), s, condition, generator)
        yield state


def sample(
    step: Step,
    denoiser: Denoiser,
    x: Tensor,
    times: Tensor,
    condition: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The trajectory's last x. Arguments and errors as for ``trajectory``; returns the shape of x."""
    for state in trajectory(step, denoiser, x, times, condition, generator):
        x = state.x
    return x


def _forget(state: State | None) -> State | None:
    return None if state is None else replace(state, previous=None)


def _check(denoiser: Denoiser, x: Tensor, times: Tensor, condition: Tensor | None) -> None:
    if times.ndim != 1 or len(times) < 2 or not times.is_floating_point():
        raise ValueError(
            f"the sampler got times of shape {tuple(times.shape)} and type {times.dtype}; give a falling float "
            "tensor, times(50)."
        )
    if times.device.type != "cpu":
        raise ValueError("the sampler got times on a device; keep them on the CPU, where comparing them costs nothing.")
    if not bool((times[1:] < times[:-1]).all()) or times[0] > 1 or times[-1] < 0:
        raise ValueError(
            f"the sampler got times from {float(times[0]):.4g} to {float(times[-1]):.4g}; "
            "they must fall strictly and stay in [0, 1]: noise is at 1, data at 0."
        )
    if x.ndim < 2 or len(x) == 0 or not x.is_floating_point():
        raise ValueError(
            f"the sampler got x of shape {tuple(x.shape)} and type {x.dtype}; it needs a float batch (B, ...), B >= 1."
        )
    if not x.is_meta and not bool(torch.isfinite(x).all()):
        raise ValueError("the sampler got an x with NaN or infinite entries; start from prior(schedule, shape).")
    if condition is not None and condition.shape[:1] != x.shape[:1]:
        raise ValueError(
            f"the sampler got {len(x)} examples and a condition of shape {tuple(condition.shape)}; give one label "
            "per example."
        )
    if getattr(denoiser, "training", False):
        raise ValueError(
            "the sampler got a model in training mode; call model.eval() first, or its dropout makes noise of its own."
        )
