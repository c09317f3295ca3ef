"""The command line: ``diffusion-edu train``, ``sample``, ``evaluate``; also ``python -m diffusion_edu``.

Notebook: ``07_training`` trains by the same recipes.

    diffusion-edu train digits                      a recipe that comes with the package
    diffusion-edu train my.toml --train.steps 500   your own, with one field changed
    diffusion-edu sample runs/digits --n 64         a grid of samples
    diffusion-edu evaluate runs/digits --n 1000     their quality, beside that of real examples

A recipe is the package's frozen records in a TOML file (``recipe``); each field is also a flag, and the help of a flag
is the comment beside the field. What a name in it stands for is in ``names``; what a run leaves behind, in ``run``.
"""

from __future__ import annotations

import io
import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn, TypeVar

from ..storage import save_tensors, write_atomically
from ..trainer import TrainingDivergedError, device_named, leave
from .recipe import Recipe, SampleConfig, find_recipe, load_run, read_recipe, recipe_from, to_toml
from .run import train
from .samples import Quality, draw_samples, labels_for, measure, picture

__all__ = [
    "Quality",
    "Recipe",
    "SampleConfig",
    "console",
    "draw_samples",
    "find_recipe",
    "labels_for",
    "load_run",
    "main",
    "measure",
    "picture",
    "read_recipe",
    "recipe_from",
    "to_toml",
    "train",
]

C = TypeVar("C")


@dataclass(frozen=True)
class Train(Recipe):
    """Train a model by a recipe: a TOML file, or the name of one that comes with the package.

    The same command resumes a run that was interrupted. Flags override the recipe; the defaults shown are the recipe's
    own when one is named before --help.
    """

    folder: str = ""  # where the run goes; empty for runs/ and the recipe's name


@dataclass(frozen=True)
class Sample(SampleConfig):
    """Draw samples from a run's folder, or from a model that comes with the package, into a PNG file."""

    n: int = 64  # samples
    # "each" (the classes in turn), "none" (no label), or labels or names of classes separated by commas
    condition: str = "each"
    seed: int = 0  # of the noise, drawn on the CPU: the same start on every machine
    out: str = "samples.png"  # the grid of samples
    tensors: str | None = None  # a safetensors file for the samples as numbers, pictures in [-1, 1], and their labels
    columns: int = 10  # pictures in a row of the grid
    device: str = "auto"  # "cpu", "cuda", "mps", or "auto": the first of cuda, mps, cpu that is there


