"""A recipe: all that decides a training run, as frozen records in a TOML file.

    [data]
    set = "digits"

    [train]
    steps = 3000

Each table is a record below, each key one of its fields; what a file leaves out has the field's default. A name that
no field has, or a value of another kind, is refused with a sentence.
"""

from __future__ import annotations

import json
import math
import os
import tomllib
import types
import typing
from dataclasses import dataclass, field, fields, is_dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from ..data import global_seed
from ..denoiser import DiffusionModel
from ..door import check_share
from ..loss import TimeSampler, denoising_loss
from ..networks import ResidualMLP
from ..storage import load_weights
from ..trainer import Loss, TrainConfig
from ..unet import UNet
from .names import DATA, GRIDS, PARAMETERIZATIONS, SAMPLERS, SCHEDULES, TIMES, WEIGHTS, DataSet, choose, did_you_mean

__all__ = [
    "DataConfig",
    "EvaluateConfig",
    "LogConfig",
    "LossConfig",
    "MLPConfig",
    "ModelConfig",
    "Recipe",
    "SampleConfig",
    "UNetConfig",
    "differences",
    "find_recipe",
    "load_run",
    "read_recipe",
    "recipe_from",
    "to_toml",
]

# A stranger's recipe may ask for any network. It is refused before memory is taken.
LARGEST = 2**14  # features in a layer
MOST_PARAMETERS = 2**31

RECIPE = "recipe.toml"
WEIGHTS_FILE = "model.safetensors"
R = TypeVar("R")


@dataclass(frozen=True)
class DataConfig:
    """What to train on."""

    # points: moons, ring, swiss; pictures: digits, mnist_5k (both come with the installation), mnist, fashion_mnist,
    # cifar10
    set: str = "digits"
    # where its files are; None looks in DIFFUSION_EDU_DATA, in the system's folders, in the cache, then fetches it
    folder: str | None = None

    def __post_init__(self) -> None:
        choose(DATA, self.set, "data.set")


@dataclass(frozen=True)
class ModelConfig:
    """The noise schedule, and what the network predicts."""

    # alpha(t) and sigma(t): cosine, flow, ddpm_linear, ddpm_cosine, ddpm_sigmoid, vp, sub_vp, ve, edm
    schedule: str = "cosine"
    # the network's output: v, eps, x_0, score, velocity, edm; eps and score say nothing of x_0 at t = 1 under cosine
    # and flow, where alpha(1) = 0
    predict: str = "v"
    # tell the network the labels, so that samples can be asked for by class and guided
    conditional: bool = True

    def __post_init__(self) -> None:
        choose(SCHEDULES, self.schedule, "model.schedule")
        choose(PARAMETERIZATIONS, self.predict, "model.predict")


@dataclass(frozen=True)
class UNetConfig:
    """The network for pictures."""

    channels: tuple[int, ...] = (32, 48)  # features at each level, full resolution first; each level halves the sides
    blocks: tuple[int, ...] = (1, 2)  # residual blocks at each level, down and again up; they cost most at the first
    # fold patch x patch pixels into channels first: this divides the work by about patch^2, and fine detail suffers
    patch: int = 1
    # whether each level has attention, whose cost grows as pixels squared; None for the lowest level only
    attention: tuple[bool, ...] | None = None
    embedding: int = 128  # width of the vector that tells each block the noise level and the label
    heads: int = 4  # of the attention; must divide its channels
    dropout: float = 0.0  # share of features dropped in each block; against over-fitting in long runs

    def __post_init__(self) -> None:
        check_share("unet", dropout=self.dropout)
        sizes = dict(channels=self.channels, blocks=self.blocks, patch=(self.patch,), embedding=(self.embedding,))
        for name, values in (sizes | {"heads": (self.heads,)}).items():
            most = {"blocks": 16, "patch": 64}.get(name, LARGEST)
            if not 1 <= len(values) <= 16 or not all(1 <= value <= most for value in values):
                raise ValueError(f"unet got {name}={getattr(self, name)}; give 1 to 16 numbers, each from 1 to {most}.")
        # a stage has two 3x3 convolutions, the first of which may see the skip too, a 1x1 one, and attention
        c, stages = max(self.channels), 2 * sum(self.blocks) + 2
        _not_too_large(
            "unet", stages * (33 * c**2 + 2 * c * self.embedding) + self.embedding**2 + 54 * c * self.patch**2
        )


