r"""How likely are data under a model, in nats: the variational bound term by term, and the ODE's likelihood.

Notebook: ``04_elbo`` derives the bound (Ho et al. 2020, eq. 5; for any schedule: Kingma et al. 2021, section 4).

For times 1 = t_N > ... > t_1 > 0 the bound on -log p(x_0) has three kinds of terms:

    prior            KL(q(x_1 | x_0) || N(0, sigma(1)^2))                                  DDPM's L_T
    diffusion        sum over steps t -> s > 0 of E KL(q(x_s | x_t, x_0) || p(x_s | x_t))   DDPM's L_{t-1}
    reconstruction   -E log p(x_0 | x_{t_1})                                                DDPM's L_0

The means of a diffusion term's two Gaussians differ by alpha_s (1 - r) (x_0 - x_0_hat), r = SNR(t) / SNR(s), so
with v = (posterior variance) / (the model's variance)

    KL = (v - 1 - log v) / 2 + alpha_s^2 (1 - r)^2 |x_0 - x_0_hat|^2 / (2 std^2)

per number. With the posterior's own variance, v = 1 and it is (SNR(s) - SNR(t)) / 2 |x_0 - x_0_hat|^2.

Averaged over the data, the sum is at least the average of -log q(x_0), with q the data's own density; for a single x_0
it may be less. For an exact denoiser on T steps, the gap closes as 1/T if the model's variance is that of q(x_t | x_s)
(``transition_std``, DDPM's beta). With the posterior's variance (``posterior_std``, beta-tilde) on equal steps down to
0 it does not close, because near t = 0 SNR(s)/SNR(t) stays k/(k-1), or its square where sigma grows like t, however
small the steps; on steps that are equal in log-SNR from a fixed t_1 it closes again.

*The ODE's likelihood* (notebook ``12_sdes``; Song et al. 2021, eq. 39; Chen et al. 2018). The probability-flow ODE
dx/dt = v(x, t) carries x_0 to x_1 one to one, and along its path the density changes by the flow's divergence:

    d log p(x_t) / dt = -div v       =>       log p_0(x_0) = log p_1(x_1) + integral over t in [0, 1] of div v dt

so the density at 0 needs one at t = 1: what the sampler draws from. div v is the trace of dv/dx, which takes
D backward passes for D numbers in an example; or the average of z . (dv/dx) z over vectors z of independent signs, one
backward pass each (Hutchinson; Grathwohl et al. 2019). For a learnt network either this number or the bound may be the
larger one: they belong to two different models.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .denoiser import Denoiser, angle, check_batch, denoise_with_std, time_at_angle, velocity_in_angle
from .door import check_alike, check_counts, check_generator, is_real, said
from .gaussian import Normal, bits_per_dim, discretized_log_prob, noise_like
from .ode import integrate, rms
from .process import posterior_kl, posterior_std, q_marginal, q_sample
from .schedule import NoiseSchedule

__all__ = [
    "Elbo",
    "dequantize",
    "elbo",
    "gaussian_decoder",
    "log_likelihood",
    "log_snr_times",
    "pixel_decoder",
    "velocity_and_divergence",
]

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
    """The Gaussian's mass in each value's bin: the decoder of discrete data on [-1, 1] (Ho et al. 2020, eq. 13).

    Args:
        levels: how many values a pixel can take, >= 2.

    Returns:
        a function of (normal, x_0), x_0 of shape (B, ...), with values of the shape of x_0.

    Raises:
        ValueError: if there are fewer than two.
    """
    check_counts("pixel_decoder", 2, levels=levels)
    return lambda normal, x_0: discretized_log_prob(normal, x_0, levels)


# functions that must be called to get a decoder; it is easy to forget the parentheses
DECODER_FACTORIES: tuple[object, ...] = (pixel_decoder,)


@torch.no_grad()
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
        the three parts, each (B,), in nats, without a gradient.

    Raises:
        ValueError: if the times do not fall from 1 to 0, x_0 is not a finite float batch, the batch sizes differ, or
            the denoiser is in training mode.
        TypeError: if std or decoder is not a function, or x_0, times or condition is not a tensor.
    """
    if not callable(std) or not callable(decoder) or decoder in DECODER_FACTORIES:
        raise TypeError(
            f"elbo got std = {said(std)} and decoder = {said(decoder)}; it needs functions, such as posterior_std and "
            "pixel_decoder()."
        )
    if not isinstance(times, Tensor):
        raise TypeError(f"elbo got times = {said(times)}; make them with times(T).")
    if times.ndim != 1 or len(times) < 2 or times[0] != 1 or times[-1] != 0 or not bool((times[1:] < times[:-1]).all()):
        raise ValueError("elbo got times that do not fall from exactly 1 to exactly 0; make them with times(T).")
    check_batch("elbo", denoiser, x_0, condition)
    schedule = denoiser.schedule

    # prior: what is left of x_0 at t = 1
    at_1 = q_marginal(schedule, x_0, times[0])
    prior = at_1.kl(Normal(torch.zeros_like(x_0), at_1.std)).flatten(1).sum(1)

    # diffusion: one draw of x_t for each step t -> s > 0
    diffusion = torch.zeros_like(prior)
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
        schedule: the schedule that the times are for.
        steps: N >= 2.
        first: t_1, in (0, 1): where the last step to 0 starts.

    Returns:
        (N + 1,), float64, falling from 1 to 0.

    Raises:
        ValueError: if steps < 2, first is outside (0, 1), or log-SNR is infinite at t = 1.
    """
    check_counts("log_snr_times", 2, steps=steps)
    if not is_real(first):
        raise ValueError(f"log_snr_times got first={first!r}; it is a time, a number in (0, 1).")
    ends = torch.tensor([1.0, first], dtype=torch.float64)
    if not 0 < first < 1 or not bool(torch.isfinite(schedule.log_snr(ends)).all()):
        raise ValueError(
            f"log_snr_times got steps={steps} and first={first} for {type(schedule).__name__}; "
            "it needs steps >= 2, first in (0, 1), and a schedule with alpha(1) > 0."
        )
    low, high = schedule.log_snr(ends).tolist()
    inner = schedule.time_at(torch.linspace(low, high, steps, dtype=torch.float64)).cpu().double()
    inner[0], inner[-1] = 1.0, first
    return torch.cat([inner, inner.new_zeros(1)])


@torch.no_grad()
def log_likelihood(
    denoiser: Denoiser,
    x_0: Tensor,
    prior: Callable[[Tensor], Tensor] | None = None,
    condition: Tensor | None = None,
    generator: torch.Generator | None = None,
    *,
    probes: int | None = None,
    atol: float = 1e-6,
    rtol: float = 1e-6,
    sigma_min: float = 1e-5,
) -> Tensor:
    r"""log p_0(x_0) by the probability-flow ODE, in nats (Song et al. 2021, eq. 39).

    x and the integral of the divergence are carried upwards together by ``ode.integrate``, with the angle of (alpha,
    sigma) for its time. No denoiser is asked at t = 0, so the path starts at a little noise, at x = alpha x_0, and
    D log alpha turns its density into that of x / alpha.

    *Bits per dimension.* A density is not a probability: on 8-bit pictures a model can raise it without end by peaks at
    the 256 values. Add uniform noise as wide as a level first (``dequantize``). Then, by Jensen's inequality,

        log P(picture) = log E p(picture + u) w^D  >=  E log p(picture + u) + D log w,     w = 2 / 255 the level's width

    (Theis et al. 2016, section 3.1), so ``bits_per_dim(-log_likelihood(denoiser, dequantize(x_0)), D, scale=w)`` is, on
    average, an upper bound on the bits that a code for the pictures needs; D counts all numbers of a picture, and
    scale=1 would leave out log2(127.5) = 6.99 bits.

    Args:
        denoiser: what says x_0_hat. A network must be in eval mode.
        x_0: data, (B, ...), finite; in float64 where more than about 4 digits are wanted.
        prior: (B, ...) -> (B,), log-density in nats of x at t = 1. None for N(0, sigma(1)^2), what ``prior`` draws.
            The ODE carries this density from t = 1 to 0; with None, that is the density of the model's samples. For the
            exact density of a mixture give the exact q_1: ``mixture.marginal(schedule, torch.ones(())).log_prob``.
        condition: (B,) labels or None.
        generator: source of the probes.
        probes: None for the exact divergence, D backward passes a call; or the number of sign vectors, drawn once for
            the whole path: unbiased up to the solver's error, but random.
        atol, rtol: error allowed in each step of the ODE, in x and in nats.
        sigma_min: noise-to-signal ratio at which the path starts, > 0; the density that comes out is that of data with
            this much noise.

    Returns:
        log p_0(x_0), (B,), in nats and in the dtype of x_0, without a gradient.

    Raises:
        ValueError: if x_0 is not a finite float batch, the batch sizes differ, the denoiser is in training mode, a
            number is out of range (sigma_min also where no level of the schedule has so much noise), or the prior does
            not answer with one number per example.
        TypeError: if the prior is not a function.
        ArithmeticError: if the tolerance cannot be kept: see ``ode.integrate``.
    """
    check_batch("log_likelihood", denoiser, x_0, condition)
    check_counts("log_likelihood", probes=1 if probes is None else probes)
    if prior is not None and not callable(prior):
        raise TypeError(f"log_likelihood got prior = {said(prior)}; give a function (B, ...) -> (B,), or None.")
    if not is_real(sigma_min) or not 0 < sigma_min < 1:
        raise ValueError(
            f"log_likelihood got sigma_min={sigma_min!r} and probes={probes}; it needs a noise-to-signal ratio between "
            "0 and 1, and at least one probe or None."
        )
    schedule, (B, D) = denoiser.schedule, x_0.flatten(1).shape
    z = None if probes is None else torch.sign(noise_like(x_0.expand(probes, *x_0.shape), generator))

    def slope(u: float, y: Tensor) -> Tensor:  # of (x, integral of the divergence)
        t = time_at_angle(schedule, torch.tensor(u, dtype=torch.float64))
        v, divergence = velocity_and_divergence(denoiser, y[:, :-1].reshape(x_0.shape), t, condition, z)
        return torch.cat([v.flatten(1), divergence[:, None]], 1)

    def norm(error: Tensor) -> Tensor:  # the error in nats counts as much as that of all of x
        return torch.maximum(rms(error[:, :-1]), error[:, -1].abs())

    start = 2 / math.pi * math.atan(sigma_min)
    end = float(angle(schedule, torch.ones((), dtype=torch.float64)))
    if start >= end:
        most = math.tan(math.pi / 2 * end)
        raise ValueError(
            f"log_likelihood starts at the noise-to-signal ratio sigma_min={sigma_min:.3g}, and under this "
            f"{type(schedule).__name__} it is {most:.3g} at most: give a smaller one, or a schedule with more noise."
        )
    alpha = schedule.alpha(time_at_angle(schedule, torch.tensor(start, dtype=torch.float64))).to(x_0)
    y = torch.cat([(alpha * x_0).flatten(1), x_0.new_zeros(B, 1)], 1)
    for point in integrate(slope, y, start, end, atol=atol, rtol=rtol, norm=norm):
        y = point.y
    x_1 = y[:, :-1].reshape(x_0.shape)
    if prior is None:
        _, sigma_1 = schedule.scales(torch.ones((), dtype=torch.float64), x_0)
        at_1 = Normal(torch.zeros_like(x_1), sigma_1).log_prob(x_1).flatten(1).sum(1)
    else:
        at_1 = prior(x_1)
        if not isinstance(at_1, Tensor) or at_1.shape != (B,):
            shape = f"shape {tuple(at_1.shape)}" if isinstance(at_1, Tensor) else said(at_1)
            raise ValueError(
                f"log_likelihood got a prior that answers {B} examples with {shape}; it must "
                "give one log-density per example, (B,)."
            )
    return (at_1 + y[:, -1] + D * torch.log(alpha)).to(x_0)


def velocity_and_divergence(
    denoiser: Denoiser, x_t: Tensor, t: Tensor, condition: Tensor | None = None, probes: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """dx / d angle of the probability-flow ODE, and its divergence.

    Args:
        x_t: (B, ...).
        t: () or (B,), in (0, 1].
        condition: (B,) or None.
        probes: (K, B, ...) of independent signs, or None for the exact divergence.

    Returns:
        the velocity, shape of x_t, and the trace of its Jacobian, (B,): exact, or the mean of z . (dv/dx) z.
    """
    with torch.inference_mode(False), torch.enable_grad():
        x = x_t.detach().clone().requires_grad_()
        v = velocity_in_angle(denoiser, x, t, condition)[1]
        if probes is None:
            flat, divergence = v.flatten(1), x_t.new_zeros(len(x_t))
            for i in range(flat.shape[1]):  # examples do not mix, so that one pass serves the whole batch
                (row,) = torch.autograd.grad(flat[:, i].sum(), x, retain_graph=True)
                divergence = divergence + row.flatten(1)[:, i]
        else:
            parts = [torch.autograd.grad(v, x, z, retain_graph=True)[0] * z for z in probes]
            divergence = torch.stack(parts).flatten(2).sum(2).mean(0)
    return v.detach(), divergence


def dequantize(x_0: Tensor, generator: torch.Generator | None = None, levels: int = 256) -> Tensor:
    """Discrete data on [-1, 1] made continuous: each value moves uniformly within its level (Theis et al. 2016).

    Args:
        x_0: values from ``levels`` equally spaced points on [-1, 1], any shape.
        generator: source of the noise.
        levels: how many values there are, >= 2.

    Returns:
        shape of x_0; each value within half a level's width, 1 / (levels - 1), of where it was.

    Raises:
        ValueError: if ``levels`` is below 2.
    """
    check_counts("dequantize", 2, levels=levels)
    check_alike("dequantize", x_0=x_0)
    check_generator("dequantize", generator)
    where = x_0.device if generator is None or x_0.is_meta else generator.device
    u = torch.rand(x_0.shape, dtype=x_0.dtype, device=where, generator=None if x_0.is_meta else generator)
    return x_0 + (2 * u.to(x_0.device) - 1) / (levels - 1)
