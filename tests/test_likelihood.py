"""The bound on data whose likelihood is known: the gap closes, does not close, and closes again, as the theory says."""

import math

import pytest
import torch
from torch.testing import assert_close

from diffusion_edu import (
    BetaSchedule,
    CosineSchedule,
    DiffusionModel,
    EDMSchedule,
    Elbo,
    GaussianMixture,
    LearntVarianceModel,
    Normal,
    ResidualMLP,
    Treated,
    V,
    ancestral,
    bits_per_dim,
    clip_x_0,
    denoising_loss,
    dequantize,
    elbo,
    gaussian_decoder,
    hybrid_loss,
    learnt_std,
    log_likelihood,
    log_snr_times,
    pixel_decoder,
    posterior_kl,
    posterior_std,
    q_posterior,
    ring,
    sample,
    times,
    transition_std,
)
from diffusion_edu.likelihood import velocity_and_divergence
from tests.cases import Learnt, every_schedule

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


def test_a_constant_error_costs_the_whole_fall_of_the_snr_from_t_1_to_the_first_noise():
    class OffByOne:  # of data that are all 0
        schedule = SCHEDULE

        def __call__(self, x_t, t, condition=None):
            return torch.ones_like(x_t)

    grid = times(4)
    snr = SCHEDULE.log_snr(grid[:-1]).exp()
    bound = elbo(OffByOne(), torch.zeros(3, 2, dtype=torch.float64), grid, posterior_std)
    assert_close(bound.diffusion, ((snr[-1] - snr[0]) / 2 * 2).expand(3), rtol=1e-9, atol=0)  # no draw is in it
    assert snr[1] > 1e-3 * snr[-1], "the first step's share would not be seen"


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
    with pytest.raises(ValueError, match="NaN"):
        elbo(DATA.denoiser(SCHEDULE), torch.full((2, 1), math.nan), times(3))
    with pytest.raises(ValueError, match=r"alpha\(1\) > 0"):
        log_snr_times(CosineSchedule(), 10)
    with pytest.raises(ValueError, match="at least 2"):
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
    x_t = torch.randn(3, 2)
    x_0_hat, std = model.denoise_with_std(x_t, s, t)
    assert_close(std, rule(SCHEDULE, s, t).float().expand(3, 2), rtol=1e-4, atol=0)
    assert_close(x_0_hat, model(x_t, t))
    grid, x = torch.tensor([0.5, 0.2, 0.0], dtype=torch.float64), torch.randn(3, 2)
    walked = [
        sample(ancestral(learnt_std), denoiser, x, grid, generator=torch.Generator().manual_seed(0))
        for denoiser in (model.eval(), Treated(model.eval(), lambda x_0_hat: x_0_hat))
    ]
    assert torch.equal(*walked)


class SaysTheLabel(torch.nn.Module):
    """Says the label for o and for u."""

    def __init__(self):
        super().__init__()
        self.one = torch.nn.Parameter(torch.ones(()))

    def forward(self, x, level, condition=None):
        said = (self.one * condition)[:, None].expand_as(x)
        return torch.cat([said, said], dim=1)


def test_a_treated_learnt_variance_is_treated_asked_with_the_label_and_0_at_the_end():
    model = LearntVarianceModel(SaysTheLabel(), SCHEDULE).eval()
    s, t, labels = SCHEDULE.time(499), SCHEDULE.time(500), torch.tensor([-1, 0, 1])
    x_t = 3 * torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    plain, width = model.denoise_with_std(x_t, s, t, labels)
    assert plain.abs().max() > 1, "else there is nothing to clip"
    treated, std = Treated(model, clip_x_0).denoise_with_std(x_t, s, t, labels)
    assert torch.equal(treated, plain.clamp(-1, 1)) and torch.equal(std, width)
    ends = torch.stack([posterior_std(SCHEDULE, s, t), transition_std(SCHEDULE, s, t)]).float()
    assert_close(std[[0, 2], 0], ends, rtol=1e-4, atol=0)
    assert torch.equal(model.denoise_with_std(x_t, SCHEDULE.time(0), t, labels)[1], torch.zeros(3, 2))
    spoilt = labels.clone().float().fill_(math.nan)  # a network that answers NaN is not one that is sure
    assert model.denoise_with_std(x_t, s, t, spoilt)[1].isnan().all()