@dataclass(frozen=True)
class MLPConfig:
    """The network for points."""

    width: int = 128  # features in each layer
    depth: int = 3  # residual blocks, one after another

    def __post_init__(self) -> None:
        if not 1 <= self.width <= LARGEST or not 0 <= self.depth <= 256:
            raise ValueError(
                f"mlp got width={self.width} and depth={self.depth}; give a width from 1 to {LARGEST}, and a depth "
                "from 0 to 256."
            )
        _not_too_large("mlp", self.depth * 6 * self.width**2)


def _not_too_large(table: str, parameters: int) -> None:
    if parameters > MOST_PARAMETERS:
        raise ValueError(
            f"the network in {table} could have {parameters:,} parameters, and {MOST_PARAMETERS:,} is the most: take "
            "fewer features, blocks or levels."
        )


@dataclass(frozen=True)
class LossConfig:
    """How errors are weighted in training, and at which times they are looked at."""

    # weight on the squared error in x_0: own (the plain error of what is predicted), simple, min_snr, elbo, edm
    weight: str = "own"
    # how times are drawn: stratified (uniform, evenly spread in each batch), uniform, log_normal (EDM's)
    times: str = "stratified"

    def __post_init__(self) -> None:
        choose(WEIGHTS, self.weight, "loss.weight")
        choose(TIMES, self.times, "loss.times")


@dataclass(frozen=True)
class SampleConfig:
    """How samples are drawn."""

    # dpmpp_2m, ddim, ancestral, ancestral_large (std = sqrt(beta)), euler, heun (two calls a step), euler_maruyama
    sampler: str = "dpmpp_2m"
    steps: int = 20  # from noise to data; the cost is one call of the network each. ancestral wants hundreds
    grid: str = "uniform"  # where the steps are: uniform in t, or karras (crowded at low noise)
    clip: bool = True  # keep x_0_hat of pictures in [-1, 1], as the data are; points are never clipped
    # w of classifier-free guidance: 1 is the model as it is, above 1 samples lean to their label, at two calls a step
    guidance: float = 1.0

    def __post_init__(self) -> None:
        choose(SAMPLERS, self.sampler, "the sampler")
        choose(GRIDS, self.grid, "the grid")
        if self.steps < 1:
            raise ValueError(f"sampling got steps={self.steps}; it takes at least one.")
        if not math.isfinite(self.guidance):
            raise ValueError(f"sampling got guidance={self.guidance}; give a finite number, 1 for none.")


@dataclass(frozen=True)
class EvaluateConfig:
    """How the finished model is measured."""

    # samples, against as many real test examples (or as many as there are); distances compare at equal n. 0: not at all
    n: int = 1000
    seed: int = 0  # of the samples and of the choice of real examples
    # test pictures, and as many training ones, whose bits per dimension are measured, a second or so each; 0: none
    bits: int = 0

    def __post_init__(self) -> None:
        if self.n < 0 or 0 < self.n < 4 or self.seed < 0:
            raise ValueError(f"evaluate got n={self.n} and seed={self.seed}; give n = 0, or n >= 4, and a seed >= 0.")
        if self.bits < 0 or self.bits == 1 or self.bits > self.n:
            raise ValueError(f"evaluate got bits={self.bits} and n={self.n}; give from 2 to n pictures, or 0 for none.")


@dataclass(frozen=True)
class LogConfig:
    """What can be watched while it trains."""

    samples_every: int = 500  # steps between two grids of samples, drawn at the next report
    samples: int = 40  # examples in a grid, the classes in turn
    tensorboard: bool = False  # write TensorBoard's files too; needs the package tensorboard

    def __post_init__(self) -> None:
        if self.samples_every < 1 or self.samples < 1:
            raise ValueError(
                f"log got samples_every={self.samples_every} and samples={self.samples}; each must be at least 1."
            )


