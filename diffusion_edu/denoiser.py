r"""A denoiser answers one question: given x_t at time t, what is x_0 on average?

Notebooks: ``03_reverse_process`` (why the average is what one needs), ``05_epsilon_objective`` (learning it).

    x_0_hat = E[x_0 | x_t]

A learnt network, an exact answer (``analytic``) and a guided model (``guidance``) are all denoisers, and
samplers and likelihoods take any of them. What others call the noise prediction, the score or the velocity is
the same answer in other units:

    eps_hat  = (x_t - alpha x_0_hat) / sigma
    score    = -eps_hat / sigma = grad log q(x_t)         (Tweedie; notebook 11)
    velocity = alpha' x_0_hat + sigma' eps_hat            (alpha', sigma': d / dt; notebooks 12 and 15)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from .door import check_noisy, check_times, is_real, said
from .parameterization import EPS, Parameterization
from .process import posterior_std, transition_std
from .schedule import NoiseSchedule, expand, onto

__all__ = [
    "Around",
    "Denoiser",
    "DiffusionModel",
    "LearntVarianceModel",
    "State",
    "Treated",
    "angle",
    "check_batch",
    "clip_x_0",
    "denoise_with_std",
    "dynamic_threshold",
    "eps",
    "forget",
    "learnt_std",
    "score",
    "time_at_angle",
    "velocity",
    "velocity_in_angle",
    "x_0_hat_and_velocity",
]


class Denoiser(Protocol):
    """Anything with a schedule that maps (x_t, t) to E[x_0 | x_t]."""

    @property
    def schedule(self) -> NoiseSchedule:
        """The schedule whose noise this denoiser removes."""
        ...

    def __call__(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """E[x_0 | x_t, condition].

        Args:
            x_t: (B, ...).
            t: () or (B,), in (0, 1].
            condition: (B,) labels, or None for the unconditional answer.

        Returns:
            x_0_hat, shape of x_t.
        """
        ...


@dataclass(frozen=True)
class State:
    """Where a trajectory stands. What a multistep sampler remembers is here, and nowhere else.

    Args:
        t: the time, () float64 on the CPU, from 1 down to 0.
        x: x_t, (B, ...).
        x_0_hat: the denoiser's answer in the step that led here, (B, ...); None if it has not been asked yet.
        previous: the state before this one; it keeps no history of its own.
    """

    t: Tensor
    x: Tensor
    x_0_hat: Tensor | None = None
    previous: State | None = None


def forget(state: State | None) -> State | None:
    """The state without its ``previous``: this much of it the next state keeps. None stays None."""
    return None if state is None else replace(state, previous=None)


def angle(schedule: NoiseSchedule, t: Tensor) -> Tensor:
    """(2 / pi) atan2(sigma, alpha): the noise level as a number in [0, 1], the same for every schedule. Shape of t.

    A network that is told this, and not t, can be used under another schedule than the one it was trained with.
    """
    return 2 / math.pi * torch.atan2(schedule.sigma(t), schedule.alpha(t))


def time_at_angle(schedule: NoiseSchedule, angle: Tensor) -> Tensor:
    """The t in [0, 1] at which the noise level is this angle: the inverse of ``angle``.

    Args:
        schedule: the schedule that the time is for.
        angle: any shape, in [0, 1]; for an angle above that of t = 1 the answer is 1.

    Returns:
        t, shape of ``angle``.
    """
    tangent = torch.tan(math.pi / 2 * angle).abs()  # in float32 pi / 2 lies beyond the pole
    return schedule.time_at(-2 * torch.log(tangent)).clamp(max=1)


class DiffusionModel(nn.Module):
    """A network, a schedule, and what the network predicts: a learnt denoiser.

    Args:
        network: (x, level, condition) -> like x, for example ``UNet``; level is (B,), in [0, 1].
        schedule: the noise to remove.
        parameterization: what the network's output means.
        level: (schedule, t) -> what the network is told about the time, shape of t.

    Raises:
        ValueError: if the output says nothing about x_0 at t = 1 (eps or the score where alpha(1) = 0).
        TypeError: if the network, the schedule or the parameterisation is something else.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: NoiseSchedule,
        parameterization: Parameterization = EPS,
        level: Callable[[NoiseSchedule, Tensor], Tensor] = angle,
    ) -> None:
        super().__init__()
        wanted = {"network": nn.Module, "schedule": NoiseSchedule, "parameterization": Parameterization}
        for (name, kind), part in zip(wanted.items(), (network, schedule, parameterization), strict=True):
            if not isinstance(part, kind) or (name == "network" and isinstance(part, NoiseSchedule)):
                raise TypeError(
                    f"DiffusionModel got {name} = {said(part)}; it needs a network, a schedule such as "
                    "CosineSchedule(), and a parameterization such as V or edm()."
                )
        end = torch.ones((), dtype=torch.float64)
        (a, b), alpha, sigma = parameterization.row(schedule, end), schedule.alpha(end), schedule.sigma(end)
        D = parameterization.determinant(schedule, end) / (torch.hypot(a, b) * torch.hypot(alpha, sigma))
        if not D.is_meta and abs(float(D)) < 1e-8:  # D: sine of the angle from (a, b) to (alpha, sigma)
            left = f"/ sigma(1) = {float(alpha / sigma):.1g}" if alpha > 0 else "= 0"
            raise ValueError(
                f"a network that predicts {parameterization.name} under {type(schedule).__name__} cannot say what "
                f"x_0 is at t = 1, because alpha(1) {left} there: choose parameterization=V or VELOCITY."
            )
        self.network = network
        self.schedule = schedule
        self.parameterization = parameterization
        self.level = level

    def output(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """The network's own answer o, in its own units.

        Args:
            x_t: (B, ...).
            t: () or (B,), in (0, 1].
            condition: (B,) or None.

        Returns:
            o, shape of x_t.
        """
        check_times(type(self).__name__, t=t)
        c_in = expand(self.parameterization.input_scale(self.schedule, t), x_t)
        level = onto(x_t.device, self.level(self.schedule, t), x_t.dtype).expand(len(x_t))
        output: Tensor = self.network(c_in * x_t, level, condition)
        return output.to(x_t.dtype)  # under autocast the network may answer in half precision

    def forward(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """E[x_0 | x_t, condition] as learnt. Shapes as in ``output``."""
        output = self.output(x_t, t, condition)
        return self.parameterization.x_0(self.schedule, output, x_t, t)


class LearntVarianceModel(DiffusionModel):
    r"""A model whose network also says how wide the reverse step is (Nichol & Dhariwal 2021, eq. 15).

    The network answers with twice as many channels, (B, 2C, ...): o and u, with v = (u + 1) / 2 and

        std^2 = exp(v log beta + (1 - v) log beta-tilde)

    for the step t -> s, where beta is ``transition_std`` squared and beta-tilde is ``posterior_std`` squared: u = 1
    gives beta and u = -1 gives beta-tilde. Samplers and the bound use it with ``std=learnt_std``; train it with
    ``loss.hybrid_loss``. To everything else it is an ordinary denoiser.
    """

    def output(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """o alone, (B, C, ...). Arguments as for ``DiffusionModel.output``."""
        return self._outputs(x_t, t, condition)[0]

    def denoise_with_std(
        self, x_t: Tensor, s: Tensor, t: Tensor, condition: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """x_0_hat and the standard deviation of the step t -> s from one call of the network.

        Args:
            x_t: (B, C, ...).
            s, t: () or (B,), 0 <= s < t; at s = 0 the standard deviation is 0.
            condition: (B,) or None.

        Returns:
            two tensors of the shape of x_t.
        """
        o, u = self._outputs(x_t, t, condition)
        low = expand(torch.log(posterior_std(self.schedule, s, t)), u)
        high = expand(torch.log(transition_std(self.schedule, s, t)), u)
        v = (u + 1) / 2
        std = torch.exp(low + v * (high - low))
        return self.parameterization.x_0(self.schedule, o, x_t, t), torch.where(low.isneginf(), 0, std)  # 0 at s = 0

    def _outputs(self, x_t: Tensor, t: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        both = super().output(x_t, t, condition)
        if both.shape[1] != 2 * x_t.shape[1]:
            raise ValueError(
                f"a model with learnt variance got {tuple(both.shape)} from its network for x_t of shape "
                f"{tuple(x_t.shape)}; "
                "the network must give twice the channels: UNet(..., out_channels=2 * in_channels)."
            )
        o, u = both.chunk(2, dim=1)
        return o, u


def learnt_std(schedule: NoiseSchedule, s: Tensor, t: Tensor) -> Tensor:
    """Pass this function as ``std`` to use the standard deviation that a ``LearntVarianceModel`` predicts.

    That one depends on x_t and not on (s, t) alone, so samplers and bounds recognise this function and do not call it.

    Raises:
        TypeError: whenever it is called, that is, with a denoiser that predicts no standard deviation.
    """
    raise TypeError(
        "learnt_std was used with a denoiser that predicts no standard deviation; give a LearntVarianceModel, or "
        "another std, such as posterior_std."
    )


def denoise_with_std(
    denoiser: Denoiser,
    std: Callable[[NoiseSchedule, Tensor, Tensor], Tensor],
    x_t: Tensor,
    s: Tensor,
    t: Tensor,
    condition: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """x_0_hat, and the standard deviation of the reverse step t -> s by a rule or as learnt.

    Args:
        denoiser: the one that is asked.
        std: (schedule, s, t) -> shape of t, or ``learnt_std``.
        x_t: (B, ...).
        s, t: () or (B,), 0 <= s < t.
        condition: (B,) labels or None.

    Returns:
        x_0_hat, shape of x_t, and a standard deviation that broadcasts to it.
    """
    own: Callable[..., tuple[Tensor, Tensor]] | None = getattr(denoiser, "denoise_with_std", None)
    if std is learnt_std and own is not None:
        return own(x_t, s, t, condition)
    return denoiser(x_t, t, condition), expand(std(denoiser.schedule, s, t), x_t)


def eps(denoiser: Denoiser, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
    """eps_hat = (x_t - alpha x_0_hat) / sigma, the noise that a denoiser sees in x_t.

    Args:
        x_t: (B, ...).
        t: () or (B,), in (0, 1].
        condition: (B,) or None.

    Returns:
        eps_hat, shape of x_t.

    Raises:
        ValueError: at t = 0, where there is no noise to see.
    """
    check_noisy("eps", t=t)
    alpha_t, sigma_t = denoiser.schedule.scales(t, like=x_t)
    return (x_t - alpha_t * denoiser(x_t, t, condition)) / sigma_t


def score(denoiser: Denoiser, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
    """(alpha x_0_hat - x_t) / sigma^2 = grad log q(x_t), by Tweedie's formula. Arguments and shapes as for ``eps``."""
    check_noisy("score", t=t)
    _, sigma_t = denoiser.schedule.scales(t, like=x_t)
    return -eps(denoiser, x_t, t, condition) / sigma_t


def velocity(denoiser: Denoiser, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
    """alpha' x_0_hat + sigma' eps_hat = dx/dt of the probability-flow ODE (Song et al. 2021, eq. 13).

    Arguments and shapes as for ``eps``.
    """
    return x_0_hat_and_velocity(denoiser, x_t, t, condition)[1]


def x_0_hat_and_velocity(
    denoiser: Denoiser, x_t: Tensor, t: Tensor, condition: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The denoiser's answer and ``velocity``, from one call. Arguments as for ``eps``; two tensors, shape of x_t."""
    check_noisy("velocity", t=t)
    alpha_rate, sigma_rate = denoiser.schedule.rates(t)
    alpha_t, sigma_t = denoiser.schedule.scales(t, like=x_t)
    x_0_hat = denoiser(x_t, t, condition)
    eps_hat = (x_t - alpha_t * x_0_hat) / sigma_t
    return x_0_hat, expand(alpha_rate, x_t) * x_0_hat + expand(sigma_rate, x_t) * eps_hat


def velocity_in_angle(
    denoiser: Denoiser, x_t: Tensor, t: Tensor, condition: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    r"""The probability-flow ODE with the ``angle`` for its time: x_0_hat, and dx / d angle = (dx/dt) / (d angle/dt).

        d angle / dt = (2 / pi) (sigma' alpha - alpha' sigma) / (alpha^2 + sigma^2)

    The path through x is the same; only the speed along it changes. The change pays for a solver that relies on
    smoothness: a table of betas has a corner in t at each of its nodes, and sigma' may be infinite at t = 0. In the
    angle neither is left, because numerator and denominator share them and they cancel.

    Arguments and shapes as for ``eps``; returns two tensors of the shape of x_t.
    """
    check_noisy("velocity_in_angle", t=t)
    schedule = denoiser.schedule
    alpha_rate, sigma_rate = schedule.rates(t)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    turn = 2 / math.pi * (sigma_rate * alpha - alpha_rate * sigma) / (alpha**2 + sigma**2)
    alpha_t, sigma_t = expand(alpha, x_t), expand(sigma, x_t)
    x_0_hat = denoiser(x_t, t, condition)
    eps_hat = (x_t - alpha_t * x_0_hat) / sigma_t
    return x_0_hat, expand(alpha_rate / turn, x_t) * x_0_hat + expand(sigma_rate / turn, x_t) * eps_hat


def check_batch(who: str, denoiser: Denoiser, x: Tensor, condition: Tensor | None = None) -> None:
    """Checks at the door of whatever walks a batch through time: sampler, solver, likelihood.

    Args:
        who: the name of the caller, for the error message.
        denoiser: must have a schedule; a network must be in eval mode.
        x: must be a finite float batch (B, ...), B >= 1.
        condition: must have one label for each example, (B,), or be None.

    Raises:
        ValueError: if x is not a finite float batch, there is not one label per example, or the denoiser is in
            training mode.
        TypeError: if the denoiser has no schedule, or x or the condition is not a tensor.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"{who} got x = {said(x)}; it needs a float batch (B, ...): prior(schedule, shape) makes one.")
    if x.ndim < 2 or len(x) == 0 or not x.is_floating_point():
        raise ValueError(
            f"{who} got x of shape {tuple(x.shape)} and type {x.dtype}; it needs a float batch (B, ...), B >= 1."
        )
    if not x.is_meta and not bool(torch.isfinite(x).all()):
        raise ValueError(
            f"{who} got an x with NaN or infinite entries; clean the data, or start from prior(schedule, shape)."
        )
    if condition is not None and not isinstance(condition, Tensor):
        raise TypeError(f"{who} got condition = {said(condition)}; give a tensor (B,), one label per example.")
    if condition is not None and condition.shape[:1] != x.shape[:1]:
        raise ValueError(
            f"{who} got {len(x)} examples and a condition of shape {tuple(condition.shape)}; give one label "
            "per example."
        )
    if not hasattr(denoiser, "schedule"):
        raise TypeError(
            f"{who} got a denoiser of type {type(denoiser).__name__}, which has no schedule; make a network a denoiser "
            "with DiffusionModel(network, schedule, V)."
        )
    if getattr(denoiser, "training", False):
        raise ValueError(
            f"{who} got a model in training mode; call model.eval() first, or its dropout makes noise of its own."
        )


@dataclass(frozen=True)
class Around:
    """What every wrapper of a denoiser shares: the inner one's schedule, and whether the inner one is in training mode.

    Args:
        denoiser: the one that is asked.
    """

    denoiser: Denoiser

    @property
    def schedule(self) -> NoiseSchedule:
        """That of the denoiser within."""
        return self.denoiser.schedule

    @property
    def training(self) -> bool:
        """Whether the denoiser within is a network in training mode."""
        return bool(getattr(self.denoiser, "training", False))


@dataclass(frozen=True)
class Treated(Around):
    """A denoiser whose answer is treated before anyone uses it: clipped, thresholded, projected.

    Every sampler derives eps_hat again from the treated x_0_hat, so that the two always fit together; keeping the
    network's eps beside a clipped x_0 is a classic mistake.

    Args:
        denoiser: the one that is asked.
        treatment: x_0_hat (B, ...) -> the same shape, for example ``clip_x_0``.
    """

    treatment: Callable[[Tensor], Tensor]

    def __call__(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """The treated E[x_0 | x_t, condition]. Shapes as for ``Denoiser``.

        Raises:
            ValueError: if the treatment gives another shape.
        """
        return self._treated(self.denoiser(x_t, t, condition))

    def _treated(self, x_0_hat: Tensor) -> Tensor:
        treated = self.treatment(x_0_hat)
        if treated.shape != x_0_hat.shape:
            raise ValueError(
                f"a treatment of x_0_hat, of shape {tuple(x_0_hat.shape)}, returned the shape {tuple(treated.shape)}; "
                "it must keep the shape."
            )
        return treated

    def denoise_with_std(
        self, x_t: Tensor, s: Tensor, t: Tensor, condition: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The treated answer, and the standard deviation that the inner denoiser predicts.

        Arguments and shapes as for ``LearntVarianceModel.denoise_with_std``.

        Raises:
            ValueError: if the treatment gives another shape.
            TypeError: if the denoiser within learns no variance.
        """
        x_0_hat, std = denoise_with_std(self.denoiser, learnt_std, x_t, s, t, condition)
        return self._treated(x_0_hat), std


def clip_x_0(x_0_hat: Tensor) -> Tensor:
    """Clip into [-1, 1], the range of pictures (the code of Ho et al. 2020). Any shape. Not for latents or points."""
    return x_0_hat.clamp(-1, 1)


def dynamic_threshold(quantile: float = 0.995) -> Callable[[Tensor], Tensor]:
    """Clip each example at a quantile of its own magnitudes, but at 1 at least, and scale back into [-1, 1].

    (Saharia et al. 2022, section 2.3.)

    Args:
        quantile: in (0, 1].

    Raises:
        ValueError: for another quantile.
    """
    if not is_real(quantile) or not 0 < quantile <= 1:
        raise ValueError(
            f"dynamic_threshold got quantile={quantile!r}; it is a share of the pixels, above 0 and at most 1."
        )

    def treatment(x_0_hat: Tensor) -> Tensor:
        if not len(x_0_hat):
            return x_0_hat
        wide = x_0_hat.to(torch.promote_types(x_0_hat.dtype, torch.float32))  # quantile takes no half precision
        limit = torch.quantile(wide.abs().flatten(1), quantile, dim=1).clamp(min=1)
        limit = expand(limit, x_0_hat)
        return x_0_hat.clamp(-limit, limit) / limit

    return treatment
