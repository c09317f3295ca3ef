"""The tables of diffusers and ours: betas, alpha_bar, noising, velocities, weights.

Conventions (they are in a table of book/notation.md):

- An index of theirs is one less than our k: index 0 is a picture with a little noise, and the clean one has none.
- ``scaled_linear`` has no name here: it is a list of betas, and `BetaSchedule` takes any.
- Their ``sigmoid`` is on beta (GeoDiff's), ours is on alpha_bar (Jabri et al. 2022): different tables, one name.
- ``rescale_betas_zero_snr`` makes the last beta 1, where eps says nothing about x_0; ours must be below 1.
"""

import math

import pytest
import torch
from torch.testing import assert_close

from diffusion_edu import EPS, X0, BetaSchedule, DiffusionModel, V, denoising_loss, min_snr, q_sample, snr
from diffusion_edu.process import posterior_std, transition_std
from tests.agreement.peers import Network, index, noise, peer

diffusers = peer("diffusers", "course")
training_utils = peer("diffusers.training_utils", "course")

T = 1000
OURS = {
    "linear": BetaSchedule.linear(T),
    "scaled_linear": BetaSchedule(torch.linspace(math.sqrt(1e-4), math.sqrt(2e-2), T, dtype=torch.float64) ** 2),
    "squaredcos_cap_v2": BetaSchedule.cosine(T),
    "sigmoid": BetaSchedule(torch.linspace(-6, 6, T, dtype=torch.float64).sigmoid() * (2e-2 - 1e-4) + 1e-4),
}
every_table = pytest.mark.parametrize("name", OURS)
FLOAT64 = {"rtol": 1e-11, "atol": 0}


@every_table
def test_betas_are_theirs_to_the_precision_that_they_keep_them_in(name):
    """Each operation of float32 rounds by 6e-8; the sigmoid's argument, up to 6, is rounded before the exponential."""
    theirs = diffusers.DDPMScheduler(beta_schedule=name)
    assert_close(OURS[name].betas.float(), theirs.betas, rtol=3e-6 if name == "sigmoid" else 5e-7, atol=0)


@pytest.mark.usefixtures("double")
@every_table
def test_betas_and_alpha_bars_are_theirs_in_float64(name):
    theirs = diffusers.DDPMScheduler(beta_schedule=name)
    # torch.linspace(-6, 6) is float32 in their sigmoid whatever the type of the rest
    loose = {"rtol": 3e-5, "atol": 0} if name == "sigmoid" else FLOAT64
    assert_close(OURS[name].betas, theirs.betas.double(), **loose)
    assert_close(OURS[name].alpha_bars[1:], theirs.alphas_cumprod.double(), **loose)
    assert OURS[name].alpha_bars[0] == theirs.one == 1  # before the first index comes clean data


def test_their_float32_alpha_bar_has_lost_digits_that_ours_keeps():
    """Why ours are float64: 1 - alpha_bar at index 0 is 1e-4, and float32 knows 1 - 1e-4 to 6e-8."""
    theirs = 1 - diffusers.DDPMScheduler().alphas_cumprod
    lost = (theirs.double() / (1 - OURS["linear"].alpha_bars[1:]) - 1).abs()
    assert 1e-5 < float(lost[0]) < 6e-4 and float(lost[-1]) < 1e-6


def test_the_two_sigmoid_schedules_are_two():
    theirs = diffusers.DDPMScheduler(beta_schedule="sigmoid").alphas_cumprod.double()
    assert float((BetaSchedule.sigmoid(T).alpha_bars[1:] - theirs).abs().max()) > 0.1


def test_zero_terminal_snr_is_refused_here_and_named():
    betas = diffusers.DDPMScheduler(rescale_betas_zero_snr=True).betas
    assert betas[-1] == 1
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        BetaSchedule(betas)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("kind", ["DDPMScheduler", "DDIMScheduler"])
@pytest.mark.parametrize("name", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_add_noise_is_q_sample_and_get_velocity_is_the_target_of_v(kind, name):
    scheduler, schedule = getattr(diffusers, kind)(beta_schedule=name), OURS[name]
    x_0, eps = noise(T, 3, 2, 2, seed=1), noise(T, 3, 2, 2, seed=2)
    k = torch.arange(1, T + 1)
    t = schedule.time(k)
    assert_close(scheduler.add_noise(x_0, eps, k - 1), q_sample(schedule, x_0, t, eps), rtol=1e-11, atol=1e-13)
    assert_close(scheduler.get_velocity(x_0, eps, k - 1), V.target(schedule, x_0, eps, t), rtol=1e-11, atol=1e-13)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_their_variances_are_beta_tilde_and_beta(name):
    """All but index 0, where they clamp beta-tilde to 1e-20 for its logarithm, and add no noise."""
    scheduler, schedule = diffusers.DDPMScheduler(beta_schedule=name), OURS[name]
    k = torch.arange(1, T + 1)
    s, t = schedule.time(k - 1), schedule.time(k)
    for kind, ours in (("fixed_small", posterior_std), ("fixed_large", transition_std)):
        theirs = torch.stack([scheduler._get_variance(int(i), variance_type=kind) for i in k - 1])
        # 1 - alpha_bar and 1 - alpha_t / alpha_s lose log10(1 / beta) = 4 digits of 16 where they are small
        assert_close(theirs[1:], ours(schedule, s, t)[1:] ** 2, rtol=1e-11, atol=0)
    assert theirs[0] == pytest.approx(1e-4 if name != "squaredcos_cap_v2" else float(schedule.betas[0]))
    assert scheduler._get_variance(0) == 1e-20 and posterior_std(schedule, s[:1], t[:1]) == 0


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_compute_snr_is_snr(name):
    """Theirs from float32's sqrt(1 - alpha_bar), which has three or four digits at the clean end."""
    scheduler = diffusers.DDPMScheduler(beta_schedule=name)
    scheduler.alphas_cumprod = OURS[name].alpha_bars[1:]  # the formula, without their table's rounding
    k = torch.arange(1, T + 1)
    theirs = training_utils.compute_snr(scheduler, k - 1)
    assert_close(snr(OURS[name], OURS[name].time(k)).float(), theirs, rtol=5e-7, atol=0)


@pytest.mark.parametrize(
    ("row", "divisor"), [(EPS, lambda snr: snr), (V, lambda snr: snr + 1), (X0, lambda snr: torch.ones_like(snr))]
)
def test_min_snr_weighs_a_loss_as_their_training_scripts_do(row, divisor):
    """min(SNR, gamma) / SNR on eps and / (SNR + 1) on v: one weight on x_0's error here, whatever is predicted."""
    schedule, gamma = OURS["linear"], 5.0
    model = DiffusionModel(Network(3), schedule, row, level=index)
    k = torch.arange(1, T + 1, 9)
    x_0, eps = noise(len(k), 3, 2, 2, seed=1), noise(len(k), 3, 2, 2, seed=2)
    plain = denoising_loss(model, x_0, schedule.time(k), eps=eps)
    ours = denoising_loss(model, x_0, schedule.time(k), min_snr(gamma), eps=eps)
    scheduler = diffusers.DDPMScheduler()
    scheduler.alphas_cumprod = schedule.alpha_bars[1:]
    theirs = training_utils.compute_snr(scheduler, k - 1)
    weight = torch.stack([theirs, gamma * torch.ones_like(theirs)], dim=1).min(dim=1)[0] / divisor(theirs)
    assert_close(ours, weight.double() * plain, rtol=1e-6, atol=0)