def test_a_learnt_variance_is_used_by_the_bound_and_refused_elsewhere():
    model, x_0 = LearntVarianceModel(WithWidth(1.0), SCHEDULE).eval(), torch.randn(3, 2)
    bounds = [
        elbo(model, x_0, times(5), std, generator=torch.Generator().manual_seed(0))
        for std in (learnt_std, transition_std)
    ]
    assert_close(bounds[0].diffusion, bounds[1].diffusion, rtol=1e-3, atol=1e-3)
    plain = DiffusionModel(UNetLike(), SCHEDULE).eval()
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


def test_the_bound_in_the_hybrid_loss_leaves_the_mean_alone():
    class Says(torch.nn.Module):  # one number for the noise and one for the width
        def __init__(self):
            super().__init__()
            self.o, self.u = (torch.nn.Parameter(torch.tensor(x, dtype=torch.float64)) for x in (0.2, 0.3))

        def forward(self, x, level, condition=None):
            return torch.cat([self.o.expand_as(x), self.u.expand_as(x)], 1)

    model = LearntVarianceModel(Says(), SCHEDULE)
    x_0, eps = torch.randn(2, 16, 2, dtype=torch.float64)
    t = torch.full((16,), 0.4, dtype=torch.float64)
    of_o, of_u = torch.autograd.grad(hybrid_loss(model, x_0, t, eps=eps, share=1.0).sum(), list(model.parameters()))
    (alone,) = torch.autograd.grad(denoising_loss(model, x_0, t, eps=eps).sum(), [model.network.o])
    assert_close(of_o, alone, rtol=1e-12, atol=0)
    assert of_u.abs() > 1e-6 and alone.abs() > 1e-6


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


def test_the_hybrid_loss_knows_the_last_step_by_a_rounded_time_too():
    x_0, eps = torch.randn(2, 4, 2, dtype=torch.float64)
    model = LearntVarianceModel(WithWidth(0.3).double(), SCHEDULE)
    last = SCHEDULE.time(torch.ones(4, dtype=torch.long))  # its float32 lies above 1/1000, by less than it rounds
    assert_close(
        hybrid_loss(model, x_0, last.float(), eps=eps), hybrid_loss(model, x_0, last, eps=eps), rtol=1e-3, atol=0
    )


ONE = torch.ones((), dtype=torch.float64)
RING = GaussianMixture(*ring(5, 0.15)).to(ONE)


@every_schedule
def test_on_a_mixture_the_odes_likelihood_is_exact_to_1e_4_nats_with_the_exact_prior(schedule, generator):
    x_0 = RING.sample(16, generator)
    found = log_likelihood(RING.denoiser(schedule), x_0, RING.marginal(schedule, ONE).log_prob)
    assert_close(found, RING.log_prob(x_0), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("schedule", "mismatch"), [(SCHEDULE, 1e-2), (CosineSchedule(), 1e-6)], ids=["linear", "cosine"]
)
def test_with_the_samplers_prior_it_is_the_density_of_what_the_sampler_draws(schedule, mismatch, generator):
    # for N(0, 4) all is known: x_0 = 2 x_1 / S_1, S_1^2 = 4 alpha^2 + sigma^2, with x_1 ~ N(0, sigma^2)
    x_0 = DATA.sample(16, generator)
    alpha, sigma = schedule.alpha(ONE), schedule.sigma(ONE)
    drawn = Normal(torch.zeros_like(x_0), 2 * sigma / torch.sqrt(4 * alpha**2 + sigma**2)).log_prob(x_0)[:, 0]
    found = log_likelihood(DATA.denoiser(schedule), x_0)
    assert_close(found, drawn, rtol=0, atol=1e-5)
    assert (found - DATA.log_prob(x_0)).abs().max() < mismatch


def test_the_bound_lies_below_the_exact_likelihood_on_average_and_the_ode_on_it(generator):
    x_0 = DATA.sample(2000, generator)
    exact = DATA.log_prob(x_0).mean()
    bound = -elbo(DATA.denoiser(SCHEDULE), x_0, times(200), generator=generator).total.mean()
    ode = log_likelihood(DATA.denoiser(SCHEDULE), x_0, DATA.marginal(SCHEDULE, ONE).log_prob).mean()
    assert bound < exact - 0.3 and abs(ode - exact) < 1e-4


def test_a_looser_tolerance_errs_more_and_within_a_hundred_of_it():
    x_0 = RING.sample(16, torch.Generator().manual_seed(0))
    exact, q_1 = RING.log_prob(x_0), RING.marginal(SCHEDULE, ONE).log_prob
    errors = [
        float((log_likelihood(RING.denoiser(SCHEDULE), x_0, q_1, atol=tol, rtol=tol) - exact).abs().max())
        for tol in (1e-3, 1e-5)
    ]
    assert errors[1] < errors[0] and errors[0] < 0.1 and errors[1] < 1e-3


