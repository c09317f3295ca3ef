"""The measures of samples beside SciPy's, scikit-learn's and torchmetrics'.

Both of theirs take a network of features; ours take the features, so the network here is the identity.

- torchmetrics takes tr (C_a C_b)^(1/2) from the eigenvalues of a matrix that is not symmetric, SciPy from its Schur
  form, ours from a symmetric one. They part where a covariance has no full rank.
- torchmetrics sums raw second moments, and subtracts the mean's square afterwards: digits go where the mean is large.
- torchmetrics' KID is a mean over random subsets; ours is over all pairs, which is theirs with one subset of all.
"""

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from sklearn.metrics.pairwise import polynomial_kernel, rbf_kernel
from sklearn.neighbors import NearestNeighbors
from torch.testing import assert_close

from diffusion_edu import energy_distance, frechet_distance, kid, mmd, nearest, precision_recall
from tests.agreement.peers import noise, peer

fid = peer("torchmetrics.image.fid", "peers")
kid_module = peer("torchmetrics.image.kid", "peers")


class Identity(torch.nn.Identity):
    """A network of features that are what it is given."""

    num_features = 6


def sets(n=300, m=200, dims=6):
    mix = noise(dims, dims, seed=5)
    return noise(n, dims, seed=1) @ mix, 1.3 * noise(m, dims, seed=2) @ mix.T + 0.4


def by_scipy(a, b):
    """Heusel et al. 2017, eq. 6, as it stands there."""
    C_a, C_b = np.cov(a.numpy(), rowvar=False), np.cov(b.numpy(), rowvar=False)
    shift = (a.mean(0) - b.mean(0)).numpy()
    root = scipy.linalg.sqrtm(C_a @ C_b)
    return float(shift @ shift + np.trace(C_a + C_b - 2 * root.real))


def by_torchmetrics(a, b):
    metric = fid.FrechetInceptionDistance(feature=Identity()).set_dtype(torch.float64)
    for part in a.split(64):  # in batches, as one would
        metric.update(part, real=True)
    metric.update(b, real=False)
    return float(metric.compute())


@pytest.mark.parametrize("theirs", [by_scipy, by_torchmetrics])
def test_the_frechet_distance_is_theirs(theirs):
    a, b = sets()
    assert frechet_distance(a, b) == pytest.approx(theirs(a, b), rel=1e-11)
    assert frechet_distance(a, b) > 1


def test_the_formula_of_torchmetrics_takes_the_moments_of_ours():
    a, b = sets(dims=40)
    theirs = fid._compute_fid(a.mean(0), torch.cov(a.T), b.mean(0), torch.cov(b.T))
    assert frechet_distance(a, b) == pytest.approx(float(theirs), rel=1e-11)


def test_of_fewer_examples_than_features_only_a_symmetric_root_is_exact():
    """The covariance then has zeros among its eigenvalues, and theirs come out as roots of -1e-15 or 1e-15: 3e-8 each.

    All three agree to what that costs, and ours is 0 between a set and itself to a part of it.
    """
    a, b = sets(20, 25, dims=40)
    scale = float(torch.cov(a.T).trace() + torch.cov(b.T).trace())
    assert frechet_distance(a, b) == pytest.approx(by_scipy(a, b), rel=1e-6)
    moments = a.mean(0), torch.cov(a.T), b.mean(0), torch.cov(b.T)
    assert frechet_distance(a, b) == pytest.approx(float(fid._compute_fid(*moments)), rel=1e-6)
    assert frechet_distance(a, a) < 1e-6 * scale


def test_far_from_the_origin_ours_keeps_the_digits_that_raw_moments_lose():
    a, b = sets()
    exact, far = frechet_distance(a, b), 1e5
    assert frechet_distance(a + far, b + far) == pytest.approx(exact, rel=1e-8)
    assert by_torchmetrics(a + far, b + far) != pytest.approx(exact, rel=1e-8)


# KID and its relatives


