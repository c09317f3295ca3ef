"""The training loop: it learns, it resumes bit for bit, and what goes wrong gets a sentence."""

import contextlib
import functools
import gc
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import types
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from torch import nn
from torch.testing import assert_close

from diffusion_edu import (
    NO_LABEL,
    BetaSchedule,
    CosineSchedule,
    DiffusionModel,
    Fresh,
    GaussianMixture,
    Importance,
    Progress,
    ResidualMLP,
    TensorData,
    TrainConfig,
    Trainer,
    TrainingDivergedError,
    UNet,
    V,
    denoising_loss,
    mnist_5k,
    moons,
    q_sample,
    stratified,
)
from diffusion_edu import trainer as trainer_module
from diffusion_edu.door import check_share
from diffusion_edu.schedule import expand
from diffusion_edu.storage import load_tensors, save_tensors
from diffusion_edu.trainer import Batches
from tests.cases import Crossings


def moons_trainer(steps=40, folder=None, **options):
    torch.manual_seed(0)
    model = DiffusionModel(ResidualMLP(2, 32, 2), CosineSchedule(), V)
    config = TrainConfig(
        **{"steps": steps, "batch_size": 64, "learning_rate": 3e-3, "log_every": 10, "device": "cpu", **options}
    )
    return Trainer(model, Fresh(GaussianMixture(*moons()).sample), config=config, folder=folder)


def digits_trainer(steps, folder=None):
    torch.manual_seed(0)
    net = UNet(channels=(8, 12), blocks=1, patch=2, num_classes=10, embedding=16, heads=2, dropout=0.1)
    config = TrainConfig(steps=steps, batch_size=8, log_every=2, save_every=3, device="cpu")
    return Trainer(DiffusionModel(net, CosineSchedule(), V), TensorData.of(mnist_5k()), config=config, folder=folder)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_training_closes_half_of_the_gap_to_the_exact_denoiser_and_never_all_of_it():
    """Losses on the same fresh draws. Lower than the exact one would mean that data and noise are not independent."""
    mixture, generator = GaussianMixture(*moons()), torch.Generator().manual_seed(5)
    x_0 = mixture.sample(20_000, generator).float()
    t, eps = stratified(len(x_0), generator), torch.randn(x_0.shape, generator=generator)
    trainer = moons_trainer(600)
    untrained = denoising_loss(trainer.model, x_0, t, eps=eps).mean().item()
    seen = [progress.loss for progress in trainer]
    trained = denoising_loss(trainer.ema, x_0, t, eps=eps).mean().item()

    schedule = trainer.model.schedule
    exact_x_0 = mixture.denoiser(schedule)(q_sample(schedule, x_0, t, eps), t).float()
    weight = expand(V.weight(schedule, t), x_0)
    floor = (weight * (exact_x_0 - x_0) ** 2).mean().item()
    assert floor < trained < floor + 0.5 * (untrained - floor)
    assert sum(seen[-30:]) / 30 > floor - 0.03  # the loss it reports, too


def test_one_batch_can_be_learnt_by_heart():
    torch.manual_seed(0)
    model = DiffusionModel(ResidualMLP(2, 64, 2), CosineSchedule(), V)
    data = TensorData(torch.tensor([[1.0, -1.0]]))
    config = TrainConfig(steps=400, batch_size=64, learning_rate=5e-3, device="cpu")
    *_, last = Trainer(model, data, config=config)
    assert last.loss < 0.02  # one point: the right answer is known exactly, and the floor is 0


def test_resume_is_bitwise_on_a_cpu_dropout_included(tmp_path):
    straight = digits_trainer(6).run()
    half = digits_trainer(6, tmp_path)
    for progress in half:
        if progress.step == 4:
            break
    resumed = digits_trainer(6, tmp_path)
    torch.manual_seed(999)  # whatever the new process has drawn by now
    resumed.resume(tmp_path).run()
    assert resumed.step == 6
    assert same(straight.model, resumed.model) and same(straight.ema, resumed.ema)


def test_what_a_network_draws_by_itself_depends_on_step_and_part_and_leaves_the_callers_generator_alone():
    def drawn(accumulate, process=0, processes=1):
        found = []

        def loss(model, x_0, t, *, condition, eps):
            found.append(float(torch.rand(())))  # as dropout does
            return denoising_loss(model, x_0, t, eps=eps)

        trainer = moons_trainer(3, accumulate=accumulate)
        trainer.loss, trainer._shares = loss, accumulate * processes
        real = trainer._accelerator
        trainer._accelerator = types.SimpleNamespace(
            process_index=process, num_processes=processes, no_sync=real.no_sync, is_main_process=True
        )
        for _ in range(3):
            trainer._train_step(trainer._batches(trainer.step))
        return found

    moons_trainer(3)
    made = torch.get_rng_state()
    parts = drawn(2)
    assert torch.equal(torch.get_rng_state(), made), "a new network's weights are drawn there, and nothing else"
    assert len(set(parts)) == 6, "three steps of two parts"
    assert parts == drawn(2) and parts[::2] == drawn(1), "by a seed that anybody can make again"
    assert parts[1::2] == drawn(1, process=1, processes=2), "and a part is a part, whichever process works on it"


