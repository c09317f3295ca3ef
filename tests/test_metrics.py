"""Each measure on a case with a known answer; the shipped classifier is as good as its card says."""

import itertools
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from scipy.stats import norm
from sklearn.neighbors import NearestNeighbors
from torch.testing import assert_close

from diffusion_edu import (
    agreement,
    digit_classifier,
    digit_classifier_card,
    fashion_classifier,
    fashion_classifier_card,
    fashion_mnist,
    frechet_distance,
    frechet_estimate,
    mnist_5k,
    noisy_digit_classifier,
    noisy_fashion_classifier,
    predict,
)
from diffusion_edu import metrics as metrics_module
from diffusion_edu.metrics import (
    Distance,
    energy_distance,
    kid,
    median_distance,
    memorisation,
    mmd,
    nearest,
    precision_recall,
    with_floor,
)
from diffusion_edu.storage import each_its_own


def with_moments(n, mean, covariance, generator):
    """n points whose sample mean and covariance are exactly these."""
    x = torch.randn(n, len(mean), dtype=torch.float64, generator=generator)
    x = x - x.mean(0)
    x = torch.linalg.solve_triangular(torch.linalg.cholesky(torch.cov(x.T)), x.T, upper=False).T
    return x @ torch.linalg.cholesky(covariance).T + mean


def test_the_distance_of_two_gaussians_is_the_closed_form(generator):
    A, B = torch.randn(2, 5, 5, dtype=torch.float64, generator=generator)
    C_a, C_b = A @ A.T + torch.eye(5), B @ B.T + 0.1 * torch.eye(5)
    mu_a, mu_b = torch.randn(2, 5, dtype=torch.float64, generator=generator)
    a, b = with_moments(50, mu_a, C_a, generator), with_moments(80, mu_b, C_b, generator)
    root = scipy.linalg.sqrtm((C_a @ C_b).numpy()).real
    expected = float((mu_a - mu_b) @ (mu_a - mu_b)) + float(np.trace((C_a + C_b).numpy() - 2 * root))
    assert_close(frechet_distance(a, b), expected, rtol=1e-8, atol=1e-8)


def test_the_distance_is_0_to_itself_symmetric_and_blind_to_a_common_shift(generator):
    a, b = torch.randn(2, 100, 3, generator=generator)
    assert frechet_distance(a, a) < 1e-10
    assert_close(frechet_distance(a, b), frechet_distance(b, a))
    assert_close(frechet_distance(a + 5, b + 5), frechet_distance(a, b), rtol=1e-4, atol=1e-5)


def test_the_distance_of_features_on_a_line_does_not_fail():
    a = torch.arange(10.0)[:, None] * torch.ones(1, 3)
    assert_close(frechet_distance(a, a + torch.tensor([1.0, 0, 0])), 1.0, atol=1e-5, rtol=0)


def test_the_standard_error_of_the_distance_is_the_jackknifes(generator):
    a = torch.randn(300, 3, dtype=torch.float64, generator=generator) * torch.tensor([1.0, 2.0, 0.5]) + 0.3
    b = torch.randn(200, 3, dtype=torch.float64, generator=generator) @ torch.randn(3, 3, generator=generator).double()
    without_a = torch.tensor([frechet_distance(a[torch.arange(300) != i], b) for i in range(300)])
    without_b = torch.tensor([frechet_distance(a, b[torch.arange(200) != i]) for i in range(200)])
    jackknife = sum((len(v) - 1) * v.double().var(correction=0) for v in (without_a, without_b)).sqrt()
    value, error = frechet_estimate(a, b)
    assert value == frechet_distance(a, b)
    assert error == pytest.approx(float(jackknife), rel=0.02)


def test_the_standard_error_is_the_spread_of_the_distance_over_draws(generator):
    def drawn():
        a, b = torch.randn(2, 400, 4, dtype=torch.float64, generator=generator)
        return frechet_estimate(a * torch.tensor([1.0, 1.5, 2.0, 0.5]) + 0.2, b)

    values, errors = torch.tensor([drawn() for _ in range(400)]).T
    assert float(errors.mean() / values.std()) == pytest.approx(1, abs=0.14)  # four standard errors of a spread of 400