@dataclass(frozen=True)
class Recipe:
    """A training run, from the data to the grids of samples."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    unet: UNetConfig = UNetConfig()
    mlp: MLPConfig = MLPConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = field(default_factory=TrainConfig)
    sample: SampleConfig = SampleConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    log: LogConfig = LogConfig()

    def __post_init__(self) -> None:
        unused, used = ("mlp", "unet") if self.of_pictures else ("unet", "mlp")
        if getattr(self, unused) != type(getattr(self, unused))():
            raise ValueError(
                f"the recipe sets {unused} and trains on {self.data.set}, for which the network is the one in {used}: "
                f"set {used} instead."
            )
        if self.model.conditional and self.train.label_drop == 1:
            raise ValueError(
                "the recipe has model.conditional = true and hides every label in training (train.label_drop = 1), so "
                "that no class could be asked for; lower label_drop, or set model.conditional = false."
            )
        self.check_guidance(self.sample)

    def check_guidance(self, settings: SampleConfig) -> None:
        """Refuse guidance of a model that cannot be guided.

        Raises:
            ValueError: if guidance is asked for and the model knows no labels, or never learnt to do without them.
        """
        if settings.guidance != 1 and not (self.model.conditional and self.train.label_drop > 0):
            lacks = "hides no labels in training (train.label_drop = 0)" if self.model.conditional else "has no labels"
            raise ValueError(
                f"sampling got guidance={settings.guidance:g}, and this model {lacks}: there are no two answers to "
                "compare. Give guidance = 1."
            )

    @property
    def data_set(self) -> DataSet:
        """What ``data.set`` names."""
        return DATA[self.data.set]

    @property
    def of_pictures(self) -> bool:
        """Whether examples are pictures (C, H, W); else they are points (D,)."""
        return len(self.data_set.shape) == 3

    def build_model(self) -> DiffusionModel:
        """A new model. Its random start is drawn from ``train.seed`` and leaves the global generator alone.

        Raises:
            ValueError: if the network's settings do not fit together, or it predicts what the schedule cannot use.
        """
        shape, classes = self.data_set.shape, len(self.data_set.classes)
        num_classes = classes if self.model.conditional else None
        with global_seed(self.train.seed):
            network: nn.Module
            if self.of_pictures:
                u = self.unet
                network = UNet(
                    shape[0], u.channels, u.blocks, num_classes, u.patch, u.attention, u.embedding, u.heads, u.dropout
                )
            else:
                network = ResidualMLP(shape[0], self.mlp.width, self.mlp.depth, num_classes)
            return DiffusionModel(network, SCHEDULES[self.model.schedule](), PARAMETERIZATIONS[self.model.predict]())

    def build_loss(self) -> Loss:
        """(model, x_0 (B, ...), t (B,), ...) -> (B,), with the weight of ``loss.weight``."""
        weight = WEIGHTS[self.loss.weight]()

        def loss(model: DiffusionModel, x_0: Tensor, t: Tensor, *, condition: Tensor | None, eps: Tensor) -> Tensor:
            return denoising_loss(model, x_0, t, weight, condition if self.model.conditional else None, eps)

        return loss

    def build_times(self, model: DiffusionModel) -> TimeSampler:
        """How a batch's times (B,) are drawn."""
        return TIMES[self.loss.times](model.schedule)


def find_recipe(given: str) -> Path:
    """The file of a recipe: a path, or the name of one that comes with the package.

    Raises:
        FileNotFoundError: if there is none; the message lists the recipes that there are.
    """
    path = Path(given)
    if path.is_file():
        return path
    package = Path(__file__).resolve().parents[1]
    shipped = {
        file.stem: file
        for folder in (package / "recipes", package.parent / "recipes")
        for file in folder.glob("*.toml")
    }
    if given in shipped:
        return shipped[given]
    raise FileNotFoundError(
        f"there is no recipe file {given}; give the path of a TOML file, or one of {', '.join(sorted(shipped))}."
    )


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """The recipe in a TOML file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not TOML, or a table, a key or a value does not belong in a recipe.
    """
    try:
        with Path(path).open("rb") as file:
            raw = file.read(2**20 + 1)
        if len(raw) > 2**20:
            raise ValueError(f"{path} is larger than 1 MiB, and a recipe is a page; is it another kind of file?")
        table = tomllib.loads(raw.decode("utf-8-sig"))
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no recipe file {path}; check the path.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not TOML ({error}); fix that line, or start from one in recipes/.") from error
    return recipe_from(table, str(path))


