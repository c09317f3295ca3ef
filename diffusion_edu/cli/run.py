"""A training run and the folder that it leaves.

    recipe.toml               what was asked for; also a recipe to start again from
    config.json               the settings in [train], as JSON
    metrics.csv               step, loss, learning rate, seconds, examples per second
    samples.png               the newest samples, while it trains and after
    samples/000500.png        the samples after step 500, and so on
    tensorboard/              loss, learning rate and pace for TensorBoard, if log.tensorboard is set
    model.safetensors         the averaged weights: sample with these
    checkpoint.safetensors    weights, averages, optimiser, step: what a resumed run goes on from
    weights.safetensors       the last weights as they are, not averaged; at the end
    README.md                 the model card; at the end

The same command starts a run, resumes one that was interrupted, and finishes one that was killed after its last step.
A file is written under another name and then renamed, and the log is cut back to the checkpoint, so that a kill at any
moment costs the steps since the last checkpoint and nothing else. A finished run goes on if ``train.cycles`` and
``train.steps`` are raised by the same factor: doubling both repeats the training once more, with new random numbers.
"""

from __future__ import annotations

import csv
import io
import os
import platform
import sys
import tomllib
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from .. import trainer as trainer_module
from ..data import Data
from ..denoiser import DiffusionModel
from ..storage import save_weights, write_atomically
from ..trainer import Progress, TrainConfig, Trainer
from .recipe import RECIPE, WEIGHTS_FILE, Recipe, differences, read_recipe, recipe_from, to_toml
from .samples import Quality, draw_samples, labels_for, load_drawing, measure, picture

__all__ = ["Log", "train"]

CARD = "README.md"
# What may change between the start of a run and its end, and it is still the same run.
# (With dropout, train.accumulate may not: the masks are drawn for each part of a batch.)
FREE = ("train.device", "train.compile", "train.accumulate", "train.log_every", "train.save_every", "data.folder")


def train(recipe: Recipe, folder: str | os.PathLike[str], command: str) -> Trainer[DiffusionModel]:
    """Train as the recipe says, going on where the folder's last checkpoint stands.

    Args:
        recipe: what to do.
        folder: where everything goes; a run of the same recipe, an empty folder, or none yet.
        command: what was typed, for the model card.

    Returns:
        the trainer, all steps done.

    Raises:
        ValueError: if the folder holds something else or a run of another recipe, another process is at work in it, or
            a setting does not fit.
        OSError: if the folder cannot be written.
        TrainingDivergedError: if the loss is no longer a number; the last checkpoint is intact.
        KeyboardInterrupt: on Ctrl-C, after a checkpoint.
    """
    folder = Path(folder)
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"the name of the folder {str(folder)!r} is not in UTF-8, which checkpoints need; give another --folder."
        ) from None
    recipe_from(tomllib.loads(to_toml(recipe)), "the recipe")  # what is written down can be read again
    _same_run(recipe, folder)
    load_drawing()  # so that a missing package is reported now and not after hours
    writer = _tensorboard() if recipe.log.tensorboard else None
    if recipe.evaluate.bits and not recipe.of_pictures:
        raise ValueError(
            f"evaluate.bits is {recipe.evaluate.bits}, and {recipe.data.set} are points: only 8-bit pictures have bits "
            "per dimension. Give evaluate.bits = 0."
        )
    model = recipe.build_model()
    # A sampler that cannot start where the schedule ends is refused now, and not at the first grid of samples.
    two = replace(recipe.sample, steps=min(2, recipe.sample.steps))
    draw_samples(model.eval(), recipe, two, 1, labels_for(recipe, "each", 1), seed=0)
    data = _load(recipe)
    checkpoint = folder / trainer_module.CHECKPOINT
    found = _state_of(checkpoint)
    trainer = Trainer(model, data, recipe.build_loss(), recipe.train, times=recipe.build_times(model), folder=folder)
    if found is not None:
        trainer.resume(folder)
    if trainer.step >= recipe.train.steps and (folder / CARD).exists():
        if trainer.is_main:
            print(f"{folder} holds this run, finished: see {folder / CARD}", file=sys.stderr)
        return trainer
    if not trainer.is_main:
        return trainer.run()
    with _alone(folder):
        _same_run(recipe, folder)  # once more: all that was read above was read without the lock
        if _state_of(checkpoint) != found:
            raise ValueError(f"another process has been at work in {folder} meanwhile; start this one again.")
        return _main_process(trainer, recipe, folder, command, writer)


