"""Samplers on exact denoisers: moments, two-sample tests, and identities between them."""

import itertools
import math

import pytest
import torch
from torch.testing import assert_close

from benchmarks.solver_order import METHODS, measured_order
from diffusion_edu import (
    BetaSchedule,
    CosineSchedule,
    DiffusionModel,
    EDMSchedule,
    FlowSchedule,
    GaussianMixture,
    ResidualMLP,
    State,
    Treated,
    V,
    VPSchedule,
    ancestral,
    clip_x_0,
    ddim,
    dpmpp_2m,
    dynamic_threshold,
    euler,
    euler_maruyama,
    heun,
    karras,
    prior,
    q_marginal,
    q_sample,
    ring,
    sample,
    times,
    trajectory,
    transition_std,
)
from tests.cases import every_schedule

ONE = torch.ones((), dtype=torch.float64)


def gaussian(mean=0.7, std=0.5):
    return GaussianMixture(torch.ones(1), torch.tensor([[mean]]).double(), torch.tensor([std]).double())


def two_sample_p_value(a, b, generator, permutations=999):
    """Permutation test of the MMD, three kernels (Gretton et al. 2012): the share of shuffles at least as far apart."""
    pooled = torch.cat([a, b])
    sign = torch.cat([torch.full((len(a),), 1 / len(a)), torch.full((len(b),), -1 / len(b))]).double()
    shuffled = [sign[torch.randperm(len(sign), generator=generator)] for _ in range(permutations)]
    z = torch.stack([sign, *shuffled])
    squared = torch.cdist(pooled, pooled) ** 2
    kernel = sum(torch.exp(-squared / (2 * width**2)) for width in (0.1, 0.3, 1.0))
    distance = ((z @ kernel) * z).sum(1)
    return (distance >= distance[0]).double().mean().item()


def test_times_fall_from_1_to_exactly_0():
    grid = times(1000)
    assert grid.dtype == torch.float64 and len(grid) == 1001 and grid[0] == 1 and grid[-1] == 0
    schedule = BetaSchedule.linear(1000)
    assert torch.equal(grid.flip(0), schedule.time(torch.arange(1001)))
    squared = times(10, lambda t: t**2)
    assert squared[0] == 1 and squared[-1] == 0 and squared[5] == 0.25
    with pytest.raises(ValueError, match="at least one step"):
        times(0)
    with pytest.raises(ValueError, match="warp"):
        times(5, lambda t: 1 - t)


@every_schedule
def test_ddim_with_eta_1_is_ancestral(schedule):
    mixture = GaussianMixture(*ring())
    denoiser = mixture.denoiser(schedule)
    x = prior(schedule, (50, 2), torch.Generator().manual_seed(0), dtype=torch.float64)
    runs = [
        list(trajectory(step, denoiser, x, times(30), generator=torch.Generator().manual_seed(1)))
        for step in (ddim(1.0), ancestral())
    ]
    for a, b in zip(*runs, strict=True):
        assert_close(a.x, b.x, atol=1e-7, rtol=1e-6)


@every_schedule
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_a_step_with_the_true_x_0_keeps_the_marginal(schedule, eta, generator):
    # The family is built so that x_s ~ q(x_s | x_0) whenever x_t ~ q(x_t | x_0): variances must add up for every eta.
    n, x_0 = 100_000, torch.full((1, 1), 1.3, dtype=torch.float64)
    point = GaussianMixture(torch.ones(1), x_0, torch.zeros(1).double()).denoiser(schedule)
    s, t = torch.tensor(0.5, dtype=torch.float64), torch.tensor(0.8, dtype=torch.float64)
    x_t = q_marginal(schedule, x_0.expand(n, 1), t).sample(generator)
    x_s = ddim(eta)(point, State(t, x_t), s, None, generator).x
    expected = q_marginal(schedule, x_0, s)
    assert abs(x_s.mean().item() - expected.mean.item()) < 6 * expected.std.item() / math.sqrt(n)
    assert abs(x_s.std().item() / expected.std.item() - 1) < 6 / math.sqrt(2 * n)


