"""The learnt denoiser and the views of any denoiser."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from diffusion_edu import (
    EPS,
    SCORE,
    VELOCITY,
    BetaSchedule,
    CosineSchedule,
    DiffusionModel,
    EDMSchedule,
    GaussianMixture,
    V,
    angle,
    dynamic_threshold,
    edm,
    eps,
    moons,
    score,
    velocity,
)
from diffusion_edu.denoiser import check_batch, time_at_angle, velocity_in_angle
from tests.cases import every_schedule


class Fixed(nn.Module):
    """A network that answers what it is told, and remembers what it was asked."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.asked = answer, None

    def forward(self, x, level, condition=None):
        self.asked = (x, level, condition)
        return self.answer


@every_schedule
def test_the_score_of_an_exact_denoiser_is_the_gradient_of_the_exact_marginal(schedule):
    # Tweedie's formula
    mixture = GaussianMixture(*moons())
    t = torch.tensor([0.05, 0.3, 0.6, 0.95], dtype=torch.float64)
    x_t = torch.randn(4, 2, dtype=torch.float64)
    assert_close(
        score(mixture.denoiser(schedule), x_t, t), mixture.marginal(schedule, t).score(x_t), rtol=1e-6, atol=1e-6
    )


def test_the_velocity_field_carries_the_exact_marginals():
    # continuity equation in one dimension: d/dt log q = -(v' + v d/dx log q), by finite differences
    schedule = CosineSchedule()
    mixture = GaussianMixture(
        torch.tensor([0.3, 0.7]), torch.tensor([[-1.0], [0.9]]).double(), torch.tensor([0.3, 0.2])
    )
    denoiser, h = mixture.denoiser(schedule), 1e-5
    x, t = torch.linspace(-2, 2, 41, dtype=torch.float64)[:, None], torch.tensor(0.4, dtype=torch.float64)
    later, earlier = (mixture.marginal(schedule, t + d).log_prob(x) for d in (h, -h))
    divergence = (velocity(denoiser, x + h, t) - velocity(denoiser, x - h, t))[:, 0] / (2 * h)
    transport = velocity(denoiser, x, t)[:, 0] * mixture.marginal(schedule, t).score(x)[:, 0]
    assert_close((later - earlier) / (2 * h), -(divergence + transport), rtol=1e-5, atol=1e-5)


def test_the_views_are_one_answer_in_other_units():
    schedule = BetaSchedule.linear(100)
    denoiser = GaussianMixture(*moons()).denoiser(schedule)
    x_t, t = torch.randn(5, 2, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    eps_hat = eps(denoiser, x_t, t)
    assert_close(alpha * denoiser(x_t, t) + sigma * eps_hat, x_t)
    assert_close(score(denoiser, x_t, t), -eps_hat / sigma)
    alpha_rate, sigma_rate = schedule.rates(t)
    assert_close(velocity(denoiser, x_t, t), alpha_rate * denoiser(x_t, t) + sigma_rate * eps_hat)


@pytest.mark.parametrize("row", [EPS, V, SCORE, VELOCITY, edm(0.5)], ids=lambda row: row.name)
def test_a_network_that_says_the_target_denoises_perfectly(row):
    schedule = BetaSchedule.linear(1000)
    x_0, noise, t = torch.randn(4, 2), torch.randn(4, 2), torch.rand(4, dtype=torch.float64) * 0.9 + 0.05
    x_t = schedule.scales(t, x_0)[0] * x_0 + schedule.scales(t, x_0)[1] * noise
    model = DiffusionModel(Fixed(row.target(schedule, x_0, noise, t)), schedule, row)
    assert_close(model(x_t, t), x_0, atol=1e-3, rtol=1e-3)


@every_schedule
def test_the_level_that_a_network_is_told_is_in_the_unit_interval_and_rises(schedule):
    level = angle(schedule, torch.linspace(0, 1, 1001, dtype=torch.float64))
    assert level[0] == 0 and level[-1] <= 1 and (level[1:] > level[:-1]).all()


def test_the_network_is_asked_with_one_level_per_example_and_a_scaled_input():
    network = Fixed(torch.zeros(3, 2))
    schedule, t = EDMSchedule(80.0), torch.tensor(0.5, dtype=torch.float64)
    x_t, condition = torch.randn(3, 2), torch.tensor([1, 2, 0])
    DiffusionModel(network, schedule, edm(0.5)).output(x_t, t, condition)
    x, level, told = network.asked
    assert_close(x, x_t / (40.0**2 + 0.25) ** 0.5)
    assert_close(level, torch.full((3,), 2 / torch.pi * torch.atan(torch.tensor(40.0))))
    assert level.dtype == torch.float32 and told is condition
    with pytest.raises(ValueError, match="3 examples"):
        DiffusionModel(network, schedule, V).output(x_t, torch.zeros(2), condition)


def test_the_schedules_table_travels_with_the_weights():
    model = DiffusionModel(nn.Linear(1, 1), BetaSchedule.linear(10))
    assert {"schedule.betas", "schedule.log_alpha_bars", "network.weight"} <= model.state_dict().keys()
    model.half()
    assert model.schedule.betas.dtype == torch.float64 and model.network.weight.dtype == torch.float16


def test_in_the_angle_a_table_of_betas_has_the_velocity_of_any_variance_preserving_schedule():
    # the table's rate jumps at each node; at the same angle the cosine schedule, whose time the angle is, knows better
    x, mixture = torch.randn(5, 2, dtype=torch.float64), GaussianMixture(*moons()).to(torch.zeros(1).double())
    table, cosine = BetaSchedule.linear(20, 1e-3, 0.5), CosineSchedule()
    for at in torch.linspace(0.05, 0.95, 9, dtype=torch.float64):
        expected = velocity(mixture.denoiser(cosine), x, at)
        for schedule in (cosine, table):
            t = time_at_angle(schedule, at)
            assert_close(angle(schedule, t), at)
            x_0_hat, found = velocity_in_angle(mixture.denoiser(schedule), x, t)
            assert_close(found, expected, rtol=1e-8, atol=1e-8)
            assert_close(x_0_hat, mixture.denoiser(cosine)(x, at), rtol=1e-8, atol=1e-8)


@every_schedule
def test_the_angle_of_1_and_above_is_the_end_of_time(schedule):
    one = torch.ones((), dtype=torch.float64)
    assert_close(time_at_angle(schedule, angle(schedule, one)), one, rtol=1e-9, atol=0)
    assert_close(time_at_angle(schedule, one), one, rtol=1e-12, atol=0)
    assert_close(time_at_angle(schedule, one.float()), one.float(), rtol=1e-6, atol=0, check_dtype=False)


def test_the_check_names_who_was_called():
    with pytest.raises(ValueError, match="the walker got x of shape"):
        check_batch("the walker", Fixed(None), torch.zeros(3))


def test_an_empty_batch_is_thresholded_as_it_is_clipped():
    assert dynamic_threshold()(torch.zeros(0, 2)).shape == (0, 2)


@pytest.mark.parametrize("parameterization", [EPS, SCORE])
def test_whether_the_end_tells_of_x_0_does_not_depend_on_the_units_of_the_row(parameterization):
    # eps and the score are the same but for a factor
    with pytest.raises(ValueError, match=r"because alpha\(1\) / sigma\(1\) = 5e-09 there"):
        DiffusionModel(Fixed(None), EDMSchedule(2e8), parameterization)
    DiffusionModel(Fixed(None), EDMSchedule(1e6), parameterization)
