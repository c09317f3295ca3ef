r"""How good are the samples? Distances between sets of features, in float64.

Notebook: ``14_evaluation`` says what each sees and misses.

    d^2(a, b) = |mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))

is the Fréchet distance between the Gaussians with the two sets' means and covariances (Heusel et al. 2017, eq. 6).
With Inception's features it is called the FID. Ours are the 64 features of a small classifier of the same data, so
its numbers compare only with numbers made by the same classifier at the same n. On average it is too large, by an
amount of order 1/n, and chance moves it as well: ``frechet_estimate`` says how far.

    D_k(P, Q) = E k(x, x') + E k(y, y') - 2 E k(x, y),   x, x' ~ P and y, y' ~ Q, all independent

is unbiased when the three means are taken over pairs of different examples, so it may come out below 0. The
kernel k says what it sees: (x.y / D + 1)^3 gives the ``kid``, a Gaussian the ``mmd`` (squared), and -|x - y| the
``energy_distance``. One formula serves all three, and one standard error: the jackknife's.

``precision_recall`` says whether samples look real and whether all that is real is sampled; ``nearest`` and
``memorisation`` say whether they are copies. A distance is always shown beside that of real data to real data:
``with_floor``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .door import check_counts, check_generator, check_tensors, is_real, said
from .networks import Classifier
from .storage import each_its_own, shipped_card, with_shipped_weights

__all__ = [
    "Distance",
    "Estimate",
    "Memorisation",
    "Neighbours",
    "PrecisionRecall",
    "agreement",
    "digit_classifier",
    "digit_classifier_card",
    "energy_distance",
    "fashion_classifier",
    "fashion_classifier_card",
    "frechet_distance",
    "frechet_estimate",
    "kid",
    "median_distance",
    "memorisation",
    "mmd",
    "nearest",
    "precision_recall",
    "predict",
    "with_floor",
]

CHUNK = 2**22  # numbers in the largest table held at once: 32 MiB in float64
EXACT = "donot_use_mm_for_euclid_dist"  # |x - y| by differences, so that equal points are at distance 0


class Estimate(NamedTuple):
    """A number and how far chance may have moved it.

    Args:
        value: the estimate, one number.
        standard_error: the standard deviation of ``value`` over draws of both sets, estimated; >= 0.
    """

    value: float
    standard_error: float


class PrecisionRecall(NamedTuple):
    """Shares in [0, 1].

    Args:
        precision: of the samples, those that lie where real data lie.
        recall: of the real data, those that lie where samples lie.
    """

    precision: float
    recall: float


class Neighbours(NamedTuple):
    """The nearest references of N examples, the nearest first.

    Args:
        indices: (N, k) int64, into the references.
        distances: (N, k) float64, Euclidean, >= 0.
    """

    indices: Tensor
    distances: Tensor


class Memorisation(NamedTuple):
    """How often a sample's nearest example is one that was trained on.

    Args:
        share: of the samples, in [0, 1].
        expected: what the share is on average if nothing was memorised: the training examples' part of all examples.
        standard_error: the standard deviation of the share if nothing was memorised.
    """

    share: float
    expected: float
    standard_error: float

    @property
    def z(self) -> float:
        """Standard errors above what was expected; above 3 is hardly chance. NaN if chance could change nothing."""
        return (self.share - self.expected) / self.standard_error if self.standard_error > 0 else math.nan


@dataclass(frozen=True)
class Distance:
    """A distance of samples to real data, beside that of real data to real data at the same n.

    Args:
        value: of n samples to n real examples.
        floor: of n other real examples to the same n: what perfect samples would get, up to chance.
        n: examples in each set, without which neither number says anything.
    """

    value: float
    floor: float
    n: int

    def __str__(self) -> str:
        """Both numbers and n, in words."""
        return f"{self.value:.4g} (real to real {self.floor:.4g}, n = {self.n})"


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Squared Fréchet distance between two sets of features (Heusel et al. 2017, eq. 6).

    It falls with n towards its limit (an error of order 1/n), so compare at equal n only.

    Args:
        a, b: (N, D) and (M, D), N and M at least 2, finite.

    Returns:
        the squared distance, >= 0, in squared units of the features.

    Raises:
        ValueError: if the shapes do not fit, or an entry is not finite.
    """
    _check_sets("frechet_distance", a, b, least=2)
    a, b = _finite("frechet_distance", a, b)
    shift, C_a, C_b = a.mean(0) - b.mean(0), _covariance(a), _covariance(b)
    # tr (C_a C_b)^(1/2) = tr (R C_b R)^(1/2) with R = C_a^(1/2): symmetric, so that its roots are real.
    R = _root(C_a)
    cross = torch.linalg.eigvalsh(R @ C_b @ R).clamp(min=0).sqrt().sum()
    return max(0.0, float(shift @ shift + C_a.trace() + C_b.trace() - 2 * cross))


