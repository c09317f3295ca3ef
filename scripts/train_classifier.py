"""Train a shipped classifier, ``diffusion_edu/assets/NAME_classifier.safetensors``, and write its card.

    python scripts/train_classifier.py digit      (about three minutes on two cores)
    python scripts/train_classifier.py fashion    (about ten)

They measure samples: their 64 features give the Fréchet distance, their labels the agreement with what was asked.
Training set: the training pictures, moved, turned, sheared and scaled a little at random. The test pictures are used
once, for the accuracy in the card. No flips: a classifier that ignores them could not see samples that face the wrong
way.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from tqdm import tqdm

from diffusion_edu.data import ImageSet, TensorData, fashion_mnist, mnist_5k
from diffusion_edu.metrics import agreement, predict
from diffusion_edu.networks import Classifier
from diffusion_edu.storage import save_weights, write_atomically

ASSETS = Path(__file__).resolve().parents[1] / "diffusion_edu" / "assets"
BATCH, RATE, SEED = 64, 2e-3, 0


@dataclass(frozen=True)
class Subject:
    """What one classifier is taught."""

    what: str
    data: str
    load: Callable[[str], ImageSet]
    steps: int
    amount: float  # of the random maps, as a share of the digits'


SUBJECTS = {
    "digit": Subject(
        "28x28 digits", "mnist_5k, 4000 training digits; the other 1000 were used once", mnist_5k, 3000, 1.0
    ),
    "fashion": Subject(
        "28x28 pictures of clothes", "Fashion-MNIST, 60,000 training pictures; the other 10,000 were used once",
        fashion_mnist, 9000, 0.5,
    ),
}  # fmt: skip


def jitter(x: torch.Tensor, amount: float, generator: torch.Generator) -> torch.Tensor:
    """Each picture under its own small affine map: at amount 1 up to 12 degrees, 12 % of scale, some shear and 2
    pixels of shift.
    """
    u = amount * (2 * torch.rand(len(x), 5, generator=generator) - 1)
    turn, zoom, shear = math.radians(12) * u[:, 0], 1 + 0.12 * u[:, 1], 0.15 * u[:, 2]
    cos, sin = turn.cos() * zoom, turn.sin() * zoom
    shift = u[:, 3:] * 4 / x.shape[-1]  # in units of half a side
    theta = torch.stack([torch.stack([cos, shear - sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], 1)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x + 1, grid, align_corners=False) - 1  # black outside


def jitter_in_words(amount: float) -> str:
    """What ``jitter`` does, for a card."""
    sizes = (amount * size for size in (12, 12, 0.15, 2))
    return "random affine maps: {:g} degrees, {:g} % scale, shear {:g}, shift {:g} pixels".format(*sizes)


def write_card(path: Path, card: dict[str, Any]) -> None:
    """Write a card as JSON, and print it."""
    text = json.dumps(card, indent=1, ensure_ascii=False)
    write_atomically(path, (text + "\n").encode())
    print(text)


def main() -> None:
    """Train, measure once, write the weights and their card."""
    parser = argparse.ArgumentParser(description="Train a shipped classifier and write its card.")
    parser.add_argument("name", choices=SUBJECTS, help="what it tells apart")
    name: str = parser.parse_args().name
    subject = SUBJECTS[name]
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    data, test = TensorData.of(subject.load("train")), subject.load("test")
    model = Classifier()
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=subject.steps)
    started = time.perf_counter()
    for step in (bar := tqdm(range(subject.steps), unit="step")):
        x, labels = data.batch(step, BATCH)
        assert labels is not None
        loss = F.cross_entropy(model(jitter(x, subject.amount, generator)), labels, label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % 100 == 0:
            bar.set_postfix(loss=f"{loss.item():.3f}")
    seconds = time.perf_counter() - started
    model.half().float().eval()  # as it will be loaded
    accuracy = agreement(predict(model, test.x_0)[1], test.labels)
    save_weights(model, ASSETS / f"{name}_classifier.safetensors", torch.float16)
    card = {
        "what": f"Classifier of {subject.what}; its last hidden layer is the feature space of the course's Fréchet "
        "distance",
        "made_by": f"python scripts/train_classifier.py {name}",
        "data": f"{subject.data}, for the accuracy below",
        "augmentation": jitter_in_words(subject.amount),
        "steps": subject.steps, "batch": BATCH, "learning_rate": RATE, "seed": SEED,
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds_on_2_cores": round(seconds),
        "test_accuracy": accuracy,
        "torch": torch.__version__,
        "licence": "MIT",
    }  # fmt: skip
    write_card(ASSETS / f"{name}_classifier.json", card)


if __name__ == "__main__":
    main()
