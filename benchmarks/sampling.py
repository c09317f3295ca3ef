"""What a sampler costs over its bare network calls.

    python -m benchmarks.sampling [--write] [--device cpu]

Two measures, each in turns with the bare calls of a U-Net, so that a machine that slows down slows both, and each as a
ratio to them: the sampler around a network that answers at once, and the sampler around that U-Net.
The first is the sampler's own work. The second holds everything, and its first row says what it cannot tell. Calls are
counted: a sampler that asks twice a step is held against twice as many.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from benchmarks import report
from benchmarks.report import Spread
from benchmarks.train_step import waited
from diffusion_edu import (
    CosineSchedule,
    Denoiser,
    DiffusionModel,
    Step,
    Treated,
    UNet,
    V,
    ancestral,
    clip_x_0,
    ddim,
    dpmpp_2m,
    euler,
    euler_maruyama,
    heun,
    prior,
    sample,
    times,
)

BATCH, STEPS, ROUNDS = 64, 10, 9
GOAL = 0.02  # of the bare calls, for a sampler's own work
SAMPLERS = {
    "ancestral": ancestral(),
    "ancestral, x_0_hat clipped": ancestral(),
    "ddim": ddim(),
    "dpmpp_2m": dpmpp_2m(),
    "euler": euler(),
    "heun": heun(),
    "euler_maruyama": euler_maruyama(),
}


class Instant(nn.Module):
    """A network that answers at once: what is left is what the sampler does itself."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))
        self.calls = 0

    def forward(self, x: Tensor, level: Tensor, condition: Tensor | None = None) -> Tensor:
        """x itself."""
        self.calls += 1
        return self.one * x


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """How long a call takes, until the device has done it."""
    start = waited(device)
    run()
    return waited(device) - start


def verdict(own: Mapping[str, Spread]) -> str:
    """Which samplers keep to the goal."""
    over = [name for name, spread in own.items() if spread.median > GOAL]
    reached = f"not by {', '.join(over)}" if over else "by all"
    return f"Own work of at most {GOAL:.0%}: reached {reached}."


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="A sampler's cost over its bare network calls.")
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
    report.add_device(parser)
    given = parser.parse_args(arguments)
    device = torch.device(given.device)

    kept = report.keep_memory()
    torch.manual_seed(0)
    schedule = CosineSchedule()
    network = UNet(channels=(48, 64), patch=2, num_classes=10).eval()
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    model = DiffusionModel(network, schedule, V).eval()
    x, labels = prior(schedule, (BATCH, 1, 28, 28)).to(device), torch.arange(BATCH, device=device) % 10
    x = x.contiguous(memory_format=torch.channels_last)
    level, generator = torch.full((BATCH,), 0.5, device=device), torch.Generator(device)

    def bare(calls: int) -> Callable[[], None]:
        def run() -> None:
            with torch.no_grad():
                for _ in range(calls):
                    network(x, level, labels)

        return run

    instant = Instant()
    answers = DiffusionModel(instant, schedule, V).eval().to(device)
    grid = times(STEPS).clamp(max=0.99)  # euler_maruyama cannot start at t = 1, where alpha = 0

    def walk(name: str, step: Step, denoiser: Denoiser) -> Callable[[], object]:
        if "clipped" in name:
            denoiser = Treated(denoiser, clip_x_0)
        return lambda: sample(step, denoiser, x, grid, labels, generator)

    def ratios(run: Callable[[], object], calls: int) -> Spread:
        """How long it takes, in bare calls: each time the mean over those before and those after."""
        alone = bare(calls)
        alone()
        run()  # so that nothing is done for the first time below
        found = []
        for _ in range(ROUNDS):
            before, with_run, after = (seconds(each, device) for each in (alone, run, alone))
            found.append((with_run / before + with_run / after) / 2)
        return Spread.of(found)

    rows = [("the bare calls again", str(STEPS), "", ratios(bare(STEPS), STEPS).text(3))]
    own: dict[str, Spread] = {}
    for name, step in SAMPLERS.items():
        instant.calls = 0
        walk(name, step, answers)()
        calls = instant.calls
        own[name] = ratios(walk(name, step, answers), calls)
        rows.append((name, str(calls), own[name].text(4), ratios(walk(name, step, model), calls).text(3)))
    about = f"{report.machine(device)}. {BATCH} pictures of 28x28, {STEPS} steps, {ROUNDS} rounds"
    about += ", freed memory kept." if kept else "."
    header = ("sampler", "calls", "its own work (quartiles)", "with the network (quartiles)")
    text = f"{about}\n\n" + report.table(header, rows) + f"\n\n{verdict(own)}"
    report.publish(report.of_device("sampling", device), text, given.write)


if __name__ == "__main__":
    main()
