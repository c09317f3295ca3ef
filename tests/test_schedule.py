"""Schedules against DDPM's own arithmetic in NumPy, closed forms, and autodiff."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from diffusion_edu import (
    BetaSchedule,
    EDMSchedule,
    NoiseSchedule,
    SubVPSchedule,
    VESchedule,
    VPSchedule,
    karras,
)
from diffusion_edu.schedule import expand
from tests.cases import Learnt, ddpm_numbers, every_schedule

INNER = torch.linspace(1e-4, 1 - 1e-4, 777, dtype=torch.float64)


@pytest.mark.parametrize("T", [1, 10, 50, 1000, 4000])
def test_linear_table_gives_ddpms_alpha_bars_at_every_step(T):
    schedule = BetaSchedule.linear(T)
    alpha_bar, _ = ddpm_numbers(np.linspace(1e-4, 2e-2, T))
    t = schedule.time(torch.arange(1, T + 1))
    assert t.dtype == torch.float64
    assert_close(schedule.alpha(t) ** 2, torch.from_numpy(alpha_bar), atol=1e-12, rtol=0)
    assert_close(schedule.sigma(t) ** 2, torch.from_numpy(1 - alpha_bar), atol=1e-12, rtol=0)
    assert_close(schedule.alpha_bars[1:], torch.from_numpy(alpha_bar), atol=1e-12, rtol=0)
    assert schedule.alpha_bars[0] == 1 and len(schedule.alpha_bars) == T + 1


def test_the_first_alpha_bar_is_1_minus_beta_1_and_not_beta_1():
    schedule = BetaSchedule(torch.tensor([0.1, 0.2]))
    assert_close(schedule.alpha_bars, torch.tensor([1.0, 0.9, 0.72]).double(), atol=1e-7, rtol=0)


def test_cosine_table_is_nichol_and_dhariwals():
    T, s = 1000, 0.008
    f = lambda k: math.cos((k / T + s) / (1 + s) * math.pi / 2) ** 2  # noqa: E731
    expected = torch.tensor([min(1 - f(k) / f(k - 1), 0.999) for k in range(1, T + 1)], dtype=torch.float64)
    assert_close(BetaSchedule.cosine(T).betas, expected, atol=1e-14, rtol=0)


@every_schedule
def test_the_ends_of_time(schedule):
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    alpha, sigma = schedule.alpha(ends), schedule.sigma(ends)
    assert alpha[0] == 1 and sigma[0] == 0 and not torch.signbit(sigma[0])
    assert sigma[1] > 0.5
    assert schedule.log_snr(ends)[0] == math.inf


@every_schedule
def test_the_signal_to_noise_ratio_falls_strictly(schedule):
    log_snr = schedule.log_snr(torch.linspace(0, 1, 20_001, dtype=torch.float64))
    assert (log_snr[1:] < log_snr[:-1]).all()


@every_schedule
def test_log_snr_is_that_of_alpha_and_sigma(schedule):
    assert_close(schedule.log_snr(INNER).exp(), (schedule.alpha(INNER) / schedule.sigma(INNER)) ** 2)


@every_schedule
def test_time_at_inverts_log_snr_in_closed_form_and_by_bisection(schedule):
    assert_close(schedule.time_at(schedule.log_snr(INNER)), INNER, atol=1e-11, rtol=0)
    assert_close(NoiseSchedule.time_at(schedule, schedule.log_snr(INNER)), INNER, atol=1e-11, rtol=0)


@every_schedule
def test_time_at_stays_in_the_unit_interval(schedule):
    t = schedule.time_at(torch.tensor([-1e3, 1e3], dtype=torch.float64))
    assert ((t >= 0) & (t <= 1)).all()
    t = NoiseSchedule.time_at(schedule, torch.tensor([-1e3, 1e3], dtype=torch.float64))
    assert t[0] == 1 and t[1] < 1e-12


@every_schedule
def test_rates_drift_and_diffusion_agree_with_autodiff(schedule):
    t = (INNER + 1 / 7000).clamp(max=1)  # away from a table's nodes, where the slope jumps
    for ours, automatic in zip(schedule.rates(t), NoiseSchedule.rates(schedule, t), strict=True):
        assert_close(ours, automatic, rtol=1e-9, atol=1e-9)
    assert_close(schedule.drift(t), NoiseSchedule.drift(schedule, t), rtol=1e-9, atol=1e-9)
    assert_close(schedule.diffusion(t), NoiseSchedule.diffusion(schedule, t), rtol=1e-9, atol=0)


@every_schedule
def test_rates_are_the_slopes_of_alpha_and_sigma(schedule):
    t, h = torch.tensor([0.2003, 0.5003, 0.9003], dtype=torch.float64), 1e-6
    for rate, f in zip(schedule.rates(t), (schedule.alpha, schedule.sigma), strict=True):
        assert_close(rate, (f(t + h) - f(t - h)) / (2 * h), rtol=1e-6, atol=1e-8)


def test_diffusion_of_the_table_approaches_the_vp_sdes():
    table, sde = BetaSchedule.linear(1000), VPSchedule(0.1, 20.0)
    # one step of the table holds the rate over 1/T, and -log(1 - beta) exceeds beta by beta/2: 1 % at its end
    assert_close(table.diffusion(INNER) ** 2, sde.diffusion(INNER) ** 2, rtol=0.011, atol=0.04)


def test_between_nodes_log_alpha_bar_is_a_straight_line():
    schedule = BetaSchedule.linear(100)
    for k in (0, 10, 99):  # three points inside the piece, on either side of its middle
        left, right = schedule.log_alpha_bars[k : k + 2]
        share = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
        assert_close(schedule.log_alpha_bar((k + share) / 100), left + share * (right - left))


def test_a_float32_time_never_lands_on_the_wrong_step():
    # floor(t * T) is wrong for a few of 1000 float32 times; interpolation does not care on which side it falls
    schedule = BetaSchedule.linear(1000)
    k = torch.arange(1001)
    assert_close(schedule.alpha((k / 1000).float()), schedule.alpha(schedule.time(k)), atol=1e-6, rtol=0)


def test_half_and_double_leave_the_table_in_float64_and_state_dict_holds_it():
    schedule = BetaSchedule.linear(1000)
    before = schedule.log_alpha_bars.clone()
    for changed in (schedule.half(), schedule.to(torch.bfloat16), schedule.double(), schedule.float()):
        assert changed.log_alpha_bars.dtype == torch.float64
        assert torch.equal(changed.log_alpha_bars, before)
    assert {"betas", "log_alpha_bars"} <= schedule.state_dict().keys()
    copy = BetaSchedule.cosine(1000)
    copy.load_state_dict(schedule.state_dict())
    assert torch.equal(copy.log_alpha_bars, before)


def test_a_network_around_it_moves_the_table_with_the_parameters():
    module = torch.nn.ModuleDict({"schedule": BetaSchedule.linear(10), "net": torch.nn.Linear(2, 2)})
    module.to("meta")
    assert module["schedule"].betas.is_meta and module["net"].weight.is_meta


@every_schedule
def test_on_meta_every_function_keeps_the_shape(schedule):
    moved = type(schedule)(schedule.betas) if isinstance(schedule, BetaSchedule) else schedule
    moved = moved.to("meta")
    t = torch.rand(7, device="meta")
    for f in (moved.alpha, moved.sigma, moved.log_snr, moved.drift, moved.diffusion):
        assert f(t).is_meta and f(t).shape == (7,)


@pytest.mark.parametrize("t_shape", [(), (5,)])
def test_scales_broadcast_over_a_batch(t_shape):
    schedule, like = VPSchedule(), torch.zeros(5, 3, 4, 4)
    alpha, sigma = schedule.scales(torch.full(t_shape, 0.3, dtype=torch.float64), like)
    assert (alpha * like).shape == like.shape and alpha.dtype == sigma.dtype == torch.float32


def test_scales_of_points_do_not_broadcast_outwards():
    # (N,) viewed as (N, 1, 1, 1) turns (5, 2) into (5, 1, 5, 2) without a word
    alpha, _ = VPSchedule().scales(torch.rand(5, dtype=torch.float64), torch.zeros(5, 2))
    assert alpha.shape == (5, 1)


@pytest.mark.parametrize("shape", [(4,), (5, 1), (5, 2)])
def test_a_time_of_a_wrong_shape_gets_a_sentence(shape):
    with pytest.raises(ValueError, match="one entry for each of the batch's 5 examples"):
        expand(torch.zeros(shape), torch.zeros(5, 2))


@pytest.mark.parametrize("betas", [[0.0, 0.1], [0.1, 1.0], [-0.1], [float("nan")], [[0.1]], []])
def test_impossible_betas_get_a_sentence(betas):
    with pytest.raises(ValueError, match="BetaSchedule got betas"):
        BetaSchedule(torch.tensor(betas))


def test_time_refuses_steps_that_are_not_there_and_floats():
    schedule = BetaSchedule.linear(10)
    assert schedule.time(10) == 1 and schedule.time(0) == 0
    with pytest.raises(ValueError, match=r"steps 0 .* to 10"):
        schedule.time(11)
    with pytest.raises(TypeError, match="integers"):
        schedule.time(0.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"num_timesteps=0; .* at least 1"):
        BetaSchedule.linear(0)


@pytest.mark.parametrize("make", [lambda: VPSchedule(2.0, 1.0), lambda: VESchedule(0.0, 1.0), lambda: EDMSchedule(-1)])
def test_impossible_ranges_get_a_sentence(make):
    with pytest.raises(ValueError, match="got"):
        make()


@every_schedule
def test_automatic_rates_are_the_same_in_inference_mode(schedule):
    t = torch.tensor([0.2003, 0.5003, 0.9003], dtype=torch.float64)
    expected = NoiseSchedule.rates(schedule, t)
    with torch.inference_mode():
        found, times = NoiseSchedule.rates(schedule, t), t.clone()
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(NoiseSchedule.rates(schedule, times), expected, strict=True))


def test_the_sigmoid_table_is_jabris_formula_at_any_temperature_and_ends():
    T, start, end, tau = 12, -2.0, 3.0, 0.5
    level = lambda t: 1 / (1 + math.exp(-(start + t * (end - start)) / tau))  # noqa: E731
    alpha_bar = [(level(1) - level(k / T)) / (level(1) - level(0)) for k in range(T + 1)]
    expected = torch.tensor([1 - alpha_bar[k] / alpha_bar[k - 1] for k in range(1, T)], dtype=torch.float64)
    assert_close(BetaSchedule.sigmoid(T, start, end, tau).betas[:-1], expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("make", [BetaSchedule.cosine, BetaSchedule.sigmoid])
def test_the_last_beta_is_the_cap(make):
    assert make(50).betas[-1] == 0.999 and make(50, max_beta=0.9).betas[-1] == 0.9
    assert torch.equal(make(50).betas[:-5], make(50, max_beta=0.9).betas[:-5])


def test_the_table_is_a_copy_of_what_was_given():
    betas = torch.linspace(0.1, 0.2, 5, dtype=torch.float64)
    schedule = BetaSchedule(betas)
    betas[0] = 0.5
    assert schedule.betas[0] == 0.1
    BetaSchedule(schedule.betas).load_state_dict(BetaSchedule.cosine(5).state_dict())
    assert schedule.betas[0] == 0.1


def test_a_time_found_from_a_ratio_never_lies_above_1():
    # rounding put it a last bit above for a few of a hundred rates, and a loss then refused the time
    generator = torch.Generator().manual_seed(0)
    lowest = torch.tensor([-1e3], dtype=torch.float64)
    for beta_min, width in torch.rand(300, 2, generator=generator, dtype=torch.float64).tolist():
        for dtype in (torch.float32, torch.float64):
            for kind in (VPSchedule, SubVPSchedule):
                assert kind(beta_min, beta_min + 20 * width).time_at(lowest.to(dtype)) <= 1


def test_everything_that_a_schedule_may_have_moves_with_it():
    class Learnt(VPSchedule):
        def __init__(self):
            super().__init__()
            self.shift = torch.nn.Parameter(torch.zeros(1))
            self.part = torch.nn.Linear(1, 1)
            self.register_buffer("table", torch.ones(3, dtype=torch.float64))
            self.register_buffer("count", torch.ones(3, dtype=torch.long))

    schedule = Learnt().half()
    assert schedule.shift.dtype == schedule.part.weight.dtype == torch.float16 and schedule.table.dtype == torch.float64
    schedule.to("meta")
    parts = (schedule.shift, schedule.part.weight, schedule.table, schedule.count)
    assert all(part.is_meta for part in parts) and list(schedule._buffers) == ["table", "count"]


def learnt(rate=3.0):
    return Learnt(torch.tensor(rate, dtype=torch.float64))


@pytest.mark.parametrize(
    "of", [lambda s, t: s.drift(t), lambda s, t: s.diffusion(t) ** 2, lambda s, t: torch.stack(s.rates(t))]
)
def test_what_is_derived_can_be_differentiated_in_a_learnt_schedule_and_in_time(of):
    schedule, t, h = learnt(), torch.tensor([0.2, 0.7], dtype=torch.float64, requires_grad=True), 1e-6
    by_rate, by_time = torch.autograd.grad(of(schedule, t).sum(), (schedule.rate, t))
    with torch.no_grad():
        assert not of(schedule, t).requires_grad
        central = (of(learnt(3 + h), t).sum() - of(learnt(3 - h), t).sum()) / (2 * h)
        assert_close(by_rate, central, rtol=1e-6, atol=1e-8)
        central = (of(schedule, t + h) - of(schedule, t - h)) / (2 * h)
        assert_close(by_time, central.reshape(-1, 2).sum(0), rtol=1e-6, atol=1e-8)


def test_a_table_of_learnt_betas_takes_their_values():
    betas = nn.Parameter(torch.full((10,), 0.1))
    schedule = BetaSchedule(betas)
    assert not schedule.betas.requires_grad and torch.equal(schedule.betas, betas.detach().double())
    copy.deepcopy(schedule)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
@pytest.mark.parametrize("beta_max", [20.0, 40.0, 80.0])
def test_sub_vp_times_keep_their_digits_where_sigma_is_nearly_1(dtype, rtol, beta_max):
    schedule, t = SubVPSchedule(0.1, beta_max), torch.linspace(0.02, 0.99, 60, dtype=dtype)
    assert_close(schedule.time_at(schedule.log_snr(t)), t, rtol=rtol, atol=0)
    grid = karras(schedule, 10)
    assert (grid.diff() < 0).all(), "a grid of noise levels falls"


def test_a_move_that_fails_leaves_the_table_where_it_was():
    schedule = BetaSchedule.linear(10)
    before = schedule.betas.clone()

    def fails(t):
        raise AssertionError("Torch not compiled with CUDA enabled")

    with pytest.raises(AssertionError):
        schedule._apply(fails)
    assert torch.equal(schedule.betas, before) and schedule.log_alpha_bars is not None


@pytest.mark.parametrize("kind", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_steps_may_be_counted_in_a_type_that_T_does_not_fit_into(kind):
    schedule = BetaSchedule.linear(1000)
    assert_close(schedule.time(torch.tensor([5, 100], dtype=kind)), schedule.time(torch.tensor([5, 100])))
    assert_close(schedule.time(torch.tensor(240, dtype=torch.uint8)), schedule.time(240))
    with pytest.raises(ValueError, match=r"0 \(clean data\) to 300"):
        BetaSchedule.linear(300).time(torch.tensor([-1], dtype=torch.int8))
