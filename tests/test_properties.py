"""Identities that hold for any schedule, shape, dtype and time, held against drawn examples (hypothesis)."""

import math

import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.testing import assert_close

from diffusion_edu import (
    EPS,
    SCORE,
    VELOCITY,
    X0,
    BetaSchedule,
    ClassifierFreeGuidance,
    ClassifierGuidance,
    GaussianMixture,
    V,
    angle,
    ddim,
    edm,
    invert,
    posterior_std,
    q_marginal,
    q_posterior,
    q_sample,
    q_transition,
    sample,
    score,
    slerp,
    transition_std,
)
from diffusion_edu.denoiser import State, time_at_angle, velocity, velocity_in_angle
from tests.cases import SCHEDULES

schedules = st.one_of(
    st.sampled_from(list(SCHEDULES.values())),
    st.lists(st.floats(1e-5, 0.9), min_size=1, max_size=12).map(lambda b: BetaSchedule(torch.tensor(b))),
)
rows = st.sampled_from([X0, EPS, V, SCORE, VELOCITY, edm(0.5)])
shapes = st.lists(st.integers(1, 4), min_size=1, max_size=3)
seeds = st.integers(0, 2**31)
# crowded at both ends: 1e-6 ... 0.5 ... 1 - 1e-6, on a logarithmic scale from either side
near_0 = st.floats(-6, math.log10(0.5)).map(lambda e: 10**e)
inner_times = st.one_of(near_0, near_0.map(lambda t: 1 - t))
pairs = st.tuples(inner_times, inner_times).filter(lambda p: abs(p[0] - p[1]) > 1e-9).map(sorted)


def time(t):
    return torch.tensor(t, dtype=torch.float64)


