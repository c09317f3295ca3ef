"""A short training run for ``torchrun``: prints its losses as JSON, and saves. See test_trainer.py."""

import json
import sys

import torch

from diffusion_edu import CosineSchedule, DiffusionModel, TensorData, TrainConfig, Trainer, UNet, V, mnist_5k
from diffusion_edu.trainer import leave


def main(folder: str, steps: int, resume: bool, accumulate: int) -> None:
    """Train on the digits; the main process prints."""
    torch.manual_seed(0)
    net = UNet(channels=(8, 12), blocks=1, patch=2, num_classes=10, embedding=16, heads=2)
    config = TrainConfig(
        steps=steps, batch_size=8, learning_rate=1e-3, log_every=1, save_every=100, device="cpu", accumulate=accumulate
    )
    trainer = Trainer(DiffusionModel(net, CosineSchedule(), V), TensorData.of(mnist_5k()), config=config, folder=folder)
    if resume:
        trainer.resume(folder)
    losses = [progress.loss for progress in trainer]
    if trainer._accelerator.is_main_process:
        print(json.dumps(losses))
    leave()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3] == "resume", int(sys.argv[4]))
