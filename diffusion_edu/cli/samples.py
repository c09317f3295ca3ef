"""Samples of a trained model: drawn, shown, measured."""

from __future__ import annotations

import io
import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..data import seeded
from ..denoiser import Denoiser, DiffusionModel, Treated, clip_x_0
from ..gaussian import bits_per_dim
from ..guidance import ClassifierFreeGuidance
from ..likelihood import dequantize, log_likelihood
from ..metrics import (
    Estimate,
    Memorisation,
    PrecisionRecall,
    agreement,
    frechet_estimate,
    kid,
    memorisation,
    precision_recall,
)
from ..process import prior
from ..sampler import sample
from .names import GRIDS, SAMPLERS, SCHEDULES, choose
from .recipe import Recipe, SampleConfig

__all__ = ["Quality", "draw_samples", "labels_for", "load_drawing", "measure", "picture"]

MOST = 60_000  # real examples of a split, at most (n, if n is more), among which a sample's nearest is searched
BATCH_OF_CODES = 64  # pictures that share the steps of an ODE
TOLERANCE, NOISE = 1e-2, 1e-3  # of the ODE for bits per dimension, in x and in nats; noise-to-signal ratio at its start
BATCH = 250  # samples at a time: fixed, so that a seed means the same samples wherever memory allows it


def labels_for(recipe: Recipe, condition: str, n: int) -> Tensor | None:
    """The labels (n,) to ask for; None if the model has no labels, or the samples are to have none.

    Args:
        recipe: of the model.
        condition: "each" (the classes in turn), "none", or labels or names of classes separated by commas.
        n: how many.

    Raises:
        ValueError: if the model has no such class or no labels at all, or is to do without a label and never learnt to.
    """
    classes = recipe.data_set.classes
    if condition == "none" and recipe.model.conditional and recipe.train.label_drop == 0:
        raise ValueError(
            "condition is 'none', and no label was hidden in this model's training (train.label_drop = 0), so that it "
            "never learnt to do without one. Ask for classes, or train with train.label_drop above 0."
        )
    if condition == "none" or (condition == "each" and not recipe.model.conditional):
        return None
    if not recipe.model.conditional:
        raise ValueError(
            f"condition is {condition!r}, and this model was trained without labels; leave condition out, or train one "
            "with model.conditional = true."
        )
    number = {name.lower(): k for k, name in enumerate(classes)} | {str(k): k for k in range(len(classes))}
    asked = range(len(classes))
    if condition != "each":
        names = [name.strip().lower() for name in condition.split(",")]
        asked = [choose(number, name, "a class in condition") for name in names]  # type: ignore[assignment]
    return torch.tensor(asked)[torch.arange(n) % len(asked)]


@torch.no_grad()
def draw_samples(
    model: DiffusionModel, recipe: Recipe, settings: SampleConfig, n: int, condition: Tensor | None, seed: int
) -> Tensor:
    """n samples (n, ...), float32 on the CPU, from the device that the model is on.

    The noise is drawn on the CPU, so that a seed means the same start everywhere, and global generators are left alone.

    Args:
        model: in eval mode.
        recipe: of the model.
        settings: sampler, steps, grid, clipping, guidance.
        n: how many, >= 1.
        condition: labels (n,), or None.
        seed: of the noise, >= 0.

    Raises:
        ValueError: if n or the seed is out of range, the sampler cannot start where the schedule ends, or there is
            nothing to guide by.
    """
    if n < 1 or seed < 0:
        raise ValueError(f"sampling got n={n} and seed={seed}; give at least one sample, and a seed from 0 up.")
    recipe.check_guidance(settings)
    denoiser: Denoiser = model
    if settings.guidance != 1:
        denoiser = ClassifierFreeGuidance(denoiser, settings.guidance)
    if settings.clip and recipe.of_pictures:
        denoiser = Treated(denoiser, clip_x_0)
    device = next(model.parameters()).device
    schedule = SCHEDULES[recipe.model.schedule]()  # on the CPU, where grids of times live
    grid = GRIDS[settings.grid](schedule, settings.steps)
    step, generator = SAMPLERS[settings.sampler](), seeded(seed)
    parts = []
    for k in range(0, n, BATCH):
        shape = (min(BATCH, n - k), *recipe.data_set.shape)
        labels = None if condition is None else condition[k : k + BATCH].to(device)
        x = prior(schedule, shape, generator).to(device)
        parts.append(sample(step, denoiser, x, grid, labels, generator).float().cpu())
    return torch.cat(parts)