def recipe_from(table: dict[str, Any], origin: str) -> Recipe:
    """The recipe that nested tables, as read from TOML, describe; ``origin`` names their file in errors.

    Raises:
        ValueError: if a table, a key or a value does not belong in a recipe; the message says which, and where.
    """
    return _record(Recipe, table, origin, "")


def _record(kind: type[R], table: Any, origin: str, prefix: str) -> R:
    name = prefix.removesuffix(".")
    if not isinstance(table, dict):
        raise ValueError(f"{origin}: {name} is {table!r}; it must be a table, [{name}].")
    hints = typing.get_type_hints(kind)
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    for key in table:
        if key not in known:
            raise ValueError(
                f"{origin}: there is no {prefix}{key}; {f'[{name}]' if name else 'a recipe'} has {', '.join(known)}."
                f"{did_you_mean(key, known)}"
            )
    values = {
        key: _record(hints[key], value, origin, f"{prefix}{key}.")
        if is_dataclass(hints[key])
        else _value(hints[key], value, f"{origin}: {prefix}{key}")
        for key, value in table.items()
    }
    try:
        return kind(**values)
    except ValueError as error:
        raise ValueError(f"{origin}: {error}") from error


_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text in quotes"}


def _value(kind: Any, value: Any, where: str) -> Any:
    if isinstance(kind, types.UnionType):  # X | None: TOML has no None, and leaving the key out says it
        (kind,) = (part for part in typing.get_args(kind) if part is not types.NoneType)
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        if not isinstance(value, list):
            raise ValueError(f"{where} is {value!r}; it must be a list, each item {_WORDS[item]}.")
        return tuple(_value(item, part, where) for part in value)
    if type(value) is int and not -(2**63) <= value < 2**63:
        raise ValueError(f"{where} is {value}; a whole number of TOML is below 2^63. Give a smaller one.")
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"{where} is {value!r}; it must be {_WORDS[kind]}.")
    return value


def to_toml(recipe: Recipe) -> str:
    """A recipe as TOML that ``read_recipe`` reads back, without fields that are None and the unused network."""
    lines = []
    for table in fields(recipe):
        record = getattr(recipe, table.name)
        if table.name == ("mlp" if recipe.of_pictures else "unet"):
            continue
        lines.append(f"[{table.name}]")
        for f in fields(record):
            value = getattr(record, f.name)
            if value is not None:
                lines.append(f"{f.name} = {_toml(value)}")
        lines.append("")
    return "\n".join(lines)


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, float):
        return repr(float(value))  # that of NumPy's float64 has the name of its type
    # JSON's true, 3 and "text" are TOML's too, but for one character
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def differences(a: Recipe, b: Recipe) -> list[str]:
    """The names of the fields in which two recipes differ, such as "train.steps"."""
    return [
        f"{table.name}.{f.name}"
        for table in fields(a)
        for f in fields(getattr(a, table.name))
        if getattr(getattr(a, table.name), f.name) != getattr(getattr(b, table.name), f.name)
    ]


def load_run(where: str | os.PathLike[str]) -> tuple[DiffusionModel, Recipe]:
    """The model with averaged weights, in float32 and eval mode on the CPU, and the recipe of a run.

    Args:
        where: a run's folder, or the name of a model that comes with the package.

    Raises:
        FileNotFoundError: if there is no such run.
        ValueError: if its files are damaged or do not belong together.
    """
    folder = Path(where)
    if not folder.is_dir():
        shipped = Path(str(resources.files("diffusion_edu"))) / "assets" / "models"
        folder = shipped / folder if len(folder.parts) == 1 else folder
        if not folder.is_dir():
            names = sorted(path.parent.name for path in shipped.glob(f"*/{RECIPE}"))
            raise FileNotFoundError(
                f"there is no folder {where}; give the folder of a run (diffusion-edu train makes one)"
                + (f", or one of the models that come with the package: {', '.join(names)}." if names else ".")
            )
    for name in (RECIPE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder} holds no {name}: it is not the folder of a run, or its training has not reached its first "
                "checkpoint. diffusion-edu train RECIPE makes one."
            )
    recipe = read_recipe(folder / RECIPE)
    model = recipe.build_model().float()
    load_weights(model, folder / WEIGHTS_FILE)
    return model.eval().requires_grad_(False), recipe
