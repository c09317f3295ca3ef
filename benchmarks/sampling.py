"""What a sampler costs over its bare network calls.

    python -m benchmarks.sampling [--write] [--device cpu]

The same U-Net is called the same number of times with and without the sampler around it, in turns, so that a machine
that slows down slows both. The table gives the ratio's median over the rounds, and its spread.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch

from benchmarks import report
from benchmarks.report import Spread
from benchmarks.train_step import waited
from diffusion_edu import CosineSchedule, DiffusionModel, Step, UNet, V, ancestral, ddim, dpmpp_2m, prior, sample, times

BATCH, STEPS, ROUNDS = 64, 10, 9


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

    def sampled(step: Step) -> Callable[[], object]:
        return lambda: sample(step, model, x, times(STEPS), labels, generator)

    runs: dict[str, Callable[[], object]] = {"the bare calls again": bare}
    for name, step in {"ancestral": ancestral(), "ddim": ddim(), "dpmpp_2m": dpmpp_2m()}.items():
        runs[name] = sampled(step)
    rows = []
    for name, run in runs.items():
        bare()
        run()  # so that nothing is done for the first time below
        ratios = []
        for _ in range(ROUNDS):
            before, with_sampler, after = (seconds(each, device) for each in (bare, run, bare))
            ratios.append((with_sampler / before + with_sampler / after) / 2)
        rows.append((name, Spread.of(ratios).text(3)))
    text = f"{report.machine(device)}. {BATCH} pictures of 28x28, {STEPS} steps, {ROUNDS} rounds.\n\n" + report.table(
        ("sampler", "ratio to the bare network calls (quartiles)"), rows
    )
    report.publish(report.of_device("sampling", device), text, given.write)


if __name__ == "__main__":
    main()
