"""The exercises of ``14_evaluation``."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ..checks import NO_VERDICT, Exercise, diagnose, doubted, hunt, listed
from ..metrics import frechet_distance

__all__ = [
    "PROTOCOLS",
    "SAMPLERS",
    "bits",
    "bug_hunt",
    "frechet",
    "memorised",
    "mmd_squared",
    "run_protocol",
    "two_sizes",
]

PROTOCOLS = tuple("ABCDE")
HONEST = "C"
CAP = 100  # how many samples protocol D looks at
SAMPLERS = "ABC"
COPIER = "B"

Features = Callable[[Tensor], Tensor]


def _normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _root(C: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(C)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


# ------------------------------------------------------------------------------------------------ 14.1


def _frechet(attempt: Callable[..., object]) -> str | None:
    mean_a, mean_b = _normal(2, 4, seed=1)
    L_a, L_b = _normal(2, 4, 4, seed=2)
    A, B = L_a @ L_a.T, L_b @ L_b.T + 0.5 * torch.eye(4, dtype=torch.float64)
    found = torch.as_tensor(attempt(mean_a, A, mean_b, B))
    shift, traces = (mean_a - mean_b).square().sum(), A.trace() + B.trace()
    cross = _root(_root(A) @ B @ _root(A)).trace()
    wrong = {
        "the root is taken number by number; the root R of a matrix C has R @ R = C, and comes from C's eigenvalues": (
            shift + traces - 2 * (_root(A) @ B @ _root(A)).clamp(min=0).sqrt().trace()
        ),
        "the root of A @ B is taken number by number; take that of A^(1/2) B A^(1/2), from its eigenvalues": (
            shift + traces - 2 * (A @ B).diagonal().clamp(min=0).sqrt().sum()
        ),
        "this is tr (A^(1/2) B^(1/2)), which is the same only where A and B have the same axes": (
            shift + traces - 2 * (_root(A) @ _root(B)).trace()
        ),
        "the 2 before the last term is missing": shift + traces - cross,
        "the last root is missing: it is the trace of the ROOT of A^(1/2) B A^(1/2)": (
            shift + traces - 2 * (_root(A) @ B @ _root(A)).trace()
        ),
        "the means are missing": traces - 2 * cross,
        "the distance of the means is not squared": shift.sqrt() + traces - 2 * cross,
        "the root of the distance was given; by custom it is reported squared": (shift + traces - 2 * cross).sqrt(),
    }
    return diagnose(found, shift + traces - 2 * cross, wrong)


# ------------------------------------------------------------------------------------------------ 14.2


def _two_sizes(answer: object) -> str | None:
    n_1, d_1, n_2, d_2 = 500, 9.0, 2000, 5.25
    wrong: dict[str, object] = {
        "the two distances have changed places: 9.0 belongs to 500 samples and 5.25 to 2000": (n_1 * d_2 - n_2 * d_1)
        / (n_1 - n_2),
        "this is the smaller of the two; at 2000 there is still a bias of a quarter of that at 500": d_2,
        "this is the mean of the two, which keeps a bias": (d_1 + d_2) / 2,
        "this is c / 500, the bias, and not what is left without it": d_1 - 4.0,
        "the bias falls with 1 / n, and not with 1 / sqrt(n)": (math.sqrt(n_1) * d_1 - math.sqrt(n_2) * d_2)
        / (math.sqrt(n_1) - math.sqrt(n_2)),
        "this is n_1 - n_2 times the answer: divide by n_1 - n_2": n_1 * d_1 - n_2 * d_2,
    }
    return diagnose(answer, (n_1 * d_1 - n_2 * d_2) / (n_1 - n_2), wrong, atol=1e-6)


# ------------------------------------------------------------------------------------------------ 14.3


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _mmd_squared(attempt: Callable[..., object]) -> str | None:
    x, y = _normal(7, 3, seed=3), 0.5 * _normal(9, 3, seed=4) + 1
    found = torch.as_tensor(attempt(x, y, _kernel))
    xx, yy, xy = _kernel(x, x), _kernel(y, y), _kernel(x, y)
    N, M = len(x), len(y)

    def off(K: Tensor, pairs: int) -> Tensor:
        return (K.sum() - K.trace()) / pairs

    right = off(xx, N * (N - 1)) + off(yy, M * (M - 1)) - 2 * xy.mean()
    wrong = {
        "an example is paired with itself: the diagonal is in the first two means, and the estimate has a bias "
        "upwards, (14.16)": xx.mean() + yy.mean() - 2 * xy.mean(),
        "the diagonal was left out of the sum, but counted in the number of pairs: there are n (n - 1) pairs": (
            off(xx, N * N) + off(yy, M * M) - 2 * xy.mean()
        ),
        "the 2 before the last mean is missing": off(xx, N * (N - 1)) + off(yy, M * (M - 1)) - xy.mean(),
        "the sign is turned": -right,
        "it was cut off at 0 or made positive; an estimate without bias may be negative": lambda a: bool(
            right < 0 and a >= 0
        ),
        "each pair was counted once in the sum but twice in the number of pairs": (
            off(xx, 2 * N * (N - 1)) + off(yy, 2 * M * (M - 1)) - 2 * xy.mean()
        ),
    }
    diagnosis = diagnose(found, right, wrong)
    if diagnosis is not None:
        return diagnosis
    close_x, close_y = _normal(6, 3, seed=12), _normal(6, 3, seed=13)
    near = (
        off(_kernel(close_x, close_x), 30) + off(_kernel(close_y, close_y), 30) - 2 * _kernel(close_x, close_y).mean()
    )
    assert near < 0, "the check needs sets whose estimate is negative"
    if abs(float(torch.as_tensor(attempt(close_x, close_y, _kernel))) - float(near)) > 1e-6:
        return "it was cut off at 0 or made positive; an estimate without bias may be negative"
    return None


# ------------------------------------------------------------------------------------------------ 14.4


def _bits(attempt: Callable[..., object]) -> str | None:
    log_p = torch.tensor([900.0, 1500.0, 2100.0], dtype=torch.float64)
    dims = 784
    found = torch.as_tensor(attempt(log_p, dims))
    per_dim = -log_p / dims / math.log(2)
    wrong = {
        "the unit of the density is missing: 1 unit of x is 127.5 gray levels, which adds log2(127.5) = 6.99 bits": (
            per_dim
        ),
        "8 bits were added; on [-1, 1] a level is 2 / 255 wide, and log2(127.5) = 6.99": per_dim + 8,
        "the offset is that of data on [0, 1], log2(255); ours are on [-1, 1]": per_dim + math.log2(255),
        "the offset was taken away; a density per unit of x is 127.5 times that per gray level, so its code is shorter "
        "by just that, and it has to be added again": per_dim - math.log2(127.5),
        "these are nats, and log(2) = 0.693 of them make a bit": -log_p / dims + math.log(127.5),
        "the sign is turned: a likely picture takes few bits": -per_dim + math.log2(127.5),
        "it was not divided by the number of dimensions": -log_p / math.log(2) + math.log2(127.5),
        "this multiplies by log(2): nats have to be divided by it": -log_p / dims * math.log(2) + math.log2(127.5),
    }
    return diagnose(found, per_dim + math.log2(127.5), wrong)


# ------------------------------------------------------------------------------------------------ 14.5


def _world(seed: int) -> tuple[Tensor, Tensor]:
    """Training examples (400, 8) and held-out ones (100, 8), from one distribution with a dense and a wide part."""
    x = _normal(500, 8, seed=seed)
    dense = torch.arange(500) % 2 == 0
    x[dense] = 0.05 * x[dense] + 2
    return x[:400], x[400:]


def _draw(name: str, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """What sampler A, B or C gives, (200, 8), and the training and held-out examples."""
    train, held_out = _world(seed)
    if name == "A":  # honest: fresh draws of the same distribution
        fresh, more = _world(seed + 1)
        return torch.cat([fresh, more])[:200], train, held_out
    if name == "B":  # two in three are training examples, a little shaken
        fresh, _ = _world(seed + 2)
        shaken = train[:200] + 0.02 * _normal(200, 8, seed=seed + 3)
        return torch.where((torch.arange(200) % 3 < 2)[:, None], shaken, fresh[:200]), train, held_out
    return 2 + 0.03 * _normal(200, 8, seed=seed + 4), train, held_out  # C: bad, all in the dense part, and honest


def _memorised(attempt: Callable[..., object]) -> str | None:
    accused: set[str] = set()
    for seed in (1000, 5000, 6000):
        found = doubted(lambda name, seed=seed: attempt(*_draw(name, seed)), SAMPLERS)  # type: ignore[misc]
        if found is None:
            return NO_VERDICT
        accused |= set(found)
        if COPIER not in found:
            return (
                "it takes the copier for honest. Two of its three samples are training examples, a little shaken: ask "
                "of each sample whether a training or a held-out example is nearer, and count"
            )
    if accused == {"A", "B", "C"}:
        return (
            "it accuses all three. There are four times as many training as held-out examples, so an honest sample's "
            "nearest example is a training one four times out of five"
        )
    if accused != {COPIER}:
        return (
            f"it accuses {listed(sorted(accused - {COPIER}))} too, which is honest. Where the data are dense, honest "
            "samples lie near to training examples as well: let the held-out examples tell how near is normal, and "
            "allow for chance: samples that share one neighbour count as one voice"
        )
    return None


# ------------------------------------------------------------------------------------------------ 14.6


def run_protocol(name: str, samples: Tensor, train: Tensor, test: Tensor, features: Features) -> float:
    """One of five programs that claim to measure samples.

    Each claims: samples are clipped to [-1, 1] and rounded to the 256 gray levels, as they would be saved; then it
    returns the squared Fréchet distance of the features of all of them from those of the held-out pictures.

    Args:
        name: "A", "B", "C", "D" or "E".
        samples: (N, C, H, W), around [-1, 1], N >= 2.
        train: (N_train, C, H, W) in [-1, 1], what the model was trained on.
        test: (N_test, C, H, W) in [-1, 1], held out.
        features: pictures in [-1, 1], (B, C, H, W), to (B, D).

    Returns:
        the distance.

    Raises:
        ValueError: for another name.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"the protocols are A, B, C, D and E, and {name!r} was asked for.")
    samples = samples[:CAP] if name == "D" else samples  # D: never more than CAP samples
    levels = (samples.double() + 1) * 127.5
    if name == "E":  # E: what is above 255 or below 0 wraps around, as in a cast to 8 bits
        levels = levels.round() % 256
    saved = levels.round().clamp(0, 255) / 127.5 - 1
    reference = train if name == "A" else test  # A: the training set
    if name == "B":  # B: the classifier is shown pictures in [0, 1]
        saved, reference = (saved + 1) / 2, (reference + 1) / 2
    return frechet_distance(features(saved), features(reference.double()))


