"""The exercises of ``06_unet``."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor, nn

from ..checks import Exercise, diagnose, hunt
from ..data import global_seed, seeded
from ..networks import GroupNorm
from ..unet import UNet

__all__ = ["NETWORKS", "ask", "bug_hunt", "group_norm", "planes", "raw_step", "sinusoids", "width_of_field"]

NETWORKS = tuple("ABCDE")
HONEST = "D"


# ------------------------------------------------------------------------------------------------ 6.1


def _sinusoids(attempt: Callable[..., object]) -> str | None:
    k, n = torch.tensor([0, 1, 10, 500, 999]), 8
    i = torch.arange(n, dtype=torch.float64)

    def features(powers: Tensor, unit: float = 1.0) -> Tensor:
        angles = unit * k[:, None].double() * 10_000**powers
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    right = features(-i / n)
    sines, cosines = right.chunk(2, dim=1)
    wrong: dict[str, object] = {
        "the powers are divided by n - 1, so that the slowest angle is exactly k / 10000. Ho et al.'s own program does "
        "that; here they are i / n": features(-i / (n - 1)),
        "the powers are divided by 2n: i runs over the pairs, of which there are n": features(-i / (2 * n)),
        # float32 has no digits left for the fastest of these angles: the second one is enough to recognise the mistake
        "the minus is missing in 10000^(-i/n): the angles grow by thousands of radians a step": lambda answer: bool(
            torch.allclose(answer[:, 1], features(i / n)[:, 1], atol=0.02)
        ),
        "there is a factor of 2 pi too many: these angles are in radians, not in turns": features(-i / n, 2 * math.pi),
        "the cosines stand before the sines": torch.cat([cosines, sines], dim=1),
        "sines and cosines take turns, as Vaswani et al. wrote them; here all sines come first": torch.stack(
            [sines, cosines], dim=2
        ).flatten(1),
        "these are the sines alone: steps that have the same sine are told apart by the cosine": sines,
        "the sines stand there twice": torch.cat([sines, sines], dim=1),
        "rows and columns have changed places: one row for each k": right.T,
    }
    return diagnose(attempt(k, n), right, wrong, atol=5e-3)  # float32 angles up to 999 radians


# ------------------------------------------------------------------------------------------------ 6.2


def _group_norm(attempt: Callable[..., object]) -> str | None:
    groups = 2
    x = torch.randn(3, 6, 4, 5, generator=seeded(6, 2), dtype=torch.float64)
    x = x * torch.linspace(0.5, 2, 6)[None, :, None, None] + torch.linspace(-2, 3, 18).reshape(3, 6, 1, 1)
    x[1, :3] = 0.7 + 1e-3 * x[1, :3]  # a group that is nearly flat: only there does the 1e-5 matter

    def by(dims: tuple[int, ...], shape: tuple[int, ...], correction: int = 0, root: bool = True) -> Tensor:
        grouped = x.reshape(shape)
        mean, variance = grouped.mean(dims, keepdim=True), grouped.var(dims, keepdim=True, correction=correction)
        return ((grouped - mean) / ((variance + 1e-5).sqrt() if root else variance + 1e-5)).reshape(x.shape)

    plain, grouped = tuple(x.shape), (3, groups, 6 // groups, 4, 5)
    right = by((2, 3, 4), grouped)
    g = x.reshape(grouped)
    wrong = {
        "this is batch norm: mean and variance run over the batch too, so that a picture's answer depends on its "
        "mates": by((0, 2, 3), plain),
        "the groups are right, but mean and variance run over the batch too": by((0, 2, 3, 4), grouped),
        "this is instance norm: each channel by itself; a group holds several": by((2, 3), plain),
        "this is layer norm: all channels together; they come in groups": by((1, 2, 3), plain),
        "there are as many groups as a group should have channels: reshape to (B, groups, C // groups, H, W)": by(
            (2, 3, 4), (3, 6 // groups, groups, 4, 5)
        ),
        "a group is a run of neighbouring channels; here every second one was taken": by(
            (1, 3, 4), (3, 6 // groups, groups, 4, 5)
        ),
        "mean and variance are taken at each pixel by itself: they should run over all pixels too": by((2,), grouped),
        "this divides by the variance: its root is wanted, the standard deviation": by((2, 3, 4), grouped, root=False),
        "the variance was divided by n - 1, as in an estimate; here it is the plain mean, divided by n": by(
            (2, 3, 4), grouped, correction=1
        ),
        "the 1e-5 under the root is missing: a group of one colour would be 0 / 0": (
            (g - g.mean((2, 3, 4), keepdim=True)) / g.std((2, 3, 4), keepdim=True, correction=0)
        ).reshape(x.shape),
        "the mean is not subtracted": (g / (g.var((2, 3, 4), keepdim=True, correction=0) + 1e-5).sqrt()).reshape(
            x.shape
        ),
    }
    return diagnose(attempt(x.clone(), groups), right, wrong, atol=1e-5)


# ------------------------------------------------------------------------------------------------ 6.3


def _width_of_field(width: object) -> str | None:
    wrong = {
        "the step of two is forgotten: after it, each convolution reaches twice as far": 17,
        "the convolution with the step of two is itself 3 wide, and reaches further too": 23,
        "the input of the convolution with the step of two is at full resolution: it counts 2, not 4": 27,
        "only what comes after the step of two counts double; the first three convolutions come before it": 33,
        "this is how far it reaches to one side; both sides and the pixel itself were asked for": 12,
        "the pixel itself is missing: the sum begins at 1": 24,
        "a residual block holds two convolutions": 15,
    }
    return diagnose(width, 25, wrong, atol=1e-9, rtol=0.0)


# ------------------------------------------------------------------------------------------------ 6.4


def _planes(factor: object) -> str | None:
    wrong = {
        "these are the places; at each of them there are nine weights for each plane": 784,
        "these are the nine weights at one place; the convolution is done at each place": 9,
        "that is the number of planes; the linear layer has that many inputs too": 256,
        "the 48 outputs are there in both, and cancel": 9 * 784 * 48,
        "this divides the whole first convolution, with the picture's own channel, by the linear layer; the planes "
        "alone were asked for": 9 * 784 * 257 / 256,
        "this is the total number of the planes' multiplications; divide it by those of the linear layer": 9
        * 784
        * 48
        * 256,
        "the factor is upside down": 1 / (9 * 784),
    }
    return diagnose(factor, 9 * 784, wrong, atol=1e-9, rtol=1e-6)


# ------------------------------------------------------------------------------------------------ 6.5


@cache
def _network(batch_norm: bool) -> UNet:
    """A small U-Net with random weights, also in the layers that start at zero in training.

    With ``batch_norm`` its group norms are replaced by batch norms, and it is in training mode.
    """
    with global_seed(6):
        network = UNet(channels=(8, 8), blocks=1, embedding=16, heads=2)
        for p in network.parameters():
            if bool((p == 0).all()):
                nn.init.normal_(p, std=0.2)
        if batch_norm:
            for module in list(network.modules()):
                for name, child in list(module.named_children()):
                    if isinstance(child, GroupNorm):
                        setattr(module, name, nn.BatchNorm2d(child.num_channels))
    return network.train(batch_norm)


def ask(name: str, x: Tensor, level: Tensor) -> Tensor:
    """The answer of one of five untrained networks.

    Args:
        name: "A", "B", "C", "D" or "E".
        x: (B, 1, H, W).
        level: (B,), in [0, 1].

    Returns:
        (B, 1, H, W).

    Raises:
        ValueError: for another name.
    """
    if name not in NETWORKS:
        raise ValueError(f"the networks are A, B, C, D and E, and {name!r} was asked for.")
    with torch.no_grad():
        if name == "A":
            level = level[:1].expand_as(level)  # the first picture's level for all
        if name == "B":
            x -= x.mean(dim=(1, 2, 3), keepdim=True)  # in place: the caller's own picture is changed
        if name == "E":
            level = torch.zeros_like(level)  # never told
        answer: Tensor = _network(batch_norm=name == "C")(x, level)
    return answer


_MISSED = {
    "A": "A is right as long as all the pictures of a batch share one level, as they do in a sampler; give a batch "
    "several levels, and compare with one picture at a time",
    "B": "each answer of B is right; look at what is left in your x afterwards",
    "C": "C is told its levels, and does not change your x; ask it about a picture by itself, and again among others",
    "E": "E gives a picture the same answer in any company; try another level",
}


def _bug_hunt(attempt: Callable[..., object]) -> str | None:
    return hunt(
        lambda name: attempt(partial(ask, name)),
        NETWORKS,
        HONEST,
        _MISSED,
        advice="A picture alone and the same among others may differ by "
        "rounding: allow about 1e-4. And a larger level need not give a larger answer, only another one",
        what="network",
    )


# ------------------------------------------------------------------------------------------------ 6.6


def _raw_step(raw_bends: object, raw_size: object, divided_bends: object) -> str | None:
    units, low, high = 128, 10, 999

    def beyond(tau: float) -> float:  # P(|b/w| > tau), w and b uniform on (-1, 1): (6.2), and what it is below 1
        return 1 / (2 * tau) if tau >= 1 else 1 - tau / 2

    def between(a: float, b: float) -> float:  # bends at -b/w: half of them are positive
        return units / 2 * (beyond(a) - beyond(b))

    raw, divided = between(low, high), between(low / high, 1)
    of_raw = {
        "half of the bends are at negative k: -b/w has either sign": 2 * raw,
        "these are all the bends beyond 10; those beyond 999 lie outside": units / 2 * beyond(low),
        "this is the share of one unit; there are 128 of them": raw / units,
        "these are the bends that do not lie there": units - raw,
        "1/tau is twice what (6.2) says, and only half of the bends are positive": 4 * raw,
    }
    of_size = {
        "this is the variance; its root is wanted": (high**2 + 1) / 3,
        "this is the largest that |w k| can be; w is mostly smaller": high,
        "this is the mean of |w k|; the standard deviation was asked for": high / 2,
        "a number that is uniform on (-1, 1) has the variance 1/3; 1/12 belongs to an interval of length 1": high
        / 12**0.5,
        "this is for k = 1, or for the divided step; at k = 999 w is multiplied by 999": (2 / 3) ** 0.5,
    }
    of_divided = {
        "half of the bends are at negative k: -b/w has either sign": 2 * divided,
        "this counts from k = 0 on; some of these bends lie between 0 and 10": between(1e-9, 1),
        "these are the bends of the raw step. Divided, the range is from 10/999 to 1, where more of the bends are": raw,
        "(6.2) is for tau of 1 and more, and 10/999 is less: integrate again, up to w = 1": lambda given: bool(
            given > units
        ),
        "this is the share of one unit; there are 128 of them": divided / units,
        "these are the bends beyond k = 10; about half of them lie beyond 999": units / 2 * beyond(low / high),
    }
    for name, answer, right, wrong, atol in (
        ("raw_bends", raw_bends, raw, of_raw, 0.005),
        ("raw_size", raw_size, ((high**2 + 1) / 3) ** 0.5, of_size, 0.5),
        ("divided_bends", divided_bends, divided, of_divided, 0.05),
    ):
        diagnosis = diagnose(answer, right, wrong, atol=atol)
        if diagnosis is not None:
            return f"{name}: {diagnosis}"
    return None


sinusoids = Exercise(
    "6.1",
    _sinusoids,
    hint="the angles are k[:, None] times the n frequencies; then all the sines, then all the cosines.",
)
group_norm = Exercise(
    "6.2",
    _group_norm,
    hint="reshape to (B, groups, C // groups, H, W), and take mean and variance over the last three.",
)
width_of_field = Exercise("6.3", _width_of_field, hint="(6.15): 1, and for each convolution 2 times 2^d.")
planes = Exercise("6.4", _planes, hint="(6.7) for 256 channels, and 256 times 48 for the linear layer.")
bug_hunt = Exercise(
    "6.5",
    _bug_hunt,
    hint="what does a network promise? Its answer depends on its own picture and its own level, on both of them, and "
    "it changes nothing else.",
    praise="it accuses A, B, C and E, and lets the honest D go",
)
raw_step = Exercise(
    "6.6",
    _raw_step,
    hint="half the difference of (6.2) at the two ends; a number uniform on (-1, 1) has the variance 1/3; for tau "
    "below 1 the integral of 1 - tau w runs to w = 1.",
    praise="divided by 999, ten times as many of the units bend where the steps are",
)