def test_a_run_leaves_weights_a_checkpoint_and_its_config(tmp_path):
    trainer = moons_trainer(10, tmp_path).run()
    assert {p.name for p in tmp_path.iterdir()} == {"checkpoint.safetensors", "model.safetensors", "config.json"}
    assert json.loads((tmp_path / "config.json").read_text())["steps"] == 10
    weights, _ = load_tensors(tmp_path / "model.safetensors")
    assert torch.equal(weights["network.stem.weight"], trainer.ema.network.stem.weight)


def test_ctrl_c_ends_after_a_whole_step_and_saves(tmp_path):
    trainer = moons_trainer(1_000_000, tmp_path, save_every=10**9)
    threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    stopped = trainer.step
    resumed = moons_trainer(1_000_000, tmp_path).resume(tmp_path)
    assert resumed.step == stopped > 0 and same(resumed.model, trainer.model)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


class Hanging(Fresh):
    """Data that do not come, from some step on."""

    def batch(self, step, size):
        if step == 2:
            time.sleep(60)
        return super().batch(step, size)


def test_data_that_never_come_can_be_interrupted_and_the_steps_before_are_saved(tmp_path):
    trainer = moons_trainer(10, tmp_path, save_every=10**9)
    trainer._batches.data = Hanging(GaussianMixture(*moons()).sample)
    threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    start = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert time.perf_counter() - start < 30
    assert moons_trainer(10, tmp_path).resume(tmp_path).step == 2


def test_a_second_ctrl_c_leaves_a_step_that_does_not_end_and_saves_nothing_of_it(tmp_path):
    trainer = moons_trainer(10, tmp_path, save_every=2)

    def loss(model, x_0, t, **others):
        if trainer.step == 3:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            pytest.fail("the second one does not wait")
        return denoising_loss(model, x_0, t, **others)

    trainer.loss = loss
    with pytest.raises(KeyboardInterrupt, match="left in the middle; the last checkpoint is intact"):
        trainer.run()
    assert moons_trainer(10, tmp_path).resume(tmp_path).step == 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_another_runs_checkpoint_is_not_written_over_by_one_that_goes_on_from_elsewhere(tmp_path):
    moons_trainer(5, tmp_path / "a").run()
    moons_trainer(5, tmp_path / "b").run()
    before = (tmp_path / "b" / "checkpoint.safetensors").read_bytes()
    with pytest.raises(ValueError, match="holds the checkpoint of a run"):
        moons_trainer(10, tmp_path / "b").resume(tmp_path / "a").run()
    assert (tmp_path / "b" / "checkpoint.safetensors").read_bytes() == before
    assert moons_trainer(10, tmp_path / "c").resume(tmp_path / "a").run().step == 10, "nothing is there to be lost"
    trainer = moons_trainer(10, tmp_path / "a").resume(tmp_path / "a")
    trainer.save(tmp_path / "copy")
    assert trainer.run().step == 10, "a copy put aside does not make the folder a stranger's"


def test_a_checkpoint_of_step_0_can_be_gone_on_from(tmp_path):
    trainer = moons_trainer(5, tmp_path)
    trainer.save(tmp_path)
    assert trainer.run().step == 5
    fresh = moons_trainer(5, tmp_path / "again")
    fresh.save(tmp_path / "again")
    assert moons_trainer(5, tmp_path / "again").resume(tmp_path / "again").run().step == 5


@pytest.mark.parametrize("capable", [True, False])
def test_a_gpu_that_only_imitates_bf16_does_not_compute_in_it(monkeypatch, capable):
    asked = []

    class Device(contextlib.nullcontext):
        def __init__(self, device):
            super().__init__()
            asked.append(device)

    monkeypatch.setattr(torch.cuda, "device", Device)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or capable
    )
    assert trainer_module.computes_in_bf16(torch.device("cuda:1")) == capable
    assert asked == [torch.device("cuda:1")]


