"""Error against evaluations: every fixed-grid sampler, the adaptive ones, SciPy's RK45 and torchdiffeq's dopri5.

    python -m benchmarks.adaptive [--write]

The data are a ring of five Gaussians, known exactly, so that nothing but the solver errs. The
deterministic samplers carry 32 starts from t = 1 to 0, and the error is the root mean square distance to the
exact flow's ends (SciPy's DOP853 at 1e-11). SciPy and torchdiffeq have the same pair of Dormand and Prince. Each solves
the same batch as one system, once with t for its time, as is usual, and once with the angle, as ``adaptive_ode`` does.
For the stochastic ones it is the energy distance of 4000 samples to 4000 exact ones, beside that of two exact sets.
torchdiffeq comes with ``pip install -c constraints.txt -e '.[peers]'``; where it is missing, its rows are left out.
"""

from __future__ import annotations

import argparse
import importlib
import math
from collections.abc import Callable, Iterator
from types import ModuleType

import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from benchmarks import report
from diffusion_edu import (
    BOGACKI_SHAMPINE,
    DORMAND_PRINCE,
    BetaSchedule,
    CosineSchedule,
    Denoiser,
    GaussianMixture,
    NoiseSchedule,
    Step,
    VPSchedule,
    adaptive_ode,
    adaptive_sde,
    ancestral,
    angle,
    annealed_langevin,
    corrected,
    ddim,
    dpmpp_2m,
    energy_distance,
    euler,
    euler_maruyama,
    heun,
    karras,
    prior,
    ring,
    sample,
    times,
    velocity,
)
from diffusion_edu.denoiser import time_at_angle, velocity_in_angle

CALLS = (16, 32, 64, 128, 256)
TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-6)
ONE = torch.ones((), dtype=torch.float64)
DATA = GaussianMixture(*ring(5, 0.15)).to(ONE)
SCHEDULES: dict[str, NoiseSchedule] = {
    "VP": VPSchedule(),
    "DDPM's linear table": BetaSchedule.linear(1000),
    "cosine": CosineSchedule(),
}
DETERMINISTIC: dict[str, tuple[Callable[[], Step], int]] = {
    "euler": (euler, 1),
    "ddim(0)": (ddim, 1),
    "heun": (heun, 2),
    "dpmpp_2m": (dpmpp_2m, 1),
}
STOCHASTIC: dict[str, tuple[Callable[[], Step], int]] = {
    "ancestral": (ancestral, 1),
    "euler_maruyama": (euler_maruyama, 1),
    "ancestral, corrected once": (lambda: corrected(ancestral()), 2),
    "annealed_langevin(10)": (lambda: annealed_langevin(10, 0.3), 10),
}


class Counting:
    """A denoiser that counts its calls."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser, self.schedule, self.calls = denoiser, denoiser.schedule, 0

    def __call__(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """E[x_0 | x_t], counted."""
        self.calls += 1
        return self.denoiser(x_t, t, condition)


def peer() -> ModuleType | None:
    """torchdiffeq, or None where it is missing; then stderr says so."""
    try:
        return importlib.import_module("torchdiffeq")
    except ImportError:
        report.say("torchdiffeq is left out: pip install -c constraints.txt -e '.[peers]' brings it.")
        return None


def slope_in(denoiser: Denoiser, u: Tensor, x_t: Tensor, in_angle: bool) -> Tensor:
    """dx/du, where u is the angle or t."""
    if in_angle:
        return velocity_in_angle(denoiser, x_t, time_at_angle(denoiser.schedule, u))[1]
    return velocity(denoiser, x_t, u)


def ends_of(schedule: NoiseSchedule, tol: float, in_angle: bool) -> tuple[float, float]:
    """Where another library's walk starts and stops, in the angle or in t; from there it is one step to x_0_hat."""
    return (float(angle(schedule, ONE)), 2 / math.pi * math.sqrt(tol) / 10) if in_angle else (1.0, 1e-6)


def finished(denoiser: Denoiser, x_t: Tensor, u: float, in_angle: bool) -> Tensor:
    """x_0_hat where the walk has stopped."""
    return denoiser(x_t, time_at_angle(denoiser.schedule, ONE * u) if in_angle else ONE * u)


def scipys(denoiser: Denoiser, x: Tensor, method: str, tol: float, in_angle: bool) -> Tensor:
    """The ODE by SciPy; shape of x."""

    def slope(u: float, y: object) -> object:
        return slope_in(denoiser, ONE * u, torch.as_tensor(y).reshape(x.shape), in_angle).flatten().numpy()

    span = ends_of(denoiser.schedule, tol, in_angle)
    found = solve_ivp(slope, span, x.flatten().numpy(), method=method, rtol=tol, atol=tol)
    return finished(denoiser, torch.as_tensor(found.y[:, -1]).reshape(x.shape), span[1], in_angle)


def torchdiffeqs(library: ModuleType, denoiser: Denoiser, x: Tensor, tol: float, in_angle: bool) -> Tensor:
    """The ODE by torchdiffeq's dopri5; shape of x."""
    first, last = ends_of(denoiser.schedule, tol, in_angle)
    span = torch.tensor([first, last], dtype=torch.float64)
    # There is no schedule below 0. Untold of step_t, it steps beyond the end and reads its interpolant there; and where
    # the slope is next to 0, as at t = 1, its guess of the first step looks far beyond the end: it is shown the end.
    found = library.odeint(
        lambda u, x_t: slope_in(denoiser, u.clamp(last, first), x_t, in_angle),
        x,
        span,
        method="dopri5",
        rtol=tol,
        atol=tol,
        options={"step_t": span},
    )
    return finished(denoiser, found[-1], last, in_angle)


