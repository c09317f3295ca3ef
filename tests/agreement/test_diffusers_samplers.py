"""diffusers' schedulers and our steps: one network, one noise, the same states all the way down.

Their code runs in float64 (fixture ``double``), so what is left is the order of operations: 1e-12 of a state, which may
be as large as a few hundred where a network that nobody trained is divided by alpha(1) = 0.006.

Conventions (they are in a table of book/notation.md):

- *Nodes.* Index i is our node k = i + 1. ``leading`` and ``trailing`` make their grids, with clean data, t = 0, behind.
- *Where the last step goes.* To alpha_bar = 1, our t = 0; with ``set_alpha_to_one=False`` or
  ``final_sigmas_type="sigma_min"`` to index 0, our t = 1 / T, which still has noise.
- *Noise at the last step.* None here, for any variance. DDPMScheduler adds it unless the last index is 0: under
  ``trailing`` with fewer than T steps, or with ``steps_offset=1``.
- *Clipping.* Ours derives eps again from the clipped x_0; DDIMScheduler only with ``use_clipped_model_output=True``.
- *Stride.* DDIMScheduler goes down by T // n whatever its next index is, so that under ``trailing`` with an n that does
  not divide T it lands between its own nodes. DDPMScheduler and ours go to the next node.
- *Coordinates.* The Euler and Heun schedulers keep x_t / alpha_t and count in sigma / alpha. Euler's method there is
  DDIM here.
- *Last order.* DPMSolverMultistepScheduler's ``lower_order_final`` (below 15 steps) and ``euler_at_final`` make the
  last step first order, which is ``ddim()``; ours is of order 2 unless it goes to t = 0.
- *Flow.* FlowMatchEulerDiscreteScheduler steps down evenly to 1 / T and then to 0; ours evenly to 0. Its ``shift`` is a
  ``warp`` of ``times``. Its time and velocity run as ours do.
- *Churn.* There is none here: an Euler step of ours is without noise.
"""

from itertools import pairwise

import pytest
import torch
from torch.testing import assert_close

from diffusion_edu import (
    EPS,
    VELOCITY,
    X0,
    BetaSchedule,
    DiffusionModel,
    EDMSchedule,
    FlowSchedule,
    GaussianMixture,
    LearntVarianceModel,
    Treated,
    V,
    ancestral,
    clip_x_0,
    ddim,
    dpmpp_2m,
    dynamic_threshold,
    edm,
    euler,
    heun,
    invert,
    karras,
    leading,
    learnt_std,
    posterior_std,
    q_posterior,
    sample,
    times,
    trailing,
    trajectory,
    transition_std,
)
from tests.agreement.peers import Network, index, noise, peer

diffusers = peer("diffusers", "course")
pytestmark = [
    pytest.mark.usefixtures("double"),
    # diffusers hands PyTorch's tensors to np.array, and NumPy 2 says that PyTorch does not know its keyword yet
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning:diffusers"),
]

T = 1000
SCHEDULE = BetaSchedule.linear(T)
ROWS = {"epsilon": EPS, "sample": X0, "v_prediction": V}
STDS = {"fixed_small": posterior_std, "fixed_large": transition_std}
CLOSE = {"rtol": 1e-10, "atol": 1e-11}
every_row = pytest.mark.parametrize("row", ROWS)
both_clips = pytest.mark.parametrize("clip", [True, False], ids=["clipped", "not-clipped"])


def seeded(seed=3):
    return torch.Generator().manual_seed(seed)


def model(row="epsilon", clip=False, twice=False, schedule=SCHEDULE):
    learnt = (LearntVarianceModel if twice else DiffusionModel)(Network(2, twice), schedule, ROWS[row], level=index)
    return Treated(learnt.eval(), clip_x_0) if clip else learnt.eval()


def grid(scheduler, last=0.0):
    """Their indices as our times, with where the last step goes behind them."""
    return torch.cat([(scheduler.timesteps.double() + 1) / T, torch.tensor([last], dtype=torch.float64)])


