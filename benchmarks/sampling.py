"""What a sampler costs over its bare network calls.

    python -m benchmarks.sampling

The same U-Net is called the same number of times with and without the sampler around it, in turns, so that a machine
that slows down slows both. The table gives the ratio's median over the rounds, and its spread.
"""

from __future__ import annotations

import statistics
import time

import torch

from diffusion_edu import CosineSchedule, DiffusionModel, Step, UNet, V, ancestral, ddim, dpmpp_2m, prior, sample, times

BATCH, STEPS, ROUNDS = 64, 10, 9


def main() -> None:
    """Print the table."""
    torch.manual_seed(0)
    schedule = CosineSchedule()
    network = UNet(channels=(48, 64), patch=2, num_classes=10).to(memory_format=torch.channels_last).eval()
    model = DiffusionModel(network, schedule, V).eval()
    x, labels = prior(schedule, (BATCH, 1, 28, 28)), torch.arange(BATCH) % 10
    x = x.contiguous(memory_format=torch.channels_last)
    level = torch.full((BATCH,), 0.5)

    def bare() -> None:
        with torch.no_grad():
            for _ in range(STEPS):
                network(x, level, labels)

    def seconds(run: object) -> float:
        start = time.perf_counter()
        run()  # type: ignore[operator]
        return time.perf_counter() - start

    steps: dict[str, Step] = {"ancestral": ancestral(), "ddim": ddim(), "dpmpp_2m": dpmpp_2m()}
    bare()
    print(
        f"{BATCH} pictures of 28x28, {STEPS} steps, {torch.get_num_threads()} threads; ratio to the bare network calls"
    )
    for name, step in steps.items():
        ratios = []
        for _ in range(ROUNDS):
            alone = seconds(bare)
            with_sampler = seconds(lambda step=step: sample(step, model, x, times(STEPS), labels))
            ratios.append((with_sampler / alone + with_sampler / seconds(bare)) / 2)
        low, _, high = statistics.quantiles(ratios, n=4)
        print(f"{name:10} {statistics.median(ratios):.3f}  (quartiles {low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
