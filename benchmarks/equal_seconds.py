"""Quality after equal training seconds: our U-Net and diffusers' ``UNet2DModel`` with as many parameters, on pictures
of clothes.

    python -m benchmarks.equal_seconds [--seconds 1800] [--networks NAME ...] [--write]

All learn the same by the same trainer: recipe ``fashion_mnist`` with its batch, class labels, average of the weights
and decay of the rate. They differ in the network, and each gets what suits it:

1. **Match.** The shape whose number of parameters comes closest to that of our U-Net on 2x2 patches.
2. **Setting.** Precision and layout with the most pictures a second; bf16 only where the processor computes in it.
3. **Rate.** The peak learning rate with the lowest loss, of three, each tried for a twentieth of the seconds.
4. **Train.** As many steps as the seconds hold at that pace. The runs take turns, so that a machine that slows down
   slows all of them, and the seconds that each took are in the table.
5. **Measure.** Samples from the averaged weights, by the recipe's sampler, beside real pictures.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from benchmarks import report
from benchmarks.train_step import (
    BASE,
    OURS,
    SETTINGS,
    TOLERANCE,
    MissingPeerError,
    Setting,
    Shape,
    load,
    matched,
    parameters,
    unet_2d,
    widths,
)
from diffusion_edu import CosineSchedule, Data, DiffusionModel, TrainConfig, Trainer, UNet, V
from diffusion_edu.cli import Quality, Recipe, find_recipe, measure, read_recipe
from diffusion_edu.trainer import computes_in_bf16

RATES = (7.5e-4, 1.5e-3, 3e-3)
TRIAL = 1 / 20  # of the seconds, for each rate


class Labelled(nn.Module):
    """Diffusers' ``UNet2DModel`` with our signature: levels in [0, 1], labels with a row for "no label".

    Args:
        network: theirs, with ``num_class_embeds`` one more than there are classes.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, level: Tensor, condition: Tensor | None = None) -> Tensor:
        """x (B, C, H, W), level (B,), labels (B,) or None, to the shape of x."""
        none = int(self.network.config.num_class_embeds) - 1  # type: ignore[union-attr, arg-type]
        labels = torch.full_like(level, none, dtype=torch.long) if condition is None else condition
        labels = torch.where(labels < 0, none, labels)
        answer: Tensor = self.network(x, 1000 * level, class_labels=labels).sample
        return answer


class Rowwise(nn.Module):
    """A network that gets its pictures channel by channel, whatever layout the trainer has."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, level: Tensor, condition: Tensor | None = None) -> Tensor:
        """As the network's."""
        answer: Tensor = self.network(x.contiguous(), level, condition)
        return answer


Build = Callable[[Shape, int, int], nn.Module]  # a shape, the pictures' side, how many classes


NETWORKS: dict[str, tuple[Build, Sequence[Shape]]] = {
    OURS.name: (lambda shape, side, classes: UNet(channels=shape, patch=2, num_classes=classes), ((64, 96), (48, 64))),
    "ours": (lambda shape, side, classes: UNet(channels=shape, num_classes=classes), widths(1, 1.5, 2)),
    BASE: (
        lambda shape, side, classes: Labelled(unet_2d(shape, side, num_class_embeds=classes + 1)),
        widths(1, 1.5, 2),
    ),
}


@dataclass(frozen=True)
class Entry:
    """A network in the race.

    Args:
        name: a key of ``NETWORKS``.
        shape: its channels.
        setting: precision and layout.
        pace: pictures a second in training.
        rate: peak learning rate.
    """

    name: str
    shape: Shape
    setting: Setting = SETTINGS[0]
    pace: float = math.nan
    rate: float = RATES[1]

    def trainer(self, recipe: Recipe, data: Data, steps: int, log_every: int) -> Trainer[DiffusionModel]:
        """A new model, about to be trained as the recipe says, but for what belongs to the entry."""
        torch.manual_seed(recipe.train.seed)
        build, _ = NETWORKS[self.name]
        network = build(self.shape, recipe.data_set.shape[-1], len(recipe.data_set.classes))
        model = DiffusionModel(network if self.setting.channels_last else Rowwise(network), CosineSchedule(), V)
        config: TrainConfig = replace(
            recipe.train,
            steps=steps,
            learning_rate=self.rate,
            precision=self.setting.precision,
            log_every=log_every,
            save_every=10**9,
        )
        trainer = Trainer(model, data, recipe.build_loss(), config, times=recipe.build_times(model))
        if not self.setting.channels_last:
            for part in (trainer.model, trainer.ema):
                part.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        return trainer