def frechet_estimate(a: Tensor, b: Tensor) -> Estimate:
    """The ``frechet_distance``, and how far chance may have moved it.

    Weight each example of the set a by 1/N, and one of them, x, by a little more: the distance then moves by

        iota(x) = 2 (mu_a - mu_b).(x - mu_a) + (x - mu_a)^T (1 - T) (x - mu_a),   less its mean over a,

    times that little. T is the linear map that carries the Gaussian of a onto that of b, and 1 - T is the gradient of
    the distance with respect to C_a (Bhatia, Jain and Lim 2019). The variance of the distance is the variance of iota
    divided by N, plus the same for b over M: the infinitesimal jackknife (Jaeckel 1972).

    Args:
        a, b: (N, D) and (M, D), finite, N and M above D. With fewer, only directions that the examples span are seen.

    Returns:
        the squared distance, in squared units of the features, and its standard error. Like ``kid``'s, the latter is
        too large where both sets come from one distribution. It says nothing of the bias of order 1/n, which is not
        due to chance.

    Raises:
        ValueError: if the shapes do not fit, or an entry is not finite.
    """
    _check_sets("frechet_estimate", a, b, least=2)
    a, b = _finite("frechet_estimate", a, b)
    value = frechet_distance(a, b)
    variance = sum(_influence(*pair).var(correction=0) / len(pair[0]) for pair in ((a, b), (b, a)))
    return Estimate(value, math.sqrt(variance))


def kid(a: Tensor, b: Tensor) -> Estimate:
    """Kernel distance with k(x, y) = (x.y / D + 1)^3, without bias (Bińkowski et al. 2018, section 4 and eq. 4).

    It compares means, covariances and third moments. With Inception's features it is called the KID. The value is taken
    over all pairs rather than averaged over subsets, which leaves it without bias and with the least variance.

    Args:
        a, b: (N, D) and (M, D), N and M at least 3, finite; 10^4 each take seconds, and memory stays bounded.

    Returns:
        the distance, which may be below 0 where the truth is near 0, and its standard error by the jackknife: delete
        one example at a time from either set (Efron and Stein 1981, who show that on average it is too large:
        by a factor of about sqrt(2) where both sets come from one distribution, by little where they lie far apart).

    Raises:
        ValueError: if the shapes do not fit, or an entry is not finite.
    """
    return _kernel_distance("kid", lambda x, y: (x @ y.T / x.shape[1] + 1) ** 3, a, b)


def mmd(a: Tensor, b: Tensor, widths: Sequence[float] | None = None) -> Estimate:
    """Squared maximum mean discrepancy with Gaussian kernels, without bias (Gretton et al. 2012, eq. 3).

        k(x, y) = mean over w of exp(-|x - y|^2 / (2 w^2))

    It is 0 only for equal distributions, but notices best what differs at the scale of a width.

    Args:
        a, b: (N, D) and (M, D), N and M at least 3, finite.
        widths: w, in units of the features, each > 0; None takes ``median_distance(a, b)``. Numbers compare only at
            equal widths, so fix them by the real data.

    Returns:
        the squared distance, in [-1, 2], below 0 where the truth is near 0; and its standard error, as ``kid``'s.

    Raises:
        ValueError: if the shapes do not fit, an entry is not finite, or a width is not above 0.
    """
    _check_sets("mmd", a, b)
    if widths is not None and not isinstance(widths, Sequence):
        raise ValueError(f"mmd got widths={widths!r}; give at least one, each a number above 0: [{widths}].")
    w = [median_distance(a, b)] if widths is None else list(widths)
    if not w or not is_real(*w) or not all(0 < width < math.inf for width in w):
        raise ValueError(f"mmd got widths={w}; give at least one, each a number above 0.")
    w = [float(width) for width in w]  # PyTorch divides by no fraction

    def k(x: Tensor, y: Tensor) -> Tensor:
        d_squared = torch.cdist(x, y, compute_mode=EXACT).square_()
        return sum((torch.exp(d_squared / (-2 * width * width)) for width in w), torch.zeros_like(d_squared)) / len(w)

    return _kernel_distance("mmd", k, a, b)


