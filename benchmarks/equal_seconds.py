"""Quality after equal training seconds: our U-Net and diffusers' ``UNet2DModel`` with as many parameters, on pictures
of clothes.

    python -m benchmarks.equal_seconds [--seconds 1800] [--networks NAME ...] [--write]
    python -m benchmarks.equal_seconds --beside fashion_mnist --folder runs/race [--minutes 120] [--write]

All learn the same by the same trainer: recipe ``fashion_mnist`` with its batch, class labels, average of the weights
and one decay of the rate. They differ in the network, and each gets what suits it:

1. **Match.** The shape whose number of parameters comes closest to that of our U-Net on 2x2 patches.
2. **Setting.** Precision, layout and ``torch.compile`` with the most pictures a second; bf16 only where the processor
   computes in it.
3. **Rate.** The peak learning rate with the lowest loss, of three, each tried for a twentieth of the seconds.
4. **Train.** As many steps as the seconds hold at that pace. The runs take turns, so that a machine that slows down
   slows all of them, and the seconds that each took are in the table.
5. **Measure.** Samples from the averaged weights, by the recipe's sampler, beside real pictures.

With ``--beside`` a shipped model has the place of our network: it is not trained again, the others get as many seconds
on a CPU as it has had, and the table goes to a place of its own. With ``--folder`` a race that was stopped goes on
where it stood, and ``--minutes`` stops it. The seconds hold the compilation of each process that took part, as those of
a shipped model do; the number of steps comes from a pace without it.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

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
from diffusion_edu import CosineSchedule, Data, DiffusionModel, Estimate, TrainConfig, Trainer, UNet, V
from diffusion_edu.cli import Quality, Recipe, find_recipe, load_run, measure, read_recipe
from diffusion_edu.storage import write_atomically
from diffusion_edu.trainer import CHECKPOINT, computes_in_bf16, device_named
from scripts.ship_model import MODELS

RATES = (7.5e-4, 1.5e-3, 3e-3)
TRIAL = 1 / 20  # of the seconds, for each rate
TURNS, SETTING, ENTRY = "turns.csv", "setting.json", "entry.json"
TRIES = 12  # steps in which a setting shows its pace


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
        setting: precision, layout, and whether it is compiled.
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
            cycles=1,  # a second one is for going on after the end
            learning_rate=self.rate,
            precision=self.setting.precision,
            compile=self.setting.compile,
            log_every=log_every,
            save_every=10**9,
        )
        trainer = Trainer(model, data, recipe.build_loss(), config, times=recipe.build_times(model))
        if not self.setting.channels_last:
            for part in (trainer.model, trainer.ema):
                part.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        return trainer


@dataclass(frozen=True)
class Turn:
    """A part of an entry's training: the steps done at its end and in it, its seconds, its mean loss, and where."""

    step: int
    steps: int
    seconds: float
    loss: float
    machine: str


