"""How many evaluations of the network a sampler needs for a given quality, on a model that is shipped.

    python -m benchmarks.evaluations [--model fashion_mnist] [--folder FOLDER] [--device cpu] [--write]

The quality is that of 1000 steps of ancestral sampling: a sampler is good enough where its Fréchet distance to real
pictures is within 1.05 times the reference's, each seed beside the same seed. Each sampler walks up its ladder of
evaluations, or down its ladder of tolerances, and stops at the first rung that is good enough.

Every result (sampler, rung, seed, n) is a row of FOLDER/results.csv, written before the next one begins. It names the
weights, the precision and the kind of device too, and counts for these only. The file is committed: the hours may be
spent on several days and machines. Within a result each batch is kept, so that a run that was stopped goes on where it
stood; ``--minutes`` stops it. All samplers start from the same noise and ask for the same labels, the ten classes in
turn. The network's x_0_hat is clipped to [-1, 1], as in its recipe. The schedulers of diffusers, where that library is
installed, are driven by the same denoiser.

The Fréchet distance errs upwards by about 1/n, in samples and reference alike, so numbers compare at one n only, and
5 % of a distance with that error in it is a wider margin than 5 % of the distance itself. Beside them stands the floor:
real pictures to real pictures at the same n, over 20 deals, each with as many of a class as the samples have. Where the
spread of that floor is more than 5 % of the reference, the samples are too few to rank by, and no sampler is named.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import report
from benchmarks.adaptive import Counting
from diffusion_edu import (
    BOGACKI_SHAMPINE,
    Denoiser,
    NoiseSchedule,
    Step,
    Treated,
    adaptive_ode,
    adaptive_sde,
    agreement,
    ancestral,
    clip_x_0,
    ddim,
    dpmpp_2m,
    euler,
    euler_maruyama,
    frechet_distance,
    heun,
    karras,
    prior,
    sample,
    times,
)
from diffusion_edu.cli import Recipe, load_run
from diffusion_edu.cli.samples import alike
from diffusion_edu.data import seeded
from diffusion_edu.schedule import LARGEST_RATIO
from diffusion_edu.storage import load_tensors, save_tensors

CPU = torch.device("cpu")
BATCH, DEALS, WITHIN = 100, 20, 1.05
REAL = 12_000  # real pictures at most, to hold samples against
CALLS = (2, 3, 4, 5, 7, 10, 14, 20, 28, 40)  # the ladder of the deterministic samplers
HEUN_CALLS = (3, 5, 7, 9, 13, 19, 27, 39)  # N steps ask 2N - 1 times
NOISY_CALLS = (5, 10, 20, 40, 80)  # of those that make noise on the way
ODE_TOLERANCES, SDE_TOLERANCES = (1.0, 0.3, 0.1, 0.03, 0.01), (0.8, 0.4, 0.2, 0.1)

Grid = Callable[[NoiseSchedule, int], Tensor]
Walk = Callable[[Denoiser, Tensor, float, Tensor, torch.Generator], Tensor]
"""(denoiser, x at t = 1 (B, ...), rung, labels (B,), generator) -> samples (B, ...)."""

GRIDS: dict[str, Grid] = {
    "uniform": lambda schedule, steps: times(steps),
    "karras": karras,
    "log-SNR": lambda schedule, steps: karras(schedule, steps, rho=1e4),  # the limit of Karras's rule at large rho
}


@dataclass(frozen=True)
class Contender:
    """A sampler on a grid, and the rungs of its ladder: numbers of calls, or tolerances."""

    name: str
    rungs: tuple[float, ...]
    walk: Walk
    ours: bool = True


@dataclass(frozen=True)
class Result:
    """What n samples with one seed cost and how good they are: a row of the file."""

    sampler: str
    rung: float
    seed: int
    n: int
    weights: str  # a digest of the network's
    precision: str
    device: str  # "cpu", "cuda" or "mps": the noise on the way comes from it
    evaluations: float  # of the network for one sample, the mean over the batches
    frechet: float
    agreement: float  # the share of the samples that a classifier takes for what was asked
    seconds: float

    @property
    def key(self) -> tuple[str, float, int, int, str, str, str]:
        """What makes it the answer to a question."""
        return self.sampler, self.rung, self.seed, self.n, *self.about

    @property
    def about(self) -> tuple[str, str, str]:
        """Weights, precision and device: what a table is about."""
        return self.weights, self.precision, self.device


# the samplers


def on_grid(make: Callable[[], Step], grid: Grid, calls_a_step: int = 1, start: float = 1.0) -> Walk:
    """The walk of a step on a grid; a step of 2 calls has 1 in the last, so that N steps ask 2N - 1 times."""

    def walk(denoiser: Denoiser, x: Tensor, rung: float, labels: Tensor, generator: torch.Generator) -> Tensor:
        steps = (round(rung) + calls_a_step - 1) // calls_a_step
        return sample(make(), denoiser, x, start * grid(denoiser.schedule, steps).cpu(), labels, generator)

    return walk


def by_tolerance(solve: Callable[..., Iterator[Any]], **options: object) -> Walk:
    """The walk of an adaptive sampler; the rung is its tolerance, absolute and relative."""

    def walk(denoiser: Denoiser, x: Tensor, rung: float, labels: Tensor, generator: torch.Generator) -> Tensor:
        given = options | ({"generator": generator} if solve is adaptive_sde else {})
        *_, last = solve(denoiser, x, rung, rung, condition=labels, **given)
        end: Tensor = last.x
        return end

    return walk


def levels(schedule: NoiseSchedule, count: int = 1000) -> Tensor:
    """The times (count,) of a discrete table, rising in equal steps to where sigma / alpha = 80, float64."""
    top = schedule.time_at(torch.tensor(-2 * math.log(LARGEST_RATIO), dtype=torch.float64)).clamp(max=1)
    return top * torch.arange(1, count + 1, dtype=torch.float64) / count


def by_diffusers(name: str, calls_a_step: int = 1, **options: object) -> Walk:
    """The walk of a scheduler of diffusers on the same denoiser.

    It gets our schedule as a table of 1000 betas, and the network's answer as v = (alpha x_t - x_0_hat) / sigma. Its
    steps are spaced "trailing", so that the first is taken from the highest level. A table cannot end at alpha = 0:
    ours ends where sigma / alpha = 80, as ``karras`` does.
    """

    def walk(denoiser: Denoiser, x: Tensor, rung: float, labels: Tensor, generator: torch.Generator) -> Tensor:
        schedule = denoiser.schedule
        t = levels(schedule)
        alpha_bars = torch.cat([torch.ones(1, dtype=torch.float64), schedule.alpha(t) ** 2])
        betas = (1 - alpha_bars[1:] / alpha_bars[:-1]).tolist()
        scheduler = _diffusers(name)(
            trained_betas=betas, prediction_type="v_prediction", timestep_spacing="trailing", **options
        )
        scheduler.set_timesteps((round(rung) + calls_a_step - 1) // calls_a_step)
        x = x * scheduler.init_noise_sigma
        for k in scheduler.timesteps:
            x_t = scheduler.scale_model_input(x, k)
            alpha_t, sigma_t = schedule.scales(t[int(k)], like=x_t)
            v = (alpha_t * x_t - denoiser(x_t, t[int(k)], labels)) / sigma_t
            x = scheduler.step(v, k, x).prev_sample
        return x

    return walk


def _diffusers(name: str) -> Any:
    import diffusers

    return getattr(diffusers, name)


CONTENDERS = (
    # in the order of the work: one of each kind first, then the other grids
    Contender("dpmpp_2m, uniform grid", CALLS, on_grid(dpmpp_2m, GRIDS["uniform"])),
    Contender("heun, uniform grid", HEUN_CALLS, on_grid(heun, GRIDS["uniform"], 2)),
    Contender("ddim, uniform grid", CALLS, on_grid(ddim, GRIDS["uniform"])),
    Contender("diffusers DPMSolverMultistepScheduler", CALLS, by_diffusers("DPMSolverMultistepScheduler"), False),
    Contender("adaptive_ode, Bogacki-Shampine", ODE_TOLERANCES, by_tolerance(adaptive_ode, pair=BOGACKI_SHAMPINE)),
    Contender("ancestral, uniform grid", NOISY_CALLS, on_grid(ancestral, GRIDS["uniform"])),
    Contender("dpmpp_2m, karras grid", CALLS, on_grid(dpmpp_2m, GRIDS["karras"])),
    Contender("euler, uniform grid", CALLS, on_grid(euler, GRIDS["uniform"])),
    # the SDE of the cosine schedule is infinite at t = 1
    Contender("euler_maruyama, uniform grid", NOISY_CALLS, on_grid(euler_maruyama, GRIDS["uniform"], start=0.99)),
    Contender("diffusers DDIMScheduler", CALLS, by_diffusers("DDIMScheduler", clip_sample=False), False),
    Contender("dpmpp_2m, log-SNR grid", CALLS, on_grid(dpmpp_2m, GRIDS["log-SNR"])),
    Contender("ddim, karras grid", CALLS, on_grid(ddim, GRIDS["karras"])),
    Contender("ddim, log-SNR grid", CALLS, on_grid(ddim, GRIDS["log-SNR"])),
    Contender("ancestral, karras grid", NOISY_CALLS, on_grid(ancestral, GRIDS["karras"])),
    Contender("heun, karras grid", HEUN_CALLS, on_grid(heun, GRIDS["karras"], 2)),
    Contender("diffusers HeunDiscreteScheduler", HEUN_CALLS, by_diffusers("HeunDiscreteScheduler", 2), False),
    Contender("adaptive_sde", SDE_TOLERANCES, by_tolerance(adaptive_sde)),
)


def reference(steps: int) -> Contender:
    """What all are held against: many steps of ancestral sampling."""
    return Contender("ancestral, the reference", (steps,), on_grid(ancestral, GRIDS["uniform"]))


# one result


@dataclass(frozen=True)
class Real:
    """Features of real training pictures, dealt into two parts: n, and the rest that samples are held against.

    Args:
        features: (N, F).
        labels: their classes, (N,).
        read: pictures to features, and to the labels that a classifier reads off them.
    """

    features: Tensor
    labels: Tensor
    read: Callable[[Tensor], tuple[Tensor, Tensor | None]]

    def parts(self, n: int, deal: int = 0) -> tuple[Tensor, Tensor]:
        """n of them with the labels that samples are asked for, and the others, by a deal with a number.

        Raises:
            ValueError: if a part has fewer than two.
        """
        if not 2 <= n <= len(self.features) - 2:
            raise ValueError(
                f"{len(self.features)} real pictures cannot be dealt into {n} and the rest; give a smaller n."
            )
        order = torch.randperm(len(self.features), generator=seeded(deal))
        taken = order[alike(self.labels[order], asked_for(n, int(self.labels.max()) + 1))]
        rest = torch.ones(len(self.features), dtype=torch.bool)
        rest[taken] = False
        return self.features[taken], self.features[rest]

    def floor(self, n: int) -> tuple[float, float]:
        """The distance of n real pictures to the others: mean and standard deviation over the deals."""
        found = [frechet_distance(*self.parts(n, deal)) for deal in range(DEALS)]
        return statistics.mean(found), statistics.stdev(found)


def asked_for(n: int, classes: int) -> Tensor:
    """The labels (n,) of the samples: the classes in turn."""
    return torch.arange(n) % classes


def digest(model: nn.Module) -> str:
    """Of the weights: the same for the same numbers, on every device."""
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        found.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


class TimeIsUp(Exception):
    """The deadline came within a result. What there is of it has been kept."""


class Unfinished:
    """The samples so far of one result, in a file: the reference takes hours, and a run may be stopped in its midst.

    Args:
        path: of the file; there is one at a time.
        key: of the result. What is kept of another is no use.
        batch: samples that are drawn at once.
    """

    def __init__(self, path: Path, key: tuple[object, ...], batch: int = BATCH) -> None:
        self.path, self.key, self.batch = path, repr(key), batch

    def read(self) -> tuple[list[Tensor], list[int], Tensor | None, float]:
        """The batches, the calls that each took, the generator's state after them, and the seconds."""
        tensors, words = load_tensors(self.path) if self.path.is_file() else ({}, {})
        if words.get("key") != self.key:
            return [], [], None, 0.0
        calls = tensors["calls"].tolist()
        return list(tensors["samples"].split(self.batch)), calls, tensors["generator"], float(words["seconds"])

    def keep(self, parts: Sequence[Tensor], calls: Sequence[int], state: Tensor, seconds: float) -> None:
        """Write all of it beside, then rename."""
        tensors = {"samples": torch.cat(list(parts)), "calls": torch.tensor(calls), "generator": state}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(self.path, tensors, {"key": self.key, "seconds": str(seconds)})