def noise(shape, seed, n=2, dtype=torch.float64):
    return torch.randn(n, 3, *shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@given(schedules, inner_times)
def test_alpha_and_sigma_are_amplitudes_and_time_at_inverts(schedule, t):
    t = time(t)
    assert 0 < schedule.alpha(t) <= 1 and schedule.sigma(t) > 0
    assert_close(schedule.time_at(schedule.log_snr(t)), t, rtol=1e-6, atol=1e-9)


@given(schedules, pairs)
def test_the_signal_to_noise_ratio_falls(schedule, pair):
    s, t = map(time, pair)
    assert schedule.log_snr(s) > schedule.log_snr(t)
    # var(x_t) = (alpha_t/alpha_s)^2 sigma_s^2 + transition variance, the composition of two jumps
    ratio = schedule.alpha(t) / schedule.alpha(s)
    composed = (ratio * schedule.sigma(s)) ** 2 + transition_std(schedule, s, t) ** 2
    assert_close(composed, schedule.sigma(t) ** 2, rtol=1e-9, atol=0)
    assert posterior_std(schedule, s, t) <= schedule.sigma(s) and transition_std(schedule, s, t) <= schedule.sigma(t)


@given(schedules, pairs, shapes, seeds)
def test_posterior_and_marginal_compose_to_the_marginal_at_s(schedule, pair, shape, seed):
    # x_t ~ q(x_t | x_0), x_s ~ q(x_s | x_t, x_0): mean and variance of x_s are those of q(x_s | x_0)
    s, t = map(time, pair)
    (x_0,) = noise(shape, seed, 1)
    at_t, at_s = q_marginal(schedule, x_0, t), q_marginal(schedule, x_0, s)
    assert_close(q_posterior(schedule, at_t.mean, x_0, s, t).mean, at_s.mean, rtol=1e-8, atol=1e-10)
    gain = schedule.alpha(t) * schedule.sigma(s) ** 2 / (schedule.alpha(s) * schedule.sigma(t) ** 2)
    variance = gain**2 * at_t.variance + posterior_std(schedule, s, t) ** 2
    assert_close(variance, at_s.variance, rtol=1e-9, atol=0)


@given(schedules, rows, inner_times, shapes, seeds)
def test_every_parameterisation_converts_both_ways(schedule, row, t, shape, seed):
    t = time(t)
    x_0, eps = noise(shape, seed)
    x_t, o = q_sample(schedule, x_0, t, eps), row.target(schedule, x_0, eps, t)
    # what float64 can give: the system's rows may be nearly parallel at the ends
    a, b = row.row(schedule, t)
    size = (a.abs() + b.abs()) * (schedule.sigma(t) + schedule.alpha(t)) / row.determinant(schedule, t).abs()
    tolerance = 1e-13 * float(size) * 10 + 1e-13
    assert_close(row.x_0(schedule, o, x_t, t), x_0, rtol=0, atol=20 * tolerance)
    assert_close(row.eps(schedule, o, x_t, t), eps, rtol=0, atol=20 * tolerance)


@given(schedules, inner_times, shapes, seeds, st.sampled_from([torch.float32, torch.float64]))
def test_one_time_for_all_and_one_time_each_are_the_same_and_keep_the_dtype(schedule, t, shape, seed, dtype):
    x_0, eps = noise(shape, seed, dtype=dtype)
    together = q_sample(schedule, x_0, time(t), eps)
    each = q_sample(schedule, x_0, time(t).expand(3), eps)
    assert together.dtype == each.dtype == dtype and torch.equal(together, each)


@given(schedules, pairs, shapes, seeds)
def test_a_deterministic_step_keeps_a_point_on_its_line(schedule, pair, shape, seed):
    s, t = map(time, pair)
    x_0, eps = noise(shape, seed)

    class Knows:
        def __init__(self):
            self.schedule = schedule

        def __call__(self, x_t, t, condition=None):
            return x_0

    x_s = ddim()(Knows(), State(t, q_sample(schedule, x_0, t, eps)), s).x
    amplification = float((schedule.alpha(t) + 1) * schedule.sigma(s) / schedule.sigma(t))
    assert_close(x_s, q_sample(schedule, x_0, s, eps), rtol=0, atol=1e-12 * (1 + amplification))


@given(schedules, pairs, shapes, seeds)
def test_a_transition_then_a_marginal_has_the_mean_of_the_jump(schedule, pair, shape, seed):
    s, t = map(time, pair)
    (x_0,) = noise(shape, seed, 1)
    step = q_transition(schedule, q_marginal(schedule, x_0, s).mean, s, t)
    assert_close(step.mean, q_marginal(schedule, x_0, t).mean, rtol=1e-10, atol=1e-12)


@given(schedules, inner_times)
def test_the_angle_is_a_time(schedule, t):
    t = time(t)
    at = angle(schedule, t)
    assert 0 < at < 1
    # what it comes back to is the noise level; t itself only as sharply as the level depends on it
    assert_close(angle(schedule, time_at_angle(schedule, at)), at, rtol=1e-7, atol=1e-12)


def mixture(seed):
    draw = torch.Generator().manual_seed(seed)
    return GaussianMixture(
        torch.rand(3, generator=draw, dtype=torch.float64) + 0.1,
        torch.randn(3, 2, generator=draw, dtype=torch.float64),
        torch.rand(3, generator=draw, dtype=torch.float64) + 0.2,
        torch.tensor([0, 1, 0]),
    )


@given(schedules, st.floats(0.05, 0.95), seeds)
def test_the_ode_in_the_angle_is_the_ode_in_t_at_another_speed(schedule, t, seed):
    t, denoiser = time(t), mixture(seed).denoiser(schedule)
    x = noise((2,), seed, 1)[0]
    _, dx = velocity_in_angle(denoiser, x, t)
    v = velocity(denoiser, x, t)
    h = 1e-6
    # BetaSchedule is left out of the speed's check where a node lies between the two points
    turn = (angle(schedule, t + h) - angle(schedule, t - h)) / (2 * h)
    corner = isinstance(schedule, BetaSchedule)
    cosine = (dx * v).sum() / (dx.norm() * v.norm())
    assert_close(cosine, torch.ones_like(cosine), rtol=1e-9, atol=0)
    if not corner:
        assert_close(dx * turn, v, rtol=1e-5, atol=1e-8)


@given(schedules, st.floats(0.02, 0.98), seeds, st.floats(-2, 5))
def test_guidance_moves_the_score_by_the_scale_times_the_classifiers_gradient(schedule, t, seed, w):
    t, data = time(t), mixture(seed)
    x, labels = noise((2,), seed, 1)[0], torch.tensor([0, 1, 1])
    denoiser, classifier = data.denoiser(schedule), data.classifier(schedule)
    guided = ClassifierGuidance(denoiser, classifier, w)
    gradient = guided.log_prob_gradient(x, t, labels)
    size = float(1 + gradient.abs().max() + score(denoiser, x, t).abs().max()) * (1 + abs(w))
    expected = score(denoiser, x, t) + w * gradient
    assert_close(score(guided, x, t, labels), expected, rtol=0, atol=1e-8 * size)
    free = score(ClassifierFreeGuidance(denoiser, w), x, t, labels)
    # E[x_0 | x_t, y] - E[x_0 | x_t] is a difference of numbers of the size of x / alpha
    assert_close(free, expected, rtol=0, atol=1e-8 * size / float(schedule.alpha(t)) ** 2)


@given(schedules, st.integers(1, 6), shapes, seeds)
def test_inversion_is_exact_where_the_denoiser_does_not_listen(schedule, steps, shape, seed):
    # x_0_hat a constant: each equation is linear, and enough iterations solve it
    x_0, eps = noise(shape, seed)

    class Constant:
        def __init__(self):
            self.schedule = schedule

        def __call__(self, x_t, t, condition=None):
            return x_0

    grid = torch.linspace(0.9, 0.1, steps + 1, dtype=torch.float64)
    level = schedule.sigma(grid) / schedule.alpha(grid)
    assume(float((level[1:] / level[:-1]).min()) > 0.05)  # an iteration leaves 1 - this of the error
    x = q_sample(schedule, x_0, grid[-1], eps)
    *_, top = invert(Constant(), x, grid, iterations=400)
    assert_close(sample(ddim(), Constant(), top.x, grid), x, rtol=1e-6, atol=1e-6)


@given(shapes, seeds, st.floats(0, 1))
def test_slerp_is_symmetric_and_between(shape, seed, weight):
    a, b = noise(shape, seed)
    assert_close(slerp(a, b, weight), slerp(b, a, 1 - weight), rtol=1e-9, atol=1e-9)


# within a millionth of either end, in both precisions, without a batch, and with an empty one

edges = st.floats(-9, -6).map(lambda e: 10**e)
edge_times = st.one_of(edges, edges.map(lambda t: 1 - t), st.just(1.0))
any_times = st.one_of(inner_times, edge_times)


@given(schedules, any_times)
def test_drift_and_diffusion_are_those_of_alpha_and_sigma(schedule, t):
    # g^2 = 2 sigma sigma' - 2 f sigma^2 and f = alpha' / alpha; at t = 1 alpha may be 0 and both infinite
    t = time(t)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    assume(alpha > 0)
    alpha_rate, sigma_rate = schedule.rates(t)
    assert_close(schedule.drift(t), alpha_rate / alpha, rtol=1e-9, atol=1e-12)
    g_squared = 2 * sigma * sigma_rate - 2 * schedule.drift(t) * sigma**2
    assert_close(schedule.diffusion(t) ** 2, g_squared, rtol=1e-6, atol=0)


@given(schedules, edge_times, edge_times)
def test_at_the_ends_too_the_ratio_falls_and_two_jumps_are_one(schedule, s, t):
    s, t = map(time, sorted((s, t)))
    assume(t - s > 1e-3 * min(t, 1 - s))
    assert schedule.log_snr(s) > schedule.log_snr(t)
    for u in (s, t):  # sigma keeps its digits where alpha_bar rounds to 1
        by_amplitudes = 2 * (torch.log(schedule.alpha(u)) - torch.log(schedule.sigma(u)))
        assert torch.equal(schedule.log_snr(u), by_amplitudes) or abs(schedule.log_snr(u) - by_amplitudes) < 1e-9
    ratio = schedule.alpha(t) / schedule.alpha(s)
    composed = (ratio * schedule.sigma(s)) ** 2 + transition_std(schedule, s, t) ** 2
    assert_close(composed, schedule.sigma(t) ** 2, rtol=1e-9, atol=0)
    assert 0 <= posterior_std(schedule, s, t) <= schedule.sigma(s)


@given(schedules, any_times, seeds)
def test_the_posterior_at_0_is_the_point_and_at_t_itself_keeps_x_t(schedule, t, seed):
    x_0, x_t = noise((2,), seed)
    t = time(t)
    at_0 = q_posterior(schedule, x_t, x_0, time(0.0), t)
    assert_close(at_0.mean, x_0, rtol=1e-12, atol=1e-12)
    assert at_0.std == 0
    at_t = q_posterior(schedule, x_t, x_0, t, t)
    assume(schedule.alpha(t) > 0)
    assert_close(at_t.mean, x_t, rtol=1e-12, atol=1e-12)
    assert at_t.std == 0


@given(schedules, rows, any_times, shapes, seeds)
def test_any_output_of_a_network_is_a_pair_that_makes_x_t(schedule, row, t, shape, seed):
    # not only outputs that are right: what is read from any o solves both lines of the system
    t = time(t)
    o, x_t = noise(shape, seed)
    D = row.determinant(schedule, t)
    assume(D.abs() > 1e-12)
    x_0, eps = row.x_0(schedule, o, x_t, t), row.eps(schedule, o, x_t, t)
    a, b = row.row(schedule, t)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    rounding = 1e-14 * (1 + float(x_0.abs().max()) + float(eps.abs().max()))
    assert_close(alpha * x_0 + sigma * eps, x_t, rtol=0, atol=rounding * float(alpha + sigma))
    assert_close(a * x_0 + b * eps, o, rtol=0, atol=10 * rounding * float(a.abs() + b.abs()))


@given(schedules, pairs, shapes, seeds)
def test_in_float32_every_process_is_the_one_in_float64_rounded(schedule, pair, shape, seed):
    s, t = map(time, pair)
    x_0, x = noise(shape, seed)
    for q, first, *rest in (
        (q_marginal, x_0, t),
        (q_transition, x, s, t),
        (lambda schedule, x, s, t: q_posterior(schedule, x, x_0.to(x), s, t), x, s, t),
    ):
        in_64, in_32 = q(schedule, first, *rest), q(schedule, first.float(), *rest)
        assert in_32.mean.dtype == in_32.std.dtype == torch.float32
        size = float(in_64.mean.abs().max() + x_0.abs().max() + x.abs().max())
        assert_close(in_32.mean.double(), in_64.mean, rtol=0, atol=1e-6 * size)
        assert_close(in_32.std.double(), in_64.std, rtol=1e-6, atol=1e-38)


@given(schedules, rows, pairs, seeds)
def test_a_number_alone_and_an_empty_batch_are_batches_too(schedule, row, pair, seed):
    s, t = map(time, pair)
    x_0, eps = noise((1,), seed)[:, 0, 0]  # two numbers without a batch
    x_t = q_sample(schedule, x_0, t, eps)
    assert x_t.shape == () == q_posterior(schedule, x_t, x_0, s, t).mean.shape
    assert_close(x_t, q_sample(schedule, x_0[None], t[None], eps[None])[0])
    o = row.target(schedule, x_0, eps, t)
    assert o.shape == () == row.x_0(schedule, o, x_t, t).shape
    empty = torch.empty(0, 3, dtype=torch.float64)
    for times in (t, t.expand(0), t[None]):
        assert q_sample(schedule, empty, times, empty).shape == (0, 3)
        assert row.target(schedule, empty, empty, times).shape == (0, 3)
        assert q_transition(schedule, empty, s.expand_as(times), times).mean.shape == (0, 3)