def test_the_standard_error_moves_with_the_unit_and_is_the_same_from_both_sides(generator):
    a, b = torch.randn(2, 100, 3, dtype=torch.float64, generator=generator)
    b = b * 2 + 1
    error = frechet_estimate(a, b).standard_error
    assert frechet_estimate(b, a).standard_error == pytest.approx(error)
    assert frechet_estimate(10 * a, 10 * b).standard_error == pytest.approx(100 * error)
    assert frechet_estimate(a, a).standard_error < 1e-6
    line = torch.arange(10.0)[:, None] * torch.ones(1, 3)  # no spread in two of three directions
    assert frechet_estimate(line, line + torch.tensor([1.0, 0, 0])).standard_error == pytest.approx(
        2 * (line @ torch.tensor([1.0, 0, 0])).std(correction=0).item() * (2 / 10) ** 0.5, rel=1e-6
    )


@pytest.mark.parametrize("a, b", [((5, 3), (5, 2)), ((1, 3), (5, 3)), ((5,), (5,))])
def test_sets_that_do_not_fit_get_a_sentence(a, b):
    with pytest.raises(ValueError, match="frechet_distance got"):
        frechet_distance(torch.zeros(a), torch.zeros(b))


def test_features_that_are_not_numbers_get_a_sentence():
    with pytest.raises(ValueError, match="NaN"):
        frechet_distance(torch.full((5, 2), float("nan")), torch.zeros(5, 2))


def test_the_classifier_has_the_accuracy_of_its_card_on_digits_it_never_saw():
    test, card = mnist_5k("test"), digit_classifier_card()
    features, labels = predict(digit_classifier(), test.x_0)
    assert features.shape == (1000, 64)
    # three of a thousand may fall on the other side on a machine that rounds differently
    assert abs(agreement(labels, test.labels) - card["test_accuracy"]) <= 0.003
    assert card["test_accuracy"] > 0.98


@pytest.mark.skipif(
    not Path("/usr/share/datasets/fashion-mnist").is_dir(), reason="Debian's dataset-fashion-mnist is not installed"
)
def test_the_classifier_of_clothes_has_the_accuracy_of_its_card_and_sees_what_faces_the_wrong_way():
    test, card = fashion_mnist("test"), fashion_classifier_card()
    features, labels = predict(fashion_classifier(), test.x_0)
    assert features.shape == (10_000, 64)
    assert abs(agreement(labels, test.labels) - card["test_accuracy"]) <= 0.002
    assert card["test_accuracy"] > 0.9
    half, others = features[:2000], features[2000:4000]
    flipped = predict(fashion_classifier(), test.x_0[2000:4000].flip(3))[0]
    assert frechet_distance(flipped, half) > 5 * frechet_distance(others, half)


def test_the_distance_sees_noise_and_real_data_is_close_to_real_data():
    test, train = mnist_5k("test"), mnist_5k("train")
    classifier = digit_classifier()
    real, others = predict(classifier, test.x_0)[0], predict(classifier, train.x_0[:1000])[0]
    noisy = predict(
        classifier, test.x_0 + 0.8 * torch.randn(test.x_0.shape, generator=torch.Generator().manual_seed(0))
    )[0]
    assert frechet_distance(noisy, real) > 2 * frechet_distance(others, real)


def test_agreement_counts():
    assert agreement(torch.tensor([1, 2, 3, 4]), torch.tensor([1, 2, 3, 0])) == 0.75
    with pytest.raises(ValueError, match="one each"):
        agreement(torch.tensor([1]), torch.tensor([1, 2]))


# Kernel distances. A value may miss its expectation by 5.5 standard errors: a chance of 4e-8 for a normal error.


def gaussian(n, mean, std, generator):
    """n draws from N(mean, diag(std^2))."""
    mean, std = torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)
    return mean + std * torch.randn(n, len(mean), dtype=torch.float64, generator=generator)


def assert_within_errors(estimate, expected):
    assert abs(estimate.value - expected) < 5.5 * estimate.standard_error
    assert 10 * estimate.standard_error < abs(expected), "too noisy a case to prove anything"


