r"""Noise schedules: how much signal and how much noise there is at time t.

Notebooks: ``02_closed_form`` derives the table of betas, ``12_sdes`` and ``15_flow_matching`` the others.

    x_t = alpha(t) x_0 + sigma(t) eps,      eps ~ N(0, I),   t in [0, 1],  the data at t = 0

A schedule is the two functions alpha and sigma. Everything else follows from them:

    SNR(t)     = alpha(t)^2 / sigma(t)^2            signal-to-noise ratio, falling in t; log_snr is its logarithm
    f(t)       = alpha'(t) / alpha(t)               drift of the forward SDE        dx = f x dt + g dw
    g(t)^2     = -sigma(t)^2 d log SNR / dt         its diffusion

(Kingma et al. 2021, "Variational diffusion models", section 3; Song et al. 2021, "Score-based generative modeling
through stochastic differential equations", appendix B.)
"""

from __future__ import annotations

import math
import numbers
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .door import check_counts, check_times, is_real, readable, said

__all__ = [
    "LARGEST_RATIO",
    "BetaSchedule",
    "CosineSchedule",
    "EDMSchedule",
    "FlowSchedule",
    "NoiseSchedule",
    "SubVPSchedule",
    "VESchedule",
    "VPSchedule",
    "expand",
]

# Where alpha(1) = 0, sigma / alpha is infinite at t = 1; grids and the adaptive SDE sampler then start from this ratio,
# EDM's largest sigma (Karras et al. 2022, table 1).
LARGEST_RATIO = 80.0


def expand(coefficient: Tensor, like: Tensor) -> Tensor:
    """A coefficient per example, made ready to multiply a batch. The package's only broadcasting code.

    Args:
        coefficient: shape () or (B,), usually float64.
        like: a batch of shape (B, ...).

    Returns:
        the coefficient in the dtype and on the device of ``like``, of shape () or (B, 1, ..., 1).

    Raises:
        ValueError: for any other shape.
        TypeError: if the batch is not of floats: rounded to a whole number, a coefficient below 1 would become 0.
    """
    if not like.is_floating_point():
        raise TypeError(
            f"a coefficient met a batch of type {like.dtype}, and it must be of floats: to_model_range converts 8-bit "
            "pictures."
        )
    if coefficient.ndim == 1 and like.ndim >= 1 and coefficient.shape[0] in (1, like.shape[0]):
        coefficient = coefficient.reshape(-1, *[1] * (like.ndim - 1))
    elif coefficient.ndim != 0:
        raise ValueError(
            f"a time or coefficient of shape {tuple(coefficient.shape)} met a batch of shape {tuple(like.shape)}; "
            f"it must be a scalar or have one entry for each of the batch's {like.shape[0] if like.ndim else 0} "
            "examples."
        )
    return onto(like.device, coefficient, like.dtype)


