"""The parts that networks are built of, and three small networks that need no more than a page.

Notebook: ``06_unet`` takes them apart; the U-Net itself is in ``unet``.

A denoising network must be told how noisy its input is, in every block: the same fine grain means "almost done" at
one level and "nothing yet" at another. The level is turned into Fourier features, goes through a small MLP, and ends
as a scale and a shift in each residual block.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .door import are_labels, check_classes, check_counts, check_input, check_share, check_tensors, is_real, said

__all__ = [
    "NO_LABEL",
    "AttentionBlock",
    "Classifier",
    "ConditionEmbedding",
    "FourierFeatures",
    "GroupNorm",
    "LevelClassifier",
    "ResidualBlock",
    "ResidualMLP",
]

Module = TypeVar("Module", bound=nn.Module)

NO_LABEL = -1  # in a batch of labels: this example is unconditional


class FourierFeatures(nn.Module):
    """Sines and cosines of a number in [0, 1], from half a turn to 64 turns over the unit interval.

    A linear layer on the raw number sees one direction; on these it can tell neighbouring levels apart.
    (Vaswani et al. 2017, section 3.5, in the scaling of a unit interval.)

    Args:
        dim: number of features, even, at least 4.
        max_turns: the fastest feature's turns over [0, 1], finite and above 0.

    Raises:
        ValueError: if ``dim`` or ``max_turns`` is something else.
    """

    frequencies: Tensor

    def __init__(self, dim: int = 64, max_turns: float = 64.0) -> None:
        super().__init__()
        check_counts("FourierFeatures", 4, dim=dim)
        if dim % 2 or not is_real(max_turns) or not 0 < max_turns < math.inf:
            raise ValueError(
                f"FourierFeatures got dim={dim} and max_turns={max_turns!r}; it makes pairs of a sine and a cosine: "
                "give an even number, at least 4, and turns above 0."
            )
        turns = torch.logspace(-1, math.log2(max_turns), dim // 2, base=2.0)
        self.register_buffer("frequencies", (2 * math.pi * turns).float(), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FourierFeatures:
        # As a schedule's table: `.to(device)` moves them, and a cast costs no digits. In half precision the fast waves
        # would be others than the network was trained with, and would stay so in float32.
        exact = self.frequencies
        super()._apply(fn, recurse)
        device = self.frequencies.device
        self.frequencies = torch.empty_like(exact, device=device) if exact.is_meta else exact.to(device)
        return self

    def forward(self, level: Tensor) -> Tensor:
        """(B,) in [0, 1] to (B, dim) in [-1, 1].

        Raises:
            ValueError: if the level is not one float for each example.
        """
        if level.ndim != 1 or not level.is_floating_point():
            raise ValueError(
                f"FourierFeatures got a level of shape {tuple(level.shape)} and type {level.dtype}; give one float for "
                "each example, (B,)."
            )
        angles = level[:, None] * self.frequencies
        return torch.cat([torch.sin(angles), torch.cos(angles)], dim=1).to(level.dtype)


class ConditionEmbedding(nn.Module):
    """Noise level and class label as one vector.

    Args:
        dim: width of the result.
        num_classes: number of labels, or None for an unconditional network. "No label" gets a vector of its own.
    """

    def __init__(self, dim: int, num_classes: int | None = None) -> None:
        super().__init__()
        check_counts("ConditionEmbedding", dim=dim, num_classes=1 if num_classes is None else num_classes)
        self.num_classes = num_classes
        self.features = FourierFeatures(64)
        self.mlp = nn.Sequential(nn.Linear(64, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.label = None if num_classes is None else nn.Embedding(num_classes + 1, dim)

    def forward(self, level: Tensor, condition: Tensor | None = None) -> Tensor:
        """The vector that every block gets.

        Args:
            level: (B,), in [0, 1].
            condition: (B,) labels from 0 to num_classes - 1, ``NO_LABEL`` for none; or None for no labels at all.

        Returns:
            (B, dim).

        Raises:
            ValueError: if labels are given to an unconditional network, are not one whole number for each example, lie
                on another device, or go beyond the last class (which is checked on the CPU only).
            TypeError: if the labels are not a tensor, or the level is not of the weights' type.
        """
        check_input("the network", level, ("B",), next(self.mlp.parameters()), "level")
        embedding: Tensor = self.mlp(self.features(level))
        if self.label is None or self.num_classes is None:
            if condition is not None:
                raise ValueError(
                    "an unconditional network was given labels; build it with num_classes, or pass condition=None."
                )
            return embedding
        if condition is None:
            condition = torch.full(level.shape, NO_LABEL, device=level.device)
        check_tensors("the network", "a tensor (B,) of whole numbers", condition=condition)
        if condition.shape != level.shape or not are_labels(condition):
            raise ValueError(
                f"the network got {len(level)} examples and labels of shape {tuple(condition.shape)} and type "
                f"{condition.dtype}; give one integer label per example, shape (B,)."
            )
        if condition.device != level.device:
            raise ValueError(
                f"the network got labels on {condition.device} and pictures on {level.device}; move one to the other."
            )
        check_classes("the network", condition, self.num_classes, "was built for")
        # On a GPU nobody has checked the labels. One that is too high must index past the table, which is an error, and
        # not hit the row of "no label".
        label = condition.long()  # first: an int8 tensor is compared with 200 as if that were -56
        row = torch.where(label < 0, self.num_classes, label + (label >= self.num_classes))
        return embedding + self.label(row)


class GroupNorm(nn.GroupNorm):
    """Group normalisation in float32 at least, whatever the precision around it: safer, and faster under autocast.

    Statistics are taken within one example, so that a prediction never depends on the batch around it, which batch
    norm cannot promise (Wu & He 2018). The number of groups is the largest divisor of the channels up to 8.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(max(g for g in range(1, 9) if channels % g == 0), channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) to the same shape and dtype."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        weight, bias = self.weight.to(wide.dtype), self.bias.to(wide.dtype)
        return torch.group_norm(wide, self.num_groups, weight, bias, self.eps).to(x.dtype)


