"""Each row both ways: target, conversion, and the weight that a squared error on the output puts on x_0."""

import pickle

import pytest
import torch
from torch.testing import assert_close

from diffusion_edu import (
    EPS,
    SCORE,
    VELOCITY,
    X0,
    BetaSchedule,
    CosineSchedule,
    DiffusionModel,
    FlowSchedule,
    ResidualMLP,
    V,
    edm,
    q_sample,
)
from tests.cases import every_schedule

ROWS = {"x_0": X0, "eps": EPS, "v": V, "score": SCORE, "velocity": VELOCITY, "edm": edm(0.5)}
every_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
T = torch.tensor([1e-3, 0.1, 0.5, 0.9, 0.999], dtype=torch.float64)


@every_row
@every_schedule
def test_the_output_gives_back_x_0_and_eps(row, schedule):
    x_0, eps = torch.randn(2, 5, 3, dtype=torch.float64)
    x_t, o = q_sample(schedule, x_0, T, eps), row.target(schedule, x_0, eps, T)
    assert_close(row.x_0(schedule, o, x_t, T), x_0, atol=1e-7, rtol=1e-7)
    assert_close(row.eps(schedule, o, x_t, T), eps, atol=1e-7, rtol=1e-7)


@every_row
@every_schedule
def test_the_weight_is_the_measured_ratio_of_squared_errors(row, schedule):
    x_0, x_0_hat, eps = torch.randn(3, 5, 3, dtype=torch.float64)
    x_t = q_sample(schedule, x_0, T, eps)
    alpha, sigma = schedule.scales(T, like=x_t)
    eps_hat = (x_t - alpha * x_0_hat) / sigma  # the eps that goes with a wrong x_0_hat at the same x_t
    error = row.target(schedule, x_0_hat, eps_hat, T) - row.target(schedule, x_0, eps, T)
    ratio = error.square().sum(1) / (x_0_hat - x_0).square().sum(1)
    assert_close(row.weight(schedule, T), ratio, rtol=1e-6, atol=1e-9)


@every_schedule
def test_the_weights_of_the_table(schedule):
    alpha, sigma, snr = schedule.alpha(T), schedule.sigma(T), schedule.log_snr(T).exp()
    alpha_rate, sigma_rate = schedule.rates(T)
    assert_close(X0.weight(schedule, T), torch.ones_like(T))
    assert_close(EPS.weight(schedule, T), snr)
    assert_close(V.weight(schedule, T), (alpha**2 + sigma**2) ** 2 / sigma**2)
    assert_close(SCORE.weight(schedule, T), snr / sigma**2)
    assert_close(VELOCITY.weight(schedule, T), (alpha_rate - sigma_rate * alpha / sigma) ** 2)


@every_row
def test_a_row_crosses_to_another_process(row):
    there, schedule = pickle.loads(pickle.dumps(row)), BetaSchedule.cosine()
    for mine, its in zip(row.row(schedule, T), there.row(schedule, T), strict=True):
        assert_close(its, mine, rtol=0, atol=0)
    assert_close(there.input_scale(schedule, T), row.input_scale(schedule, T), rtol=0, atol=0)


@every_schedule
def test_the_scores_row_is_minus_eps_over_sigma(schedule):
    # it is the slope of log q(x_t | x_0), by PyTorch's own density
    x_0, eps = torch.randn(2, 5, 3, dtype=torch.float64)
    alpha, sigma = schedule.scales(T, like=x_0)
    x_t = (alpha * x_0 + sigma * eps).requires_grad_()
    torch.distributions.Normal(alpha * x_0, sigma).log_prob(x_t).sum().backward()
    assert_close(SCORE.target(schedule, x_0, eps, T), x_t.grad, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("sigma_data", [0.5, 1.3])
def test_edms_row_is_karras_table_1(sigma_data):
    from diffusion_edu import EDMSchedule

    schedule = EDMSchedule(80.0)
    sigma = schedule.sigma(T)
    c_skip = sigma_data**2 / (sigma**2 + sigma_data**2)
    c_out = sigma * sigma_data / (sigma**2 + sigma_data**2).sqrt()
    x_t, o = torch.randn(2, 5, 3, dtype=torch.float64)
    row = edm(sigma_data)
    assert_close(row.x_0(schedule, o, x_t, T), c_skip[:, None] * x_t + c_out[:, None] * o)
    assert_close(row.input_scale(schedule, T), 1 / (sigma**2 + sigma_data**2).sqrt())


def test_v_is_at_right_angles_to_x_t_and_has_the_sign_of_eps():
    schedule = CosineSchedule()
    x_0, eps = torch.randn(2, 5, 400_000, dtype=torch.float64)
    v = V.target(schedule, x_0, eps, T)
    x_t = q_sample(schedule, x_0, T, eps)
    assert ((x_t * v).mean(1).abs() < 6 / 400_000**0.5).all()
    assert_close(V.target(schedule, x_0, eps, torch.zeros((), dtype=torch.float64)), eps)


@pytest.mark.parametrize("row", [EPS, SCORE], ids=["eps", "score"])
@pytest.mark.parametrize("schedule", [CosineSchedule(), FlowSchedule()], ids=["cosine", "flow"])
def test_predicting_noise_where_alpha_vanishes_is_refused_with_a_way_out(row, schedule):
    with pytest.raises(ValueError, match="V or VELOCITY"):
        DiffusionModel(ResidualMLP(), schedule, row)
    DiffusionModel(ResidualMLP(), schedule, V)
    DiffusionModel(ResidualMLP(), BetaSchedule.cosine(), EPS)  # the cap on beta keeps alpha(1) above 0