@dataclass(frozen=True)
class Evaluate(SampleConfig):
    """Measure samples against real test examples, beside real training examples against the same ones.

    Fréchet distance and KID in the features of a classifier where the package has one for the data, else in principal
    components of the pixels, or for points in their coordinates; precision and recall in the same; the share that the
    classifier, where there is one, puts in the class that was asked for; and for pictures, whether samples lie nearer
    to training examples than they should.
    """

    # samples, and real examples in each set (as many as there are, where there are fewer); compare at equal n only
    n: int = 1000
    seed: int = 0  # of the noise and of the choice of real examples
    # test pictures, and as many training ones, whose bits per dimension are measured, a second or so each; 0: none
    bits: int = 0
    out: str | None = None  # a JSON file for the numbers
    device: str = "auto"  # "cpu", "cuda", "mps", or "auto": the first of cuda, mps, cpu that is there


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: what was typed after ``diffusion-edu``; None for the process's own.

    Returns:
        0, or 1 if training diverged, 2 if something in the command, a file or the installation was wrong, 130 if it was
        interrupted. The reason is a sentence on stderr.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or arguments[0] not in COMMANDS:
        wants_help = bool(arguments) and arguments[0] in ("-h", "--help")
        if arguments and not wants_help:
            print(f"diffusion-edu: there is no command {arguments[0]!r}.", file=sys.stderr)
        print(USAGE, file=sys.stdout if wants_help else sys.stderr)
        return 0 if wants_help else 2
    try:
        return COMMANDS[arguments[0]](arguments[1:])
    except (ValueError, OSError, ImportError) as error:
        print(f"diffusion-edu: {error}", file=sys.stderr)
        return 2
    except TrainingDivergedError as error:
        print(f"diffusion-edu: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        go_on = " The same command goes on from the last checkpoint." if arguments[0] == "train" else ""
        print(f"Interrupted.{go_on}", file=sys.stderr)
        return 130


def console() -> NoReturn:
    """Run the command of this process, and end the process with its exit status: what ``diffusion-edu`` calls."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a console that has no é still gets the numbers
    leave(main())


def _train(arguments: list[str]) -> int:
    given, rest = _first("train RECIPE", arguments)
    recipe = Recipe() if given is None else read_recipe(find_recipe(given))
    asked = _parse(Train, Train(**_fields(recipe)), rest, "train RECIPE")
    if given is None:  # only --help comes this far without a recipe
        return 2
    recipe = Recipe(**{field.name: getattr(asked, field.name) for field in fields(Recipe)})
    command = shlex.join(["diffusion-edu", "train", *arguments])
    train(recipe, asked.folder or Path("runs") / Path(given).stem, command)
    return 0


def _sample(arguments: list[str]) -> int:
    given, rest = _first("sample MODEL", arguments)
    if given is None:
        _parse(Sample, Sample(), rest, "sample MODEL")
        return 2
    model, recipe = load_run(given)
    asked = _parse(Sample, Sample(**_fields(recipe.sample)), rest, "sample MODEL")
    if asked.columns < 1 or asked.n < 1:
        raise ValueError(f"sample got n={asked.n} and columns={asked.columns}; each must be at least 1.")
    labels = labels_for(recipe, asked.condition, asked.n)
    x = draw_samples(model.to(device_named(asked.device)), recipe, asked, asked.n, labels, asked.seed)
    write_atomically(asked.out, picture(x, asked.columns))
    print(f"{asked.n} samples in {asked.out}")
    if asked.tensors is not None:
        tensors = {"samples": x} if labels is None else {"samples": x, "labels": labels}
        settings = {"model": given} | asdict(asked)
        about = {name: str(value).encode(errors="backslashreplace").decode() for name, value in settings.items()}
        save_tensors(asked.tensors, tensors, about)
        print(f"the same as numbers in {asked.tensors}")
    return 0


def _evaluate(arguments: list[str]) -> int:
    given, rest = _first("evaluate MODEL", arguments)
    if given is None:
        _parse(Evaluate, Evaluate(), rest, "evaluate MODEL")
        return 2
    model, recipe = load_run(given)
    of = recipe.evaluate
    own = Evaluate(**_fields(recipe.sample), n=of.n or Evaluate.n, seed=of.seed, bits=of.bits)
    asked = _parse(Evaluate, own, rest, "evaluate MODEL")
    quality = measure(model.to(device_named(asked.device)), recipe, asked, asked.n, asked.seed, asked.bits)
    if asked.out is not None:
        write_atomically(asked.out, (json.dumps(quality.as_dict(), indent=1) + "\n").encode())
    print(quality)
    return 0


COMMANDS: Mapping[str, Callable[[list[str]], int]] = MappingProxyType(
    {"train": _train, "sample": _sample, "evaluate": _evaluate}
)

USAGE = """\
usage: diffusion-edu train RECIPE [flags]       train by a TOML file, or by a name such as digits
       diffusion-edu sample MODEL [flags]       draw samples; MODEL is a run's folder, or the name of a shipped model
       diffusion-edu evaluate MODEL [flags]     measure samples against real data
Each command explains its flags: diffusion-edu train digits --help"""


def _fields(record: Any) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in fields(record)}


def _first(usage: str, arguments: list[str]) -> tuple[str | None, list[str]]:
    """The first argument, a recipe or a model, and the flags after it; None for the former if help is asked for."""
    if arguments and not arguments[0].startswith("-"):
        return arguments[0], arguments[1:]
    if any(flag in ("-h", "--help") for flag in arguments):
        return None, ["--help"]
    what = usage.split()[-1]
    raise ValueError(f"{usage.split()[0]} takes a {what} before all flags: diffusion-edu {usage} [flags].")


def _parse(kind: type[C], default: C, arguments: list[str], usage: str) -> C:
    """A record with the flags applied: tyro turns each field into a flag, with the comment beside it as its help."""
    try:
        import tyro
    except ImportError as error:
        raise ImportError(
            "the command line needs tyro, which is missing. Install it: pip install 'diffusion-edu[cli]'"
        ) from error
    return tyro.cli(kind, default=default, args=arguments, prog=f"diffusion-edu {usage}")
