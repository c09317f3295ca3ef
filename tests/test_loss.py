"""The objective: L_simple as it stands in the paper, and how times are drawn."""

import torch
from torch import nn
from torch.testing import assert_close

from diffusion_edu import EPS, X0, BetaSchedule, DiffusionModel, ResidualMLP, denoising_loss, stratified, uniform


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
    first = torch.stack([stratified(8, generator)[0] for _ in range(4000)])
    assert abs(first.mean().item() - 0.5) < 6 / (12 * 4000) ** 0.5