def test_a_checkpoint_is_not_written_over_by_a_run_that_did_not_go_on_from_it(tmp_path):
    moons_trainer(10, tmp_path).run()
    kept = (tmp_path / "checkpoint.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"holds the checkpoint of a run.* trainer\.resume\(folder\)"):
        moons_trainer(5, tmp_path).run()
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == kept
    assert moons_trainer(12, tmp_path).resume(tmp_path).run().step == 12


def test_a_checkpoint_without_the_optimiser_is_refused(tmp_path):
    moons_trainer(10, tmp_path).run()
    path = tmp_path / "checkpoint.safetensors"
    tensors, about = load_tensors(path)
    save_tensors(path, {n: v.clone() for n, v in tensors.items() if not n.startswith("optimizer.")}, about)
    with pytest.raises(ValueError, match="lacks the optimiser's numbers"):
        moons_trainer(20, tmp_path).resume(tmp_path)


def test_a_config_with_an_infinity_is_json_that_everybody_reads(tmp_path):
    moons_trainer(1, tmp_path, clip_norm=math.inf).run()
    text = (tmp_path / "config.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["clip_norm"] == "inf"


def test_a_loss_that_is_no_number_gets_a_sentence_and_spares_the_checkpoint(tmp_path):
    trainer = moons_trainer(20, tmp_path, save_every=10)
    good = trainer.loss

    def breaks(model, x_0, t, **others):
        return good(model, x_0, t, **others) * (math.nan if trainer.step >= 12 else 1)

    trainer.loss = breaks
    with pytest.raises(TrainingDivergedError, match=r"between steps 11 and 20\. Lower learning_rate"):
        trainer.run()
    assert moons_trainer(20).resume(tmp_path).step == 10


@pytest.mark.parametrize(("decay", "steps"), [(0.999, 3), (0.3, 8)], ids=["warming up", "warm"])
def test_the_average_follows_the_weights_with_a_warmed_up_decay(decay, steps):
    trainer = moons_trainer(steps, ema_decay=decay, log_every=1)
    seen = []
    for _ in trainer:
        seen.append(trainer.model.network.stem.weight.detach().clone())
    average = seen[0]
    for n, weight in enumerate(seen[1:], start=1):
        average = average + (1 - min(decay, (1 + n) / (10 + n))) * (weight - average)
    assert_close(trainer.ema.network.stem.weight, average)
    assert not trainer.ema.training and not trainer.model.training


class CountsItsCalls(ResidualMLP):
    def __init__(self):
        super().__init__(2, 8, 1)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, x, level, condition=None):
        self.calls += 1
        return super().forward(x, level, condition)


def test_the_average_has_the_buffers_of_the_model():
    torch.manual_seed(0)
    model = DiffusionModel(CountsItsCalls(), CosineSchedule(), V)
    config = TrainConfig(steps=3, batch_size=8, device="cpu")
    trainer = Trainer(model, Fresh(GaussianMixture(*moons()).sample), config=config).run()
    assert trainer.ema.network.calls == trainer.model.network.calls == 3


def test_seconds_are_counted_from_the_start_and_the_pace_from_the_last_report(monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr(trainer_module, "time", types.SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    seen = [(p.seconds, p.images_per_second) for p in moons_trainer(6, log_every=2)]
    assert seen == [(1.0, 128.0), (3.0, 128.0), (5.0, 128.0)]  # the clock is read once before and once after a report


def test_auto_is_the_best_device_that_is_there(monkeypatch):
    there = {"cuda": True, "mps": True}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there["cuda"])
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: there["mps"])
    assert trainer_module.device_named("auto").type == "cuda"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert trainer_module.device_named("cuda:1").index == 1
    with pytest.raises(ValueError, match="no device 'cuda:2'; the last one here is cuda:1"):
        trainer_module.device_named("cuda:2")
    there["cuda"] = False
    assert trainer_module.device_named("auto").type == "mps"
    there["mps"] = False
    assert trainer_module.device_named("auto").type == "cpu"


@pytest.mark.parametrize(
    ("precision", "native", "half"),
    [("auto", True, True), ("auto", False, False), ("bf16", False, True), ("fp32", True, False)],
)
def test_auto_is_bf16_where_the_device_computes_in_it(precision, native, half, monkeypatch):
    monkeypatch.setattr(trainer_module, "computes_in_bf16", lambda device: native)
    trainer, seen = moons_trainer(1, precision=precision), []

    def loss(model, x_0, t, **others):
        seen.append(torch.is_autocast_enabled("cpu"))
        return denoising_loss(model, x_0, t, **others)

    trainer.loss = loss
    trainer.run()
    assert seen == [half]


def test_the_rate_rises_then_falls_along_half_a_cosine():
    config = TrainConfig(steps=100, learning_rate=1.0, warmup=0.1, final_rate=0.2)
    rates = [config.rate(k) for k in range(101)]
    assert_close(rates[:10], [0.1 * (k + 1) for k in range(10)])
    assert rates[10] == 1 and all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert_close(rates[55], 0.6)
    assert_close(rates[100], 0.2)


def test_in_cycles_the_rate_rises_and_falls_again_as_before():
    one = TrainConfig(steps=40, learning_rate=1.0, warmup=0.1, final_rate=0.2)
    three = TrainConfig(steps=120, cycles=3, learning_rate=1.0, warmup=0.1, final_rate=0.2)
    assert [three.rate(k) for k in range(120)] == 3 * [one.rate(k) for k in range(40)]
    assert three.rate(120) == one.rate(40), "after the last step the rate stays at its end"


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize(
    "times", [stratified, Importance(torch.tensor([1.0, 6.0, 2.0, 0.5]))], ids=["even", "importance"]
)
def test_importance_is_weighed_back(times, accumulate):
    # a loss known at every t, 0.2 of it left at t = 0.3, where most of these times lie: its mean is an integral
    seen, asked = [], []

    def loss(model, x_0, t, *, condition, eps):
        seen.append(t)
        level = 1 - 0.8 * torch.exp(-(((t - 0.3) / 0.2) ** 2)).float()
        asked.append(level)
        return level + 0 * denoising_loss(model, x_0, t, eps=eps)

    torch.manual_seed(0)
    model = DiffusionModel(ResidualMLP(2, 8, 1), CosineSchedule(), V)
    config = TrainConfig(steps=150, batch_size=64, log_every=150, accumulate=accumulate, device="cpu")
    (report,) = Trainer(model, Fresh(GaussianMixture(*moons()).sample), loss, config, times=times)
    t = torch.linspace(0, 1, 100_001).double()
    wanted = torch.trapezoid(1 - 0.8 * torch.exp(-(((t - 0.3) / 0.2) ** 2)), t).item()
    assert abs(report.loss - wanted) < 0.025, "five standard errors"
    if isinstance(times, Importance):
        assert torch.cat(asked).mean() < wanted - 0.15, "without its factor the mean is another"


def test_labels_are_hidden_at_the_stated_rate():
    labels = []

    def spy(model, x_0, t, *, condition, eps):
        labels.append(condition.clone())
        return denoising_loss(model, x_0, t, eps=eps)

    model = DiffusionModel(ResidualMLP(2, 8, 1, num_classes=3), CosineSchedule(), V)
    data = TensorData(torch.randn(100, 2), torch.randint(0, 3, (100,)))
    config = TrainConfig(steps=100, batch_size=200, label_drop=0.2, device="cpu")
    Trainer(model, data, spy, config).run()
    hidden = (torch.cat(labels) == NO_LABEL).double().mean().item()
    assert abs(hidden - 0.2) < 6 * math.sqrt(0.2 * 0.8 / 20_000)


def test_progress_reports_means_over_the_steps_since_the_last():
    trainer, losses = moons_trainer(25), []
    inner = trainer.loss

    def spy(*args, **others):
        value = inner(*args, **others)
        losses.append(value.mean().item())
        return value

    trainer.loss = spy
    reports = list(trainer)
    assert [p.step for p in reports] == [10, 20, 25]
    assert_close(reports[-1].loss, sum(losses[20:]) / 5, rtol=1e-5, atol=1e-6)
    assert reports[-1].seconds_left == 0 and reports[0].images_per_second > 0


def test_bf16_trains_too():
    # at the same seed, half precision in the products moves the loss by rounding only
    plain, half = (list(moons_trainer(30, precision=p))[-1].loss for p in ("fp32", "bf16"))
    assert plain != half and abs(plain - half) < 0.02


@pytest.mark.parametrize(
    "damage",
    [
        "cut",
        "other format",
        "other model",
        "missing",
        "other step",
        "half an optimiser",
        "other type",
    ],
)
def test_a_checkpoint_that_does_not_fit_gets_a_sentence_and_changes_nothing(tmp_path, damage):
    trainer = moons_trainer(4, tmp_path).run()
    path = tmp_path / "checkpoint.safetensors"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "other format":
        path.write_bytes((tmp_path / "model.safetensors").read_bytes())
    elif damage == "missing":
        path.unlink()
    elif damage != "other model":
        tensors, metadata = load_tensors(path)
        first = next(name for name in tensors if name.endswith("exp_avg"))
        changes = {
            "other step": lambda: metadata.update(step="²"),
            "half an optimiser": lambda: tensors.pop(first),
            "other type": lambda: tensors.update({first: tensors[first].long()}),
        }
        changes[damage]()
        save_tensors(path, tensors, metadata)
    model = DiffusionModel(ResidualMLP(2, 16 if damage == "other model" else 32, 2), CosineSchedule(), V)
    fresh = Trainer(model, trainer.data, config=trainer.config)
    before = [p.clone() for p in model.parameters()]
    with pytest.raises((ValueError, FileNotFoundError), match="checkpoint"):
        fresh.resume(tmp_path)
    assert fresh.step == 0 and all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"steps": 100, "cycles": 3},
        {"cycles": 0},
        {"batch_size": 0},
        {"learning_rate": -1},
        {"warmup": 2},
        {"ema_decay": 1.5},
        {"precision": "fp8"},
    ],
)
def test_wrong_settings_get_a_sentence(wrong):
    with pytest.raises(ValueError, match=f"TrainConfig got {next(iter(wrong))}="):
        TrainConfig(**wrong)


