"""The order of each sampler, and the moments of those that draw noise, where the exact answer is known.

    python -m benchmarks.solver_order [--write]

For data from N(m, s^2) the probability-flow ODE has the closed solution

    x_s = alpha_s m + (x_t - alpha_t m) S_s / S_t,      S_t^2 = alpha_t^2 s^2 + sigma_t^2

so the error at the end of an interval is exact, and a method of order p divides it by 2^p when the steps are halved.
The interval ends above 0 and its steps are equal in the method's own variable (t for Euler and Heun, log-SNR for DDIM
and DPM-Solver++); the last column has equal steps in t all the way down to 0.

A sampler that draws noise has no path to be compared with. But its step is a straight line in x, so that the mean and
the variance of its samples are a recursion of numbers, with no chance in it:

    x_s - alpha_s m = keep (x_t - alpha_t m) + shift + noise z,      z ~ N(0, 1)
    mean <- keep mean + shift,      variance <- keep^2 variance + noise^2

Its distance to N(alpha_s m, S_s^2) has an order; and the package's sampler, run on many samples, must have the
recursion's moments up to chance, whatever the number of steps. z says how many standard errors it is off.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from benchmarks import report
from diffusion_edu import (
    CosineSchedule,
    FlowSchedule,
    GaussianMixture,
    NoiseSchedule,
    Step,
    VPSchedule,
    ancestral,
    ddim,
    dpmpp_2m,
    euler,
    euler_maruyama,
    heun,
    sample,
    times,
    transition_std,
)

MEAN, STD = 0.7, 0.4  # of the data: neither 0 nor 1, so that nothing cancels by luck
START, END = 0.9, 0.1
STEPS, SAMPLES = 16, 200_000  # of the samplers that draw noise: so few steps that their own error is seen beside chance


@dataclass(frozen=True)
class Method:
    """A sampler, the order that it should have, and the variable in which its steps are equal."""

    name: str
    step: Callable[[], Step]
    order: int
    variable: str  # "t" or "log-SNR"


METHODS = (
    Method("euler", euler, 1, "t"),
    Method("heun", heun, 2, "t"),
    Method("ddim(0)", ddim, 1, "log-SNR"),
    Method("dpmpp_2m", dpmpp_2m, 2, "log-SNR"),
)


def grid(schedule: NoiseSchedule, steps: int, variable: str) -> Tensor:
    """(steps + 1,) times from START to END, equal steps in t or in log-SNR."""
    ends = torch.tensor([START, END], dtype=torch.float64)
    if variable == "t":
        return torch.linspace(START, END, steps + 1, dtype=torch.float64)
    low, high = schedule.log_snr(ends).tolist()
    return schedule.time_at(torch.linspace(low, high, steps + 1, dtype=torch.float64))


def error(step: Step, schedule: NoiseSchedule, at: Tensor) -> float:
    """|x - exact| at the end of a grid of times, for one x half a standard deviation above the mean at its start."""
    data = GaussianMixture(torch.ones(1), torch.tensor([[MEAN]]).double(), torch.tensor([STD]).double())
    first, last = (data.marginal(schedule, t) for t in (at[0], at[-1]))
    exact = last.means + 0.5 * last.stds
    return float((sample(step, data.denoiser(schedule), first.means + 0.5 * first.stds, at) - exact).abs())


def measured_order(method: Method, schedule: NoiseSchedule, steps: int = 256, down_to_0: bool = False) -> float:
    """log2 of the error's ratio at ``steps`` and twice as many."""
    grids = [times(n) if down_to_0 else grid(schedule, n, method.variable) for n in (steps, 2 * steps)]
    coarse, fine = (error(method.step(), schedule, at) for at in grids)
    return math.log2(coarse / fine)


Parts = tuple[float, float, float]  # keep, shift, noise


def spread(schedule: NoiseSchedule, t: Tensor) -> float:
    """S_t, the standard deviation of x_t."""
    return math.hypot(float(schedule.alpha(t)) * STD, float(schedule.sigma(t)))


def in_the_family(schedule: NoiseSchedule, t: Tensor, s: Tensor, share: float = 1.0, wide: bool = False) -> Parts:
    """A step of DDIM's family: alpha_s x_0_hat + kept eps_hat + noise z, where kept^2 = sigma_s^2 - share^2 beta_tilde.

    The noise is share sqrt(beta_tilde), or if ``wide`` that of the transition from s to t, sqrt(beta).
    """
    alpha_t, sigma_t, alpha_s, sigma_s = (float(v) for u in (t, s) for v in (schedule.alpha(u), schedule.sigma(u)))
    beta = sigma_t**2 - (alpha_t / alpha_s * sigma_s) ** 2
    std = share * math.sqrt(beta) * sigma_s / sigma_t
    gain = alpha_t * STD**2 / spread(schedule, t) ** 2  # of x_0_hat
    keep = alpha_s * gain + math.sqrt(sigma_s**2 - std**2) * (1 - alpha_t * gain) / sigma_t
    return keep, 0.0, math.sqrt(beta) if wide else std


def of_the_sde(schedule: NoiseSchedule, t: Tensor, s: Tensor) -> Parts:
    """A step of Euler-Maruyama; the score is -(x - alpha m) / S^2."""
    h, f, g_2 = float(t - s), float(schedule.drift(t)), float(schedule.diffusion(t)) ** 2
    shift = MEAN * ((1 - h * f) * float(schedule.alpha(t)) - float(schedule.alpha(s)))
    return 1 - h * (f + g_2 / spread(schedule, t) ** 2), shift, math.sqrt(g_2 * h)


