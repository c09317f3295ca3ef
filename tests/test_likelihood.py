"""The bound on data whose likelihood is known: the gap closes, does not close, and closes again, as the theory says."""

import math

import pytest
import torch
from torch.testing import assert_close

from diffusion_edu import (
    BetaSchedule,
    CosineSchedule,
    DiffusionModel,
    Elbo,
    GaussianMixture,
    LearntVarianceModel,
    Normal,
    elbo,
    gaussian_decoder,
    hybrid_loss,
    learnt_std,
    log_snr_times,
    pixel_decoder,
    posterior_kl,
    posterior_std,
    q_posterior,
    times,
    transition_std,
)
from tests.cases import every_schedule

SCHEDULE = BetaSchedule.linear(1000)
DATA = GaussianMixture(torch.ones(1), torch.zeros(1, 1).double(), torch.tensor([2.0]).double())  # N(0, 4)


def expected_gap(std, grid):
    """E over the data of bound minus exact, in nats, for N(0, 4): every term in closed form, no draws.

    E |x_0 - x_0_hat|^2 is the variance of x_0 given x_t, because the denoiser is exact.
    """
    a2, s2 = SCHEDULE.alpha(grid) ** 2, SCHEDULE.sigma(grid) ** 2
    left = 4 * s2 / (4 * a2 + s2)  # Var[x_0 | x_t]
    prior = 0.5 * a2[0] * 4 / s2[0]
    t, s = grid[:-2], grid[1:-1]
    true, model = posterior_std(SCHEDULE, s, t) ** 2, std(SCHEDULE, s, t) ** 2
    r = (SCHEDULE.log_snr(t) - SCHEDULE.log_snr(s)).exp()
    shift = (SCHEDULE.alpha(s) * (1 - r)) ** 2 * left[:-2] / model
    diffusion = 0.5 * (true / model - 1 - torch.log(true / model) + shift).sum()
    decoder = 0.5 * (left[-2] / s2[-2] + torch.log(2 * math.pi * s2[-2]))
    entropy = 0.5 * math.log(2 * math.pi * math.e * 4)
    return float(prior + diffusion + decoder - entropy)


@pytest.mark.parametrize(
    ("std", "grid", "gap"),
    [
        (transition_std, times(100), 0.0086),
        (transition_std, times(1000), 0.00085),
        (posterior_std, times(100), 0.945),
        (posterior_std, times(1000), 0.470),
        (posterior_std, times(10_000), 0.305),
        (posterior_std, log_snr_times(SCHEDULE, 100), 0.499),
        (posterior_std, log_snr_times(SCHEDULE, 1000), 0.047),
    ],
)
def test_the_gaps_of_the_design(std, grid, gap):
    assert_close(expected_gap(std, grid), gap, atol=0, rtol=0.02)


def test_with_beta_the_gap_closes_as_1_over_T_and_with_beta_tilde_it_stays_above_half_of_eulers_gamma():
    assert 8 < expected_gap(transition_std, times(100)) / expected_gap(transition_std, times(1000)) < 12
    gamma = 0.5772156649
    assert expected_gap(posterior_std, times(100_000)) > gamma / 2


@pytest.mark.parametrize("std", [transition_std, posterior_std])
def test_the_estimate_agrees_with_the_closed_form(std, generator):
    n = 20_000
    x_0 = DATA.sample(n, generator)
    bound = elbo(DATA.denoiser(SCHEDULE), x_0, times(50), std, generator=generator)
    gap = bound.total + DATA.log_prob(x_0)
    assert abs(gap.mean().item() - expected_gap(std, times(50))) < 6 * gap.std().item() / math.sqrt(n)
    assert (bound.prior >= 0).all()


@every_schedule
@pytest.mark.parametrize("std", [posterior_std, transition_std])
def test_a_term_is_the_kl_of_its_two_gaussians(schedule, std):
    s, t = torch.tensor(0.4, dtype=torch.float64), torch.tensor(0.45, dtype=torch.float64)
    x_t, x_0, x_0_hat = torch.randn(3, 5, 2, dtype=torch.float64)
    model = Normal(q_posterior(schedule, x_t, x_0_hat, s, t).mean, std(schedule, s, t))
    expected = q_posterior(schedule, x_t, x_0, s, t).kl(model)
    assert_close(posterior_kl(schedule, x_0 - x_0_hat, std(schedule, s, t), s, t), expected, rtol=1e-6, atol=1e-9)


