"""Gaussians against SciPy, torch.distributions and sums that must be 1."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch.testing import assert_close

from diffusion_edu import Normal, bits_per_dim, discretized_log_prob


def test_log_prob_and_kl_agree_with_torch_distributions():
    mean, std = torch.randn(5, dtype=torch.float64), torch.rand(5, dtype=torch.float64) + 0.1
    other_mean, other_std = torch.randn(5, dtype=torch.float64), torch.rand(5, dtype=torch.float64) + 0.1
    x = torch.randn(5, dtype=torch.float64)
    p, q = torch.distributions.Normal(mean, std), torch.distributions.Normal(other_mean, other_std)
    assert_close(Normal(mean, std).log_prob(x), p.log_prob(x))
    assert_close(Normal(mean, std).kl(Normal(other_mean, other_std)), torch.distributions.kl_divergence(p, q))


def test_a_point_has_no_density_elsewhere_and_infinite_density_on_itself():
    point = Normal(torch.tensor([1.0, 1.0]), torch.tensor(0.0))
    assert point.log_prob(torch.tensor([1.0, 2.0])).tolist() == [math.inf, -math.inf]
    assert point.sample().tolist() == [1.0, 1.0]


def test_kl_with_points():
    point, same, elsewhere = (Normal(torch.tensor([m]), torch.tensor(0.0)) for m in (1.0, 1.0, 2.0))
    wide = Normal(torch.tensor([1.0]), torch.tensor(1.0))
    assert point.kl(same).item() == 0
    assert point.kl(elsewhere).item() == point.kl(wide).item() == wide.kl(point).item() == math.inf


def test_samples_have_the_mean_and_the_standard_deviation_not_the_variance(generator):
    x = Normal(torch.full((200_000,), 3.0), torch.tensor(0.5)).sample(generator)
    assert abs(x.mean().item() - 3.0) < 6 * 0.5 / math.sqrt(len(x))
    assert abs(x.std().item() - 0.5) < 6 * 0.5 / math.sqrt(2 * len(x))


def test_a_std_that_does_not_fit_gets_a_sentence():
    with pytest.raises(ValueError, match="must broadcast"):
        Normal(torch.zeros(2, 1, 4, 4), torch.ones(2, 3))


@pytest.mark.parametrize("mean", [-3.0, -1.0, 0.003, 0.7, 1.0, 3.0])
@pytest.mark.parametrize("std", [1e-3, 0.01, 0.3, 5.0])
def test_the_discretised_probabilities_of_all_256_values_sum_to_1(mean, std):
    x = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    log_prob = discretized_log_prob(Normal(torch.full_like(x, mean), torch.tensor(std)), x)
    assert (log_prob <= 0).all()
    assert_close(log_prob.exp().sum().item(), 1.0, atol=1e-12, rtol=0)


def test_the_discretised_log_probability_is_scipys_integral_even_far_in_the_tail():
    x = torch.tensor([-1.0, -0.2, 0.0, 100 / 127.5 - 1, 1.0], dtype=torch.float64)
    ours = discretized_log_prob(Normal(torch.full_like(x, 0.9), torch.tensor(0.05, dtype=torch.float64)), x)
    upper = torch.where(x > 0.999, math.inf, (x + 1 / 255 - 0.9) / 0.05).numpy()
    lower = torch.where(x < -0.999, -math.inf, (x - 1 / 255 - 0.9) / 0.05).numpy()
    # both ends of a bin on the side where the distribution function keeps its digits
    flip = lower + upper > 0
    u, low = np.where(flip, -lower, upper), np.where(flip, -upper, lower)
    log_cdf = scipy.stats.norm.logcdf
    reference = [log_cdf(a) + math.log(-math.expm1(log_cdf(b) - log_cdf(a))) for a, b in zip(u, low, strict=True)]
    assert_close(ours, torch.tensor(reference), rtol=1e-10, atol=0)


def test_bits_per_dim_of_a_density_and_of_a_probability():
    # uniform 8-bit data: 8 bits a pixel, whether as probabilities or as a density on [-1, 1]
    dims = 784
    probability = torch.tensor(dims * math.log(256))
    density_on_model_range = torch.tensor(dims * math.log(256 / 127.5))  # 1 / width of [-1 - h, 1 + h]
    assert_close(bits_per_dim(probability, dims), torch.tensor(8.0))
    assert_close(bits_per_dim(density_on_model_range, dims, scale=1 / 127.5), torch.tensor(8.0))
    with pytest.raises(ValueError, match="dims=0"):
        bits_per_dim(probability, 0)


def test_the_kl_of_near_neighbours_keeps_its_digits_in_single_precision():
    zero = torch.zeros(())
    for other in (Normal(zero, torch.tensor(1.0001)), Normal(torch.tensor(1e-4), torch.tensor(1.0))):
        exact = Normal(zero.double(), zero.double() + 1).kl(Normal(other.mean.double(), other.std.double()))
        assert_close(Normal(zero, zero + 1).kl(other).double(), exact, rtol=2e-3, atol=0)


@pytest.mark.parametrize("levels", [2, 17])
def test_the_discretised_probabilities_of_any_number_of_levels_sum_to_1(levels):
    x = torch.linspace(-1, 1, levels, dtype=torch.float64)
    log_prob = discretized_log_prob(Normal(torch.full_like(x, 0.3), torch.tensor(0.4)), x, levels)
    assert_close(log_prob.exp().sum().item(), 1.0, atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_mass_of_a_bin_is_found_in_half_precision_too(dtype):
    x = (2 * torch.arange(0, 256, 17) / 255 - 1).to(dtype)
    normal = Normal(torch.full_like(x, 0.25), torch.tensor(0.5, dtype=dtype))
    expected = discretized_log_prob(Normal(normal.mean.double(), normal.std.double()), x.double())
    assert_close(discretized_log_prob(normal, x).double(), expected, rtol=1e-3, atol=1e-3)