def test_training_runs_on_the_device(device):
    torch.manual_seed(0)
    model = DiffusionModel(UNet(channels=(8, 12), blocks=1, num_classes=10, embedding=16, heads=2), CosineSchedule(), V)
    config = TrainConfig(steps=3, batch_size=4, device=device.type, log_every=1)
    trainer = Trainer(model, TensorData.of(mnist_5k("test")), config=config)
    assert all(math.isfinite(p.loss) for p in trainer)
    assert next(trainer.ema.parameters()).device.type == device.type


def test_the_average_and_the_reports_cost_little():
    # EMA and logging beside a step of the quickstart's size
    torch.manual_seed(0)
    net = UNet(channels=(32, 48), blocks=1, num_classes=10, embedding=64)
    trainer = Trainer(
        DiffusionModel(net, CosineSchedule(), V),
        TensorData.of(mnist_5k("test")),
        config=TrainConfig(steps=6, device="cpu"),
    )
    trainer.run()

    def seconds(of):
        start = time.perf_counter()
        of()
        return time.perf_counter() - start

    average = min(seconds(lambda: trainer._average.update_parameters(trainer.model)) for _ in range(5))
    assert average < 0.25 * min(seconds(lambda: trainer._train_step(trainer._batches(trainer.step))) for _ in range(3))


