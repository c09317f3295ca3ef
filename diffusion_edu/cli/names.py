"""What a recipe may name, and what each name stands for. To add one of each, add a row.

A row is a factory, so that nothing is made, read or fetched before it is used.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from ..analytic import GaussianMixture
from ..data import (
    Components,
    Data,
    Fresh,
    ImageSet,
    TensorData,
    cifar10,
    digits,
    fashion_mnist,
    mnist,
    mnist_5k,
    moons,
    ring,
    seeded,
    swiss,
)
from ..loss import TimeSampler, Weight, edm_weight, elbo_weight, log_normal, min_snr, simple, stratified, uniform
from ..metrics import digit_classifier, fashion_classifier, predict
from ..networks import Classifier
from ..parameterization import EPS, SCORE, VELOCITY, X0, Parameterization, V, edm
from ..process import transition_std
from ..sampler import Step, ancestral, ddim, dpmpp_2m, euler, euler_maruyama, heun, karras, times
from ..schedule import (
    BetaSchedule,
    CosineSchedule,
    EDMSchedule,
    FlowSchedule,
    NoiseSchedule,
    SubVPSchedule,
    VESchedule,
    VPSchedule,
)

__all__ = [
    "DATA",
    "GRIDS",
    "PARAMETERIZATIONS",
    "SAMPLERS",
    "SCHEDULES",
    "TIMES",
    "WEIGHTS",
    "DataSet",
    "Features",
    "Pictures",
    "Toy",
    "choose",
    "did_you_mean",
]

T = TypeVar("T")
Folder = str | os.PathLike[str] | None


@dataclass(frozen=True)
class Features:
    """What samples are measured by.

    Args:
        words: what the numbers are, for a model card.
        of: x (N, ...) -> features (N, F), and the labels (N,) that a classifier reads off x, or None if there is none.
    """

    words: str
    of: Callable[[Tensor], tuple[Tensor, Tensor | None]]


class DataSet(Protocol):
    """What can be trained on: shape (C, H, W) or (D,), class names, batches, and real examples to measure against."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """What each label is called."""
        ...

    @property
    def exchangeable(self) -> bool:
        """Whether training and test examples come from one distribution."""
        ...

    def training(self, folder: Folder, seed: int) -> Data:
        """Where training batches come from."""
        ...

    def real(self, split: str, n: int, folder: Folder, seed: int) -> tuple[Tensor, Tensor]:
        """At most n real examples of "train" or "test", x (n, ...) as floats and labels (n,)."""
        ...

    def features(self, folder: Folder) -> Features:
        """What its samples are measured by."""
        ...


@dataclass(frozen=True)
class Toy:
    """Points in the plane from a mixture that is known exactly; fresh draws without end.

    Args:
        components: of the mixture.
        classes: what each label is called.
        exchangeable: training and test examples are draws from the same mixture.
    """

    components: Callable[[], Components]
    classes: tuple[str, ...]
    shape: tuple[int, ...] = (2,)
    exchangeable: bool = True

    def _draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        components = self.components()
        x, k = GaussianMixture(*components).sample_with_components(n, generator)
        return x.float(), components.labels[k]

    def training(self, folder: Folder, seed: int) -> Data:
        """New draws in each batch; the folder is not used."""
        return Fresh(self._draw, seed)

    def real(self, split: str, n: int, folder: Folder, seed: int) -> tuple[Tensor, Tensor]:
        """n draws (n, 2) and their labels (n,), different ones for each split."""
        return self._draw(n, seeded(seed, ("train", "test").index(split)))

    def features(self, folder: Folder) -> Features:
        """The coordinates themselves; the classifier is Bayes' rule on the true mixture, which no other can beat."""
        components = self.components()

        def of(x: Tensor) -> tuple[Tensor, Tensor]:
            belongs = GaussianMixture(*components).responsibilities(x.double())
            each = torch.nn.functional.one_hot(components.labels, len(self.classes)).double()
            return x, (belongs @ each).argmax(1)

        return Features("the two coordinates; labels by Bayes' rule on the true distribution", of)