def measured(
    denoiser: Denoiser,
    recipe: Recipe,
    contender: Contender,
    rung: float,
    seed: int,
    n: int,
    real: Real,
    folder: Path,
    deadline: float = math.inf,
    batch: int = BATCH,
    about: tuple[str, str, str] = ("", "fp32", "cpu"),
) -> Result:
    """Draw n samples and measure them.

    The start is drawn on the CPU, and so is the same everywhere; the noise on the way comes from the device.

    Args:
        denoiser, recipe: of the model.
        contender, rung, seed, n: what is asked.
        real: pictures to hold the samples against.
        folder: where the batches so far are kept, and read from.
        deadline: by ``time.monotonic``; no batch is begun after it.
        batch: samples that are drawn at once.
        about: digest of the weights, the precision ("fp32", or "bf16" for autocast), and the kind of device that the
            denoiser is on.

    Raises:
        TimeIsUp: if the deadline comes first.
    """
    device = torch.device(about[2])
    counting, generator = Counting(denoiser), seeded(seed)
    asked = asked_for(n, len(recipe.data_set.classes))
    # drawn before anything else: the same for all samplers
    starts = prior(denoiser.schedule, (n, *recipe.data_set.shape), generator)
    if device != CPU:
        generator = torch.Generator(device).manual_seed(seed)
    unfinished = Unfinished(folder / "unfinished.safetensors", (contender.name, rung, seed, n, *about), batch)
    parts, calls, state, seconds = unfinished.read()
    if state is not None:
        generator.set_state(state)
    for x, labels in list(zip(starts.split(batch), asked.split(batch), strict=True))[len(parts) :]:
        if time.monotonic() > deadline:
            raise TimeIsUp
        began, counting.calls = time.perf_counter(), 0
        x = x.to(device).contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=about[1] == "bf16"):
            parts.append(contender.walk(counting, x, rung, labels.to(device), generator).cpu().contiguous())
        calls.append(counting.calls)
        seconds += time.perf_counter() - began
        unfinished.keep(parts, calls, generator.get_state(), seconds)
    features, said = real.read(torch.cat(parts).clamp(-1, 1))
    assert said is not None
    distance = frechet_distance(features, real.parts(n)[1])
    return Result(
        contender.name,
        rung,
        seed,
        n,
        *about,
        float(statistics.mean(calls)),
        distance,
        agreement(said, asked),
        round(seconds, 1),
    )


