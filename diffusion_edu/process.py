r"""The forward process and its posterior: every q of the course, as a Gaussian.

Notebooks: ``01_forward_process`` (the chain), ``02_closed_form`` (the jump), ``03_reverse_process`` (the posterior).

    q(x_t | x_0)      = N(alpha_t x_0,  sigma_t^2)
    q(x_t | x_s)      = N(alpha_t/alpha_s x_s,  sigma_t^2 (1 - r))                               s < t
    q(x_s | x_t, x_0) = N(alpha_t sigma_s^2 / (alpha_s sigma_t^2) x_t + alpha_s (1 - r) x_0,  sigma_s^2 (1 - r))

with r = SNR(t) / SNR(s), which lies in [0, 1) and is 0 at s = 0.
(Ho et al. 2020, eq. 2, 4, 7; for any schedule: Kingma et al. 2021, appendix A.)
For DDPM's table with s = (k-1)/T and t = k/T the two variances are beta_k and beta-tilde_k.
The code computes 1 - r as -expm1(log r), from a difference of log-SNRs: a plain 1 - r loses digits where r is near 1.
"""

from __future__ import annotations

import numbers

import torch
from torch import Tensor

from .door import check_alike, check_generator, check_times, readable, said
from .gaussian import Normal, noise_like
from .schedule import NoiseSchedule, expand, onto

__all__ = [
    "posterior_kl",
    "posterior_std",
    "prior",
    "q_marginal",
    "q_posterior",
    "q_sample",
    "q_transition",
    "transition_std",
]


