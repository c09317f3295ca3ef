"""Adaptive samplers: the tolerance asked is the error got, and what is counted is what happened."""

import itertools
import math

import pytest
import torch
from scipy.integrate import solve_ivp
from torch.testing import assert_close

from diffusion_edu import (
    BOGACKI_SHAMPINE,
    DORMAND_PRINCE,
    BetaSchedule,
    CosineSchedule,
    DiffusionModel,
    EDMSchedule,
    FlowSchedule,
    GaussianMixture,
    ResidualMLP,
    V,
    VESchedule,
    VPSchedule,
    adaptive_ode,
    adaptive_sde,
    energy_distance,
    euler_maruyama,
    moons,
    prior,
    ring,
    times,
    trajectory,
    velocity,
)
from diffusion_edu import adaptive as adaptive_module
from diffusion_edu.adaptive import _Brownian
from diffusion_edu.data import seeded
from tests.cases import SCHEDULES, every_schedule

ONE = torch.ones((), dtype=torch.float64)
MEAN, STD = 0.7, 0.4
GAUSSIAN = GaussianMixture(torch.ones(1), torch.tensor([[MEAN]]).double(), torch.tensor([STD]).double())
Z = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]


class Counting:
    """A denoiser that counts its calls and remembers the times."""

    def __init__(self, denoiser):
        self.denoiser, self.schedule, self.times = denoiser, denoiser.schedule, []

    def __call__(self, x_t, t, condition=None):
        self.times.append(float(t))
        return self.denoiser(x_t, t, condition)


