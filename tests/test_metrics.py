"""Fréchet distance on Gaussians with a known answer; the shipped classifier is as good as its card says."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch.testing import assert_close

from diffusion_edu import agreement, digit_classifier, digit_classifier_card, frechet_distance, mnist_5k, predict


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
