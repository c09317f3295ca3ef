"""What several tests run over: every schedule, and DDPM's numbers by the products in the paper."""

import numpy as np
import pytest

from diffusion_edu import (
    BetaSchedule,
    CosineSchedule,
    EDMSchedule,
    FlowSchedule,
    SubVPSchedule,
    VESchedule,
    VPSchedule,
)

SCHEDULES = {
    "linear": BetaSchedule.linear(1000),
    "linear-10": BetaSchedule.linear(10, 1e-2, 0.5),
    "cosine-table": BetaSchedule.cosine(1000),
    "sigmoid-table": BetaSchedule.sigmoid(1000),
    "cosine": CosineSchedule(),
    "vp": VPSchedule(),
    "sub-vp": SubVPSchedule(),
    "ve": VESchedule(),
    "edm": EDMSchedule(),
    "flow": FlowSchedule(),
}
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())


def ddpm_numbers(betas):
    """The tables of Ho et al. 2020, by the products in the paper."""
    alpha_bar = np.cumprod(1 - betas)
    before = np.concatenate([[1.0], alpha_bar[:-1]])
    return alpha_bar, betas * (1 - before) / (1 - alpha_bar)
