r"""Exact denoisers: distributions for which every question has a closed-form answer.

Notebooks: all of Part I; a learnt network is always set beside one of these.

A mixture of Gaussians stays one under noise, because each component does:

    q(x_0) = sum_k w_k N(m_k, s_k^2)     =>     q(x_t) = sum_k w_k N(alpha m_k, alpha^2 s_k^2 + sigma^2)

So the density, the score, p(component | x_t) and the denoiser are all sums over components:

    E[x_0 | x_t] = sum_k p(k | x_t) (m_k + alpha s_k^2 / (alpha^2 s_k^2 + sigma^2) (x_t - alpha m_k))

and with classes of components, the classifier of noisy data, p(y | x_t) = sum over the class's k of p(k | x_t).

A single Gaussian is a mixture of one. A finite set of training points is a mixture of points, s_k = 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .data import to_model_range
from .door import (
    are_labels,
    check_alike,
    check_counts,
    check_generator,
    check_noisy,
    check_tensors,
    check_times,
    readable,
    said,
)
from .gaussian import noise_like
from .schedule import NoiseSchedule, onto

__all__ = ["EmpiricalDenoiser", "GaussianMixture", "MixtureClassifier", "MixtureDenoiser", "gaussian"]


@dataclass(frozen=True)
class GaussianMixture:
    """sum_k w_k N(m_k, diag(s_k^2)) in D dimensions.

    Args:
        weights: (K,), >= 0; normalised to sum to 1.
        means: (..., K, D). Leading dimensions make a batch of mixtures, one per example (``marginal`` uses them).
        stds: standard deviations >= 0, (..., K) when the same in each direction, or (..., K, D).
        labels: (K,) integers, the class that each component belongs to; None if there are no classes.

    Raises:
        ValueError: if the shapes do not fit, a weight or std is negative, the weights are all 0, a number is not
            finite, or the labels are not whole numbers.
        TypeError: if weights, means and stds are not float tensors on one device, or labels is not a tensor.
    """

    weights: Tensor
    means: Tensor
    stds: Tensor
    labels: Tensor | None = None

    def __post_init__(self) -> None:
        weights, means, stds = self.weights, self.means, self.stds
        for name, part in (("weights", weights), ("means", means), ("stds", stds)):
            if not isinstance(part, Tensor) or not part.is_floating_point() or part.device != weights.device:
                raise TypeError(
                    f"GaussianMixture got {name} = {said(part)}; all three must be float tensors on one device."
                )
        if stds.ndim == means.ndim - 1:
            stds = stds.unsqueeze(-1)
        K = len(weights) if weights.ndim == 1 else -1
        fits = means.ndim >= 2 and means.shape[-2] == K and stds.ndim == means.ndim and stds.shape[-2] == K
        if not fits or any(n not in (1, wanted) for n, wanted in zip(stds.shape, means.shape, strict=True)):
            raise ValueError(
                f"GaussianMixture got weights of shape {tuple(self.weights.shape)}, means {tuple(self.means.shape)} "
                "and stds "
                f"{tuple(self.stds.shape)}; for K components in D dimensions give (K,), (K, D) and (K,) or (K, D)."
            )
        if self.labels is not None and not isinstance(self.labels, Tensor):
            raise TypeError(f"GaussianMixture got labels = {said(self.labels)}; give a tensor (K,) of whole numbers.")
        if self.labels is not None and self.labels.shape != (K,):
            raise ValueError(
                f"GaussianMixture got labels of shape {tuple(self.labels.shape)} for {K} components; give one each."
            )
        if self.labels is not None and not are_labels(self.labels):
            raise ValueError(f"GaussianMixture got labels of type {self.labels.dtype}; a class is a whole number.")
        if not weights.is_meta and not (bool((weights >= 0).all() & (weights.sum() > 0)) and bool((stds >= 0).all())):
            raise ValueError(
                "GaussianMixture got a negative weight or std, NaN, or weights that sum to 0; all must be >= 0."
            )
        if not all(part.is_meta or bool(torch.isfinite(part).all()) for part in (weights, means, stds)):
            raise ValueError("GaussianMixture got weights, means or stds that are NaN or infinite; all must be finite.")
        object.__setattr__(self, "weights", weights / weights.sum())
        object.__setattr__(self, "stds", stds)

    @property
    def dim(self) -> int:
        """D, the number of dimensions."""
        return self.means.shape[-1]

    @property
    def mean(self) -> Tensor:
        """Mean of the whole mixture, (..., D)."""
        return (self.weights[:, None] * self.means).sum(-2)

    @property
    def covariance(self) -> Tensor:
        """Covariance of the whole mixture, (..., D, D): within the components plus between them."""
        centred = self.means - self.mean.unsqueeze(-2)
        within = torch.diag_embed((self.weights[:, None] * self.stds.expand_as(self.means) ** 2).sum(-2))
        return within + torch.einsum("k,...ki,...kj->...ij", self.weights, centred, centred)

    def to(self, like: Tensor) -> GaussianMixture:
        """The same mixture in the dtype and on the device of ``like``, a float tensor of any shape."""
        check_alike("GaussianMixture.to", like=like)
        labels = None if self.labels is None else onto(like.device, self.labels)
        weights, means, stds = (onto(like.device, part, like.dtype) for part in (self.weights, self.means, self.stds))
        return self._derived(weights, means, stds, labels)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n independent draws, (n, D)."""
        return self.sample_with_components(n, generator)[0]

    def sample_with_components(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """n independent draws (n, D), and the component that each came from (n,)."""
        check_counts("GaussianMixture.sample", n=n)
        if self.means.ndim != 2:
            raise ValueError(
                f"this is a batch of {len(self.means)} mixtures, one for each time; sample from marginal(schedule, t) "
                "with one time, t of shape ()."
            )
        check_generator("GaussianMixture.sample", generator)
        where = self.weights.device if generator is None else generator.device
        k = torch.multinomial(self.weights.to(where), n, replacement=True, generator=generator).to(self.weights.device)
        mean, std = self.means[k], self.stds[k].expand(n, self.dim)
        return mean + std * noise_like(mean, generator), k

    def component_log_prob(self, x: Tensor) -> Tensor:
        """log(w_k N(x; m_k, s_k^2)) of each component, in nats.

        Args:
            x: (..., D).

        Returns:
            (..., K).
        """
        if x.ndim < 1 or x.shape[-1] != self.dim:
            raise ValueError(
                f"a mixture in {self.dim} dimensions was asked about x of shape {tuple(x.shape)}; give x of shape "
                f"(..., {self.dim})."
            )
        stds = self.stds.expand_as(self.means)
        z = (x.unsqueeze(-2) - self.means) / stds
        log_normal = -0.5 * (z**2).sum(-1) - torch.log(stds).sum(-1) - self.dim / 2 * math.log(2 * math.pi)
        return torch.log(self.weights) + log_normal

    def log_prob(self, x: Tensor) -> Tensor:
        """log-density in nats. x: (..., D); returns (...,). With a std of 0 there is none: ask a ``marginal``."""
        return torch.logsumexp(self.component_log_prob(x), -1)

    def responsibilities(self, x: Tensor) -> Tensor:
        """p(component | x) by Bayes' rule. x: (..., D); returns (..., K), summing to 1."""
        return torch.softmax(self.component_log_prob(x), -1)

    def score(self, x: Tensor) -> Tensor:
        """grad log density: the components' own scores (m_k - x) / s_k^2, averaged by responsibility.

        (..., D) to (..., D), with stds > 0.
        """
        pull = (self.means - x.unsqueeze(-2)) / self.stds**2
        return (self.responsibilities(x).unsqueeze(-1) * pull).sum(-2)

    def given(self, label: int) -> GaussianMixture:
        """The mixture of one class's components alone, p(x | label).

        Raises:
            ValueError: if the mixture has no labels, or no component has this one.
        """
        own = None if self.labels is None else self.labels.long() == label  # 300 as uint8 would be 44
        if own is None or not bool(own.any()):
            known = "none" if self.labels is None else sorted(set(self.labels.tolist()))
            raise ValueError(f"a mixture was asked for its class {label}; its classes are {known}.")
        return GaussianMixture(torch.where(own, self.weights, 0.0), self.means, self.stds, self.labels)

    def marginal(self, schedule: NoiseSchedule, t: Tensor) -> GaussianMixture:
        """q(x_t): the mixture of N(alpha m_k, alpha^2 s_k^2 + sigma^2).

        Args:
            t: () for one mixture, or (B,) for a batch of B mixtures with means (B, K, D).
        """
        check_times("GaussianMixture.marginal", t=t)
        alpha, sigma = (
            onto(self.means.device, part, self.means.dtype)[..., None, None]
            for part in (schedule.alpha(t), schedule.sigma(t))
        )
        stds = torch.sqrt((alpha * self.stds) ** 2 + sigma**2)
        return self._derived(self.weights, alpha * self.means, stds, self.labels)

    @staticmethod
    def _derived(weights: Tensor, means: Tensor, stds: Tensor, labels: Tensor | None) -> GaussianMixture:
        """A mixture of parts that have been checked before; to check them again would make a sampler wait for a GPU."""
        new = object.__new__(GaussianMixture)
        for name, part in (("weights", weights), ("means", means), ("stds", stds), ("labels", labels)):
            object.__setattr__(new, name, part)
        return new

    def denoiser(self, schedule: NoiseSchedule) -> MixtureDenoiser:
        """The exact E[x_0 | x_t] under a schedule."""
        return MixtureDenoiser(self, schedule)

    def classifier(self, schedule: NoiseSchedule) -> MixtureClassifier:
        """The exact p(class | x_t) under a schedule."""
        return MixtureClassifier(self, schedule)


@dataclass(frozen=True)
class MixtureDenoiser:
    """E[x_0 | x_t] for data from a mixture, in closed form: the best that a network can learn.

    Args:
        mixture: q(x_0), in D dimensions.
        schedule: the noise.
    """

    mixture: GaussianMixture
    schedule: NoiseSchedule

    def __call__(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """E[x_0 | x_t, condition].

        Args:
            x_t: (B, ...), D numbers an example.
            t: () or (B,), in (0, 1].
            condition: (B,) labels of the mixture's classes (negative: no label), or None.

        Returns:
            (B, ...).

        Raises:
            ValueError: if an example does not have D numbers, there is not one label per example, a label is given to
                a mixture that has none or not this one, or t is 0 and a component is a point.
        """
        _check_rows("MixtureDenoiser", x_t)
        _sees_noise("MixtureDenoiser", self.mixture, t)
        x = x_t.flatten(1)
        if x.shape[1] != self.mixture.dim:
            raise ValueError(
                f"a mixture in {self.mixture.dim} dimensions was asked about x_t of shape {tuple(x_t.shape)}; give "
                f"{self.mixture.dim} numbers per example."
            )
        mixture = self.mixture.to(x)
        alpha, _ = self.schedule.scales(t, like=x)
        marginal = mixture.marginal(self.schedule, t)
        log_prob = marginal.component_log_prob(x)
        if condition is not None:
            if mixture.labels is None:
                raise ValueError("a mixture without labels was given a condition; pass labels to GaussianMixture.")
            _one_label_each("MixtureDenoiser", x, condition)
            absent = (mixture.labels != condition[:, None]) | (mixture.weights == 0)  # no weight, no such class
            wrong_class = absent & (condition[:, None] >= 0)
            if wrong_class.device.type == "cpu" and bool(wrong_class.all(-1).any()):
                unknown = condition[wrong_class.all(-1)][0].item()
                known = sorted(set(mixture.labels[mixture.weights > 0].tolist()))
                raise ValueError(
                    f"a mixture was asked for the class {unknown}; its classes are {known}, and -1 stands for no label."
                )
            log_prob = log_prob.masked_fill(wrong_class, -math.inf)
        responsibility = torch.softmax(log_prob, -1).unsqueeze(-1)

        alpha = alpha.unsqueeze(-1) if alpha.ndim else alpha
        gain = alpha * mixture.stds**2 / marginal.stds**2  # how far to follow x_t away from the component's mean
        x_0_hat = mixture.means + gain * (x.unsqueeze(-2) - marginal.means)
        return (responsibility * x_0_hat).sum(-2).reshape(x_t.shape)


@dataclass(frozen=True)
class MixtureClassifier:
    """log p(y | x_t) for data from a mixture with classes: the best that a classifier of noisy data can learn.

    Args:
        mixture: q(x_0), in D dimensions, with labels 0 ... C - 1.
        schedule: the noise.

    Raises:
        ValueError: if the mixture has no labels, or a negative one.
    """

    mixture: GaussianMixture
    schedule: NoiseSchedule
    num_classes: int = field(init=False)

    def __post_init__(self) -> None:
        labels = self.mixture.labels
        if labels is None or int(labels.min()) < 0:
            raise ValueError(
                "a classifier was asked of a mixture without classes, or with a negative one; give "
                "it labels 0, 1, ..., one per component."
            )
        object.__setattr__(self, "num_classes", int(labels.max()) + 1)

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        """log p(y | x_t) of each class, in nats.

        Args:
            x_t: (B, ...), D numbers an example.
            t: () or (B,), in (0, 1].

        Returns:
            (B, C); -inf for a class without components.
        """
        _check_rows("MixtureClassifier", x_t)
        _sees_noise("MixtureClassifier", self.mixture, t)
        x = x_t.flatten(1)
        self.schedule.scales(t, like=x)  # one time for all, or one each
        mixture = self.mixture.to(x)
        log_prob = torch.log_softmax(mixture.marginal(self.schedule, t).component_log_prob(x), -1)
        assert mixture.labels is not None
        none = mixture.weights == 0  # masked, for its log-probability -inf has no gradient but NaN
        of_class = [log_prob.masked_fill((mixture.labels != y) | none, -math.inf) for y in range(self.num_classes)]
        return torch.stack([torch.logsumexp(own, -1) for own in of_class], -1)


def _sees_noise(who: str, mixture: GaussianMixture, t: Tensor) -> None:
    """Points have no density at t = 0; wide components do."""
    if readable(mixture.stds) and not bool(mixture.stds.all()):
        check_noisy(who, t)


def _check_rows(who: str, x_t: Tensor) -> None:
    check_alike(who, x_t=x_t)
    if x_t.ndim < 2:
        raise ValueError(
            f"{who} got x_t of shape {tuple(x_t.shape)}; give a batch (B, D), also of one example or in one dimension."
        )


def _one_label_each(who: str, x: Tensor, condition: Tensor) -> None:
    check_tensors(who, "a tensor (B,) of whole numbers", condition=condition)
    if condition.shape != x.shape[:1] or condition.is_floating_point():
        raise ValueError(
            f"{who} got {len(x)} examples and labels of shape {tuple(condition.shape)} and type {condition.dtype}; "
            "give one whole number per example, (B,)."
        )


def gaussian(mean: Tensor, std: Tensor) -> GaussianMixture:
    """One Gaussian, as a mixture of one: N(mean, diag(std^2)).

    Args:
        mean: (D,).
        std: () or (D,), >= 0.

    Raises:
        ValueError: if the shapes do not fit, or a std is negative.
        TypeError: if one is not a float tensor.
    """
    for name, x in (("mean", mean), ("std", std)):
        check_alike("gaussian", **{name: x})
    if mean.ndim != 1 or std.shape not in ((), mean.shape):
        raise ValueError(
            f"gaussian got a mean of shape {tuple(mean.shape)} and a std of shape {tuple(std.shape)}; give (D,), and "
            "() or (D,)."
        )
    return GaussianMixture(mean.new_ones(1), mean[None], std.expand(mean.shape)[None])


@dataclass(frozen=True)
class EmpiricalDenoiser:
    r"""E[x_0 | x_t] when the data are exactly these N examples: the denoiser that memorises.

        E[x_0 | x_t] = sum_n w_n x_n,      w = softmax_n(-|x_t - alpha x_n|^2 / (2 sigma^2))

    It minimises the training loss on a finite set, and sampling with it returns training examples and nothing else: a
    network generalises by failing to learn it. The softmax runs over chunks of the examples with a running maximum, so
    that, whatever N is, the memory it needs is ``chunk`` times the larger of B and the number of entries in an example.

    Args:
        examples: (N, ...), floats in the model's range, or uint8 pictures, which are scaled to [-1, 1] chunk by chunk.
        schedule: the noise.
        labels: (N,) integers, or None.
        chunk: examples at a time, >= 1.

    Raises:
        ValueError: if there are no examples, some are NaN or infinite, or there is not one label per example.
        TypeError: if the examples are neither floats nor uint8.
    """

    examples: Tensor
    schedule: NoiseSchedule
    labels: Tensor | None = None
    chunk: int = 4096

    def __post_init__(self) -> None:
        examples, chunk = self.examples, self.chunk
        check_counts("EmpiricalDenoiser", chunk=chunk)
        check_tensors("EmpiricalDenoiser", examples=examples)
        if self.labels is not None:
            check_tensors("EmpiricalDenoiser", labels=self.labels)
        if examples.ndim < 2 or len(examples) == 0:
            raise ValueError(
                f"EmpiricalDenoiser got examples of shape {tuple(examples.shape)}; give (N, ...), at least 1 example."
            )
        if not examples.is_floating_point() and examples.dtype != torch.uint8:
            raise TypeError(f"EmpiricalDenoiser got examples of type {examples.dtype}; give floats, or uint8 pictures.")
        parts = examples.split(chunk) if examples.is_floating_point() and not examples.is_meta else ()
        if not all(bool(torch.isfinite(part).all()) for part in parts):
            raise ValueError("EmpiricalDenoiser got examples that are NaN or infinite; clean the data first.")
        if self.labels is not None and self.labels.shape != self.examples.shape[:1]:
            raise ValueError(
                f"EmpiricalDenoiser got {len(self.examples)} examples and labels of shape {tuple(self.labels.shape)}; "
                "give one label per example, (N,)."
            )

    def __call__(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """E[x_0 | x_t, condition], a weighted mean of the examples.

        Args:
            x_t: (B, ...), the shape of an example.
            t: () or (B,), in (0, 1].
            condition: (B,) labels (negative: no label), or None.

        Returns:
            shape of x_t.

        Raises:
            ValueError: if the shapes differ, t is 0, or a condition is given for examples without labels.
            TypeError: if x_t or t is not a float tensor.
        """
        check_alike("EmpiricalDenoiser", x_t=x_t)
        check_noisy("EmpiricalDenoiser", t)
        if x_t.shape[1:] != self.examples.shape[1:]:
            raise ValueError(
                f"EmpiricalDenoiser got x_t of shape {tuple(x_t.shape)} for examples of shape "
                f"{tuple(self.examples.shape[1:])}."
            )
        if condition is not None and self.labels is None:
            raise ValueError(
                "EmpiricalDenoiser was given a condition, and its examples have no labels: pass labels to it."
            )
        if condition is not None:
            _one_label_each("EmpiricalDenoiser", x_t, condition)
        # In float64 where there is one: near t = 0, |x_t - alpha x_n|^2 is a small difference of large numbers.
        dtype = torch.float32 if x_t.device.type == "mps" else torch.float64
        x = x_t.flatten(1).to(dtype)
        alpha, sigma = self.schedule.scales(t, like=x)
        top = x.new_full((len(x), 1), -math.inf)  # running maximum of the logits
        total = x.new_zeros(len(x), 1)  # running sum of exp(logit - top)
        mean = torch.zeros_like(x)  # running sum of exp(logit - top) x_n
        for k in range(0, len(self.examples), self.chunk):
            x_n = self._floats(self.examples[k : k + self.chunk]).flatten(1)
            x_n = onto(x.device, x_n, x.dtype)
            logits = (alpha * (x @ x_n.T) - alpha**2 * (x_n**2).sum(1) / 2) / sigma**2  # + a term free of n
            if condition is not None and self.labels is not None:
                label = onto(condition.device, self.labels[k : k + self.chunk])
                other = (condition[:, None] >= 0) & (condition[:, None] != label)
                logits = logits.masked_fill(other, -math.inf)
            new_top = torch.maximum(top, logits.amax(1, keepdim=True))
            known = torch.where(torch.isfinite(new_top), new_top, 0.0)  # no example of this label seen yet
            weight = torch.exp(logits - known)
            fade = torch.exp(top - known)
            total = fade * total + weight.sum(1, keepdim=True)
            mean = fade * mean + weight @ x_n
            top = new_top
        if total.device.type == "cpu" and condition is not None and not bool(total.all()):
            unknown = condition[total[:, 0] == 0][0].item()
            raise ValueError(
                f"EmpiricalDenoiser was asked for the label {unknown}, which no example has; -1 stands for no label."
            )
        return (mean / total).to(x_t.dtype).reshape(x_t.shape)

    @staticmethod
    def _floats(examples: Tensor) -> Tensor:
        return to_model_range(examples) if examples.dtype == torch.uint8 else examples