# the file


class Results:
    """The rows so far, kept in a file that is whole at every moment.

    Args:
        path: of the file.
        about: weights, precision and device of those rows that are asked for; it keeps the others too.
    """

    def __init__(self, path: Path, about: tuple[str, str, str]) -> None:
        self.path, self.about = path, about
        self.rows = {row.key: row for row in report.read_rows(path, Result)}

    def add(self, row: Result) -> None:
        """Keep a row, on disk first."""
        report.write_rows(self.path, [*self.rows.values(), row])
        self.rows[row.key] = row

    def of(self, name: str, rung: float, seeds: int, n: int) -> list[Result]:
        """The rows of a sampler at a rung, as many of the seeds as are there."""
        keys = [(name, float(rung), seed, n, *self.about) for seed in range(seeds)]
        return [self.rows[key] for key in keys if key in self.rows]


# all results


def fill(
    results: Results,
    contenders: Sequence[Contender],
    standard: Contender,
    seeds: int,
    n: int,
    measure: Callable[[Contender, float, int], Result],
    deadline: float = math.inf,
) -> bool:
    """Measure what is missing: the reference, then each ladder up to its first rung that is good enough.

    Args:
        results: what is there already, and where the rest goes.
        contenders: in the order of the work.
        standard: the reference.
        seeds: how many, from 0 up.
        n: samples a seed.
        measure: (contender, rung, seed) -> the result; may raise TimeIsUp.
        deadline: by ``time.monotonic``; no result is begun after it.

    Returns:
        whether everything is there.
    """
    for contender in (standard, *contenders):
        for rung in contender.rungs:
            for seed in range(seeds):
                if (contender.name, float(rung), seed, n, *results.about) in results.rows:
                    continue
                if time.monotonic() > deadline:
                    return False
                try:
                    row = measure(contender, float(rung), seed)
                except TimeIsUp:
                    return False
                results.add(row)
                print(
                    f"{row.sampler}, {row.evaluations:g}, seed {seed}: {row.frechet:.3f} ({row.seconds:g} s)",
                    flush=True,
                )
            if contender is not standard and good_enough(results, contender, rung, standard, seeds, n):
                break
    return True