@dataclass(frozen=True)
class Pictures:
    """A set of pictures in memory.

    Args:
        load: (split, folder) -> the pictures of "train" or "test".
        shape: (C, H, W).
        classes: what each label is called.
        classifier: whose last hidden layer measures samples and which says what they show; None where no good one
            comes with the package: then the samples are measured by principal components of the pixels.
        classifier_words: what it is, for a model card.
        exchangeable: whether training and test pictures come from one distribution, so that the samples of a model that
            copies nothing are equally near to both. MNIST's do not: other people wrote the test digits.
    """

    load: Callable[[str, Folder], ImageSet]
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    classifier: Callable[[], Classifier] | None = None
    classifier_words: str = ""
    exchangeable: bool = True

    def training(self, folder: Folder, seed: int) -> Data:
        """The training pictures, shuffled anew in each epoch."""
        return TensorData.of(self._split("train", folder), seed)

    def real(self, split: str, n: int, folder: Folder, seed: int) -> tuple[Tensor, Tensor]:
        """At most n pictures of a split, drawn without replacement: x (n, C, H, W) in [-1, 1], labels (n,)."""
        pictures = self._split(split, folder)
        k = torch.randperm(len(pictures), generator=seeded(seed, ("train", "test").index(split)))[:n]
        return ImageSet(pictures.images[k], pictures.labels[k], pictures.names).x_0, pictures.labels[k]

    def _split(self, split: str, folder: Folder) -> ImageSet:
        try:
            return self.load(split, folder)
        except RuntimeError as error:  # a download that failed says why, and what to do
            raise OSError(str(error)) from error

    def features(self, folder: Folder, most: int = 64) -> Features:
        """The classifier's last hidden layer, or the ``most`` first principal components of the training pixels."""
        if self.classifier is not None:
            classifier = self.classifier()
            return Features(self.classifier_words, lambda x: predict(classifier, x))
        pixels = self.real("train", 10_000, folder, 0)[0].flatten(1).double()
        mean = pixels.mean(0)
        _, directions = torch.linalg.eigh(torch.cov(pixels.T))
        directions = directions[:, -most:]
        words = f"the first {directions.shape[1]} principal components of the training pixels"
        return Features(words, lambda x: ((x.flatten(1).cpu().double() - mean) @ directions, None))


_TEN = tuple("0123456789")
_DIGITS = (digit_classifier, "the 64 features of the shipped classifier of handwritten digits")
_FASHION = (fashion_classifier, "the 64 features of the shipped classifier of clothes")
_CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_THINGS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

DATA: Mapping[str, DataSet] = MappingProxyType(
    {
        "moons": Toy(moons, ("upper", "lower")),
        "ring": Toy(ring, tuple(map(str, range(8)))),
        "swiss": Toy(swiss, ("spiral",)),
        "digits": Pictures(lambda split, folder: digits(split), (1, 8, 8), _TEN),
        "mnist_5k": Pictures(lambda split, folder: mnist_5k(split), (1, 28, 28), _TEN, *_DIGITS),
        "mnist": Pictures(mnist, (1, 28, 28), _TEN, *_DIGITS, exchangeable=False),
        "fashion_mnist": Pictures(fashion_mnist, (1, 28, 28), _CLOTHES, *_FASHION),
        "cifar10": Pictures(cifar10, (3, 32, 32), _THINGS),
    }
)

SCHEDULES: Mapping[str, Callable[[], NoiseSchedule]] = MappingProxyType(
    {
        "cosine": CosineSchedule,
        "flow": FlowSchedule,
        "ddpm_linear": BetaSchedule.linear,
        "ddpm_cosine": BetaSchedule.cosine,
        "ddpm_sigmoid": BetaSchedule.sigmoid,
        "vp": VPSchedule,
        "sub_vp": SubVPSchedule,
        "ve": VESchedule,
        "edm": EDMSchedule,
    }
)

PARAMETERIZATIONS: Mapping[str, Callable[[], Parameterization]] = MappingProxyType(
    {
        "v": lambda: V,
        "eps": lambda: EPS,
        "x_0": lambda: X0,
        "score": lambda: SCORE,
        "velocity": lambda: VELOCITY,
        "edm": lambda: edm(0.5),
    }
)

WEIGHTS: Mapping[str, Callable[[], Weight | None]] = MappingProxyType(
    {
        "own": lambda: None,
        "simple": lambda: simple,
        "min_snr": min_snr,
        "elbo": lambda: elbo_weight,
        "edm": edm_weight,
    }
)

TIMES: Mapping[str, Callable[[NoiseSchedule], TimeSampler]] = MappingProxyType(
    {
        "stratified": lambda schedule: stratified,
        "uniform": lambda schedule: uniform,
        "log_normal": log_normal,
    }
)

SAMPLERS: Mapping[str, Callable[[], Step]] = MappingProxyType(
    {
        "dpmpp_2m": dpmpp_2m,
        "ddim": ddim,
        "ancestral": ancestral,
        "ancestral_large": lambda: ancestral(transition_std),
        "euler": euler,
        "heun": heun,
        "euler_maruyama": euler_maruyama,
    }
)

GRIDS: Mapping[str, Callable[[NoiseSchedule, int], Tensor]] = MappingProxyType(
    {
        "uniform": lambda schedule, steps: times(steps),
        "karras": karras,
    }
)


def choose(table: Mapping[str, T], name: str, what: str) -> T:
    """The row of a name.

    Raises:
        ValueError: if there is none; the message lists the names that there are, and the nearest.
    """
    if name in table:
        return table[name]
    raise ValueError(f"{what} is {name!r}; it must be one of {', '.join(table)}.{did_you_mean(name, table)}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question with the nearest of the known names, to end a sentence with; empty where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]}?" if near else ""
