"""Train the shipped classifier of digits, ``diffusion_edu/assets/digit_classifier.safetensors``, and write its card.

    python scripts/train_digit_classifier.py

It measures samples: its 64 features give the Fréchet distance, its labels the agreement with the digit that was asked.
Training set: the 4000 training digits of ``mnist_5k``, moved, turned, sheared and scaled a little at random. The 1000
test digits are used once, for the accuracy in the card.
"""

import json
import math
import time
from pathlib import Path

import torch
from torch.nn import functional as F

from diffusion_edu.data import TensorData, mnist_5k
from diffusion_edu.metrics import agreement, predict
from diffusion_edu.networks import Classifier
from diffusion_edu.storage import save_weights, write_atomically

ASSETS = Path(__file__).resolve().parents[1] / "diffusion_edu" / "assets"
STEPS, BATCH, RATE, SEED = 3000, 64, 2e-3, 0


def jitter(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each picture under its own small affine map: up to 12 degrees, 12 % of scale, some shear and 2 pixels of
    shift.
    """
    u = 2 * torch.rand(len(x), 5, generator=generator) - 1
    turn, zoom, shear = math.radians(12) * u[:, 0], 1 + 0.12 * u[:, 1], 0.15 * u[:, 2]
    cos, sin = turn.cos() * zoom, turn.sin() * zoom
    shift = u[:, 3:] * 4 / x.shape[-1]  # in units of half a side
    theta = torch.stack([torch.stack([cos, shear - sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], 1)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x + 1, grid, align_corners=False) - 1  # black outside


def main() -> None:
    """Train, measure once, write the weights and their card."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    data, test = TensorData.of(mnist_5k("train")), mnist_5k("test")
    model = Classifier()
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
    started = time.perf_counter()
    for step in range(STEPS):
        x, labels = data.batch(step, BATCH)
        assert labels is not None
        loss = F.cross_entropy(model(jitter(x, generator)), labels, label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % 500 == 0:
            print(f"step {step + 1}: loss {loss.item():.3f}", flush=True)
    seconds = time.perf_counter() - started
    model.half().float().eval()  # as it will be loaded
    accuracy = agreement(predict(model, test.x_0)[1], test.labels)
    path = ASSETS / "digit_classifier.safetensors"
    save_weights(model, path, torch.float16)
    card = {
        "what": "Classifier of 28x28 digits; its last hidden layer is the feature space of the course's Fréchet "
        "distance",
        "made_by": "python scripts/train_digit_classifier.py",
        "data": "mnist_5k, 4000 training digits; the other 1000 were used once, for the accuracy below",
        "augmentation": "random affine maps: 12 degrees, 12 % scale, shear 0.15, shift 2 pixels",
        "steps": STEPS, "batch": BATCH, "learning_rate": RATE, "seed": SEED,
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds_on_2_cores": round(seconds),
        "test_accuracy": accuracy,
        "torch": torch.__version__,
        "licence": "MIT",
    }  # fmt: skip
    write_atomically(ASSETS / "digit_classifier.json", (json.dumps(card, indent=1, ensure_ascii=False) + "\n").encode())
    print(json.dumps(card, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
