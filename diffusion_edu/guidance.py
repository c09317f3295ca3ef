r"""Guidance: a denoiser in, a denoiser out, and the samples lean towards what was asked for.

Notebook: ``10_guidance``.

Bayes' rule splits the score of one class into the score of all data and the gradient of a classifier:

    grad log q(x_t | y) = grad log q(x_t) + grad log p(y | x_t)

and with score = (alpha x_0_hat - x_t) / sigma^2 the same statement about x_0_hat is

    E[x_0 | x_t, y] = E[x_0 | x_t] + sigma^2 / alpha grad log p(y | x_t)

Guidance multiplies the second term by a scale w. With a classifier at hand (Dhariwal & Nichol 2021, algorithm 2,
written for x_0_hat),

    x_0_hat = E[x_0 | x_t] + w sigma^2 / alpha grad log p(y | x_t)

and without one, from a denoiser that answers with a label and without (Ho & Salimans 2022, eq. 6; their w is ours - 1),

    x_0_hat = E[x_0 | x_t] + w (E[x_0 | x_t, y] - E[x_0 | x_t])

w = 0 ignores y, w = 1 is Bayes' rule. Above 1 the field at each t is the score of q(x_t) p(y | x_t)^w, a density that
is sharper about y. These densities are in general *not* the noised versions of one data density, so no sampler that
follows the field is exact: q(x_0) p(y | x_0)^w with noise added is something else. Guidance is a useful rule, then, but
not a posterior.

A wrapper is a denoiser, so each sampler and each likelihood takes it. A negative label stands for none, and such an
example is not guided.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .denoiser import Around, angle
from .door import are_labels, check_alike, check_classes, check_tensors, check_times, is_real, said
from .gaussian import noise_like
from .networks import NO_LABEL, LevelClassifier
from .process import q_sample
from .schedule import CosineSchedule, NoiseSchedule, expand, onto
from .storage import each_its_own, shipped_card, with_shipped_weights

__all__ = [
    "ClassifierFreeGuidance",
    "ClassifierGuidance",
    "Inpainting",
    "NoiseClassifier",
    "NoisyClassifier",
    "classifier_loss",
    "noisy_digit_classifier",
    "noisy_digit_classifier_card",
    "noisy_fashion_classifier",
    "noisy_fashion_classifier_card",
]


class NoiseClassifier(Protocol):
    """Anything that says which class a noisy x_t belongs to: ``analytic.MixtureClassifier``, or a learnt one."""

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Logits: log p(y | x_t), up to a constant for each example.

        Args:
            x_t: (B, ...).
            t: () or (B,), in (0, 1].

        Returns:
            (B, classes).
        """
        ...


