r"""Data: toys whose distribution is known exactly, and real pictures that come with the package.

Notebook: ``00_quickstart`` uses the digits, Part I the toys.

A toy is the list of a mixture's components, so that ``GaussianMixture(*moons())`` answers every question about it.
Pictures are kept as 8-bit numbers and become floats in [-1, 1] only when a batch is drawn: [-1, 1] is what the noise
is scaled for, and what samples are clipped to.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "Components",
    "Data",
    "Fresh",
    "ImageSet",
    "TensorData",
    "mnist_5k",
    "moons",
    "ring",
    "swiss",
    "to_model_range",
    "to_uint8",
]


class Components(NamedTuple):
    """The components of a Gaussian mixture: ``GaussianMixture(*components)``.

    Args:
        weights: (K,), summing to 1.
        means: (K, D).
        stds: (K,), the same in each direction.
        labels: (K,), the class of each component.
    """

    weights: Tensor
    means: Tensor
    stds: Tensor
    labels: Tensor


def moons(per_moon: int = 16, std: float = 0.12) -> Components:
    """Two interleaved half-circles, each a chain of small Gaussians; centred, of variance 1 on average. Labels 0 and 1.

    Args:
        per_moon: components along each arc, >= 2.
        std: of each component before the whole is scaled, > 0.
    """
    angle = torch.linspace(0, math.pi, per_moon, dtype=torch.float64)
    upper = torch.stack([angle.cos(), angle.sin()], 1)
    lower = torch.stack([1 - angle.cos(), 0.5 - angle.sin()], 1)
    return _standardised(torch.cat([upper, lower]), std, torch.arange(2).repeat_interleave(per_moon))


def swiss(turns: float = 1.5, components: int = 60, std: float = 0.25) -> Components:
    """A spiral, a chain of Gaussians evenly spaced along its length; centred, of variance 1 on average. Label 0.

    Args:
        turns: how often it goes round, > 0.
        components: along the spiral, >= 2.
        std: of each component before the whole is scaled, > 0.
    """
    start, end = 0.5 * math.pi, (0.5 + 2 * turns) * math.pi
    squared = torch.linspace(start**2, end**2, components, dtype=torch.float64)  # arc length grows like angle^2 / 2
    angle = squared.sqrt()
    return _standardised(
        torch.stack([angle * angle.cos(), angle * angle.sin()], 1), std, torch.zeros(components, dtype=torch.long)
    )


def ring(components: int = 8, std: float = 0.08) -> Components:
    """Gaussians evenly spaced on a circle; centred, of variance 1 on average. Each is a class of its own.

    Args:
        components: on the circle, >= 2.
        std: of each component before the whole is scaled, > 0.
    """
    angle = 2 * math.pi * torch.arange(components, dtype=torch.float64) / components
    return _standardised(torch.stack([angle.cos(), angle.sin()], 1), std, torch.arange(components))


def _standardised(means: Tensor, std: float, labels: Tensor) -> Components:
    if len(means) < 2 or std <= 0:
        raise ValueError(f"a toy got {len(means)} components of std {std}; it needs at least two, and a std above 0.")
    means = means - means.mean(0)
    scale = torch.sqrt(means.square().mean() + std**2)  # average variance of the two coordinates
    K = len(means)
    weights, stds = torch.full((2, K), 1 / K, dtype=torch.float64)
    return Components(weights, means / scale, stds.fill_(std / float(scale)), labels)


def to_model_range(images: Tensor) -> Tensor:
    """8-bit pictures to float32 in [-1, 1]: x / 127.5 - 1. Any shape.

    Raises:
        TypeError: if the pictures are not uint8; floats in [0, 1] would silently be all but black.
    """
    if images.dtype != torch.uint8:
        raise TypeError(f"to_model_range got pictures of type {images.dtype}; it takes uint8 from 0 to 255.")
    return images.float() / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """Pictures in [-1, 1] to 8 bits, rounded to the nearest value, what lies outside clipped. Any shape.

    Raises:
        TypeError: if x is not a float tensor.
    """
    if not x.is_floating_point():
        raise TypeError(f"to_uint8 got pictures of type {x.dtype}; it takes floats in [-1, 1].")
    return ((x.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class ImageSet:
    """Labelled pictures in memory.

    Args:
        images: (N, C, H, W) uint8.
        labels: (N,) int64.
        names: what each label is called.
    """

    images: Tensor
    labels: Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        """N."""
        return len(self.images)

    @property
    def x_0(self) -> Tensor:
        """All pictures as float32 in [-1, 1], (N, C, H, W)."""
        return to_model_range(self.images)


MNIST_5K_SHA256 = "5bbb107bab8a643e44291b0c8f80e647819cd1aeea892e874af0156aa67507ec"


def mnist_5k(split: str = "train") -> ImageSet:
    """5000 real handwritten digits, 28x28, which come with the package (see ``assets/mnist_5k.md``).

    Args:
        split: "train" (4000), "test" (1000), or "all".

    Raises:
        ValueError: for another split.
        RuntimeError: if the file is damaged.
    """
    images, labels = _mnist_5k()
    parts = {"train": slice(0, 4000), "test": slice(4000, 5000), "all": slice(0, 5000)}
    if split not in parts:
        raise ValueError(f"mnist_5k got split={split!r}; it has {', '.join(map(repr, parts))}.")
    return ImageSet(images[parts[split]].clone(), labels[parts[split]].clone(), tuple("0123456789"))


@lru_cache(maxsize=1)
def _mnist_5k() -> tuple[Tensor, Tensor]:
    raw = resources.files("diffusion_edu").joinpath("assets/mnist_5k.npz").read_bytes()
    if hashlib.sha256(raw).hexdigest() != MNIST_5K_SHA256:
        raise RuntimeError(
            "the package's file assets/mnist_5k.npz is damaged: its checksum is wrong. Install diffusion_edu again."
        )
    with np.load(io.BytesIO(raw), allow_pickle=False) as archive:
        return torch.from_numpy(archive["images"])[:, None], torch.from_numpy(archive["labels"]).long()


class Data(Protocol):
    """What the trainer draws from."""

    def batch(self, step: int, size: int) -> tuple[Tensor, Tensor | None]:
        """The training batch of a step: always the same for the same step, so that a resumed run sees what a straight
        one saw.

        Args:
            step: from 0.
            size: B, examples wanted.

        Returns:
            x_0 (B, ...) as floats, and labels (B,) or None.
        """
        ...


@dataclass(frozen=True)
class TensorData:
    """A finite data set, shuffled anew in each epoch.

    Args:
        x: (N, ...) floats, or uint8 pictures, which become floats in [-1, 1] batch by batch.
        labels: (N,) integers, or None.
        seed: of the shuffling.

    Raises:
        ValueError: if the set is empty, the labels are not one each, or floats are not finite.
    """

    x: Tensor
    labels: Tensor | None = None
    seed: int = 0
    _orders: dict[int, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.x) == 0 or (self.labels is not None and self.labels.shape != self.x.shape[:1]):
            shape = None if self.labels is None else tuple(self.labels.shape)
            raise ValueError(
                f"TensorData got x of shape {tuple(self.x.shape)} and labels of shape {shape}; give N >= 1 "
                "examples, one label each."
            )
        if self.x.is_floating_point() and not bool(torch.isfinite(self.x).all()):
            raise ValueError(
                "TensorData got NaN or infinite numbers; clean the data first, one of them spoils every weight."
            )

    @classmethod
    def of(cls, images: ImageSet, seed: int = 0) -> TensorData:
        """The pictures (N, C, H, W) and labels (N,) of an ``ImageSet``."""
        return cls(images.images, images.labels, seed)

    def batch(self, step: int, size: int) -> tuple[Tensor, Tensor | None]:
        """Examples step * size ... (step + 1) * size - 1 of the endless shuffled stream.

        Returns:
            (size, ...) floats, and labels (size,) or None.
        """
        N = len(self.x)
        place = torch.arange(step * size, (step + 1) * size)
        epochs = place // N
        first, last = int(epochs[0]), int(epochs[-1])
        order = torch.cat([self._order(epoch) for epoch in range(first, last + 1)])
        index = order[place - first * N].to(self.x.device)
        x_0 = self.x[index]
        return (to_model_range(x_0) if x_0.dtype == torch.uint8 else x_0), (
            None if self.labels is None else self.labels[index]
        )

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            for old in [e for e in self._orders if e < epoch - 1]:
                del self._orders[old]
            self._orders[epoch] = torch.randperm(len(self.x), generator=seeded(self.seed, epoch))
        return self._orders[epoch]


@dataclass(frozen=True)
class Fresh:
    """Endless data from a known distribution, new draws in each batch: nothing to over-fit.

    Args:
        draw: (n, generator) -> (n, D) or ((n, D), labels (n,)), for example ``GaussianMixture(...).sample``.
        seed: of the draws.
    """

    draw: Callable[[int, torch.Generator], Tensor | tuple[Tensor, Tensor]]
    seed: int = 0

    def batch(self, step: int, size: int) -> tuple[Tensor, Tensor | None]:
        """New draws, the same for the same step: (size, D), and labels (size,) or None."""
        drawn = self.draw(size, seeded(self.seed, step))
        x_0, labels = drawn if isinstance(drawn, tuple) else (drawn, None)
        return x_0.float(), labels


def seed_of(*key: int) -> int:
    """One seed, below 2^63, that depends on every number of the key, each >= 0."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))


def seeded(*key: int) -> torch.Generator:
    """A CPU generator whose stream depends on every number of the key, each >= 0."""
    return torch.Generator().manual_seed(seed_of(*key))