def energy_distance(a: Tensor, b: Tensor) -> Estimate:
    """2 E|x - y| - E|x - x'| - E|y - y'|, without bias (Székely and Rizzo 2013): the kernel is -|x - y|.

    It is 0 only for equal distributions, and has no width to choose.

    Args:
        a, b: (N, D) and (M, D), N and M at least 3, finite.

    Returns:
        the distance in units of the features, which may be below 0 where the truth is near 0, and its standard error,
        as ``kid``'s.

    Raises:
        ValueError: if the shapes do not fit, or an entry is not finite.
    """
    return _kernel_distance("energy_distance", lambda x, y: -torch.cdist(x, y, compute_mode=EXACT), a, b)


def median_distance(a: Tensor, b: Tensor, most: int = 1000) -> float:
    """The median distance between two different examples of both sets together: a usual width for ``mmd``.

    Args:
        a, b: (N, D) and (M, D), finite, together at least 2 examples.
        most: examples used of each set, its first ones.

    Raises:
        ValueError: if the shapes do not fit, an entry is not finite, or the median is 0.
    """
    _check_sets("median_distance", a, b, least=1)
    check_counts("median_distance", most=most)
    x = torch.cat(_finite("median_distance", a[:most], b[:most]))
    i, j = torch.triu_indices(len(x), len(x), offset=1)
    median = float(torch.cdist(x, x, compute_mode=EXACT)[i, j].median())
    if median == 0:
        raise ValueError("median_distance got sets of which most examples are equal; give the width yourself.")
    return median


def _check_numbers(name: str, a: Tensor, b: Tensor) -> None:
    if not isinstance(a, Tensor) or not isinstance(b, Tensor) or a.is_meta or b.is_meta:
        raise TypeError(f"{name} got {said(a)} and {said(b)}; give two tensors of features, not on meta.")


def _check_sets(name: str, a: Tensor, b: Tensor, least: int = 3) -> None:
    _check_numbers(name, a, b)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < least or a.shape[1] == 0:
        raise ValueError(
            f"{name} got sets of shape {tuple(a.shape)} and {tuple(b.shape)}; give (N, D) and (M, D), at least "
            f"{least} examples each."
        )


def _finite(name: str, *sets: Tensor) -> tuple[Tensor, ...]:
    """The sets in float64 on the CPU."""
    ready = tuple(x.detach().cpu().double() for x in sets)
    if not all(bool(torch.isfinite(x).all()) for x in ready):
        raise ValueError(f"{name} got features that are NaN or infinite; look at the samples first.")
    return ready


def _covariance(x: Tensor) -> Tensor:
    """(D, D) of a set (N, D), also where D is 1."""
    return torch.cov(x.T).reshape(x.shape[1], -1)


def _root(C: Tensor) -> Tensor:
    """The square root of a symmetric matrix (D, D) whose eigenvalues are not negative, up to rounding."""
    values, vectors = torch.linalg.eigh(C)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


def _influence(a: Tensor, b: Tensor) -> Tensor:
    """iota (N,) of ``frechet_estimate`` for each example of a, up to a constant."""
    R = _root(_covariance(a))
    # the root turns a rounding error of size eps into sqrt(eps), so eigenvalues below that count as 0
    inverse = torch.linalg.pinv(R, rtol=math.sqrt(len(R) * torch.finfo(R.dtype).eps), hermitian=True)
    T = inverse @ _root(R @ _covariance(b) @ R) @ inverse
    x = a - a.mean(0)
    return 2 * x @ (a.mean(0) - b.mean(0)) + (x * (x - x @ T)).sum(1)


