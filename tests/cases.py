"""What several tests share: every schedule, DDPM's numbers by the products in the paper, awake networks, crossings."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from diffusion_edu import (
    BetaSchedule,
    CosineSchedule,
    EDMSchedule,
    FlowSchedule,
    NoiseSchedule,
    SubVPSchedule,
    VESchedule,
    VPSchedule,
)


class Learnt(NoiseSchedule):
    """alpha = exp(-rate t), with a rate that is learnt, a parameter of the model and not of its network.

    Nothing but alpha and sigma is defined, so that the diffusion at t = 0 is derived as 0 times infinity.
    """

    def __init__(self, rate=3.0):
        super().__init__()
        self.rate = nn.Parameter(torch.as_tensor(rate))

    def alpha(self, t):
        return torch.exp(-self.rate * t)

    def sigma(self, t):
        return torch.sqrt(-torch.expm1(-2 * self.rate * t))


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


def schedule_on(device, name):
    """A schedule of its own: ``.to`` moves in place, and those of the table are shared."""
    return copy.deepcopy(SCHEDULES[name]).to(device)


def awake(net, std=0.2):
    """The net with its zero-initialised layers made random, so that it says something."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in net.parameters():
            if (p == 0).all():
                p.copy_(std * torch.randn(p.shape, generator=generator))
    return net


class Crossings(TorchDispatchMode):
    """What goes between the CPU and ``meta``, which stands in for a GPU.

    ``all`` has every operation that has to do with both, reads a number off meta, or copies; ``waiting`` those that
    would wait for a GPU: a number that is read, and a copy that is made at once.
    """

    def __init__(self):
        super().__init__()
        self.all, self.waiting = [], []

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = op(*args, **kwargs)
        where = {x.device.type for x in (*args, out) if isinstance(x, torch.Tensor)}
        is_read = op is torch.ops.aten._local_scalar_dense.default and "meta" in where
        if len(where) > 1 or is_read or "_to_copy" in str(op):
            self.all.append(op)
        is_copied_over = op is torch.ops.aten._to_copy.default and len(where) > 1
        if is_read or (is_copied_over and (out.device.type == "cpu" or not kwargs.get("non_blocking", False))):
            self.waiting.append(op)
        return out


def ddpm_numbers(betas):
    """The tables of Ho et al. 2020, by the products in the paper."""
    alpha_bar = np.cumprod(1 - betas)
    before = np.concatenate([[1.0], alpha_bar[:-1]])
    return alpha_bar, betas * (1 - before) / (1 - alpha_bar)
