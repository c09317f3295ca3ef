"""The forward process and its posterior: DDPM's numbers, Bayes' rule, and composition."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from diffusion_edu import (
    BetaSchedule,
    CosineSchedule,
    Normal,
    posterior_kl,
    posterior_std,
    prior,
    q_marginal,
    q_posterior,
    q_sample,
    q_transition,
    transition_std,
)
from tests.cases import ddpm_numbers, every_schedule


@pytest.mark.parametrize("T", [10, 1000])
@pytest.mark.parametrize("table", ["linear", "cosine"])
def test_steps_of_the_chain_have_ddpms_beta_and_beta_tilde(T, table):
    schedule = getattr(BetaSchedule, table)(T)
    _, beta_tilde = ddpm_numbers(schedule.betas.numpy())
    k = torch.arange(1, T + 1)
    s, t = schedule.time(k - 1), schedule.time(k)
    assert_close(transition_std(schedule, s, t) ** 2, schedule.betas, atol=1e-12, rtol=0)
    assert_close(posterior_std(schedule, s, t) ** 2, torch.from_numpy(beta_tilde), atol=1e-12, rtol=0)
    assert posterior_std(schedule, s, t)[0] == 0


def test_the_posterior_mean_has_ddpms_two_coefficients():
    schedule = BetaSchedule.linear(1000)
    betas = schedule.betas.numpy()
    alpha_bar, _ = ddpm_numbers(betas)
    before = np.concatenate([[1.0], alpha_bar[:-1]])
    on_x_0 = np.sqrt(before) * betas / (1 - alpha_bar)
    on_x_t = np.sqrt(1 - betas) * (1 - before) / (1 - alpha_bar)
    k = torch.arange(1, 1001)
    one, zero = torch.ones(1000, 1, dtype=torch.float64), torch.zeros(1000, 1, dtype=torch.float64)
    s, t = schedule.time(k - 1), schedule.time(k)
    assert_close(q_posterior(schedule, zero, one, s, t).mean[:, 0], torch.from_numpy(on_x_0), atol=1e-12, rtol=0)
    assert_close(q_posterior(schedule, one, zero, s, t).mean[:, 0], torch.from_numpy(on_x_t), atol=1e-12, rtol=0)


@every_schedule
def test_a_jump_after_a_jump_is_a_jump(schedule):
    x_0 = torch.randn(6, 2, dtype=torch.float64)
    s, t = torch.tensor(0.3, dtype=torch.float64), torch.tensor(0.8, dtype=torch.float64)
    at_s = q_marginal(schedule, x_0, s)
    step = q_transition(schedule, at_s.mean, s, t)
    at_t = q_marginal(schedule, x_0, t)
    ratio = schedule.alpha(t) / schedule.alpha(s)
    assert_close(step.mean, at_t.mean)
    assert_close(ratio**2 * at_s.variance + step.variance, at_t.variance)


@every_schedule
@pytest.mark.parametrize("s", [0.02, 0.5, 0.7])
def test_the_posterior_is_bayes_rule(schedule, s):
    # q(x_s | x_t, x_0) q(x_t | x_0) = q(x_t | x_s) q(x_s | x_0), as densities
    s, t = torch.tensor(s, dtype=torch.float64), torch.tensor(0.75, dtype=torch.float64)
    x_0, x_t, x_s = torch.randn(3, 50, 1, dtype=torch.float64)
    left = q_posterior(schedule, x_t, x_0, s, t).log_prob(x_s) + q_marginal(schedule, x_0, t).log_prob(x_t)
    right = q_transition(schedule, x_s, s, t).log_prob(x_t) + q_marginal(schedule, x_0, s).log_prob(x_s)
    assert_close(left, right, rtol=1e-8, atol=1e-8)


@every_schedule
@pytest.mark.parametrize("t", [1e-5, 0.5, 1.0])
def test_the_posterior_at_s_0_is_the_point_x_0(schedule, t):
    x_t, x_0 = torch.randn(2, 4, 3, dtype=torch.float64)
    posterior = q_posterior(schedule, x_t, x_0, torch.zeros((), dtype=torch.float64), torch.tensor(t).double())
    assert_close(posterior.mean, x_0, atol=1e-13, rtol=0)
    assert (posterior.std == 0).all()


@every_schedule
def test_the_posterior_from_t_1_is_finite_where_alpha_vanishes(schedule):
    x_t, x_0 = torch.randn(2, 4, 3, dtype=torch.float64)
    s, t = torch.tensor(0.9, dtype=torch.float64), torch.ones((), dtype=torch.float64)
    posterior = q_posterior(schedule, x_t, x_0, s, t)
    assert torch.isfinite(posterior.mean).all() and torch.isfinite(posterior.std).all()
    assert torch.isfinite(q_transition(schedule, x_t, s, t).mean).all()


def test_chained_steps_and_one_jump_agree_in_distribution(generator):
    schedule, n = BetaSchedule.linear(20, 0.01, 0.3), 200_000
    x_0 = torch.full((n, 1), 1.5, dtype=torch.float64)
    x = x_0
    for k in range(1, 21):
        x = q_transition(schedule, x, schedule.time(k - 1), schedule.time(k)).sample(generator)
    jump = q_marginal(schedule, x_0[:1], schedule.time(20))
    standard_error = jump.std.item() / n**0.5
    assert abs(x.mean().item() - jump.mean.item()) < 6 * standard_error
    assert abs(x.std().item() - jump.std.item()) < 6 * standard_error / 2**0.5


def test_q_sample_uses_standard_deviations():
    schedule = BetaSchedule.linear(1000)
    x_0, eps, t = torch.randn(3, 1, 4, 4), torch.randn(3, 1, 4, 4), torch.tensor([0.1, 0.5, 0.9])
    x_t = q_sample(schedule, x_0, t, eps)
    a = schedule.alpha(t.double()).float()[:, None, None, None]
    assert_close(x_t, a * x_0 + (1 - a**2).sqrt() * eps, atol=1e-6, rtol=1e-5)
    assert x_t.dtype == torch.float32
    with pytest.raises(ValueError, match="its own noise"):
        q_sample(schedule, x_0, t, eps[:, :, :1])


@every_schedule
def test_the_prior_has_the_noise_of_t_1(schedule, generator):
    x = prior(schedule, (4, 50_000), generator)
    sigma_1 = schedule.sigma(torch.ones((), dtype=torch.float64)).item()
    assert abs(x.std().item() / sigma_1 - 1) < 6 / (2 * x.numel()) ** 0.5
    again = prior(schedule, (4, 50_000), torch.Generator().manual_seed(generator.initial_seed()))
    assert torch.equal(x, again)


def test_kl_of_posteriors_is_the_snr_difference():
    # the identity behind the weighted loss (Kingma et al. 2021, eq. 13), with the package's own pieces
    schedule = BetaSchedule.linear(1000)
    s, t = schedule.time(499), schedule.time(500)
    x_t, x_0, x_0_hat = torch.randn(3, 7, 1, dtype=torch.float64)
    kl = q_posterior(schedule, x_t, x_0, s, t).kl(q_posterior(schedule, x_t, x_0_hat, s, t))
    snr = schedule.log_snr(torch.stack([s, t])).exp()
    assert_close(kl, (snr[0] - snr[1]) / 2 * (x_0 - x_0_hat) ** 2)
    assert isinstance(q_marginal(schedule, x_0, t), Normal)


def test_a_std_for_each_example_is_not_taken_for_one_for_each_number():
    schedule, error = BetaSchedule.linear(1000), torch.randn(4, 4, dtype=torch.float64)
    s, t = schedule.time(torch.tensor([9, 99, 499, 899])), schedule.time(torch.tensor([10, 100, 500, 900]))
    std = transition_std(schedule, s, t)
    kl = posterior_kl(schedule, error, std, s, t)
    assert torch.equal(kl, posterior_kl(schedule, error, std[:, None], s, t))
    assert_close(kl[1], posterior_kl(schedule, error[1:2], std[1], s[1], t[1])[0])


@pytest.mark.parametrize("end", [0.0, 1.0])
def test_a_step_of_no_length_has_no_width_at_both_ends_of_time(end):
    t = torch.tensor(end, dtype=torch.float64)  # the log-SNR is infinite there, and a difference of two is no number
    for rule in (transition_std, posterior_std):
        assert rule(CosineSchedule(), t, t) == 0