def test_kid_of_two_gaussians_is_what_their_first_three_moments_say(generator):
    parts = [([0.5, -1.0, 0.0], [1.0, 0.5, 2.0]), ([-0.5, 0.0, 1.0], [1.5, 1.0, 0.7])]

    def moments(mean, std):
        mu, C = torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64).square().diag()
        mixed = [torch.einsum(f"{pair},{one}->ijk", C, mu) for pair, one in (("ij", "k"), ("ik", "j"), ("jk", "i"))]
        return mu, C + torch.outer(mu, mu), torch.einsum("i,j,k->ijk", mu, mu, mu) + sum(mixed)

    def mean_kernel(p, q):  # E (x.y / 3 + 1)^3, x from p and y from q, by the binomial theorem
        first, second, third = (float((a * b).sum()) for a, b in zip(moments(*p), moments(*q), strict=True))
        return third / 27 + 3 * second / 9 + 3 * first / 3 + 1

    p, q = parts
    expected = mean_kernel(p, p) + mean_kernel(q, q) - 2 * mean_kernel(p, q)
    assert_within_errors(kid(gaussian(3000, *p, generator), gaussian(2500, *q, generator)), expected)


@pytest.mark.parametrize("widths", [[1.0], [0.5, 2.0]])
def test_mmd_of_two_gaussians_is_the_closed_form(widths, generator):
    D, shift, s_a, s_b = 2, 1.2, 1.0, 0.6

    def mean_kernel(variance, distance, w):  # E exp(-|z|^2 / (2 w^2)), z from N(distance, variance) in D dimensions
        return (w**2 / (w**2 + variance)) ** (D / 2) * math.exp(-(distance**2) / (2 * (w**2 + variance)))

    expected = np.mean(
        [
            mean_kernel(2 * s_a**2, 0, w) + mean_kernel(2 * s_b**2, 0, w) - 2 * mean_kernel(s_a**2 + s_b**2, shift, w)
            for w in widths
        ]
    )
    a, b = gaussian(2000, [0.0, 0.0], [s_a, s_a], generator), gaussian(2200, [shift, 0.0], [s_b, s_b], generator)
    assert_within_errors(mmd(a, b, widths), float(expected))


def test_energy_distance_of_two_gaussians_is_the_closed_form(generator):
    def mean_length(mu, s):  # E|z|, z from N(mu, s^2)
        return s * math.sqrt(2 / math.pi) * math.exp(-(mu**2) / (2 * s**2)) + mu * (1 - 2 * norm.cdf(-mu / s))

    mu, s_a, s_b = 0.8, 1.0, 1.7
    expected = 2 * mean_length(mu, math.hypot(s_a, s_b)) - mean_length(0, s_a * 2**0.5) - mean_length(0, s_b * 2**0.5)
    a, b = gaussian(3000, [0.0], [s_a], generator), gaussian(2500, [mu], [s_b], generator)
    assert_within_errors(energy_distance(a, b), expected)


def unit_mmd(a, b):
    return mmd(a, b, [1.0])


KERNEL_DISTANCES = [kid, unit_mmd, energy_distance]


@pytest.mark.parametrize("distance", KERNEL_DISTANCES)
def test_between_sets_of_one_distribution_the_mean_is_0_at_any_n(distance, generator):
    values = torch.tensor([distance(*torch.randn(2, 6, 2, generator=generator)).value for _ in range(600)])
    assert abs(values.mean()) < 5.5 * values.std() / math.sqrt(600)
    assert (values < 0).any() and (values > 0).any()


@pytest.mark.parametrize("distance", KERNEL_DISTANCES)
@pytest.mark.parametrize("shift, least, most", [(0.0, 1.0, 1.9), (2.0, 0.85, 1.3)], ids=["equal", "different"])
def test_the_standard_error_is_the_spread_over_new_draws_or_a_little_more(distance, shift, least, most, generator):
    found = []
    for _ in range(400):
        a, b = torch.randn(2, 40, 2, generator=generator)
        found.append(distance(a, b + shift))
    values = torch.tensor([estimate.value for estimate in found])
    errors = torch.tensor([estimate.standard_error for estimate in found])
    assert least < float(errors.square().mean().sqrt() / values.std()) < most