def good_enough(results: Results, contender: Contender, rung: float, standard: Contender, seeds: int, n: int) -> bool:
    """Whether the distance at a rung is within 1.05 times the reference's, in the mean over the seeds."""
    found = ratios(results, contender, rung, standard, seeds, n)
    return bool(found) and statistics.mean(found) <= WITHIN


def ratios(results: Results, contender: Contender, rung: float, standard: Contender, seeds: int, n: int) -> list[float]:
    """Of each seed's distance to the reference's with the same seed."""
    of_rung, of_standard = (
        {row.seed: row.frechet for row in results.of(who.name, at, seeds, n)}
        for who, at in ((contender, rung), (standard, standard.rungs[0]))
    )
    return [of_rung[seed] / of_standard[seed] for seed in of_rung if seed in of_standard]


# the report


@dataclass(frozen=True)
class Row:
    """What a contender's ladder came to."""

    contender: Contender
    tried: tuple[tuple[float, float, float], ...]  # (evaluations, distance, agreement), means over the seeds
    reached: bool
    ratios: Sequence[float] = ()  # at the last rung tried, of each seed

    @property
    def needed(self) -> float:
        """Evaluations at the first rung that is good enough; infinity if none is."""
        return self.tried[-1][0] if self.reached else math.inf

    @property
    def cells(self) -> tuple[str, ...]:
        """A line of the table."""
        if not self.tried:
            return self.contender.name, "not run", "", "", "", ""
        evaluations, distance, agrees = self.tried[-1]
        ratio = f"{statistics.mean(self.ratios):.3f}"
        if len(self.ratios) > 1:
            ratio += f" ± {report.mean(self.ratios).standard_error:.3f}"
        need = f"{evaluations:g}" if self.reached else f"more than {evaluations:g}"
        if not self.reached and len(self.tried) < len(self.contender.rungs):
            need += ", not run further"
        ladder = ", ".join(f"{calls:g}: {value:.2f}" for calls, value, _ in self.tried)
        return self.contender.name, need, ratio, f"{distance:.2f}", f"{agrees:.3f}", ladder