def test_a_term_with_the_posteriors_variance_is_the_snr_difference():
    s, t = SCHEDULE.time(torch.tensor([1, 10, 500])), SCHEDULE.time(torch.tensor([2, 11, 501]))
    error = torch.randn(3, 4, dtype=torch.float64)
    snr = lambda t: SCHEDULE.log_snr(t).exp()  # noqa: E731
    expected = ((snr(s) - snr(t)) / 2)[:, None] * error**2
    assert_close(
        posterior_kl(SCHEDULE, error, posterior_std(SCHEDULE, s, t)[:, None], s, t), expected, rtol=1e-9, atol=0
    )


def test_the_prior_term_is_the_kl_to_pure_noise():
    x_0 = torch.tensor([[1.5, -2.0]], dtype=torch.float64)
    bound = elbo(GaussianMixture(torch.ones(1), torch.zeros(1, 2), torch.ones(1)).denoiser(SCHEDULE), x_0, times(2))
    a2 = SCHEDULE.alpha_bars[-1]
    assert_close(bound.prior, (a2 / (1 - a2) * x_0**2 / 2).sum(1))


def test_discrete_data_has_the_bound_above_the_entropy(generator):
    # three values with probabilities 1/2, 1/4, 1/4 on 8-bit pixels: entropy 1.5 bits
    values = torch.tensor([[-1.0], [3 / 127.5 - 1], [1.0]], dtype=torch.float64)
    data = GaussianMixture(torch.tensor([2.0, 1.0, 1.0]), values, torch.zeros(3).double())
    x_0 = data.sample(4000, generator)
    bound = elbo(
        data.denoiser(SCHEDULE), x_0, log_snr_times(SCHEDULE, 400, 1e-5), decoder=pixel_decoder(), generator=generator
    )
    bits = bound.bits_per_dim(1)
    mean, error = bits.mean().item(), bits.std().item() / math.sqrt(len(bits))
    assert 1.5 - 6 * error < mean < 1.62


def test_parts_add_up_and_bits_are_nats_over_log_2():
    bound = Elbo(torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([3.0]))
    assert bound.total == 6
    assert_close(bound.bits_per_dim(3), torch.tensor([2 / math.log(2)]))
    assert_close(
        gaussian_decoder(Normal(torch.zeros(1), torch.ones(1)), torch.zeros(1)).item(), -0.5 * math.log(2 * math.pi)
    )


@pytest.mark.parametrize("grid", [torch.linspace(1, 0.1, 5), torch.linspace(0.9, 0, 5), torch.linspace(0, 1, 5)])
def test_times_that_do_not_span_the_whole_way_get_a_sentence(grid):
    with pytest.raises(ValueError, match="from exactly 1 to exactly 0"):
        elbo(DATA.denoiser(SCHEDULE), torch.zeros(2, 1), grid)


def test_other_wrong_arguments_get_a_sentence():
    with pytest.raises(ValueError, match="finite float batch"):
        elbo(DATA.denoiser(SCHEDULE), torch.full((2, 1), math.nan), times(3))
    with pytest.raises(ValueError, match=r"alpha\(1\) > 0"):
        log_snr_times(CosineSchedule(), 10)
    with pytest.raises(ValueError, match="steps >= 2"):
        log_snr_times(SCHEDULE, 1)
    assert_close(log_snr_times(SCHEDULE, 2), torch.tensor([1.0, 1e-3, 0.0], dtype=torch.float64))


class WithWidth(torch.nn.Module):
    """Says 0 for o, and one learnt number for u."""

    def __init__(self, u):
        super().__init__()
        self.u = torch.nn.Parameter(torch.tensor(u))

    def forward(self, x, level, condition=None):
        return torch.cat([torch.zeros_like(x), self.u.expand_as(x)], dim=1)


@pytest.mark.parametrize(("u", "rule"), [(-1.0, posterior_std), (1.0, transition_std)])
def test_learnt_variance_spans_from_beta_tilde_to_beta(u, rule):
    model = LearntVarianceModel(WithWidth(u), SCHEDULE)
    s, t = SCHEDULE.time(499), SCHEDULE.time(500)
    x_0_hat, std = model.denoise_with_std(torch.randn(3, 2), s, t)
    assert_close(std, rule(SCHEDULE, s, t).float().expand(3, 2), rtol=1e-4, atol=0)
    assert_close(x_0_hat, model(torch.randn(3, 2) * 0 + 1, t) * 0 + x_0_hat)


