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
    SubVPSchedule,
    Treated,
    V,
    VESchedule,
    VPSchedule,
    adaptive_sde,
    ancestral,
    annealed_langevin,
    clip_x_0,
    corrected,
    ddim,
    dequantize,
    diffuse,
    dpmpp_2m,
    dynamic_threshold,
    elbo,
    euler,
    euler_maruyama,
    heun,
    invert,
    karras,
    leading,
    log_likelihood,
    prior,
    q_marginal,
    q_sample,
    resampled,
    ring,
    sample,
    slerp,
    times,
    trailing,
    trajectory,
    transition_std,
)
from tests.cases import Learnt, every_schedule

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
    with pytest.raises(ValueError, match=r"steps=0; .* at least 1"):
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


def test_trailing_and_leading_nodes_are_those_of_the_papers_table():
    # Lin et al. 2024, table 2: T = 1000 and 10 steps, which count their nodes from 1 as we do
    assert (trailing(1000, 10) * 1000).tolist() == [1000, 900, 800, 700, 600, 500, 400, 300, 200, 100, 0]
    assert (leading(1000, 10) * 1000).tolist() == [901, 801, 701, 601, 501, 401, 301, 201, 101, 1, 0]
    assert (leading(1000, 3, offset=1) * 1000).tolist() == [668, 335, 2, 0]
    assert (trailing(1000, 3) * 1000).tolist() == [1000, 667, 333, 0]
    assert torch.equal(trailing(1000, 50), times(50)) and torch.equal(leading(10, 10), times(10))


@pytest.mark.parametrize(
    ("grid", "arguments"),
    [(trailing, (11,)), (leading, (11,)), (leading, (5, 2)), (leading, (10, 1))],
)
def test_nodes_that_a_table_has_not_are_refused(grid, arguments):
    with pytest.raises(ValueError, match="table of 10 betas"):
        grid(10, *arguments)


@pytest.mark.parametrize(
    ("step", "within"),
    [(ddim(), 1e-9), (dpmpp_2m(), 1e-9), (euler(), 0.01), (heun(), 1e-3), (ancestral(), None), (ddim(1.0), None)],
)
def test_with_a_treatment_eps_is_derived_again_from_the_treated_x_0(step, within):
    # all data at 3, clipped to 1. Whatever the state, x_0_hat is then 1, and the way there is known in closed form:
    # alpha + sigma eps with the eps of the start, and for a sampler with noise N(alpha, sigma^2).
    schedule = CosineSchedule()
    outside = GaussianMixture(torch.ones(1), torch.tensor([[3.0]]).double(), torch.zeros(1).double()).denoiser(schedule)
    eps = torch.randn(4 if within else 20_000, 1).double()
    states = list(trajectory(step, Treated(outside, clip_x_0), eps, times(200 if within else 20)))
    for state in states[1:]:
        alpha, sigma = schedule.scales(state.t, eps)
        if within:
            assert_close(state.x, alpha + sigma * eps, atol=within, rtol=0)
        else:
            z = (state.x - alpha) / sigma if state.t > 0 else state.x - 1
            assert abs(z.mean()) < 6 / 20_000**0.5 and (state.t == 0 or abs(z.std() - 1) < 6 / 40_000**0.5)
    assert len(states) > 20 and states[-1].t == 0


def test_dynamic_threshold_scales_only_what_is_too_large():
    x = torch.tensor([[0.5, -0.5, 0.2, 0.1], [4.0, -2.0, 1.0, 0.0]])
    assert_close(dynamic_threshold(1.0)(x), torch.tensor([[0.5, -0.5, 0.2, 0.1], [1.0, -0.5, 0.25, 0.0]]))
    for dtype in (torch.half, torch.bfloat16):
        assert_close(dynamic_threshold(1.0)(x.to(dtype)), dynamic_threshold(1.0)(x).to(dtype))
    with pytest.raises(ValueError, match="quantile=0"):
        dynamic_threshold(0)
    assert Treated(gaussian().denoiser(VPSchedule()), clip_x_0).training is False