@every_schedule
@pytest.mark.parametrize(
    ("pair", "tol"),
    [
        (DORMAND_PRINCE, 1e-2),
        (DORMAND_PRINCE, 1e-4),
        (DORMAND_PRINCE, 1e-6),
        (DORMAND_PRINCE, 1e-8),
        (BOGACKI_SHAMPINE, 1e-2),
        (BOGACKI_SHAMPINE, 1e-4),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_on_a_gaussian_the_error_got_is_within_ten_tolerances(schedule, pair, tol):
    # the ODE carries the quantiles of q(x_1) to those of q(x_0): exact at both ends, under every schedule
    q_1 = GAUSSIAN.marginal(schedule, ONE)
    denoiser = Counting(GAUSSIAN.denoiser(schedule))
    states = list(adaptive_ode(denoiser, q_1.means + q_1.stds * Z, tol, tol, pair=pair))
    exact = MEAN + STD * Z
    assert ((states[-1].x - exact).abs() / (1 + exact.abs())).max() < 10 * tol
    assert states[-1].t == 0 and states[-1].evaluations == len(denoiser.times) and min(denoiser.times) > 0
    assert states[-1].evaluations < 600


@pytest.mark.parametrize("schedule", [VPSchedule(), CosineSchedule(), FlowSchedule()], ids=["vp", "cosine", "flow"])
@pytest.mark.parametrize("tol", [1e-3, 1e-5])
def test_on_a_mixture_the_error_got_is_within_ten_tolerances_and_near_scipys(schedule, tol):
    mixture = GaussianMixture(*ring(5, 0.15)).to(ONE)
    denoiser = mixture.denoiser(schedule)
    x = prior(schedule, (1, 2), torch.Generator().manual_seed(3), dtype=torch.float64)
    end = 1e-6

    def slope(t, y):
        return velocity(denoiser, torch.as_tensor(y)[None], torch.tensor(t, dtype=torch.float64))[0].numpy()

    def scipys(method, tol):
        # the first step that SciPy 1.13 would choose leaves [0, 1]
        found = solve_ivp(slope, (1.0, end), x[0].numpy(), method=method, rtol=tol, atol=tol, first_step=1e-3)
        return torch.as_tensor(found.y[:, -1])[None], found.nfev

    exact, _ = scipys("DOP853", 1e-11)
    theirs, evaluations = scipys("RK45", tol)
    *_, last = adaptive_ode(denoiser, x, tol, tol)
    error = (last.x - exact).abs().max()
    assert error < 10 * tol
    assert error < 10 * max(tol, float((theirs - exact).abs().max()))
    assert last.evaluations < 1.3 * evaluations


def test_a_table_of_betas_costs_no_more_than_the_smooth_schedule_it_stands_for():
    # its rate has a thousand corners in t, and none in the angle
    costs = []
    for schedule in (BetaSchedule.linear(1000), VPSchedule()):
        denoiser = GaussianMixture(*ring(5, 0.15)).to(ONE).denoiser(schedule)
        x = prior(schedule, (20, 2), torch.Generator().manual_seed(0), dtype=torch.float64)
        *_, last = adaptive_ode(denoiser, x, 1e-6, 1e-6)
        costs.append(last.evaluations)
    assert costs[0] < 1.1 * costs[1]


@pytest.mark.parametrize("sampler", [adaptive_ode, adaptive_sde])
def test_states_are_yielded_as_by_a_trajectory(sampler, generator):
    schedule = VPSchedule()
    x = prior(schedule, (5, 1), generator, dtype=torch.float64)
    denoiser = Counting(GAUSSIAN.denoiser(schedule))
    states = list(sampler(denoiser, x))
    first, last = states[0], states[-1]
    assert first.t == 1 and torch.equal(first.x, x) and first.x_0_hat is None and first.rejected == 0
    assert last.t == 0 and torch.equal(last.x, last.x_0_hat) and last.evaluations == len(denoiser.times)
    for a, b in itertools.pairwise(states):
        assert b.t < a.t and b.evaluations >= a.evaluations and b.rejected >= a.rejected and b.error <= 1
        assert torch.equal(b.previous.x, a.x) and b.previous.previous is None and b.x_0_hat.shape == x.shape
    before = states[-2]
    assert_close(before.x_0_hat, GAUSSIAN.denoiser(schedule)(before.x, before.t), rtol=1e-9, atol=1e-9)


def test_a_call_is_counted_for_each_try_of_the_sde(generator):
    denoiser = Counting(GAUSSIAN.denoiser(VPSchedule()))
    x = prior(VPSchedule(), (50, 1), generator, dtype=torch.float64)
    states = list(adaptive_sde(denoiser, x, 0.01, 0.01, generator=generator))
    accepted, rejected = len(states) - 2, states[-1].rejected
    assert rejected > 0
    assert states[-1].evaluations == len(denoiser.times) == 1 + 2 * accepted + rejected


SDES = {name: SCHEDULES[name] for name in ("linear", "vp", "sub-vp", "ve", "cosine", "flow")}


@pytest.mark.parametrize("schedule", SDES.values(), ids=SDES.keys())
def test_the_sde_ends_with_the_moments_of_the_data(schedule, generator):
    n = 4000
    x = prior(schedule, (n, 1), generator, dtype=torch.float64)
    *_, last = adaptive_sde(GAUSSIAN.denoiser(schedule), x, 0.02, 0.02, generator=generator)
    assert abs(last.x.mean().item() - MEAN) < 4.5 * STD / math.sqrt(n) + 0.01
    assert abs(last.x.std().item() / STD - 1) < 4.5 / math.sqrt(2 * n) + 0.02


def test_the_sde_samples_a_mixture(generator):
    mixture = GaussianMixture(*ring(5, 0.15)).to(ONE)
    schedule = VPSchedule()
    x = prior(schedule, (1000, 2), generator, dtype=torch.float64)
    *_, last = adaptive_sde(mixture.denoiser(schedule), x, 0.02, 0.05, generator=generator)
    distance = energy_distance(last.x, mixture.sample(1000, generator))
    assert distance.value < 4 * distance.standard_error + 1e-3


@pytest.mark.parametrize("schedule", [CosineSchedule(), FlowSchedule()])
def test_where_alpha_of_1_is_0_the_sde_starts_below_1_and_the_ode_at_1(schedule):
    denoiser, x = GAUSSIAN.denoiser(schedule), torch.randn(3, 1, dtype=torch.float64)
    start = next(iter(adaptive_sde(denoiser, x))).t
    assert 0.98 < start < 1
    assert_close((schedule.sigma(start) / schedule.alpha(start)).item(), 80.0, rtol=1e-6, atol=0)
    assert next(iter(adaptive_ode(denoiser, x))).t == 1


def test_the_error_of_the_first_sde_step_is_the_papers():
    schedule, atol, rtol = VPSchedule(), 0.5, 0.3  # loose, so that the first try is taken
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    denoiser = GaussianMixture(torch.ones(1), torch.full((1, 3), MEAN).double(), torch.tensor([STD]).double())
    walk = adaptive_sde(denoiser.denoiser(schedule), x, atol, rtol, generator=torch.Generator().manual_seed(2))
    start, first = itertools.islice(walk, 2)
    assert first.rejected == 0 and 0 < first.error < 1

    def F(x, t):
        f, g = schedule.drift(t), schedule.diffusion(t)
        return f * x - g**2 * (schedule.alpha(t) * denoiser.denoiser(schedule)(x, t) - x) / schedule.sigma(t) ** 2

    t, s = start.t, first.t
    h = t - s
    dW = torch.sqrt(h) * torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    once = x - h * F(x, t) + schedule.diffusion(t) * dW
    twice = (once + x - h * F(once, s) + schedule.diffusion(s) * dW) / 2
    unit = torch.maximum(torch.full_like(x, atol), rtol * torch.maximum(once.abs(), x.abs()))
    errors = [((once - twice)[i] / unit[i]).square().mean().sqrt().item() for i in range(4)]
    assert_close(first.x, twice, rtol=1e-10, atol=1e-12)
    assert_close(first.error, max(errors), rtol=1e-9, atol=0)

    # the second step's unit looks at x' of the first, and not at its x
    seed = torch.Generator().manual_seed(2)
    walk = adaptive_sde(denoiser.denoiser(schedule), x, 1e-3, rtol, generator=seed, max_evaluations=100)
    states = list(itertools.islice(walk, 3))
    assert states[2].rejected == 0
    seed.manual_seed(2)
    before = x
    for old, new in itertools.pairwise(states):
        h = old.t - new.t
        dW = torch.sqrt(h) * torch.randn(4, 3, dtype=torch.float64, generator=seed)
        once = old.x - h * F(old.x, old.t) + schedule.diffusion(old.t) * dW
        unit = torch.maximum(torch.full_like(x, 1e-3), rtol * torch.maximum(once.abs(), before.abs()))
        errors = [((once - new.x)[i] / unit[i]).square().mean().sqrt().item() for i in range(4)]
        assert_close(new.error, max(errors), rtol=1e-8, atol=0)
        before = once


def test_a_looser_tolerance_costs_less():
    denoiser, x = GAUSSIAN.denoiser(VPSchedule()), torch.randn(8, 1, dtype=torch.float64)
    for sampler, tolerances in ((adaptive_ode, (0.1, 1e-3, 1e-5)), (adaptive_sde, (0.1, 0.01, 0.003))):
        cost = [list(sampler(denoiser, x, tol, tol))[-1].evaluations for tol in tolerances]
        assert cost[0] < cost[1] < cost[2]


def test_the_same_generator_gives_the_same_path():
    denoiser, x = GAUSSIAN.denoiser(VPSchedule()), torch.randn(8, 1, dtype=torch.float64)
    ends = [list(adaptive_sde(denoiser, x, generator=torch.Generator().manual_seed(s)))[-1].x for s in (1, 1, 2)]
    assert torch.equal(ends[0], ends[1]) and not torch.equal(ends[0], ends[2])


def test_noise_that_is_given_back_and_divided_is_one_brownian_path(generator):
    # whatever is asked for and given back: increments are N(0, length), independent, and add up to what was known
    n = 200_000
    noise = _Brownian(torch.zeros(n, 1, dtype=torch.float64), generator)
    whole = noise.increment(0.5)
    noise.give_back()
    noise.increment(0.2)
    noise.give_back()
    parts = [noise.increment(h) for h in (0.05, 0.15, 0.3)]
    assert_close(sum(parts), whole)
    beyond = noise.increment(0.4)
    lengths = torch.tensor([0.05, 0.15, 0.3, 0.4], dtype=torch.float64)
    covariance = torch.cov(torch.cat([*parts, beyond], 1).T)
    assert_close(covariance, torch.diag(lengths), rtol=0, atol=6 * 0.4 * math.sqrt(2 / n))


def test_a_longer_step_that_is_given_back_leaves_the_path_where_it_was_known(generator):
    noise = _Brownian(torch.zeros(1000, 1, dtype=torch.float64), generator)
    at_half = noise.increment(0.5)
    noise.give_back()
    first = noise.increment(0.1)
    longer = noise.increment(0.5)  # beyond 0.5, over two pieces that are known and one that is not
    noise.give_back()
    rest = noise.increment(0.4)
    assert_close(first + rest, at_half)
    assert_close(rest + noise.increment(0.1), longer)


def test_noise_drawn_anew_after_a_rejection_would_favour_small_noise(generator):
    # what the memory is for: accept |dW| < 1.5 only, else halve. With memory the path keeps its variance.
    n, variances = 4000, []
    for remembers in (True, False):
        ends = []
        for _ in range(n):
            noise, t, total, h = _Brownian(torch.zeros(1, dtype=torch.float64), generator), 0.0, 0.0, 1.0
            while t < 1 - 1e-9:
                h = min(h, 1 - t)
                dW = noise.increment(h)
                if dW.abs() < 1.0 or h < 0.2:
                    t, total = t + h, total + dW.item()
                else:
                    if remembers:
                        noise.give_back()
                    h /= 2
            ends.append(total)
        variances.append(torch.tensor(ends).var().item())
    assert abs(variances[0] - 1) < 5 * math.sqrt(2 / n)
    assert variances[1] < 1 - 5 * math.sqrt(2 / n)


def test_each_rejected_step_gives_its_noise_back(generator, monkeypatch):
    asked, back = [], []

    class Watched(_Brownian):
        def increment(self, h):
            asked.append((h, super().increment(h)))
            return asked[-1][1]

        def give_back(self):
            back.append(len(asked) - 1)
            super().give_back()

    monkeypatch.setattr(adaptive_module, "_Brownian", Watched)
    mixture = GaussianMixture(*ring(5, 0.15)).to(ONE)
    x = prior(VPSchedule(), (16, 2), generator, dtype=torch.float64)
    *_, at_end, last = adaptive_sde(mixture.denoiser(VPSchedule()), x, generator=generator)
    assert last.rejected == len(back) > 0
    kept = sum(h for i, (h, _) in enumerate(asked) if i not in back)
    assert kept == pytest.approx(1 - float(at_end.t))


def test_a_learnt_model_is_taken(generator):
    model = DiffusionModel(ResidualMLP(2, 16, 1, num_classes=3), CosineSchedule(), V).eval()
    x, labels = prior(CosineSchedule(), (4, 2), generator), torch.tensor([0, 1, 2, 0])
    for sampler in (adaptive_ode, adaptive_sde):
        *_, last = sampler(model, x, condition=labels)
        assert last.x.shape == (4, 2) and last.x.isfinite().all() and last.x.dtype == torch.float32


@pytest.mark.parametrize("sampler", [adaptive_ode, adaptive_sde])
def test_wrong_arguments_get_a_sentence(sampler):
    denoiser, x = GAUSSIAN.denoiser(VPSchedule()), torch.zeros(2, 1, dtype=torch.float64)
    for options, sentence in (
        ({"atol": -1.0}, "at least 0"),
        ({"atol": 0.0, "rtol": 0.0}, "both 0"),
        ({"sigma_min": 0.0}, "noise-to-signal"),
        ({"condition": torch.zeros(3).long()}, "one label per example"),
    ):
        with pytest.raises(ValueError, match=sentence):
            list(sampler(denoiser, x, **options))
    with pytest.raises(ValueError, match="NaN"):
        list(sampler(denoiser, x * math.nan))
    with pytest.raises(ValueError, match="eval"):
        list(sampler(DiffusionModel(ResidualMLP(1), CosineSchedule(), V), torch.zeros(2, 1)))
    with pytest.raises(ArithmeticError, match="tolerance"):
        list(sampler(denoiser, x, 1e-6, 1e-6, max_evaluations=20))

    class Broken:
        schedule = VPSchedule()

        def __call__(self, x_t, t, condition=None):
            return x_t * math.nan

    with pytest.raises(ArithmeticError, match="NaN"):
        list(sampler(Broken(), x))


def test_the_next_step_of_the_sde_solver_is_the_papers_rule(generator):
    schedule = VPSchedule()
    denoiser = GaussianMixture(*moons()).denoiser(schedule)
    x = prior(schedule, (50, 2), generator, dtype=torch.float64)
    states = list(adaptive_sde(denoiser, x, 0.02, 0.02, generator=generator))[:-2]  # the last step is cut at the end
    followed = 0
    for before, here, after in zip(states, states[1:], states[2:], strict=False):
        if here.rejected == after.rejected and here.error > 0:
            h, new = float(before.t - here.t), float(here.t - after.t)
            assert_close(new, h * min(10.0, 0.9 * here.error**-0.9), rtol=1e-6, atol=0)
            followed += 1
    assert followed > 10


@pytest.mark.parametrize("walk", [adaptive_ode, adaptive_sde])
def test_a_schedule_with_less_noise_than_the_walk_goes_down_to_is_refused(walk):
    # it would be one jump from t = 1 to x_0_hat
    model = GaussianMixture(*moons()).denoiser(EDMSchedule(0.001))
    with pytest.raises(ValueError, match=r"walks down to .* sigma_min=0\.00.*EDMSchedule it is 0\.001 at most"):
        list(walk(model, torch.zeros(2, 2)))


class Nothing:
    """The exact denoiser of data that are all 0."""

    def __init__(self, schedule):
        self.schedule = schedule

    def __call__(self, x_t, t, condition=None):
        return torch.zeros_like(x_t)


@pytest.mark.parametrize("walk", ["euler_maruyama", "adaptive_sde"])
def test_the_noisy_walks_stay_finite_in_half_precision_where_g_squared_does_not(walk):
    schedule, x = VESchedule(0.01, 100.0), 100 * torch.randn(64, 2, generator=seeded(0)).half()
    assert float(schedule.diffusion(torch.ones(())) ** 2) > torch.finfo(torch.float16).max
    model = Nothing(schedule)
    if walk == "adaptive_sde":
        *_, state, _ = adaptive_sde(model, x, atol=0.1, rtol=0.1, sigma_min=0.05, generator=seeded(1))
        assert float(state.x.float().std()) == pytest.approx(0.05, rel=0.5)
    else:
        *_, state, _ = trajectory(euler_maruyama(), model, x, times(200), generator=seeded(1))
        assert 0 < float(state.x.float().std()) < 0.01, "one step before the end; it began at 100"
    assert state.x.dtype == torch.float16 and state.x.isfinite().all()


def test_the_adaptive_ode_walks_in_half_precision():
    x = torch.randn(16, 2, generator=torch.Generator().manual_seed(0))
    *_, wide = adaptive_ode(GaussianMixture(*ring()).denoiser(CosineSchedule()), x)
    *_, half = adaptive_ode(GaussianMixture(*ring()).denoiser(CosineSchedule()), x.half())
    assert half.x.dtype == torch.float16
    assert_close(half.x.float(), wide.x, atol=0.02, rtol=0)