def _chunks(rows: int, columns: int) -> Iterator[slice]:
    """Cut a table into bands of rows of at most CHUNK numbers, or of one row."""
    step = max(1, CHUNK // max(1, columns))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def _kernel_distance(name: str, k: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Estimate:
    """D_k of two sets (N, D) and (M, D), with its jackknife standard error, from the kernel's row sums."""
    _check_sets(name, a, b)
    x, y = _finite(name, a, b)
    N, M = len(x), len(y)

    def within(x: Tensor) -> Tensor:  # (N,): sum of k(x_i, x_j) over j != i
        sums = torch.empty(len(x), dtype=torch.float64)
        for rows in _chunks(len(x), len(x)):
            table = k(x[rows], x)
            table.diagonal(rows.start).zero_()
            sums[rows] = table.sum(1)
        return sums

    xx, yy = within(x), within(y)
    xy, yx = torch.empty(N, dtype=torch.float64), torch.zeros(M, dtype=torch.float64)
    for rows in _chunks(N, M):
        table = k(x[rows], y)
        xy[rows] = table.sum(1)
        yx += table.sum(0)
    S_x, S_y, S_xy = xx.sum(), yy.sum(), xy.sum()
    value = S_x / (N * (N - 1)) + S_y / (M * (M - 1)) - 2 * S_xy / (N * M)
    # The value without x_i, and without y_j: a row and a column leave the sum, and each n falls by one.
    without_x = (S_x - 2 * xx) / ((N - 1) * (N - 2)) - 2 * (S_xy - xy) / ((N - 1) * M)
    without_y = (S_y - 2 * yy) / ((M - 1) * (M - 2)) - 2 * (S_xy - yx) / (N * (M - 1))
    variance = sum((len(v) - 1) * v.var(correction=0) for v in (without_x, without_y))
    return Estimate(float(value), math.sqrt(variance))


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> PrecisionRecall:
    """Improved precision and recall (Kynkäänniemi et al. 2019, eq. 1 and 2).

    A set's region is the union of the balls about its examples that reach to their k-th nearest neighbour in the set.
    Precision is the share of fakes in the real region, recall the share of real examples in the fakes' region. One
    real outlier has a large ball, and what is real but rare counts little: look at both beside ``with_floor``.

    Args:
        real: (N, D), N > k, finite.
        fake: (M, D), M > k, finite; take M = N, since regions grow with their number.
        k: neighbours, >= 1.

    Raises:
        ValueError: if the shapes do not fit, k is below 1, or an entry is not finite.
    """
    check_counts("precision_recall", k=k)
    _check_sets("precision_recall", real, fake, least=k + 1)
    x, y = _finite("precision_recall", real, fake)

    def radii(x: Tensor) -> Tensor:  # (N,): distance to the k-th nearest other example
        reach = torch.empty(len(x), dtype=torch.float64)
        for rows in _chunks(len(x), len(x)):
            d = torch.cdist(x[rows], x, compute_mode=EXACT)
            d.diagonal(rows.start).fill_(math.inf)
            reach[rows] = d.kthvalue(k, dim=1).values
        return reach

    reach_x, reach_y = radii(x), radii(y)
    x_covered, y_covered = torch.zeros(len(x), dtype=torch.bool), torch.zeros(len(y), dtype=torch.bool)
    for rows in _chunks(len(x), len(y)):
        d = torch.cdist(x[rows], y, compute_mode=EXACT)
        x_covered[rows] = (d <= reach_y).any(1)
        y_covered |= (d <= reach_x[rows, None]).any(0)
    return PrecisionRecall(float(y_covered.double().mean()), float(x_covered.double().mean()))


def nearest(x: Tensor, references: Tensor, k: int = 1) -> Neighbours:
    """The k nearest references of each example, in Euclidean distance.

    The search multiplies matrices, at most 2^22 numbers at a time, so that 60,000 references are no trouble; the
    distances of those found are then computed from differences, so that a copy is at distance 0 exactly.

    Args:
        x: (N, ...) floats, or uint8 as the references are, N >= 1.
        references: (M, ...) of the same kind, M >= k.
        k: neighbours, >= 1.

    Returns:
        indices and distances, each (N, k). References at equal distance are in no particular order.

    Raises:
        ValueError: if the shapes or types do not fit, k is not in 1 ... M, or an entry is not finite.
        TypeError: if one is no tensor, or on meta.
    """
    check_counts("nearest", k=k)
    _check_numbers("nearest", x, references)
    if x.ndim < 2 or x.shape[1:] != references.shape[1:] or x[:1].numel() == 0 or not 1 <= k <= len(references):
        raise ValueError(
            f"nearest got examples of shape {tuple(x.shape)}, references of shape {tuple(references.shape)} and k={k}; "
            "give (N, ...) and (M, ...), and k from 1 to M."
        )
    if x.dtype != references.dtype and not (x.is_floating_point() and references.is_floating_point()):
        raise ValueError(
            f"nearest got examples of type {x.dtype} and references of type {references.dtype}; give both as floats or "
            "both as uint8, in the same range."
        )
    x, references = x.detach().cpu().flatten(1), references.detach().cpu().flatten(1)
    indices = torch.empty(len(x), k, dtype=torch.long)
    distances = torch.empty(len(x), k, dtype=torch.float64)
    columns, kept = min(len(references), 4096), min(len(references), k + 8)  # rounding may swap some that are close
    for rows in _chunks(len(x), max(columns, x.shape[1])):
        (here,) = _finite("nearest", x[rows])
        best_d, best = torch.empty(len(here), 0, dtype=torch.float64), torch.empty(len(here), 0, dtype=torch.long)
        for part in _chunks(len(references), max(1024, x.shape[1])):
            (there,) = _finite("nearest", references[part])
            shift = there.mean(0)  # |p - q|^2 = |p|^2 + |q|^2 - 2 p.q loses fewest digits near the origin
            p, q = here - shift, there - shift
            d_squared = p.square().sum(1, keepdim=True) + q.square().sum(1) - 2 * p @ q.T
            new_d, new = d_squared.topk(min(kept, len(q)), largest=False)
            best_d, best = torch.cat([best_d, new_d], 1), torch.cat([best, new + part.start], 1)
            best_d, order = best_d.topk(min(kept, best_d.shape[1]), largest=False)
            best = best.gather(1, order)
        exact = torch.stack([(here - references[best[:, j]].double()).norm(dim=1) for j in range(kept)], 1)
        in_order, order = exact.sort(dim=1, stable=True)
        distances[rows], indices[rows] = in_order[:, :k], best.gather(1, order[:, :k])
    return Neighbours(indices, distances)


def memorisation(samples: Tensor, train: Tensor, test: Tensor) -> Memorisation:
    """Are samples nearer to what was trained on than to what was held out?

    Is the nearest of all examples to a sample, training and held-out, a training one? If nothing was memorised, the
    two kinds of example are exchangeable given the samples, however good or bad those are. The expected share is then
    exactly N_train / (N_train + N_test), 1/2 for sets of equal size; copies give 1. Training sets are compared with
    held-out data in this spirit by the three-sample test of Meehan, Chaudhuri and Dasgupta (2020) and, by likelihood,
    by van den Burg and Williams (2021).

    The standard error is that of dealing the examples anew into two such sets, with the samples kept. Samples that
    share a nearest example count as one voice, so samples that are all alike do not look certain. A sample that is
    equally near to both sets counts as ``expected``.

    Held-out data must come from the same distribution: of MNIST, deal out the training set yourself, since its test
    set has other writers.

    Args:
        samples: (N, ...) pictures or features, N >= 1.
        train: (N_train, ...), of the same shape and range.
        test: (N_test, ...), never trained on.

    Raises:
        ValueError: if the shapes or types do not fit, a set is empty, or an entry is not finite.
    """
    if min(len(samples), len(train), len(test)) == 0:
        raise ValueError(
            f"memorisation got {len(samples)} samples, {len(train)} training and {len(test)} held-out examples; it "
            "needs some of each."
        )
    in_train, in_test = nearest(samples, train), nearest(samples, test)
    N, n = len(samples), len(train) + len(test)
    p = len(train) / n
    nearer = (in_test.distances - in_train.distances).sign()[:, 0]  # 1 where the nearest is a training example
    share = float((nearer == 1).sum() + p * (nearer == 0).sum()) / N
    # The share is sum_u w_u [u is a training example] over examples u, with w_u the samples nearest to u, over N.
    winner = torch.where(nearer > 0, in_train.indices[:, 0], len(train) + in_test.indices[:, 0])[nearer != 0]
    w = torch.bincount(winner, minlength=n).double() / N
    variance = p * (1 - p) * float(n * w.square().sum() - w.sum().square()) / (n - 1)  # drawn without replacement
    return Memorisation(share, p, math.sqrt(max(0.0, variance)))


def with_floor(
    distance: Callable[[Tensor, Tensor], float | Estimate],
    samples: Tensor,
    real: Tensor,
    n: int | None = None,
    generator: torch.Generator | None = None,
) -> Distance:
    """A distance beside its floor: n samples, and n other real examples, each to the same n real examples.

        report = with_floor(frechet_distance, samples, real)
        print(report)     # 12.3 (real to real 0.9, n = 1000)

    Args:
        distance: such as ``frechet_distance``, ``kid`` or ``energy_distance``; an ``Estimate`` counts by its value.
        samples: (N, ...) features, the first n of which are used.
        real: (M, ...) features, from which two sets of n are drawn that have no example in common.
        n: examples in each set; None takes min(N, M // 2).
        generator: deals out the real data.

    Raises:
        ValueError: if n is below 1, above N, or above M / 2.
    """
    check_generator("with_floor", generator)
    n = min(len(samples), len(real) // 2) if n is None else n
    check_counts("with_floor", 0, n=n)
    if not 1 <= n <= min(len(samples), len(real) // 2):
        raise ValueError(
            f"with_floor got {len(samples)} samples, {len(real)} real examples and n={n}; it needs n samples and 2 n "
            "real examples, n >= 1."
        )
    order = torch.randperm(len(real), generator=generator, device=None if generator is None else generator.device)
    order = order.to(real.device)
    reference, other = real[order[:n]], real[order[n : 2 * n]]
    value, floor = distance(samples[:n], reference), distance(other, reference)
    return Distance(
        value.value if isinstance(value, Estimate) else float(value),
        floor.value if isinstance(floor, Estimate) else float(floor),
        n,
    )


@each_its_own
def digit_classifier() -> Classifier:
    """The shipped classifier of 28x28 digits, in eval mode; made by ``scripts/train_classifier.py``.

    Trained on the 4000 training digits of ``mnist_5k``; its accuracy on the 1000 test digits is in
    ``digit_classifier_card``.
    """
    return with_shipped_weights(Classifier(), "digit_classifier")


@each_its_own
def fashion_classifier() -> Classifier:
    """The shipped classifier of 28x28 pictures of clothes, in eval mode; made by ``scripts/train_classifier.py``.

    Trained on the 60,000 training pictures of ``fashion_mnist``; its accuracy on the 10,000 test pictures is in
    ``fashion_classifier_card``.
    """
    return with_shipped_weights(Classifier(), "fashion_classifier")


def digit_classifier_card() -> dict[str, Any]:
    """How the shipped classifier was made and how good it is: split, recipe, seconds, test accuracy."""
    return shipped_card("digit_classifier")


def fashion_classifier_card() -> dict[str, Any]:
    """How the shipped classifier of clothes was made and how good it is, as in ``digit_classifier_card``."""
    return shipped_card("fashion_classifier")


@torch.no_grad()
def predict(classifier: Classifier, x: Tensor, batch: int = 500) -> tuple[Tensor, Tensor]:
    """Features and predicted labels of many pictures.

    Args:
        classifier: in eval mode.
        x: (N, C, H, W) in [-1, 1].
        batch: pictures at a time.

    Returns:
        features (N, F) and labels (N,), on the CPU.

    Raises:
        ValueError: if the classifier is in training mode, a value in x is not finite, the shape is not that of the
            classifier's pictures, or ``batch`` is below 1.
        TypeError: if x is not of floats.
    """
    check_counts("predict", batch=batch)
    check_tensors("predict", "pictures as a tensor, (N, C, H, W)", x=x)
    if classifier.training:
        raise ValueError("predict got a classifier in training mode; call classifier.eval() first.")
    if x.is_floating_point() and not x.is_meta and not bool(torch.isfinite(x).all()):
        raise ValueError("predict got pictures with NaN or infinite numbers; look at the samples first.")
    features = [classifier.features(part) for part in x.split(batch)]
    labels = [classifier.head(part).argmax(1) for part in features]
    return torch.cat(features).cpu(), torch.cat(labels).cpu()


def agreement(predicted: Tensor, asked: Tensor) -> float:
    """The share of samples that the classifier puts in the class that was asked for.

    Two (N,) label tensors to a number in [0, 1].

    Raises:
        ValueError: if the shapes differ, or there are no samples.
    """
    check_tensors("agreement", "a tensor of labels, (N,)", predicted=predicted, asked=asked)
    if predicted.shape != asked.shape or predicted.ndim != 1 or len(predicted) == 0:
        raise ValueError(
            f"agreement got {tuple(predicted.shape)} predictions and {tuple(asked.shape)} labels; give one each, at "
            "least one."
        )
    return float((predicted.cpu() == asked.cpu()).double().mean())
