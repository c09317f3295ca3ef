r"""The training loop: what a real one needs beyond the ten lines of notebook 07, each for a reason.

Notebook: ``07_training``. The loop is an iterator, so that a notebook and the command line run the same one and
decide themselves what to print, draw or stop:

    trainer = Trainer(model, data, config=TrainConfig(steps=2000), folder="runs/mine")
    for progress in trainer:
        print(progress.step, progress.loss)
    samples = sample(ddim(), trainer.ema, ...)

Every random number of step k, dropout's masks too, is drawn from a generator seeded by (seed, k). So there is no random
state to lose: a resumed run draws what an uninterrupted one would have drawn, bit for bit on a CPU.

Underneath is Accelerate. The same script runs on many processes under ``accelerate launch`` or ``torchrun``: each draws
the data, t, eps and hidden labels of the *global* batch and takes its own slice, so that the loss is the same as with
one process, up to rounding. (Dropout's masks are drawn for each part of a batch, so they change with the number of
processes and with ``accumulate``.) For this the network is wrapped, not the model around it, and a checkpoint does not
depend on how many processes there were.
"""

from __future__ import annotations

import json
import math
import numbers
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, NoReturn, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from .data import Data, seed_of
from .door import are_labels, is_real, said
from .gaussian import noise_like
from .loss import Importance, TimeSampler, denoising_loss, stratified
from .networks import NO_LABEL
from .schedule import onto
from .storage import NUMBERS, check_state, copy_state, load_tensors, save_tensors, save_weights, write_atomically

__all__ = ["Loss", "Progress", "TrainConfig", "Trainer", "TrainingDivergedError", "leave"]

Model = TypeVar("Model", bound=nn.Module)

CHECKPOINT = "checkpoint.safetensors"
# third in the key of a step's masks, (seed, step, 2, part); its noise has (seed, step), `Fresh` data (seed, step, 1)
DROPOUT = 2
ADAM = ("step", "exp_avg", "exp_avg_sq")  # what AdamW remembers of a parameter
FORMAT = "diffusion_edu checkpoint 1"


class Loss(Protocol):
    """What the trainer minimises the mean of; ``denoising_loss`` is one."""

    def __call__(self, model: Any, x_0: Tensor, t: Tensor, *, condition: Tensor | None, eps: Tensor) -> Tensor:
        """One number per example, (B,), from x_0 (B, ...), t (B,), labels (B,) or None, and the noise eps (B, ...)."""
        ...


class TrainingDivergedError(RuntimeError):
    """The loss is no longer a finite number. The last checkpoint is intact."""


