r"""The training objective: how wrong is the network's output, example by example.

Notebooks: ``04_elbo`` (where it comes from), ``05_epsilon_objective`` (what is left of it).

    loss = weight(t) * mean over the example's numbers of (o - o*)^2,      o* = a x_0 + b eps

With the network predicting eps and no weight this is DDPM's L_simple (Ho et al. 2020, eq. 14), per number.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .denoiser import DiffusionModel
from .gaussian import noise_like
from .process import q_sample
from .schedule import NoiseSchedule

__all__ = ["TimeSampler", "Weight", "denoising_loss", "stratified", "uniform"]

TimeSampler = Callable[[int, "torch.Generator | None"], Tensor]
Weight = Callable[[NoiseSchedule, Tensor], Tensor]


def denoising_loss(
    model: DiffusionModel,
    x_0: Tensor,
    t: Tensor,
    weight: Weight | None = None,
    condition: Tensor | None = None,
    eps: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Squared error of the network's output on noised data, one number per example.

    Args:
        model: network, schedule and parameterisation.
        x_0: clean data, (B, ...), scaled as the model expects (images: [-1, 1]).
        t: times in (0, 1], () or (B,).
        weight: (schedule, t) -> the factor on each example's error, shape of t; None for 1.
        condition: (B,) labels or None.
        eps: the noise, shape of x_0; drawn from ``generator`` if None.
        generator: source of the noise.

    Returns:
        (B,), the mean over each example's numbers of the weighted squared error.
    """
    eps = noise_like(x_0, generator) if eps is None else eps
    x_t = q_sample(model.schedule, x_0, t, eps)
    output = model.output(x_t, t, condition)
    target = model.parameterization.target(model.schedule, x_0, eps, t)
    loss = ((output - target) ** 2).flatten(1).mean(1)
    return loss if weight is None else weight(model.schedule, t).to(loss) * loss


def uniform(batch: int, generator: torch.Generator | None = None) -> Tensor:
    """Independent times, uniform on (0, 1]. (batch,), float64, on the generator's device."""
    return 1 - _rand(batch, generator)


def stratified(batch: int, generator: torch.Generator | None = None) -> Tensor:
    """One uniform time in each of ``batch`` equal slices of (0, 1], in random order.

    Each time alone is uniform on (0, 1]; together they cover it evenly, and the batch's loss varies less
    (Kingma et al. 2021, appendix I.1, shift a whole lattice; here each slice has its own draw). (batch,), float64.
    """
    u = _rand(batch, generator)
    slices = torch.randperm(batch, generator=generator, device=u.device)
    return 1 - (slices + u) / batch


def _rand(batch: int, generator: torch.Generator | None) -> Tensor:
    device = generator.device if generator is not None else torch.device("cpu")
    dtype = torch.float32 if device.type == "mps" else torch.float64
    return torch.rand(batch, generator=generator, dtype=dtype, device=device)