def onto(device: torch.device, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """x on a device, and in a dtype if one is given. From the CPU to a GPU nothing waits for what the GPU is doing.

    Times and grids live on the CPU, where they can be looked at, and every step sends a few of their numbers to the
    GPU. Such numbers are copied aside before the call returns, and the GPU receives them in its turn. A copy from the
    GPU to the CPU could be read before it has arrived, and MPS gives no guarantee in either direction, so in these
    cases the copy waits.
    """
    goes_up = x.device.type == "cpu" and device.type not in ("cpu", "mps")
    return x.to(device=device, dtype=dtype, non_blocking=goes_up)


def slope(f: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    """df/dt of an elementwise function, by automatic differentiation. Shape of t.

    The result can be differentiated again if t requires a gradient, or if f has weights that do (a learnt schedule).
    """
    learnt = torch.is_grad_enabled() and (t.requires_grad or f(t.detach()).requires_grad)
    with torch.inference_mode(False), torch.enable_grad():
        t = t.clone() if learnt and t.requires_grad else t.detach().clone().requires_grad_()
        y = f(t)
        if not y.requires_grad:
            return torch.zeros_like(t)
        return torch.autograd.grad(y.sum(), t, create_graph=learnt, materialize_grads=True)[0]


class NoiseSchedule(nn.Module, ABC):
    """The pair (alpha, sigma). To add a schedule, subclass and define both; the rest is derived.

    alpha(0) = 1, sigma(0) = 0 and the signal-to-noise ratio falls strictly in t.
    Times are tensors of any shape in [0, 1]; results have the same shape. A float64 time is answered in float64:
    differences of SNRs cancel badly near t = 0, so samplers and likelihoods count time in float64.
    """

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Amplitude of the signal, from 1 at t = 0 downwards (or constant 1). Shape of t."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Standard deviation of the noise, from 0 at t = 0 upwards. Shape of t."""

    def log_snr(self, t: Tensor) -> Tensor:
        """log(alpha^2 / sigma^2), +inf at t = 0, falling. Shape of t."""
        return 2 * (torch.log(self.alpha(t)) - torch.log(self.sigma(t)))

    def time_at(self, log_snr: Tensor) -> Tensor:
        """The t in [0, 1] at which the log signal-to-noise ratio has this value: the inverse of ``log_snr``.

        By bisection to the last bit; a value outside the schedule's range gives the nearest end. Shape of ``log_snr``.
        """
        low, high = torch.zeros_like(log_snr), torch.ones_like(log_snr)
        for _ in range(1100 if log_snr.dtype == torch.float64 else 160):  # small t need more halvings than bits
            middle = (low + high) / 2
            if bool(((middle == low) | (middle == high)).all()):
                break
            too_clean = self.log_snr(middle) > log_snr
            low, high = torch.where(too_clean, middle, low), torch.where(too_clean, high, middle)
        return torch.where(self.log_snr(torch.ones_like(high)) >= log_snr, torch.ones_like(high), high)

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(d alpha / dt, d sigma / dt), per unit of t, by automatic differentiation. Shapes of t."""
        return slope(self.alpha, t), slope(self.sigma, t)

    def drift(self, t: Tensor) -> Tensor:
        """f(t) = alpha'(t) / alpha(t) of the forward SDE dx = f x dt + g dw, at most 0. Shape of t."""
        return self.rates(t)[0] / self.alpha(t)

    def diffusion(self, t: Tensor) -> Tensor:
        """g(t) >= 0 with g^2 = -sigma^2 d log_snr / dt = 2 sigma sigma' - 2 f sigma^2. Shape of t."""
        alpha_rate, sigma_rate = self.rates(t)
        sigma = self.sigma(t)
        return torch.sqrt(2 * sigma * (sigma_rate - sigma * alpha_rate / self.alpha(t)))

    def scales(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha(t), sigma(t)) ready to multiply a batch.

        Args:
            t: shape () or (B,), in [0, 1].
            like: shape (B, ...).

        Returns:
            two tensors of shape () or (B, 1, ..., 1), in the dtype and on the device of ``like``.

        Raises:
            ValueError: if t has another shape, or leaves [0, 1].
            TypeError: if t is not a float tensor, or ``like`` is not.
        """
        check_times(type(self).__name__, t=t)
        return expand(self.alpha(t), like), expand(self.sigma(t), like)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> NoiseSchedule:
        # A table of betas in half precision is a classic mistake: alpha_bar rounds to 1 for the first steps. So
        # `.to(device)` moves a schedule's tables, and their precision changes only on a device without float64.
        tables = {name: b for name, b in self._buffers.items() if b is not None and b.is_floating_point()}
        for name in tables:
            self._buffers[name] = None
        try:
            super()._apply(fn, recurse)  # whatever else it may have: parameters, submodules, integer buffers
        finally:
            self._buffers.update(tables)  # also where the move fails, as to a GPU that is not there
        for name, table in tables.items():
            device = fn(torch.empty(0, device=table.device)).device
            dtype = torch.float32 if device.type == "mps" else torch.float64
            moved = torch.empty_like(table, device=device) if table.is_meta else table.to(device=device, dtype=dtype)
            self._buffers[name] = moved
        return self


class _VariancePreserving(NoiseSchedule):
    """alpha^2 + sigma^2 = 1, given by one function: log alpha_bar(t) = log alpha(t)^2."""

    @abstractmethod
    def log_alpha_bar(self, t: Tensor) -> Tensor:
        """log alpha(t)^2, from 0 downwards. Shape of t."""

    def alpha(self, t: Tensor) -> Tensor:
        """sqrt(alpha_bar). Shape of t."""
        return torch.exp(self.log_alpha_bar(t) / 2)

    def sigma(self, t: Tensor) -> Tensor:
        """sqrt(1 - alpha_bar), exact also where alpha_bar rounds to 1. Shape of t."""
        return torch.sqrt(torch.expm1(self.log_alpha_bar(t)).abs())  # abs: sqrt(-0.0) is -0.0

    def log_snr(self, t: Tensor) -> Tensor:
        """log(alpha_bar / (1 - alpha_bar)). Shape of t."""
        log_alpha_bar = self.log_alpha_bar(t)
        return log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar))

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha', sigma'): with beta(t) = -d log alpha_bar / dt, -beta alpha / 2 and beta alpha_bar / (2 sigma).

        Shapes of t.
        """
        alpha, beta = self.alpha(t), self.diffusion(t) ** 2
        return -beta * alpha / 2, beta * alpha**2 / (2 * self.sigma(t))

    def drift(self, t: Tensor) -> Tensor:
        """f(t) = -beta(t) / 2. Shape of t."""
        return -(self.diffusion(t) ** 2) / 2

    def diffusion(self, t: Tensor) -> Tensor:
        """g(t) = sqrt(beta(t)), beta(t) = -d log alpha_bar / dt: finite at t = 0 too. Shape of t."""
        return torch.sqrt(-slope(self.log_alpha_bar, t))


class BetaSchedule(_VariancePreserving):
    r"""DDPM's table of betas, which is a continuous schedule too.

    The chain is x_k = sqrt(1 - beta_k) x_{k-1} + sqrt(beta_k) eps for k = 1 ... T, and its closed form has
    alpha_bar_k = (1 - beta_1) ... (1 - beta_k) (Ho et al. 2020, equations 2 and 4). ``log alpha_bar`` is kept on the
    T + 1 nodes t = k / T, node 0 being the clean data, and is linear in t between them. So at t = k / T the schedule is
    the chain exactly, and in between it is the VP-SDE with a constant rate. Fewer sampling steps are a
    shorter list of times, and no table is ever re-made.

    Args:
        betas: (T,), each in (0, 1): the variance that step k adds.

    Raises:
        ValueError: if betas is not one-dimensional or leaves (0, 1).
        TypeError: if betas is a string.
    """

    betas: Tensor
    log_alpha_bars: Tensor

    def __init__(self, betas: Tensor) -> None:
        super().__init__()
        given: object = betas
        if isinstance(given, str):
            raise TypeError(
                f"BetaSchedule got betas={given!r}; give a tensor (T,), or call BetaSchedule.{betas}(1000)."
            )
        betas = torch.as_tensor(betas).detach().to(torch.float64, copy=True)  # nobody changes the table from outside
        if betas.ndim != 1 or len(betas) == 0:
            raise ValueError(
                f"BetaSchedule got betas of shape {tuple(betas.shape)}; give one beta per step, shape (T,)."
            )
        if not betas.is_meta and not bool(((betas > 0) & (betas < 1)).all()):
            low, high = float(betas.min()), float(betas.max())
            raise ValueError(
                f"BetaSchedule got betas from {low:.3g} to {high:.3g}; each must lie strictly between 0 and 1. "
                "A beta is the share of the variance that one step replaces by noise."
            )
        self.register_buffer("betas", betas)
        log_alpha_bars = torch.cat([betas.new_zeros(1), torch.log1p(-betas).cumsum(0)])
        self.register_buffer("log_alpha_bars", log_alpha_bars)

    @classmethod
    def linear(cls, num_timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 2e-2) -> BetaSchedule:
        """Betas on a straight line (Ho et al. 2020, section 4).

        The default range is meant for T = 1000. With T = 50 it leaves 60 % of the signal's variance at the end; the
        common remedy multiplies both ends by 1000 / T. We keep the range that is given and change nothing silently.
        """
        check_counts("BetaSchedule.linear", num_timesteps=num_timesteps)
        if not is_real(beta_start, beta_end):
            raise ValueError(
                f"BetaSchedule.linear got beta_start={beta_start!r} and beta_end={beta_end!r}; it needs two numbers "
                "between 0 and 1."
            )
        return cls(torch.linspace(beta_start, beta_end, num_timesteps, dtype=torch.float64))

    @classmethod
    def cosine(cls, num_timesteps: int = 1000, offset: float = 0.008, max_beta: float = 0.999) -> BetaSchedule:
        """alpha_bar_k = cos^2((k / T + offset) / (1 + offset) * pi / 2), normalised to 1 at k = 0.

        (Nichol & Dhariwal 2021, eq. 17.)
        The last beta would be 1; it is capped at ``max_beta``, so that x_0 can still be computed from eps at t = 1.
        """
        check_counts("BetaSchedule.cosine", num_timesteps=num_timesteps)
        if not is_real(offset, max_beta) or offset < 0 or not 0 < max_beta < 1:
            raise ValueError(
                f"BetaSchedule.cosine got offset={offset!r} and max_beta={max_beta!r}; it needs offset >= 0 and "
                "0 < max_beta < 1."
            )
        k = torch.arange(num_timesteps + 1, dtype=torch.float64)
        alpha_bar = torch.cos((k / num_timesteps + offset) / (1 + offset) * math.pi / 2) ** 2
        return cls((1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=max_beta))

    @classmethod
    def sigmoid(
        cls, num_timesteps: int = 1000, start: float = -3.0, end: float = 3.0, tau: float = 1.0, max_beta: float = 0.999
    ) -> BetaSchedule:
        """alpha_bar falls like a sigmoid in t (Jabri et al. 2022, "Scalable adaptive computation for iterative
        generation").

        alpha_bar(t) = (S(end / tau) - S((start + t (end - start)) / tau)) / (S(end / tau) - S(start / tau)),
        with S the sigmoid. The last beta is capped at ``max_beta``, as in ``cosine``. Some implementations apply a
        sigmoid to beta instead; this is the one on alpha_bar.
        """
        check_counts("BetaSchedule.sigmoid", num_timesteps=num_timesteps)
        if not is_real(start, end, tau, max_beta) or not (start < end and tau > 0 and 0 < max_beta < 1):
            raise ValueError(
                f"BetaSchedule.sigmoid got start={start!r}, end={end!r}, tau={tau!r} and max_beta={max_beta!r}; it "
                "needs start < end, tau > 0 and 0 < max_beta < 1."
            )
        t = torch.linspace(0, 1, num_timesteps + 1, dtype=torch.float64)
        level = torch.sigmoid((start + t * (end - start)) / tau)
        alpha_bar = (level[-1] - level) / (level[-1] - level[0])
        return cls((1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=max_beta))

    @property
    def num_timesteps(self) -> int:
        """T, the number of steps of the chain."""
        return len(self.betas)

    @property
    def alpha_bars(self) -> Tensor:
        """alpha_bar_0 = 1 (clean data), alpha_bar_1, ..., alpha_bar_T: shape (T + 1,)."""
        return torch.exp(self.log_alpha_bars)

    def time(self, k: int | Tensor) -> Tensor:
        """The time t = k / T of the chain's step k, in float64 (float32 on a device without it).

        Args:
            k: an integer or a tensor of integers, shape () or (B,), each in 0 ... T.

        Raises:
            ValueError: if k leaves 0 ... T.
            TypeError: if k is not of an integer type.
        """
        if not isinstance(k, numbers.Integral | Tensor):
            raise TypeError(
                f"time(k) got k = {said(k)}; k counts steps, so give integers from 0 to {self.num_timesteps}."
            )
        k = torch.as_tensor(k, device=self.betas.device)
        if k.is_floating_point() or k.is_complex() or k.dtype == torch.bool:
            raise TypeError(
                f"time(k) got k of type {k.dtype}; k counts steps, so give integers from 0 to {self.num_timesteps}."
            )
        k = k.long()  # T itself may not fit into the type of k, such as 1000 into uint8
        if readable(k) and bool(((k < 0) | (k > self.num_timesteps)).any()):
            raise ValueError(
                f"time(k) got k from {int(k.min())} to {int(k.max())}; this chain has steps 0 (clean data) to "
                f"{self.num_timesteps}."
            )
        return k.to(self.betas.dtype) / self.num_timesteps

    def _beside_the_table(self, x: Tensor) -> Tensor:
        return onto(self.log_alpha_bars.device, x, self.log_alpha_bars.dtype)

    def log_alpha_bar(self, t: Tensor) -> Tensor:
        """log alpha_bar at any t in [0, 1], linear between the nodes k / T. Shape of t, in the table's precision."""
        position = self._beside_the_table(t) * self.num_timesteps
        k = position.detach().floor().long().clamp(0, self.num_timesteps - 1)
        left, right = _nodes(self.log_alpha_bars, k), _nodes(self.log_alpha_bars, k + 1)
        return torch.lerp(left, right, position - k)

    def diffusion(self, t: Tensor) -> Tensor:
        """g(t) = sqrt(beta(t)), where -beta(t) is the slope of log alpha_bar on the piece that contains t.

        At a node, rounding decides which of the two neighbouring pieces that is. Shape of t.
        """
        k = (self._beside_the_table(t) * self.num_timesteps).floor().long().clamp(0, self.num_timesteps - 1)
        return torch.sqrt(-torch.log1p(-_nodes(self.betas, k)) * self.num_timesteps)

    def time_at(self, log_snr: Tensor) -> Tensor:
        """Inverse of ``log_snr`` in closed form: alpha_bar = sigmoid(log_snr), then find its piece of the table.

        Shape of ``log_snr``.
        """
        wanted = nn.functional.logsigmoid(self._beside_the_table(log_snr))
        falling = -self.log_alpha_bars
        k = torch.searchsorted(falling, -wanted, right=True).sub(1).clamp(0, self.num_timesteps - 1)
        left, right = _nodes(self.log_alpha_bars, k), _nodes(self.log_alpha_bars, k + 1)
        return ((k + (wanted - left) / (right - left)) / self.num_timesteps).clamp(0, 1)

    def extra_repr(self) -> str:
        """What ``print`` shows: T and the ends of the table."""
        if self.betas.is_meta:
            return f"num_timesteps={self.num_timesteps}"
        return f"num_timesteps={self.num_timesteps}, betas {float(self.betas[0]):.3g} to {float(self.betas[-1]):.3g}"


def _nodes(table: Tensor, k: Tensor) -> Tensor:
    """The entries k of a table (N,), shape of k: the same as ``torch.take``, which PyTorch lacks on MPS."""
    return table.index_select(0, k.flatten()).reshape(k.shape)


class VPSchedule(_VariancePreserving):
    """The variance-preserving SDE with beta(t) on a straight line (Song et al. 2021, eq. 32-33).

    log alpha_bar(t) = -beta_min t - (beta_max - beta_min) t^2 / 2: DDPM's linear table as T goes to infinity,
    with beta_min = T beta_1 and beta_max = T beta_T.
    """

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0) -> None:
        super().__init__()
        _ordered("VPSchedule", "beta_min", beta_min, "beta_max", beta_max)
        self.beta_min, self.beta_max = beta_min, beta_max

    def log_alpha_bar(self, t: Tensor) -> Tensor:
        """-beta_min t - (beta_max - beta_min) t^2 / 2. Shape of t."""
        return -self.beta_min * t - (self.beta_max - self.beta_min) * t**2 / 2

    def diffusion(self, t: Tensor) -> Tensor:
        """g(t) = sqrt(beta_min + (beta_max - beta_min) t). Shape of t."""
        return torch.sqrt(self.beta_min + (self.beta_max - self.beta_min) * t)

    def time_at(self, log_snr: Tensor) -> Tensor:
        """Inverse of ``log_snr``: the positive root of a quadratic, in the form without cancellation.

        Shape of ``log_snr``.
        """
        return self._time_of(nn.functional.logsigmoid(log_snr))

    def _time_of(self, log_alpha_bar: Tensor) -> Tensor:
        slope = self.beta_max - self.beta_min
        c = (-log_alpha_bar).clamp(max=self.beta_min + slope / 2)
        return (2 * c / (self.beta_min + torch.sqrt(self.beta_min**2 + 2 * slope * c))).clamp(max=1)


class SubVPSchedule(VPSchedule):
    """The sub-VP SDE: the VP's alpha with sigma = 1 - alpha^2, never more noise than the VP's.

    Source: Song et al. 2021, eq. 29 and 35.
    """

    def sigma(self, t: Tensor) -> Tensor:
        """1 - alpha_bar(t). Shape of t."""
        return -torch.expm1(self.log_alpha_bar(t))

    def log_snr(self, t: Tensor) -> Tensor:
        """log alpha_bar - 2 log(1 - alpha_bar). Shape of t."""
        return self.log_alpha_bar(t) - 2 * torch.log(self.sigma(t))

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(-beta alpha / 2, beta alpha^2), beta the VP's rate. Shapes of t."""
        beta, alpha = super().diffusion(t) ** 2, self.alpha(t)
        return -beta * alpha / 2, beta * alpha**2

    def drift(self, t: Tensor) -> Tensor:
        """f(t) = -beta(t) / 2, the same as the VP's. Shape of t."""
        return -(super().diffusion(t) ** 2) / 2

    def diffusion(self, t: Tensor) -> Tensor:
        """g(t) = sqrt(beta(t) (1 - alpha_bar(t)^2)) (Song et al. 2021, eq. 12). Shape of t."""
        return super().diffusion(t) * torch.sqrt(-torch.expm1(2 * self.log_alpha_bar(t)))

    def time_at(self, log_snr: Tensor) -> Tensor:
        """Inverse of ``log_snr``: alpha^2 = 1 - sigma here, so that sigma solves SNR sigma^2 = 1 - sigma.

        Shape of ``log_snr``.
        """
        sigma = 2 / (1 + torch.sqrt(1 + 4 * torch.exp(log_snr)))
        # log(1 - sigma) in two ways: the first keeps its digits where sigma is near 1, the second where it is small.
        log_alpha_bar = torch.where(sigma > 0.5, log_snr + 2 * torch.log(sigma), torch.log1p(-sigma))
        return self._time_of(log_alpha_bar)


class CosineSchedule(NoiseSchedule):
    """alpha = cos(pi t / 2), sigma = sin(pi t / 2): the cosine schedule without table, offset or cap.

    The angle of the pair (alpha, sigma) turns at a constant rate. alpha(1) = 0: at t = 1 nothing of the data is left,
    so a network that predicts eps says nothing about x_0 there (use V). (Salimans & Ho 2022, section 4.)
    """

    def alpha(self, t: Tensor) -> Tensor:
        """cos(pi t / 2), written as a sine so that it is exactly 0 at t = 1. Shape of t."""
        return torch.sin(math.pi / 2 * (1 - t))

    def sigma(self, t: Tensor) -> Tensor:
        """sin(pi t / 2). Shape of t."""
        return torch.sin(math.pi / 2 * t)

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(-pi/2 sigma, pi/2 alpha). Shapes of t."""
        return -math.pi / 2 * self.sigma(t), math.pi / 2 * self.alpha(t)

    def diffusion(self, t: Tensor) -> Tensor:
        """g(t) = sqrt(pi tan(pi t / 2)), infinite at t = 1. Shape of t."""
        return torch.sqrt(math.pi * self.sigma(t) / self.alpha(t))

    def time_at(self, log_snr: Tensor) -> Tensor:
        """Inverse of ``log_snr``: (2 / pi) atan(1 / sqrt(SNR)). Shape of ``log_snr``."""
        return 2 / math.pi * torch.atan(torch.exp(-log_snr / 2))


class VESchedule(NoiseSchedule):
    """The variance-exploding SDE: alpha = 1, sigma^2 = sigma_min^2 ((sigma_max / sigma_min)^(2t) - 1).

    (Song et al. 2021, eq. 29 and 30.)
    The -1 makes sigma(0) = 0. Most implementations leave it out, and theirs is sigma_min at t = 0.

    Args:
        sigma_min: the scale at which the noise starts to grow geometrically, > 0, in units of the data.
        sigma_max: about sigma(1); choose it about as large as the largest distance between two data points.
    """

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50.0) -> None:
        super().__init__()
        _ordered("VESchedule", "sigma_min", sigma_min, "sigma_max", sigma_max)
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        self._log_ratio = math.log(sigma_max / sigma_min)

    def alpha(self, t: Tensor) -> Tensor:
        """1. Shape of t."""
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        """sigma_min sqrt((sigma_max / sigma_min)^(2t) - 1). Shape of t."""
        return self.sigma_min * torch.sqrt(torch.expm1(2 * self._log_ratio * t))

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(0, g^2 / (2 sigma)). Shapes of t."""
        return torch.zeros_like(t), self.diffusion(t) ** 2 / (2 * self.sigma(t))

    def diffusion(self, t: Tensor) -> Tensor:
        """g(t) = sigma_min (sigma_max / sigma_min)^t sqrt(2 log(sigma_max / sigma_min)). Shape of t."""
        return self.sigma_min * torch.exp(self._log_ratio * t) * math.sqrt(2 * self._log_ratio)

    def time_at(self, log_snr: Tensor) -> Tensor:
        """Inverse of ``log_snr``, with sigma = exp(-log_snr / 2). Shape of ``log_snr``."""
        sigma = torch.exp(-log_snr / 2)
        return (torch.log1p((sigma / self.sigma_min) ** 2) / (2 * self._log_ratio)).clamp(0, 1)


class EDMSchedule(NoiseSchedule):
    """alpha = 1, sigma = sigma_max t: time is the noise level itself (Karras et al. 2022, "Elucidating the design
    space").

    Their rule for where to put the steps is a grid of times (``sampler.karras``), not a property of the schedule.

    Args:
        sigma_max: noise at t = 1, > 0, in units of the data.
    """

    def __init__(self, sigma_max: float = LARGEST_RATIO) -> None:
        super().__init__()
        if not is_real(sigma_max) or not 0 < sigma_max < math.inf:
            raise ValueError(
                f"EDMSchedule got sigma_max={sigma_max!r}; the noise at t = 1 must be above 0, and finite."
            )
        self.sigma_max = sigma_max

    def alpha(self, t: Tensor) -> Tensor:
        """1. Shape of t."""
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        """sigma_max t. Shape of t."""
        return self.sigma_max * t

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(0, sigma_max). Shapes of t."""
        return torch.zeros_like(t), torch.full_like(t, self.sigma_max)

    def time_at(self, log_snr: Tensor) -> Tensor:
        """Inverse of ``log_snr``: exp(-log_snr / 2) / sigma_max. Shape of ``log_snr``."""
        return (torch.exp(-log_snr / 2) / self.sigma_max).clamp(0, 1)


class FlowSchedule(NoiseSchedule):
    """alpha = 1 - t, sigma = t: straight lines from data to noise (Lipman et al. 2023; Liu et al. 2023).

    Data at t = 0 and noise at t = 1, as everywhere in this course; many flow-matching papers run time the other way.
    """

    def alpha(self, t: Tensor) -> Tensor:
        """1 - t. Shape of t."""
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        """t. Shape of t."""
        return t.clone()

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(-1, 1). Shapes of t."""
        return -torch.ones_like(t), torch.ones_like(t)

    def diffusion(self, t: Tensor) -> Tensor:
        """g(t) = sqrt(2 t / (1 - t)), infinite at t = 1. Shape of t."""
        return torch.sqrt(2 * t / (1 - t))

    def time_at(self, log_snr: Tensor) -> Tensor:
        """Inverse of ``log_snr``: sigmoid(-log_snr / 2). Shape of ``log_snr``."""
        return torch.sigmoid(-log_snr / 2)


def _ordered(owner: str, low_name: str, low: float, high_name: str, high: float) -> None:
    if not is_real(low, high) or not 0 < low < high < math.inf:
        raise ValueError(
            f"{owner} got {low_name}={low!r} and {high_name}={high!r}; it needs 0 < {low_name} < {high_name}, both "
            "finite."
        )