class Racer:
    """An entry at work.

    Args:
        entry: what trains.
        recipe, data: by what, on what.
        seconds: how long, at its pace.
        reports: how many turns its training is cut into, about.
        folder: where each turn is kept; what lies there is gone on from. None for nowhere.
    """

    def __init__(
        self, entry: Entry, recipe: Recipe, data: Data, seconds: float, reports: int = 50, folder: Path | None = None
    ) -> None:
        self.entry, self.folder = entry, folder
        self.batch = recipe.train.batch_size
        self.steps = max(4, round(seconds * entry.pace / self.batch))
        self.trainer = entry.trainer(recipe, data, self.steps, max(1, self.steps // reports))
        self.turns: list[Turn] = []
        if folder is not None and (folder / CHECKPOINT).is_file():
            self.trainer.resume(folder)
            self.turns = [turn for turn in report.read_rows(folder / TURNS, Turn) if turn.step <= self.trainer.step]
        self.reports = iter(self.trainer)

    @property
    def done(self) -> float:
        """The share of its steps, from 0 to 1."""
        return self.trainer.step / self.steps

    def advance(self) -> None:
        """One turn."""
        before = self.trainer.step
        progress = next(self.reports)
        seconds = (progress.step - before) * self.batch / progress.images_per_second
        self.turns.append(
            Turn(progress.step, progress.step - before, seconds, progress.loss, report.hardware(self.trainer.device))
        )
        if self.folder is not None:  # the checkpoint last: a turn that is in the table and not in it is made again
            report.write_rows(self.folder / TURNS, self.turns)
            self.trainer.save(self.folder)

    @property
    def seconds(self) -> float:
        """Of training so far."""
        return sum(turn.seconds for turn in self.turns)

    @property
    def pace(self) -> float:
        """Pictures a second in the median turn: over a longer time than a setting's, and without a compilation."""
        return self.batch * statistics.median(turn.steps / turn.seconds for turn in self.turns)

    @property
    def loss(self) -> float:
        """The mean over the last quarter."""
        last = self.turns[-max(1, len(self.turns) // 4) :]
        return sum(turn.loss for turn in last) / len(last)


def race(racers: Sequence[Racer], deadline: float = math.inf) -> bool:
    """Train all of them; the next turn is that of the one which has come least far.

    Args:
        racers: who.
        deadline: begin no turn after this moment of ``time.monotonic``.

    Returns:
        whether all have come to their end.
    """
    while unfinished := [racer for racer in racers if racer.done < 1]:
        if time.monotonic() > deadline:
            return False
        min(unfinished, key=lambda racer: racer.done).advance()
    return True


def entered(name: str, recipe: Recipe, wanted: int) -> Entry:
    """A network in the shape with the number of parameters that is wanted. Raises ValueError if none has it."""
    build, shapes = NETWORKS[name]

    def count(shape: Shape) -> int:
        with torch.device("meta"):
            return parameters(build(shape, recipe.data_set.shape[-1], len(recipe.data_set.classes)))

    return Entry(name, matched(count, shapes, wanted, TOLERANCE)[0])


def pace(entry: Entry, recipe: Recipe, data: Data) -> float:
    """Pictures a second: of a few short reports the best. 0, and a line, for a network that cannot be compiled."""
    try:
        reports = list(entry.trainer(recipe, data, TRIES, TRIES // 4))
    except Exception as error:  # whatever the compiler raises over a foreign network
        if not entry.setting.compile:
            raise
        report.say(f"{entry.name} is not compiled: {report.first_line(error)}")
        return 0.0
    return max(progress.images_per_second for progress in reports)


def fastest(entry: Entry, recipe: Recipe, data: Data) -> Entry:
    """In the setting with the most pictures a second: for each precision the better layout, then compiled or not."""
    tried: list[Entry] = []

    def at(setting: Setting) -> Entry:
        there = replace(entry, setting=setting)
        return replace(there, pace=pace(there, recipe, data))

    for precision in ("fp32", "bf16"):
        if precision == "bf16" and not computes_in_bf16(device_named(recipe.train.device)):
            continue
        plain = [at(setting) for setting in SETTINGS if setting.precision == precision]
        better = max(plain, key=lambda entry: entry.pace)
        tried += [better, at(replace(better.setting, compile=True))]
    for there in tried:
        report.say(f"{there.name}: {there.setting}, {there.pace:.0f} pictures/s")
    return max(tried, key=lambda entry: entry.pace)


def known(path: Path | None, about: dict[str, object]) -> Entry | None:
    """The entry in a file; None where there is no file.

    Args:
        path: of the file, or None.
        about: the race that it is for, as JSON says it.

    Raises:
        ValueError: if the entry there is for another race.
    """
    if path is None or not path.is_file():
        return None
    there = json.loads(path.read_text(encoding="utf-8"))
    if there["race"] != about:
        other = [name for name in about if there["race"].get(name) != about[name]]
        raise ValueError(f"{path.parent} holds a race with another {' and '.join(other)}; give another folder.")
    found = there["entry"]
    return Entry(**found | {"setting": Setting(**found["setting"]), "shape": tuple(found["shape"])})


def kept(path: Path | None, about: dict[str, object], entry: Entry) -> Entry:
    """The entry, which is put into the file."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({"race": about, "entry": asdict(entry)}, indent=1).encode())
    return entry


def tuned(
    entry: Entry, recipe: Recipe, data: Data, seconds: float, folder: Path | None = None, deadline: float = math.inf
) -> Entry | None:
    """With the fastest setting and the best rate; None where the deadline came before the end of the trials.

    Args:
        entry: a network in its shape.
        recipe, data: by what, on what.
        seconds: of the race.
        folder: where all of it is kept; None for nowhere.
        deadline: begin no turn after this moment of ``time.monotonic``.

    Raises:
        ValueError: if the folder holds another race, or one in a precision that this machine only imitates.
    """
    about = json.loads(json.dumps({"network": entry.name, "seconds": seconds, "recipe": asdict(recipe)}))

    def place(name: str) -> Path | None:
        return None if folder is None else folder / name

    quick = known(place(SETTING), about) or kept(place(SETTING), about, fastest(entry, recipe, data))
    if quick.setting.precision == "bf16" and not computes_in_bf16(device_named(recipe.train.device)):
        raise ValueError(
            f"{folder} holds a race in bf16, in which this machine does not compute; go on on one that does."
        )
    if (found := known(place(ENTRY), about)) is not None:
        return found
    trials = [
        Racer(replace(quick, rate=rate), recipe, data, TRIAL * seconds, 20, place(f"rate_{rate:g}")) for rate in RATES
    ]
    if not race(trials, deadline):
        return None
    for trial in trials:
        report.say(f"{entry.name}: rate {trial.entry.rate:g}, loss {trial.loss:.4f} after {trial.seconds:.0f} s")
    best = min(trials, key=lambda trial: trial.loss)
    return kept(place(ENTRY), about, replace(quick, rate=best.entry.rate, pace=best.pace))


@dataclass(frozen=True)
class Logged:
    """A line of the log of a training by the command line."""

    step: int
    loss: float
    learning_rate: float
    seconds: float
    examples_per_second: float


def logged(name: str) -> list[Logged]:
    """How a model was trained that comes with the package."""
    return report.read_rows(MODELS / name / "metrics.csv", Logged)


def trained(name: str) -> str:
    """Where a model was trained that comes with the package, in the words of its card."""
    card = (MODELS / name / "README.md").read_text(encoding="utf-8")
    found = re.search(r"seconds on (.+\)), precision", card)
    assert found is not None
    return f"trained on {found[1]}"


@dataclass(frozen=True)
class Result:
    """A row of the table."""

    name: str
    shape: Shape
    parameters: int
    setting: str
    rate: float
    seconds: float
    pictures: int
    loss: float
    quality: Quality

    @classmethod
    def of(cls, racer: Racer, quality: Quality) -> Result:
        """Of a network that was trained here."""
        entry, size = racer.entry, parameters(racer.trainer.model)
        seen = racer.steps * racer.batch
        return cls(
            entry.name, entry.shape, size, str(entry.setting), entry.rate, racer.seconds, seen, racer.loss, quality
        )

    @classmethod
    def of_shipped(cls, name: str, recipe: Recipe, history: Sequence[Logged], quality: Quality) -> Result:
        """Of a model that comes with the package, by the log of its training."""
        train = recipe.train
        last = history[-max(1, len(history) // (4 * train.cycles)) :]  # a quarter of the last decay of the rate
        setting = f"{train.precision} precision, channels_last" + ", compiled" * train.compile
        return cls(
            f"the shipped {name}",
            recipe.unet.channels,
            parameters(recipe.build_model()),
            setting + f", {train.cycles} cycles" * (train.cycles > 1),
            train.learning_rate,
            history[-1].seconds,
            train.steps * train.batch_size,
            sum(row.loss for row in last) / len(last),
            quality,
        )


def table_of(results: Sequence[Result]) -> str:
    """A row for each network."""
    header = (
        "network", "shape", "parameters", "setting", "rate", "seconds", "pictures seen", "loss", "Fréchet distance",
        "agreement",
    )  # fmt: skip
    rows: list[Sequence[str]] = [
        (
            result.name,
            " ".join(map(str, result.shape)),
            f"{result.parameters / 1e6:.2f}M",
            result.setting,
            f"{result.rate:g}",
            f"{result.seconds:.0f}",
            f"{result.pictures / 1000:.0f}k",
            f"{result.loss:.4f}",
            _distance(result.quality.frechet),
            _share(result.quality.agreement),
        )
        for result in results
    ]
    real = results[0].quality
    rows.append(("real training pictures", *[""] * 7, _distance(real.frechet_floor), _share(real.agreement_real)))
    return report.table(header, rows)


def _distance(estimate: Estimate) -> str:
    return f"{estimate.value:.2f} ± {estimate.standard_error:.2f}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def main(arguments: list[str] | None = None) -> int:
    """Print the table. Returns 0; 2 where a library is missing; 3 where the minutes were too few."""
    parser = argparse.ArgumentParser(description="Quality after equal training seconds.")
    parser.add_argument("--seconds", type=float, help="of training, for each network (default: 1800)")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, help="which, in turns (default: ours, diffusers')")
    parser.add_argument("--recipe", help="name or file (default: fashion_mnist)")
    models = sorted(path.name for path in MODELS.iterdir())
    parser.add_argument(
        "--beside", choices=models, help="a shipped model, instead of our network; its recipe and seconds"
    )
    parser.add_argument("--n", type=int, default=2000, help="samples for the distance (default: 2000)")
    parser.add_argument("--folder", type=Path, help="where the race is kept, to go on from")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no turn after so many minutes")
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
    given = parser.parse_args(arguments)
    source = given.beside or given.recipe or "fashion_mnist"
    if given.beside is None:
        seconds, names = 1800.0, given.networks or [OURS.name, BASE]
        recipe, history = read_recipe(find_recipe(source)), list[Logged]()
    elif given.recipe is not None or given.seconds is not None:
        parser.error("--beside has a recipe and seconds of its own; leave out --recipe and --seconds.")
    else:
        model, recipe = load_run(MODELS / given.beside)
        recipe = replace(recipe, train=replace(recipe.train, device="cpu"))  # where the shipped models were trained
        history = logged(given.beside)
        seconds, names = history[-1].seconds, given.networks or [BASE]
    seconds = seconds if given.seconds is None else given.seconds
    if not 0 < seconds < math.inf or given.n < 4:
        parser.error("--seconds must be above 0, and --n at least 4.")
    if not given.minutes >= 0 or (given.minutes < math.inf and given.folder is None):
        parser.error("--minutes must be 0 or more, and needs a --folder that keeps what was done in them.")
    if len(set(names)) < len(names):
        parser.error("--networks names one of them twice.")
    if BASE in names:
        try:
            load("diffusers")
        except MissingPeerError as error:
            report.say(str(error))
            return 2
    deadline = time.monotonic() + 60 * given.minutes
    data = recipe.data_set.training(recipe.data.folder, recipe.train.seed)
    wanted = parameters(recipe.build_model())
    racers = []
    for name in names:
        folder = given.folder and given.folder / re.sub("[^a-z0-9]+", "_", name.lower())
        entry = tuned(entered(name, recipe, wanted), recipe, data, seconds, folder, deadline)
        if entry is None:
            report.say(f"{name}: the minutes are over, and its rate is not yet found")
            return 3
        racers.append(Racer(entry, recipe, data, seconds, folder=folder))
    if not race(racers, deadline):
        report.say("; ".join(f"{r.entry.name}: {r.done:.0%} after {r.seconds:.0f} s" for r in racers))
        return 3
    results = []
    if given.beside is not None:
        card = measure(model, recipe, recipe.sample, given.n, recipe.evaluate.seed)
        results.append(Result.of_shipped(given.beside, recipe, history, card))
    for racer in racers:
        report.say(f"{racer.entry.name}: {racer.seconds:.0f} s, loss {racer.loss:.4f}; measuring {given.n} samples")
        card = measure(racer.trainer.ema, recipe, recipe.sample, given.n, recipe.evaluate.seed)
        results.append(Result.of(racer, card))
    machines = "; ".join(sorted({turn.machine for racer in racers for turn in racer.turns}))
    of_ours = f" The shipped {source}: {trained(source)}." if given.beside else ""
    about = f"{machines}; {report.versions()}.{of_ours} Recipe {source}, one seed, {given.n} samples by "
    text = f"{about}{results[0].quality.sampling}.\n\n{table_of(results)}"
    place = "equal_seconds" if given.beside is None else "equal_seconds_shipped"
    report.publish(report.of_device(place, racers[0].trainer.device), text, given.write)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