@torch.no_grad()
def walk(scheduler, x, twice=False, network=None, **arguments):
    """Their states, one after each step."""
    network = network or Network(2, twice)
    scale = getattr(scheduler, "scale_model_input", lambda x, i: x)  # flow matching has none
    for i in scheduler.timesteps:
        output = network(scale(x, i), i.double().expand(len(x)))
        x = scheduler.step(output, i, x, **arguments).prev_sample
        yield x


def ours(step, denoiser, x, times, seed=3):
    states = trajectory(step, denoiser, x, times, generator=seeded(seed))
    next(states)
    return [state.x for state in states]


def assert_same_walk(ours, theirs):
    theirs = list(theirs)
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a, b, **CLOSE)


# DDPM


@every_row
@both_clips
def test_a_ddpm_step_from_every_index(row, clip):
    scheduler = diffusers.DDPMScheduler(prediction_type=row, clip_sample=clip)
    x, generator = noise(T, 2, 2, 2, seed=1), seeded()
    with torch.no_grad():
        output = Network(2)(x, torch.arange(T).double())
        theirs = [scheduler.step(output[i, None], i, x[i, None], generator=generator) for i in range(T)]
    k = torch.arange(1, T + 1)
    s, t, generator = SCHEDULE.time(k - 1), SCHEDULE.time(k), seeded()
    x_0_hat = model(row, clip)(x, t)
    drawn = [torch.zeros(1, 2, 2, 2), *(torch.randn(1, 2, 2, 2, dtype=x.dtype, generator=generator) for _ in k[1:])]
    posterior = q_posterior(SCHEDULE, x, x_0_hat, s, t)
    mine = posterior.mean + posterior.std * torch.cat(drawn)
    assert_close(x_0_hat.detach(), torch.cat([step.pred_original_sample for step in theirs]), **CLOSE)
    assert_close(mine.detach(), torch.cat([step.prev_sample for step in theirs]), **CLOSE)


@pytest.mark.parametrize(
    ("num_timesteps", "row", "variance", "clip"),
    [(1000, "epsilon", "fixed_small", True), (200, "v_prediction", "fixed_large", False)],
)
def test_the_whole_chain_of_ddpm_is_ancestral(num_timesteps, row, variance, clip):
    scheduler = diffusers.DDPMScheduler(
        num_train_timesteps=num_timesteps, prediction_type=row, variance_type=variance, clip_sample=clip
    )
    x, denoiser = noise(2, 2, 2, 2), model(row, clip, schedule=BetaSchedule.linear(num_timesteps))
    mine = ours(ancestral(STDS[variance]), denoiser, x, times(num_timesteps))
    assert_same_walk(mine, walk(scheduler, x, generator=seeded()))


@every_row
@both_clips
@pytest.mark.parametrize("variance", STDS)
@pytest.mark.parametrize("spacing", ["leading", "linspace"])
def test_ddpm_in_fewer_steps_is_ancestral(row, clip, variance, spacing):
    scheduler = diffusers.DDPMScheduler(
        prediction_type=row, variance_type=variance, clip_sample=clip, timestep_spacing=spacing
    )
    scheduler.set_timesteps(12)
    times = grid(scheduler)
    assert spacing != "leading" or torch.equal(times, leading(T, 12))
    x = noise(2, 2, 2, 2)
    mine = ours(ancestral(STDS[variance]), model(row, clip), x, times)
    assert_same_walk(mine, walk(scheduler, x, generator=seeded()))


