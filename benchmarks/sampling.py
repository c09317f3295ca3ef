"""What a sampler costs over its bare network calls.

    python -m benchmarks.sampling [--write] [--device cpu]

Two measures, each in turns with the bare calls of a U-Net, so that a machine that slows down slows both, and each as a
ratio to them: the sampler around a network that answers at once, and the sampler around that U-Net.
The first is the sampler's own work. The second holds everything, and its first row says what it cannot tell.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

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
    UNet,
    V,
    ancestral,
    ddim,
    dpmpp_2m,
    prior,
    sample,
    times,
)

BATCH, STEPS, ROUNDS = 64, 10, 9


class Instant(nn.Module):
    """A network that answers at once: what is left is what the sampler does itself."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, level: Tensor, condition: Tensor | None = None) -> Tensor:
        """x itself."""
        return self.one * x


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """How long a call takes, until the device has done it."""
    start = waited(device)
    run()
    return waited(device) - start


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

    def bare() -> None:
        with torch.no_grad():
            for _ in range(STEPS):
                network(x, level, labels)

    instant = DiffusionModel(Instant(), schedule, V).eval().to(device)

    def walk(step: Step, denoiser: Denoiser) -> Callable[[], object]:
        return lambda: sample(step, denoiser, x, times(STEPS), labels, generator)

    def ratios(run: Callable[[], object]) -> Spread:
        """How long it takes, in bare calls: each time the mean over those before and those after."""
        bare()
        run()  # so that nothing is done for the first time below
        found = []
        for _ in range(ROUNDS):
            before, with_run, after = (seconds(each, device) for each in (bare, run, bare))
            found.append((with_run / before + with_run / after) / 2)
        return Spread.of(found)

    rows = [("the bare calls again", "", ratios(bare).text(3))]
    for name, step in {"ancestral": ancestral(), "ddim": ddim(), "dpmpp_2m": dpmpp_2m()}.items():
        rows.append((name, ratios(walk(step, instant)).text(4), ratios(walk(step, model)).text(3)))
    about = f"{report.machine(device)}. {BATCH} pictures of 28x28, {STEPS} steps, {ROUNDS} rounds"
    about += ", freed memory kept." if kept else "."
    text = f"{about}\n\n" + report.table(("sampler", "its own work (quartiles)", "with the network (quartiles)"), rows)
    report.publish(report.of_device("sampling", device), text, given.write)


if __name__ == "__main__":
    main()