def test_a_learnt_variance_is_used_by_the_bound_and_refused_elsewhere():
    model, x_0 = LearntVarianceModel(WithWidth(1.0), SCHEDULE), torch.randn(3, 2)
    bounds = [
        elbo(model, x_0, times(5), std, generator=torch.Generator().manual_seed(0))
        for std in (learnt_std, transition_std)
    ]
    assert_close(bounds[0].diffusion, bounds[1].diffusion, rtol=1e-3, atol=1e-3)
    plain = DiffusionModel(UNetLike(), SCHEDULE)
    with pytest.raises(TypeError, match="LearntVarianceModel"):
        elbo(plain, x_0, times(5), learnt_std)
    with pytest.raises(ValueError, match="twice the channels"):
        LearntVarianceModel(UNetLike(), SCHEDULE)(x_0, torch.tensor(0.5, dtype=torch.float64))


class UNetLike(torch.nn.Module):
    def forward(self, x, level, condition=None):
        return x


def test_the_hybrid_loss_moves_the_variance_by_the_bound_and_the_mean_by_l_simple_alone():
    model, x_0 = LearntVarianceModel(WithWidth(0.3).double(), SCHEDULE), torch.randn(64, 2).double()
    t = torch.full((64,), 0.4, dtype=torch.float64)
    eps = 0.5 * torch.randn(64, 2).double()  # small, so that the best width lies inside the range
    hybrid_loss(model, x_0, t, eps=eps).mean().backward()
    assert model.network.u.grad.abs() > 0
    # the network predicts eps = 0 here; the best width has the mean squared error of the mean as its variance
    width = torch.linspace(-1, 1, 201)
    losses = [
        hybrid_loss(LearntVarianceModel(WithWidth(float(u)).double(), SCHEDULE), x_0, t, eps=eps).mean().item()
        for u in width
    ]
    x_0_hat, _ = model.denoise_with_std(
        SCHEDULE.scales(t, x_0)[0] * x_0 + SCHEDULE.scales(t, x_0)[1] * eps, t - 1e-3, t
    )
    s = t - 1e-3
    gain = (SCHEDULE.alpha(s) * -torch.expm1(SCHEDULE.log_snr(t) - SCHEDULE.log_snr(s)))[0].item()
    best_variance = posterior_std(SCHEDULE, s, t)[0].item() ** 2 + gain**2 * (x_0 - x_0_hat).square().mean().item()
    low, high = posterior_std(SCHEDULE, s, t)[0].item() ** 2, transition_std(SCHEDULE, s, t)[0].item() ** 2
    expected = 2 * (math.log(best_variance) - math.log(low)) / (math.log(high) - math.log(low)) - 1
    assert_close(width[losses.index(min(losses))].item(), max(-1.0, min(1.0, expected)), atol=0.02, rtol=0)
    assert hybrid_loss(model, x_0, torch.full((64,), 5e-4, dtype=torch.float64)).isfinite().all()


@pytest.mark.parametrize("steps", [1000, 40])
def test_the_hybrid_loss_is_l_simple_and_a_share_of_each_steps_term(steps):
    x_0, eps = torch.randn(2, 5, 3, dtype=torch.float64)
    t = torch.tensor([0.9, 0.3, 0.05, 1 / steps, 0.5 / steps], dtype=torch.float64)
    model = LearntVarianceModel(WithWidth(0.3).double(), SCHEDULE)
    found = hybrid_loss(model, x_0, t, eps=eps, steps=steps, share=0.01)
    x_0_hat = (SCHEDULE.scales(t, x_0)[0] * x_0 + SCHEDULE.scales(t, x_0)[1] * eps) / SCHEDULE.scales(t, x_0)[0]
    for i in range(5):
        term = torch.zeros((), dtype=torch.float64)
        if t[i] > 1 / steps:  # a step that does not end at 0
            s = t[i] - 1 / steps
            ends = [torch.log(rule(SCHEDULE, s, t[i])) for rule in (posterior_std, transition_std)]
            width = torch.exp(ends[0] + (0.3 + 1) / 2 * (ends[1] - ends[0]))  # between the two, in the logarithm
            x_t = SCHEDULE.alpha(t[i]) * x_0[i] + SCHEDULE.sigma(t[i]) * eps[i]
            true, told = (q_posterior(SCHEDULE, x_t, x, s, t[i]) for x in (x_0[i], x_0_hat[i]))
            term = true.kl(Normal(told.mean, width.expand(3))).mean()
        assert_close(found[i], eps[i].square().mean() + 0.01 * steps * term, rtol=1e-9, atol=1e-12)
