r"""The training objective: how wrong is the network's output, example by example.

Notebooks: ``04_elbo`` (where it comes from), ``05_epsilon_objective`` (what is left of it).

    loss = factor(t) * mean over the example's numbers of (o - o*)^2,      o* = a x_0 + b eps

With the network predicting eps and no weight this is DDPM's L_simple (Ho et al. 2020, eq. 14), per number.

Here (a, b) is the row of the network's parameterisation and D = a sigma - b alpha (see ``parameterization``). A plain
squared error on o weights the error in x_0 by the row's own (D / sigma)^2. A named weight w(t) is the weight on the x_0
error, whatever the network predicts: the factor is then w(t) / (D / sigma)^2. With sigma_d for ``sigma_data``, they are

    simple    SNR                                   L_simple, for any parameterisation
    min_snr   min(SNR, gamma)                       Hang et al. 2023
    elbo      -(1/2) d SNR / dt                     the bound for infinitely many steps (Kingma et al. 2021, eq. 17)
    edm       (sigma^2 + sigma_d^2) / (sigma sigma_d)^2,  sigma the noise-to-signal ratio (Karras et al. 2022, table 1)
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .denoiser import DiffusionModel, LearntVarianceModel
from .door import check_alike, check_counts, check_generator, check_noisy, check_times, is_real, said
from .gaussian import noise_like
from .process import posterior_kl, q_sample
from .schedule import NoiseSchedule, expand, onto

__all__ = [
    "Importance",
    "TimeSampler",
    "Weight",
    "denoising_loss",
    "edm_weight",
    "elbo_weight",
    "hybrid_loss",
    "log_normal",
    "min_snr",
    "simple",
    "snr",
    "stratified",
    "uniform",
]

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
        weight: (schedule, t) -> the weight on the squared error in x_0, shape of t; None for the row's own.
        condition: (B,) labels or None.
        eps: the noise, shape of x_0; drawn from ``generator`` if None.
        generator: source of the noise.

    Returns:
        (B,), the mean over each example's numbers of the weighted squared error.

    Raises:
        ValueError: if shapes or devices differ (the network's output must have the shape of x_0), or a time on the CPU
            leaves (0, 1].
        TypeError: if x_0, t or eps is not a float tensor, or the weight is not a function of (schedule, t).
    """
    check_alike("denoising_loss", x_0=x_0)
    check_noisy("denoising_loss", t)
    if x_0.ndim < 2 or len(x_0) == 0:
        raise ValueError(f"denoising_loss got x_0 of shape {tuple(x_0.shape)}; it needs a batch (B, ...), B >= 1.")
    if weight is not None and (not callable(weight) or weight in WEIGHT_FACTORIES):
        raise TypeError(
            f"denoising_loss got weight = {said(weight)}; give a function of (schedule, t): simple, elbo_weight, "
            "min_snr() or edm_weight()."
        )
    eps = noise_like(x_0, generator) if eps is None else eps
    x_t = q_sample(model.schedule, x_0, t, eps)
    output = model.output(x_t, t, condition)
    check_alike("denoising_loss", network_output=output, x_0=x_0)  # else they broadcast, and the loss looks fine
    target = model.parameterization.target(model.schedule, x_0, eps, t)
    loss = ((output - target) ** 2).flatten(1).mean(1)
    if weight is None:
        return loss
    wanted, own = weight(model.schedule, t), model.parameterization.weight(model.schedule, t)
    expand(wanted, loss)  # checks the shape: one weight for all, or one per example
    return expand(wanted / own, loss) * loss