@dataclass(frozen=True)
class Noisy:
    """A sampler that draws noise, and its step for N(m, s^2) as three numbers, derived and not read off the package."""

    name: str
    step: Callable[[], Step]
    parts: Callable[[NoiseSchedule, Tensor, Tensor], Parts]


NOISY = (
    Noisy("ancestral, beta-tilde", ancestral, in_the_family),
    Noisy("ancestral, beta", lambda: ancestral(transition_std), partial(in_the_family, wide=True)),
    Noisy("ddim(0.5)", lambda: ddim(0.5), partial(in_the_family, share=0.5)),
    Noisy("euler_maruyama", euler_maruyama, of_the_sde),
)


def recursion(sampler: Noisy, schedule: NoiseSchedule, at: Tensor) -> tuple[float, float]:
    """Mean and variance of x at the end of a grid of times, from the exact ones at its start."""
    mean, variance = 0.0, spread(schedule, at[0]) ** 2  # the mean is that of x - alpha m
    for t, s in itertools.pairwise(at):
        keep, shift, noise = sampler.parts(schedule, t, s)
        mean, variance = keep * mean + shift, keep**2 * variance + noise**2
    return float(schedule.alpha(at[-1])) * MEAN + mean, variance


def exact_moments(schedule: NoiseSchedule, t: Tensor) -> tuple[float, float]:
    """Mean and variance of x_t."""
    return float(schedule.alpha(t)) * MEAN, spread(schedule, t) ** 2


def order_of_moments(sampler: Noisy, schedule: NoiseSchedule, steps: int = 256) -> tuple[float | None, ...]:
    """log2 of the error's ratio at ``steps`` and twice as many, of mean and variance; None where there is no error."""
    errors = []
    for n in (steps, 2 * steps):
        at = grid(schedule, n, "t")
        found, exact = recursion(sampler, schedule, at), exact_moments(schedule, at[-1])
        errors.append([abs(a - b) for a, b in zip(found, exact, strict=True)])
    return tuple(math.log2(a / b) if max(a, b) > 1e-12 else None for a, b in zip(*errors, strict=True))


def measured_moments(sampler: Noisy, schedule: NoiseSchedule, at: Tensor, n: int) -> tuple[float, float]:
    """Mean and variance of n samples of the package at the end of a grid of times; the same in each run."""
    generator = torch.Generator().manual_seed(0)
    one = torch.ones(1, dtype=torch.float64)
    data = GaussianMixture(one, MEAN * one[:, None], STD * one)
    x = data.marginal(schedule, at[0]).sample(n, generator)
    x = sample(sampler.step(), data.denoiser(schedule), x, at, None, generator)
    return float(x.mean()), float(x.var())


def moments_table(schedules: dict[str, NoiseSchedule]) -> str:
    """Two tables, of the mean and of the variance."""
    rows: tuple[list[Sequence[str]], list[Sequence[str]]] = ([], [])
    for sampler in NOISY:
        for name, schedule in schedules.items():
            at = grid(schedule, STEPS, "t")
            exact, expected = exact_moments(schedule, at[-1]), recursion(sampler, schedule, at)
            found = measured_moments(sampler, schedule, at, SAMPLES)
            chance = math.sqrt(expected[1] / SAMPLES), expected[1] * math.sqrt(2 / SAMPLES)
            for i, order in enumerate(order_of_moments(sampler, schedule)):
                numbers = (f"{value:.4f}" for value in (exact[i], expected[i], found[i]))
                z = f"{(found[i] - expected[i]) / chance[i]:.1f}"
                rows[i].append((sampler.name, name, *numbers, z, "no error" if order is None else f"{order:.3f}"))
    parts = []
    for what, found_rows in zip(("mean", "variance"), rows, strict=True):
        header = ("sampler", "schedule", f"exact {what}", "recursion", "samples", "z", "order")
        parts.append(report.table(header, found_rows))
    return "\n\n".join(parts)


def main(arguments: list[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="The order of each sampler, and the moments of those that draw noise.")
    parser.add_argument("--write", action="store_true", help="put the tables into benchmarks/README.md")
    given = parser.parse_args(arguments)

    schedules: dict[str, NoiseSchedule] = {"VP": VPSchedule(), "cosine": CosineSchedule(), "flow": FlowSchedule()}
    rows = []
    for method in METHODS:
        orders = [measured_order(method, schedule) for schedule in schedules.values()]
        orders.append(measured_order(method, VPSchedule(), down_to_0=True))
        rows.append((method.name, str(method.order), *(f"{order:.3f}" for order in orders)))
    text = f"Data N({MEAN}, {STD}^2), interval {START} to {END}, 256 and 512 steps, float64.\n\n" + report.table(
        ("method", "stated order", *schedules, "VP, from 1 to 0"), rows
    )
    text += (
        f"\n\nSamplers that draw noise, equal steps in t: moments after {STEPS} steps, {SAMPLES:,} samples; the order "
        f"from the recursion at 256 and 512 steps.\n\n{moments_table(schedules)}"
    )
    report.publish("solver_order", text, given.write)


if __name__ == "__main__":
    main()