class ResidualBlock(nn.Module):
    """x + f(x), where the noise level scales and shifts the features half-way through f.

    (Ho et al. 2020, appendix B, where it only shifts; with a scale as in FiLM, Perez et al. 2018.) The last convolution
    starts at zero: the block starts as its skip, the identity or a 1x1 convolution, and the network as a shallow one.

    Args:
        in_channels, out_channels: of the feature maps; where they differ, x passes through a 1x1 convolution.
        embedding: width of the vector from ``ConditionEmbedding``.
        dropout: probability of dropping a feature before the last convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, embedding: int, dropout: float = 0.0) -> None:
        super().__init__()
        check_counts("ResidualBlock", in_channels=in_channels, out_channels=out_channels, embedding=embedding)
        check_share("ResidualBlock", dropout=dropout)
        self.norm1 = GroupNorm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * out_channels)
        self.norm2 = GroupNorm(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zero_(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.skip = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x (B, in_channels, H, W) and embedding (B, E) to (B, out_channels, H, W)."""
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.modulation(F.silu(embedding))[:, :, None, None].chunk(2, dim=1)
        h = self.norm2(h) * (1 + scale) + shift
        h = self.conv2(self.dropout(F.silu(h)))
        return h + self.skip(x)


class AttentionBlock(nn.Module):
    """Every pixel looks at every other: x + attention(x) (Vaswani et al. 2017; Ho et al. 2020, appendix B).

    The cost grows with the square of the number of pixels, so it belongs at low resolutions. Written as the two matrix
    products that it is; at these sizes that is faster on a CPU than the fused kernel.

    Args:
        channels: of the feature map.
        heads: attentions side by side; must divide channels.
    """

    def __init__(self, channels: int, heads: int = 4) -> None:
        super().__init__()
        check_counts("AttentionBlock", channels=channels, heads=heads)
        if channels % heads:
            raise ValueError(
                f"AttentionBlock got {channels} channels and {heads} heads; the heads must divide the channels."
            )
        self.heads = heads
        self.norm = GroupNorm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zero_(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        B, C, H, W = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(B, 3, self.heads, C // self.heads, H * W).unbind(1)
        attention = torch.softmax(q.transpose(-2, -1) @ k / math.sqrt(C // self.heads), dim=-1)  # (B, heads, from, to)
        h = v @ attention.transpose(-2, -1)
        return x + self.out(h.reshape(B, C, H, W))


class ResidualMLP(nn.Module):
    """A denoising network for points: the U-Net's idea without the pictures.

    Args:
        dim: D, numbers in a point.
        width: features in each layer.
        depth: number of residual blocks.
        num_classes: number of labels, or None.
        out_dim: numbers in the answer; None for D. The number of classes makes it a classifier of noisy points.
    """

    def __init__(
        self,
        dim: int = 2,
        width: int = 128,
        depth: int = 3,
        num_classes: int | None = None,
        out_dim: int | None = None,
    ) -> None:
        super().__init__()
        out_dim = dim if out_dim is None else out_dim
        check_counts("ResidualMLP", dim=dim, width=width, out_dim=out_dim)
        check_counts("ResidualMLP", 0, depth=depth)
        self.embed = ConditionEmbedding(width, num_classes)
        self.stem = nn.Linear(dim, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.modulations = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(depth))
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), zero_(nn.Linear(2 * width, width)))
            for _ in range(depth)
        )
        self.head = zero_(nn.Linear(width, out_dim))

    def forward(self, x: Tensor, level: Tensor, condition: Tensor | None = None) -> Tensor:
        """x (B, D), level (B,) in [0, 1] and condition (B,) labels or None, to (B, out_dim).

        Raises:
            ValueError: if x is not a batch of points with D numbers, or level or labels are not one for each.
            TypeError: if x or the level is not of the weights' type.
        """
        check_input("ResidualMLP", x, ("B", self.stem.in_features), self.stem.weight)
        check_level("ResidualMLP", level, x)
        embedding = F.silu(self.embed(level, condition))
        h = self.stem(x)
        for norm, modulation, layer in zip(self.norms, self.modulations, self.layers, strict=True):
            scale, shift = modulation(embedding).chunk(2, dim=1)
            h = h + layer(norm(h) * (1 + scale) + shift)
        out: Tensor = self.head(F.silu(h))
        return out


class Classifier(nn.Module):
    """A small convolutional classifier whose last hidden layer serves as features for measuring samples.

    Args:
        in_channels: of the images.
        num_classes: number of labels.
        features: width of the last hidden layer.
    """

    def __init__(self, in_channels: int = 1, num_classes: int = 10, features: int = 64) -> None:
        super().__init__()
        check_counts("Classifier", in_channels=in_channels, num_classes=num_classes, features=features)
        self.in_channels = in_channels
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, 32, 3, padding=1), GroupNorm(32), nn.SiLU(),
            nn.Conv2d(32, 48, 3, padding=1, stride=2), GroupNorm(48), nn.SiLU(),
            nn.Conv2d(48, 64, 3, padding=1, stride=2), GroupNorm(64), nn.SiLU(),
            nn.Conv2d(64, 64, 3, padding=1, stride=2), GroupNorm(64), nn.SiLU(),
            nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 16, features), nn.SiLU(),
        )  # fmt: skip
        self.head = nn.Linear(features, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [-1, 1] to (B, features)."""
        check_input("Classifier", x, ("B", self.in_channels, "H", "W"), self.head.weight)
        out: Tensor = self.body(x)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [-1, 1] to logits (B, num_classes)."""
        out: Tensor = self.head(self.features(x))
        return out


class LevelClassifier(nn.Module):
    """A classifier of noisy pictures, which is told how noisy they are: the way down of a U-Net, and a head.

    It is the classifier of classifier guidance (Dhariwal & Nichol 2021, section 4); ``Classifier`` has no place for a
    level, and is for clean pictures.

    Args:
        in_channels: C of the pictures.
        num_classes: number of labels.
        channels: features at each level of resolution; the first has half the picture's sides, and each further one
            half of those before.
        embedding: width of the vector that tells each block the noise level.
        dropout: in the residual blocks.
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 10,
        channels: Sequence[int] = (32, 48, 64),
        embedding: int = 64,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        given: object = channels
        if not isinstance(given, Sequence) or isinstance(given, str) or not len(channels):
            raise ValueError(f"LevelClassifier got channels={channels!r}; give one number per level, at least one.")
        check_counts("LevelClassifier", num_classes=num_classes, in_channels=in_channels)
        check_counts("LevelClassifier", **{f"channels[{k}]": c for k, c in enumerate(channels)})
        widths = [in_channels, *channels]
        self.in_channels = in_channels
        self.embed = ConditionEmbedding(embedding)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in itertools.pairwise(widths))
        self.blocks = nn.ModuleList(ResidualBlock(c, c, embedding, dropout) for c in channels)
        self.norm = GroupNorm(widths[-1])
        self.head = zero_(nn.Linear(widths[-1], num_classes))

    def forward(self, x: Tensor, level: Tensor, condition: Tensor | None = None) -> Tensor:
        """Logits, equal for all classes in an untrained network.

        Args:
            x: (B, C, H, W).
            level: (B,), in [0, 1]: how noisy x is.
            condition: must be None; it is there for the signature that all networks share.

        Returns:
            (B, num_classes).

        Raises:
            ValueError: if x is not a batch of pictures with C channels, the level is not one number for each, or a
                condition is given.
            TypeError: if x or the level is not of the weights' type.
        """
        check_input("LevelClassifier", x, ("B", self.in_channels, "H", "W"), self.head.weight)
        check_level("LevelClassifier", level, x)
        if condition is not None:
            raise ValueError(f"LevelClassifier got condition = {said(condition)}; it answers with labels: give None.")
        embedding = self.embed(level, None)
        h = x
        for down, block in zip(self.down, self.blocks, strict=True):
            h = block(down(h), embedding)
        out: Tensor = self.head(F.silu(self.norm(h)).mean((2, 3)))
        return out


def check_level(who: str, level: Tensor, x: Tensor) -> None:
    """A noise level must be one number for each example.

    Args:
        who: the network, for the sentence.
        level: wanted of shape (B,).
        x: (B, ...).

    Raises:
        ValueError: if it has another shape.
    """
    check_tensors(who, "a tensor (B,)", level=level)
    if level.shape != x.shape[:1]:
        raise ValueError(
            f"{who} got {len(x)} examples and a level of shape {tuple(level.shape)}; give one number each, shape (B,)."
        )


def zero_(module: Module) -> Module:
    """The module with its parameters set to zero."""
    for p in module.parameters():
        nn.init.zeros_(p)
    return module