def _main_process(
    trainer: Trainer[DiffusionModel], recipe: Recipe, folder: Path, command: str, writer: Any
) -> Trainer[DiffusionModel]:
    """The part of ``train`` that prints and writes."""
    begun = (folder / RECIPE).is_file()
    if cleared := _tidy(folder):
        print(f"Cleared away {cleared} half-written file(s) of a run that was killed", file=sys.stderr)
    write_atomically(folder / RECIPE, to_toml(recipe).encode())
    (folder / CARD).unlink(missing_ok=True)  # of a shorter run that goes on
    log = Log(folder / "metrics.csv", trainer.step)
    board = None if writer is None else writer(str(folder / "tensorboard"), purge_step=trainer.step + 1)
    if trainer.step:
        print(f"Going on from step {trainer.step} of {recipe.train.steps} in {folder}", file=sys.stderr)
    elif begun:
        print(f"{folder} holds a run that had no checkpoint yet: starting from step 0", file=sys.stderr)
    closed = nullcontext() if board is None else closing(board)  # however the loop ends
    with closed, tqdm(total=recipe.train.steps, initial=trainer.step, unit="step", smoothing=0.1) as bar:
        drawn = (int(grid.stem) for grid in (folder / "samples").glob("*.png") if grid.stem.isdigit())
        shown = max((step for step in drawn if step <= trainer.step), default=0) // recipe.log.samples_every
        for progress in trainer:
            log.add(progress)
            bar.set_postfix_str(f"loss {progress.loss:.4f}, {progress.images_per_second:.0f} examples/s")
            bar.update(progress.step - bar.n)
            if board is not None:
                board.add_scalar("loss", progress.loss, progress.step)
                board.add_scalar("learning_rate", progress.learning_rate, progress.step)
                board.add_scalar("examples_per_second", progress.images_per_second, progress.step)
            if progress.step // recipe.log.samples_every > shown or progress.step == progress.steps:
                shown = progress.step // recipe.log.samples_every
                _show(trainer, recipe, folder)
    _finish(trainer, recipe, folder, command, log)
    return trainer


class Log:
    """The metrics as rows of a CSV file, readable while they grow.

    Args:
        path: of the file; an older one is cut back to the rows up to ``step``, without an incomplete last line.
        step: where training goes on.
    """

    COLUMNS = ("step", "loss", "learning_rate", "seconds", "examples_per_second")

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        kept: list[list[str]] = []
        if path.is_file():
            whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
            kept = [row for row in list(csv.reader(whole.splitlines()))[1:] if _is_row(row) and int(row[0]) <= step]
        self.rows = kept
        self._before = float(kept[-1][3]) if kept else 0.0
        write_atomically(path, "".join(map(_line, [self.COLUMNS, *kept])).encode())

    @property
    def seconds(self) -> float:
        """Training seconds so far, those of the loops before this one included."""
        return float(self.rows[-1][3]) if self.rows else 0.0

    def add(self, progress: Progress) -> None:
        """One more row, written at once."""
        row = [
            str(progress.step),
            repr(progress.loss),
            repr(progress.learning_rate),
            f"{self._before + progress.seconds:.3f}",
            f"{progress.images_per_second:.1f}",
        ]
        self.rows.append(row)
        try:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(_line(row))
        except OSError as error:
            raise OSError(f"{self.path} could not be written ({error.strerror or error}). Make room.") from error


def _line(row: Any) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(row)
    return out.getvalue()


