"""How fast a training step is: our U-Net beside those of other libraries, at the same number of parameters.

    python -m benchmarks.train_step [--device cpu] [--batch 128 32] [--rounds 9] [--compile] [--write]
    python -m benchmarks.train_step --shipped fashion_mnist [--write]

A step draws times and noise, and goes forward, takes the loss, goes backward and lets AdamW step. It is the same code
for every network: each stands in our ``DiffusionModel``. All are unconditional, without dropout.

1. **Match.** Each library gets the widths whose number of parameters comes closest to ours on 2x2 patches.
2. **Tune.** Its two closest shapes are timed in float32 and in bf16 autocast, with channels_last and without. The
   fastest goes on, with ``--compile`` against itself under ``torch.compile``. A setting that one library cannot run is
   no setting of its own.
3. **Measure.** All take turns, round after round, so that a machine that slows down slows all of them. A matrix product
   in each precision takes its turn too: it is the peak that a step's rate of operations is a share of.

``--shipped`` asks the same for a model that comes with the package: its channels, the batch that it learnt with, and
``torch.compile``, with which it was trained. It has labels and the others here none, itself included.

The operations are counted (``torch.utils.flop_counter``), attention as its two matrix products. The memory of one more
picture is the slope of the peak between a batch and twice that batch, each in a process of its own.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import report
from benchmarks.report import Spread
from diffusion_edu import CosineSchedule, DiffusionModel, UNet, V, denoising_loss, stratified
from diffusion_edu.cli import load_run

ROOT = Path(__file__).resolve().parents[1]
TOLERANCE = 0.10  # of the number of parameters, either way
SHAPES = 2  # closest shapes of a contender that are timed
GOALS = {"ours, 2x2 patches": 5.0, "ours": 2.7}  # times the pictures a second of BASE
SHIPPED_GOALS = {"ours, 2x2 patches": 3.0}  # the same, for the shape and batch of a model that comes with the package
SHARE_GOAL = 0.45  # of the bf16 matrix product, ours on patches
BASE = "diffusers UNet2DModel"

Shape = tuple[int, ...]
Build = Callable[[Shape, int], nn.Module]  # a shape and the pictures' side to a network (x, level, condition)


# The contenders


@dataclass(frozen=True)
class Contender:
    """A network that can be built in several shapes.

    Args:
        name: in the table.
        build: see ``Build``.
        shapes: those that the match may choose from.
        package: what has to be installed for it, as Python imports it; None for ours.
    """

    name: str
    build: Build
    shapes: tuple[Shape, ...]
    package: str | None = None


class Adapter(nn.Module):
    """Another library's network with our signature.

    Args:
        network: theirs.
        call: (network, x (B, C, H, W), level (B,) in [0, 1]) -> the shape of x.
        patch: as in our ``UNet``: the side of the squares that are folded into channels.
    """

    def __init__(self, network: nn.Module, call: Callable[[nn.Module, Tensor, Tensor], Tensor], patch: int = 1) -> None:
        super().__init__()
        self.network, self.call, self.patch = network, call, patch

    def forward(self, x: Tensor, level: Tensor, condition: Tensor | None = None) -> Tensor:
        """The network's answer, shape of x."""
        if self.patch == 1:
            return self.call(self.network, x, level)
        return F.pixel_shuffle(self.call(self.network, F.pixel_unshuffle(x, self.patch), level), self.patch)


class MissingPeerError(Exception):
    """A library that is to be compared with cannot be imported. The message says what to install."""


def load(package: str) -> Any:
    """A peer's package.

    Two of them import torchvision for their data loaders. None of the networks uses it, and a torchvision that does not
    fit the installed PyTorch raises when it is imported, so those two get a stand-in while they are imported.

    Raises:
        MissingPeerError: if it cannot be imported.
    """
    try:
        with nullcontext() if package == "diffusers" else _stand_in("torchvision"):
            return importlib.import_module(package)
    except Exception as error:  # whatever a foreign package raises while it is imported
        raise MissingPeerError(
            f"{package} cannot be imported ({type(error).__name__}: {error}) and is left out. To compare with it, run "
            "`pip install -c constraints.txt -e '.[bench]'` and `pip install --no-deps -r benchmarks/peers.txt`, best "
            "in an environment of its own."
        ) from error


