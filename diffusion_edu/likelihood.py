r"""The variational bound, term by term, in nats.

Notebook: ``04_elbo`` derives it; Ho et al. 2020, eq. 5; for any schedule Kingma et al. 2021, section 4.

For times 1 = t_N > ... > t_1 > 0 the bound on -log p(x_0) has three kinds of terms:

    prior            KL(q(x_1 | x_0) || N(0, sigma(1)^2))                                  DDPM's L_T
    diffusion        sum over steps t -> s > 0 of E KL(q(x_s | x_t, x_0) || p(x_s | x_t))   DDPM's L_{t-1}
    reconstruction   -E log p(x_0 | x_{t_1})                                                DDPM's L_0

Both Gaussians of a diffusion term have means that differ by alpha_s (1 - r) (x_0 - x_0_hat), r = SNR(t) / SNR(s), so
with v = (posterior variance) / (the model's variance)

    KL = (v - 1 - log v) / 2 + alpha_s^2 (1 - r)^2 |x_0 - x_0_hat|^2 / (2 std^2)

per number. With the posterior's own variance, v = 1 and it is (SNR(s) - SNR(t)) / 2 |x_0 - x_0_hat|^2.

Averaged over the data the sum bounds the exact negative log-likelihood from above; for a single x it need not. With
the variance beta the gap closes as 1/T. With beta-tilde on equal steps down to 0 it does not close, because
SNR(s)/SNR(t) stays k/(k-1) near t = 0, however small the steps; on steps that are equal in log-SNR from a fixed t_1 it
closes again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .denoiser import Denoiser, denoise_with_std
from .gaussian import Normal, bits_per_dim, discretized_log_prob, noise_like
from .process import posterior_kl, posterior_std, q_marginal, q_sample
from .schedule import NoiseSchedule

__all__ = ["Elbo", "elbo", "gaussian_decoder", "log_snr_times", "pixel_decoder"]

Decoder = Callable[[Normal, Tensor], Tensor]


@dataclass(frozen=True)
class Elbo:
    """The three parts of the bound, in nats, for each example.

    Args:
        prior: L_T, (B,), >= 0.
        diffusion: the sum of L_{t-1}, (B,).
        reconstruction: L_0, (B,); negative where a density is above 1.
    """

    prior: Tensor
    diffusion: Tensor
    reconstruction: Tensor

    @property
    def total(self) -> Tensor:
        """The bound on -log p(x_0), nats, (B,)."""
        return self.prior + self.diffusion + self.reconstruction

    def bits_per_dim(self, dims: int, scale: float = 1.0) -> Tensor:
        """The bound in bits per dimension, (B,). See ``gaussian.bits_per_dim`` for the scale of a density."""
        return bits_per_dim(self.total, dims, scale)


def gaussian_decoder(normal: Normal, x_0: Tensor) -> Tensor:
    """log N(x_0; mean, std^2) of each number: the decoder of real-valued data. Shape of x_0."""
    return normal.log_prob(x_0)


def pixel_decoder(levels: int = 256) -> Decoder:
    """The Gaussian's mass in each value's bin: the decoder of discrete data on [-1, 1] (Ho et al. 2020, eq. 13)."""
    return lambda normal, x_0: discretized_log_prob(normal, x_0, levels)


def elbo(
    denoiser: Denoiser,
    x_0: Tensor,
    times: Tensor,
    std: Callable[[NoiseSchedule, Tensor, Tensor], Tensor] = posterior_std,
    decoder: Decoder = gaussian_decoder,
    condition: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Elbo:
    """The bound on -log p(x_0), each expectation over q estimated without bias from one draw of x_t a step.

    Args:
        denoiser: what says x_0_hat.
        x_0: data, (B, ...).
        times: (N + 1,), float64, from 1 down to exactly 0: the steps of the chain.
        std: (schedule, s, t) -> the model's standard deviation for the step t -> s: ``posterior_std`` (sqrt
            beta-tilde), ``transition_std`` (sqrt beta), or ``learnt_std``.
        decoder: log p(x_0 | x_{t_1}) of each number, given N(x_0_hat, sigma(t_1)^2), shape of x_0.
        condition: (B,) labels or None.
        generator: source of the draws.

    Returns:
        the three parts, each (B,), in nats.

    Raises:
        ValueError: if the times do not fall from 1 to 0, or x_0 is not a finite float batch.
    """
    if times.ndim != 1 or len(times) < 2 or times[0] != 1 or times[-1] != 0 or not bool((times[1:] < times[:-1]).all()):
        raise ValueError("elbo got times that do not fall from exactly 1 to exactly 0; make them with times(T).")
    if x_0.ndim < 2 or not x_0.is_floating_point() or not bool(torch.isfinite(x_0).all()):
        raise ValueError(
            f"elbo got x_0 of shape {tuple(x_0.shape)} and type {x_0.dtype}; it needs a finite float batch (B, ...)."
        )
    schedule = denoiser.schedule

    # prior: what is left of x_0 at t = 1
    at_1 = q_marginal(schedule, x_0, times[0])
    prior = at_1.kl(Normal(torch.zeros_like(x_0), at_1.std)).flatten(1).sum(1)

    # diffusion: one draw of x_t for each step t -> s > 0
    diffusion = torch.zeros_like(prior)
    with torch.no_grad():
        for t, s in itertools.pairwise(times[:-1]):
            x_t = q_sample(schedule, x_0, t, noise_like(x_0, generator))
            x_0_hat, width = denoise_with_std(denoiser, std, x_t, s, t, condition)
            diffusion += posterior_kl(schedule, x_0 - x_0_hat, width, s, t).flatten(1).sum(1)

        # reconstruction: the step t_1 -> 0
        t = times[-2]
        x_t = q_sample(schedule, x_0, t, noise_like(x_0, generator))
        _, sigma_t = schedule.scales(t, like=x_0)
        decoded = Normal(denoiser(x_t, t, condition), sigma_t)
        reconstruction = -decoder(decoded, x_0).flatten(1).sum(1)
    return Elbo(prior, diffusion, reconstruction)


def log_snr_times(schedule: NoiseSchedule, steps: int, first: float = 1e-3) -> Tensor:
    """A grid whose steps are equal in log-SNR, from t = 1 down to a fixed t_1, and then to 0.

    Args:
        steps: N >= 2.
        first: t_1, in (0, 1): where the last step to 0 starts.

    Returns:
        (N + 1,), float64, falling from 1 to 0.

    Raises:
        ValueError: if steps < 2, first is outside (0, 1), or log-SNR is infinite at t = 1.
    """
    ends = torch.tensor([1.0, first], dtype=torch.float64)
    if steps < 2 or not 0 < first < 1 or not bool(torch.isfinite(schedule.log_snr(ends)).all()):
        raise ValueError(
            f"log_snr_times got steps={steps} and first={first} for {type(schedule).__name__}; "
            "it needs steps >= 2, first in (0, 1), and a schedule with alpha(1) > 0."
        )
    low, high = schedule.log_snr(ends).tolist()
    inner = schedule.time_at(torch.linspace(low, high, steps, dtype=torch.float64))
    inner[0], inner[-1] = 1.0, first
    return torch.cat([inner, inner.new_zeros(1)])