def test_the_divergence_is_the_trace_of_the_jacobian():
    t, x = torch.tensor(0.4, dtype=torch.float64), RING.sample(3, torch.Generator().manual_seed(0))
    v, divergence = velocity_and_divergence(RING.denoiser(SCHEDULE), x, t)
    of_one = lambda y: velocity_and_divergence(RING.denoiser(SCHEDULE), y[None], t)[0][0]  # noqa: E731
    h = 1e-5
    for i in range(3):
        columns = [(of_one(x[i] + e) - of_one(x[i] - e)) / (2 * h) for e in h * torch.eye(2, dtype=torch.float64)]
        assert_close(divergence[i], columns[0][0] + columns[1][1], rtol=1e-6, atol=1e-6)
    assert v.shape == x.shape and not v.requires_grad and not divergence.requires_grad


def test_hutchinsons_divergence_is_unbiased(generator):
    t, x = torch.tensor(0.4, dtype=torch.float64), RING.sample(3, generator)
    _, exact = velocity_and_divergence(RING.denoiser(SCHEDULE), x, t)
    probes = torch.sign(torch.randn(1000, 3, 2, generator=generator, dtype=torch.float64))
    each = torch.stack([velocity_and_divergence(RING.denoiser(SCHEDULE), x, t, None, z[None])[1] for z in probes])
    assert ((each.mean(0) - exact).abs() < 5 * each.std(0) / math.sqrt(1000) + 1e-9).all()
    # where the Jacobian is diagonal, signs give its trace without any error
    x = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    data = GaussianMixture(torch.ones(1), torch.zeros(1, 3), torch.tensor([[0.5, 1.0, 2.0]])).to(ONE)
    q_1 = data.marginal(SCHEDULE, ONE).log_prob
    found = log_likelihood(data.denoiser(SCHEDULE), x, q_1, generator=generator, probes=1)
    assert_close(found, data.log_prob(x), rtol=0, atol=1e-4)


def test_hutchinsons_likelihood_is_near_the_exact_one_on_average(generator):
    x_0 = RING.sample(200, generator)
    q_1 = RING.marginal(SCHEDULE, ONE).log_prob
    difference = log_likelihood(
        RING.denoiser(SCHEDULE), x_0, q_1, generator=generator, probes=2, atol=1e-4, rtol=1e-4
    ) - RING.log_prob(x_0)
    assert difference.std() > 1e-3  # it is an estimate
    assert abs(difference.mean()) < 5 * difference.std() / math.sqrt(200)


def test_the_density_of_a_learnt_model_integrates_to_1():
    # a random network, nobody's exact answer: the flow is one to one, so its density must sum to 1 all the same
    schedule = CosineSchedule()
    model = DiffusionModel(ResidualMLP(1, 16, 1), schedule, V).double().eval()
    for p in model.network.parameters():
        torch.nn.init.normal_(p, std=0.3)
    grid = torch.linspace(-12, 12, 601, dtype=torch.float64)[:, None]
    density = log_likelihood(model, grid, atol=1e-4, rtol=1e-4).exp()
    assert_close(density.sum().item() * 24 / 600, 1.0, rtol=0, atol=2e-3)


def test_bits_per_dim_of_dequantised_data_bound_the_entropy(generator):
    # 8-bit values uniform on 4 neighbouring levels: 2 bits. The model is the exact uniform density, nearly: a mixture
    # of narrow Gaussians spread evenly over the four levels.
    levels = 2 * torch.tensor([[100.0], [101.0], [102.0], [103.0]], dtype=torch.float64) / 255 - 1
    x_0 = levels[torch.randint(4, (300,), generator=generator)]
    soft = dequantize(x_0, generator)
    assert ((soft - x_0).abs() <= 1 / 255).all() and soft.unique().numel() == 300
    centres = torch.linspace(float(levels[0]) - 1 / 255, float(levels[-1]) + 1 / 255, 41, dtype=torch.float64)
    data = GaussianMixture(torch.ones(41), centres[:, None], torch.full((41,), float(centres.diff()[0]))).to(ONE)
    schedule = CosineSchedule()
    nats = -log_likelihood(data.denoiser(schedule), soft, data.marginal(schedule, ONE).log_prob)
    bits = bits_per_dim(nats, 1, scale=2 / 255).mean().item()
    assert 2.0 < bits < 2.1
    assert_close(bits_per_dim(nats, 1).mean().item() - bits, math.log2(2 / 255), rtol=0, atol=1e-9)  # 6.99 bits