def grids(schedule: NoiseSchedule, calls: int, per_step: int) -> Iterator[tuple[str, Tensor]]:
    """Two grids for about this many calls: equal steps in t, and Karras's."""
    steps = max(2, calls // per_step)
    yield "uniform", times(steps)
    yield "karras", karras(schedule, steps)


def fixed_grids(schedule: NoiseSchedule, x: Tensor, exact: Tensor) -> list[tuple[str, ...]]:
    """Rows: sampler, grid, error at each number of calls."""
    rows = []
    for name, (make, per_step) in DETERMINISTIC.items():
        errors: dict[str, list[str]] = {}
        for calls in CALLS:
            for grid, at in grids(schedule, calls, per_step):
                errors.setdefault(grid, []).append(
                    f"{error(sample(make(), DATA.denoiser(schedule), x, at), exact):.1e}"
                )
        rows += [(f"{name}, {grid} grid", *found) for grid, found in errors.items()]
    return rows


def with_tolerance(
    schedule: NoiseSchedule, x: Tensor, exact: Tensor, library: ModuleType | None
) -> list[tuple[str, ...]]:
    """Rows: solver, and for each tolerance the calls (those for rejected steps among them) and the error."""
    denoiser, rows = Counting(DATA.denoiser(schedule)), []
    for pair in (DORMAND_PRINCE, BOGACKI_SHAMPINE):
        cells = []
        for tol in TOLERANCES:
            *_, last = adaptive_ode(denoiser, x, tol, tol, pair=pair)
            lost = last.rejected * len(pair.nodes)
            cells.append(f"{last.evaluations} ({lost}): {error(last.x, exact):.1e}")
        rows.append((f"adaptive_ode, {pair.name}", *cells))
    others: dict[str, Callable[[float, bool], Tensor]] = {
        "SciPy's RK45": lambda tol, in_angle: scipys(denoiser, x, "RK45", tol, in_angle)
    }
    if library is not None:
        others["torchdiffeq's dopri5"] = lambda tol, in_angle: torchdiffeqs(library, denoiser, x, tol, in_angle)
    for name, solve in others.items():
        for in_angle in (False, True):
            cells = []
            for tol in TOLERANCES:
                denoiser.calls = 0
                end = solve(tol, in_angle)
                cells.append(f"{denoiser.calls}: {error(end, exact):.1e}")
            rows.append((f"{name} in {'the angle' if in_angle else 't'}", *cells))
    return rows


def error(x: Tensor, exact: Tensor) -> float:
    """Root mean square distance of the ends."""
    return float((x - exact).square().sum(1).mean().sqrt())


def stochastic(schedule: NoiseSchedule, n: int) -> tuple[str, list[tuple[str, ...]]]:
    """The distance of two exact sets, and rows: sampler, calls, distance to an exact set."""
    generator = torch.Generator().manual_seed(0)
    denoiser = Counting(DATA.denoiser(schedule))
    rows: list[tuple[str, ...]] = []
    reference = DATA.sample(n, generator)

    def row(name: str, run: Callable[[Tensor], Tensor]) -> None:
        denoiser.calls = 0
        found = energy_distance(run(prior(schedule, (n, 2), generator, dtype=torch.float64)), reference)
        rows.append((name, str(denoiser.calls), f"{found.value:.1e} +- {found.standard_error:.1e}"))

    for name, (make, per_step) in STOCHASTIC.items():
        for calls in CALLS[1:]:
            at = 0.999 * karras(schedule, max(2, calls // per_step))
            row(name, lambda x, make=make, at=at: sample(make(), denoiser, x, at, None, generator))  # type: ignore[misc]
    for tol in (0.2, 0.1, 0.05, 0.02):

        def adaptive(x: Tensor, tol: float = tol) -> Tensor:
            *_, last = adaptive_sde(denoiser, x, tol, tol, generator=generator)
            return last.x

        row(f"adaptive_sde, tolerance {tol:g}", adaptive)
    floor = energy_distance(DATA.sample(n, generator), reference)
    return f"{floor.value:.1e} +- {floor.standard_error:.1e}", rows


def main(arguments: list[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Error against evaluations, with fixed grids and with a tolerance.")
    parser.add_argument("--write", action="store_true", help="put the tables into benchmarks/README.md")
    parser.add_argument("--starts", type=int, default=32, help="paths of the ODE (default: 32)")
    parser.add_argument("--samples", type=int, default=4000, help="samples of the SDE (default: 4000)")
    given = parser.parse_args(arguments)

    parts, library = [], peer()
    for name, schedule in SCHEDULES.items():
        x = prior(schedule, (given.starts, 2), torch.Generator().manual_seed(0), dtype=torch.float64)
        exact = scipys(DATA.denoiser(schedule), x, "DOP853", 1e-11, in_angle=True)
        parts += [f"**{name}.** The ODE's error after about so many calls of the denoiser, on a fixed grid:"]
        parts += [report.table(("sampler", *map(str, CALLS)), fixed_grids(schedule, x, exact))]
        parts += ["And calls (of them for rejected steps): error, at a tolerance:"]
        parts += [
            report.table(("solver", *(f"{t:.0e}" for t in TOLERANCES)), with_tolerance(schedule, x, exact, library))
        ]
    floor, rows = stochastic(VPSchedule(), given.samples)
    parts += [f"**VP, with noise.** Energy distance to {given.samples} exact samples; of as many exact ones: {floor}."]
    parts += [report.table(("sampler", "calls", "distance"), rows)]
    text = "\n\n".join(parts)
    report.publish("adaptive", text, given.write)


if __name__ == "__main__":
    main()