@every_schedule
def test_inversion_with_iterations_comes_back_exactly_and_without_errs_as_one_over_steps(schedule):
    mixture = GaussianMixture(*ring(5, 0.15)).to(ONE)
    denoiser, x_0 = mixture.denoiser(schedule), mixture.sample(20, torch.Generator().manual_seed(0))

    def round_trip(steps, iterations):
        grid = karras(schedule, steps, sigma_min=0.02)
        *_, top = invert(denoiser, x_0, grid, iterations=iterations)
        assert top.t == 1
        return float((sample(ddim(), denoiser, top.x, grid) - x_0).square().mean().sqrt())

    once = [round_trip(steps, 1) for steps in (40, 80)]
    assert 1.5 < once[0] / once[1] < 3  # order 1
    assert round_trip(80, 60) < 1e-2 * once[1]


def test_inversion_finds_the_noise_of_a_gaussian():
    # the flow of one Gaussian keeps z = (x - mean) / std, so that the noise behind x_0 is known
    schedule, data = VPSchedule(), gaussian()
    z = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
    states = list(invert(data.denoiser(schedule), 0.7 + 0.5 * z, times(2000)))
    q_1 = data.marginal(schedule, ONE)
    assert_close(states[-1].x, q_1.means + q_1.stds * z, rtol=0, atol=5e-3)
    assert [float(s.t) for s in states[:2]] == [0, 1 / 2000] and states[1].previous.x is states[0].x
    assert all(b.t > a.t for a, b in itertools.pairwise(states))


def test_asking_at_the_target_time_errs_less_than_at_the_current_one():
    # the other convention, written out: eps_hat at (x_s, s), which must skip s = 0
    schedule = VPSchedule()
    mixture = GaussianMixture(*ring(5, 0.15)).to(ONE)
    denoiser, x_0 = mixture.denoiser(schedule), mixture.sample(50, torch.Generator().manual_seed(0))
    grid = torch.cat([times(50)[:-1], torch.tensor([1e-4], dtype=torch.float64)])
    x = x_0
    for s, t in itertools.pairwise(grid.flip(0)):
        eps_hat = (x - schedule.alpha(s) * denoiser(x, s)) / schedule.sigma(s)
        x = schedule.alpha(t) * (x - schedule.sigma(s) * eps_hat) / schedule.alpha(s) + schedule.sigma(t) * eps_hat
    *_, top = invert(denoiser, x_0, grid)
    errors = [float((sample(ddim(), denoiser, y, grid) - x_0).square().mean().sqrt()) for y in (top.x, x)]
    assert errors[0] < errors[1]