def hybrid_loss(
    model: LearntVarianceModel,
    x_0: Tensor,
    t: Tensor,
    condition: Tensor | None = None,
    eps: Tensor | None = None,
    generator: torch.Generator | None = None,
    steps: int = 1000,
    share: float = 1e-3,
) -> Tensor:
    """The plain loss for the mean, and a little of the bound for the variance alone (Nichol & Dhariwal 2021, eq. 16).

    The plain loss is L_simple where the network predicts eps.

    Args:
        model: a model with a learnt variance; the other arguments are as for ``denoising_loss``.
        steps: T of the chain whose bound is used: each term belongs to a step from t to t - 1/T.
        share: lambda, the weight of the bound relative to the plain loss.

    Returns:
        (B,). Where t <= 1/T the step ends at 0 and needs no variance, so the plain loss stands alone.

    Raises:
        ValueError: if steps or share is out of range, or as for ``denoising_loss``.
        TypeError: if the model does not learn a variance, or as for ``denoising_loss``.
    """
    if not isinstance(model, LearntVarianceModel):
        raise TypeError(
            f"hybrid_loss got {type(model).__name__}, which learns no variance; give a LearntVarianceModel."
        )
    check_counts("hybrid_loss", 2, steps=steps)
    if not is_real(share) or not 0 <= share < math.inf:
        raise ValueError(
            f"hybrid_loss got share={share!r}; it is the weight of the bound relative to L_simple: give a finite "
            "number, at least 0."
        )
    check_alike("hybrid_loss", x_0=x_0)
    check_times("hybrid_loss", t=t)
    model.schedule.scales(t, like=x_0)  # one time for all, or one each
    eps = noise_like(x_0, generator) if eps is None else eps
    schedule = model.schedule
    t = t.double().expand(len(x_0)) if t.device.type != "mps" else t.expand(len(x_0))
    inner = t * steps > 1 + 1e-6  # 1 / steps in float32 may lie above it, and its step ends at 0 all the same
    safe_t = torch.where(inner, t, torch.ones_like(t))  # anything valid: those terms are dropped below
    x_t = q_sample(schedule, x_0, safe_t, eps)
    x_0_hat, std = model.denoise_with_std(x_t, safe_t - 1 / steps, safe_t, condition)
    kl = posterior_kl(schedule, (x_0 - x_0_hat).detach(), std, safe_t - 1 / steps, safe_t).flatten(1).mean(1)
    kl = torch.where(onto(kl.device, inner), kl, torch.zeros_like(kl))
    return denoising_loss(model, x_0, t, condition=condition, eps=eps) + share * steps * kl


def snr(schedule: NoiseSchedule, t: Tensor) -> Tensor:
    """SNR(t): the weight of L_simple, so that equal errors in eps count equally (Ho et al. 2020, eq. 14).

    Shape of t.

    Raises:
        ValueError: if a time on the CPU leaves [0, 1].
        TypeError: if the schedule is no NoiseSchedule, or t no float tensor.
    """
    _check_weighed("snr", schedule, t)
    return torch.exp(schedule.log_snr(t))


simple = snr


def min_snr(gamma: float = 5.0) -> Weight:
    """min(SNR, gamma) on the error in x_0: the cleanest times no longer outweigh the rest (Hang et al. 2023, section
    3.4).

    Args:
        gamma: the cap, > 0.
    """
    if not is_real(gamma) or gamma <= 0:
        raise ValueError(f"min_snr got gamma={gamma!r}; it caps the signal-to-noise ratio and must be above 0.")
    return lambda schedule, t: snr(schedule, t).clamp(max=gamma)


def elbo_weight(schedule: NoiseSchedule, t: Tensor) -> Tensor:
    """-(1/2) d SNR/dt = alpha (alpha sigma' - alpha' sigma) / sigma^3: nats per unit of time in the bound.

    Shape of t. Source: Kingma et al. 2021, eq. 17.

    Raises:
        ValueError: if a time on the CPU leaves [0, 1].
        TypeError: if the schedule is no NoiseSchedule, or t no float tensor.
    """
    _check_weighed("elbo_weight", schedule, t)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    alpha_rate, sigma_rate = schedule.rates(t)
    return alpha * (alpha * sigma_rate - alpha_rate * sigma) / sigma**3


def edm_weight(sigma_data: float = 0.5) -> Weight:
    """EDM's lambda(sigma), with which equal errors of its F count equally at every level (Karras et al. 2022, table 1).

    Args:
        sigma_data: standard deviation of the data, > 0.
    """
    if not is_real(sigma_data) or not 0 < sigma_data < math.inf:
        raise ValueError(
            f"edm_weight got sigma_data={sigma_data!r}; it is the standard deviation of the data, finite and above 0."
        )
    return lambda schedule, t: snr(schedule, t) + 1 / sigma_data**2