def test_a_module_that_only_looks_like_a_network_is_trained_as_well():
    class Tiny(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(torch.zeros(2))

        def forward(self, x, level, condition=None):
            return self.a + 0 * x

    model = DiffusionModel(Tiny(), CosineSchedule(), V)
    Trainer(model, TensorData(torch.ones(4, 2)), config=TrainConfig(steps=5, device="cpu")).run()
    assert model.network.a.abs().sum() > 0


LAUNCHERS = {
    "torchrun": ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"],
    # as docs/training_at_scale.md has it; on a machine without GPUs the processes are of the CPU all the same
    "accelerate": (
        "accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no "
        "--dynamo_backend no --main_process_port 0"
    ).split(),
}

# Python loads it by its name at every start: each process notes what it creates and renames below WATCHED.
SPY = """
import os, sys

def note(event, arguments):
    if event == "os.rename":
        what, path = "renamed", arguments[1]
    elif event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        what, path = "opened", arguments[0]
    elif event == "os.remove":
        what, path = "removed", arguments[0]
    else:
        return
    if isinstance(path, (str, os.PathLike)) and os.path.dirname(os.path.abspath(path)) == os.environ["WATCHED"]:
        with open(os.environ["NOTES"] + os.environ["RANK"], "a") as file:
            print(what, os.path.basename(path), file=file)

if "RANK" in os.environ:
    sys.addaudithook(note)
"""


def launched(launcher, arguments, watched):
    """Two gloo processes; the run, and by rank what each has done to files in ``watched``: lines such as "renamed x".

    Their package is the one beside these tests, which is not the installed one where scripts/mutants.py has spoilt it.
    """
    with tempfile.TemporaryDirectory() as notes:
        Path(notes, "sitecustomize.py").write_text(SPY)
        root = Path(__file__).resolve().parents[1]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONWARNINGS": "ignore",
            "PYTHONPATH": os.pathsep.join([notes, str(root)]),
            "WATCHED": os.path.abspath(watched),
            "NOTES": os.path.join(notes, "rank"),
        }
        command = [sys.executable, "-m", *LAUNCHERS[launcher], *arguments]
        run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
        noted = [Path(notes, f"rank{rank}") for rank in range(2)]
        return run, [path.read_text().splitlines() if path.exists() else [] for path in noted]