def _is_row(row: list[str]) -> bool:
    return len(row) == len(Log.COLUMNS) and row[0].isdigit()


def _same_run(recipe: Recipe, folder: Path) -> None:
    """Refuse a folder that holds something else."""
    if (folder / RECIPE).is_file():
        before = read_recipe(folder / RECIPE)
        changed = [
            name
            for name in differences(before, recipe)
            if (name not in FREE or (name == "train.accumulate" and recipe.unet.dropout))
            and name.partition(".")[0] not in ("sample", "evaluate", "log")
        ]
        if _goes_further(before.train, recipe.train):
            changed = [name for name in changed if name not in ("train.steps", "train.cycles")]
        if changed:
            table, _, key = changed[0].partition(".")
            there, here = (getattr(getattr(r, table), key) for r in (before, recipe))
            raise ValueError(
                f"{folder} holds a run of another recipe: {changed[0]} is {there!r} there and {here!r} here"
                + (f"; these differ too: {', '.join(changed[1:])}" if changed[1:] else "")
                + ". Go on with the recipe that is there, or give another --folder."
            )
    elif folder.exists() and (not folder.is_dir() or set(folder.iterdir()) - set(_half_written(folder))):
        raise ValueError(f"{folder} is not empty and holds no run; give another --folder.")


def _goes_further(before: TrainConfig, now: TrainConfig) -> bool:
    """Whether a run is the beginning of another, which has more of the same cycles of the learning rate."""
    return before.cycles < now.cycles and before.steps * now.cycles == now.steps * before.cycles


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two runs in one folder would write over each other's files.

    The folder itself is locked, and the system takes the lock away when the process ends, however it ends. Where there
    are no such locks (Windows, some network drives), nobody is refused.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise OSError(
            f"{folder} could not be made or read ({error.strerror or error}); give another --folder."
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another process is at work in {folder}; wait until it ends, or give another --folder."
            ) from None
        except OSError:
            pass
        yield
    finally:
        os.close(handle)


def _state_of(file: Path) -> tuple[int, int, int] | None:
    """What changes when a file is replaced by another; None where there is none."""
    try:
        about = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return about.st_ino, about.st_mtime_ns, about.st_size


def _half_written(folder: Path) -> list[Path]:
    """What a killed process was writing beside its files."""
    names = (trainer_module.CHECKPOINT, WEIGHTS_FILE, "weights.safetensors", "config.json", RECIPE, CARD)
    end = 8 * "[a-z0-9_]"  # what `storage.write_atomically` ends such a name with, and an editor does not
    patterns = [f".{name}.{end}" for name in (*names, "samples.png", "metrics.csv")] + [f"samples/.*.png.{end}"]
    return [beside for pattern in patterns for beside in folder.glob(pattern)]


def _tidy(folder: Path) -> int:
    """Delete half-written files, and return how many there were."""
    found = _half_written(folder)
    for beside in found:
        beside.unlink(missing_ok=True)
    return len(found)


def _load(recipe: Recipe) -> Data:
    """The training data; if they must be fetched, the first of the processes on each machine does so."""
    turn: Any = nullcontext()
    if trainer_module.processes() > 1:
        from accelerate import PartialState

        turn = PartialState(cpu=recipe.train.device == "cpu").local_main_process_first()
    with turn:
        data = recipe.data_set.training(recipe.data.folder, recipe.train.seed)
        if recipe.evaluate.n:  # what the end needs is looked for now
            recipe.data_set.real("test", 1, recipe.data.folder, 0)
    return data


def _tensorboard() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError(
            "log.tensorboard needs the package tensorboard, which is missing. Install it: pip install tensorboard. Or "
            "leave it out: metrics.csv has the same numbers."
        ) from error
    return SummaryWriter


