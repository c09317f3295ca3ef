r"""The Gaussian and its neighbours: everything in a diffusion model that is not learnt.

Notebook: ``A_refresher`` derives these, ``04_elbo`` adds them up.

    log N(x; mu, s^2)          = -(x - mu)^2 / (2 s^2) - log s - log(2 pi) / 2
    KL(N(mu, s^2) || N(m, r^2)) = log(r / s) + (s^2 + (mu - m)^2) / (2 r^2) - 1/2

All of it is elementwise, in nats: a picture is many independent numbers, and the caller sums over them.

A standard deviation of 0 is allowed and means a point. The reverse process ends in one: q(x_0 | x_t, x_0) is x_0
itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .door import check_alike, check_counts, check_generator, is_real, readable, said

__all__ = ["Normal", "bits_per_dim", "discretized_log_prob"]


@dataclass(frozen=True)
class Normal:
    """Independent Gaussians, one for each element of ``mean``.

    Args:
        mean: any shape (...).
        std: standard deviation (not the variance), >= 0, of a shape that broadcasts to that of ``mean``. 0 is a point.

    Raises:
        ValueError: if ``std`` does not broadcast to the shape of ``mean``, is on another device, or is negative (read
            on the CPU only).
        TypeError: if one of them is not a float tensor.
    """

    mean: Tensor
    std: Tensor

    def __post_init__(self) -> None:
        for name, x in (("mean", self.mean), ("std", self.std)):
            if not isinstance(x, Tensor) or not x.is_floating_point():
                raise TypeError(f"Normal got {name} = {said(x)}; it needs float tensors, such as torch.tensor(1.0).")
        try:
            fits = torch.broadcast_shapes(self.mean.shape, self.std.shape) == self.mean.shape
        except RuntimeError:
            fits = False
        if not fits:
            raise ValueError(
                f"Normal got a mean of shape {tuple(self.mean.shape)} and a std of shape {tuple(self.std.shape)}; "
                "the std must broadcast to the mean's shape: reshape it, for example to (B, 1, 1, 1) for images."
            )
        if self.mean.device != self.std.device:
            raise ValueError(
                f"Normal got a mean on {self.mean.device} and a std on {self.std.device}; move them to one device."
            )
        if readable(self.std) and bool((self.std.detach() < 0).any()):
            lowest = float(self.std.detach().min())
            raise ValueError(f"Normal got std={lowest:.4g}; it must be at least 0, and 0 is a point.")

    @property
    def variance(self) -> Tensor:
        """std squared, shape of ``std``."""
        return self.std**2

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw, mean + std * eps with eps ~ N(0, I). Shape of ``mean``."""
        return self.mean + self.std * noise_like(self.mean, generator)

    def log_prob(self, x: Tensor) -> Tensor:
        """log N(x; mean, std^2) of each element, in nats, shape of ``x``.

        A point (std = 0) has density +inf on itself and log-density -inf elsewhere.
        """
        _broadcasts("Normal.log_prob", x=x, mean=self.mean)
        residual = x - self.mean
        log_prob = -0.5 * (residual / self.std) ** 2 - torch.log(self.std) - 0.5 * math.log(2 * math.pi)
        of_a_point = torch.where(residual == 0, math.inf, -math.inf)
        return torch.where(self.std == 0, of_a_point, log_prob)

    def kl(self, other: Normal) -> Tensor:
        """KL(self || other) of each element, in nats, of the shape to which the two means broadcast.

        From a point to the same point it is 0. From a density or another point to a point, or from a point to a
        density, it is +inf: one of the two gives probability 0 to a set that has probability 1 under the other.
        """
        _broadcasts("Normal.kl", mean=self.mean, other_mean=other.mean)
        shift = (self.mean - other.mean) ** 2
        v = (self.std / other.std) ** 2
        kl = (v - 1 - torch.log(v)) / 2 + shift / (2 * other.variance)  # keeps its digits if the two are close
        same_point = (self.std == 0) & (other.std == 0) & (shift == 0)
        any_point = (self.std == 0) | (other.std == 0)
        return torch.where(same_point, 0.0, torch.where(any_point, math.inf, kl))