@pytest.mark.parametrize("distance", KERNEL_DISTANCES)
def test_value_and_error_are_those_of_the_definition_pair_by_pair(distance, generator):
    x, y = torch.randn(2, 6, 3, dtype=torch.float64, generator=generator)
    y = y[:5] + 0.5
    k = {
        kid: lambda p, q: (float(p @ q) / 3 + 1) ** 3,
        unit_mmd: lambda p, q: math.exp(-float((p - q).square().sum()) / 2),
        energy_distance: lambda p, q: -float((p - q).norm()),
    }[distance]

    def value(x, y):
        xx = np.mean([k(p, q) for p, q in itertools.permutations(x, 2)])
        yy = np.mean([k(p, q) for p, q in itertools.permutations(y, 2)])
        return xx + yy - 2 * np.mean([k(p, q) for p, q in itertools.product(x, y)])

    without_x = [value(torch.cat([x[:i], x[i + 1 :]]), y) for i in range(6)]
    without_y = [value(x, torch.cat([y[:j], y[j + 1 :]])) for j in range(5)]
    variance = 5 * np.var(without_x) + 4 * np.var(without_y)  # (n - 1) / n times the sum of squared deviations
    found = distance(x, y)
    assert_close(found.value, float(value(x, y)))
    assert_close(found.standard_error, math.sqrt(variance))


@pytest.mark.parametrize(
    "measure",
    [*KERNEL_DISTANCES, precision_recall, lambda a, b: nearest(a, b, 3), lambda a, b: memorisation(a, b, b + 0.1)],
)
def test_cutting_the_tables_into_narrow_bands_changes_nothing(measure, generator, monkeypatch):
    a, b = torch.randn(60, 4, generator=generator), torch.randn(47, 4, generator=generator)
    whole = measure(a, b)
    for chunk in (1, 500):
        monkeypatch.setattr(metrics_module, "CHUNK", chunk)
        assert_close(tuple(measure(a, b)), tuple(whole))


def test_the_median_distance_is_the_middle_one_and_the_default_width(generator):
    a, b = torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0]])
    assert median_distance(a, b) == 2  # of 1, 2, 3
    a, b = torch.randn(2, 30, 2, generator=generator)
    assert mmd(a, b) == mmd(a, b, [median_distance(a, b)])
    with pytest.raises(ValueError, match="give the width yourself"):
        median_distance(torch.zeros(3, 2), torch.zeros(3, 2))


@pytest.mark.parametrize("distance", [*KERNEL_DISTANCES, precision_recall])
def test_kernel_distances_and_precision_refuse_what_they_cannot_measure(distance):
    for a, b in [((5, 3), (5, 2)), ((2, 3), (5, 3)), ((5,), (5,)), ((5, 0), (5, 0))]:
        with pytest.raises(ValueError, match=r"got sets of shape .*give \(N, D\)"):
            distance(torch.zeros(a), torch.zeros(b))
    with pytest.raises(ValueError, match="NaN or infinite"):
        distance(torch.full((5, 2), float("inf")), torch.zeros(5, 2))


@pytest.mark.parametrize("widths", [[], [0.0], [1.0, -1.0], [float("nan")]])
def test_a_width_that_is_not_above_0_gets_a_sentence(widths):
    with pytest.raises(ValueError, match="each a number above 0"):
        mmd(torch.randn(5, 2), torch.randn(5, 2), widths)


def test_equal_sets_have_precision_and_recall_1_and_distant_ones_0(generator):
    x = torch.randn(200, 3, generator=generator)
    assert precision_recall(x, x) == (1, 1)
    assert precision_recall(x, x + 100) == (0, 0)
    assert precision_recall(torch.zeros(9, 2), torch.zeros(8, 2)) == (1, 1)


def test_samples_of_one_of_two_modes_have_precision_1_and_recall_one_half(generator):
    mode = torch.randn(100, 2, generator=generator)
    real = torch.cat([mode, mode + 50])
    assert precision_recall(real, mode) == (1, 0.5)
    assert precision_recall(mode, real) == (0.5, 1)


@pytest.mark.parametrize("k", [1, 3])
def test_precision_and_recall_are_those_of_scikit_learns_neighbours(k, generator):
    real, fake = torch.randn(150, 3, generator=generator).double(), 1.4 * torch.randn(120, 3, generator=generator)

    def covered(points, of):
        reach = NearestNeighbors(n_neighbors=k + 1, algorithm="brute").fit(of).kneighbors(of)[0][:, -1]
        return np.mean([(np.linalg.norm(of - point, axis=1) <= reach).any() for point in points])

    x, y = real.numpy(), fake.double().numpy()
    found = precision_recall(real, fake, k)
    assert_close(tuple(found), (float(covered(y, x)), float(covered(x, y))))
    assert 0.1 < found.precision < 0.95 and 0.1 < found.recall < 1
    with pytest.raises(ValueError, match=r"k=0; .* at least 1"):
        precision_recall(real, fake, 0)


