r"""How good are the samples? Distances between sets of features, in float64.

Notebook: ``14_evaluation`` says what each sees and misses.

    d^2(a, b) = |mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))

is the Fréchet distance between the Gaussians with the two sets' means and covariances (Heusel et al. 2017, eq. 6).
With Inception's features it is called the FID. Ours are the 64 features of a small classifier of the same data, so
its numbers compare only with numbers made by the same classifier at the same n. A distance is always shown beside
that of real data to real data.
"""

from __future__ import annotations

import json
from functools import lru_cache
from importlib import resources
from typing import Any

import torch
from torch import Tensor

from .networks import Classifier
from .storage import load_weights

__all__ = ["agreement", "digit_classifier", "digit_classifier_card", "frechet_distance", "predict"]


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Squared Fréchet distance between two sets of features (Heusel et al. 2017, eq. 6).

    It falls with n towards its limit (an error of order 1/n), so compare at equal n only.

    Args:
        a, b: (N, D) and (M, D), N and M at least 2, finite.

    Returns:
        the squared distance, >= 0, in squared units of the features.

    Raises:
        ValueError: if the shapes do not fit, or an entry is not finite.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(
            f"frechet_distance got sets of shape {tuple(a.shape)} and {tuple(b.shape)}; "
            "give (N, D) and (M, D), at least two examples each."
        )
    a, b = a.detach().double().cpu(), b.detach().double().cpu()
    if not (bool(torch.isfinite(a).all()) and bool(torch.isfinite(b).all())):
        raise ValueError("frechet_distance got features that are NaN or infinite; look at the samples first.")
    shift = a.mean(0) - b.mean(0)
    C_a, C_b = torch.cov(a.T).reshape(a.shape[1], -1), torch.cov(b.T).reshape(b.shape[1], -1)
    # tr (C_a C_b)^(1/2) = tr (R C_b R)^(1/2) with R = C_a^(1/2): symmetric, so that its roots are real.
    values, vectors = torch.linalg.eigh(C_a)
    R = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(R @ C_b @ R).clamp(min=0).sqrt().sum()
    return max(0.0, float(shift @ shift + C_a.trace() + C_b.trace() - 2 * cross))


@lru_cache(maxsize=1)
def digit_classifier() -> Classifier:
    """The shipped classifier of 28x28 digits, in eval mode; made by ``scripts/train_digit_classifier.py``.

    Trained on the 4000 training digits of ``mnist_5k``; its accuracy on the 1000 test digits is in
    ``digit_classifier_card``.
    """
    classifier = Classifier()
    with resources.as_file(resources.files("diffusion_edu").joinpath("assets/digit_classifier.safetensors")) as path:
        load_weights(classifier, path)
    return classifier.eval().requires_grad_(False)


def digit_classifier_card() -> dict[str, Any]:
    """How the shipped classifier was made and how good it is: split, recipe, seconds, test accuracy."""
    card: dict[str, Any] = json.loads(
        resources.files("diffusion_edu").joinpath("assets/digit_classifier.json").read_text()
    )
    return card


@torch.no_grad()
def predict(classifier: Classifier, x: Tensor, batch: int = 500) -> tuple[Tensor, Tensor]:
    """Features and predicted labels of many pictures.

    Args:
        classifier: in eval mode.
        x: (N, C, H, W) in [-1, 1].
        batch: pictures at a time.

    Returns:
        features (N, F) and labels (N,), on the CPU.
    """
    features = [classifier.features(part) for part in x.split(batch)]
    labels = [classifier.head(part).argmax(1) for part in features]
    return torch.cat(features).cpu(), torch.cat(labels).cpu()


def agreement(predicted: Tensor, asked: Tensor) -> float:
    """The share of samples that the classifier takes for what was asked.

    Two (N,) label tensors to a number in [0, 1].
    """
    if predicted.shape != asked.shape or len(predicted) == 0:
        raise ValueError(
            f"agreement got {tuple(predicted.shape)} predictions and {tuple(asked.shape)} labels; give one each, at "
            "least one."
        )
    return float((predicted.cpu() == asked.cpu()).double().mean())
