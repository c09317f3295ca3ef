"""A short run for ``torchrun`` and ``accelerate launch``: prints its losses as JSON, and saves. See test_trainer.py."""

import json
import os
import sys

import torch
from cases import Learnt

from diffusion_edu import DiffusionModel, TensorData, TrainConfig, Trainer, UNet, V, mnist_5k
from diffusion_edu.trainer import leave


def main(folder: str, steps: int, how: str, accumulate: int) -> None:
    """Train on the digits, anew, from the checkpoint ("resume"), or up to its step 8 only ("break").

    The main process prints its losses and how many processes there are.
    """
    torch.manual_seed(0)
    net = UNet(channels=(8, 12), blocks=1, patch=2, num_classes=10, embedding=16, heads=2)
    config = TrainConfig(
        steps=steps,
        batch_size=8,
        learning_rate=1e-3,
        label_drop=0.4,
        log_every=1,
        save_every=5,
        device="cpu",
        accumulate=accumulate,
    )
    schedule = Learnt(3.0 + int(os.environ.get("RANK", "0")))  # the processes' rates differ; the first one's counts
    trainer = Trainer(DiffusionModel(net, schedule, V), TensorData.of(mnist_5k()), config=config, folder=folder)
    if how == "resume":
        trainer.resume(folder)
    losses = []
    for progress in trainer:
        losses.append(progress.loss)
        if how == "break" and progress.step == 8:
            break
    rates = trainer._accelerator.gather(trainer.model.schedule.rate.detach()[None])
    assert len(set(rates.tolist())) == 1, f"the processes have learnt different rates: {rates.tolist()}"
    assert float(rates[0]) != 3.0, "the rate was not learnt"
    if trainer._accelerator.is_main_process:
        print(json.dumps({"losses": losses, "processes": len(rates)}))
    leave()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
