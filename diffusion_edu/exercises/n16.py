"""The exercises of ``16_from_here_to_diffusers``.

Only 16.5 needs diffusers, and imports it when an answer is checked. The others need its conventions alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checks import Exercise, diagnose, hunt
from ..data import global_seed, seeded
from ..denoiser import Denoiser, DiffusionModel, angle
from ..schedule import BetaSchedule, VPSchedule

__all__ = ["PROGRAMS", "betas_of", "bug_hunt", "load_folder", "run_adapter", "times_of_timesteps", "x_0_of_output"]

PROGRAMS = tuple("ABCDE")
HONEST = "C"
CLOSE = 1e-4  # of x_0_hat in exercise 16.5, absolute and relative: float32 there and here


# ----------------------------------------------------------------------------------------------- 16.1


def _times_of_timesteps(attempt: Callable[..., object]) -> str | None:
    for T, listed in ((1000, [957, 640, 333, 66, 2]), (500, [449, 300, 150, 0])):
        timesteps = torch.tensor(listed)
        zero = torch.zeros(1, dtype=torch.float64)
        k = timesteps.double() + 1
        right = torch.cat([k / T, zero])
        wrong = {
            "this is timestep / T, and the index there is one less than our k: its entry 0 has a little noise": (
                torch.cat([(k - 1) / T, zero])
            ),
            "this is timestep / (T - 1): it stretches the grid, and would be right at the table's entry 0 only if that "
            "were clean": torch.cat([(k - 1) / (T - 1), zero]),
            "the times are right and the end is missing: there the last step goes to clean data without saying so, and "
            "our grids name it, t = 0": k / T,
            "the index is one less than our k, and the end is missing as well": (k - 1) / T,
            "the grid ends at 1 / T, where the table's first noise is still in the picture: clean data are at t = 0": (
                torch.cat([k / T, zero + 1 / T])
            ),
            "this is k, a number of steps; t is k / T": torch.cat([k, zero]),
            "the grid rises, and a sampler of ours walks down: from noise to data": right.flip(0),
            "this is 1 - t: the noise is at t = 1 in this course, and at the large timesteps there": 1 - right,
            "the sign of the offset is turned: k = timestep + 1": torch.cat([(k - 2) / T, zero]),
        }
        # where a mistake happens to do no harm with this list, another list shows it
        wrong = {
            words: answer
            for words, answer in wrong.items()
            if answer.shape != right.shape or not torch.allclose(answer, right, atol=1e-5)
        }
        verdict = diagnose(attempt(timesteps, T), right, wrong, atol=1e-7, rtol=1e-6)
        if verdict is not None:
            return verdict
    return None


# ----------------------------------------------------------------------------------------------- 16.2


def _x_0_of_output(attempt: Callable[..., object]) -> str | None:
    x_t, o = torch.randn(2, 3, 4, generator=seeded(16, 2), dtype=torch.float64)
    alpha_bar = torch.tensor(0.3, dtype=torch.float64)
    a, s = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    by_eps, by_v = (x_t - s * o) / a, a * x_t - s * o
    right = {"epsilon": by_eps, "sample": o, "v_prediction": by_v}
    wrong: dict[str, dict[str, Tensor]] = {
        "epsilon": {
            "alpha_bar is a variance, and amplitudes are its roots": (x_t - (1 - alpha_bar) * o) / alpha_bar,
            "the noise is to be taken off x_t, and this adds it": (x_t + s * o) / a,
            "the noise is taken off, but what is left still has to be divided by alpha": x_t - s * o,
            "alpha and sigma have changed places": (x_t - a * o) / s,
            "this is what is done with v": by_v,
            "the output is returned as it came": o,
        },
        "sample": {
            "the output is x_0_hat already, and this is x_t": x_t,
            "the output is x_0_hat already, and this converts it as if it were the noise": by_eps,
            "the output is x_0_hat already, and this converts it as if it were v": by_v,
        },
        "v_prediction": {
            "the sign in front of v is turned: with v = alpha eps - sigma x_0 it is alpha x_t - sigma v": a * x_t
            + s * o,
            "this is eps_hat = sigma x_t + alpha v, and x_0_hat was asked for": s * x_t + a * o,
            "alpha_bar is a variance, and v takes amplitudes, its roots": alpha_bar * x_t - (1 - alpha_bar) * o,
            "alpha and sigma have changed places in alpha x_t - sigma v": s * x_t - a * o,
            "this treats v as if it were the noise: that is right only where sigma is near 0": by_eps,
            "this is minus x_0_hat: v's sign is turned, and x_t's with it": -by_v,
        },
    }
    for name, answer in right.items():
        verdict = diagnose(attempt(o, x_t, alpha_bar, name), answer, wrong[name])
        if verdict is not None:
            return f'with prediction_type="{name}": {verdict}'
    return None


# ----------------------------------------------------------------------------------------------- 16.3


def _betas_of(attempt: Callable[..., object]) -> str | None:
    schedule, T = VPSchedule(), 8
    alpha_bar = schedule.alpha(torch.arange(T + 1, dtype=torch.float64) / T) ** 2
    shorter = schedule.alpha(torch.linspace(0, 1, T, dtype=torch.float64)) ** 2
    right = 1 - alpha_bar[1:] / alpha_bar[:-1]
    wrong = {
        "alpha is an amplitude, and a beta is a share of variance: square alpha first": (
            1 - (alpha_bar[1:] / alpha_bar[:-1]).sqrt()
        ),
        "this begins with a beta of 0, as if the table's entry 0 were clean data: there, as here, beta_1 comes first": (
            torch.cat([alpha_bar.new_zeros(1), right[:-1]])
        ),
        "the ratio stands upside down: alpha_bar falls, so a beta is 1 - later / earlier": (
            1 - alpha_bar[:-1] / alpha_bar[1:]
        ),
        "this is 1 - alpha_bar, the noise of all steps so far; a beta is the share of one step": 1 - alpha_bar[1:],
        "this is alpha_bar itself; their scheduler would take it for betas": alpha_bar[1:],
        "this is what a step takes off alpha_bar; as a share it is divided by what was there": (
            alpha_bar[:-1] - alpha_bar[1:]
        ),
        "this is the standard deviation of a step's noise, and a beta is its variance": right.sqrt(),
        "this is 1 - beta, which they call alphas": alpha_bar[1:] / alpha_bar[:-1],
        "T points have T - 1 gaps: the grid needs T + 1 nodes, from t = 0 to 1": 1 - shorter[1:] / shorter[:-1],
    }
    return diagnose(attempt(schedule.alpha, T), right, wrong, atol=1e-9)


# ----------------------------------------------------------------------------------------------- 16.4


def run_adapter(name: str, denoiser: Denoiser, sample: Tensor, timestep: Tensor) -> Tensor:
    """One of five adapters that claim to answer as a network with ``prediction_type="v_prediction"`` does.

    Args:
        name: "A", "B", "C", "D" or "E".
        denoiser: what is asked; its schedule is a ``BetaSchedule`` with T steps.
        sample: x_t, (B, ...).
        timestep: () integer, 0 ... T - 1, as their scheduler counts.

    Returns:
        what the adapter says is v, shape of ``sample``.

    Raises:
        ValueError: for another name.
        TypeError: for a denoiser whose schedule is not a ``BetaSchedule``.
    """
    if name not in PROGRAMS:
        raise ValueError(f"the adapters are A, B, C, D and E, and {name!r} was asked for.")
    schedule = denoiser.schedule
    if not isinstance(schedule, BetaSchedule):
        raise TypeError(f"the adapters count steps of a BetaSchedule, and got {type(schedule).__name__}.")
    k = torch.as_tensor(timestep) + 1
    t = schedule.time(k - 1 if name == "A" else k)  # A: the index taken for our k
    x_0_hat = denoiser(sample, t)
    if name == "E":  # E: pictures in [0, 1], where the scheduler's are in [-1, 1]
        x_0_hat = (x_0_hat + 1) / 2
    # D: one level too low
    alpha, sigma = schedule.scales(schedule.time((k - 1).clamp(min=1)) if name == "D" else t, like=sample)
    if name == "B":  # B: the noise, under v's name
        return (sample - alpha * x_0_hat) / sigma
    return (alpha * sample - x_0_hat) / sigma  # v, where alpha^2 + sigma^2 = 1: put eps_hat in


_MISSED = {
    "A": "A asks one step too early, which shows least where there is much noise: test a small timestep, closely",
    "B": "B says eps_hat, which is nearly v where there is little noise: test a large timestep as well",
    "D": "D takes alpha and sigma of the level before, and is honest at timestep 0: test larger ones, closely",
    "E": "E makes x_0_hat a picture in [0, 1]: test with a denoiser whose answer is not 1 everywhere",
}


def _bug_hunt(attempt: Callable[..., object]) -> str | None:
    return hunt(
        lambda name: attempt(partial(run_adapter, name)),
        PROGRAMS,
        HONEST,
        _MISSED,
        what="adapter",
        advice="Compare with v = alpha eps_hat - sigma x_0_hat at t = (timestep + 1) / T, and allow for rounding",
    )


# ----------------------------------------------------------------------------------------------- 16.5

_SAVED: tuple[dict[str, Any], ...] = (  # settings of the schedulers in the three folders
    {"prediction_type": "v_prediction", "beta_end": 0.015},
    {"prediction_type": "epsilon", "beta_schedule": "scaled_linear", "beta_end": 0.03, "num_train_timesteps": 400},
    {"prediction_type": "sample", "beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 500},
)


def _x_0(said: Tensor, x_t: Tensor, alpha_bar: Tensor, prediction_type: str) -> Tensor:
    """x_0_hat from what a network says, (16.3)."""
    alpha, sigma = alpha_bar.sqrt().to(x_t), (1 - alpha_bar).sqrt().to(x_t)
    if prediction_type == "sample":
        return said
    return (x_t - sigma * said) / alpha if prediction_type == "epsilon" else alpha * x_t - sigma * said


def _mistaken(unet: Any, scheduler: Any, x_t: Tensor, j: int) -> Mapping[str, Tensor]:
    """Diagnosis -> what a denoiser with that mistake says about x_t at timestep j."""
    T, means = scheduler.config.num_train_timesteps, scheduler.config.prediction_type
    table = BetaSchedule(scheduler.betas)
    here, default = table.alpha_bars[j + 1], BetaSchedule.linear(T).alpha_bars[j + 1]
    products = (1 - table.alpha_bars[1:]).cumprod(0)[j]  # alpha_bar where alphas_cumprod is taken for betas

    def told(level: float) -> Tensor:
        return _x_0(unet(x_t, torch.tensor(level)).sample, x_t, here, means)

    said, t = unet(x_t, j).sample, (j + 1) / T
    wrong = {
        f"the network's output is taken for {name}, and the config has prediction_type = {means}": _x_0(
            said, x_t, here, kind
        )
        for name, kind in (("the noise", "epsilon"), ("x_0_hat", "sample"), ("v", "v_prediction"))
        if kind != means
    }
    wrong |= {
        "the table is DDPM's default, linear from 0.0001 to 0.02, and the config names another": _x_0(
            said, x_t, default, means
        ),
        "alphas_cumprod was taken for the betas": _x_0(said, x_t, products, means),
        "alpha and sigma are those of the level before: timestep j is our k = j + 1": _x_0(
            said, x_t, table.alpha_bars[j], means
        ),
        "the network is told t in [0, 1]; it was built to be told the timestep, T t - 1": told(t),
        "the network is told our angle, which is what DiffusionModel tells where no level is given; it was built to be "
        "told the timestep, T t - 1": told(float(angle(table, torch.tensor(t, dtype=torch.float64)))),
        "the network is told k, and their timestep is k - 1": told(j + 1.0),
        "the network is told k - 2: the sign of the offset is turned": told(j - 1.0),
    }
    if T != 1000:
        wrong["the network is told 1000 t - 1, and this table has another number of steps, num_train_timesteps"] = told(
            1000 * t - 1
        )
    return wrong


def _folder(diffusers: Any, number: int, folder: str) -> tuple[Any, Any]:
    """Saves a small network with random weights, and a scheduler; returns both."""
    with global_seed(16 + number):
        unet = diffusers.UNet2DModel(
            sample_size=8,
            in_channels=1,
            out_channels=1,
            block_out_channels=(8, 16),
            layers_per_block=1,
            norm_num_groups=4,
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
        ).eval()
    scheduler = diffusers.DDPMScheduler(clip_sample=False, **_SAVED[number])
    unet.save_pretrained(Path(folder) / "unet")
    scheduler.save_pretrained(Path(folder) / "scheduler")
    return unet, scheduler


@torch.no_grad()
def _load_folder(attempt: Callable[..., object]) -> str | None:
    try:
        import diffusers
    except ImportError:
        return "this exercise needs diffusers, which is missing. Install it: pip install diffusers"
    for number in range(len(_SAVED)):
        with tempfile.TemporaryDirectory() as folder:
            unet, scheduler = _folder(diffusers, number, folder)
            model = attempt(folder)
            again = attempt(folder)
        if isinstance(model, tuple):
            return "this is a tuple, and one thing was asked for: the denoiser"
        if not isinstance(model, DiffusionModel):
            return f"a DiffusionModel was asked for, and this is of the type {type(model).__name__}"
        verdict = _loaded(model, again, unet, scheduler)
        if verdict is not None:
            return f"in folder {number + 1} of {len(_SAVED)}, {verdict}"
    return None


def _loaded(model: DiffusionModel, again: object, unet: Any, scheduler: Any) -> str | None:
    if model.training:
        return "the denoiser is in training mode: end with .eval()"
    T = scheduler.config.num_train_timesteps
    x_t = torch.randn(3, 1, 8, 8, generator=seeded(16, 5))
    for j in (T // 2, T // 50, 4 * T // 5):
        t = torch.tensor((j + 1) / T, dtype=torch.float64)
        right = scheduler.step(unet(x_t, j).sample, j, x_t, generator=seeded(16, 6)).pred_original_sample
        answer = model(x_t, t)
        wrong = {  # a wrong table does no harm where the network says x_0_hat
            words: known
            for words, known in _mistaken(unet, scheduler, x_t, j).items()
            if not torch.allclose(known, right, atol=CLOSE, rtol=CLOSE)
        }
        verdict = diagnose(answer, right, wrong, atol=CLOSE, rtol=CLOSE)
        if verdict is not None:
            if isinstance(again, DiffusionModel) and not torch.equal(again(x_t, t), answer):
                return (
                    "two loads of it give two answers: the weights are drawn anew, as by from_config, and those of the "
                    "folder were not read"
                )
            return verdict
    return None


times_of_timesteps = Exercise(
    "16.1",
    _times_of_timesteps,
    hint="k = timestep + 1, t = k / T, and the last step goes to clean data.",
    praise="any grid of theirs is now one of ours",
)
x_0_of_output = Exercise(
    "16.2", _x_0_of_output, hint="amplitudes are alpha = sqrt(alpha_bar), sigma = sqrt(1 - alpha_bar)."
)
betas_of = Exercise(
    "16.3",
    _betas_of,
    hint="the product of (1 - beta) up to k has to be alpha(k / T)^2.",
    praise="their schedulers take it as trained_betas",
)
bug_hunt = Exercise(
    "16.4",
    _bug_hunt,
    hint="you choose the denoiser and the timesteps: take one with exact answers, and timesteps at both ends.",
    praise="it accuses A, B, D and E, and lets the honest C go",
)
load_folder = Exercise(
    "16.5",
    _load_folder,
    hint="what the network says, the table, and what the network is told: all three stand in the scheduler's config.",
    praise="three models of theirs are denoisers of ours, and say the same",
)