@dataclass(frozen=True)
class TrainConfig:
    """How to train. Each field has its reason.

    Raises:
        ValueError: if a number is out of its range, or a field is of another kind.
    """

    steps: int = 2000  # optimiser steps in all, >= 1
    # examples a step, over all processes; small batches serve small budgets better than large ones
    batch_size: int = 32
    learning_rate: float = 1e-3  # the peak, after warm-up; AdamW's
    # how often the learning rate rises and falls, in cycles of equal length, so steps must be a multiple of it; a
    # finished run is trained further by more cycles of the same length
    cycles: int = 1
    warmup: float = 0.05  # share of a cycle over which the rate rises: Adam's averages need time to fill
    final_rate: float = 0.0  # the rate at a cycle's end as a share of the peak; it falls along half a cosine
    weight_decay: float = 0.0  # AdamW's; 0 because these models under-fit rather than over-fit
    clip_norm: float = 1.0  # largest gradient norm, inf for no limit; one bad batch must not undo a thousand good ones
    # the samples are drawn with a running average of the weights, over about 1/(1 - decay) steps
    ema_decay: float = 0.999
    # share of labels hidden in training, so that the model also learns the unconditional answer
    label_drop: float = 0.1
    precision: str = "fp32"  # "fp32", "bf16" (autocast), or "auto": bf16 where the device computes in it
    compile: bool = False  # torch.compile: a minute at the start, then faster steps
    device: str = "auto"  # "cpu", "cuda", "mps", or "auto": the first of cuda, mps, cpu that is there
    accumulate: int = 1  # parts into which a batch is cut, one after another, where it does not fit into memory whole
    seed: int = 0  # of everything that is drawn
    log_every: int = 50  # steps between two progress reports; the loss reported is the mean over them
    save_every: int = 500  # steps between two checkpoints, when there is a folder

    def __post_init__(self) -> None:
        one_and_up = dict.fromkeys(
            ("steps", "cycles", "batch_size", "accumulate", "log_every", "save_every"), (1, math.inf)
        )
        zero_and_up = dict.fromkeys(("learning_rate", "weight_decay", "clip_norm", "seed"), (0, math.inf))
        shares = dict.fromkeys(("warmup", "final_rate", "ema_decay", "label_drop"), (0, 1))
        for name, (low, high) in (one_and_up | zero_and_up | shares).items():
            value, whole = getattr(self, name), name in one_and_up or name == "seed"
            if not is_real(value) or not low <= value <= high or (whole and not isinstance(value, numbers.Integral)):
                kind = "a whole number" if whole else "a number"
                raise ValueError(f"TrainConfig got {name}={value!r}; it must be {kind} from {low} to {high}.")
            object.__setattr__(self, name, int(value) if whole else float(value))  # JSON and AdamW know no others
        for name in ("learning_rate", "weight_decay"):
            if not getattr(self, name) < math.inf:
                raise ValueError(f"TrainConfig got {name}={getattr(self, name)}; it must be finite.")
        if self.clip_norm == 0:
            raise ValueError(
                "TrainConfig got clip_norm=0, which cuts every gradient to 0; math.inf turns clipping off."
            )
        if self.steps % self.cycles:
            raise ValueError(
                f"TrainConfig got steps={self.steps} in cycles={self.cycles}; make the steps a multiple of the cycles."
            )
        if not isinstance(self.compile, bool) or not isinstance(self.device, str):
            raise ValueError(
                f"TrainConfig got compile={self.compile!r} and device={self.device!r}; compile is True or False, and "
                "device one of 'auto', 'cpu', 'cuda', 'mps'."
            )
        if self.precision not in ("fp32", "bf16", "auto"):
            raise ValueError(f"TrainConfig got precision={self.precision!r}; it must be one of 'fp32', 'bf16', 'auto'.")

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0: a linear rise, then half a cosine down to ``final_rate`` of the
        peak, all of it ``cycles`` times (warm restarts: Loshchilov and Hutter 2017, arXiv:1608.03983).
        """
        length = self.steps // self.cycles
        step -= length * min(step // length, self.cycles - 1)
        warm = math.ceil(self.warmup * length)
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        done = (step - warm) / max(1, length - warm)
        return self.learning_rate * (self.final_rate + (1 - self.final_rate) * (1 + math.cos(math.pi * done)) / 2)


@dataclass(frozen=True)
class Progress:
    """A report of the loop.

    Args:
        step: optimiser steps done, of ``steps``.
        loss: mean over the steps since the last report.
        learning_rate: of the last step.
        seconds: since this loop began.
        images_per_second: over the steps since the last report; what the caller does with a report is not counted.
        began: steps that were done before this loop began: a resumed run did those at another time.
    """

    step: int
    steps: int
    loss: float
    learning_rate: float
    seconds: float
    images_per_second: float
    began: int = 0

    @property
    def seconds_left(self) -> float:
        """An estimate from the pace of this loop, in seconds."""
        done = self.step - self.began
        return self.seconds / done * (self.steps - self.step) if done else math.inf


class Trainer(Generic[Model]):
    """Trains a model; iterate over it.

    Args:
        model: moved to the device and trained in place: a ``DiffusionModel``, or anything else with a ``network`` that
            the loss knows how to ask, such as ``guidance.NoisyClassifier``.
        data: where batches come from.
        loss: what to minimise, one number per example.
        config: how.
        times: (B, generator) -> the batch's times in (0, 1]. The factor of an ``Importance`` multiplies the losses, so
            that their expected mean is the same as with uniform times.
        folder: where checkpoints go every ``save_every`` steps, at the end, and when the loop is interrupted; None for
            nowhere.

    Raises:
        ValueError: if the batch cannot be split evenly among the processes and parts, no weight takes a gradient, or
            there is no such device; while iterating, if the data give another number of examples, or the folder holds
            another run's checkpoint.
        TypeError: if the model has no network or is compiled, the data have no batches, or the config is not a
            ``TrainConfig``.
        TrainingDivergedError: while iterating, at the first report whose loss is not finite.
        OSError: while iterating, if the processes do not see the same checkpoint.
    """

    def __init__(
        self,
        model: Model,
        data: Data,
        loss: Loss = denoising_loss,
        config: TrainConfig | None = None,
        *,
        times: TimeSampler = stratified,
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        from accelerate import Accelerator  # here: importing diffusion_edu stays cheap

        self.config = config = config if config is not None else TrainConfig()
        if not isinstance(config, TrainConfig):
            raise TypeError(f"Trainer got config = {said(config)}; give a TrainConfig(steps=2000, ...).")
        if not isinstance(getattr(model, "network", None), nn.Module):
            raise TypeError(
                f"Trainer got the model {type(model).__name__}, which has no network; wrap a network in "
                "DiffusionModel(network, schedule, V)."
            )
        if hasattr(model, "_orig_mod"):
            raise TypeError("Trainer got a compiled model; give the model itself, and TrainConfig(compile=True).")
        if not any(p.requires_grad for p in model.parameters()):
            raise ValueError(
                "Trainer got a model whose weights take no gradients, like those of load_run and the shipped models; "
                "call model.requires_grad_(True) first."
            )
        if not callable(getattr(data, "batch", None)):
            raise TypeError(f"Trainer got data = {said(data)}; give TensorData(x, labels), or Fresh(draw).")
        # Accelerate's state belongs to the whole process. In a process that runs alone, the device of the first trainer
        # must not decide that of the next.
        launched = processes() > 1
        on_cpu = launched and config.device == "cpu"
        self._accelerator = Accelerator(cpu=on_cpu, mixed_precision="no")  # the precision is the config's
        self.device = device_named(config.device, self._accelerator.device if launched else None)
        self._shares = self._accelerator.num_processes * config.accumulate
        if config.batch_size % self._shares:
            raise ValueError(
                f"a batch of {config.batch_size} cannot be split evenly among {self._accelerator.num_processes} "
                f"process{'es' * (self._accelerator.num_processes > 1)} with {config.accumulate} parts each: make "
                f"batch_size a multiple of {self._shares}."
            )
        self.model = model.to(self.device)
        for part in (*model.parameters(), *model.buffers()):
            if part.ndim == 4:
                part.data = part.data.contiguous(memory_format=torch.channels_last)
        # With many processes the network is wrapped, so that its gradients are averaged over them; the model is not, so
        # that its weights keep their names. While the loss calls the model, it holds the wrapped network.
        inner: Any = model.network  # nn.Module declares its attributes as Tensor | Module
        network = torch.compile(inner) if config.compile else inner
        self._network = self._accelerator.prepare_model(network, device_placement=False)
        # The wrapper averages the gradients of the network, and no others; those we do ourselves.
        self._beside: list[nn.Parameter] = []
        if self._accelerator.num_processes > 1:
            of_network = {id(p) for p in inner.parameters()}
            self._beside = [p for p in model.parameters() if p.requires_grad and id(p) not in of_network]
        for p in self._beside:
            torch.distributed.broadcast(p.data, 0)
        self.data, self.loss, self.times = data, loss, times
        self.folder = None if folder is None else Path(folder)
        self.step = 0
        self._saved_at = 0
        self._known: set[Path] = set()  # folders whose checkpoint is this run's
        self._optimizer = torch.optim.AdamW(
            model.parameters(), config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self._average = _Average(model, config.ema_decay)
        self._generator = torch.Generator(self.device)
        self._autocast = _autocast(config.precision, self.device)
        self._batches = Batches(data, config.batch_size, self.device, ahead=self.device.type != "cpu")

    @property
    def is_main(self) -> bool:
        """Whether this process is the one of many that prints and writes."""
        return bool(self._accelerator.is_main_process)

    @property
    def ema(self) -> Model:
        """The model with averaged weights, in eval mode: the one to sample from."""
        average = self._average.module
        assert isinstance(average, type(self.model))
        return average

    def __iter__(self) -> Iterator[Progress]:
        """Train up to ``config.steps``, reporting every ``log_every`` steps.

        A second loop goes on where the first ended.

        Raises:
            ValueError: if the folder holds a checkpoint that this trainer has not resumed, and would overwrite.
            KeyboardInterrupt: on Ctrl-C, after the step and a checkpoint; if it is pressed twice in one step, at once
                and without a checkpoint.
        """
        strange = self.folder is not None and self.folder.resolve() not in self._known
        if self.folder is not None and strange and (self.folder / CHECKPOINT).exists():
            raise ValueError(
                f"{self.folder} holds the checkpoint of a run, which this one would overwrite. trainer.resume(folder) "
                "goes on from it; to start anew, give another folder, or delete that file."
            )
        self._same_step_everywhere()
        started = last = time.perf_counter()
        began = self.step
        losses: list[Tensor] = []  # since the last report
        self.model.train()
        try:
            while self.step < self.config.steps:
                batch = self._batches(self.step)  # before the guard: data that never come can be interrupted
                with _uninterrupted():
                    losses.append(self._train_step(batch))
                due_to_report = self.step % self.config.log_every == 0 or self.step == self.config.steps
                due_to_save = self.folder is not None and self.step % self.config.save_every == 0
                if due_to_report or due_to_save:  # the one place that waits for the device
                    mean = self._accelerator.reduce(torch.stack(losses).mean(), reduction="mean")
                    loss = self._finite(float(mean), len(losses))
                if due_to_report:
                    now = time.perf_counter()
                    pace = len(losses) * self.config.batch_size / max(now - last, 1e-9)
                    losses = []
                    yield Progress(self.step, self.config.steps, loss, self._rate(), now - started, pace, began)
                    last = time.perf_counter()
                    self.model.train()  # the caller may have sampled with it
                if due_to_save:
                    self._save_if_new()
        except _TornStep:  # half an optimiser step is no state to save
            raise
        except (KeyboardInterrupt, GeneratorExit):  # Ctrl-C, or a `break` or an error in the caller's loop
            self._finite(float(torch.stack(losses).mean()) if losses else 0.0, len(losses))
            self._save_if_new()
            raise
        else:
            self._save_if_new()
        finally:
            self.model.eval()

    def _same_step_everywhere(self) -> None:
        if self._accelerator.num_processes > 1:
            steps = self._accelerator.gather(torch.tensor([self.step], device=self.device)).tolist()
            if len(set(steps)) > 1:
                raise OSError(
                    f"the processes stand at different steps, {steps}: not all of them see the same checkpoint. Put "
                    "the run's folder on a disk that all machines share."
                )

    def _finite(self, loss: float, steps: int) -> float:
        """The mean loss of the last steps; a loss that is not finite never reaches a checkpoint."""
        if not math.isfinite(loss):
            raise TrainingDivergedError(
                f"the loss is no longer a number, between steps {self.step - steps + 1} and {self.step}. Lower "
                f"learning_rate (now {self.config.learning_rate:g}), check that the data are finite (and pictures in "
                "[-1, 1]), and resume from the last checkpoint."
            )
        return loss

    def _save_if_new(self) -> None:
        if self.folder is not None and self.step > self._saved_at:
            self.save(self.folder)
            self._saved_at = self.step

    def run(self) -> Trainer[Model]:
        """The whole loop, for a caller who needs no reports."""
        for _ in self:
            pass
        return self

    def _train_step(self, batch: tuple[Tensor, Tensor | None]) -> Tensor:
        config = self.config
        x_0, condition = batch
        if len(x_0) != config.batch_size:
            raise ValueError(
                f"the data gave {len(x_0)} examples for step {self.step}, and {config.batch_size} were asked for; "
                "Data.batch(step, size) gives `size` of them."
            )
        if condition is not None and not (are_labels(condition) and condition.shape == x_0.shape[:1]):
            raise ValueError(
                f"the data gave labels = {said(condition)} for step {self.step}; Data.batch(step, size) gives one "
                "whole number for each example, or None."
            )
        x_0 = onto(self.device, x_0)
        if x_0.ndim == 4:
            x_0 = x_0.contiguous(memory_format=torch.channels_last)

        generator = self._generator.manual_seed(seed_of(config.seed, self.step))
        t = self.times(len(x_0), generator)
        eps = noise_like(x_0, generator)
        if condition is not None:
            condition = onto(self.device, condition)
            hidden = torch.rand(len(x_0), generator=generator, device=self.device) < config.label_drop
            condition = condition.long().masked_fill(hidden, NO_LABEL)

        self._optimizer.zero_grad(set_to_none=True)
        mean_loss = torch.zeros((), device=self.device)
        first = self._accelerator.process_index * config.accumulate
        parts = [part.chunk(self._shares)[first : first + config.accumulate] for part in (x_0, t, eps)]
        labels = (
            [None] * config.accumulate
            if condition is None
            else condition.chunk(self._shares)[first : first + config.accumulate]
        )
        for k, (x_0, t, eps, condition) in enumerate(zip(*parts, labels, strict=True), start=1):
            last_part = k == config.accumulate  # gradients travel between processes once a step
            with nullcontext() if last_part else self._accelerator.no_sync(self._network):
                with self._autocast, _own_draws(self.device, config.seed, self.step, DROPOUT, first + k):
                    with self._wrapped() as model:
                        each = self.loss(model, x_0, t, condition=condition, eps=eps)
                    if isinstance(self.times, Importance):  # else it would minimise another mean over t
                        each = each * onto(each.device, self.times.factor(t), each.dtype)
                    loss = each.mean() / config.accumulate
                loss.backward()
            mean_loss += loss.detach()
        for p in self._beside:
            grad = torch.zeros_like(p) if p.grad is None else p.grad
            p.grad = self._accelerator.reduce(grad, reduction="mean")
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = config.rate(self.step)
        self._optimizer.step()
        self._average.update_parameters(self.model)
        self.step += 1
        return mean_loss + 0 * norm  # NaN where the gradient is not finite: it counts as a bad loss

    @contextmanager
    def _wrapped(self) -> Iterator[Model]:
        """The model with the wrapped network in place of its own."""
        own = self.model._modules["network"]
        self.model._modules["network"] = self._network
        try:
            yield self.model
        finally:
            self.model._modules["network"] = own

    def _rate(self) -> float:
        return self.config.rate(max(0, self.step - 1))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write everything into a folder: ``checkpoint.safetensors`` to go on from, ``model.safetensors`` (the averaged
        weights) to sample with, ``config.json`` to read. Each file is replaced as a whole. Where
        there are many processes, only the main one writes.

        Raises:
            OSError: if it cannot be written; what was there before is untouched.
        """
        if self._accelerator.is_main_process:
            self._write(Path(folder))
        self._known.add(Path(folder).resolve())

    def _write(self, folder: Path) -> None:
        save_weights(self.ema, folder / "model.safetensors")
        write_atomically(folder / "config.json", (json.dumps(_plain(self.config), indent=1) + "\n").encode())
        tensors: dict[str, Tensor] = {f"model.{n}": v for n, v in self.model.state_dict().items()}
        tensors |= {f"ema.{n}": v for n, v in self._average.state_dict().items()}
        for i, state in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{n}": v for n, v in state.items()}
        config = json.dumps(_plain(self.config))
        # The checkpoint is written last, so that the other files are at least as new as the step it names.
        save_tensors(folder / CHECKPOINT, tensors, {"format": FORMAT, "step": str(self.step), "config": config})

    def resume(self, folder: str | os.PathLike[str]) -> Trainer[Model]:
        """Go on from a folder's checkpoint: same weights, averages, optimiser and step, so that training continues with
        the same numbers if data and config are the same.

        Raises:
            FileNotFoundError: if there is no checkpoint.
            PermissionError: if it may not be read.
            ValueError: if it is damaged, or of another model or another program; the trainer is then unchanged.
        """
        path = Path(folder) / CHECKPOINT
        tensors, metadata = load_tensors(path)
        if metadata.get("format") != FORMAT or not re.fullmatch("[0-9]{1,15}", metadata.get("step", "")):
            raise ValueError(
                f"{path} is not a checkpoint of this program (format {metadata.get('format')!r}, wanted {FORMAT!r}); "
                "give the folder of a run that this Trainer wrote, or start anew in another folder."
            )

        def part(prefix: str) -> dict[str, Tensor]:
            return {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}

        parameters = list(self.model.parameters())
        optimizer: dict[int, dict[str, Any]] = {i: {} for i in range(len(parameters))}
        for name, value in part("optimizer.").items():
            i, _, key = name.partition(".")
            fits = re.fullmatch("[0-9]{1,9}", i) is not None and int(i) < len(parameters) and value.dtype in NUMBERS
            fits = fits and key in ADAM and value.shape == (() if key == "step" else parameters[int(i)].shape)
            if not fits or not value.is_floating_point():
                raise ValueError(
                    f"{path} holds the optimiser state of another model ({name}). Build the model as it was built for "
                    "training."
                )
            # in the memory layout of its parameter, so that the arithmetic runs in the same order
            # and a copy: what stays would keep the whole file mapped into memory
            like = parameters[int(i)] if value.ndim else value
            optimizer[int(i)][key] = torch.empty_like(like).copy_(value).detach()
        nothing = int(metadata["step"]) > 0 and not any(optimizer.values())
        halves = [i for i, state in optimizer.items() if (state or nothing) and state.keys() != set(ADAM)]
        if halves:
            raise ValueError(
                f"{path} lacks the optimiser's numbers for parameter {halves[0]}, or a part of them; take an older "
                "checkpoint, or start again."
            )
        check_state(self._average, part("ema."), f"{path}, 'ema'")
        copy_state(self.model, part("model."), f"{path}, 'model'")
        copy_state(self._average, part("ema."), f"{path}, 'ema'")
        self._optimizer.load_state_dict(
            {
                "state": {i: s for i, s in optimizer.items() if s},
                "param_groups": self._optimizer.state_dict()["param_groups"],
            }
        )
        self.step = int(metadata["step"])
        self._saved_at = self.step if self.folder == Path(folder) else 0
        self._known.add(Path(folder).resolve())
        return self