@pytest.mark.parametrize("steps", [10, 12])  # one divides T, one does not
@pytest.mark.parametrize("variance", STDS)
def test_ddpm_in_trailing_steps_is_ancestral_but_for_their_noise_at_the_last_one(variance, steps):
    """They add none only at index 0, which a trailing grid does not have; Ho et al. 2020, algorithm 2: z = 0 at the
    last step.

    With beta-tilde it is 0 to be clamped to 1e-20; with beta it is all the noise that there was.
    """
    scheduler = diffusers.DDPMScheduler(variance_type=variance, timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    assert torch.equal(grid(scheduler), trailing(T, steps))
    x, generator = noise(2, 2, 2, 2), seeded()
    *states, end = ours(ancestral(STDS[variance]), model(clip=True), x, trailing(T, steps))
    *theirs, their_end = walk(scheduler, x, generator=generator)
    assert_same_walk(states, theirs)
    before = seeded()
    for _ in states:
        torch.randn(2, 2, 2, 2, dtype=torch.float64, generator=before)
    z = torch.randn(2, 2, 2, 2, dtype=torch.float64, generator=before)
    sigma = float(SCHEDULE.sigma(trailing(T, steps)[-2]))
    std = 1e-10 if variance == "fixed_small" else sigma
    assert_close(their_end, end + std * z, rtol=0, atol=1e-11)
    assert variance == "fixed_small" or float((their_end - end).std()) > 0.5 * sigma > 0.1


@pytest.mark.parametrize("steps", [7, 50, 333, 999])
@pytest.mark.parametrize("kind", ["leading", "trailing"])
def test_grids_are_theirs_for_any_number_of_steps(kind, steps):
    scheduler = diffusers.DDPMScheduler(timestep_spacing=kind)
    scheduler.set_timesteps(steps)
    assert torch.equal(grid(scheduler), {"leading": leading, "trailing": trailing}[kind](T, steps))


def test_steps_offset_is_the_offset_of_leading():
    scheduler = diffusers.DDPMScheduler(steps_offset=1)
    scheduler.set_timesteps(50)
    assert torch.equal(grid(scheduler), leading(T, 50, offset=1))


def test_ddpm_at_indices_of_ones_own_choice():
    scheduler = diffusers.DDPMScheduler()
    scheduler.set_timesteps(timesteps=[999, 400, 399, 20, 0])
    x = noise(2, 2, 2, 2)
    assert_same_walk(ours(ancestral(), model(clip=True), x, grid(scheduler)), walk(scheduler, x, generator=seeded()))


@both_clips
def test_a_learnt_variance_is_their_learned_range(clip):
    scheduler = diffusers.DDPMScheduler(variance_type="learned_range", clip_sample=clip)
    scheduler.set_timesteps(20)
    x, learnt = noise(2, 2, 2, 2), model(twice=True)
    if clip:
        learnt = Treated(learnt, clip_x_0)
    mine = ours(ancestral(learnt_std), learnt, x, leading(T, 20))
    assert_same_walk(mine, walk(scheduler, x, twice=True, generator=seeded()))


def test_dynamic_thresholding_is_theirs_when_theirs_may_exceed_1():
    """Their ``sample_max_value`` of 1, the default, makes it plain clipping."""
    scheduler = diffusers.DDPMScheduler(thresholding=True, dynamic_thresholding_ratio=0.7, sample_max_value=1e9)
    scheduler.set_timesteps(20)
    x, treated = noise(2, 2, 2, 2), Treated(model(), dynamic_threshold(0.7))
    assert_same_walk(ours(ancestral(), treated, x, leading(T, 20)), walk(scheduler, x, generator=seeded()))


# DDIM


@every_row
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize(("eta", "clip"), [(0.0, False), (0.5, True), (1.0, False)])
def test_ddim_is_ddim(row, spacing, eta, clip):
    scheduler = diffusers.DDIMScheduler(prediction_type=row, clip_sample=clip, timestep_spacing=spacing)
    scheduler.set_timesteps(20)
    x = noise(2, 2, 2, 2)
    mine = ours(ddim(eta), model(row, clip), x, {"leading": leading, "trailing": trailing}[spacing](T, 20))
    assert_same_walk(mine, walk(scheduler, x, eta=eta, use_clipped_model_output=clip, generator=seeded()))


def test_a_clipped_x_0_with_the_networks_own_eps_is_another_sampler():
    """Their default. The pair no longer adds up to x_t, so a step from t to t itself would move the state."""
    scheduler = diffusers.DDIMScheduler()
    scheduler.set_timesteps(20)
    x = noise(2, 2, 2, 2)
    mine = ours(ddim(), model(clip=True), x, leading(T, 20))
    assert float((mine[0] - next(walk(scheduler, x))).abs().max()) > 0.01


def test_the_last_step_to_index_0_leaves_its_noise():
    """``set_alpha_to_one=False``, with and without Stable Diffusion's offset: our grid ends at t = 1 / T."""
    x = noise(2, 2, 2, 2)
    for offset in (0, 1):
        scheduler = diffusers.DDIMScheduler(set_alpha_to_one=False, steps_offset=offset, clip_sample=False)
        scheduler.set_timesteps(20)
        theirs = list(walk(scheduler, x))
        if offset == 0:  # from index 0 to index 0: a step that goes nowhere
            assert_close(theirs[-1], theirs[-2], **CLOSE)
            theirs, down = theirs[:-1], leading(T, 20)[:-1]
        else:
            down = torch.cat([leading(T, 20, offset=1)[:-1], SCHEDULE.time(1)[None]])
        assert_same_walk(ours(ddim(), model(), x, down), theirs)


def test_their_ddim_in_trailing_steps_that_do_not_divide_t_misses_its_own_nodes():
    scheduler = diffusers.DDIMScheduler(timestep_spacing="trailing", clip_sample=False, prediction_type="sample")
    scheduler.set_timesteps(30)
    assert torch.equal(grid(scheduler), trailing(T, 30))
    strides = (scheduler.timesteps[:-1] - scheduler.timesteps[1:]).unique().tolist()
    assert strides == [33, 34]  # they step by 33 each time
    x = noise(2, 2, 2, 2)
    mine, theirs = ours(ddim(), model("sample"), x, trailing(T, 30)), list(walk(scheduler, x))
    assert_close(mine[0], theirs[0], **CLOSE)  # 999 to 966, both
    assert float((mine[1] - theirs[1]).abs().max()) > 1e-4  # 966 to 932, and to 933


@pytest.mark.parametrize("row", ["epsilon", "sample"])
def test_ddim_backwards_is_invert_with_one_call_a_step(row):
    """Theirs writes the step by eps if the network says eps, by x_0 if it says x_0; ours by the one that converges.

    So the two are compared where there is more signal than noise for the first, and more noise for the second.
    """
    scheduler = diffusers.DDIMInverseScheduler(prediction_type=row, clip_sample=False)
    scheduler.set_timesteps(20)
    down = leading(T, 20)
    up, clean = down.flip(0), SCHEDULE.alpha(down) > SCHEDULE.sigma(down)
    x, network = noise(2, 2, 2, 2), Network(2)
    used = 0
    for (s, t), i in zip(pairwise(up), scheduler.timesteps, strict=True):
        assert float(t) * T == i + 1  # the network is told where the step ends
        if bool(clean[down == t]) == (row == "epsilon") and (row == "epsilon" or s > 0):
            theirs = scheduler.step(network(x, i.double().expand(2)), int(i), x).prev_sample
            *_, mine = invert(model(row), x, torch.stack([t, s]))
            assert_close(mine.x, theirs, **CLOSE)
            used += 1
    assert used >= 5


@pytest.mark.parametrize("row", ["epsilon", "sample"])
def test_a_walk_backwards_by_ddim_is_invert_where_the_conventions_agree(row):
    """In the half of the test above, each by its own answers: nine steps and more without a common start."""
    scheduler = diffusers.DDIMInverseScheduler(prediction_type=row, clip_sample=False)
    scheduler.set_timesteps(40)
    up = leading(T, 40).flip(0)
    clean = SCHEDULE.alpha(up) > SCHEDULE.sigma(up)
    ends = [k for k in range(1, 41) if bool(clean[k]) == (row == "epsilon") and (row == "epsilon" or k > 1)]
    assert ends == list(range(ends[0], ends[-1] + 1)), "one walk"
    x, network = noise(2, 2, 2, 2), Network(2)
    theirs = [x]
    for i in scheduler.timesteps[ends[0] - 1 : ends[-1]]:
        theirs.append(scheduler.step(network(theirs[-1], i.double().expand(2)), int(i), theirs[-1]).prev_sample)
    mine = [state.x for state in invert(model(row), x, up[ends[0] - 1 : ends[-1] + 1].flip(0))]
    assert len(mine) == len(theirs) >= 10
    for a, b in zip(mine, theirs, strict=True):
        assert_close(a, b, **CLOSE)
    assert float((mine[-1] - x).abs().max()) > 0.1, "the walk has gone somewhere"


# DPM-Solver++


@every_row
@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
@pytest.mark.parametrize("steps", [9, 16])
def test_dpm_solver_to_zero_is_dpmpp_2m(row, spacing, steps):
    scheduler = diffusers.DPMSolverMultistepScheduler(prediction_type=row, timestep_spacing=spacing)
    scheduler.set_timesteps(steps)
    x = noise(2, 2, 2, 2)
    assert_same_walk(ours(dpmpp_2m(), model(row), x, grid(scheduler)), walk(scheduler, x))


@pytest.mark.parametrize(
    ("steps", "rule", "first_order"),
    [
        (16, {}, False),
        (9, {}, True),
        (9, {"lower_order_final": False}, False),
        (16, {"euler_at_final": True}, True),
    ],
)
def test_dpm_solver_to_its_smallest_sigma_ends_as_its_rules_say(steps, rule, first_order):
    scheduler = diffusers.DPMSolverMultistepScheduler(final_sigmas_type="sigma_min", **rule)
    scheduler.set_timesteps(steps)
    x, down = noise(2, 2, 2, 2), grid(scheduler, last=1 / T)
    if down[-2] == down[-1]:
        pytest.fail("the grid already ends at index 0; take other steps")
    mine = ours(dpmpp_2m(), model(), x, down[:-1] if first_order else down)
    if first_order:
        mine.append(sample(ddim(), model(), mine[-1], down[-2:]))
    assert_same_walk(mine, walk(scheduler, x))
    if first_order:
        assert float((mine[-1] - ours(dpmpp_2m(), model(), x, down)[-1]).abs().max()) > 1e-6


# Euler and Heun in sigma / alpha


@pytest.mark.parametrize("row", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_euler_in_the_noise_to_signal_ratio_is_ddim(row, spacing):
    scheduler = diffusers.EulerDiscreteScheduler(prediction_type=row, timestep_spacing=spacing)
    scheduler.set_timesteps(20)
    x, down = noise(2, 2, 2, 2), grid(scheduler)
    assert_close(SCHEDULE.sigma(down) / SCHEDULE.alpha(down), scheduler.sigmas, rtol=1e-11, atol=0)
    mine = [s * x_s for s, x_s in zip(1 / SCHEDULE.alpha(down[1:]), ours(ddim(), model(row), x, down), strict=True)]
    assert_same_walk(mine, walk(scheduler, x / SCHEDULE.alpha(down[0])))


def told_the_ratio(schedule, t):
    return 100 * torch.log(schedule.sigma(t) / schedule.alpha(t))


class ToldItsSigma:
    """Their side of ``told_the_ratio``: a network is told what its scheduler's next sigma is."""

    def __init__(self, scheduler, network):
        self.scheduler, self.network = scheduler, network

    def __call__(self, x, timestep):
        sigma = self.scheduler.sigmas[self.scheduler.step_index]
        return self.network(x, 100 * torch.log(sigma).expand(len(x)))


def test_their_karras_sigmas_on_a_table_are_karras_times():
    scheduler = diffusers.EulerDiscreteScheduler(use_karras_sigmas=True)
    scheduler.set_timesteps(18)
    down = karras(SCHEDULE, 18, sigma_min=float(scheduler.sigmas[-2]))
    assert_close(SCHEDULE.sigma(down) / SCHEDULE.alpha(down), scheduler.sigmas, rtol=1e-9, atol=0)
    between_nodes = DiffusionModel(Network(2), SCHEDULE, EPS, level=told_the_ratio).eval()
    x = noise(2, 2, 2, 2)
    theirs = walk(scheduler, x / SCHEDULE.alpha(down[0]), network=ToldItsSigma(scheduler, Network(2)))
    states = ours(ddim(), between_nodes, x, down)
    for mine, theirs_s, s in zip(states, theirs, down[1:], strict=True):
        assert_close(mine / SCHEDULE.alpha(s), theirs_s, rtol=1e-8, atol=1e-8)  # time_at inverts to 1e-9


def test_heun_on_edms_grid_is_heun():
    """Two of their steps, there and back with the corrected slope, are one of ours."""
    scheduler = diffusers.HeunDiscreteScheduler(use_karras_sigmas=True)
    scheduler.set_timesteps(18)
    sigmas = torch.cat([scheduler.sigmas[:1], scheduler.sigmas[1::2]])
    schedule = EDMSchedule(float(sigmas[0]))
    down = karras(schedule, 18, sigma_min=float(sigmas[-2]))
    assert_close(schedule.sigma(down), sigmas, rtol=1e-11, atol=0)
    data = GaussianMixture(torch.tensor([0.3, 0.7]), torch.tensor([[-1.0, 0.5], [1.0, 0.2]]), torch.tensor([0.2, 0.4]))
    exact = data.to(torch.zeros(1, dtype=torch.float64)).denoiser(schedule)
    x = theirs = sigmas[0] * noise(5, 2)
    states = []
    for i in scheduler.timesteps:
        scaled = scheduler.scale_model_input(theirs, i)
        sigma = scheduler.sigmas[scheduler.step_index]
        x_sigma = scaled * torch.sqrt(sigma**2 + 1)
        eps_hat = (x_sigma - exact(x_sigma, sigma / schedule.sigma_max)) / sigma
        theirs = scheduler.step(eps_hat, i, theirs).prev_sample
        if scheduler.state_in_first_order:
            states.append(theirs)
    assert_same_walk(ours(heun(), exact, x, down), [*states, theirs])  # the last step, to 0, has no second slope


def c_noise(schedule, t):
    return torch.log(schedule.sigma(t)) / 4


def test_edms_scheduler_is_euler_on_edms_grid_with_edms_network():
    """c_in, c_skip, c_out and c_noise of Karras et al. 2022, table 1: theirs by the scheduler, ours by the row."""
    scheduler = diffusers.EDMEulerScheduler()
    scheduler.set_timesteps(18)
    schedule = EDMSchedule(80.0)
    down = karras(schedule, 18)
    assert_close(schedule.sigma(down), scheduler.sigmas, rtol=1e-11, atol=0)
    network = DiffusionModel(Network(2), schedule, edm(0.5), level=c_noise).eval()
    x = 80 * noise(2, 2, 2, 2)
    assert_same_walk(ours(euler(), network, x, down), walk(scheduler, x))
    assert scheduler.init_noise_sigma == pytest.approx(80.00625)  # sqrt(sigma_max^2 + 1), where EDM and we have 80


# Flow matching


class ToldAThousandth(Network):
    """Their network is told 1000 t."""

    def forward(self, x, level, condition=None):
        return super().forward(x, level / T, condition)


def told_t(schedule, t):
    return t


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_matching_is_euler_on_the_line(shift):
    flow = DiffusionModel(Network(2), FlowSchedule(), VELOCITY, level=told_t).eval()
    x = noise(2, 2, 2, 2)
    # their own grid, and ours given to them: sigmas are our times
    for given in (None, times(12)[:-1].tolist()):
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
        scheduler.set_timesteps(12, sigmas=given)
        down = scheduler.sigmas
        if given is not None:
            assert_close(down, times(12, lambda t: shift * t / (1 + (shift - 1) * t)), rtol=1e-12, atol=0)
        elif shift == 1:
            assert_close(down[:-1], torch.linspace(1, 1 / T, 12, dtype=torch.float64), rtol=1e-12, atol=0)
        assert_same_walk(ours(euler(), flow, x, down), walk(scheduler, x, network=ToldAThousandth(2)))


def test_noising_of_flow_matching_is_the_line():
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    x_0, eps = noise(3, 2, seed=1), noise(3, 2, seed=2)
    t = scheduler.timesteps[[0, 400, 999]]
    alpha, sigma = FlowSchedule().scales(t.double() / T, x_0)
    assert_close(scheduler.scale_noise(x_0, t, eps), alpha * x_0 + sigma * eps, **CLOSE)
