"""Train a shipped classifier of noisy pictures, ``diffusion_edu/assets/noisy_NAME_classifier.safetensors``, and write
its card.

    python -m scripts.train_noisy_classifier digit      (three to nine minutes on one thread)
    python -m scripts.train_noisy_classifier fashion    (three times that)

It learns p(y | x_t) for classifier guidance of the shipped model of the same pictures: from the training pictures
alone, under the cosine schedule, at times spread evenly over (0, 1]. The pictures are moved, turned, sheared and
scaled a little at random, as for the classifiers of clean pictures, and then noised. The loop is the one that trains
denoisers, on one thread, so that a second run on the same machine writes the same bytes. The test pictures are used
once, for the card.
"""

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from diffusion_edu.data import ImageSet, TensorData, fashion_mnist, mnist_5k, seeded
from diffusion_edu.guidance import NoisyClassifier, classifier_loss
from diffusion_edu.metrics import agreement
from diffusion_edu.networks import LevelClassifier
from diffusion_edu.process import q_sample
from diffusion_edu.schedule import CosineSchedule
from diffusion_edu.storage import save_weights
from diffusion_edu.trainer import TrainConfig, Trainer
from scripts.train_classifier import ASSETS, jitter, jitter_in_words, write_card

CONFIG = TrainConfig(
    steps=3000, batch_size=32, learning_rate=2e-3, weight_decay=0.05, label_drop=0.0, ema_decay=0.998, device="cpu"
)
LEVELS = (0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.98)  # times t at which the card measures


@dataclass(frozen=True)
class Subject:
    """What one classifier is taught, and how."""

    what: str
    data: str
    load: Callable[[str], ImageSet]
    amount: float  # of the random maps, as a share of those of the classifier of clean digits
    config: TrainConfig


SUBJECTS = {
    "digit": Subject("digits", "mnist_5k, 4000 training digits; the other 1000", mnist_5k, 0.75, CONFIG),
    "fashion": Subject(
        "pictures of clothes", "Fashion-MNIST, 60,000 training pictures; the other 10,000", fashion_mnist, 0.4,
        replace(CONFIG, steps=9000, weight_decay=0.02),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Jittered:
    """Labelled pictures, each moved a little, by a draw that depends on the step alone."""

    data: TensorData
    amount: float
    seed: int

    def batch(self, step: int, size: int) -> tuple[Tensor, Tensor | None]:
        """(size, 1, 28, 28) in [-1, 1], and labels (size,)."""
        x_0, labels = self.data.batch(step, size)
        return jitter(x_0, self.amount, seeded(self.seed, step)), labels


def build(seed: int) -> NoisyClassifier:
    """The network, not yet trained, under the schedule of the shipped models."""
    torch.manual_seed(seed)
    return NoisyClassifier(LevelClassifier(dropout=0.1), CosineSchedule())


@torch.no_grad()
def measured(classifier: NoisyClassifier, pictures: ImageSet, t: float) -> tuple[float, float]:
    """Accuracy, in [0, 1], and mean -log p of the right label, in nats, at one noise level t with one fixed noise."""
    eps = torch.randn(pictures.x_0.shape, generator=seeded(0))
    time_ = torch.tensor(t, dtype=torch.float64)
    x_t = q_sample(classifier.schedule, pictures.x_0, time_, eps)
    logits = torch.cat([classifier(part, time_) for part in x_t.split(1000)])
    return agreement(logits.argmax(1), pictures.labels), float(F.cross_entropy(logits, pictures.labels))


def train(name: str, folder: Path = ASSETS, config: TrainConfig | None = None) -> None:
    """Train, measure once, write the weights and their card."""
    subject = SUBJECTS[name]
    config = subject.config if config is None else config
    data = Jittered(TensorData.of(subject.load("train")), subject.amount, config.seed)
    trainer = Trainer(build(config.seed), data, classifier_loss, config)
    started = time.perf_counter()
    with tqdm(total=config.steps, unit="step") as bar:
        for progress in trainer:
            bar.update(progress.step - bar.n)
            bar.set_postfix(loss=f"{progress.loss:.3f}")
    seconds = time.perf_counter() - started
    classifier, test = trainer.ema.half().float().eval(), subject.load("test")  # as it will be loaded
    at_level = {t: measured(classifier, test, t) for t in LEVELS}
    save_weights(classifier, folder / f"noisy_{name}_classifier.safetensors", torch.float16)
    share = torch.bincount(test.labels).max().item() / len(test.labels)
    card = {
        "what": f"Classifier of noisy 28x28 {subject.what}, p(y | x_t), for classifier guidance under the cosine "
        "schedule",
        "made_by": f"python -m scripts.train_noisy_classifier {name}",
        "data": f"{subject.data} were used once, for the accuracies below",
        "augmentation": jitter_in_words(subject.amount),
        "noise": "x_t = alpha(t) x_0 + sigma(t) eps, alpha = cos(pi t / 2), t evenly over (0, 1]",
        "steps": config.steps, "batch": config.batch_size, "learning_rate": config.learning_rate, "seed": config.seed,
        "parameters": sum(p.numel() for p in classifier.parameters()),
        "seconds_on_1_thread": round(seconds),
        "t": list(LEVELS),
        "test_accuracy": [accuracy for accuracy, _ in at_level.values()],
        "test_nats": [round(nats, 4) for _, nats in at_level.values()],
        "chance_accuracy": share,
        "chance_nats": round(math.log(10), 4),
        "torch": torch.__version__,
        "licence": "MIT",
    }  # fmt: skip
    write_card(folder / f"noisy_{name}_classifier.json", card)


def main() -> None:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description="Train a shipped classifier of noisy pictures and write its card.")
    parser.add_argument("name", choices=SUBJECTS, help="what it tells apart")
    name: str = parser.parse_args().name
    torch.set_num_threads(1)  # sums in another order round differently
    train(name)


if __name__ == "__main__":
    main()