def q_sample(schedule: NoiseSchedule, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """A draw from q(x_t | x_0), given its noise: alpha_t x_0 + sigma_t eps (Ho et al. 2020, eq. 4).

    Args:
        x_0: clean data, (B, ...).
        t: times in [0, 1], () or (B,).
        eps: standard normal noise, shape of x_0.

    Returns:
        x_t, shape of x_0.

    Raises:
        ValueError: if eps differs from x_0 in shape or device, t is neither a scalar nor one per example, or t leaves
            [0, 1].
        TypeError: if t, x_0 or eps is not a float tensor.
    """
    check_alike("q_sample", x_0=x_0)
    if isinstance(eps, Tensor) and eps.shape != x_0.shape:
        raise ValueError(
            f"q_sample got x_0 of shape {tuple(x_0.shape)} and eps of shape {tuple(eps.shape)}; "
            "each number of x_0 needs its own noise: draw eps with torch.randn_like(x_0)."
        )
    check_alike("q_sample", x_0=x_0, eps=eps)
    alpha_t, sigma_t = schedule.scales(t, like=x_0)
    return alpha_t * x_0 + sigma_t * eps


def q_marginal(schedule: NoiseSchedule, x_0: Tensor, t: Tensor) -> Normal:
    """q(x_t | x_0) = N(alpha_t x_0, sigma_t^2) (Ho et al. 2020, eq. 4).

    Args:
        x_0: (B, ...).
        t: () or (B,), in [0, 1]. At t = 0 it is the point x_0.
    """
    alpha_t, sigma_t = schedule.scales(t, like=x_0)
    return Normal(alpha_t * x_0, sigma_t)


def q_transition(schedule: NoiseSchedule, x_s: Tensor, s: Tensor, t: Tensor) -> Normal:
    """q(x_t | x_s), the forward step from s to a later t (Ho et al. 2020, eq. 2).

    Args:
        x_s: (B, ...).
        s, t: () or (B,), with 0 <= s < t <= 1.
    """
    _check_order("q_transition", s, t)
    ratio = schedule.alpha(t) / schedule.alpha(s)
    return Normal(expand(ratio, x_s) * x_s, expand(transition_std(schedule, s, t), x_s))


def q_posterior(schedule: NoiseSchedule, x_t: Tensor, x_0: Tensor, s: Tensor, t: Tensor) -> Normal:
    """q(x_s | x_t, x_0): the earlier state that x_t came from, given the clean data as well (Ho et al. 2020, eq. 6-7).

    Args:
        x_t, x_0: (B, ...).
        s, t: () or (B,), with 0 <= s < t <= 1. At s = 0 it is the point x_0.
    """
    check_alike("q_posterior", x_t=x_t, x_0=x_0)
    _check_order("q_posterior", s, t)
    alpha_s, sigma_s, alpha_t, sigma_t = schedule.alpha(s), schedule.sigma(s), schedule.alpha(t), schedule.sigma(t)
    on_x_t = alpha_t * sigma_s**2 / (alpha_s * sigma_t**2)  # written so that alpha(1) = 0 is no exception
    on_x_0 = alpha_s * _one_minus_snr_ratio(schedule, s, t)
    return Normal(expand(on_x_t, x_t) * x_t + expand(on_x_0, x_0) * x_0, expand(posterior_std(schedule, s, t), x_t))


def transition_std(schedule: NoiseSchedule, s: Tensor, t: Tensor) -> Tensor:
    """Standard deviation of q(x_t | x_s): sqrt(beta_k) for a step of DDPM's chain. Shape of s and t."""
    _check_order("transition_std", s, t)
    return schedule.sigma(t) * torch.sqrt(_one_minus_snr_ratio(schedule, s, t))


def posterior_std(schedule: NoiseSchedule, s: Tensor, t: Tensor) -> Tensor:
    """Standard deviation of q(x_s | x_t, x_0): sqrt(beta-tilde_k) for a step of DDPM's chain, 0 at s = 0.

    Shape of s and t.
    """
    _check_order("posterior_std", s, t)
    return schedule.sigma(s) * torch.sqrt(_one_minus_snr_ratio(schedule, s, t))


def posterior_kl(schedule: NoiseSchedule, error: Tensor, std: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """KL(q(x_s | x_t, x_0) || N(mean from x_0_hat, std^2)) of each number, in nats.

    Args:
        error: x_0 - x_0_hat, (B, ...).
        std: standard deviation of the model's Gaussian, > 0: () or (B,), or of a shape that broadcasts to the error.
        s, t: () or (B,), 0 < s < t.

    Returns:
        shape of ``error``.
    """
    true_std = expand(posterior_std(schedule, s, t), error)
    std = expand(std, error) if std.ndim < 2 else std
    gain = expand(schedule.alpha(s) * _one_minus_snr_ratio(schedule, s, t), error)
    v = (true_std / std) ** 2
    return (v - 1 - torch.log(v)) / 2 + (gain * error / std) ** 2 / 2


def prior(
    schedule: NoiseSchedule,
    shape: tuple[int, ...] | torch.Size,
    generator: torch.Generator | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """Where sampling starts: x at t = 1 from N(0, sigma(1)^2).

    Unless alpha(1) = 0 it is not quite q(x_1), in which alpha(1) x_0 is still left: the prior term of the variational
    bound (DDPM's L_T, see ``likelihood``) measures the difference.

    Args:
        shape: of the batch, (B, ...).
        generator: source of the noise; its device is where the noise is drawn.
        dtype: of the result, a float type.
        device: where the result lives; by default that of the generator, or the CPU if there is none.

    Raises:
        ValueError: if the shape is not a list or tuple of whole numbers >= 0, or dtype is not a float type.
        TypeError: if the generator is something else, such as a seed, or dtype is not a torch.dtype.
    """
    check_generator("prior", generator)
    sizes: object = shape
    whole = isinstance(sizes, list | tuple) and all(isinstance(n, numbers.Integral) and int(n) >= 0 for n in sizes)
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"prior got dtype={dtype!r}; give a PyTorch dtype, such as torch.float32.")
    if not whole or not dtype.is_floating_point:
        raise ValueError(
            f"prior got shape = {said(shape)} and dtype={dtype}; it needs the shape of a batch, (B, ...), and a float "
            "dtype."
        )
    device = device if device is not None else (generator.device if generator is not None else "cpu")
    like = torch.empty(shape, dtype=dtype, device=device)
    _, sigma_1 = schedule.scales(torch.ones((), dtype=torch.float64), like)
    return sigma_1 * noise_like(like, generator)


def _check_order(who: str, s: Tensor, t: Tensor) -> None:
    check_times(who, s=s, t=t)
    if s.ndim and t.ndim and s.shape != t.shape:
        raise ValueError(
            f"{who} got s of shape {tuple(s.shape)} and t of shape {tuple(t.shape)}; give each as () or (B,), with the "
            "same B."
        )
    if readable(s, t) and bool((s > t).any()):
        raise ValueError(
            f"{who} got s up to {float(s.max()):.4g} and t down to {float(t.min()):.4g}; a step goes from t to an "
            "earlier s, nearer to the data: s < t."
        )


def _one_minus_snr_ratio(schedule: NoiseSchedule, s: Tensor, t: Tensor) -> Tensor:
    # 1 - SNR(t)/SNR(s). At s = 0, log_snr = inf and the result is 1. At s = t it is 0, also where inf - inf is NaN.
    difference = schedule.log_snr(t) - schedule.log_snr(s)
    return -torch.expm1(torch.where(onto(difference.device, s == t), torch.zeros_like(difference), difference))
