"""What several tests share: every schedule, DDPM's numbers by the products in the paper, awake networks, crossings."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

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


class OnMPS(torch.Tensor):
    """A tensor that says that it is on MPS, and has its numbers on the CPU, in ``held``. See ``LikeMPS``."""

    @staticmethod
    def __new__(cls, held):
        where = held.shape, held.stride(), held.storage_offset()
        new = torch.Tensor._make_wrapper_subclass(cls, *where, dtype=held.dtype, device="meta")
        new.held = held
        return new

    def __init__(self, held):
        pass

    def __repr__(self):
        return f"OnMPS({self.held})"

    @classmethod
    def __torch_dispatch__(cls, op, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        there = [x for x in tensors if isinstance(x, OnMPS)]
        name, named = op._overloadpacket.__name__, kwargs.get("device")
        assert name not in LikeMPS.MISSING, f"MPS has no {name}"
        if there and len(there) < len(tensors) and name not in ("copy_", "_to_copy"):
            left = [x for x in tensors if not isinstance(x, OnMPS)]
            assert all(x.ndim == 0 for x in left), f"{name} of a tensor on MPS and one on the CPU"
        to_mps = bool(there) if named is None else torch.device(named).type == "meta"
        if named is not None:
            kwargs["device"] = torch.device("cpu")
        held = tree_map(lambda x: x.held if isinstance(x, OnMPS) else x, (args, kwargs))
        out = op(*held[0], **held[1])
        if not to_mps:
            return out
        made = [x for x in tree_leaves(out) if isinstance(x, torch.Tensor)]
        assert all(x.dtype != torch.float64 for x in made), f"{name} makes float64, which MPS has not"
        out = tree_map(lambda x: OnMPS(x) if isinstance(x, torch.Tensor) else x, out)
        return return_and_correct_aliasing(op, args, kwargs, out) if there else out


class LikeMPS(TorchFunctionMode):
    """In this block there is a device "mps", which computes what the CPU does and refuses what MPS does not have.

    That is float64, two operations, and arithmetic of a tensor there with one on the CPU that has a dimension.
    """

    MISSING = ("take", "special_log_ndtr")  # from PyTorch's releases up to 2.13
    READS = ("__float__", "__bool__", "__int__", "__index__", "__len__", "__contains__", "item", "tolist", "numpy")

    class _Factories(TorchDispatchMode):
        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            return OnMPS.__torch_dispatch__(op, types, args, kwargs)

    def __enter__(self):
        self.factories = self._Factories()
        self.factories.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.factories.__exit__(*error)

    def __torch_function__(self, fn, types, args=(), kwargs=None):
        if args and isinstance(args[0], OnMPS):
            if fn == torch.Tensor.device.__get__:
                return torch.device("mps", 0)
            if fn == torch.Tensor.is_meta.__get__:
                return False
            if getattr(fn, "__name__", "") in self.READS:
                args = [x.held if isinstance(x, OnMPS) else x for x in args]

        def named(x):  # by meta, which every PyTorch has
            return torch.device("meta") if isinstance(x, str | torch.device) and str(x).startswith("mps") else x

        if fn is torch.tensor and kwargs and named(kwargs.get("device")) == torch.device("meta"):
            return torch.tensor(*args, **{name: x for name, x in kwargs.items() if name != "device"}).to("meta")
        return fn(*map(named, args), **{name: named(x) for name, x in (kwargs or {}).items()})


def ddpm_numbers(betas):
    """The tables of Ho et al. 2020, by the products in the paper."""
    alpha_bar = np.cumprod(1 - betas)
    before = np.concatenate([[1.0], alpha_bar[:-1]])
    return alpha_bar, betas * (1 - before) / (1 - alpha_bar)
