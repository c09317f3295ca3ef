"""The exercises of ``00_quickstart``."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..checks import Exercise, diagnose
from ..process import q_sample
from ..schedule import CosineSchedule

__all__ = ["half_and_half", "noising", "sevens"]


def _half_and_half(t: object) -> str | None:
    wrong = {
        "this is alpha = cos(pi/4), the amplitude at that time; the time t was asked for": math.sqrt(0.5),
        "this is the angle pi/4; the time is the angle divided by pi/2": math.pi / 4,
        "this is the angle in degrees; the time runs from 0 to 1": 45.0,
    }
    return diagnose(t, 0.5, wrong, atol=1e-3)


def _noising(attempt: Callable[..., object]) -> str | None:
    schedule, t = CosineSchedule(), torch.tensor(0.3, dtype=torch.float64)
    x_0, eps = torch.randn(2, 4, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    alpha, sigma = schedule.scales(t, like=x_0)
    wrong = {
        "the noise is multiplied by sigma^2, the variance: the standard deviation sigma was asked for": (
            alpha * x_0 + sigma**2 * eps
        ),
        "the picture does not shrink: without alpha in front of x_0 the sum grows too large": x_0 + sigma * eps,
        "alpha and sigma have changed places": sigma * x_0 + alpha * eps,
        "the noise is subtracted; it is added": alpha * x_0 - sigma * eps,
    }
    return diagnose(attempt(x_0, eps, alpha, sigma), q_sample(schedule, x_0, t, eps), wrong)


def _sevens(labels: object) -> str | None:
    if not isinstance(labels, Tensor):
        return f"a tensor was asked for, such as the notebook's `asked`, and this is of type {type(labels).__name__}"
    if labels.ndim == 2:
        return "these are rows of numbers; one whole number for each sample is asked for, not a one-hot row"
    if labels.is_floating_point():
        return "these labels are floats; a label is a whole number: write 7, not 7.0"
    if labels.shape != (16,):
        return f"16 labels were asked for, one for each sample, and these are of shape {tuple(labels.shape)}"
    return None if bool((labels == 7).all()) else "these labels ask for other digits than seven"


half_and_half = Exercise("0.1", _half_and_half, hint="cos and sin are equal at the angle pi/4; the angle is pi t / 2.")
noising = Exercise("0.2", _noising, hint="two products and a sum.")
sevens = Exercise("0.3", _sevens, hint="torch.full makes a tensor of equal numbers.")