def run_processes(launcher, folder, steps, how="fresh", accumulate=1):
    """The losses of ``tests/two_processes.py``; two processes must leave all files to the first of them.

    Without a launcher, one process runs it.
    """
    script = [str(Path(__file__).parent / "two_processes.py"), str(folder), str(steps), how, str(accumulate)]
    if launcher is None:
        root = str(Path(__file__).resolve().parents[1])
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "PYTHONPATH": root}
        run = subprocess.run([sys.executable, *script], capture_output=True, text=True, env=environment)
    else:
        run, (first, second) = launched(launcher, script, folder)
    assert run.returncode == 0, run.stderr
    said = json.loads(run.stdout.strip().splitlines()[-1])
    assert said["processes"] == (1 if launcher is None else 2)
    if launcher is not None:
        names = ("model.safetensors", "config.json", "checkpoint.safetensors")
        saved = [f"renamed {name}" for name in names] * 2  # at step 5, and where it ends
        assert [line for line in first if line.startswith("renamed")] == saved, "each file once, the checkpoint last"
        assert second == [], "the second process writes nothing"
    return said["losses"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder of a run on one process, of 12 steps, and its losses."""
    folder = tmp_path_factory.mktemp("alone")
    return folder, run_processes(None, folder, 12)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_processes_have_the_losses_of_one_and_one_of_them_writes(launcher, alone, tmp_path):
    folder, straight = alone
    assert_close(run_processes(launcher, tmp_path, 12, "break"), straight[:8], rtol=1e-4, atol=1e-5)
    assert {p.name for p in tmp_path.iterdir()} == {"checkpoint.safetensors", "model.safetensors", "config.json"}
    # two processes wrote it, one goes on from it
    assert_close(run_processes(None, tmp_path, 12, "resume"), straight[8:], rtol=1e-4, atol=1e-5)
    one, both = (load_tensors(path / "model.safetensors")[0] for path in (folder, tmp_path))
    # Adam turns the rounding of a gradient that is all but 0 into a step: single weights may differ, the whole may not
    flat = lambda weights: torch.cat([weights[name].double().flatten() for name in sorted(one)])  # noqa: E731
    assert (flat(both) - flat(one)).norm() < 2e-3 * flat(one).norm()


@pytest.mark.slow
def test_a_batch_in_parts_has_the_losses_of_one(alone, tmp_path):
    assert_close(run_processes(None, tmp_path, 12, accumulate=4), alone[1], rtol=1e-4, atol=1e-5)


def test_a_batch_that_cannot_be_shared_gets_a_sentence():
    with pytest.raises(ValueError, match="multiple of 3"):
        moons_trainer(accumulate=3)


def test_batches_made_ahead_are_those_made_in_time():
    data = TensorData.of(mnist_5k("test"))
    in_time, ahead = (Batches(data, 8, torch.device("cpu"), ahead=ahead) for ahead in (False, True))
    for step in (0, 1, 2, 7, 8, 3):  # a resumed run jumps
        for a, b in zip(in_time(step), ahead(step), strict=True):
            assert torch.equal(a, b)


def test_a_batch_that_fails_ahead_of_time_fails_in_its_own_step():
    class Broken:
        def batch(self, step, size):
            if step == 2:
                raise OSError("the disk is gone")
            return torch.zeros(size, 2), None

    batches = Batches(Broken(), 4, torch.device("cpu"), ahead=True)
    batches(0), batches(1)
    with pytest.raises(OSError, match="disk"):
        batches(2)
    assert len(batches(0)[0]) == 4, "an error is that of one step, and of one try"
    with pytest.raises(OSError, match="disk"):
        batches(2)


def test_a_compiled_network_trains_the_same_weights_under_the_same_names(monkeypatch):
    plain = moons_trainer(5).run()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    compiled = moons_trainer(5, compile=True).run()
    assert list(compiled.model.state_dict()) == list(plain.model.state_dict())
    assert same(compiled.model, plain.model) and same(compiled.ema, plain.ema)


def test_time_left_after_a_resume_counts_only_the_steps_of_this_loop():
    report = Progress(step=950, steps=1000, loss=0.0, learning_rate=0.0, seconds=5.0, images_per_second=1.0, began=900)
    assert report.seconds_left == 5.0  # 50 steps took 5 s, and 50 are left
    trainer = moons_trainer(30)
    for progress in trainer:
        assert progress.began == 0
        break
    assert [progress.began for progress in trainer] == [10, 10]


def test_the_pace_does_not_count_what_the_caller_does_with_a_report(monkeypatch):
    trainer, clock, paces = moons_trainer(30), [0.0], []
    step = trainer._train_step

    def of_a_second(batch):
        clock[0] += 1
        return step(batch)

    monkeypatch.setattr(trainer, "_train_step", of_a_second)
    monkeypatch.setattr(trainer_module, "time", types.SimpleNamespace(perf_counter=lambda: clock[0]))
    for progress in trainer:
        paces.append(progress.images_per_second)
        clock[0] += 100
    assert paces == [64, 64, 64]


def test_the_checkpoint_is_written_last(tmp_path, monkeypatch):
    # killed before it, a run does its last steps again; killed after it, all files of that step are there
    written = []
    for name in ("save_tensors", "save_weights", "write_atomically"):
        monkeypatch.setattr(trainer_module, name, lambda *args, name=name: written.append(name))
    moons_trainer(1).save(tmp_path)
    assert written[-1] == "save_tensors" and len(written) == 3


def test_a_device_that_is_not_there_gets_a_sentence():
    with pytest.raises(ValueError, match=r"'gpu' was asked for, and PyTorch .*cpu here; name one of these, or auto"):
        moons_trainer(device="gpu")


def test_the_average_never_waits_for_the_device():
    """On a stand-in device: nothing is copied to it or read from it, and the count of steps stays on the CPU."""
    model = DiffusionModel(UNet(channels=(8,), blocks=1, heads=1), BetaSchedule.linear(10)).to("meta")
    average = trainer_module._Average(model, 0.999)
    for _ in range(3):
        with Crossings() as crossings:
            average.update_parameters(model)
        assert crossings.all == []
    assert average.n_averaged.device.type == "cpu" and average.n_averaged == 3


def test_processes_that_see_different_checkpoints_get_a_sentence():
    trainer = moons_trainer(5)
    trainer._accelerator = types.SimpleNamespace(num_processes=2, gather=lambda step: torch.tensor([0, 500]))
    with pytest.raises(OSError, match=r"different steps, \[0, 500\]: .* a disk that all machines share"):
        trainer.run()


def test_the_first_trainer_does_not_decide_the_device_of_the_next(monkeypatch):
    moons_trainer(1, device="cpu")
    asked = []

    def noted(name, found=None):
        asked.append((name, found))
        return torch.device("cpu")

    monkeypatch.setattr(trainer_module, "device_named", noted)
    moons_trainer(1, device="auto")
    assert asked == [("auto", None)], "what auto means is asked anew, and not of Accelerate's memory"
    for state in (PartialState, AcceleratorState):  # and as if a GPU had been taken before
        monkeypatch.setitem(state._shared_state, "device", torch.device("cuda", 0))
    moons_trainer(1, device="cpu")


def test_a_gradient_that_is_no_number_never_reaches_a_checkpoint(tmp_path):
    class Spoils(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * math.nan

    def loss(model, x_0, t, *, condition, eps):
        each = denoising_loss(model, x_0, t, eps=eps)
        return Spoils.apply(each) if trainer.step == 9 else each  # the tenth step, whose checkpoint is due

    trainer = moons_trainer(20, tmp_path, save_every=5)
    trainer.loss = loss
    with pytest.raises(TrainingDivergedError, match="between steps 1 and 10"):
        trainer.run()
    tensors, metadata = load_tensors(tmp_path / "checkpoint.safetensors")
    assert metadata["step"] == "5" and all(x.isfinite().all() for x in tensors.values())


def test_a_copy_saved_elsewhere_is_no_checkpoint_of_the_run(tmp_path):
    trainer = moons_trainer(20, tmp_path / "run", save_every=10)
    for _ in trainer:
        trainer.save(tmp_path / "copy")
    assert (tmp_path / "run" / "checkpoint.safetensors").is_file()
    moved = moons_trainer(20, tmp_path / "moved").resume(tmp_path / "run").run()
    assert moved.step == 20 and (tmp_path / "moved" / "checkpoint.safetensors").is_file()


def test_it_trains_in_training_mode_whatever_the_caller_does_in_between():
    seen = []

    def loss(model, x_0, t, *, condition, eps):
        seen.append(model.network.training)
        return denoising_loss(model, x_0, t, eps=eps)

    trainer = moons_trainer(30)
    trainer.loss = loss
    for _ in trainer:
        trainer.model.eval()
    assert len(seen) == 30 and all(seen) and not trainer.model.training


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("labels", [None, torch.zeros(6, dtype=torch.long)])
def test_a_batch_of_another_size_than_was_asked_for_is_refused(accumulate, labels):
    class Short:
        def batch(self, step, size):
            return torch.zeros(6, 2), labels

    model = DiffusionModel(ResidualMLP(2, 8, 1, num_classes=3), CosineSchedule(), V)
    config = TrainConfig(steps=1, batch_size=8, accumulate=accumulate, device="cpu")
    with pytest.raises(ValueError, match="gave 6 examples for step 0, and 8 were asked for"):
        Trainer(model, Short(), config=config).run()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_labels_of_any_whole_number_type_train_as_those_of_int64_do(dtype):
    def trained(labels):
        torch.manual_seed(0)
        model = DiffusionModel(ResidualMLP(2, 8, 1, num_classes=3), CosineSchedule(), V)
        config = TrainConfig(steps=3, batch_size=8, label_drop=0.5, device="cpu")
        return Trainer(model, TensorData(torch.linspace(-1, 1, 20).reshape(10, 2), labels), config=config).run()

    labels = torch.arange(10) % 3
    assert same(trained(labels.to(dtype)).model, trained(labels).model)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux says what is mapped")
def test_a_resumed_run_does_not_hold_its_checkpoint_in_memory(tmp_path):
    moons_trainer(5, tmp_path).run()
    resumed = moons_trainer(10, tmp_path).resume(tmp_path)
    gc.collect()
    assert str(tmp_path) not in Path("/proc/self/maps").read_text() and resumed.step == 5


def test_a_ctrl_c_in_a_step_is_for_whoever_handles_it():
    module, handled = trainer_module, []
    before = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, lambda number, frame: handled.append(number))
        with module._uninterrupted():
            signal.raise_signal(signal.SIGINT)
            assert not handled
        assert handled == [signal.SIGINT]
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with module._uninterrupted():
            signal.raise_signal(signal.SIGINT)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with pytest.raises(KeyboardInterrupt), module._uninterrupted():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_clipping_the_rate_and_the_decay_reach_the_optimiser():
    trainer = moons_trainer(1, clip_norm=1e-3).run()
    squares = [float(p.grad.square().sum()) for p in trainer.model.parameters() if p.grad is not None]
    assert_close(sum(squares) ** 0.5, 1e-3, rtol=1e-3, atol=0)
    trainer = moons_trainer(7, final_rate=0.3)
    *_, last = trainer
    assert trainer._optimizer.param_groups[0]["lr"] == last.learning_rate == trainer.config.rate(6)
    for decay in (0.0, 0.25):
        assert moons_trainer(1, weight_decay=decay)._optimizer.param_groups[0]["weight_decay"] == decay


class Curriculum(DiffusionModel):
    """Looks at itself while it trains."""

    strength = 0.0

    def output(self, x_t, t, condition=None):
        self.seen = (self.training, self.network.training, self.strength)
        return super().output(x_t, t, condition)


@pytest.mark.parametrize("compiled", [False, True])
def test_the_loss_asks_the_model_as_it_is_now(compiled, monkeypatch):
    if compiled:  # a wrapper of the network, as many processes have one too
        monkeypatch.setattr(torch, "compile", Around)
    model = Curriculum(ResidualMLP(2, 8, 1), CosineSchedule(), V).eval()
    config = TrainConfig(steps=2, batch_size=4, device="cpu", compile=compiled)
    trainer = Trainer(model, Fresh(GaussianMixture(*moons()).sample), config=config)
    model.strength = 1.0
    trainer.run()
    assert model.seen == (True, True, 1.0)
    assert isinstance(model.network, ResidualMLP), "its own network is back"


class Around(nn.Module):
    """A network around a network."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, *inputs):
        return self.network(*inputs)


class Volume(nn.Module):
    """A network for pictures with a depth."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(1, 1, 3, padding=1)

    def forward(self, x, level, condition=None):
        return self.conv(x)


def test_volumes_can_be_trained_on():
    data = TensorData(torch.randn(8, 1, 4, 5, 6))
    config = TrainConfig(steps=2, batch_size=4, device="cpu")
    Trainer(DiffusionModel(Volume(), CosineSchedule(), V), data, config=config).run()


def test_latents_that_remember_their_encoder_are_data_all_the_same():
    latents = nn.Linear(2, 2)(torch.randn(8, 2))
    assert latents.requires_grad
    config = TrainConfig(steps=3, batch_size=4, device="cpu")
    Trainer(DiffusionModel(ResidualMLP(2, 8, 1), CosineSchedule(), V), TensorData(latents), config=config).run()


def test_tied_weights_are_trained_saved_and_resumed(tmp_path):
    def make():
        torch.manual_seed(0)
        network = ResidualMLP(2, 8, 2)
        network.layers[1][0].weight = network.layers[0][0].weight
        config = TrainConfig(steps=4, batch_size=4, device="cpu", save_every=2)
        data = Fresh(GaussianMixture(*moons()).sample)
        return Trainer(DiffusionModel(network, CosineSchedule(), V), data, config=config, folder=tmp_path)

    straight = make().run()
    again = make()
    again.resume(tmp_path)
    assert again.step == 4 and same(again.model, straight.model) and same(again.ema, straight.ema)


@pytest.mark.parametrize("rate", [np.float32(1e-3), Fraction(1, 1000)])
def test_numbers_that_are_not_pythons_own_are_settings_too(rate, tmp_path):
    model = DiffusionModel(ResidualMLP(2, 8, 1), CosineSchedule(), V)
    config = TrainConfig(steps=np.int64(2), batch_size=4, learning_rate=rate, device="cpu")
    assert Trainer(model, TensorData(torch.randn(8, 2)), config=config, folder=tmp_path).run().step == 2
    assert (tmp_path / "checkpoint.safetensors").is_file()


@pytest.mark.parametrize(
    "labels", [torch.tensor([2]), torch.zeros(3, dtype=torch.long), torch.full((4,), 1.7), [0, 1, 2, 0]]
)
def test_labels_that_are_not_one_whole_number_for_each_example_are_refused(labels):
    class Odd:
        def batch(self, step, size):
            return torch.zeros(size, 2), labels

    model = DiffusionModel(ResidualMLP(2, 8, 1, 3), CosineSchedule(), V)
    with pytest.raises(ValueError, match=r"the data gave labels = .* for step 0"):
        Trainer(model, Odd(), config=TrainConfig(steps=1, batch_size=4, device="cpu")).run()


@pytest.mark.parametrize(
    ("network", "shape"), [(ResidualMLP(2, 8, 1), (8, 2)), (UNet(channels=(8,), blocks=1, heads=1), (8, 1, 8, 8))]
)
def test_float64_under_autocast_gets_the_sentence_that_it_gets_without(network, shape):
    model, data = DiffusionModel(network, CosineSchedule(), V), TensorData(torch.randn(shape, dtype=torch.float64))
    config = TrainConfig(steps=1, batch_size=4, device="cpu", precision="bf16")
    with pytest.raises(TypeError, match=r"got x of type torch\.float64, and its weights are torch\.float32"):
        Trainer(model, data, config=config).run()


def test_a_whole_number_beyond_every_float_is_a_number():
    with pytest.raises(ValueError, match="it is a share"):
        check_share("x", a=10**400)
    assert TrainConfig(seed=10**400).seed == 10**400