def load_drawing() -> tuple[Any, Any]:
    """Matplotlib's ``Figure`` and the module ``viz``: loaded when something is drawn, and not before.

    Raises:
        ImportError: if matplotlib or Pillow is missing.
    """
    try:
        from matplotlib.figure import Figure

        from .. import viz
    except ImportError as error:
        raise ImportError(
            f"drawing samples needs {error.name}, which is missing. Install it: pip install 'diffusion-edu[cli]'"
        ) from error
    return Figure, viz


def picture(x: Tensor, columns: int = 10) -> bytes:
    """A PNG file of pictures (N, C, H, W) as a grid, or of points (N, 2) as a cloud.

    Raises:
        ImportError: if matplotlib or Pillow is missing.
    """
    Figure, viz = load_drawing()
    if x.ndim == 4:
        content: bytes = viz.png_bytes(viz.tile(x, columns))
        return content
    figure = Figure(figsize=(5, 5), layout="constrained")
    viz.scatter(x, figure.subplots(), "learnt", title=f"{len(x)} samples")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


@dataclass(frozen=True)
class Quality:
    """How good samples are, beside what real examples get: a model's report card.

    Args:
        n: examples in each set.
        frechet, frechet_floor: of samples and of real training examples, both to the same real test examples.
        kid, kid_floor: likewise. A perfect sampler that is told the labels is expected a little below 0, and so are
            these training examples: sets with equally many of each class are nearer to each other than independent
            draws.
        regions, regions_floor: precision and recall, likewise.
        memorised: how often a sample's nearest example is one that was trained on, in pixels; None for a toy, whose
            training examples are never seen twice.
        agreement, agreement_real: the share of samples, and of real test examples, that a classifier takes for what
            they should be; None without labels or classifier.
        bits, bits_training: per dimension, that a code by the model's density needs for real test pictures, and for
            real training ones; None where they were not measured.
        measured_bits: pictures of each kind that the bits are of.
        features: what was measured, in words.
        sampling: how the samples were drawn, in words.
        seconds: for drawing the samples.
    """

    n: int
    frechet: Estimate
    frechet_floor: Estimate
    kid: Estimate
    kid_floor: Estimate
    regions: PrecisionRecall
    regions_floor: PrecisionRecall
    memorised: Memorisation | None
    agreement: float | None
    agreement_real: float | None
    features: str
    sampling: str
    seconds: float
    bits: Estimate | None = None
    bits_training: Estimate | None = None
    measured_bits: int = 0

    def rows(self) -> list[tuple[str, str, str]]:
        """(measure, of the samples, of real examples), in words."""
        rows = [
            (
                f"Fréchet distance ± standard error, n = {self.n}",
                _with_error(self.frechet, 4),
                _with_error(self.frechet_floor, 4),
            ),
            (f"KID ± standard error, n = {self.n}", _with_error(self.kid, 3), _with_error(self.kid_floor, 3)),
            ("precision", f"{self.regions.precision:.3f}", f"{self.regions_floor.precision:.3f}"),
            ("recall", f"{self.regions.recall:.3f}", f"{self.regions_floor.recall:.3f}"),
        ]
        if self.agreement is not None and self.agreement_real is not None:
            rows.append(("classifier agrees with the label", f"{self.agreement:.3f}", f"{self.agreement_real:.3f}"))
        if self.memorised is not None:
            share, error = self.memorised.share, self.memorised.standard_error
            expected = f"{self.memorised.expected:.3f} if nothing is memorised"
            rows.append(("nearest example is a training one", f"{share:.3f} ± {error:.2g}", expected))
        if self.bits is not None and self.bits_training is not None:
            rows.append(
                (
                    f"bits per dim of test pictures, n = {self.measured_bits}",
                    _with_error(self.bits, 4),
                    f"{_with_error(self.bits_training, 4)} of training ones",
                )
            )
        return rows

    def table(self) -> str:
        """The rows as a table in Markdown."""
        head = "| measure | samples | real examples |\n|---|---|---|"
        return "\n".join([head, *(f"| {' | '.join(row)} |" for row in self.rows())])

    def __str__(self) -> str:
        """A line for each measure."""
        lines = [f"{name}: {value} (real examples: {floor})" for name, value, floor in self.rows()]
        return "\n".join([*lines, f"measured in {self.features}", f"samples by {self.sampling}, {self.seconds:.1f} s"])

    def as_dict(self) -> dict[str, Any]:
        """All numbers by name, for JSON."""
        share, expected, error = self.memorised or (None, None, None)
        return {
            "n": self.n,
            "frechet": self.frechet.value,
            "frechet_standard_error": self.frechet.standard_error,
            "frechet_real": self.frechet_floor.value,
            "frechet_real_standard_error": self.frechet_floor.standard_error,
            "kid": self.kid.value,
            "kid_standard_error": self.kid.standard_error,
            "kid_real": self.kid_floor.value,
            "kid_real_standard_error": self.kid_floor.standard_error,
            "precision": self.regions.precision,
            "precision_real": self.regions_floor.precision,
            "recall": self.regions.recall,
            "recall_real": self.regions_floor.recall,
            "agreement": self.agreement,
            "agreement_real": self.agreement_real,
            "memorised": share,
            "memorised_standard_error": error,
            "memorised_expected": expected,
            "bits_per_dim": None if self.bits is None else self.bits.value,
            "bits_per_dim_standard_error": None if self.bits is None else self.bits.standard_error,
            "bits_per_dim_training": None if self.bits_training is None else self.bits_training.value,
            "bits_per_dim_training_standard_error": (
                None if self.bits_training is None else self.bits_training.standard_error
            ),
            "measured_bits": self.measured_bits,
            "features": self.features,
            "sampling": self.sampling,
            "seconds": self.seconds,
        }