def test_slerp_keeps_to_the_sphere_and_the_chord_does_not():
    a, b = torch.randn(2, 50, 1, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a, b = (x / x.flatten(1).norm(dim=1)[:, None, None, None] for x in (a, b))
    for weight in (0.0, 0.3, 0.5, 1.0):
        assert_close(slerp(a, b, weight).flatten(1).norm(dim=1), torch.ones(50, dtype=torch.float64))
    assert ((a + b) / 2).flatten(1).norm(dim=1).max() < 0.8
    assert_close(slerp(a, b, 0.0), a)
    assert_close(slerp(a, b, 1.0), b)
    each = slerp(a, b, torch.linspace(0, 1, 50, dtype=torch.float64))
    assert_close(each[[0, -1]], torch.stack([a[0], b[-1]]))
    # equal angles: in the plane, a third of a right angle is 30 degrees
    x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert_close(slerp(x, y, 1 / 3), torch.tensor([[math.cos(math.pi / 6), math.sin(math.pi / 6)]]))
    assert_close(slerp(x, 3 * x, 0.5), 2 * x)  # parallel: the chord
    with pytest.raises(ValueError, match="the same"):
        slerp(x, a, 0.5)


FORWARD = {"vp": VPSchedule(), "sub-vp": SubVPSchedule(), "ve": VESchedule(0.1, 3.0)}


@pytest.mark.parametrize("schedule", FORWARD.values(), ids=FORWARD.keys())
def test_the_forward_sde_has_the_moments_of_its_recursion_and_in_the_limit_the_processs(schedule, generator):
    n = 50_000
    moments = {}
    for steps in (20, 2000):
        mean, variance = 1.3, 0.0
        for s, t in itertools.pairwise(times(steps).flip(0)):
            f, g2, dt = schedule.drift(s).item(), schedule.diffusion(s).item() ** 2, (t - s).item()
            mean, variance = mean * (1 + f * dt), variance * (1 + f * dt) ** 2 + g2 * dt
        moments[steps] = mean, variance
    states = list(diffuse(schedule, torch.full((n, 1), 1.3, dtype=torch.float64), times(20), generator))
    assert [round(float(s.t) * 20) for s in states] == list(range(21))
    mean, variance = moments[20]
    assert abs(states[-1].x.mean().item() - mean) < 6 * math.sqrt(variance / n)
    assert abs(states[-1].x.var().item() / variance - 1) < 6 * math.sqrt(2 / n)
    exact = q_marginal(schedule, torch.full((1, 1), 1.3, dtype=torch.float64), ONE)
    assert_close(moments[2000][0], exact.mean.item(), rtol=0, atol=0.01)
    assert_close(moments[2000][1], exact.variance.item(), rtol=0.01, atol=0)


CORRECTORS = {"vp": VPSchedule(), "sub-vp": SubVPSchedule(), "ve": VESchedule()}


@pytest.mark.parametrize("schedule", CORRECTORS.values(), ids=CORRECTORS.keys())
def test_langevin_moves_have_the_variance_of_their_own_recursion(schedule, generator):
    # at s the score of one Gaussian is linear: x <- c x + d + sqrt(2) size sigma z, a recursion of numbers
    n, size, moves = 100_000, 0.3, 5
    data, s = gaussian(), torch.tensor(0.5, dtype=torch.float64)
    q_s = data.marginal(schedule, s)
    m, S2, sigma = q_s.means.item(), q_s.stds.item() ** 2, schedule.sigma(s).item()
    stay = lambda denoiser, state, s, condition, generator: State(s, state.x)  # noqa: E731
    state = State(torch.tensor(0.6, dtype=torch.float64), torch.full((n, 1), m + 1.0, dtype=torch.float64))
    x = corrected(stay, moves, size)(data.denoiser(schedule), state, s, None, generator).x
    mean, variance, c = 1.0, 0.0, 1 - (size * sigma) ** 2 / S2
    for _ in range(moves):
        mean, variance = c * mean, c**2 * variance + 2 * (size * sigma) ** 2
    assert abs(x.mean().item() - m - mean) < 6 * math.sqrt(variance / n)
    assert abs(x.var().item() / variance - 1) < 6 * math.sqrt(2 / n)


@pytest.mark.parametrize("schedule", CORRECTORS.values(), ids=CORRECTORS.keys())
def test_a_corrector_mends_what_the_predictor_has_spoilt(schedule, generator):
    # few steps of Euler-Maruyama leave the wrong variance; Langevin moves bring it nearer to that of q(x_s)
    n, data, grid = 20_000, gaussian(), 0.999 * karras(schedule, 15, sigma_min=0.3)[:-1]
    expected = data.marginal(schedule, grid[-1]).stds.item()
    error = []
    for step in (euler_maruyama(), corrected(euler_maruyama(), 40, 0.3)):
        x = prior(schedule, (n, 1), generator, dtype=torch.float64)
        x = sample(step, data.denoiser(schedule), x, grid, generator=generator)
        error.append(abs(x.std().item() / expected - 1))
    assert error[1] < 0.5 * error[0]


def test_annealed_langevin_samples_a_mixture_of_which_plain_langevin_sees_one_mode(generator):
    mixture = GaussianMixture(torch.tensor([0.8, 0.2]), torch.tensor([[-3.0], [3.0]]), torch.tensor([0.3, 0.3])).to(ONE)
    schedule = VESchedule(0.01, 10.0)
    x = prior(schedule, (2000, 1), generator, dtype=torch.float64)
    x = sample(annealed_langevin(20, 0.3), mixture.denoiser(schedule), x, karras(schedule, 30), generator=generator)
    assert abs((x > 0).double().mean().item() - 0.2) < 0.06
    assert abs(x[x < 0].mean().item() + 3) < 0.05 and abs(x[x < 0].std().item() - 0.3) < 0.05
    # all at the last level, from the same kind of start: the weights of the modes are those of where x began
    s, t = torch.tensor([0.05, 0.06], dtype=torch.float64)
    x = prior(schedule, (2000, 1), generator, dtype=torch.float64)
    x = annealed_langevin(600, 0.3)(mixture.denoiser(schedule), State(t, x), s, None, generator).x
    assert abs((x > 0).double().mean().item() - 0.5) < 0.05


@pytest.mark.parametrize("step", [corrected(ddim()), annealed_langevin(), resampled(ancestral())])
def test_a_step_around_a_step_adds_no_noise_at_0(step):
    denoiser, t = gaussian().denoiser(VPSchedule()), torch.tensor(0.05, dtype=torch.float64)
    x = torch.randn(1, 1, dtype=torch.float64).expand(64, 1)
    end = step(denoiser, State(t, x), torch.zeros((), dtype=torch.float64), None, torch.Generator().manual_seed(0))
    assert end.x.std() == 0
    assert_close(end.x, denoiser(x, t))


def test_resampling_a_plain_denoiser_keeps_the_marginal(generator):
    # x_t ~ q(x_t) goes down, up and down again by the true transitions of a point: still q(x_s)
    schedule, n = VPSchedule(), 100_000
    point = GaussianMixture(torch.ones(1), torch.tensor([[1.3]]), torch.zeros(1)).to(ONE).denoiser(schedule)
    s, t = torch.tensor([0.5, 0.8], dtype=torch.float64)
    x_0 = torch.full((n, 1), 1.3, dtype=torch.float64)
    x_t, expected = q_marginal(schedule, x_0, t).sample(generator), q_marginal(schedule, x_0, s)
    x_s = resampled(ancestral(), 4)(point, State(t, x_t), s, None, generator).x
    assert abs(x_s.mean().item() - expected.mean[0].item()) < 6 * expected.std.item() / math.sqrt(n)
    assert abs(x_s.std().item() / expected.std.item() - 1) < 6 / math.sqrt(2 * n)


@pytest.mark.parametrize("count", [1, 3])
def test_resampling_takes_each_step_as_often_as_it_says_and_the_last_once(count):
    point = GaussianMixture(torch.ones(1), torch.tensor([[1.3]]), torch.zeros(1)).to(ONE).denoiser(VPSchedule())
    taken, once = [], ancestral()

    def step(denoiser, state, s, condition=None, generator=None):
        taken.append(float(s))
        return once(denoiser, state, s, condition, generator)

    grid = torch.tensor([0.9, 0.5, 0.2, 0.0], dtype=torch.float64)
    sample(resampled(step, count), point, torch.randn(2, 1, dtype=torch.float64), grid)
    assert taken == count * [0.5] + count * [0.2] + [0.0]


def test_steps_around_steps_and_walks_upwards_refuse_wrong_numbers():
    for make, sentence in (
        (lambda: corrected(ddim(), 0), "moves=0; .* at least 1"),
        (lambda: annealed_langevin(3, 1.5), "between 0 and 1"),
        (lambda: resampled(ddim(), 0), "times=0; .* at least 1"),
        (
            lambda: list(invert(gaussian().denoiser(VPSchedule()), GOOD, times(3), iterations=0)),
            "iterations=0; .* at least 1",
        ),
        (lambda: list(invert(gaussian().denoiser(VPSchedule()), GOOD, times(3).flip(0))), "fall strictly"),
        (lambda: list(diffuse(VPSchedule(), GOOD, times(3).flip(0))), "fall strictly"),
    ):
        with pytest.raises(ValueError, match=sentence):
            make()


def test_eta_is_a_share_of_the_standard_deviation():
    schedule = CosineSchedule()
    s, t = (torch.tensor(u, dtype=torch.float64) for u in (0.4, 0.6))
    denoiser, x_t = gaussian().denoiser(schedule), torch.randn(5, 1).double()

    def added(eta):  # what two draws of the noise make of the difference
        a, b = (
            ddim(eta)(denoiser, State(t, x_t), s, generator=torch.Generator().manual_seed(seed)).x for seed in (1, 2)
        )
        return a - b

    assert_close(added(0.3), 0.3 * added(1.0), rtol=1e-9, atol=1e-12)
    assert float(added(1.0).abs().min()) > 0


def test_dpm_solvers_second_step_is_the_papers_on_uneven_steps_and_its_last_ends_at_0():
    # Lu et al. 2022, algorithm 2, in lambda = log(alpha / sigma), on a step twice as long as the one before
    schedule, x = VPSchedule(), torch.randn(3, 1).double()
    denoiser = gaussian().denoiser(schedule)
    grid = torch.tensor([0.9, 0.8, 0.4, 0.0], dtype=torch.float64)
    start, first, second, last = trajectory(dpmpp_2m(), denoiser, x, grid)
    lambdas = schedule.log_snr(grid[:3]) / 2
    h_1, h_2 = lambdas.diff()
    r = h_1 / h_2
    D = (1 + 1 / (2 * r)) * denoiser(first.x, grid[1]) - 1 / (2 * r) * denoiser(start.x, grid[0])
    keep = schedule.sigma(grid[2]) / schedule.sigma(grid[1])
    assert_close(second.x, keep * first.x - schedule.alpha(grid[2]) * torch.expm1(-h_2) * D, rtol=1e-10, atol=1e-12)
    assert last.t == 0 and torch.equal(last.x, denoiser(second.x, grid[2]))


def test_langevin_in_half_precision_has_its_pull_too():
    # (size sigma)^2 is below what half precision holds, and size^2 is not
    schedule, point = VPSchedule(), GaussianMixture(torch.ones(1), torch.zeros(1, 2), torch.zeros(1))
    grid = torch.tensor([1.0, float(schedule.time_at(torch.tensor(-2 * math.log(0.002)))), 0.0], dtype=torch.float64)
    for dtype in (torch.float32, torch.float16):
        seed, x = torch.Generator().manual_seed(0), torch.zeros(2000, 2, dtype=dtype)
        step = annealed_langevin(400, 0.05)
        low = list(trajectory(step, point.denoiser(schedule), x, grid, generator=seed))[1].x
        assert_close(low.float().std().item() / 0.002, 1.0, rtol=0.1, atol=0)


def test_karras_largest_ratio_is_where_its_even_steps_begin():
    assert torch.equal(karras(CosineSchedule(), 4, sigma_max=math.inf), karras(CosineSchedule(), 4))
    schedule = EDMSchedule()
    grid = karras(schedule, 6, sigma_max=10.0)
    root = (schedule.sigma(grid[1:-1]) / schedule.alpha(grid[1:-1])) ** (1 / 7)
    assert grid[0] == 1
    share = torch.arange(1, 6).double() / 5
    assert_close(root, 10 ** (1 / 7) + share * (0.002 ** (1 / 7) - 10 ** (1 / 7)), rtol=1e-9, atol=0)


DRAWS = {
    **{
        name: lambda denoiser, x, seed, step=step: sample(step, denoiser, x, times(4), generator=seed)
        for name, step in {
            "ancestral": ancestral(),
            "ddim(1)": ddim(1.0),
            "euler_maruyama": euler_maruyama(),
            "corrected": corrected(ddim()),
            "annealed_langevin": annealed_langevin(2),
            "resampled": resampled(ddim()),
        }.items()
    },
    "diffuse": lambda denoiser, x, seed: list(diffuse(VPSchedule(), x, times(4), seed))[-1].x,
    "adaptive_sde": lambda denoiser, x, seed: list(adaptive_sde(denoiser, x, 0.1, 0.1, generator=seed))[-1].x,
    "elbo": lambda denoiser, x, seed: elbo(denoiser, x, times(4), generator=seed).total,
    "probes": lambda denoiser, x, seed: log_likelihood(
        MOONS.denoiser(VPSchedule()), torch.ones(2, 2).double(), generator=seed, probes=1, atol=1e-2, rtol=1e-2
    ),
    "dequantize": lambda denoiser, x, seed: dequantize(x, seed),
}
MOONS = GaussianMixture(*ring(3, 0.2)).to(torch.ones((), dtype=torch.float64))


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS.keys())
def test_a_generator_that_is_given_is_the_source_of_all_noise(draw):
    ends = []
    for elsewhere in (1, 2):
        torch.manual_seed(elsewhere)
        x, seed = torch.zeros(5, 1, dtype=torch.float64), torch.Generator().manual_seed(0)
        ends.append(draw(gaussian().denoiser(VPSchedule()), x, seed))
    assert torch.equal(*ends)


def test_diffuse_does_not_step_from_where_the_schedule_has_no_diffusion():
    x_0 = torch.ones(3, 2)
    with pytest.raises(ValueError, match="step from t = 0, where Learnt has the drift -3 and the diffusion nan"):
        list(diffuse(Learnt(), x_0, times(10)))
    above = torch.linspace(1, 1e-3, 11, dtype=torch.float64)
    assert torch.isfinite(list(diffuse(Learnt(), x_0, above))[-1].x).all()


def test_slerp_of_one_pair_without_its_batch_gets_a_sentence():
    with pytest.raises(ValueError, match=r"slerp got a of shape \(5,\)"):
        slerp(torch.ones(5), torch.arange(5.0), 0.5)