@pytest.mark.parametrize("shift", [0, 1e8])
def test_nearest_finds_what_looking_at_every_pair_finds_far_from_the_origin_too(shift, generator):
    x = shift + torch.randn(40, 2, 3, dtype=torch.float64, generator=generator)
    references = shift + torch.randn(70, 2, 3, dtype=torch.float64, generator=generator)
    every = torch.stack([torch.stack([(p - q).norm() for q in references]) for p in x])
    found = nearest(x, references, 4)
    assert_close(found.distances, every.sort(1).values[:, :4])
    assert torch.equal(found.indices, every.argsort(1)[:, :4])


def test_a_copy_is_at_distance_0_exactly_and_all_references_can_be_asked_for():
    pictures = mnist_5k("test").images[:50]
    found = nearest(pictures, pictures)
    assert torch.equal(found.indices[:, 0], torch.arange(50)) and (found.distances == 0).all()
    found = nearest(pictures[:2], pictures, 50)
    assert torch.equal(found.indices.sort(1).values, torch.arange(50).expand(2, 50))
    assert (found.distances.diff(dim=1) >= 0).all()


@pytest.mark.parametrize(
    "x, references, k",
    [
        (torch.zeros(3, 2), torch.zeros(3, 4), 1),
        (torch.zeros(3), torch.zeros(3), 1),
        (torch.zeros(0, 2), torch.zeros(3, 2), 1),
        (torch.zeros(3, 2), torch.zeros(3, 2), 4),
        (torch.zeros(3, 2), torch.zeros(3, 2), 0),
        (torch.zeros(3, 2), torch.zeros(3, 2, dtype=torch.uint8), 1),
        (torch.full((3, 2), float("nan")), torch.zeros(3, 2), 1),
        (torch.zeros(3, 2), torch.full((3, 2), float("nan")), 1),
    ],
)
def test_neighbours_of_what_does_not_fit_get_a_sentence(x, references, k):
    with pytest.raises(ValueError, match="nearest got"):
        nearest(x, references, k)


def test_copies_are_memorised_and_fresh_draws_are_not(generator):
    train, test, fresh = torch.randn(3, 400, 5, generator=generator)
    copies = memorisation(train + 1e-3 * torch.randn(400, 5, generator=generator), train, test)
    assert copies.share == 1 and copies.expected == 0.5 and copies.z > 10
    honest = memorisation(fresh, train, test)
    assert abs(honest.z) < 5.5 and 0.02 < honest.standard_error < 0.06
    half = memorisation(torch.cat([train[:200], fresh[:200]]), train, test)
    assert abs(half.share - 0.75) < 5.5 * half.standard_error and half.z > 5.5


def test_bad_samples_are_not_taken_for_copies(generator):
    train, test = torch.randn(2, 300, 5, generator=generator)
    assert abs(memorisation(3 + 4 * torch.randn(300, 5, generator=generator), train, test).z) < 5.5


def test_share_and_standard_error_are_those_of_all_ways_to_deal_the_examples(generator):
    samples, examples = torch.randn(9, 2, generator=generator), torch.randn(7, 2, generator=generator)
    for size in (3, 4, 6):
        deals = []
        for chosen in itertools.combinations(range(7), size):
            train = torch.zeros(7, dtype=torch.bool)
            train[list(chosen)] = True
            deals.append(memorisation(samples, examples[train], examples[~train]))
        shares = torch.tensor([deal.share for deal in deals], dtype=torch.float64)
        assert_close(float(shares.mean()), size / 7)
        assert all(deal.expected == size / 7 for deal in deals)
        for deal in deals:
            assert_close(deal.standard_error, float(shares.std(correction=0)))


def test_many_samples_of_one_kind_are_one_voice(generator):
    train, test = torch.randn(2, 500, 3, generator=generator)
    assert memorisation(train[:1].expand(1000, 3), train, test).standard_error > 0.49