class Racer:
    """An entry at work.

    Args:
        entry: what trains.
        recipe, data: by what, on what.
        seconds: how long, at its pace.
        reports: how many turns its training is cut into, about.
    """

    def __init__(self, entry: Entry, recipe: Recipe, data: Data, seconds: float, reports: int = 50) -> None:
        self.entry = entry
        self.batch = recipe.train.batch_size
        self.steps = max(4, round(seconds * entry.pace / self.batch))
        self.trainer = entry.trainer(recipe, data, self.steps, max(1, self.steps // reports))
        self.reports = iter(self.trainer)
        self.seconds, self.losses = 0.0, list[float]()

    @property
    def done(self) -> float:
        """The share of its steps, from 0 to 1."""
        return self.trainer.step / self.steps

    def advance(self) -> None:
        """One turn."""
        before = self.trainer.step
        progress = next(self.reports)
        self.seconds += (progress.step - before) * self.batch / progress.images_per_second
        self.losses.append(progress.loss)

    @property
    def loss(self) -> float:
        """The mean over the last quarter."""
        last = self.losses[-max(1, len(self.losses) // 4) :]
        return sum(last) / len(last)


def race(racers: Sequence[Racer]) -> None:
    """Train all of them; the next turn is that of the one which has come least far."""
    while unfinished := [racer for racer in racers if racer.done < 1]:
        min(unfinished, key=lambda racer: racer.done).advance()


def entered(name: str, recipe: Recipe, wanted: int) -> Entry:
    """A network in the shape with the number of parameters that is wanted. Raises ValueError if none has it."""
    build, shapes = NETWORKS[name]

    def count(shape: Shape) -> int:
        with torch.device("meta"):
            return parameters(build(shape, recipe.data_set.shape[-1], len(recipe.data_set.classes)))

    return Entry(name, matched(count, shapes, wanted, TOLERANCE)[0])


def tuned(entry: Entry, recipe: Recipe, data: Data, seconds: float) -> Entry:
    """With the fastest setting and the best rate."""
    device, paces = entry.trainer(recipe, data, 1, 1).device, {}
    for setting in SETTINGS:
        if setting.precision == "bf16" and not computes_in_bf16(device):
            continue
        *_, last = replace(entry, setting=setting).trainer(recipe, data, 6, 2)
        paces[setting] = last.images_per_second
    setting = max(paces, key=lambda setting: paces[setting])
    entry = replace(entry, setting=setting, pace=paces[setting])
    trials = [Racer(replace(entry, rate=rate), recipe, data, TRIAL * seconds) for rate in RATES]
    race(trials)
    for trial in trials:
        report.say(f"{entry.name}: rate {trial.entry.rate:g}, loss {trial.loss:.4f} after {trial.seconds:.0f} s")
    best = min(trials, key=lambda trial: trial.loss)
    pace = best.steps * best.batch / best.seconds  # over a longer time than that of the settings
    return replace(entry, rate=best.entry.rate, pace=pace)


def table_of(finished: Sequence[tuple[Racer, Quality]]) -> str:
    """A row for each network."""
    header = (
        "network", "shape", "parameters", "setting", "rate", "seconds", "pictures seen", "loss", "Fréchet distance",
        "agreement",
    )  # fmt: skip
    rows: list[Sequence[str]] = [
        (
            racer.entry.name,
            " ".join(map(str, racer.entry.shape)),
            f"{parameters(racer.trainer.model) / 1e6:.2f}M",
            str(racer.entry.setting),
            f"{racer.entry.rate:g}",
            f"{racer.seconds:.0f}",
            f"{racer.steps * racer.batch / 1000:.0f}k",
            f"{racer.loss:.4f}",
            f"{quality.frechet.value:.1f}",
            _share(quality.agreement),
        )
        for racer, quality in finished
    ]
    real = finished[0][1]
    rows.append(("real training pictures", *[""] * 7, f"{real.frechet_floor.value:.1f}", _share(real.agreement_real)))
    return report.table(header, rows)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def main(arguments: list[str] | None = None) -> int:
    """Print the table. Returns 0, or 2 where a library is missing."""
    parser = argparse.ArgumentParser(description="Quality after equal training seconds.")
    parser.add_argument("--seconds", type=float, default=1800, help="of training, for each network (default: 1800)")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=[OURS.name, BASE], help="which, in turns")
    parser.add_argument("--recipe", default="fashion_mnist", help="name or file (default: fashion_mnist)")
    parser.add_argument("--n", type=int, default=2000, help="samples for the distance (default: 2000)")
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
    given = parser.parse_args(arguments)
    if not 0 < given.seconds < math.inf or given.n < 4:
        parser.error("--seconds must be above 0, and --n at least 4.")
    if BASE in given.networks:
        try:
            load("diffusers")
        except MissingPeerError as error:
            report.say(str(error))
            return 2
    recipe = read_recipe(find_recipe(given.recipe))
    data = recipe.data_set.training(recipe.data.folder, recipe.train.seed)
    wanted = parameters(recipe.build_model())
    entries = [tuned(entered(name, recipe, wanted), recipe, data, given.seconds) for name in given.networks]
    racers = [Racer(entry, recipe, data, given.seconds) for entry in entries]
    race(racers)
    finished = []
    for racer in racers:
        report.say(f"{racer.entry.name}: {racer.seconds:.0f} s, loss {racer.loss:.4f}; measuring {given.n} samples")
        finished.append((racer, measure(racer.trainer.ema, recipe, recipe.sample, given.n, recipe.evaluate.seed)))
    sampling = finished[0][1].sampling
    text = (
        f"{report.machine(racers[0].trainer.device)}. Recipe {given.recipe}, one seed, {given.n} samples by {sampling}."
        f"\n\n{table_of(finished)}"
    )
    report.publish(report.of_device("equal_seconds", racers[0].trainer.device), text, given.write)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