@every_schedule
@pytest.mark.parametrize(
    "step",
    [ancestral(), ancestral(transition_std), ddim(), ddim(0.5), dpmpp_2m()],
    ids=["tilde", "beta", "ddim", "eta", "2m"],
)
def test_the_step_into_0_adds_no_noise(schedule, step):
    denoiser = gaussian().denoiser(schedule)
    t = torch.tensor(0.05, dtype=torch.float64)
    x = torch.randn(1, 1, dtype=torch.float64).expand(64, 1)
    end = step(denoiser, State(t, x), torch.zeros((), dtype=torch.float64), None, torch.Generator().manual_seed(0))
    assert end.x.std() == 0
    assert_close(end.x, denoiser(x, t))


@pytest.mark.parametrize("std", ["posterior", "transition"])
@pytest.mark.parametrize("T", [5, 50])
def test_ancestral_sampling_has_the_moments_of_its_own_recursion(std, T, generator):
    # For one Gaussian each step is linear, x_s = c x_t + d + noise, so mean and variance are a recursion of numbers.
    schedule, n, data = BetaSchedule.linear(1000), 200_000, gaussian()
    denoiser = data.denoiser(schedule)
    step = ancestral() if std == "posterior" else ancestral(transition_std)
    mean, variance = 0.0, schedule.sigma(ONE).item() ** 2
    grid = times(T)
    probe = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    mean_of_step = ancestral(lambda *_: torch.zeros((), dtype=torch.float64))
    for t, s in itertools.pairwise(grid):
        d, c = mean_of_step(denoiser, State(t, probe), s).x[:, 0].tolist()
        c -= d
        alpha_bar_ratio = (schedule.alpha(t) / schedule.alpha(s)).item() ** 2
        beta = 1 - alpha_bar_ratio
        beta_tilde = beta * (schedule.sigma(s) / schedule.sigma(t)).item() ** 2
        mean, variance = c * mean + d, c**2 * variance + (0 if s == 0 else beta if std == "transition" else beta_tilde)
    x = sample(step, denoiser, prior(schedule, (n, 1), generator, dtype=torch.float64), grid, generator=generator)
    assert abs(x.mean().item() - mean) < 6 * math.sqrt(variance / n)
    assert abs(x.var().item() / variance - 1) < 6 * math.sqrt(2 / n)


SMOOTH = {"linear": BetaSchedule.linear(1000), "cosine": CosineSchedule(), "flow": FlowSchedule()}


@pytest.mark.parametrize(
    "step", [ancestral(), ddim(), heun(), dpmpp_2m()], ids=["ancestral", "ddim", "heun", "dpmpp_2m"]
)
@pytest.mark.parametrize("schedule", SMOOTH.values(), ids=SMOOTH.keys())
def test_sampling_a_mixture_with_its_exact_denoiser_passes_a_two_sample_test(step, schedule, generator):
    mixture = GaussianMixture(*ring(5, 0.15))
    x = prior(schedule, (1500, 2), generator, dtype=torch.float64)
    x = sample(step, mixture.denoiser(schedule), x, times(300), generator=generator)
    assert two_sample_p_value(x, mixture.sample(1500, generator), generator) > 0.002


def test_the_two_sample_test_can_fail(generator):
    mixture = GaussianMixture(*ring(5, 0.15))
    with_noise_left = mixture.sample(1500, generator)
    with_noise_left += 0.25 * torch.randn(1500, 2, generator=generator, dtype=torch.float64)
    assert two_sample_p_value(with_noise_left, mixture.sample(1500, generator), generator) <= 0.002


def test_one_ddim_step_from_t_to_s_goes_back_and_forth_on_a_point():
    # A single data point: x_0_hat is the point, so the deterministic path is exact and can be walked in any stride.
    schedule = VPSchedule()
    x_0 = torch.tensor([[1.3]], dtype=torch.float64)
    denoiser = GaussianMixture(torch.ones(1), x_0, torch.zeros(1).double()).denoiser(schedule)
    eps = torch.tensor([[0.4]], dtype=torch.float64)
    grid = torch.tensor([1.0, 0.6, 0.25], dtype=torch.float64)
    end = sample(ddim(), denoiser, q_sample(schedule, x_0, ONE, eps), grid)
    assert_close(end, q_sample(schedule, x_0, grid[-1], eps))