def _with_error(estimate: Estimate, digits: int) -> str:
    """A number and its standard error, in words."""
    return f"{estimate.value:.{digits}g} ± {estimate.standard_error:.2g}"


def alike(labels: Tensor, wanted: Tensor) -> Tensor:
    """Which examples to take so that the k-th has the k-th wanted label, as long as there are enough of each.

    Args:
        labels: of what there is, (N,).
        wanted: (M,), M <= N.

    Returns:
        M different indices into ``labels``, earlier ones first for each label. Where a label runs out, the first that
        are left over of the others take its place.
    """
    taken = torch.full_like(wanted, -1)
    for label in wanted.unique():
        places, there = (wanted == label).nonzero().flatten(), (labels == label).nonzero().flatten()
        taken[places[: len(there)]] = there[: len(places)]
    free = torch.ones(len(labels), dtype=torch.bool)
    free[taken[taken >= 0]] = False
    taken[taken < 0] = free.nonzero().flatten()[: int((taken < 0).sum())]
    return taken


def real_examples(recipe: Recipe, n: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The real examples that samples are compared with.

    Args:
        recipe: of the model.
        n: examples in each set, as many as there are, where there are fewer.
        seed: of the choice.

    Returns:
        test examples, of which the first n are the reference; training examples; the reference's labels (n,); and n
        training examples, with the reference's labels as far as possible if the model has labels.
    """
    data, folder = recipe.data_set, recipe.data.folder
    most = max(n, MOST) if recipe.of_pictures else 2 * n  # 2 n of a toy: enough of each label
    (test, labels), (train, train_labels) = (data.real(split, most, folder, seed) for split in ("test", "train"))
    n = min(n, len(test), len(train))
    labels = labels[:n]
    return test, train, labels, train[alike(train_labels, labels)] if recipe.model.conditional else train[:n]


def code_length(model: Denoiser, pictures: Tensor, labels: Tensor | None, seed: int) -> Estimate:
    """Bits per dimension of 8-bit pictures, by the probability-flow ODE: what a code by the model's density would need,
    or a little more (see ``log_likelihood``). Uniform noise as wide as one level is added, and the trace is estimated
    with one random probe per picture.

    Args:
        model: in eval mode.
        pictures: (N, C, H, W), each value one of the 256 levels in [-1, 1], on the model's device; N >= 2.
        labels: (N,) on the same device, or None.
        seed: of the noise and of the probes.

    Returns:
        the mean over the pictures and its standard error.
    """
    generator, bits = seeded(seed), []
    for i in range(0, len(pictures), BATCH_OF_CODES):
        x = dequantize(pictures[i : i + BATCH_OF_CODES], generator)
        condition = None if labels is None else labels[i : i + BATCH_OF_CODES]
        log_p = log_likelihood(
            model,
            x,
            condition=condition,
            generator=generator,
            probes=1,
            atol=TOLERANCE,
            rtol=TOLERANCE,
            sigma_min=NOISE,
        )
        bits.append(bits_per_dim(-log_p.cpu(), x[0].numel(), scale=2 / 255))
    each = torch.cat(bits).double()
    return Estimate(float(each.mean()), float(each.std()) / math.sqrt(len(each)))


def measure(model: DiffusionModel, recipe: Recipe, settings: SampleConfig, n: int, seed: int, bits: int = 0) -> Quality:
    """Samples against real test examples, and real training examples against the same ones.

    The labels asked for are those of the test examples, and the training examples are chosen with the same labels. So
    the shares of the classes are equal in all three sets, and the training examples get what perfect samples would get.
    A model without labels has to find the shares itself: then the training examples are a plain draw.

    Args:
        model: in eval mode.
        recipe: of the model.
        settings: how to draw the samples.
        n: examples in each set, >= 4; as many as there are, where there are fewer.
        seed: of the samples and of the choice of real examples.
        bits: test pictures, and as many training ones, whose bits per dimension are measured: from 2 to n, or 0 for
            none.

    Raises:
        ValueError: if n is below 4, bits is out of range or the data are no pictures, or the samples are not finite.
    """
    if n < 4:
        raise ValueError(f"a report card got n={n}; it needs at least 4 examples of each kind.")
    if bits and not recipe.of_pictures:
        raise ValueError(f"a report card got bits={bits} for points; only 8-bit pictures have them. Give bits=0.")
    if bits and not 2 <= bits <= n:
        raise ValueError(f"a report card got bits={bits} and n={n}; give from 2 to n pictures, or 0 for none.")
    data = recipe.data_set
    test, train, labels, other = real_examples(recipe, n, seed)
    n = len(other)
    reference, features = test[:n], data.features(recipe.data.folder)

    start = time.perf_counter()
    samples = draw_samples(model, recipe, settings, n, labels if recipe.model.conditional else None, seed)
    seconds = time.perf_counter() - start
    f_samples, said = features.of(samples)
    f_reference, said_of_real = features.of(reference)
    f_other, _ = features.of(other)
    asked = recipe.model.conditional and said is not None and said_of_real is not None
    bits = min(bits, n)  # there may be fewer pictures than were asked for
    device = next(model.parameters()).device
    told = labels[:bits].to(device) if recipe.model.conditional else None
    return Quality(
        n,
        frechet_estimate(f_samples, f_reference),
        frechet_estimate(f_other, f_reference),
        kid(f_samples, f_reference),
        kid(f_other, f_reference),
        precision_recall(f_reference, f_samples),
        precision_recall(f_reference, f_other),
        memorisation(samples, train, test) if recipe.of_pictures and data.exchangeable else None,
        agreement(said, labels) if asked and said is not None else None,
        agreement(said_of_real, labels) if asked and said_of_real is not None else None,
        features.words,
        f"{settings.sampler}, {settings.steps} steps, {settings.grid} grid"
        + (f", guidance {settings.guidance:g}" if settings.guidance != 1 else ""),
        seconds,
        code_length(model, reference[:bits].to(device), told, seed) if bits else None,
        code_length(model, other[:bits].to(device), told, seed) if bits else None,
        bits,
    )