def row_of(results: Results, contender: Contender, standard: Contender, seeds: int, n: int) -> Row:
    """The means over the seeds up to the first rung that is good enough, or to the last that was run."""
    tried: list[tuple[float, float, float]] = []
    found: list[float] = []
    for rung in contender.rungs:
        rows = results.of(contender.name, rung, seeds, n)
        if len(rows) < seeds:
            break
        found = ratios(results, contender, rung, standard, seeds, n)
        tried.append(
            tuple(statistics.mean(getattr(row, key) for row in rows) for key in ("evaluations", "frechet", "agreement"))
        )
        if good_enough(results, contender, rung, standard, seeds, n):
            return Row(contender, tuple(tried), True, found)
    return Row(contender, tuple(tried), False, found)


def text_of(
    results: Results,
    contenders: Sequence[Contender],
    standard: Contender,
    seeds: int,
    n: int,
    floor: tuple[float, float],
) -> str:
    """The report, in Markdown.

    Raises:
        ValueError: if the reference is not there yet.
    """
    of_standard, about = results.of(standard.name, standard.rungs[0], seeds, n), results.about
    if len(of_standard) < seeds:
        raise ValueError(f"{results.path} has no reference for {seeds} seeds of {n} samples yet; let the run go on.")
    rows = [row_of(results, contender, standard, seeds, n) for contender in contenders]
    distance = statistics.mean(row.frechet for row in of_standard)
    each = f" (of each seed: {', '.join(f'{row.frechet:.2f}' for row in of_standard)})" if seeds > 1 else ""
    seconds = sum(row.seconds for row in results.rows.values() if row.n == n and row.about == about)
    agrees = statistics.mean(row.agreement for row in of_standard)
    lines = [
        f"{report.machine(torch.device(about[2]))}. {n} samples for each of {seeds} seed{'s' * (seeds > 1)}, "
        f"{about[1]}, {seconds / 60:.0f} minutes of sampling in all.",
        f"The reference, ancestral sampling in {standard.rungs[0]:g} steps: a distance of {distance:.2f}{each}; the "
        f"classifier agrees with the label in {agrees:.3f}. Good enough is a ratio to it of at most "
        f"{WITHIN}, in the mean over the seeds (± its standard error). Real pictures to real ones at this n: "
        f"{floor[0]:.2f}, with a standard deviation of {floor[1]:.2f} over {DEALS} deals.",
        report.table(
            ("sampler", "evaluations needed", "ratio there", "distance", "classifier agrees", "evaluations: distance"),
            [row.cells for row in rows],
        ),
        advice(rows, floor[1], distance),
    ]
    return "\n\n".join(lines)


