r"""Sampling: from noise at t = 1 to data at t = 0, one step at a time.

Notebooks: ``08_sampling`` (ancestral), ``09_ddim``, ``10_guidance``, ``11_score_matching``, ``12_sdes``,
``13_solvers``.

A step takes a state at t to a state at s < t. Most ask the denoiser once for x_0_hat; ``heun`` asks twice. In the
course's two coordinates

    x_t = alpha_t x_0_hat + sigma_t eps_hat          defines eps_hat
    x_s = alpha_s x_0_hat + sqrt(sigma_s^2 - std^2) eps_hat + std z,      z ~ N(0, I)

each choice of std is a sampler: std = 0 is DDIM, the posterior's std is DDPM. At s = 0 all of this family return
x_0_hat. ``euler``, ``heun``, ``dpmpp_2m`` and ``euler_maruyama`` solve the probability-flow ODE or the reverse SDE.

A wrapper of a step is a step: ``corrected`` adds Langevin moves after it, ``resampled`` goes back up and tries again.
Two functions go upwards in time: ``diffuse``, the forward SDE, and ``invert``, DDIM backwards.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from .denoiser import Denoiser, State, check_batch, denoise_with_std, forget, x_0_hat_and_velocity
from .door import check_alike, check_counts, is_real, said
from .gaussian import noise_like
from .process import posterior_std, q_posterior, q_transition
from .schedule import LARGEST_RATIO, NoiseSchedule, expand, onto

__all__ = [
    "Step",
    "ancestral",
    "annealed_langevin",
    "corrected",
    "ddim",
    "diffuse",
    "dpmpp_2m",
    "euler",
    "euler_maruyama",
    "heun",
    "invert",
    "karras",
    "leading",
    "resampled",
    "sample",
    "slerp",
    "times",
    "trailing",
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
            ``transition_std`` is sqrt(beta), ``learnt_std`` is what a ``LearntVarianceModel`` predicts. The step into
            s = 0 returns its mean, whatever the std.

    Raises:
        TypeError: if std is not a function.
    """
    if not callable(std):
        raise TypeError(f"ancestral got std = {said(std)}; give posterior_std, transition_std or learnt_std.")

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
    """DDIM: the family of samplers with the same marginals q(x_t | x_0) and any amount of noise.

    (Song, Meng & Ermon 2021, "Denoising diffusion implicit models", eq. 12 and 16.)

    Args:
        eta: 0 for the deterministic sampler; 1 for ``ancestral()``; in [0, 1].

    Raises:
        ValueError: if eta is outside [0, 1].
    """
    if not is_real(eta) or not 0 <= eta <= 1:
        raise ValueError(
            f"ddim got eta={eta!r}; it is the share of the posterior's standard deviation to add, from 0 to 1."
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


def _finite(f: Tensor, g: Tensor) -> bool:
    """Whether an SDE's drift f and diffusion g at a time are finite. On a GPU it says True without looking."""
    return f.device.type != "cpu" or bool(torch.isfinite(f) & torch.isfinite(g))


def euler_maruyama() -> Step:
    """Euler-Maruyama for the reverse SDE, dx = (f x - g^2 score) dt + g dw backwards in time (Song et al. 2021, eq. 6).

    The step into s = 0 adds no noise. Where alpha(1) = 0 the drift is infinite at t = 1, and a step from there raises a
    ValueError: start below 1.
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
        if not _finite(f, g):
            raise ValueError(
                f"euler_maruyama was asked to step from t = {float(t):.4g}, where the SDE of "
                f"{type(schedule).__name__} is "
                "infinite because alpha = 0: start just below 1, or use ancestral(), which has no such limit."
            )
        alpha_t, _ = schedule.scales(t, like=x_t)
        x_0_hat = denoiser(x_t, t, condition)
        h = onto(g.device, t - s, g.dtype)
        pull = h * g**2 / schedule.sigma(t) ** 2  # times sigma^2 score; g^2 may overflow in half precision
        x_s = x_t - expand(h * f, x_t) * x_t + expand(pull, x_t) * (alpha_t * x_0_hat - x_t)
        if s > 0:
            x_s = x_s + expand(g * torch.sqrt(h), x_t) * noise_like(x_t, generator)
        return State(s, x_s, x_0_hat, state)

    return step


def dpmpp_2m() -> Step:
    """DPM-Solver++(2M): the ODE solved exactly except for x_0_hat, which is extrapolated from two calls (Lu et al.
    2022, alg. 2).

    With lambda = log(alpha / sigma), h = lambda_s - lambda_t, and h' the h of the step before:

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


def corrected(step: Step, moves: int = 1, size: float = 0.1) -> Step:
    r"""Predictor and corrector: after a step to s, Langevin moves at s (Song et al. 2021, appendix G).

        x <- x + (size sigma_s)^2 score(x, s) + sqrt(2) size sigma_s z,      z ~ N(0, I)

    The stationary distribution of these moves is q(x_s), up to an error of order size^2: they repair what the step has
    spoilt. The paper's step size, 2 (r |z| / |score|)^2, is this one with size = sqrt(2) r if |score| = |z| / sigma,
    its typical value; written with sigma, as in Song & Ermon 2019, the step of an example does not depend on the others
    in its batch. Each move is one call of the denoiser. Nothing is corrected at s = 0.

    Args:
        step: the predictor, for example ``euler_maruyama()`` or ``ancestral()``.
        moves: Langevin moves after each step, >= 1.
        size: of a move in units of the noise, in (0, 1); a move forgets a share size^2 of where it was.

    Raises:
        ValueError: if a number is out of range.
    """
    _check_step("a corrector", step)
    check_counts("Langevin", moves=moves)
    if not is_real(size) or not 0 < size < 1:
        raise ValueError(
            f"Langevin got moves={moves} and size={size!r}; it needs moves >= 1 and a size between 0 and 1."
        )

    def predict_and_correct(
        denoiser: Denoiser,
        state: State,
        s: Tensor,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> State:
        new = step(denoiser, state, s, condition, generator)
        if s == 0:
            return new
        x, schedule = new.x, denoiser.schedule
        alpha_s, sigma_s = schedule.scales(s, like=x)
        for _ in range(moves):
            pull = alpha_s * denoiser(x, s, condition) - x  # sigma_s^2 times the score
            x = x + size**2 * pull + math.sqrt(2) * size * sigma_s * noise_like(x, generator)
        return replace(new, x=x)

    return predict_and_correct


def annealed_langevin(moves: int = 10, size: float = 0.1) -> Step:
    """Langevin moves at one noise level after the other, and nothing in between (Song & Ermon 2019, algorithm 1).

    It is ``corrected`` around a step that leaves x where it is. Theirs has eps sigma_i^2 / sigma_L^2 for our 2 (size
    sigma)^2. The step into s = 0 returns x_0_hat (Jolicoeur-Martineau et al. 2021, "Adversarial score matching and
    improved sampling for image generation", section 3.1). ``moves`` calls of the denoiser a step.

    Args:
        moves: at each level, >= 1; about 1 / size^2 of them forget the level before.
        size: of a move in units of the noise, in (0, 1).

    Raises:
        ValueError: if a number is out of range.
    """

    def stay(
        denoiser: Denoiser,
        state: State,
        s: Tensor,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> State:
        if s > 0:
            return State(s, state.x, state.x_0_hat, state)
        x_0_hat = denoiser(state.x, state.t, condition)
        return State(s, x_0_hat, x_0_hat, state)

    return corrected(stay, moves, size)


def resampled(step: Step, times: int = 5) -> Step:
    """Each step is taken, undone by fresh noise, and taken again (RePaint: Lugmayr et al. 2022, algorithm 1).

    Around ``guidance.Inpainting`` it lets the unknown part adapt to the known one before the noise gets lower; around
    a plain denoiser whose steps are exact it changes nothing but the cost. The step into s = 0 is taken once.

    Args:
        step: a one-step sampler, for example ``ancestral()``.
        times: how many times each step is taken in total, >= 1.

    Raises:
        ValueError: if times < 1.
    """
    _check_step("resampled", step)
    check_counts("resampled", times=times)

    def repeat(
        denoiser: Denoiser,
        state: State,
        s: Tensor,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> State:
        new = step(denoiser, state, s, condition, generator)
        for _ in range(times - 1 if s > 0 else 0):
            x_t = q_transition(denoiser.schedule, new.x, s, state.t).sample(generator)
            new = step(denoiser, replace(state, x=x_t), s, condition, generator)
        return new

    return repeat


def times(steps: int, warp: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """The grid that a sampler walks down: from 1 to exactly 0 in equal steps.

    Args:
        steps: number of steps, >= 1.
        warp: an increasing map of [0, 1] onto itself that moves the inner times; None for equal steps.

    Returns:
        (steps + 1,), float64, falling from 1 to 0.

    Raises:
        ValueError: if steps < 1, or the warped grid does not fall from 1 to 0.
        TypeError: if warp is not a function.
    """
    check_counts("times", steps=steps)
    if warp is not None and not callable(warp):
        raise TypeError(f"times got warp = {said(warp)}; give a function that maps [0, 1] onto itself, or None.")
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


def trailing(num_timesteps: int, steps: int) -> Tensor:
    """Nodes of a table of betas, from its last one down in steps of T / ``steps``, rounded, and then 0.

    (Lin et al. 2024, "Common diffusion noise schedules and sample steps are flawed", table 2.)
    It starts at t = 1, where the noise that sampling starts from belongs, and a network is asked only at times k / T
    that it was trained at. Where ``steps`` divides T it is ``times(steps)``.

    Args:
        num_timesteps: T of the table.
        steps: number of steps, from 1 to T.

    Returns:
        (steps + 1,), float64, falling from 1 to 0.

    Raises:
        ValueError: if steps is not in 1 ... T.
    """
    _check_nodes("trailing", num_timesteps, steps)
    k = torch.arange(steps, 0, -1, dtype=torch.float64) * (num_timesteps / steps)
    return torch.cat([k.round() / num_timesteps, k.new_zeros(1)])


def leading(num_timesteps: int, steps: int, offset: int = 0) -> Tensor:
    """Every (T // ``steps``)-th node of a table of betas, its first one included, and then 0.

    (Lin et al. 2024, table 2, who name it and say what is wrong with it.)
    It ends with the smallest step that there is, but it starts below t = 1: at 0.981 for 50 of 1000 steps, where x_t is
    not quite the N(0, I) that sampling starts from. Walk it from noise of the size sigma(times[0]).

    Args:
        num_timesteps: T of the table.
        steps: number of steps, from 1 to T.
        offset: how many nodes every time but 0 is moved up; 1 in Stable Diffusion.

    Returns:
        (steps + 1,), float64, falling to 0.

    Raises:
        ValueError: if steps is not in 1 ... T, or the offset moves a node beyond T.
    """
    _check_nodes("leading", num_timesteps, steps, offset)
    stride = num_timesteps // steps
    k = torch.arange(steps - 1, -1, -1, dtype=torch.float64) * stride + 1 + offset
    return torch.cat([k / num_timesteps, k.new_zeros(1)])


def karras(
    schedule: NoiseSchedule, steps: int, sigma_min: float = 0.002, rho: float = 7.0, sigma_max: float | None = None
) -> Tensor:
    """EDM's grid as times: (sigma/alpha)^(1/rho) falls in equal steps from t = 1 until sigma/alpha is ``sigma_min``.

    (Karras et al. 2022, eq. 5.)

    Args:
        schedule: the schedule that the times are for.
        steps: number of steps, >= 2; the last goes from ``sigma_min`` to 0.
        sigma_min: the smallest noise-to-signal ratio, > 0, in units of the data.
        rho: 7 crowds the steps at low noise; 1 spaces them evenly.
        sigma_max: the ratio at which the equal steps begin, at most the schedule's own at t = 1; None for that one, or
            80 where it is infinite. The first time is 1 in any case.

    Returns:
        (steps + 1,), float64, falling from 1 to 0.

    Raises:
        ValueError: if steps < 2, rho is not above 0 and finite, or sigma_min is not between 0 and the largest ratio.
        TypeError: if schedule is not a NoiseSchedule.
    """
    if not isinstance(schedule, NoiseSchedule):
        raise TypeError(f"karras got schedule = {said(schedule)}; give a schedule, and then the number of steps.")
    check_counts("karras", 2, steps=steps)
    end = torch.ones((), dtype=torch.float64)
    largest = float(schedule.sigma(end) / schedule.alpha(end))
    if not is_real(sigma_min, rho, 1.0 if sigma_max is None else sigma_max):
        raise ValueError(
            f"karras got sigma_min={sigma_min!r}, rho={rho!r} and sigma_max={sigma_max!r}; each must be a number."
        )
    if sigma_max is not None:
        largest = min(largest, sigma_max)
    if math.isinf(largest):
        largest = LARGEST_RATIO
    if not 0 < sigma_min < largest or not 0 < rho < math.inf:
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
        TypeError: if step is not a step, the denoiser has no schedule, or x, times or condition is not a tensor.
    """
    _check_step("the sampler", step)
    _check(denoiser, x, times, condition)
    state = State(times[0], x)
    yield state
    for s in times[1:]:
        state = step(denoiser, replace(state, previous=forget(state.previous)), s, condition, generator)
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


@torch.no_grad()
def diffuse(
    schedule: NoiseSchedule, x_0: Tensor, times: Tensor, generator: torch.Generator | None = None
) -> Iterator[State]:
    """The forward SDE dx = f x dt + g dw by Euler-Maruyama: data become noise (Song et al. 2021, eq. 5).

    A chain of draws from ``q_transition`` does the same exactly, because it solves this equation. With N steps of
    Euler-Maruyama the mean and the variance are off by O(1/N).

    Args:
        schedule: gives f by ``drift`` and g by ``diffusion``.
        x_0: data, (B, ...).
        times: (N + 1,), falling, as for ``trajectory``; it is walked from its end, so that one grid serves both ways.
        generator: source of all noise.

    Yields:
        N + 1 states, upwards in time; x_0_hat is None.

    Raises:
        ValueError: if the times do not fall within [0, 1], x_0 is not finite, or the drift or the
            diffusion is not finite at one of them.
        TypeError: if x_0 is not a float tensor.
    """
    _check_times(times)
    check_alike("diffuse", x_0=x_0)
    if not x_0.is_meta and not bool(torch.isfinite(x_0).all()):
        raise ValueError("diffuse got an x_0 with NaN or infinite entries; clean the data first.")
    state = State(times[-1], x_0)
    yield state
    for s, t in itertools.pairwise(times.flip(0)):
        x_s, dt = state.x, t - s
        f, g = schedule.drift(s), schedule.diffusion(s)
        if not _finite(f, g):
            raise ValueError(
                f"diffuse was asked to step from t = {float(s):.4g}, where {type(schedule).__name__} has the drift "
                f"{float(f):.4g} and the diffusion {float(g):.4g}; define both in the schedule for this time, or end "
                "the grid above it."
            )
        dt = onto(f.device, dt, f.dtype)
        x_t = x_s + expand(f * dt, x_s) * x_s + expand(g * torch.sqrt(dt), x_s) * noise_like(x_s, generator)
        state = State(t, x_t)
        yield state


@torch.no_grad()
def invert(
    denoiser: Denoiser, x_0: Tensor, times: Tensor, condition: Tensor | None = None, iterations: int = 1
) -> Iterator[State]:
    r"""DDIM upwards in time: the noise from which ``ddim()`` makes x_0.

    (Song, Meng & Ermon 2021, section 4.3.)

    A step down, from t to s, is x_s = alpha_s x_0_hat + sigma_s eps_hat, both at (x_t, t). Upwards x_t is unknown, and
    the step backwards is an equation for it, which may be written in two ways:

        x_t = alpha_t (x_s - sigma_s eps_hat) / alpha_s + sigma_t eps_hat       where there is more signal than noise
        x_t = alpha_t x_0_hat + sigma_t (x_s - alpha_s x_0_hat) / sigma_s       where there is more noise

    The usual inversion uses x_s in place of x_t on the right side; some implementations also use s in place of t: that
    mostly inverts these steps less well, and cannot start at s = 0, where no denoiser is asked. More iterations insert
    each answer again, and where they converge the way back is exact (Pan et al. 2023, "Effective real image editing
    with accelerated iterative diffusion inversion"). Of the two forms, the code uses the one that converges: near t = 0
    it is eps_hat that hardly changes with x_t, near t = 1 it is x_0_hat.

    Args:
        denoiser: what says x_0_hat. A network must be in eval mode.
        x_0: data at times[-1], (B, ...).
        times: (N + 1,), falling: the grid that ``ddim()`` will come down. It is walked from its end.
        condition: (B,) labels, or None.
        iterations: calls of the denoiser per step, >= 1.

    Yields:
        N + 1 states, upwards in time, x_0 first.

    Raises:
        ValueError: as for ``trajectory``, and if iterations < 1.
    """
    check_counts("invert", iterations=iterations)
    _check_times(times)
    check_batch("invert", denoiser, x_0, condition)
    schedule, state = denoiser.schedule, State(times[-1], x_0)
    yield state
    for s, t in itertools.pairwise(times.flip(0)):
        x_s = x_t = state.x
        alpha_s, sigma_s = schedule.scales(s, like=x_s)
        alpha_t, sigma_t = schedule.scales(t, like=x_s)
        for _ in range(iterations):
            x_0_hat = denoiser(x_t, t, condition)
            eps_hat = (x_t - alpha_t * x_0_hat) / sigma_t
            by_eps = alpha_t * (x_s - sigma_s * eps_hat) / alpha_s + sigma_t * eps_hat
            by_x_0 = alpha_t * x_0_hat + sigma_t * (x_s - alpha_s * x_0_hat) / sigma_s
            x_t = torch.where((alpha_t > sigma_t) | (sigma_s == 0), by_eps, by_x_0)
        state = State(t, x_t, x_0_hat, forget(state))
        yield state


def slerp(a: Tensor, b: Tensor, weight: float | Tensor) -> Tensor:
    """Interpolate between two noises along the circle, not the chord.

    (Shoemake 1985; Song, Meng & Ermon 2021, appendix D.5.)

        sin((1 - w) theta) / sin(theta) a + sin(w theta) / sin(theta) b,       theta the angle between a and b

    The middle of the chord of two independent noises is shorter than either by a factor sqrt(2), and no sampler has
    seen such a noise. Where a and b are parallel it is the chord.

    Args:
        a, b: (B, ...), the same shape.
        weight: a number, or () or (B,): 0 gives a, 1 gives b.

    Returns:
        shape of a.

    Raises:
        ValueError: if the shapes differ.
    """
    check_alike("slerp", a=a)
    if isinstance(b, Tensor) and a.shape != b.shape:
        raise ValueError(f"slerp got shapes {tuple(a.shape)} and {tuple(b.shape)}; the two ends must have the same.")
    check_alike("slerp", a=a, b=b)
    if a.ndim < 2:
        raise ValueError(
            f"slerp got a of shape {tuple(a.shape)}; give batches (B, ...): a[None] and b[None] for one pair."
        )
    if not isinstance(weight, Tensor) and not is_real(weight):
        raise TypeError(f"slerp got weight = {said(weight)}; give a number, or a tensor () or (B,).")
    w = expand(torch.as_tensor(weight, dtype=a.dtype), a)
    u, v = (torch.nn.functional.normalize(x.flatten(1), dim=1) for x in (a, b))
    # by the arctangent: arccos of the inner product loses half its digits where the angle is small
    theta = expand(2 * torch.atan2((u - v).norm(dim=1), (u + v).norm(dim=1)), a)
    sine = torch.sin(theta)
    parallel = sine < 1e-6
    sine = torch.where(parallel, 1.0, sine)
    on_a = torch.where(parallel, 1 - w, torch.sin((1 - w) * theta) / sine)
    on_b = torch.where(parallel, w, torch.sin(w * theta) / sine)
    return on_a * a + on_b * b


def _check_nodes(name: str, num_timesteps: int, steps: int, offset: int = 0) -> None:
    check_counts(name, num_timesteps=num_timesteps, steps=steps)
    check_counts(name, 0, offset=offset)
    last = 1 + offset + (steps - 1) * (num_timesteps // steps)
    if steps > num_timesteps or last > num_timesteps:
        raise ValueError(
            f"{name} got steps={steps}, offset={offset} for a table of {num_timesteps} betas; it needs 1 <= steps <= "
            f"{num_timesteps}, and an offset that keeps the nodes within the table."
        )


# functions that must be called to get a step; it is easy to forget the parentheses
FACTORIES: tuple[object, ...] = (
    ancestral,
    annealed_langevin,
    corrected,
    ddim,
    dpmpp_2m,
    euler,
    euler_maruyama,
    heun,
    resampled,
)


def _check_step(who: str, step: Step) -> None:
    if step in FACTORIES or not callable(step):
        called = getattr(step, "__name__", "ddim")
        raise TypeError(f"{who} got step = {said(step)}; a step is what a factory returns: {called}().")


def _check(denoiser: Denoiser, x: Tensor, times: Tensor, condition: Tensor | None) -> None:
    _check_times(times)
    check_batch("the sampler", denoiser, x, condition)


def _check_times(times: Tensor) -> None:
    if not isinstance(times, Tensor):
        raise TypeError(f"the sampler got times = {said(times)}; give a falling float tensor, such as times(50).")
    if times.ndim != 1 or len(times) < 2 or not times.is_floating_point():
        raise ValueError(
            f"the sampler got times of shape {tuple(times.shape)} and type {times.dtype}; give a falling float "
            "tensor, such as times(50)."
        )
    if times.device.type != "cpu":
        raise ValueError(
            f"the sampler got times on {times.device}; keep them on the CPU, where comparing them costs nothing."
        )
    if not bool((times[1:] < times[:-1]).all()) or times[0] > 1 or times[-1] < 0:
        raise ValueError(
            f"the sampler got times from {float(times[0]):.4g} to {float(times[-1]):.4g}; "
            "they must fall strictly and stay in [0, 1]: noise is at 1, data at 0."
        )
