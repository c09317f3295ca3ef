"""The exercises of ``08_sampling``."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor

from ..analytic import GaussianMixture
from ..checks import Exercise, diagnose, hunted, truth
from ..data import seeded
from ..gaussian import noise_like
from ..process import posterior_std, prior, q_posterior
from ..sampler import times
from ..schedule import BetaSchedule, CosineSchedule

__all__ = ["DATA", "bug_hunt", "clipped_step", "last_noise", "run_sampler", "skipped_step", "three_steps"]

STEPS = 50  # of the four samplers, under the cosine schedule
DRAWS = 1500
NAMES = tuple("ABCD")
HONEST = "C"
HONEST_RUNS = 6  # runs of the honest sampler, to learn how much a measure varies by itself
LIMIT = 5.0  # of its own standard deviations: further up, a measure accuses a sampler
DATA = GaussianMixture(
    torch.tensor([0.25, 0.4, 0.35], dtype=torch.float64),
    torch.tensor([[-0.9, -0.2], [1.0, -0.5], [0.1, 0.8]], dtype=torch.float64),
    torch.tensor([[0.01, 0.25], [0.25, 0.01], [0.25, 0.01]], dtype=torch.float64),
)


# ------------------------------------------------------------------------------------------------ 8.1


def _skipped_step(attempt: Callable[..., object]) -> str | None:
    a_s, s_s, a_t, s_t = (torch.tensor(number, dtype=torch.float64) for number in (0.8, 0.5, 0.3, 1.2))
    x_t, x_0_hat, z = torch.randn(3, 6, 2, generator=seeded(8, 1), dtype=torch.float64)
    r, rho = a_t / a_s, (a_t * s_s / (a_s * s_t)) ** 2
    kappa = r * s_s**2 / s_t**2
    mean, width = kappa * x_t + a_s * (1 - rho) * x_0_hat, s_s * torch.sqrt(1 - rho)
    eps_hat = (x_t - a_t * x_0_hat) / s_t
    on_a_circle = 1 - r**2  # b, where alpha^2 + sigma^2 = 1
    circle_mean = kappa * x_t + a_s * on_a_circle / s_t**2 * x_0_hat
    wrong = {
        "z is multiplied by the variance, but the standard deviation, its root, belongs there": mean + width**2 * z,
        "the noise has the variance b of the step forward, but beta-tilde was asked for: sigma_s belongs where sigma_t "
        "stands": mean + s_t * torch.sqrt(1 - rho) * z,
        "there is no noise in it: add sqrt(beta-tilde) z": mean,
        "the noise that x_t still holds was thrown away: sigma_s z is all of x_s's noise, drawn anew": (
            a_s * x_0_hat + s_s * z
        ),
        "the old noise is kept whole and nothing new is drawn; that is a step of another sampler (notebook 09)": (
            a_s * x_0_hat + s_s * eps_hat
        ),
        "the old noise is kept whole and new noise comes on top: together they are more than sigma_s^2": (
            a_s * x_0_hat + s_s * eps_hat + width * z
        ),
        "this is right where alpha^2 + sigma^2 = 1 and nowhere else: 1 - (alpha_t / alpha_s)^2 is not b in general": (
            circle_mean + s_s / s_t * torch.sqrt(on_a_circle) * z
        ),
        "the coefficients of x_t and x_0_hat have changed places": (
            kappa * x_0_hat + a_s * (1 - rho) * x_t + width * z
        ),
        "rho stands where 1 - rho belongs, in the factor of x_0_hat": (kappa * x_t + a_s * rho * x_0_hat + width * z),
    }
    diagnosis = diagnose(attempt(x_t, x_0_hat, a_s, s_s, a_t, s_t, z), mean + width * z, wrong)
    if diagnosis is not None:
        return diagnosis
    one, nothing = torch.ones_like(a_s), torch.zeros_like(a_s)
    if diagnose(attempt(x_t, x_0_hat, one, nothing, a_t, s_t, z), x_0_hat) is not None:
        return (
            "between two noisy times it is right, but in the last step, to s = 0, it is not: with alpha_s = 1 and "
            "sigma_s = 0 it has to return x_0_hat; divide by sigma_t, never by sigma_s"
        )
    return None


# ------------------------------------------------------------------------------------------------ 8.2


def _last_noise(levels: object) -> str | None:
    sigma = math.sin(math.pi / 50)
    wrong = {
        "this is the standard deviation on the scale from -1 to 1; a gray level is 2/255 on it": sigma,
        "the scale from -1 to 1 is 2 long, so 255 gray levels are 2 and not 1": 255 * sigma,
        "this is made from the variance, but the standard deviation was asked for": 127.5 * sigma**2,
        "this is the table of DDPM with its thousand steps, sqrt(beta_1) = 0.01; here there are 25 steps of the cosine "
        "schedule": 1.275,
        "with beta-tilde there is indeed no noise at s = 0; this program adds b": 0.0,
        "this is the noise at the time 24/25, where the walk is still all noise; the last step starts at 1/25": (
            127.5 * math.sin(math.pi / 2 * 24 / 25)
        ),
    }
    return diagnose(levels, 127.5 * sigma, wrong, atol=0.05, rtol=0.0)


# ------------------------------------------------------------------------------------------------ 8.3


def _terminal(wide: bool, last: bool = False, squared: bool = True) -> float:
    """The variance after the three steps for N(0, 1): alpha^2 is 0, 1/4, 3/4, 1 at t = 1, 2/3, 1/3, 0."""
    U, kept = 1.0, [0.0, 0.25, 0.75, 1.0]
    for now, before in pairwise(kept):
        gain = now / before  # G^2 = alpha_t^2 / alpha_s^2, as V = 1
        b = 1 - gain
        w = b if wide else b * (1 - before) / (1 - now)
        U = (gain if squared else math.sqrt(gain)) * U + (w if before < 1 or last else 0.0)
    return U


def _three_steps(with_beta_tilde: object, with_b: object) -> str | None:
    narrow, wide = _terminal(False), _terminal(True)
    wrong_narrow = {
        "the two have changed places: first beta-tilde, then b": wide,
        "the variance is multiplied by G^2, and here it was multiplied by G": _terminal(False, squared=False),
        "each step multiplies the variance that is there by G^2 before it adds its own": (
            lambda answer: any(abs(float(answer) - added) < 5e-4 for added in (35 / 36, 71 / 36))
        ),
        "this is what the data have; the sampler with beta-tilde has less": 1.0,
        "the last step has not been taken yet: it multiplies by alpha^2 = 3/4 at t = 1/3": 17 / 36,
    }
    diagnosis = diagnose(with_beta_tilde, narrow, wrong_narrow, atol=5e-4, rtol=0.0)
    if diagnosis is not None:
        return f"with beta-tilde: {diagnosis}"
    wrong_wide = {
        "noise was added in the last step, and the sampler adds none there": _terminal(True, last=True),
        "this is the answer for beta-tilde again": narrow,
        "the variance is multiplied by G^2, and here it was multiplied by G": _terminal(True, squared=False),
    }
    diagnosis = diagnose(with_b, wide, wrong_wide, atol=5e-4, rtol=0.0)
    return None if diagnosis is None else f"beta-tilde is right; with b: {diagnosis}"


# ------------------------------------------------------------------------------------------------ 8.4


def _clipped_step(attempt: Callable[..., object]) -> str | None:
    a_s, s_s, a_t, s_t, std = (torch.tensor(number, dtype=torch.float64) for number in (0.9, 0.5, 0.6, 0.8, 0.3))
    x_t, eps_hat, z = torch.randn(3, 40, 2, generator=seeded(8, 4), dtype=torch.float64)
    kept = torch.sqrt(s_s**2 - std**2)
    raw = (x_t - s_t * eps_hat) / a_t
    clipped = raw.clamp(-1, 1)

    def step(x_0: Tensor, eps: Tensor, old: Tensor = kept) -> Tensor:
        return a_s * x_0 + old * eps + std * z

    eps = (x_t - a_t * clipped) / s_t
    wrong = {
        "x_0_hat is clipped and eps_hat is the old one: the two no longer make x_t; derive eps_hat again": (
            step(clipped, eps_hat)
        ),
        "nothing was clipped: x_0_hat lies outside of [-1, 1] in places": step(raw, eps_hat),
        "x_s was clipped, and it is a noisy picture, which may lie outside; x_0_hat is what has to be clipped": (
            step(raw, eps_hat).clamp(-1, 1)
        ),
        "eps_hat was clipped, and noise has no box; x_0_hat is what lies in [-1, 1]": step(
            (x_t - s_t * eps_hat.clamp(-1, 1)) / a_t, eps_hat.clamp(-1, 1)
        ),
        "the clipped x_0_hat went into eps_hat, and the unclipped one is still in the step": step(raw, eps),
        "the old noise is kept whole, sigma_s eps_hat, and the new noise comes on top: keep sqrt(sigma_s^2 - std^2)": (
            step(clipped, eps, s_s)
        ),
        "the old noise is multiplied by sigma_s^2 - std^2, but its root belongs there": step(clipped, eps, kept**2),
        "sigma_s - std is not the root of sigma_s^2 - std^2": step(clipped, eps, s_s - std),
    }
    return diagnose(attempt(x_t, eps_hat, a_s, s_s, a_t, s_t, std, z), step(clipped, eps), wrong)


# ------------------------------------------------------------------------------------------------ 8.5


@lru_cache(maxsize=64)
def _samples(name: str, seed: int) -> Tensor:
    schedule, generator = CosineSchedule(), seeded(8, 5, ord(name), seed)
    table = BetaSchedule.cosine(1000)
    denoiser = DATA.denoiser(schedule)
    x = prior(schedule, (DRAWS, 2), generator, dtype=torch.float64)
    for t, s in pairwise(times(STEPS)):
        x_0_hat = denoiser(x, t)
        if name == "A":  # a box for pictures, around points that do not lie in it
            x_0_hat = x_0_hat.clamp(-1, 1)
        mean = q_posterior(schedule, x, x_0_hat, s, t).mean
        width = posterior_std(schedule, s, t)
        if name == "D" and s > 0:  # the table's entry, for a stride of twenty of its steps
            width = torch.sqrt(table.betas[round(float(t) * 1000) - 1])
        if name == "B" and s == 0:  # the last step has noise like all others: the variance of the step forward
            width = schedule.sigma(t)
        x = mean + width * noise_like(x, generator)
    return x


def run_sampler(name: str, seed: int = 0) -> Tensor:
    """Samples of one of four ancestral samplers of ``DATA``: 50 steps of the cosine schedule, an exact denoiser.

    Args:
        name: "A", "B", "C" or "D".
        seed: of the draws.

    Returns:
        (1500, 2), float64.

    Raises:
        ValueError: for another name.
    """
    if name not in NAMES:
        raise ValueError(f"the samplers are A, B, C and D, and {name!r} was asked for.")
    return _samples(name, seed).clone()


_MISSED = {
    "A": "A has the right share of samples in each stroke; but all of them lie in [-1, 1], and not all of the data do: "
    "look at the length of each stroke",
    "B": "B has the right strokes in the right places, and each of them is too wide: look at the width of each stroke",
    "D": "D's samples all lie where data lie, but one of the strokes is nearly empty: look at the share of each",
}


def _bug_hunt(attempt: Callable[..., object]) -> str | None:
    first = torch.as_tensor(attempt(run_sampler(HONEST), DATA))
    if truth(first) is not None:
        return "a measure answers with a number, the larger the worse, not with True or False"
    if first.numel() != 1:
        return "a measure answers with one number, and this is several: add them up, or take the largest"

    def measured(name: str, runs: int) -> Tensor:
        values = [torch.as_tensor(attempt(run_sampler(name, seed), DATA)) for seed in range(runs)]
        return torch.stack([value.detach().double().reshape(()) for value in values])

    usual = measured(HONEST, HONEST_RUNS)
    if not bool(usual.isfinite().all()):
        return "on an honest sampler your measure gives numbers that are not finite"
    highest = usual.mean() + LIMIT * usual.std() + 1e-9
    values = {name: measured(name, 2) for name in _MISSED}
    found = [name for name, of_name in values.items() if not bool((of_name <= highest).any())]  # NaN is strange, too
    lower = [name for name, of_name in values.items() if bool((of_name < usual.min()).all())]
    if not found and lower:
        return (
            f"it gives the broken sampler {lower[0]} smaller numbers than the honest one, and takes none of the three "
            "for broken. Too small has to count as well as too large: take magnitudes of differences"
        )
    return hunted(found, _MISSED)


skipped_step = Exercise(
    "8.1",
    _skipped_step,
    hint="1 - rho is all you need: with it, (8.2) gives the two factors and the variance sigma_s^2 (1 - rho).",
    praise="between any two times, under any schedule, and in the last step to s = 0",
)
last_noise = Exercise("8.2", _last_noise, hint="at s = 0 the variance b is sigma_t^2, with t = 1/25.")
three_steps = Exercise(
    "8.3",
    _three_steps,
    hint="for v = 1 all V are 1, so G^2 is alpha_t^2 / alpha_s^2; at t = 1 it is 0.",
    praise="beta-tilde keeps a third of the variance in three steps, and b three quarters",
)
clipped_step = Exercise(
    "8.4",
    _clipped_step,
    hint="first x_0_hat from x_t and eps_hat, then clip it, then eps_hat from x_t and the clipped one.",
)
bug_hunt = Exercise(
    "8.5",
    _bug_hunt,
    hint="data.responsibilities(samples).argmax(1) says to which stroke each sample belongs; then compare what you "
    "know of each stroke.",
    praise="the honest C has the smallest number in all runs, and A, B and D lie far above it",
)