def _broadcasts(who: str, **two: Tensor) -> None:
    check_alike(who, **{name: x.new_empty(()) if isinstance(x, Tensor) else x for name, x in two.items()})
    shapes = [tuple(x.shape) for x in two.values()]
    try:
        torch.broadcast_shapes(*shapes)
    except RuntimeError:
        given = " and ".join(f"{name} of shape {shape}" for name, shape in zip(two, shapes, strict=True))
        raise ValueError(f"{who} got {given}; give them one shape, or shapes that broadcast.") from None


def noise_like(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """eps ~ N(0, I) of the shape, dtype and device of ``x``.

    A generator on another device than ``x`` is used where it lives and the noise is moved,
    so that one CPU seed gives the same noise on every machine.
    """
    if not x.is_floating_point():
        raise TypeError(
            f"noise was asked for, to match data of type {x.dtype}; noise is drawn in floats: convert the data "
            "to floats first."
        )
    check_generator("a draw of noise", generator)
    where = x.device if generator is None or x.is_meta else generator.device
    drawn = torch.randn(x.shape, dtype=x.dtype, device=where, generator=None if x.is_meta else generator)
    return drawn.to(x.device, non_blocking=x.device.type == "cuda")  # staged before the call returns: nothing waits


def discretized_log_prob(normal: Normal, x: Tensor, levels: int = 256) -> Tensor:
    r"""log P(x) of discrete data on [-1, 1] under a Gaussian, each value owning its bin (DDPM, section 3.3).

        P(x) = \int_{x - h}^{x + h} N(u; mean, std^2) du,    h = 1 / (levels - 1),

    where the lowest bin reaches down to -inf and the highest up to +inf, so that the probabilities sum to 1.
    The exact normal distribution function is used, in a form that keeps its digits far out in the tails.

    Args:
        normal: the decoder, of shape (...), std > 0.
        x: data of the same shape, each value one of ``levels`` equally spaced points from -1 to 1.
        levels: how many values a pixel can take; 256 for 8-bit data.

    Returns:
        log-probabilities in nats, at most 0, shape of ``x``.
    """
    check_counts("discretized_log_prob", 2, levels=levels)
    check_alike("discretized_log_prob", mean=normal.mean, x=x)
    half = 1.0 / (levels - 1)
    x = x.to(torch.promote_types(x.dtype, torch.float32))  # log_ndtr takes no half precision, and it would not do
    upper = torch.where(x > 1 - half, math.inf, (x + half - normal.mean) / normal.std)
    lower = torch.where(x < -1 + half, -math.inf, (x - half - normal.mean) / normal.std)
    # log(Phi(u) - Phi(l)) = log Phi(u) + log(1 - Phi(l) / Phi(u)). Mirrored into the left tail, where log Phi is exact.
    right = lower + upper > 0
    lower, upper = torch.where(right, -upper, lower), torch.where(right, -lower, upper)
    log_upper, log_lower = _log_ndtr(upper), _log_ndtr(lower)
    return log_upper + torch.log(-torch.expm1(log_lower - log_upper))


def _log_ndtr(x: Tensor) -> Tensor:
    """log of the normal distribution function, shape of x. MPS does not have it and goes by way of the CPU."""
    return torch.special.log_ndtr(x.cpu()).to(x.device) if x.device.type == "mps" else torch.special.log_ndtr(x)


def bits_per_dim(nats: Tensor, dims: int, scale: float = 1.0) -> Tensor:
    r"""A negative log-likelihood in bits per dimension.

        bits/dim = nats / (dims * log 2)  -  log2(scale)

    The second term is the one that everyone forgets. A density is per unit of x. If x was scaled by ``scale`` from
    the units in which a bin has width 1 (8-bit data on [-1, 1]: scale = 1 / 127.5), the density in the original
    units is ``scale`` times the density in x, so that a *density's* bits per dimension grow by log2(127.5) = 6.99.
    A *probability* (``discretized_log_prob``) has no units, and takes scale = 1.

    Args:
        nats: negative log-likelihood of whole examples, any shape (...).
        dims: numbers in an example, >= 1 (784 for 28x28).
        scale: dx / d(original units), > 0.

    Returns:
        bits per dimension, shape of ``nats``.
    """
    check_counts("bits_per_dim", dims=dims)
    if not is_real(scale) or not 0 < scale < math.inf:
        raise ValueError(f"bits_per_dim got dims={dims} and scale={scale!r}; it needs dims >= 1 and scale > 0.")
    return nats / (dims * math.log(2)) - math.log2(scale)