def test_the_odes_likelihood_refuses_what_it_cannot_answer():
    denoiser, x_0 = RING.denoiser(SCHEDULE), torch.zeros(2, 2, dtype=torch.float64)
    for options, sentence in (
        ({"probes": 0}, "probes=0; .* at least 1"),
        ({"sigma_min": 0.0}, "noise-to-signal"),
        ({"condition": torch.zeros(3).long()}, "one label per example"),
        ({"atol": -1.0}, "at least 0"),
    ):
        with pytest.raises(ValueError, match=sentence):
            log_likelihood(denoiser, x_0, **options)
    with pytest.raises(ValueError, match="NaN"):
        log_likelihood(denoiser, x_0 * math.nan)
    with pytest.raises(ValueError, match="eval"):
        log_likelihood(DiffusionModel(ResidualMLP(2), CosineSchedule(), V), x_0.float())
    with pytest.raises(ValueError, match="levels=1"):
        dequantize(x_0, levels=1)


@every_schedule
def test_a_path_that_starts_in_noise_gives_the_density_of_data_with_that_much_noise(schedule, generator):
    ratio = 0.05
    noisy = GaussianMixture(RING.weights, RING.means, torch.sqrt(RING.stds**2 + ratio**2))
    x = noisy.sample(8, generator)
    found = log_likelihood(RING.denoiser(schedule), x, RING.marginal(schedule, ONE).log_prob, sigma_min=ratio)
    assert_close(found, noisy.log_prob(x), rtol=0, atol=1e-4)


def test_dequantised_values_fill_their_level_evenly(generator):
    x = dequantize(torch.full((20_000,), -1 + 2 * 7 / 255, dtype=torch.float64), generator) + 1 - 2 * 7 / 255
    width = 2 / 255
    assert float(x.abs().max()) <= width / 2 < 1.01 * float(x.max()) and float(x.min()) < -0.99 * width / 2
    assert abs(float(x.mean())) < 5 * width / math.sqrt(12 * 20_000)
    assert float(x.std()) == pytest.approx(width / math.sqrt(12), rel=0.02)


@pytest.mark.parametrize("probes", [None, 1])
def test_the_odes_likelihood_answers_in_inference_mode_too(probes):
    x_0, options = torch.zeros(2, 2, dtype=torch.float64), {"probes": probes, "atol": 1e-3, "rtol": 1e-3}
    first = log_likelihood(RING.denoiser(SCHEDULE), x_0, generator=torch.Generator().manual_seed(0), **options)
    with torch.inference_mode():
        again = log_likelihood(RING.denoiser(SCHEDULE), x_0, generator=torch.Generator().manual_seed(0), **options)
    assert torch.equal(first, again)
    single = log_likelihood(RING.denoiser(SCHEDULE), x_0.float(), lambda x: x.double().sum(1), **options)
    assert single.dtype == torch.float32


def test_times_in_log_snr_are_in_double_precision_whatever_the_table():
    schedule = BetaSchedule.linear(10)
    for name in ("betas", "log_alpha_bars"):  # as on a device without float64
        schedule._buffers[name] = schedule._buffers[name].float()
    assert log_snr_times(schedule, 4).dtype == torch.float64


def test_a_path_that_would_start_above_its_end_is_refused():
    denoiser = GaussianMixture(torch.ones(1), torch.zeros(1, 1), torch.ones(1)).denoiser(EDMSchedule(0.1))
    with pytest.raises(ValueError, match=r"it is 0\.1 at most"):
        log_likelihood(denoiser, torch.zeros(2, 1), sigma_min=0.5)


def test_bound_and_likelihood_have_no_gradient_rather_than_a_part_of_it():
    denoiser, x_0 = GaussianMixture(*ring()).denoiser(Learnt()), torch.zeros(2, 2, requires_grad=True)
    assert not elbo(denoiser, x_0, times(4)).total.requires_grad
    assert not log_likelihood(denoiser, x_0, atol=1e-2, rtol=1e-2).requires_grad


def test_a_prior_that_answers_with_a_plain_number_gets_a_sentence():
    denoiser = GaussianMixture(torch.ones(1), torch.zeros(1, 1), torch.ones(1)).denoiser(CosineSchedule())
    with pytest.raises(ValueError, match=r"answers 2 examples with 0\.0"):
        log_likelihood(denoiser, torch.zeros(2, 1), lambda x: 0.0, atol=1e-2, rtol=1e-2)