def advice(rows: Sequence[Row], chance: float, distance_of_reference: float) -> str:
    """Which of our samplers to take: fewest evaluations, and the smallest distance among those.

    Args:
        rows: of all contenders.
        chance: a standard deviation of the distance; within two of the best, at no more evaluations, others are named.
        distance_of_reference: where chance is more than 5 % of it, nothing is named.
    """
    if chance > (WITHIN - 1) * distance_of_reference:
        share = chance / distance_of_reference
        return (
            f"At this n chance moves the distance by {share:.0%} of the reference's: too few samples to name a sampler."
        )
    ours = [row for row in rows if row.contender.ours and row.reached]
    if not ours:
        return "None of our samplers is good enough within its ladder."
    best = min(ours, key=lambda row: (row.needed, row.tried[-1][1]))
    limit = best.tried[-1][1] + 2 * chance
    alike = [
        f"{row.contender.name} ({distance:.2f})"
        for row in rows
        if row.contender.ours and row is not best
        for distance in [min((d for calls, d, _ in row.tried if calls <= best.needed), default=math.inf)]
        if distance <= limit
    ]
    more = f" At so few, chance does not tell apart from it: {', '.join(alike)}." if alike else ""
    return f"Take **{best.contender.name}**: {best.needed:g} evaluations.{more}"


def present(contenders: Sequence[Contender]) -> list[Contender]:
    """Those that can be run here; what is left out is named on stderr."""
    try:
        import diffusers  # noqa: F401
    except ImportError:
        print("diffusers is left out: pip install -c constraints.txt -e '.[bench]' brings it.", file=sys.stderr)
        return [contender for contender in contenders if contender.ours]
    return list(contenders)


def main(arguments: list[str] | None = None) -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description="Evaluations of the network for a given quality.")
    parser.add_argument("--model", default="fashion_mnist", help="a shipped model, or the folder of a run of pictures")
    parser.add_argument("--folder", type=Path, help="where results.csv lies (default: benchmarks/evaluations_MODEL)")
    parser.add_argument("--n", type=int, default=2000, help="samples a seed (default: 2000)")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds (default: 3)")
    parser.add_argument("--reference", type=int, default=1000, help="steps of the reference (default: 1000)")
    report.add_device(parser)
    parser.add_argument("--batch", type=int, default=BATCH, help=f"samples drawn at once (default: {BATCH})")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="bf16: autocast (default: fp32)")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin nothing after so many minutes")
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
    given = parser.parse_args(arguments)
    if min(given.seeds, given.reference, given.batch) < 1:
        parser.error("give at least one seed, a reference of at least one step, and a batch of at least one sample")

    model, recipe = load_run(given.model)
    folder = given.folder or Path(__file__).with_name(f"evaluations_{Path(given.model).name}")
    device = torch.device(given.device)
    model.to(device).network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    denoiser = Treated(model, clip_x_0)
    pictures, labels = recipe.data_set.real("train", REAL, recipe.data.folder, 0)
    read = recipe.data_set.features(recipe.data.folder).of
    features, said = read(pictures)
    if said is None or not recipe.model.conditional:
        parser.error(f"{given.model} has no labels, or there is no classifier that reads them; give another model")
    real = Real(features, labels, read)
    results = Results(folder / "results.csv", (digest(model), given.precision, device.type))
    contenders, standard = present(CONTENDERS), reference(given.reference)

    deadline = time.monotonic() + 60 * given.minutes

    def measure(contender: Contender, rung: float, seed: int) -> Result:
        return measured(
            denoiser,
            recipe,
            contender,
            rung,
            seed,
            given.n,
            real,
            folder,
            deadline,
            given.batch,
            results.about,
        )

    if not fill(results, contenders, standard, given.seeds, given.n, measure, deadline):
        print("the time is up; the same command goes on from here", file=sys.stderr)
    try:
        text = text_of(results, contenders, standard, given.seeds, given.n, real.floor(given.n))
    except ValueError as error:
        raise SystemExit(str(error)) from error
    report.publish(report.of_device("evaluations", device), text, given.write)


if __name__ == "__main__":
    main()
