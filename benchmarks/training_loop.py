"""What the training loop adds to its bare steps: the batch, the draws, the average of the weights, the report; and what
the program around it adds: rows of the log, checkpoints, grids of samples.

    python -m benchmarks.training_loop [--write] [--device cpu] [--batch 32] [--channels 48 64]

A bare step has its pictures, times and noise in hand: loss, backward pass, clipping, AdamW. The trainer's loop and the
bare steps have turns, so that a machine that slows down slows both. Each part is also timed by itself, in the same
round, as a share of the bare step. What happens only now and then is divided by the steps between, and those of the
program are recipe ``mnist``'s.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

from benchmarks import report
from benchmarks.report import Spread
from benchmarks.train_step import waited
from diffusion_edu import (
    CosineSchedule,
    DiffusionModel,
    TensorData,
    TrainConfig,
    Trainer,
    UNet,
    V,
    denoising_loss,
    mnist_5k,
    stratified,
)
from diffusion_edu.cli import find_recipe, read_recipe
from diffusion_edu.cli.run import Log, _show
from diffusion_edu.gaussian import noise_like
from diffusion_edu.trainer import Progress

BATCH, STEPS, ROUNDS = 32, 25, 9
GOAL = 0.03  # of a bare step, for the average and all that is logged


class Part(NamedTuple):
    """Something that is done once in so many steps, and how often a round times it."""

    run: Callable[[], object]
    every: int
    times: int = STEPS


class Loop:
    """A trainer with its data, and the same step bare.

    Args:
        device: where it trains.
        batch: B, pictures a step.
        channels: the U-Net's, on 2x2 patches.
    """

    def __init__(self, device: str, batch: int = BATCH, channels: tuple[int, ...] = (48, 64)) -> None:
        torch.manual_seed(0)
        network = UNet(channels=channels, patch=2, num_classes=10)
        model = DiffusionModel(network, CosineSchedule(), V)
        config = TrainConfig(10**6, batch, device=device, precision="auto", log_every=STEPS)
        self.trainer = Trainer(model, TensorData.of(mnist_5k("train")), config=config)
        self.device = self.trainer.device
        x_0, labels = self.trainer.data.batch(0, batch)
        assert labels is not None
        x_0 = x_0.to(self.device).contiguous(memory_format=torch.channels_last)
        self._in_hand = x_0, stratified(batch).to(self.device), torch.randn_like(x_0), labels.to(self.device)
        self._optimizer = torch.optim.AdamW(model.parameters(), 0.0, fused=True)  # at rate 0 the weights stay

    def bare(self) -> None:
        """One step with everything in hand."""
        x_0, t, eps, labels = self._in_hand
        self._optimizer.zero_grad(set_to_none=True)
        with self.trainer._autocast:
            loss = denoising_loss(self.trainer.model, x_0, t, condition=labels, eps=eps).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trainer.model.parameters(), 1.0)
        self._optimizer.step()

    def whole(self) -> None:
        """``STEPS`` steps of the trainer and their report."""
        next(self._reports)

    def parts(self, folder: Path) -> dict[str, Part]:
        """What the trainer does beside a bare step, and the program beside the trainer, which writes to a folder."""
        trainer, losses = self.trainer, [torch.zeros((), device=self.device)] * STEPS
        generator = torch.Generator(self.device)
        x_0 = self._in_hand[0]
        recipe = read_recipe(find_recipe("mnist"))
        log, bar = Log(folder / "metrics.csv", 0), tqdm(total=10**9, file=io.StringIO())
        progress = Progress(trainer.step, 10**6, 0.1234567, 1e-3, 1.0, 300.0)

        def draws() -> None:
            generator.manual_seed(1)
            trainer.times(len(x_0), generator)
            noise_like(x_0, generator)

        def row() -> None:
            log.add(progress)
            bar.set_postfix_str(f"loss {progress.loss:.4f}")
            bar.update(1)

        log_every, save_every, samples_every = recipe.train.log_every, recipe.train.save_every, recipe.log.samples_every
        return {
            "batch of pictures": Part(lambda: trainer.data.batch(trainer.step, len(x_0)), 1),
            "times and noise": Part(draws, 1),
            "average of the weights": Part(lambda: trainer._average.update_parameters(trainer.model), 1),
            f"mean of the losses, every {log_every} steps": Part(lambda: float(torch.stack(losses).mean()), log_every),
            f"row of the log, progress bar, every {log_every} steps": Part(row, log_every),
            f"checkpoint, every {save_every} steps": Part(lambda: trainer.save(folder), save_every, 1),
            f"{recipe.log.samples} samples, every {samples_every} steps": Part(
                lambda: _show(trainer, recipe, folder), samples_every, 1
            ),
        }

    def seconds(self, run: Callable[[], object], times: int) -> float:
        """Of one run, the mean over some."""
        start = waited(self.device)
        for _ in range(times):
            run()
        return (waited(self.device) - start) / times

    def measure(self, rounds: int) -> dict[str, Spread]:
        """Shares of a bare step; "whole loop" is the ratio of the loop to it."""
        self._reports = iter(self.trainer)
        self.whole()
        self.seconds(self.bare, 3)
        shares: dict[str, list[float]] = {}
        with tempfile.TemporaryDirectory() as folder:
            parts = self.parts(Path(folder))
            for _ in range(rounds):
                before = self.seconds(self.bare, STEPS)
                loop = self.seconds(self.whole, 1) / STEPS
                by_part = {name: self.seconds(part.run, part.times) / part.every for name, part in parts.items()}
                bare = (before + self.seconds(self.bare, STEPS)) / 2
                for name, value in {"whole loop": loop, **by_part}.items():
                    shares.setdefault(name, []).append(value / bare)
        return {name: Spread.of(values) for name, values in shares.items()}


def verdict(shares: Mapping[str, Spread]) -> str:
    """Whether the average and what is logged keep to the goal."""
    free = ("whole loop", "batch of pictures", "times and noise")
    cost = sum(spread.median for name, spread in shares.items() if name not in free)
    reached = "reached" if cost <= GOAL else "not reached"
    return f"Average, log, checkpoints and samples: {cost:.1%} of a bare step; the goal of {GOAL:.0%} is {reached}."


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="What the training loop adds to its bare steps.")
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
    report.add_device(parser)
    parser.add_argument("--batch", type=int, default=BATCH, help=f"pictures a step (default: {BATCH})")
    parser.add_argument("--channels", type=int, nargs="+", default=[48, 64], help="of the U-Net (default: 48 64)")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args(arguments)
    loop = Loop(given.device, given.batch, tuple(given.channels))
    shares = loop.measure(given.rounds)
    rows = [
        (name, spread.text(3) if name == "whole loop" else f"{100 * spread.median:.2f} %")
        for name, spread in shares.items()
    ]
    text = (
        f"{report.machine(loop.device)}. {given.batch} pictures of 28x28 a step, channels {given.channels}, "
        f"{given.rounds} rounds of {STEPS} steps.\n\n"
        + report.table(("part", "of a bare step"), rows)
        + f"\n\n{verdict(shares)}"
    )
    report.publish(report.of_device("training_loop", loop.device), text, given.write)


if __name__ == "__main__":
    main()