class Batches:
    """The batches of the steps in turn, each made in a thread while the device works on the one before.

    A batch depends on its step alone, so this changes only how long the device waits. On CUDA its memory is pinned,
    which lets the copy to the device run beside the arithmetic.

    Args:
        data: where batches come from.
        size: B, examples in a batch.
        device: where they will go.
        ahead: make the next one in a thread. On a CPU it would only take time from the step itself.
    """

    def __init__(self, data: Data, size: int, device: torch.device, ahead: bool) -> None:
        self.data, self.size = data, size
        self._pin = device.type == "cuda"
        self._next: tuple[int, Future[tuple[Tensor, Tensor | None]]] | None = None
        self._thread: ThreadPoolExecutor | None = None
        if ahead and self._pin:  # a new thread would pin for the first GPU, whatever this process works on
            index = torch.cuda.current_device() if device.index is None else device.index
            self._thread = ThreadPoolExecutor(1, "batches", torch.cuda.set_device, (index,))
        elif ahead:
            self._thread = ThreadPoolExecutor(1, "batches")

    def __call__(self, step: int) -> tuple[Tensor, Tensor | None]:
        """The batch of a step, x_0 (B, ...) and labels (B,) or None, on the CPU."""
        if self._thread is None:
            return self._make(step)
        foreseen, self._next = self._next, None  # a batch that failed is made anew the next time
        ready = foreseen[1] if foreseen is not None and foreseen[0] == step else self._thread.submit(self._make, step)
        batch = ready.result()
        self._next = step + 1, self._thread.submit(self._make, step + 1)
        return batch

    def _make(self, step: int) -> tuple[Tensor, Tensor | None]:
        x_0, condition = self.data.batch(step, self.size)
        if self._pin and x_0.device.type == "cpu":
            x_0, condition = x_0.pin_memory(), None if condition is None else condition.pin_memory()
        return x_0, condition