# functions that must be called to get a weight; it is easy to forget the parentheses
WEIGHT_FACTORIES: tuple[object, ...] = (min_snr, edm_weight)


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
    return (1 - (slices + u) / batch).clamp(min=torch.finfo(u.dtype).eps / 2)  # in float32 it may round to 0


def log_normal(schedule: NoiseSchedule, mean: float = -1.2, std: float = 1.2) -> TimeSampler:
    """Times whose noise-to-signal ratio is log-normal: ln(sigma / alpha) ~ N(mean, std^2) (Karras et al. 2022, table
    1).

    Args:
        schedule: the schedule that the times are for; a ratio outside its range gives the nearest end.
        mean, std: of ln(sigma / alpha).

    Returns:
        a sampler of (batch,) times in (0, 1].

    Raises:
        ValueError: if a number is not finite, or std is not above 0.
        TypeError: if the schedule is no NoiseSchedule.
    """
    if not isinstance(schedule, NoiseSchedule):
        raise TypeError(f"log_normal got schedule = {said(schedule)}; give a schedule, such as EDMSchedule().")
    if not is_real(mean, std) or not math.isfinite(mean) or not 0 < std < math.inf:
        raise ValueError(f"log_normal got mean={mean!r} and std={std!r}; it needs finite numbers and std > 0.")

    def draw(batch: int, generator: torch.Generator | None = None) -> Tensor:
        u = _rand(batch, generator)
        log_ratio = mean + std * torch.randn(batch, generator=generator, dtype=u.dtype, device=u.device)
        return schedule.time_at(-2 * log_ratio).clamp(min=1e-6)

    return draw


class Importance:
    """Times drawn where the loss is large, and the factor that keeps the expectation (Nichol & Dhariwal 2021, eq. 18).

    ``Trainer(times=Importance(...))`` multiplies the loss by this factor. In a loop of your own, do so yourself:
    ``importance.factor(t) * loss`` has the expectation that the loss has under uniform times.

    Args:
        density: (N,), > 0: how often each of N equal slices of (0, 1] is drawn, up to a factor; the best choice is the
            root of the mean squared loss there.

    Raises:
        ValueError: if density is not of shape (N,), or an entry is not finite or not above 0: with 0, the loss there
            would never be seen.
        TypeError: if density is not a tensor.
    """

    def __init__(self, density: Tensor) -> None:
        if not isinstance(density, Tensor):
            raise TypeError(
                f"Importance got a density = {said(density)}; give a tensor (N,), one number above 0 per slice."
            )
        if density.ndim != 1 or len(density) == 0 or not bool((density > 0).all() & torch.isfinite(density).all()):
            raise ValueError(
                f"Importance got a density of shape {tuple(density.shape)}; give one number above 0, and finite, "
                "for each slice of time: shape (N,)."
            )
        density = density.detach().cpu().double()
        self.probability = density / density.sum()

    def __call__(self, batch: int, generator: torch.Generator | None = None) -> Tensor:
        """(batch,) times in (0, 1], float64."""
        u = _rand(batch, generator)
        probability = onto(u.device, self.probability, u.dtype)
        k = torch.multinomial(probability, batch, replacement=True, generator=generator)
        return (k + 1 - u) / len(probability)

    def factor(self, t: Tensor) -> Tensor:
        """1 / (N p): multiply the loss at t by it to keep the expectation under uniform times. Shape of t."""
        check_times("Importance.factor", t=t)
        N = len(self.probability)
        k = (torch.ceil(t * N) - 1).clamp(0, N - 1).long()
        return 1 / (N * onto(t.device, self.probability, t.dtype)[k])


def _check_weighed(who: str, schedule: NoiseSchedule, t: Tensor) -> None:
    if not isinstance(schedule, NoiseSchedule):
        raise TypeError(f"{who} got schedule = {said(schedule)}; give a schedule, such as CosineSchedule(), then t.")
    check_times(who, t=t)


def _rand(batch: int, generator: torch.Generator | None) -> Tensor:
    check_counts("a draw of times", batch=batch)
    check_generator("a draw of times", generator)
    device = generator.device if generator is not None else torch.device("cpu")
    dtype = torch.float32 if device.type == "mps" else torch.float64
    return torch.rand(batch, generator=generator, dtype=dtype, device=device)