@contextmanager
def _stand_in(name: str) -> Iterator[None]:
    there = sys.modules.get(name)
    sys.modules[name] = mock.MagicMock()
    try:
        yield
    finally:
        del sys.modules[name]
        if there is not None:
            sys.modules[name] = there


def _ours(shape: Shape, side: int) -> nn.Module:
    return UNet(channels=shape)


def _ours_on_patches(shape: Shape, side: int) -> nn.Module:
    return UNet(channels=shape, patch=2)


def unet_2d(shape: Shape, side: int, patch: int = 1, **options: Any) -> nn.Module:
    """Diffusers' ``UNet2DModel`` for pictures of one channel, with attention at the lowest resolution."""
    plain = len(shape) - 1  # levels without attention
    network: nn.Module = load("diffusers").UNet2DModel(
        sample_size=side // patch,
        in_channels=patch**2,
        out_channels=patch**2,
        block_out_channels=shape,
        down_block_types=("DownBlock2D",) * plain + ("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * plain,
        norm_num_groups=8,  # the default of 32 does not divide such small widths
        **options,
    )
    return network


def _diffusers(patch: int) -> Build:
    def build(shape: Shape, side: int) -> nn.Module:
        return Adapter(unet_2d(shape, side, patch), lambda net, x, level: net(x, 1000 * level).sample, patch)

    return build


def _lucidrains(shape: Shape, side: int) -> nn.Module:
    width, *multiples = shape
    network = load("denoising_diffusion_pytorch").Unet(width, channels=1, dim_mults=tuple(multiples))
    return Adapter(network, lambda net, x, level: net(x, 1000 * level))


def _smalldiffusion(shape: Shape, side: int) -> nn.Module:
    blocks, *multiples = shape
    network = load("smalldiffusion").Unet(
        side,
        in_ch=1,
        out_ch=1,
        ch=32,  # its group norm has 32 groups
        ch_mult=tuple(multiples),
        num_res_blocks=blocks,
        attn_resolutions=(side // 2 ** (len(multiples) - 1),),
        dropout=0.0,
    )
    return Adapter(network, lambda net, x, level: net(x, torch.tan(math.pi / 2 * level.clamp(0.001, 0.999))))


def widths(*ratio: float) -> tuple[Shape, ...]:
    """Channels at each level in about a ratio, in multiples of 8, which suit every kernel."""
    shapes = (tuple(max(8, 8 * round(r * scale / 8)) for r in ratio) for scale in range(8, 97))
    return tuple(dict.fromkeys(shapes))


OURS = Contender("ours, 2x2 patches", _ours_on_patches, ((48, 64),))
CONTENDERS = (
    OURS,
    Contender("ours", _ours, widths(1, 1.5, 2)),
    Contender(BASE, _diffusers(1), widths(1, 1.5, 2), "diffusers"),
    Contender(f"{BASE}, on our 2x2 patches", _diffusers(2), widths(1, 1.33), "diffusers"),
    Contender(
        "lucidrains Unet",
        _lucidrains,
        tuple((w, *m) for w in range(8, 65, 4) for m in ((1, 2, 4), (1, 2, 2), (1, 1, 2))),
        "denoising_diffusion_pytorch",
    ),
    Contender(
        "smalldiffusion Unet",
        _smalldiffusion,
        tuple((b, *m) for b in (1, 2, 3) for m in ((1, 1, 1), (1, 1, 2), (1, 2, 2), (1, 2, 3))),
        "smalldiffusion",
    ),
)


# Match


def parameters(network: nn.Module) -> int:
    """How many numbers training changes."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def matched(count: Callable[[Shape], int], shapes: Sequence[Shape], wanted: int, tolerance: float) -> list[Shape]:
    """The shapes whose count is within ``tolerance`` of ``wanted``, closest first.

    Args:
        count: the number of parameters of a shape; grows with each entry of the shape.
        shapes: to choose from.
        wanted: the number aimed at.
        tolerance: largest deviation, as a share of ``wanted``.

    Raises:
        ValueError: if there is none.
    """
    off = {shape: abs(count(shape) / wanted - 1) for shape in shapes}
    best = sorted(off, key=lambda shape: (off[shape], shape))
    if off[best[0]] > tolerance:
        raise ValueError(
            f"none of {len(shapes)} shapes has {wanted} parameters within {tolerance:.0%}; the closest, {best[0]}, is "
            f"{off[best[0]]:.0%} away. Offer more shapes, or a larger tolerance."
        )
    return [shape for shape in best if off[shape] <= tolerance]


def _count(contender: Contender, side: int) -> Callable[[Shape], int]:
    def count(shape: Shape) -> int:
        with torch.device("meta"):
            return parameters(contender.build(shape, side))

    return count


# Step


@dataclass(frozen=True)
class Setting:
    """How a network is run."""

    precision: str  # "fp32", or "bf16" for autocast
    channels_last: bool
    compile: bool = False  # torch.compile

    def __str__(self) -> str:
        return ", ".join([self.precision] + ["channels_last"] * self.channels_last + ["compiled"] * self.compile)

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """The context that forward and loss run in."""
        return torch.autocast(device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()


SETTINGS = tuple(Setting(precision, last) for precision in ("fp32", "bf16") for last in (False, True))


@dataclass(frozen=True)
class Run:
    """What is timed: a contender in a shape and a setting, at a batch size. Plain data, to hand to a process."""

    contender: str
    shape: Shape
    setting: Setting
    batch: int
    side: int
    device: str

    def network(self) -> nn.Module:
        """A new network."""
        return next(c for c in CONTENDERS if c.name == self.contender).build(self.shape, self.side)


class Training:
    """A run with its weights and data, ready to take steps."""

    def __init__(self, run: Run) -> None:
        torch.manual_seed(0)
        self.run, self.device = run, torch.device(run.device)
        layout = torch.channels_last if run.setting.channels_last else torch.contiguous_format
        network = run.network().to(self.device).to(memory_format=layout)  # type: ignore[call-overload]
        self.model = DiffusionModel(network, CosineSchedule(), V).train()
        asked: Any = torch.compile(network) if run.setting.compile else network
        self._asked = DiffusionModel(asked, CosineSchedule(), V)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 1e-4, weight_decay=0.0, fused=True)
        self.generator = torch.Generator(self.device).manual_seed(0)
        x_0 = torch.rand(run.batch, 1, run.side, run.side, generator=self.generator, device=self.device) * 2 - 1
        self.x_0 = x_0.contiguous(memory_format=layout)

    def step(self) -> None:
        """One training step."""
        self._step(self._asked)

    def _step(self, model: DiffusionModel) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        t = stratified(self.run.batch, self.generator)
        with self.run.setting.autocast(self.device):
            loss = denoising_loss(model, self.x_0, t, generator=self.generator).mean()
        loss.backward()
        self.optimizer.step()

    def flops(self) -> int:
        """Operations of a step, counted without ``torch.compile``, which hides them."""
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            self._step(self.model)
        return counter.get_total_flops()


class Product:
    """A square matrix product, ready to be timed. The best of several sizes is the peak."""

    def __init__(self, precision: str, n: int, device: torch.device) -> None:
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
        self.n, self.device = n, device
        self.a, self.b, self.c = (torch.rand(n, n, device=device).to(dtype) for _ in range(3))

    def step(self) -> None:
        """One product."""
        torch.mm(self.a, self.b, out=self.c)


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def waited(device: torch.device) -> float:
    """The clock, once the device has done what it was given. Seconds."""
    synchronise(device)
    return time.perf_counter()


def seconds_a_step(work: Training | Product, steps: int) -> float:
    """One step that is not timed, to fill the caches again, then ``steps`` that are."""
    work.step()
    start = waited(work.device)
    for _ in range(steps):
        work.step()
    return (waited(work.device) - start) / steps


# Tune and measure


def compiled(run: Run) -> Training | None:
    """The run under ``torch.compile``, its first step done; None, and a line, for a network that cannot be compiled."""
    try:
        training = Training(replace(run, setting=replace(run.setting, compile=True)))
        training.step()
    except Exception as error:  # whatever the compiler raises over a foreign network
        report.say(f"{run.contender} is not compiled: {report.first_line(error)}")
        return None
    return training


def fastest(works: Sequence[Training | Product], cost: Callable[[Any], float], rounds: int = 2) -> tuple[Any, float]:
    """The work with the fewest seconds a step, divided by ``cost``, and those seconds. Best of some rounds in turns."""
    best = [math.inf] * len(works)
    for _ in range(rounds):
        for i, work in enumerate(works):
            best[i] = min(best[i], seconds_a_step(work, 1))
    i = min(range(len(works)), key=lambda i: best[i] / cost(works[i]))
    return works[i], best[i]


def interleaved(works: Sequence[Training | Product], steps: Sequence[int], rounds: int) -> list[list[float]]:
    """Seconds a step of each work in each round; within a round each has its turn."""
    seconds: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for times, work, n in zip(seconds, works, steps, strict=True):
            times.append(seconds_a_step(work, n))
    return seconds


def ratios(base: Sequence[float], seconds: Sequence[float]) -> list[float]:
    """How many times faster than ``base``, round by round."""
    return [b / s for b, s in zip(base, seconds, strict=True)]


def shares(flops: float, seconds: Sequence[float], peak_flops: float, peak_seconds: Sequence[float]) -> list[float]:
    """The rate of operations as a share of the peak's in the same round."""
    return [(flops / s) / (peak_flops / p) for s, p in zip(seconds, peak_seconds, strict=True)]


@dataclass(frozen=True)
class Measured:
    """A row of the table."""

    run: Run
    parameters: int
    images_per_second: float
    ratio: Spread | None  # to BASE; None where that is not installed
    flops: float  # of a step, a picture
    share: Spread  # of the peak
    memory: float | None  # bytes for one more picture


@dataclass(frozen=True)
class Peak:
    """The fastest matrix product of a precision."""

    n: int
    flops_per_second: float


def measure(
    contenders: Sequence[tuple[Contender, list[Shape]]],
    device: torch.device,
    batch: int,
    side: int,
    rounds: int,
    turn: float,
    memory: bool,
    compiles: bool = False,
) -> tuple[list[Measured], dict[str, Peak]]:
    """Tune and measure at one batch size.

    Args:
        contenders: each with the shapes to try.
        device, batch, side: of the pictures.
        rounds: at least 2.
        turn: seconds that a turn should last at least.
        memory: whether to measure it.
        compiles: whether the fastest setting is tried under ``torch.compile`` too.

    Returns:
        a row for each contender, and the peak of each precision.
    """
    works: list[Training | Product] = []
    steps: list[int] = []
    for contender, shapes in contenders:
        runs = [
            Run(contender.name, shape, setting, batch, side, str(device)) for shape in shapes for setting in SETTINGS
        ]
        work, seconds = fastest([Training(run) for run in runs], lambda work: 1.0)
        swift = compiled(work.run) if compiles else None
        if swift is not None:
            work, seconds = fastest([work, swift], lambda work: 1.0, rounds=5)
        report.say(f"{contender.name}: {work.run.shape}, {work.run.setting}, {batch / seconds:.0f} pictures/s")
        works.append(work)
        steps.append(max(1, round(turn / seconds)))
    sizes = (1024, 2048, 4096) if device.type == "cpu" else (4096, 8192, 16384)
    products = {}
    for precision in ("fp32", "bf16"):
        product, seconds = fastest([Product(precision, n, device) for n in sizes], lambda work: float(work.n**3))
        products[precision] = product
        works.append(product)
        steps.append(max(1, round(turn / 4 / seconds)))

    all_seconds = interleaved(works, steps, rounds)
    trainings, peak_seconds = all_seconds[: len(contenders)], dict(zip(products, all_seconds[-2:], strict=True))
    base = next((s for (c, _), s in zip(contenders, trainings, strict=True) if c.name == BASE), None)
    rows = []
    for work, seconds_each in zip(works, trainings, strict=False):
        assert isinstance(work, Training)
        precision = work.run.setting.precision
        flops = work.flops()
        share = shares(flops, seconds_each, 2 * products[precision].n ** 3, peak_seconds[precision])
        rows.append(
            Measured(
                work.run,
                parameters(work.model),
                batch / Spread.of(seconds_each).median,
                None if base is None else Spread.of(ratios(base, seconds_each)),
                flops / batch,
                Spread.of(share),
                memory_a_picture(work.run) if memory else None,
            )
        )
    peaks = {p: Peak(w.n, 2 * w.n**3 / Spread.of(peak_seconds[p]).median) for p, w in products.items()}
    return rows, peaks


# Memory


def memory_a_picture(run: Run) -> float | None:
    """Bytes by which the peak of training grows for one more picture, or None where the peak cannot be read."""
    small, large = (_peak_memory_in_a_process(Run(**{**vars(run), "batch": n * run.batch})) for n in (1, 2))
    return None if small is None or large is None else (large - small) / run.batch


def _peak_memory_in_a_process(run: Run) -> int | None:
    command = [sys.executable, "-m", "benchmarks.train_step", "--peak-memory", json.dumps(asdict(run))]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return None if found is None else int(found)


def peak_memory(run: Run) -> int | None:
    """Bytes at the peak of three steps in this process, which must have done nothing else; None if not to be read."""
    training = Training(run)
    for _ in range(3):
        training.step()
    synchronise(training.device)
    if training.device.type == "cuda":
        return torch.cuda.max_memory_allocated(training.device)
    if training.device.type == "cpu" and Path("/proc/self/status").exists():
        # VmHWM and not getrusage's ru_maxrss: that one still counts the parent from which this process was split off.
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return None


def run_of(text: str) -> Run:
    """A run from its JSON."""
    given = json.loads(text)
    return Run(**{**given, "shape": tuple(given["shape"]), "setting": Setting(**given["setting"])})


# Report


def rows_of(measured: Sequence[Measured]) -> str:
    """The table of one batch size."""
    header = (
        "network", "shape", "parameters", "best setting", "pictures/s", "ratio (quartiles)", "MFLOP a picture",
        "share of the peak", "MB a picture",
    )  # fmt: skip
    rows = [
        (
            m.run.contender,
            " ".join(map(str, m.run.shape)),
            f"{m.parameters / 1e6:.2f}M",
            str(m.run.setting),
            f"{m.images_per_second:.0f}",
            "" if m.ratio is None else m.ratio.text(),
            f"{m.flops / 1e6:.0f}",
            f"{m.share.median:.0%} of {m.run.setting.precision}",
            "" if m.memory is None else f"{m.memory / 1e6:.2f}",
        )
        for m in measured
    ]
    return report.table(header, rows)


def verdicts(measured: Sequence[Measured], goals: Mapping[str, float] = GOALS) -> list[str]:
    """One line for each goal: what was aimed at, what was measured."""
    found = {m.run.contender: m for m in measured}
    lines = []
    for name, goal in goals.items():
        ratio = found[name].ratio if name in found else None
        if ratio is not None:
            verdict = "reached" if ratio.median >= goal else "not reached"
            lines.append(f"- {name}: {ratio.median:.2f} times {BASE}; the goal of {goal:g} is {verdict}.")
    if OURS.name in found and found[OURS.name].run.setting.precision == "bf16":
        share = found[OURS.name].share.median
        verdict = "reached" if share >= SHARE_GOAL else "not reached"
        lines.append(f"- {OURS.name}: {share:.0%} of the bf16 peak; the goal of {SHARE_GOAL:.0%} is {verdict}.")
    return lines


def chosen(
    side: int, tolerance: float, shape: Shape = OURS.shapes[0]
) -> tuple[list[tuple[Contender, list[Shape]]], list[str]]:
    """The contenders that are installed and come in a shape that matches ours, each with its closest ones; and a
    sentence for each other one.
    """
    ours = replace(OURS, shapes=(shape,))
    wanted = _count(ours, side)(shape)
    there, sentences = [], []
    for contender in (ours, *CONTENDERS[1:]):
        try:
            if contender.package is not None:
                load(contender.package)
        except MissingPeerError as error:
            sentences.append(str(error))
            continue
        try:
            shapes = matched(_count(contender, side), contender.shapes, wanted, tolerance)[:SHAPES]
        except ValueError as error:
            sentences.append(f"{contender.name} is left out: {error}")
            continue
        there.append((contender, shapes))
    return there, list(dict.fromkeys(sentences))


def main(arguments: list[str] | None = None) -> int:
    """Print the tables. Returns 0, or 2 for a question that cannot be answered."""
    parser = argparse.ArgumentParser(description="Training steps of several libraries' U-Nets, in turns.")
    report.add_device(parser)
    parser.add_argument("--batch", type=int, nargs="+", default=[128, 32], help="one table each (default: 128 32)")
    parser.add_argument("--size", type=int, default=28, help="side of the pictures, a multiple of 4 (default: 28)")
    parser.add_argument("--rounds", type=int, default=9, help="at least 2 (default: 9)")
    parser.add_argument("--turn", type=float, default=1.0, help="seconds a turn, about (default: 1)")
    parser.add_argument("--compile", action="store_true", help="try torch.compile on the fastest setting of each")
    parser.add_argument(
        "--shipped", metavar="MODEL", help="a model that comes with the package: its shape, its batch, --compile"
    )
    parser.add_argument("--no-memory", action="store_true", help="leave the memory of a picture out")
    parser.add_argument("--write", action="store_true", help="put the tables into benchmarks/README.md")
    parser.add_argument("--peak-memory", metavar="RUN", help=argparse.SUPPRESS)  # what a child process is asked
    given = parser.parse_args(arguments)
    if given.peak_memory is not None:
        print(json.dumps(peak_memory(run_of(given.peak_memory))))
        return 0
    if given.size < 8 or given.size % 4 or given.rounds < 2 or min(given.batch) < 1:
        parser.error("--size must be a multiple of 4 from 8 up, --rounds at least 2, --batch at least 1.")
    device = torch.device(given.device)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")

    shape, place, goals = OURS.shapes[0], "train_step", GOALS
    if given.shipped is not None:
        recipe = load_run(given.shipped)[1]
        if not recipe.of_pictures or recipe.unet.patch != 2:
            parser.error(f"--shipped {given.shipped} is no U-Net on 2x2 patches.")
        shape, given.batch, given.compile = tuple(recipe.unet.channels), [recipe.train.batch_size], True
        place, goals = f"train_step_shipped_{given.shipped}", SHIPPED_GOALS
    elif given.compile:
        place = "train_step_compiled"
    contenders, sentences = chosen(given.size, TOLERANCE, shape)
    for sentence in sentences:
        report.say(sentence)
    parts = [f"{report.machine(device)}. {given.size}x{given.size} pictures, {given.rounds} rounds."]
    for batch in given.batch:
        report.say(f"batch {batch}")
        rows, peaks = measure(
            contenders, device, batch, given.size, given.rounds, given.turn, not given.no_memory, given.compile
        )
        found = "; ".join(
            f"{p} {peak.flops_per_second / 1e9:.0f} GFLOP/s ({peak.n} squared)" for p, peak in peaks.items()
        )
        parts += [
            f"**Batch {batch}.** Peak of a matrix product: {found}.",
            rows_of(rows),
            "\n".join(verdicts(rows, goals)),
        ]
    text = "\n\n".join(part for part in parts if part)
    report.publish(report.of_device(place, device), text, given.write)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
