"""The objective: L_simple as it stands in the paper, and how times are drawn."""

import importlib
import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from diffusion_edu import (
    EPS,
    X0,
    BetaSchedule,
    CosineSchedule,
    DiffusionModel,
    EDMSchedule,
    Importance,
    LearntVarianceModel,
    ResidualMLP,
    V,
    denoising_loss,
    edm,
    edm_weight,
    elbo_weight,
    hybrid_loss,
    log_normal,
    min_snr,
    simple,
    stratified,
    uniform,
)
from tests.cases import every_schedule


class Zero(nn.Module):
    def forward(self, x, level, condition=None):
        return torch.zeros_like(x)


def test_l_simple_of_a_network_that_says_0_is_the_mean_square_of_the_noise():
    model = DiffusionModel(Zero(), BetaSchedule.linear(1000), EPS)
    x_0, noise = torch.randn(2, 6, 3, 4, 4)
    loss = denoising_loss(model, x_0, torch.rand(6, dtype=torch.float64), eps=noise)
    assert loss.shape == (6,)
    assert_close(loss, noise.square().mean((1, 2, 3)))


def test_l_simple_is_the_papers_formula():
    model = DiffusionModel(ResidualMLP(2), BetaSchedule.linear(1000), EPS)
    nn.init.normal_(model.network.head.weight)
    x_0, noise = torch.randn(2, 6, 2)
    k = torch.randint(1, 1001, (6,))
    alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 2e-2, 1000, dtype=torch.float64), 0)[k - 1].float()[:, None]
    x_t = alpha_bar.sqrt() * x_0 + (1 - alpha_bar).sqrt() * noise
    level = 2 / torch.pi * torch.atan2((1 - alpha_bar).sqrt(), alpha_bar.sqrt())[:, 0]
    expected = (noise - model.network(x_t, level)).square().mean(1)
    assert_close(denoising_loss(model, x_0, model.schedule.time(k), eps=noise), expected, rtol=1e-4, atol=1e-5)


def test_a_weight_multiplies_each_example():
    model = DiffusionModel(Zero(), BetaSchedule.linear(1000), X0)
    x_0, t = torch.randn(5, 2), torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    plain = denoising_loss(model, x_0, t)
    weighted = denoising_loss(model, x_0, t, weight=lambda schedule, t: schedule.log_snr(t).exp())
    assert_close(weighted, plain * model.schedule.log_snr(t).exp().float())