def test_kid_is_theirs_of_one_subset_that_is_everything():
    a, b = sets(m=300)
    assert kid(a, b).value == pytest.approx(float(kid_module.poly_mmd(a, b)), rel=1e-12)
    with pytest.warns(UserWarning, match="will save all extracted features"):
        metric = kid_module.KernelInceptionDistance(feature=Identity(), subsets=2, subset_size=300)
    metric.update(a, real=True)
    metric.update(b, real=False)
    mean, std = metric.compute()
    assert kid(a, b).value == pytest.approx(float(mean), rel=1e-10)
    assert float(std) < 1e-9 * float(mean)  # the same subset twice, in two orders


def test_the_mean_over_their_subsets_is_ours_of_the_same_subsets_and_goes_to_ours_of_all():
    a, b = sets(m=300)
    with pytest.warns(UserWarning, match="will save all extracted features"):
        metric = kid_module.KernelInceptionDistance(feature=Identity(), subsets=40, subset_size=100)
    metric.update(a, real=True)
    metric.update(b, real=False)
    torch.manual_seed(5)
    mean, std = metric.compute()
    torch.manual_seed(5)
    mine = []
    for _ in range(40):
        rows = torch.randperm(300)[:100]
        mine.append(kid(a[rows], b[torch.randperm(300)[:100]]).value)
    assert float(np.mean(mine)) == pytest.approx(float(mean), rel=1e-12)
    assert float(np.std(mine)) == pytest.approx(float(std), rel=1e-10)
    assert abs(float(mean) - kid(a, b).value) < 4 * float(std) / math.sqrt(40)


def without_diagonal(table):
    n = len(table)
    return (table.sum() - np.trace(table)) / (n * (n - 1))


def test_kid_and_mmd_are_those_of_scikit_learns_kernels():
    a, b = sets()
    for value, kernel in (
        (kid(a, b).value, lambda x, y: polynomial_kernel(x, y, degree=3, gamma=1 / 6, coef0=1)),
        (mmd(a, b, [2.5]).value, lambda x, y: rbf_kernel(x, y, gamma=1 / (2 * 2.5**2))),
    ):
        theirs = without_diagonal(kernel(a, a)) + without_diagonal(kernel(b, b)) - 2 * kernel(a, b).mean()
        assert value == pytest.approx(theirs, rel=1e-11)


def test_energy_distance_on_a_line_is_the_square_of_scipys_up_to_the_bias():
    """SciPy's is the root, and takes pairs of an example with itself too, which are at distance 0."""
    a, b = (x[:, :1] for x in sets())
    self_pairs = sum(float(torch.cdist(x, x).sum()) * (1 / len(x) ** 2 - 1 / (len(x) * (len(x) - 1))) for x in (a, b))
    theirs = scipy.stats.energy_distance(a[:, 0], b[:, 0]) ** 2
    assert energy_distance(a, b).value - self_pairs == pytest.approx(theirs, rel=1e-9)


# neighbours


@pytest.mark.parametrize("k", [1, 3, 7])
def test_precision_and_recall_are_counted_by_scikit_learns_neighbours(k):
    real, fake = sets(150, 120)

    def covered(x, by):
        reach = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(by).kneighbors()[0][:, -1]  # itself left out
        distance, near = NearestNeighbors(n_neighbors=len(by), algorithm="brute").fit(by).kneighbors(x)
        return (distance <= reach[near]).any(1).mean()

    ours = precision_recall(real, fake, k)
    assert ours.precision == pytest.approx(covered(fake, real)) and ours.recall == pytest.approx(covered(real, fake))
    assert 0 < ours.precision < 1 and 0 < ours.recall < 1


def test_nearest_is_scikit_learns():
    x, references = sets()
    distances, indices = NearestNeighbors(n_neighbors=4, algorithm="kd_tree").fit(references).kneighbors(x)
    ours = nearest(x, references, 4)
    assert torch.equal(ours.indices, torch.from_numpy(indices))
    assert_close(ours.distances, torch.from_numpy(distances), rtol=1e-12, atol=0)