def test_a_picture_in_both_sets_says_nothing():
    x = torch.arange(6.0)[:, None]
    tie = memorisation(x, x, x)
    assert tie.share == tie.expected == 0.5 and tie.standard_error == 0 and math.isnan(tie.z)
    assert memorisation(x, x, torch.cat([x, x + 0.5])).share == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="some of each"):
        memorisation(x, x[:0], x)


def test_a_distance_stands_beside_that_of_two_disjoint_halves_of_real_data(generator):
    seen = []

    def spy(a, b):
        seen.append((a, b))
        return frechet_distance(a, b)

    samples, real = torch.randn(300, 2, generator=generator) + 1, torch.randn(450, 2, generator=generator)
    report = with_floor(spy, samples, real, generator=generator)
    (value_a, value_b), (floor_a, floor_b) = seen
    assert report.n == 225 and torch.equal(value_a, samples[:225]) and torch.equal(value_b, floor_b)
    assert torch.equal(torch.cat([floor_a, floor_b]).sort(0).values, real.sort(0).values)
    assert report.value == frechet_distance(value_a, value_b) and report.floor == frechet_distance(floor_a, floor_b)
    assert report.value > 1.5 and report.floor < 0.2
    assert with_floor(energy_distance, samples, real, n=50, generator=generator).n == 50


def test_a_distance_prints_with_its_floor_and_n():
    assert str(Distance(12.3456, 0.9, 1000)) == "12.35 (real to real 0.9, n = 1000)"


@pytest.mark.parametrize("n", [0, 11, 30])
def test_a_floor_needs_twice_as_many_real_examples_as_samples(n):
    with pytest.raises(ValueError, match=f"n={n}; it (needs .* 2 n real examples|must be a whole number)"):
        with_floor(frechet_distance, torch.zeros(20, 2), torch.zeros(21, 2), n=n)


def test_every_distance_sees_noise_above_its_floor_on_the_digits():
    features, _ = predict(digit_classifier(), mnist_5k("train").x_0[:600])
    seeded = torch.Generator().manual_seed(0)
    noisy, _ = predict(
        digit_classifier(), mnist_5k("test").x_0[:300] + 0.8 * torch.randn(300, 1, 28, 28, generator=seeded)
    )
    for distance in (frechet_distance, kid, mmd, energy_distance):
        report = with_floor(distance, noisy, features, generator=seeded)
        assert report.n == 300 and report.value > 2 * abs(report.floor)


@pytest.mark.parametrize(
    "make", [digit_classifier, fashion_classifier, noisy_digit_classifier, noisy_fashion_classifier]
)
def test_a_shipped_classifier_is_the_callers_own(make):
    make().double().train()
    again = make()
    assert not again.training and next(again.parameters()).dtype == torch.float32


def test_loading_a_shipped_classifier_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    each_its_own(digit_classifier.__wrapped__)()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_copy_is_found_beside_a_reference_that_differs_in_the_last_digit():
    x = torch.rand(50, 784, generator=torch.Generator().manual_seed(1))
    other = x.clone()
    other[:, 0] += 1e-7
    found = nearest(x, torch.cat([other, x]))
    assert torch.equal(found.indices[:, 0], 50 + torch.arange(50)) and (found.distances == 0).all()


def test_every_finite_number_above_0_is_a_width():
    a, b = torch.randn(2, 8, 3, generator=torch.Generator().manual_seed(0))
    assert mmd(a, b, [Fraction(1, 2)]) == mmd(a, b, [0.5])
    assert abs(mmd(a, b, [1e200]).value) < 1e-12


def test_too_few_real_examples_for_a_floor_are_what_the_sentence_names():
    with pytest.raises(ValueError, match="got 8 samples, 1 real examples and n=0; it needs"):
        with_floor(kid, torch.zeros(8, 3), torch.zeros(1, 3))


def test_arrays_of_labels_and_pictures_are_refused_in_a_sentence():
    with pytest.raises(TypeError, match="agreement got predicted = a NumPy array"):
        agreement(np.array([1]), np.array([1]))
    with pytest.raises(TypeError, match="predict got x = a NumPy array"):
        predict(digit_classifier(), np.zeros((1, 1, 28, 28), np.float32))
