"""The order of each deterministic sampler, measured where the exact answer is known.

    python -m benchmarks.solver_order [--write]

For data from N(m, s^2) the probability-flow ODE has the closed solution

    x_s = alpha_s m + (x_t - alpha_t m) S_s / S_t,      S_t^2 = alpha_t^2 s^2 + sigma_t^2

so the error at the end of an interval is exact, and a method of order p divides it by 2^p when the steps are halved.
The interval ends above 0 and its steps are equal in the method's own variable (t for Euler and Heun, log-SNR for DDIM
and DPM-Solver++); the last column has equal steps in t all the way down to 0.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass

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
    ddim,
    dpmpp_2m,
    euler,
    heun,
    sample,
    times,
)

MEAN, STD = 0.7, 0.4  # of the data: neither 0 nor 1, so that nothing cancels by luck
START, END = 0.9, 0.1


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


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="The order of each deterministic sampler, measured.")
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
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
    report.publish("solver_order", text, given.write)


if __name__ == "__main__":
    main()