def test_the_generator_alone_decides_the_noise():
    model, x_0, t = (
        DiffusionModel(ResidualMLP(2), BetaSchedule.linear(10)),
        torch.randn(5, 2),
        torch.tensor(0.5).double(),
    )
    a, b = (denoising_loss(model, x_0, t, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(a, b)


def test_times_are_in_the_half_open_interval_above_0_and_uniform(generator):
    for draw in (uniform, stratified):
        t = torch.cat([draw(100, generator) for _ in range(1000)])
        assert t.dtype == torch.float64 and (t > 0).all() and (t <= 1).all()
        counts = torch.histc(t, 20, 0, 1)
        assert (counts - 5000).abs().max() < 6 * (5000 * 0.95) ** 0.5


def test_stratified_times_have_one_in_each_slice_in_random_order(generator):
    t = stratified(64, generator)
    assert torch.equal((t * 64).ceil().sort().values, torch.arange(1, 65).double())
    assert not torch.equal(t, t.sort().values)
    assert len((t * 64).frac().unique()) > 60, "each slice has its own draw"
    first = torch.stack([stratified(8, generator)[0] for _ in range(4000)])
    assert abs(first.mean().item() - 0.5) < 6 / (12 * 4000) ** 0.5


INNER = torch.linspace(0.02, 0.98, 9, dtype=torch.float64)


@pytest.mark.parametrize("row", [EPS, V, X0, edm(0.5)], ids=lambda row: row.name)
def test_a_named_weight_is_on_the_error_in_x_0_whatever_the_network_predicts(row):
    schedule, torch_seed = BetaSchedule.linear(1000), torch.Generator().manual_seed(0)
    x_0, noise = torch.randn(2, 9, 3, generator=torch_seed)
    model = DiffusionModel(Zero(), schedule, row)
    x_t = schedule.scales(INNER, x_0)[0] * x_0 + schedule.scales(INNER, x_0)[1] * noise
    error = (model(x_t, INNER) - x_0).square().mean(1)
    for weight in (simple, min_snr(5.0), elbo_weight, edm_weight(0.5)):
        loss = denoising_loss(model, x_0, INNER, weight, eps=noise)
        assert_close(loss, weight(schedule, INNER).float() * error, rtol=1e-3, atol=1e-5)


@every_schedule
def test_the_elbos_weight_is_half_the_slope_of_the_snr(schedule):
    h, t = 1e-6, INNER + 1e-4
    slope = (torch.exp(schedule.log_snr(t + h)) - torch.exp(schedule.log_snr(t - h))) / (2 * h)
    assert_close(elbo_weight(schedule, t), -slope / 2, rtol=1e-4, atol=1e-9)


def test_simple_is_the_weight_of_eps_and_min_snr_caps_it_from_above():
    schedule = BetaSchedule.linear(1000)
    assert_close(simple(schedule, INNER), EPS.weight(schedule, INNER))
    for gamma in (5.0, 2.0):
        capped = min_snr(gamma)(schedule, INNER)
        assert capped.max() == gamma and torch.equal(capped == gamma, simple(schedule, INNER) >= gamma)
    with pytest.raises(ValueError, match="gamma=0"):
        min_snr(0)


@pytest.mark.parametrize("sigma_data", [0.5, 1.3])
def test_edms_weight_is_karras_lambda_and_makes_its_row_count_once(sigma_data):
    schedule = EDMSchedule(80.0)
    sigma = schedule.sigma(INNER)
    assert_close(edm_weight(sigma_data)(schedule, INNER), (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2)
    assert_close(edm(sigma_data).weight(schedule, INNER), edm_weight(sigma_data)(schedule, INNER))


def test_log_normal_times_have_edms_noise_levels_or_others(generator):
    schedule = EDMSchedule(80.0)
    for mean, std, given in ((-1.2, 1.2, ()), (0.5, 0.3, (0.5, 0.3))):
        log_sigma = torch.log(schedule.sigma(log_normal(schedule, *given)(100_000, generator)))
        assert abs(log_sigma.mean().item() - mean) < 6 * std / math.sqrt(1e5)
        assert abs(log_sigma.std().item() - std) < 6 * std / math.sqrt(2e5)
    t = log_normal(CosineSchedule())(1000, generator)
    assert (t > 0).all() and (t < 1).all()


def test_importance_keeps_the_expectation(generator):
    times = Importance(torch.tensor([1.0, 5.0, 2.0, 0.5]))
    t = times(200_000, generator)
    assert (t > 0).all() and (t <= 1).all()
    shares = torch.histc(t, 4, 0, 1) / len(t)
    assert_close(shares, torch.tensor([1.0, 5.0, 2.0, 0.5]).double() / 8.5, atol=0.007, rtol=0)
    f = lambda t: torch.sin(3 * t) + t**2  # noqa: E731
    weighted = times.factor(t) * f(t)
    exact = (1 - math.cos(3)) / 3 + 1 / 3
    assert abs(weighted.mean().item() - exact) < 6 * weighted.std().item() / math.sqrt(len(t))
    with pytest.raises(ValueError, match="above 0"):
        Importance(torch.tensor([1.0, 0.0]))


def test_a_time_whose_draw_is_0_is_not_0(monkeypatch):
    module = importlib.import_module("diffusion_edu.loss")
    monkeypatch.setattr(module, "_rand", lambda batch, generator: torch.zeros(batch, dtype=torch.float64))
    assert (uniform(4) == 1).all()
    assert torch.equal(stratified(4).sort().values, torch.tensor([0.25, 0.5, 0.75, 1.0]).double())
    assert set(Importance(torch.ones(2))(50).tolist()) == {0.5, 1.0}
    highest = 1 - torch.finfo(torch.float32).eps / 2  # on MPS times are drawn in float32, and B - 1 + u rounds to B
    monkeypatch.setattr(module, "_rand", lambda batch, generator: torch.full((batch,), highest))
    assert 0 < stratified(512).min() < 1e-7


def test_importance_of_half_precision_is_as_exact_as_that_of_double():
    times = Importance(torch.full((1000,), 100.0, dtype=torch.half))  # whose sum is beyond half precision
    assert_close(times.factor(torch.tensor([0.3])), torch.ones(1))


@every_schedule
def test_the_elbos_weight_is_finite_at_t_1(schedule):
    one = torch.ones((), dtype=torch.float64)
    weight = elbo_weight(schedule, one)
    assert weight.isfinite() and (weight == 0) == (schedule.alpha(one) == 0)


def test_the_network_is_told_the_condition():
    class Records(nn.Module):
        def forward(self, x, level, condition=None):
            seen.append(condition)
            return torch.zeros(len(x), self.numbers, dtype=x.dtype)

    seen, labels = [], torch.tensor([2, 0, -1])
    x_0, t = torch.randn(3, 2), torch.full((3,), 0.5, dtype=torch.float64)
    network = Records()
    network.numbers = 2
    denoising_loss(DiffusionModel(network, CosineSchedule(), V), x_0, t, condition=labels)
    network.numbers = 4
    hybrid_loss(LearntVarianceModel(network, BetaSchedule.linear(1000), V), x_0, t, labels)
    assert len(seen) == 3 and all(torch.equal(condition, labels) for condition in seen)


def test_a_loss_of_plain_numbers_gets_a_sentence():
    class Echo(torch.nn.Module):
        def forward(self, x, level, condition=None):
            return x

    model = DiffusionModel(Echo(), CosineSchedule(), V)
    with pytest.raises(ValueError, match=r"denoising_loss got x_0 of shape \(5,\); it needs a batch"):
        denoising_loss(model, torch.zeros(5), torch.tensor(0.5))
