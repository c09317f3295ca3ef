"""Libraries that are not ours, and how to put ours beside them.

A missing one is a skip with a sentence, and a failure where CI is set: a comparison that did not take place must not
look like one that went well.
"""

import importlib
import os
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from diffusion_edu import BetaSchedule, DiffusionModel, NoiseSchedule


def peer(name: str, extra: str) -> ModuleType:
    """The module of this name; ``extra`` is what to install where it is missing."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name != name.split(".")[0]:
            raise  # the library is there, and what it needs is not
        reason = f"There is no {name} here: pip install 'diffusion-edu[{extra}]'"
        if os.environ.get("CI"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason, allow_module_level=True)


class InFloat64:
    """A numerical library in which float32 means float64, to run another's code in the precision of ours."""

    def __init__(self, library: ModuleType) -> None:
        self.library = library

    def __getattr__(self, name: str) -> object:
        return getattr(self.library, "float64" if name == "float32" else name)


def index(schedule: NoiseSchedule, t: Tensor) -> Tensor:
    """The index k - 1 of the node t = k / T, as tutorials and diffusers count. Shape of t, float64."""
    assert isinstance(schedule, BetaSchedule)
    return t.double() * schedule.num_timesteps - 1


class Network(nn.Module):
    """A smooth network that nobody has trained: any answer will do, as long as both libraries get the same one.

    (x, level, condition) -> like x, or with twice the channels. The level is the index of 1000.
    """

    def __init__(self, channels: int = 2, twice: bool = False) -> None:
        super().__init__()
        mix = torch.randn(channels * (2 if twice else 1), channels, generator=torch.Generator().manual_seed(7))
        self.register_buffer("mix", mix.double())

    def forward(self, x: Tensor, level: Tensor, condition: Tensor | None = None) -> Tensor:
        level = (level / 300).reshape(-1, *[1] * (x.ndim - 1))
        mixed = torch.einsum("oc,bc...->bo...", self.mix.to(x), x / torch.sqrt(1 + x**2))
        return torch.tanh(mixed + torch.sin(level) + 0.3)


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal, float64."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class InTheirPipeline(nn.Module):
    """A model of ours where a pipeline of diffusers wants a ``UNet2DModel``: it says what our network says.

    The pipeline counts nodes from 0, so that timestep i is our (i + 1) / T.
    """

    def __init__(self, model: DiffusionModel, channels: int, side: int, condition: Tensor | None = None) -> None:
        super().__init__()
        self.model, self.condition = model, condition
        self.config = SimpleNamespace(in_channels=channels, sample_size=side)
        some = next(model.network.parameters())
        self.dtype, self.device = some.dtype, some.device

    def forward(self, sample: Tensor, timestep: Tensor) -> SimpleNamespace:
        t = self.model.schedule.time(timestep + 1)
        return SimpleNamespace(sample=self.model.output(sample, t, self.condition))


class FromDiffusers(nn.Module):
    """A ``UNet2DModel`` where our models want a network; give ``DiffusionModel`` the ``index`` as its level."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, level: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.unet(x, level, class_labels=condition).sample