def _show(trainer: Trainer[DiffusionModel], recipe: Recipe, folder: Path) -> None:
    """Samples from the current averaged weights, always from the same noise, so that one can see them improve."""
    n = recipe.log.samples if recipe.of_pictures else max(1000, recipe.log.samples)
    labels = labels_for(recipe, "each", n)
    x = draw_samples(trainer.ema, recipe, recipe.sample, n, labels, seed=0)
    content = picture(x)
    for path in (folder / "samples.png", folder / "samples" / f"{trainer.step:06d}.png"):  # written 2nd, so both exist
        write_atomically(path, content)


def _finish(trainer: Trainer[DiffusionModel], recipe: Recipe, folder: Path, command: str, log: Log) -> None:
    if not (folder / "samples" / f"{trainer.step:06d}.png").exists():
        _show(trainer, recipe, folder)
    save_weights(trainer.model, folder / "weights.safetensors")
    quality = None
    if recipe.evaluate.n:
        print(f"Measuring {recipe.evaluate.n} samples", file=sys.stderr)
        of = recipe.evaluate
        quality = measure(trainer.ema, recipe, recipe.sample, of.n, of.seed, of.bits)
        print(quality, file=sys.stderr)
    write_atomically(folder / CARD, _card(trainer, recipe, command, log, quality).encode(errors="backslashreplace"))
    print(f"Done. The model, its log, its samples and its card are in {folder}", file=sys.stderr)


def _card(trainer: Trainer[DiffusionModel], recipe: Recipe, command: str, log: Log, quality: Quality | None) -> str:
    """The model card, in Markdown."""
    shape, classes = recipe.data_set.shape, recipe.data_set.classes
    parameters = sum(p.numel() for p in trainer.model.parameters())
    of = "pictures" if recipe.of_pictures else "points"
    device = (
        torch.cuda.get_device_name(trainer.device)
        if trainer.device.type == "cuda"
        else f"{trainer.device.type} ({platform.machine()}, {torch.get_num_threads()} threads)"
    )
    processes = trainer_module.processes()
    in_cycles = f" in {recipe.train.cycles} cycles of the learning rate" if recipe.train.cycles > 1 else ""
    drop = recipe.train.label_drop
    hidden = (
        f"hidden in {drop:.0%} of the examples, so that samples can be asked for by class or without a class"
        if drop
        else "never hidden, so that samples are asked for by class"
    )
    labels = f"{len(classes)} classes ({', '.join(classes)}), {hidden}" if recipe.model.conditional else "not used"
    if quality is None:
        measured = "Not measured (evaluate.n = 0)."
    else:
        measured = quality.table() + (
            f"\n\nEach is measured against real test examples, in {quality.features}. Distances compare only at equal "
            f"n and features. Samples by {quality.sampling}."
        )
    loss = f"{float(log.rows[-1][1]):.4f}" if log.rows else "not logged"
    return f"""# A diffusion model of {recipe.data.set}

A {"U-Net" if recipe.of_pictures else "residual MLP"} with {parameters:,} parameters that predicts \
{recipe.model.predict} under the {recipe.model.schedule} schedule.

```sh
{command}
```

- **Data**: the training split of `{recipe.data.set}`, {of} of shape {shape}. Its source and licence are in the \
documentation of `diffusion_edu.data`.
- **Labels**: {labels}.
- **Training**: {recipe.train.steps:,} steps of {recipe.train.batch_size} examples{in_cycles}, \
{log.seconds:.0f} seconds on {device}{f", {processes} processes" if processes > 1 else ""}, precision \
{recipe.train.precision}, PyTorch {torch.__version__}.
- **Loss** at the last report: {loss}.

## Measured quality

{measured}

## Use

```sh
diffusion-edu sample FOLDER --n 64 --steps {recipe.sample.steps}
diffusion-edu evaluate FOLDER --n {recipe.evaluate.n or 1000}
```

`model.safetensors` holds the averaged weights, with which these numbers were measured, `weights.safetensors` the last
ones, and `recipe.toml` everything that was set. A model of this size is for learning how diffusion works. It was not
examined for what its samples could be misused for, or for what its training data leave out.
"""