@dataclass(frozen=True)
class ClassifierGuidance(Around):
    """x_0_hat + w sigma^2 / alpha grad log p(y | x_t) (Dhariwal & Nichol 2021, algorithm 2, written for x_0_hat).

    The denoiser within is asked without a label: the classifier knows y, the denoiser knows the data. With scale 1 and
    both exact the result is E[x_0 | x_t, y]. One call of the denoiser, and a forward and a backward pass of the
    classifier.

    Args:
        denoiser: the one that is guided.
        classifier: (x_t, t) -> logits (B, classes), differentiable in x_t and trained on noisy data.
        scale: w; 0 never asks the classifier.
        interval: (low, high]: the times t at which to guide; elsewhere the scale is 0.

    Raises:
        ValueError: if the scale is not finite, or the interval is not a pair (low, high) with 0 <= low < high <= 1.
    """

    classifier: NoiseClassifier
    scale: float
    interval: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        _check("ClassifierGuidance", self.scale, self.interval)

    @property
    def training(self) -> bool:
        """Whether the denoiser or the classifier is a network in training mode."""
        return super().training or bool(getattr(self.classifier, "training", False))

    def __call__(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """The guided E[x_0 | x_t].

        Args:
            x_t: (B, ...).
            t: () or (B,), in (0, 1].
            condition: (B,) labels, negative for none.

        Returns:
            shape of x_t.

        Raises:
            ValueError: if there is no condition, or alpha(t) = 0: there x_t says nothing about y and sigma^2 / alpha is
                infinite.
        """
        labels = _labels("ClassifierGuidance", x_t, condition)
        x_0_hat = self.denoiser(x_t, t)
        w = _weight(self.scale, 0.0, self.interval, t)
        if isinstance(w, float) and w == 0:
            return x_0_hat
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        if not isinstance(w, float):  # outside the interval alpha does not matter
            alpha = torch.where(onto(alpha.device, w == 0), torch.ones_like(alpha), alpha)
        if alpha.device.type == "cpu" and bool((alpha == 0).any()):
            raise ValueError(
                f"ClassifierGuidance was asked at t = 1, where {type(self.schedule).__name__} has alpha = 0 and x_t "
                "says nothing about the class: guide only below, with interval=(0, 0.99)."
            )
        shift = expand(sigma**2 / alpha, x_t) * self.log_prob_gradient(x_t, t, labels)
        return x_0_hat + (w if isinstance(w, float) else expand(w, x_t)) * shift

    def log_prob_gradient(self, x_t: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """grad log p(y | x_t) with respect to x_t, 0 where there is no label.

        Args:
            x_t: (B, ...).
            t: () or (B,), in (0, 1].
            labels: (B,), negative for none.

        Returns:
            shape of x_t.
        """
        goes_on = torch.is_grad_enabled() and x_t.requires_grad  # a likelihood differentiates this gradient again
        with torch.inference_mode(False), torch.enable_grad():
            x = x_t if goes_on else x_t.detach().clone().requires_grad_()
            log_prob = torch.log_softmax(self.classifier(x, t), -1)
            check_classes("ClassifierGuidance", labels, log_prob.shape[-1], "the classifier knows")
            chosen = log_prob.gather(1, labels.clamp(min=0)[:, None])[:, 0]
            total = torch.where(labels >= 0, chosen, 0.0).sum()  # examples do not mix: one backward pass for all
            (gradient,) = torch.autograd.grad(total, x, create_graph=goes_on)
        return gradient


@dataclass(frozen=True)
class ClassifierFreeGuidance(Around):
    """E[x_0 | x_t, null] + w (E[x_0 | x_t, y] - E[x_0 | x_t, null]) (Ho & Salimans 2022, eq. 6; their w is ours - 1).

    Both answers come from one call with a batch twice as long; at scale 0 or 1 one of them is enough, and
    only it is asked for.

    Guiding only in an interval of noise levels leaves the early steps their diversity and costs less (Kynkäänniemi et
    al. 2024, "Applying guidance in a limited interval improves sample and distribution quality in diffusion models").
    Theirs is in sigma / alpha; ours is in t, the samplers' own coordinate, and
    ``schedule.time_at(-2 * torch.log(sigma))`` translates.

    Args:
        denoiser: the one that is guided; it answers with and without labels.
        scale: w; 0 is unconditional, 1 is the denoiser's own answer to the label.
        null: the label that guidance leads away from: -1 for none, or another class ("negative prompt").
        interval: (low, high]: the times t at which to guide; elsewhere the scale is 1.

    Raises:
        ValueError: if the scale is not finite, or the interval is not a pair (low, high) with 0 <= low < high <= 1.
    """

    scale: float
    null: int = NO_LABEL
    interval: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        _check("ClassifierFreeGuidance", self.scale, self.interval)
        null: object = self.null
        if type(null) is bool or not isinstance(null, numbers.Integral):
            raise ValueError(
                f"ClassifierFreeGuidance got null={self.null!r}; it is a label, a whole number: -1 for none."
            )

    def __call__(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """The guided E[x_0 | x_t].

        Args:
            x_t: (B, ...).
            t: () or (B,), in (0, 1].
            condition: (B,) labels, negative for none.

        Returns:
            shape of x_t.

        Raises:
            ValueError: if there is no condition, or a time leaves [0, 1].
            TypeError: if the time is no float tensor.
        """
        check_times("ClassifierFreeGuidance", t=t)
        labels = _labels("ClassifierFreeGuidance", x_t, condition)
        null = torch.where(labels < 0, labels, self.null)
        w = _weight(self.scale, 1.0, self.interval, t)
        if isinstance(w, float) and w in (0.0, 1.0):
            return self.denoiser(x_t, t, labels if w == 1 else null)
        twice = t if t.numel() == 1 else torch.cat([t, t])
        both = self.denoiser(torch.cat([x_t, x_t]), twice, torch.cat([labels, null]))
        with_label, without = both.chunk(2)
        return without + (w if isinstance(w, float) else expand(w, x_t)) * (with_label - without)


@dataclass(frozen=True)
class Inpainting(Around):
    r"""A denoiser that knows part of x_0: fill in the rest.

    *Replacement* (scale = 0; Song et al. 2021, appendix I.2). Where x_0 is known, x_0_hat is set to it. Under
    ``ancestral()`` the known part of x_t then follows q(x_s | x_t, x_0) exactly. The unknown part learns of the known
    one only through the denoiser, which treats x_t as a draw from all data: the unknown part fits what the known part
    *looks* like at t, not what it *is*, and is biased (Trippe et al. 2023, "Diffusion probabilistic modeling of protein
    backbones"; Ho et al. 2022, below). Going back up and trying again reduces the bias: ``sampler.resampled`` (RePaint:
    Lugmayr et al. 2022, algorithm 1).

    *Reconstruction guidance* (scale = w > 0; Ho et al. 2022, "Video diffusion models", section 3.1). Bayes' rule with
    p(known | x_t) approximated by a Gaussian of variance sigma^2 / alpha^2 about x_0_hat: to the unknown part it adds

        - w alpha / 2 grad |known - x_0_hat|^2,     summed over the known part, with the gradient in the unknown part

    Args:
        denoiser: the one that is asked.
        known: x_0 where it is known, and anything finite elsewhere; a shape that broadcasts to (B, ...).
        mask: bool, True where x_0 is known; a shape that broadcasts to (B, ...).
        scale: w, >= 0; above 0 each call costs a backward pass.

    Raises:
        ValueError: if the mask is not a bool tensor, the scale is negative or not finite, or ``known`` is not finite.
        TypeError: if ``known`` is not a float tensor.
    """

    known: Tensor
    mask: Tensor
    scale: float = 0.0

    def __post_init__(self) -> None:
        check_alike("Inpainting", known=self.known)
        of_bools = isinstance(self.mask, Tensor) and self.mask.dtype == torch.bool
        if not of_bools or not is_real(self.scale) or not 0 <= self.scale < math.inf:
            raise ValueError(
                f"Inpainting got mask = {said(self.mask)} and scale={self.scale!r}; the mask must be bool, "
                "True where x_0 is known, and the scale at least 0."
            )
        if not self.known.is_meta and not bool(torch.isfinite(self.known).all()):
            raise ValueError(
                "Inpainting got a known x_0 with NaN or infinite numbers; put anything finite where it is not known."
            )

    def __call__(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """x_0 where it is known, and an estimate of E[x_0 | x_t, known] elsewhere. Shapes as for ``Denoiser``."""
        for name, part in (("known", self.known), ("mask", self.mask)):
            if part.ndim > x_t.ndim or any(
                n not in (1, wanted) for n, wanted in zip(part.shape[::-1], x_t.shape[::-1], strict=False)
            ):
                raise ValueError(
                    f"Inpainting got x_t of shape {tuple(x_t.shape)} and {name} of shape {tuple(part.shape)}; {name} "
                    "must broadcast to x_t."
                )
        known, mask = onto(x_t.device, self.known, x_t.dtype), onto(x_t.device, self.mask)
        with torch.inference_mode(False):  # a mask made in inference mode could not be kept for a gradient
            mask = mask.clone() if mask.is_inference() else mask
        if self.scale == 0:
            return torch.where(mask, known, self.denoiser(x_t, t, condition))
        goes_on = torch.is_grad_enabled() and x_t.requires_grad
        with torch.inference_mode(False), torch.enable_grad():
            x = x_t if goes_on else x_t.detach().clone().requires_grad_()
            x_0_hat = self.denoiser(x, t, condition)
            error = torch.where(mask, known - x_0_hat, 0.0).square().sum()
            (gradient,) = torch.autograd.grad(error, x, create_graph=goes_on)
        x_0_hat = x_0_hat if goes_on else x_0_hat.detach()
        return torch.where(mask, known, x_0_hat - expand(self.scale * self.schedule.alpha(t) / 2, x_t) * gradient)


class NoisyClassifier(nn.Module):
    """A learnt p(y | x_t): the schedule of the noise, and a network that is told the noise level.

    Trained like a denoiser, by the same loop: ``Trainer(NoisyClassifier(LevelClassifier(), schedule), data,
    classifier_loss).run().ema``. For points the network is ``ResidualMLP(D, out_dim=classes)``.

    Args:
        network: (x, level) -> logits (B, classes); it sees x_t / sqrt(alpha^2 + sigma^2), of variance about 1.
        schedule: the noise.
        level: (schedule, t) -> what the network is told about the time, shape of t.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: NoiseSchedule,
        level: Callable[[NoiseSchedule, Tensor], Tensor] = angle,
    ) -> None:
        super().__init__()
        self.network = network
        self.schedule = schedule
        self.level = level

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Logits of p(y | x_t).

        Args:
            x_t: (B, ...).
            t: () or (B,), in (0, 1].

        Returns:
            (B, classes).

        Raises:
            ValueError: if a time leaves [0, 1].
            TypeError: if it is no float tensor.
        """
        check_times(type(self).__name__, t=t)
        c_in = expand(torch.rsqrt(self.schedule.alpha(t) ** 2 + self.schedule.sigma(t) ** 2), x_t)
        level = onto(x_t.device, self.level(self.schedule, t), x_t.dtype).expand(len(x_t))
        logits: Tensor = self.network(c_in * x_t, level)
        return logits


def classifier_loss(
    model: NoisyClassifier,
    x_0: Tensor,
    t: Tensor,
    *,
    condition: Tensor | None,
    eps: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """-log p(y | x_t) of the right label, in nats: what the trainer minimises for a classifier of noisy data.

    Its minimiser over all functions is the exact p(y | x_t), whatever the distribution of the times. Where alpha(t) = 0
    the least loss is the entropy of the labels: noise has no class.

    Args:
        model: the classifier.
        x_0: clean data, (B, ...).
        t: times in (0, 1], () or (B,).
        condition: (B,) labels; a negative label stands for none, and its loss is 0.
        eps: the noise, shape of x_0; drawn from ``generator`` if None.
        generator: source of the noise.

    Returns:
        (B,).

    Raises:
        ValueError: if there are no labels.
    """
    labels = _labels("classifier_loss", x_0, condition)
    eps = noise_like(x_0, generator) if eps is None else eps
    logits = model(q_sample(model.schedule, x_0, t, eps), t)
    check_classes("classifier_loss", labels, logits.shape[-1], "the classifier knows")
    return F.cross_entropy(logits, labels.clamp(min=NO_LABEL), reduction="none", ignore_index=NO_LABEL)


@each_its_own
def noisy_digit_classifier() -> NoisyClassifier:
    """The shipped p(y | x_t) of 28x28 digits, in eval mode; made by ``scripts/train_noisy_classifier.py``.

    It is for ``ClassifierGuidance`` of the shipped model ``mnist``: the same cosine schedule and the same 4000 training
    digits of ``mnist_5k``. Its accuracy on the 1000 test digits, by noise level, is in ``noisy_digit_classifier_card``.

        guided = ClassifierGuidance(model, noisy_digit_classifier(), 2.0, interval=(0, 0.99))

    To judge the samples, use another classifier: ``metrics.digit_classifier``, which has never seen noise.
    """
    return with_shipped_weights(NoisyClassifier(LevelClassifier(), CosineSchedule()), "noisy_digit_classifier")


@each_its_own
def noisy_fashion_classifier() -> NoisyClassifier:
    """The shipped p(y | x_t) of 28x28 pictures of clothes, in eval mode; made by ``scripts/train_noisy_classifier.py``.

    As ``noisy_digit_classifier``, for the shipped model ``fashion_mnist``: trained on the 60,000 training pictures; its
    accuracy on the 10,000 test pictures, by noise level, is in ``noisy_fashion_classifier_card``. To judge the samples
    take ``metrics.fashion_classifier``.
    """
    return with_shipped_weights(NoisyClassifier(LevelClassifier(), CosineSchedule()), "noisy_fashion_classifier")


def noisy_digit_classifier_card() -> dict[str, Any]:
    """How the shipped classifier of noisy digits was made and how good it is.

    ``t``, ``test_accuracy`` and ``test_nats`` are lists of one length: at each noise level the share of the 1000 test
    digits that it gets right, and the mean of -log p of the right label. ``chance_accuracy`` and ``chance_nats`` are
    those of an answer that does not look at the picture.
    """
    return shipped_card("noisy_digit_classifier")


def noisy_fashion_classifier_card() -> dict[str, Any]:
    """How the shipped classifier of noisy clothes was made, and how good it is: as ``noisy_digit_classifier_card``."""
    return shipped_card("noisy_fashion_classifier")


def _weight(scale: float, outside: float, interval: tuple[float, float], t: Tensor) -> float | Tensor:
    """The scale at t: a number where all examples share it and it can be known without waiting for a device."""
    low, high = interval
    if interval == (0.0, 1.0) or scale == outside:
        return float(scale)
    if t.ndim == 0 and t.device.type == "cpu":
        return float(scale) if bool((t > low) & (t <= high)) else outside  # as below: in the precision of t
    return torch.where((t > low) & (t <= high), torch.full_like(t, scale), outside)


def _labels(who: str, x_t: Tensor, condition: Tensor | None) -> Tensor:
    if condition is not None:
        check_tensors(who, "a tensor (B,) of whole numbers", condition=condition)
    if condition is None or condition.shape != x_t.shape[:1] or not are_labels(condition):
        given = (
            "no labels" if condition is None else f"labels of shape {tuple(condition.shape)} and type {condition.dtype}"
        )
        raise ValueError(
            f"{who} got {len(x_t)} examples and {given}; it needs one integer label per example: pass condition, (B,)."
        )
    return condition.long()


def _check(who: str, scale: float, interval: tuple[float, float]) -> None:
    pair = isinstance(interval, tuple) and len(interval) == 2 and is_real(*interval)
    if not is_real(scale) or not math.isfinite(scale) or not pair or not 0 <= interval[0] < interval[1] <= 1:
        raise ValueError(
            f"{who} got scale={scale!r} and interval={interval}; it needs a finite scale and times 0 <= low < high <= "
            "1."
        )