def test_a_trajectory_yields_every_state_and_keeps_one_step_of_memory():
    schedule = VPSchedule()
    states = list(trajectory(ddim(), gaussian().denoiser(schedule), prior(schedule, (3, 1)).double(), times(7)))
    assert [round(float(s.t) * 7) for s in states] == list(range(7, -1, -1))
    assert states[0].x_0_hat is None and all(s.x_0_hat is not None for s in states[1:])
    last = states[-1]
    assert last.previous is not None and torch.equal(last.previous.x, states[-2].x)
    depth, state = 0, last
    while state.previous is not None:
        depth, state = depth + 1, state.previous
    assert depth <= 2
    assert_close(last.x, sample(ddim(), gaussian().denoiser(schedule), states[0].x, times(7)))


def test_the_last_x_is_the_last_x_0_hat():
    schedule = CosineSchedule()
    *_, last = trajectory(ancestral(), gaussian().denoiser(schedule), torch.randn(5, 1).double(), times(9))
    assert_close(last.x, last.x_0_hat)


def test_the_same_generator_gives_the_same_samples():
    denoiser = gaussian().denoiser(VPSchedule())
    x = torch.zeros(9, 1).double()
    draws = [
        sample(ancestral(), denoiser, x, times(5), generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    ]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


GOOD = torch.zeros(2, 1).double()


@pytest.mark.parametrize(
    ("x", "grid", "condition", "sentence"),
    [
        (GOOD, torch.tensor([0.0, 1.0]), None, "fall strictly"),
        (GOOD, torch.tensor([1.5, 0.0]), None, "stay in"),
        (GOOD, torch.tensor([1.0]), None, "falling float tensor"),
        (GOOD, torch.tensor([2, 1]), None, "falling float tensor"),
        (GOOD * float("nan"), times(3), None, "NaN"),
        (torch.zeros(0, 1), times(3), None, "B >= 1"),
        (torch.zeros(3), times(3), None, "float batch"),
        (torch.zeros(3, 1).long(), times(3), None, "float batch"),
        (GOOD, times(3), torch.zeros(3).long(), "one label per example"),
    ],
)
def test_wrong_arguments_get_a_sentence(x, grid, condition, sentence):
    with pytest.raises(ValueError, match=sentence):
        sample(ddim(), gaussian().denoiser(VPSchedule()), x, grid, condition)


def test_a_model_in_training_mode_is_refused():
    model = DiffusionModel(ResidualMLP(1), CosineSchedule(), V)
    with pytest.raises(ValueError, match="eval"):
        sample(ddim(), model, torch.randn(2, 1), times(2))
    assert sample(ddim(), model.eval(), torch.randn(2, 1), times(2)).shape == (2, 1)
    with pytest.raises(ValueError, match="eta=2"):
        ddim(2)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@pytest.mark.parametrize("schedule", [VPSchedule(), CosineSchedule(), FlowSchedule()], ids=["vp", "cosine", "flow"])
def test_the_measured_order_is_the_stated_one(method, schedule):
    assert abs(measured_order(method, schedule) - method.order) < 0.1


@pytest.mark.parametrize("T", [20, 100])
def test_euler_maruyama_has_the_moments_of_its_own_recursion(T, generator):
    schedule, n, data = VPSchedule(), 100_000, gaussian()
    mean, variance, grid = 0.0, schedule.sigma(ONE).item() ** 2, times(T)
    m, s2 = 0.7, 0.25
    for t, s in itertools.pairwise(grid):
        f, g2, a = schedule.drift(t).item(), schedule.diffusion(t).item() ** 2, schedule.alpha(t).item()
        h, spread = (t - s).item(), a**2 * s2 + schedule.sigma(t).item() ** 2  # the score is -(x - a m) / spread
        c = 1 - h * (f + g2 / spread)
        mean, variance = c * mean + h * g2 * a * m / spread, c**2 * variance + (h * g2 if s > 0 else 0)
    x = prior(schedule, (n, 1), generator, dtype=torch.float64)
    x = sample(euler_maruyama(), data.denoiser(schedule), x, grid, generator=generator)
    assert abs(x.mean().item() - mean) < 6 * math.sqrt(variance / n)
    assert abs(x.var().item() / variance - 1) < 6 * math.sqrt(2 / n)


def test_euler_maruyama_refuses_to_start_where_the_sde_is_infinite():
    with pytest.raises(ValueError, match="just below 1"):
        sample(euler_maruyama(), gaussian().denoiser(CosineSchedule()), torch.zeros(2, 1).double(), times(5))
    below = 0.99 * times(20)
    assert (
        sample(euler_maruyama(), gaussian().denoiser(CosineSchedule()), torch.zeros(2, 1).double(), below)
        .isfinite()
        .all()
    )


def test_ddim_is_euler_in_the_variables_x_over_alpha_and_sigma_over_alpha():
    schedule, x = VPSchedule(), torch.randn(5, 1, dtype=torch.float64)
    denoiser = gaussian().denoiser(schedule)
    t, s = torch.tensor([0.8, 0.6], dtype=torch.float64)
    ratio = lambda t: schedule.sigma(t) / schedule.alpha(t)  # noqa: E731
    eps_hat = (x - schedule.alpha(t) * denoiser(x, t)) / schedule.sigma(t)
    y = x / schedule.alpha(t) + (ratio(s) - ratio(t)) * eps_hat
    assert_close(ddim()(denoiser, State(t, x), s).x, schedule.alpha(s) * y)


def test_the_first_step_of_dpm_solver_is_ddims():
    schedule, x = CosineSchedule(), torch.randn(5, 1, dtype=torch.float64)
    s = torch.tensor(0.7, dtype=torch.float64)
    for t in (ONE, torch.tensor(0.9, dtype=torch.float64)):
        states = [step(gaussian().denoiser(schedule), State(t, x), s) for step in (dpmpp_2m(), ddim())]
        assert_close(states[0].x, states[1].x)


def test_heun_asks_twice_a_step_but_once_at_the_end_and_never_at_0():
    schedule, asked = CosineSchedule(), []

    class Spy:
        def __init__(self):
            self.schedule = schedule

        def __call__(self, x_t, t, condition=None):
            asked.append(float(t))
            return x_t * 0

    sample(heun(), Spy(), torch.ones(2, 1), times(4))
    assert len(asked) == 7 and min(asked) > 0


@every_schedule
def test_karras_grid_is_even_in_the_root_of_the_noise_ratio(schedule):
    grid = karras(schedule, 20)
    assert len(grid) == 21 and grid[0] == 1 and grid[-1] == 0 and (grid[1:] < grid[:-1]).all()
    ratio = torch.exp(-schedule.log_snr(grid[1:-1]) / 2)
    assert_close(ratio[-1].item(), 0.002, rtol=1e-6, atol=0)
    steps = (ratio ** (1 / 7)).diff()
    assert_close(steps, steps.mean().expand_as(steps), rtol=1e-6, atol=0)
    with pytest.raises(ValueError, match="sigma_min"):
        karras(schedule, 20, sigma_min=1e9)


def test_karras_grid_on_edms_schedule_is_the_papers():
    grid, n = karras(EDMSchedule(80.0), 18) * 80, 18
    expected = [(80 ** (1 / 7) + i / (n - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(n)]
    assert_close(grid, torch.tensor([*expected, 0.0], dtype=torch.float64))


@pytest.mark.parametrize("step", [ancestral(), ddim(), ddim(1.0), euler(), heun(), dpmpp_2m()])
def test_with_a_treatment_eps_is_derived_again_from_the_treated_x_0(step):
    # data outside [-1, 1], clipped: every sampler must end on the clipped value, and pass through states that fit it
    schedule = CosineSchedule()
    outside = GaussianMixture(torch.ones(1), torch.tensor([[3.0]]).double(), torch.zeros(1).double()).denoiser(schedule)
    *_, last = trajectory(step, Treated(outside, clip_x_0), torch.randn(4, 1).double(), times(200))
    assert_close(last.x, torch.ones(4, 1).double(), atol=0.03, rtol=0)


def test_dynamic_threshold_scales_only_what_is_too_large():
    x = torch.tensor([[0.5, -0.5, 0.2, 0.1], [4.0, -2.0, 1.0, 0.0]])
    assert_close(dynamic_threshold(1.0)(x), torch.tensor([[0.5, -0.5, 0.2, 0.1], [1.0, -0.5, 0.25, 0.0]]))
    with pytest.raises(ValueError, match="quantile=0"):
        dynamic_threshold(0)
    assert Treated(gaussian().denoiser(VPSchedule()), clip_x_0).training is False
