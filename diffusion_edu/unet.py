r"""The U-Net: a function of shapes that maps a noisy picture and its noise level to a picture.

Notebook: ``06_unet``. It knows nothing of diffusion.

    level, label ──> embedding ──────────────┐ scale and shift in every block
                                             v
    x ─> stem ─> [block block]───────────skips──────────>[block block] ─> norm ─> conv ─> out
                     └─ down ─> [block block]──skips──>[block block] ─ up ┘
                                     └─> block, attention, block ─┘

(Ronneberger et al. 2015; Ho et al. 2020, appendix B; scale and shift from Dhariwal & Nichol 2021.)
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .door import check_counts, check_input, check_share
from .networks import AttentionBlock, ConditionEmbedding, GroupNorm, ResidualBlock, check_level, zero_

__all__ = ["UNet"]


class UNet(nn.Module):
    """A U-Net on pictures of any side.

    Args:
        in_channels: C of the pictures.
        channels: features at each level of resolution, the full one first; each further level halves the sides.
        blocks: residual blocks on the way down and again on the way up: one number, or one for each level. They cost
            most at full resolution.
        num_classes: number of labels, or None for a network without labels. "No label" gets an embedding of its own.
        patch: fold each patch x patch square of pixels into channels first, which divides the work by about patch^2.
        attention: one bool per level, the last also for the middle; None for the lowest level and the middle only.
        embedding: width of the vector that tells each block the noise level.
        heads: attention heads; they must divide the channels of each level that has attention.
        dropout: probability of dropping a feature in a residual block, in [0, 1].
        out_channels: C of the answer; None for ``in_channels``. Give 2 C for a learnt variance.

    Raises:
        ValueError: if ``attention`` or ``blocks`` does not have one entry per level, a number is below 1, the heads do
            not divide the channels, or ``dropout`` is outside [0, 1].
    """

    def __init__(
        self,
        in_channels: int = 1,
        channels: Sequence[int] = (48, 64),
        blocks: int | Sequence[int] = 2,
        num_classes: int | None = None,
        patch: int = 1,
        attention: Sequence[bool] | None = None,
        embedding: int = 128,
        heads: int = 4,
        dropout: float = 0.0,
        out_channels: int | None = None,
    ) -> None:
        super().__init__()
        given: object = channels
        if not isinstance(given, Sequence) or isinstance(given, str):
            raise ValueError(f"UNet got channels={channels!r}; give the features of each level, such as (48, 64).")
        channels = tuple(channels)
        given = attention
        if given is not None and not isinstance(given, Sequence):
            raise ValueError(f"UNet got attention={attention!r}; give one bool per level, True where it has attention.")
        attention = tuple(attention) if attention is not None else (False,) * (len(channels) - 1) + (True,)
        blocks = tuple(blocks) if isinstance(blocks, Sequence) else (blocks,) * len(channels)
        if not all(isinstance(a, bool) for a in attention):
            raise ValueError(f"UNet got attention={attention}; give one bool per level, True where it has attention.")
        if len(channels) < 1 or not len(attention) == len(blocks) == len(channels):
            raise ValueError(
                f"UNet got channels={channels}, blocks={blocks} and attention={attention}; give one entry of each per "
                "level, at least one level."
            )
        out_channels = in_channels if out_channels is None else out_channels
        check_counts("UNet", in_channels=in_channels, patch=patch, embedding=embedding, out_channels=out_channels)
        for level in range(len(channels)):
            check_counts("UNet", **{f"channels[{level}]": channels[level], f"blocks[{level}]": blocks[level]})
        check_share("UNet", dropout=dropout)
        self.in_channels, self.out_channels, self.patch = in_channels, out_channels, patch
        self.embed = ConditionEmbedding(embedding, num_classes)
        self.stem = nn.Conv2d(in_channels * patch**2, channels[0], 3, padding=1)

        self.down, self.downsample = nn.ModuleList(), nn.ModuleList()
        width = channels[0]
        for level, c in enumerate(channels):
            self.downsample.append(nn.Identity() if level == 0 else nn.Conv2d(width, width, 3, stride=2, padding=1))
            self.down.append(
                nn.ModuleList(
                    _Stage(width if i == 0 else c, c, embedding, attention[level], heads, dropout)
                    for i in range(blocks[level])
                )
            )
            width = c

        self.middle = nn.ModuleList(
            [
                _Stage(width, width, embedding, attention[-1], heads, dropout),
                _Stage(width, width, embedding, False, heads, dropout),
            ]
        )

        self.up, self.upsample = nn.ModuleList(), nn.ModuleList()
        for level, c in reversed(list(enumerate(channels))):
            self.up.append(
                nn.ModuleList(
                    _Stage((width if i == 0 else c) + c, c, embedding, attention[level], heads, dropout)
                    for i in range(blocks[level])
                )
            )
            self.upsample.append(nn.Identity() if level == 0 else nn.Conv2d(c, c, 3, padding=1))
            width = c

        self.norm = GroupNorm(width)
        self.out = zero_(nn.Conv2d(width, out_channels * patch**2, 3, padding=1))

    def forward(self, x: Tensor, level: Tensor, condition: Tensor | None = None) -> Tensor:
        """One picture for each picture in x, with the same sides; zero everywhere for an untrained network.

        Args:
            x: (B, C, H, W), any sides; where ``patch`` does not divide them, the edge is repeated and cut off again.
            level: (B,), in [0, 1]: how noisy x is.
            condition: (B,) labels, ``NO_LABEL`` for none; or None.

        Returns:
            (B, out_channels, H, W).

        Raises:
            ValueError: if x is not a batch of pictures with C channels, on the device of the weights, or the level is
                not one number per picture.
            TypeError: if x or the level is not of the weights' type.
        """
        check_input("UNet", x, ("B", self.in_channels, "H", "W"), self.stem.weight)
        check_level("UNet", level, x)
        H, W = x.shape[-2:]
        embedding = self.embed(level, condition)
        if not len(x):  # pixel_unshuffle leaves an empty batch as it is
            return x.new_zeros(0, self.out_channels, H, W)

        h = (
            F.pad(x, (0, -W % self.patch, 0, -H % self.patch), mode="replicate")
            if (H % self.patch or W % self.patch)
            else x
        )
        # Near t = 0 the noise is too fine for bfloat16 to resolve beside the picture, so the stem runs in float32.
        with nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False):
            h = self.stem(F.pixel_unshuffle(h, self.patch).to(self.stem.weight.dtype))

        skips = []
        for downsample, stages in zip(self.downsample, self.down, strict=True):
            h = downsample(h)
            for stage in _stages(stages):
                h = stage(h, embedding)
                skips.append(h)

        for stage in self.middle:
            h = stage(h, embedding)

        for stages, upsample in zip(self.up, self.upsample, strict=True):
            for stage in _stages(stages):
                h = stage(torch.cat([h, skips.pop()], dim=1), embedding)
            if skips:  # up to the sides that the next level had on the way down, odd ones too
                h = upsample(_doubled(h, *skips[-1].shape[-2:]))

        h = self.out(F.silu(self.norm(h)))
        return F.pixel_shuffle(h, self.patch)[..., :H, :W]


def _doubled(h: Tensor, height: int, width: int) -> Tensor:
    """Each pixel twice, across and down, cut to the sides given."""
    if torch.compiler.is_compiling():  # PyTorch 2.13 compiles interpolate's gradient to 0 in bfloat16 on a CPU
        B, C, H, W = h.shape
        twice = h[:, :, :, None, :, None].expand(B, C, H, 2, W, 2).reshape(B, C, 2 * H, 2 * W)
        return twice[..., :height, :width]
    return F.interpolate(h, size=(height, width), mode="nearest")


def _stages(stages: nn.Module) -> nn.ModuleList:
    assert isinstance(stages, nn.ModuleList)
    return stages


class _Stage(nn.Module):
    """A residual block, followed by attention where the level has it."""

    def __init__(
        self, in_channels: int, out_channels: int, embedding: int, attention: bool, heads: int, dropout: float
    ) -> None:
        super().__init__()
        self.block = ResidualBlock(in_channels, out_channels, embedding, dropout)
        self.attention = AttentionBlock(out_channels, heads) if attention else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        out: Tensor = self.attention(self.block(x, embedding))
        return out