_MIX = _normal(16, 6, seed=5)


def _features(x: Tensor) -> Tensor:
    return torch.tanh(x.double().flatten(1) @ _MIX)


_MISSED = {
    "A": "A compares with the training set; give it training pictures that are unlike the held-out ones",
    "B": "B shows the classifier pictures in [0, 1]; compute the distance yourself and compare",
    "D": f"D looks at the first {CAP} samples only; give it more, of which the later ones are different",
    "E": "E lets what lies outside of [-1, 1] wrap around: a little more than white is black; give it such pixels",
}


def _bug_hunt(attempt: Callable[..., object]) -> str | None:
    return hunt(
        lambda name: attempt(partial(run_protocol, name), _features),
        PROTOCOLS,
        HONEST,
        _MISSED,
        what="protocol",
        advice="Do what the protocol promises, step by step: clip, round to 256 levels, features, distance to the "
        "held-out pictures. Allow for the last digits.",
    )


frechet = Exercise(
    "14.1", _frechet, hint="(14.5); the root of a symmetric matrix comes from torch.linalg.eigh, and its trace from "
    "eigvalsh."
)  # fmt: skip
two_sizes = Exercise("14.2", _two_sizes, hint="two equations, d_n = d + c / n at both n; get rid of c. (14.12)")
mmd_squared = Exercise(
    "14.3", _mmd_squared, hint="sum of the matrix without its diagonal, over n (n - 1); the third mean keeps all pairs."
)
bits = Exercise(
    "14.4", _bits, hint="nats to bits, per number, then the unit: (14.21). At log p = 0 the answer is log2(127.5)."
)
memorised = Exercise(
    "14.5",
    _memorised,
    hint="(14.26) says what is normal; the package's memorisation(samples, train, held_out).z is in standard errors.",
    praise="it finds the copier in three worlds, and lets the honest go: the good one and the bad one",
)
bug_hunt = Exercise(
    "14.6",
    _bug_hunt,
    hint="the four bugs can be seen only with training pictures unlike the test's, more than a hundred samples, the "
    "later ones different, and pixels outside of [-1, 1].",
    praise="it accuses A, B, D and E, and lets the honest C go",
)