class _Average(AveragedModel):
    """Average with decay min(decay, (1 + n) / (10 + n)): young averages forget the random start quickly (TensorFlow's
    rule).

    The count n stays on the CPU. PyTorch's own update copies it to the device at every step, and waits there.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model)
        self.decay = decay
        self.n_averaged = self.n_averaged.cpu()
        self.requires_grad_(False).eval()

    def update_parameters(self, model: nn.Module) -> None:
        """One step of the average, without waiting for the device."""
        n = self.n_averaged
        weight = float(1 - torch.clamp((1 + n) / (10 + n), max=self.decay)) if n else 1.0
        averages, currents = ([p.detach() for p in m.parameters()] for m in (self.module, model))
        torch._foreach_lerp_(averages, currents, weight)
        for average, current in zip(self.module.buffers(), model.buffers(), strict=True):
            average.copy_(current)
        self.n_averaged += 1


def _plain(config: TrainConfig) -> dict[str, Any]:
    """A config in a form that JSON can hold: infinity, which JSON lacks, is written as the string "inf"."""
    return {name: str(value) if value == math.inf else value for name, value in asdict(config).items()}


def processes() -> int:
    """How many processes ``accelerate launch`` or ``torchrun`` has started for this run; 1 where neither has."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def leave(status: int = 0) -> NoReturn:
    """End the process, and with it its part in a run of many: the last line of a script for ``torchrun``.

    In a run of many processes, each ends without Python's own clean-up: DDP keeps the threads of the process group
    alive, and if one of them frees a tensor while Python shuts down, the process aborts although the run was done
    (github.com/pytorch/pytorch/issues/190489).

    Args:
        status: the exit status.

    Raises:
        SystemExit: where the process is alone.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def device_named(name: str, found: torch.device | None = None) -> torch.device:
    """The device of a name.

    Args:
        name: "cpu", "cuda", one of several such as "cuda:1", "mps", or "auto".
        found: what "auto" means; None for the first of cuda, mps, cpu that is there.

    Raises:
        ValueError: if there is no such device here.
    """
    there = {
        "auto": True,
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there.get(name.partition(":")[0], False):
        raise ValueError(
            f"the device {name!r} was asked for, and PyTorch {torch.__version__} finds "
            f"{', '.join(d for d in there if there[d] and d != 'auto')} here; name one of these, or auto."
        )
    if name != "auto":
        try:
            device = torch.device(name)
        except RuntimeError as error:
            raise ValueError(
                f"there is no device {name!r}; give auto, cpu, mps, cuda, or cuda:1 of several."
            ) from error
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise ValueError(f"there is no device {name!r}; the last one here is cuda:{torch.cuda.device_count() - 1}.")
        return device
    return found or torch.device(next(d for d in ("cuda", "mps", "cpu") if there[d]))


def computes_in_bf16(device: torch.device) -> bool:
    """Whether bf16 is a precision of the device itself, and not one that it imitates, many times slower."""
    if device.type == "cpu":
        known = hasattr(torch.cpu, "get_capabilities")
        return known and bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
    if device.type != "cuda":
        return False
    with torch.cuda.device(device):
        return torch.cuda.is_bf16_supported(including_emulation=False)


def _autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    if precision == "auto":
        precision = "bf16" if computes_in_bf16(device) else "fp32"
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


@contextmanager
def _own_draws(device: torch.device, *key: int) -> Iterator[None]:
    """In this block, what a network draws from PyTorch's global generator, such as dropout's masks, depends on the key
    alone. Afterwards the generator is as it was before, since it is the caller's.
    """
    generator = torch.default_generator
    if device.type == "cuda":
        generator = torch.cuda.default_generators[torch.cuda.current_device() if device.index is None else device.index]
    elif device.type == "mps":
        generator = torch.mps._get_default_mps_generator()
    before = generator.get_state()
    generator.manual_seed(seed_of(*key))
    try:
        yield
    finally:
        generator.set_state(before)


class _TornStep(KeyboardInterrupt):
    """A second Ctrl-C in the same step, which may be one that never ends."""


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold back Ctrl-C until the block ends: half an optimiser step is no state to save. A second one does not wait."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[int] = []

    def note(number: int, frame: object) -> None:
        if pressed and before is signal.default_int_handler:
            raise _TornStep("the step was left in the middle; the last checkpoint is intact")
        pressed.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        signal.raise_signal(signal.SIGINT)  # for whoever handles it
