"""The benchmarks' arithmetic and text, on tiny sizes and without the libraries that they compare with."""

import dataclasses
import json
import math
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import asdict
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from benchmarks import (
    adaptive,
    equal_seconds,
    evaluations,
    quality,
    report,
    sampling,
    solver_order,
    train_step,
    training_loop,
)
from benchmarks.report import Spread
from benchmarks.train_step import Contender, Measured, Product, Run, Setting, Training
from diffusion_edu import (
    CosineSchedule,
    Estimate,
    FlowSchedule,
    GaussianMixture,
    ImageSet,
    PrecisionRecall,
    State,
    TensorData,
    UNet,
    VPSchedule,
    ddim,
    dpmpp_2m,
    mnist_5k,
    ring,
    sample,
)
from diffusion_edu.cli import load_run, recipe_from
from diffusion_edu.cli.samples import Quality, measure

RUN = Run("ours, 2x2 patches", (8, 8), Setting("fp32", True), 2, 8, "cpu")


def measured(contender: str, ratio: float, precision: str = "bf16", share: float = 0.5) -> Measured:
    run = Run(contender, (48, 64), Setting(precision, True), 32, 28, "cpu")
    return Measured(run, 1_073_380, 598.4, Spread(ratio, ratio, ratio), 399e6, Spread(share, share, share), 1.234e6)


# report


def test_a_spread_is_the_median_between_the_quartiles():
    assert Spread.of([5.0, 1.0, 2.0, 4.0, 3.0]) == Spread(2.0, 3.0, 4.0)
    assert Spread(2.0, 3.0, 4.0).text(1) == "3.0 (2.0 to 4.0)"


def test_one_round_has_no_spread():
    with pytest.raises(ValueError, match="at least 2"):
        Spread.of([1.0])


def test_a_table_is_markdown():
    assert report.table(("a", "b"), [("x", "1"), ("y", "2")]) == "| a | b |\n| --- | --: |\n| x | 1 |\n| y | 2 |"
    with pytest.raises(ValueError, match="one cell a column"):
        report.table(("a", "b"), [("x",)])


def test_a_result_replaces_what_was_in_its_place_and_nothing_else():
    document = "head\n<!-- a: begin -->\nold\n<!-- a: end -->\nmiddle\n<!-- b: begin --><!-- b: end -->\n"
    once = report.placed(document, "a", "new")
    assert once.startswith("head\n<!-- a: begin -->\n\nnew\n\n<!-- a: end -->\nmiddle\n<!-- b: begin --><!-- b: end")
    assert "old" not in once
    assert report.placed(once, "a", "new") == once


@pytest.mark.parametrize("document", ["", "<!-- a: begin -->", "<!-- a: end --><!-- a: begin -->"])
def test_a_document_without_the_place_is_refused(document):
    with pytest.raises(ValueError, match="<!-- a: begin -->"):
        report.placed(document, "a", "new")


def test_a_gpu_gets_a_place_of_its_own_below_that_of_the_cpu(tmp_path):
    page = tmp_path / "README.md"
    page.write_text("above\n<!-- a: begin -->\nof the CPU\n<!-- a: end -->\nbelow\n")
    for text in ("first", "of the GPU"):
        report.publish("a_mps", text, True, page)
    assert page.read_text() == (
        "above\n<!-- a: begin -->\nof the CPU\n<!-- a: end -->\n\n"
        "<!-- a_mps: begin -->\n\nof the GPU\n\n<!-- a_mps: end -->\nbelow\n"
    )
    with pytest.raises(ValueError, match="<!-- b_cuda: begin -->"):
        report.publish("b_cuda", "no such result", True, page)


@pytest.mark.parametrize(
    "name",
    [
        "train_step",
        "train_step_compiled",
        "train_step_shipped_fashion_mnist",
        "train_step_shipped_mnist",
        "training_loop",
        "sampling",
        "solver_order",
        "adaptive",
        "evaluations",
        "equal_seconds",
        "equal_seconds_shipped",
        "quality_fashion_mnist",
        "quality_mnist",
    ],
)
def test_the_readme_has_a_place_for_each_benchmark(name):
    document = report.README.read_text(encoding="utf-8")
    assert "\n\nRESULT\n\n" in report.placed(document, name, "RESULT")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps memory by rules of its own")
def test_memory_that_is_kept_is_not_fetched_again():
    script = """
import resource, torch
from benchmarks.report import keep_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        [torch.ones(2**21) for _ in range(10)]  # 80 MiB, freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
untold = faults()
assert keep_memory()
faults()
print(untold, faults())
"""
    # Told a threshold, glibc stops to learn one from the first blocks that are freed: each of these is given back.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20)}
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=report.README.parents[1], env=environment, capture_output=True, text=True
    )
    untold, told = map(int, ran.stdout.split())
    assert told < untold / 10, ran.stderr


# matching the number of parameters


def test_the_match_is_within_the_tolerance_and_closest_first():
    shapes = [(10,), (9,), (11,), (20,), (12,)]
    assert train_step.matched(lambda shape: shape[0] ** 2, shapes, 112, 0.30) == [(11,), (10,), (9,), (12,)]
    assert train_step.matched(lambda shape: shape[0] ** 2, shapes, 100, 0.05) == [(10,)]


def test_a_match_that_cannot_be_made_is_an_error():
    with pytest.raises(ValueError, match="none of 2 shapes has 100 parameters within 10%"):
        train_step.matched(lambda shape: shape[0], [(50,), (120,)], 100, 0.10)


def test_our_own_networks_match_each_other():
    contenders, _ = train_step.chosen(28, 0.10)
    ours = {contender.name: (contender, shapes) for contender, shapes in contenders if contender.package is None}
    assert set(ours) == {"ours, 2x2 patches", "ours"}
    counts = [train_step.parameters(contender.build(shapes[0], 28)) for contender, shapes in ours.values()]
    assert abs(counts[1] / counts[0] - 1) <= 0.10


def test_frozen_parameters_do_not_count():
    network = nn.Linear(3, 2)
    network.bias.requires_grad_(False)
    assert train_step.parameters(network) == 6


def test_widths_are_multiples_of_8_in_about_the_ratio():
    shapes = train_step.widths(1, 1.5, 2)
    assert (32, 48, 64) in shapes
    assert len(set(shapes)) == len(shapes)
    assert all(width % 8 == 0 for shape in shapes for width in shape)


# a library that is not there


def test_a_missing_library_is_left_out_with_a_sentence(monkeypatch):
    for package in ("diffusers", "smalldiffusion", "denoising_diffusion_pytorch"):
        monkeypatch.setitem(sys.modules, package, None)  # importing it raises ImportError
    contenders, sentences = train_step.chosen(8, math.inf)
    assert [contender.name for contender, _ in contenders] == ["ours, 2x2 patches", "ours"]
    assert len(sentences) == 3
    for sentence in sentences:
        assert "is left out" in sentence and "pip install -c constraints.txt -e '.[bench]'" in sentence


def test_a_library_is_imported_with_a_stand_in_that_goes_away_again(monkeypatch, tmp_path):
    (tmp_path / "needs_torchvision_xyz.py").write_text("from torchvision import transforms as T, utils\nfine = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = sys.modules.get("torchvision")
    assert train_step.load("needs_torchvision_xyz").fine
    assert sys.modules.get("torchvision") is before


# a step


def test_a_step_trains():
    training = Training(RUN)
    before = [p.detach().clone() for p in training.model.parameters()]
    for _ in range(3):
        training.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, training.model.parameters(), strict=True))


def test_the_operations_of_a_step_grow_with_the_batch():
    two, four = (Training(Run(**{**vars(RUN), "batch": batch})).flops() for batch in (2, 4))
    assert two > 0
    assert four == 2 * two


def test_the_operations_of_a_convolution_are_counted_forward_and_twice_backward(monkeypatch):
    def build(shape, side):
        first = nn.Conv2d(1, shape[0], 1, bias=False)
        network = nn.Sequential(first, nn.Conv2d(shape[0], 1, 3, padding=1, bias=False))
        return train_step.Adapter(network, lambda net, x, level: net(x))

    monkeypatch.setattr(train_step, "CONTENDERS", (Contender("two convolutions", build, ((5,),)),))
    flops = Training(Run("two convolutions", (5,), Setting("fp32", False), 2, 8, "cpu")).flops()
    first, second = (2 * 2 * 8 * 8 * 5 * kernel for kernel in (1, 9))
    assert flops == 2 * first + 3 * second  # nothing is asked of the data's own gradient


def test_a_patch_is_folded_and_unfolded():
    adapter = train_step.Adapter(nn.Identity(), lambda net, x, level: net(x), patch=2)
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(adapter(x, torch.zeros(2)), x)


# arithmetic


def test_the_share_of_the_peak_is_a_ratio_of_rates_in_the_same_round():
    # 100 operations in 2 s beside 1000 in 4 s: 50 a second of 250
    assert train_step.shares(100, [2.0, 1.0], 1000, [4.0, 4.0]) == [pytest.approx(0.2), pytest.approx(0.4)]


def test_a_ratio_is_taken_round_by_round():
    assert train_step.ratios([4.0, 9.0], [2.0, 3.0]) == [2.0, 3.0]


def test_each_work_has_its_turn_in_each_round(monkeypatch):
    turns = []
    monkeypatch.setattr(train_step, "seconds_a_step", lambda work, steps: turns.append((work, steps)) or len(turns))
    assert train_step.interleaved(["a", "b"], [3, 5], 2) == [[1, 3], [2, 4]]
    assert turns == [("a", 3), ("b", 5), ("a", 3), ("b", 5)]


def test_the_fastest_has_the_fewest_seconds_for_its_cost(monkeypatch):
    monkeypatch.setattr(
        train_step, "seconds_a_step", lambda work, steps: {"slow": 3.0, "fast": 1.0, "large": 2.0}[work]
    )
    assert train_step.fastest(["slow", "fast", "large"], lambda work: 1.0) == ("fast", 1.0)
    assert train_step.fastest(["slow", "fast", "large"], lambda work: 8.0 if work == "large" else 1.0) == (
        "large",
        2.0,
    )


def test_the_peak_multiplies_matrices():
    product = Product("fp32", 8, torch.device("cpu"))
    product.step()
    torch.testing.assert_close(product.c, product.a @ product.b)
    assert train_step.seconds_a_step(product, 2) > 0


def test_the_memory_of_a_picture_is_a_slope(monkeypatch):
    monkeypatch.setattr(train_step, "_peak_memory_in_a_process", lambda run: 1000 + 7 * run.batch)
    assert train_step.memory_a_picture(RUN) == 7


def test_a_run_survives_its_way_to_another_process(capsys):
    text = json.dumps(asdict(RUN))
    assert train_step.run_of(text) == RUN
    assert train_step.main(["--peak-memory", text]) == 0
    peak = json.loads(capsys.readouterr().out)
    assert peak is None or peak > 10_000_000


# the report


def test_a_row_has_the_numbers_of_its_measurement():
    row = train_step.rows_of([measured("ours", 2.8)]).splitlines()[-1]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == [
        "ours", "48 64", "1.07M", "bf16, channels_last", "598", "2.80 (2.80 to 2.80)", "399", "50% of bf16", "1.23",
    ]  # fmt: skip


def test_a_goal_is_reached_or_not():
    reached, missed, share = train_step.verdicts(
        [measured("ours, 2x2 patches", 5.1, share=0.44), measured("ours", 2.6)]
    )
    assert "5.10 times" in reached and reached.endswith("is reached.")
    assert "2.60 times" in missed and missed.endswith("is not reached.")
    assert "44% of the bf16 peak" in share and share.endswith("is not reached.")


def test_without_the_base_there_is_no_ratio_and_no_verdict_on_one(monkeypatch):
    monkeypatch.setattr(train_step, "seconds_a_step", lambda work, steps: 1.0)
    ours = [(train_step.CONTENDERS[0], [(8, 8)])]
    rows, peaks = train_step.measure(ours, torch.device("cpu"), 2, 8, rounds=2, turn=0.0, memory=False)
    assert rows[0].ratio is None and rows[0].images_per_second == 2
    assert peaks["fp32"].flops_per_second == 2 * peaks["fp32"].n ** 3
    assert not [line for line in train_step.verdicts(rows) if "times" in line]
    assert "| ours, 2x2 patches | 8 8 |" in train_step.rows_of(rows)


@pytest.mark.parametrize(("model", "shape", "batch"), [("fashion_mnist", (64, 96), 64), ("mnist", (48, 64), 32)])
def test_a_shipped_model_is_asked_in_its_own_shape_and_batch_and_held_to_its_own_goal(
    monkeypatch, capsys, model, shape, batch
):
    asked = {}

    def measure(contenders, device, batch, side, rounds, turn, memory, compiled):
        asked.update(shapes={c.name: s for c, s in contenders}, batch=batch, compiled=compiled)
        return [measured("ours, 2x2 patches", 3.1), measured("ours", 1.5)], {}

    monkeypatch.setattr(train_step, "measure", measure)
    assert train_step.main(["--shipped", model]) == 0
    assert asked["shapes"][train_step.OURS.name] == [shape] and asked["batch"] == batch and asked["compiled"]
    wanted = train_step.parameters(UNet(channels=shape, patch=2))
    for contender in train_step.CONTENDERS:
        for found in asked["shapes"].get(contender.name, []):
            assert abs(train_step._count(contender, 28)(found) / wanted - 1) <= train_step.TOLERANCE
    assert asked["shapes"].keys() >= {"ours"}
    out = capsys.readouterr().out
    assert "3.10 times diffusers UNet2DModel; the goal of 3 is reached." in out and "goal of 2.7" not in out


def test_a_question_that_cannot_be_answered_is_refused(capsys):
    with pytest.raises(SystemExit):
        train_step.main(["--rounds", "1"])
    assert "at least 2" in capsys.readouterr().err


def test_the_table_of_errors_and_evaluations_is_made_on_tiny_sizes(capsys, monkeypatch):
    monkeypatch.setattr(adaptive, "CALLS", (4, 8))
    monkeypatch.setattr(adaptive, "TOLERANCES", (1e-2, 1e-4))
    monkeypatch.setattr(adaptive, "SCHEDULES", {"cosine": adaptive.SCHEDULES["cosine"]})
    adaptive.main(["--starts", "2", "--samples", "40"])
    text = capsys.readouterr().out
    for name in ("euler, uniform grid", "SciPy's RK45 in t", "adaptive_sde"):
        assert name in text
    row = next(line for line in text.splitlines() if line.startswith("| adaptive_ode, Dormand-Prince"))
    for cell, tol in zip(row.split("|")[2:4], adaptive.TOLERANCES, strict=True):
        assert float(cell.split(":")[1]) < 10 * tol


@pytest.mark.parametrize("in_angle", [False, True], ids=["t", "angle"])
@pytest.mark.parametrize("schedule", [VPSchedule(), CosineSchedule()], ids=["vp", "cosine"])
def test_torchdiffeq_gets_the_same_problem_and_solves_it(schedule, in_angle):
    library = pytest.importorskip("torchdiffeq", reason="pip install 'diffusion-edu[peers]'")
    denoiser = adaptive.Counting(adaptive.DATA.denoiser(schedule))
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    exact = adaptive.scipys(denoiser, x, "DOP853", 1e-10, in_angle=True)
    denoiser.calls = 0
    end = adaptive.torchdiffeqs(library, denoiser, x, 1e-6, in_angle)
    assert adaptive.error(end, exact) < 1e-5
    assert 40 < denoiser.calls < 300
    rows = [name for name, *_ in adaptive.with_tolerance(schedule, x, exact, library)]
    assert rows[-2:] == ["torchdiffeq's dopri5 in t", "torchdiffeq's dopri5 in the angle"]


def test_torchdiffeq_is_left_out_with_a_sentence_where_it_is_missing(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    monkeypatch.setattr(adaptive, "TOLERANCES", (1e-2,))
    assert adaptive.peer() is None
    assert "torchdiffeq is left out: pip install" in capsys.readouterr().err
    x = torch.ones(1, 2, dtype=torch.float64)
    rows = adaptive.with_tolerance(CosineSchedule(), x, x, adaptive.peer())
    assert [name for name, *_ in rows if "torchdiffeq" in name] == [] and len(rows) == 4


# orders and moments

SMOOTH = pytest.mark.parametrize(
    "schedule", [VPSchedule(), CosineSchedule(), FlowSchedule()], ids=["vp", "cosine", "flow"]
)
NOISY = pytest.mark.parametrize("sampler", solver_order.NOISY, ids=lambda sampler: sampler.name)


@NOISY
@SMOOTH
def test_a_noisy_step_for_one_gaussian_is_the_three_numbers_of_the_benchmark(sampler, schedule):
    one = torch.ones(1, dtype=torch.float64)
    data = GaussianMixture(one, 0.7 * one[:, None], 0.4 * one)
    x = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
    for at in ((0.8, 0.5), (0.3, 0.29)):
        t, s = torch.tensor(at, dtype=torch.float64)
        seeded = [torch.Generator().manual_seed(3) for _ in range(2)]
        z = torch.randn(5, 1, generator=seeded[0], dtype=torch.float64)
        x_s = sampler.step()(data.denoiser(schedule), State(t, x), s, None, seeded[1]).x
        keep, shift, noise = sampler.parts(schedule, t, s)
        by_parts = 0.7 * schedule.alpha(s) + keep * (x - 0.7 * schedule.alpha(t)) + shift + noise * z
        torch.testing.assert_close(x_s, by_parts, rtol=0, atol=1e-12)


@NOISY
@SMOOTH
def test_the_moments_of_a_noisy_sampler_are_exact_or_of_order_1(sampler, schedule):
    mean, variance = solver_order.order_of_moments(sampler, schedule, steps=64)
    straight = sampler.name != "euler_maruyama" or isinstance(schedule, FlowSchedule)
    assert mean is None if straight else abs(mean - 1) < 0.1
    assert abs(variance - 1) < 0.1


def test_the_table_of_orders_has_the_moments_and_samples_agree_with_the_recursion(capsys, monkeypatch):
    monkeypatch.setattr(solver_order, "SAMPLES", 5000)
    solver_order.main([])
    text = capsys.readouterr().out
    assert "after 16 steps, 5,000 samples" in text
    rows = [line.split(" | ") for line in text.splitlines() if line.count(" | ") == 6 and "---" not in line]
    found = [row for row in rows if row[0][2:] in {sampler.name for sampler in solver_order.NOISY}]
    assert len(found) == 2 * 3 * len(solver_order.NOISY)
    assert all(abs(float(row[5])) < 6 for row in found)
    variances = found[len(found) // 2 :]  # of the samplers, not of the data: at 16 steps the two are far apart
    assert all(abs(float(exact) / float(expected) - 1) > 0.04 for _, _, exact, expected, *_ in variances)


# the training loop


def test_the_parts_of_the_loop_are_those_that_the_trainer_and_the_program_have(monkeypatch, tmp_path):
    monkeypatch.setattr(training_loop, "STEPS", 2)
    loop = training_loop.Loop("cpu", batch=2, channels=(8, 8))
    parts = loop.parts(tmp_path)
    for part in parts.values():
        part.run()
    written = {"metrics.csv", "checkpoint.safetensors", "model.safetensors", "config.json", "samples.png", "samples"}
    assert {path.name for path in tmp_path.iterdir()} == written
    shares = loop.measure(rounds=2)
    assert set(shares) == {"whole loop", *parts}
    assert all(spread.low > 0 for spread in shares.values())
    assert loop.trainer.step == 2 * 3  # one report to begin with, and one a round


def test_the_cost_of_what_is_logged_is_held_to_the_goal():
    def spread(share):
        return Spread(share, share, share)

    shares = {"whole loop": spread(1.2), "batch of pictures": spread(0.5), "average": spread(0.01)}
    assert "1.0% of a bare step; the goal of 3% is reached" in training_loop.verdict(shares)
    assert "3.5%" in training_loop.verdict({**shares, "checkpoint": spread(0.025)})
    assert "not reached" in training_loop.verdict({**shares, "checkpoint": spread(0.025)})


def test_a_bare_step_computes_gradients_and_leaves_the_weights():
    loop = training_loop.Loop("cpu", batch=2, channels=(8, 8))
    before = [p.detach().clone() for p in loop.trainer.model.parameters()]
    loop.bare()
    assert all(torch.equal(a, b) for a, b in zip(before, loop.trainer.model.parameters(), strict=True))
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in loop.trainer.model.parameters())


# quality after equal seconds


@pytest.fixture
def tiny_race(monkeypatch):
    """Two networks of ours, a recipe and 40 digits."""
    small = (lambda shape, side, classes: UNet(channels=shape, patch=2, num_classes=classes), ((8, 8), (16, 16)))
    monkeypatch.setattr(equal_seconds, "NETWORKS", {"one": small, "other": small})
    train = {"batch_size": 4, "device": "cpu", "cycles": 2}
    given = recipe_from({"data": {"set": "mnist_5k"}, "train": train}, "")
    return given, TensorData.of(ImageSet(mnist_5k("test").images[:40], mnist_5k("test").labels[:40], ()))


def test_runs_take_turns_and_end_together_after_all_their_steps(tiny_race):
    recipe, data = tiny_race
    slow, fast = (equal_seconds.Entry("one", (8, 8), pace=pace) for pace in (20.0, 60.0))
    racers = [equal_seconds.Racer(entry, recipe, data, 2.0, reports=5) for entry in (slow, fast)]
    assert [racer.steps for racer in racers] == [10, 30]
    turns = []
    for racer in racers:
        advance = racer.advance
        racer.advance = lambda racer=racer, advance=advance: (turns.append(racer.steps), advance())
    equal_seconds.race(racers)
    assert [racer.trainer.step for racer in racers] == [10, 30] and all(racer.seconds > 0 for racer in racers)
    assert turns[:4] == [10, 30, 10, 30] and len(turns) == 10, "by turns, whatever their paces"
    assert racers[0].loss == racers[0].turns[-1].loss, "the mean over the last quarter: of five reports the last"


def test_a_network_gets_its_fastest_setting_and_its_best_rate(tiny_race, monkeypatch):
    recipe, data = tiny_race
    monkeypatch.setattr(equal_seconds, "RATES", (1e-6, 3e-3))
    monkeypatch.setattr(equal_seconds, "TRIAL", 1.0)
    paces = {"fp32": 40.0, "fp32, channels_last": 60.0, "fp32, channels_last, compiled": 50.0}
    monkeypatch.setattr(equal_seconds, "pace", lambda entry, *_: paces.get(str(entry.setting), 7.0))
    found = equal_seconds.tuned(equal_seconds.entered("one", recipe, 65_000), recipe, data, 1.5)
    assert found.shape == (8, 8) and found.rate == 3e-3 and str(found.setting) == "fp32, channels_last"
    assert found.pace > 0 and found.pace not in paces.values(), "that of the trials"
    with pytest.raises(ValueError, match="Offer more shapes"):
        equal_seconds.entered("one", recipe, 10**6)


def test_a_unet_of_diffusers_takes_labels_and_none():
    pytest.importorskip("diffusers")
    torch.manual_seed(0)
    network = equal_seconds.Labelled(train_step.unet_2d((8, 16), 8, num_class_embeds=11)).eval()
    x, level = torch.randn(2, 1, 8, 8), torch.tensor([0.2, 0.7])
    with torch.no_grad():
        none, hidden, asked = (network(x, level, c) for c in (None, torch.tensor([-1, -1]), torch.tensor([3, -1])))
    assert none.shape == x.shape and torch.equal(none, hidden)
    assert not torch.equal(none[0], asked[0]) and torch.allclose(none[1], asked[1], atol=1e-6)


def test_the_race_ends_in_a_table(tiny_race, monkeypatch, capsys):
    monkeypatch.setattr(equal_seconds, "find_recipe", lambda name: name)
    monkeypatch.setattr(equal_seconds, "read_recipe", lambda name: tiny_race[0])
    monkeypatch.setattr(equal_seconds, "TOLERANCE", 1e9)
    assert equal_seconds.main(["--seconds", "0.2", "--networks", "one", "other", "--n", "12"]) == 0
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in table[2:]] == ["| one", "| other", "| real training pictures"]


def test_a_race_that_was_stopped_goes_on_where_it_stood(tiny_race, tmp_path):
    recipe, data = tiny_race
    entry = equal_seconds.Entry("one", (8, 8), pace=40.0)

    def racer(folder):
        return equal_seconds.Racer(entry, recipe, data, 1.0, reports=5, folder=folder)

    straight, stopped = racer(None), racer(tmp_path)
    assert equal_seconds.race([straight]) and not equal_seconds.race([stopped], deadline=-math.inf)
    stopped.advance()
    stopped.advance()
    lost = equal_seconds.Turn(stopped.trainer.step + 2, 2, 9.0, 9.0, "killed before the checkpoint was written")
    report.write_rows(tmp_path / equal_seconds.TURNS, [*stopped.turns, lost])
    resumed = racer(tmp_path)
    assert resumed.turns == stopped.turns and resumed.done == 0.4
    assert equal_seconds.race([resumed]) and [turn.step for turn in resumed.turns] == [2, 4, 6, 8, 10]
    assert resumed.seconds > stopped.seconds
    for a, b in zip(straight.trainer.ema.parameters(), resumed.trainer.ema.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_turn_is_in_the_table_before_it_is_in_the_checkpoint(tiny_race, tmp_path, monkeypatch):
    """So a run that is killed between them makes it again, and counts its seconds once."""
    racer = equal_seconds.Racer(equal_seconds.Entry("one", (8, 8), pace=40.0), *tiny_race, 1.0, 5, tmp_path)

    def full(folder):
        raise OSError("the disk is full")

    monkeypatch.setattr(racer.trainer, "save", full)
    with pytest.raises(OSError, match="full"):
        racer.advance()
    (turn,) = report.read_rows(tmp_path / equal_seconds.TURNS, equal_seconds.Turn)
    assert turn.step == turn.steps == 2 and turn.seconds > 0


def test_an_entry_trains_in_its_setting_and_in_one_decay(tiny_race, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda network: network)
    setting = train_step.Setting("bf16", True, True)
    config = equal_seconds.Entry("one", (8, 8), setting, rate=2e-3).trainer(*tiny_race, 5, 1).config
    assert (config.precision, config.compile, config.learning_rate, config.steps) == ("bf16", True, 2e-3, 5)
    assert config.cycles == 1, "with two an odd number of steps would be refused, and the rate would fall twice"


def test_a_race_is_tuned_once_for_a_folder_and_goes_on(tiny_race, tmp_path, monkeypatch):
    recipe, data = tiny_race
    asked = []
    monkeypatch.setattr(equal_seconds, "pace", lambda entry, *_: asked.append(entry) or 60.0)
    monkeypatch.setattr(equal_seconds, "computes_in_bf16", lambda device: False)
    monkeypatch.setattr(equal_seconds, "TRIAL", 0.2)
    entry = equal_seconds.Entry("one", (8, 8))

    def tuned(seconds=3.0, recipe=recipe, deadline=math.inf):
        return equal_seconds.tuned(entry, recipe, data, seconds, tmp_path, deadline)

    assert tuned(deadline=-math.inf) is None, "the minutes were over before the trials"
    first, tries = tuned(), len(asked)
    assert tries == 3, "two layouts, and the better one compiled; not again after the stop"
    monkeypatch.setattr(equal_seconds.Racer, "advance", None)
    assert tuned() == first and first.rate in equal_seconds.RATES and len(asked) == tries
    with pytest.raises(ValueError, match="another seconds; give another folder"):
        tuned(seconds=4.0)
    with pytest.raises(ValueError, match="another recipe; give another folder"):
        tuned(recipe=dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, batch_size=8)))
    kept = tmp_path / equal_seconds.SETTING
    there = json.loads(kept.read_text())
    there["entry"]["setting"]["precision"] = "bf16"
    kept.write_text(json.dumps(there))
    with pytest.raises(ValueError, match="does not compute"):
        tuned()


def test_the_fastest_setting_may_be_the_compiled_one_of_the_slower_precision(tiny_race, monkeypatch):
    paces = {"fp32": 60.0, "bf16, channels_last": 40.0, "bf16, channels_last, compiled": 90.0}
    monkeypatch.setattr(equal_seconds, "pace", lambda entry, *_: paces.get(str(entry.setting), 20.0))
    monkeypatch.setattr(equal_seconds, "computes_in_bf16", lambda device: True)
    found = equal_seconds.fastest(equal_seconds.Entry("one", (8, 8)), *tiny_race)
    assert str(found.setting) == "bf16, channels_last, compiled" and found.pace == 90


def test_a_network_that_cannot_be_compiled_runs_as_it_is(tiny_race, capsys):
    class Refused(equal_seconds.Entry):
        def trainer(self, *arguments):
            raise NotImplementedError

    compiled = train_step.Setting("fp32", True, True)
    assert equal_seconds.pace(Refused("one", (8, 8), compiled), *tiny_race) == 0
    assert "one is not compiled: NotImplementedError" in capsys.readouterr().err
    with pytest.raises(NotImplementedError):
        equal_seconds.pace(Refused("one", (8, 8)), *tiny_race)
    assert equal_seconds.pace(equal_seconds.Entry("one", (8, 8)), *tiny_race) > 0


def test_a_shipped_model_stands_beside_a_network_with_its_seconds(tiny_race, monkeypatch, capsys, tmp_path):
    recipe, _ = tiny_race
    train = dataclasses.replace(recipe.train, steps=6, compile=True, device="cuda", precision="auto")
    recipe = dataclasses.replace(recipe, train=train)
    history = [equal_seconds.Logged(k, 1 / k, 1e-3, 0.025 * k, 50.0) for k in range(1, 9)]
    monkeypatch.setattr(equal_seconds, "load_run", lambda name: (recipe.build_model().eval(), recipe))
    monkeypatch.setattr(equal_seconds, "logged", lambda name: history)
    monkeypatch.setattr(equal_seconds, "TOLERANCE", 1e9)
    monkeypatch.setattr(equal_seconds, "pace", lambda entry, *_: 60.0)
    page = tmp_path / "README.md"
    page.write_text("<!-- equal_seconds_shipped: begin -->\n<!-- equal_seconds_shipped: end -->\n")
    monkeypatch.setattr(report, "README", page)
    asked = ["--beside", "mnist", "--networks", "one", "--n", "12", "--folder", str(tmp_path), "--write"]
    assert equal_seconds.main([*asked, "--minutes", "0"]) == 3
    assert "one: the minutes are over" in capsys.readouterr().err
    assert equal_seconds.main(asked) == 0
    assert page.read_text().startswith("<!-- equal_seconds_shipped: begin -->\n\ncpu: ")
    assert "The shipped mnist: trained on cpu (" in page.read_text()
    ours, theirs, real = [line.split(" | ") for line in page.read_text().splitlines() if line.startswith("| ")][2:]
    assert [row[0] for row in (ours, theirs, real)] == ["| the shipped mnist", "| one", "| real training pictures"]
    size = sum(p.numel() for p in recipe.build_model().parameters())
    channels = " ".join(map(str, recipe.unet.channels))
    setting = "auto precision, channels_last, compiled, 2 cycles"
    assert ours[1:8] == [channels, f"{size / 1e6:.2f}M", setting, "0.001", "0", "0k", "0.1250"]
    assert history[-1].loss == 0.125, "the loss of the last quarter of the second decay"
    kept = json.loads((tmp_path / "one" / equal_seconds.ENTRY).read_text())
    assert kept["race"]["seconds"] == 0.2 and kept["race"]["recipe"]["train"]["device"] == "cpu"


def test_a_row_of_a_shipped_model_counts_its_seconds_and_pictures():
    recipe = equal_seconds.load_run("fashion_mnist")[1]
    history = equal_seconds.logged("fashion_mnist")
    row = equal_seconds.Result.of_shipped("fashion_mnist", recipe, history, None)
    assert row.seconds == history[-1].seconds and row.pictures == recipe.train.steps * recipe.train.batch_size
    window = [entry.loss for entry in history if entry.step > recipe.train.steps * 7 / 8]
    assert recipe.train.cycles == 2 and row.loss == pytest.approx(statistics.mean(window))


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--beside", "mnist", "--recipe", "mnist"], "leave out --recipe"),
        (["--beside", "mnist", "--seconds", "9"], "leave out --recipe and --seconds"),
        (["--beside", "mine"], "invalid choice"),
        (["--seconds", "0"], "above 0"),
        (["--minutes", "5"], "needs a --folder"),
        (["--minutes", "nan", "--folder", "x"], "0 or more"),
        (["--networks", "ours", "ours"], "twice"),
    ],
)
def test_a_race_that_makes_no_sense_is_refused(flags, says, capsys):
    with pytest.raises(SystemExit):
        equal_seconds.main(flags)
    assert says in capsys.readouterr().err


def test_the_log_of_a_shipped_model_ends_with_its_last_step():
    _, recipe = equal_seconds.load_run("fashion_mnist")
    history = equal_seconds.logged("fashion_mnist")
    assert history[-1].step == recipe.train.steps
    assert all(a.seconds < b.seconds for a, b in pairwise(history))


# evaluations for a given quality

DOUBLE = torch.ones((), dtype=torch.float64)


def on_a_ring(contender, rung):
    """Samples of a known mixture (20, 2) by a contender, and how often it asked."""
    counting = adaptive.Counting(GaussianMixture(*ring(5, 0.15)).to(DOUBLE).denoiser(CosineSchedule()))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 2, generator=generator, dtype=torch.float64)
    found = contender.walk(counting, x, rung, torch.zeros(20, dtype=torch.long), generator)
    return found, counting.calls


@pytest.mark.parametrize(
    "contender",
    [c for c in evaluations.CONTENDERS if c.ours and not c.name.startswith("adaptive")],
    ids=lambda contender: contender.name,
)
def test_a_sampler_asks_as_often_as_its_rung_says(contender):
    for rung in contender.rungs[:3]:
        found, calls = on_a_ring(contender, rung)
        assert calls == rung
        assert found.isfinite().all()


@pytest.mark.parametrize("name", ["adaptive_ode, Bogacki-Shampine", "adaptive_sde"])
def test_a_tighter_tolerance_costs_more(name):
    (contender,) = (c for c in evaluations.CONTENDERS if c.name == name)
    calls = [on_a_ring(contender, rung)[1] for rung in contender.rungs]
    assert calls == sorted(set(calls))


def test_the_log_snr_grid_has_equal_steps_in_log_snr():
    log_snr = CosineSchedule().log_snr(evaluations.GRIDS["log-SNR"](CosineSchedule(), 9)[1:-1])
    steps = log_snr.diff()
    torch.testing.assert_close(steps, steps.mean().expand_as(steps), rtol=1e-2, atol=0)


# diffusers 0.42 turns its tables into NumPy arrays in a way that NumPy 2 frowns on
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
@pytest.mark.parametrize(
    "name, step", [("diffusers DDIMScheduler", ddim()), ("diffusers DPMSolverMultistepScheduler", dpmpp_2m())]
)
def test_a_scheduler_of_diffusers_walks_the_path_of_our_step_on_the_same_levels(name, step):
    pytest.importorskip("diffusers")
    (contender,) = (c for c in evaluations.CONTENDERS if c.name == name)
    theirs, calls = on_a_ring(contender, 10)
    schedule = CosineSchedule()
    at = torch.cat([evaluations.levels(schedule)[torch.arange(999, 0, -100)], torch.zeros(1, dtype=torch.float64)])
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ours = sample(
        step, GaussianMixture(*ring(5, 0.15)).to(DOUBLE).denoiser(schedule), x, at, torch.zeros(20, dtype=torch.long)
    )
    assert calls == 10
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-4)  # its tables are in float32


ABOUT = ("0123", "fp32", "cpu")  # weights, precision and device


def result(name, rung, frechet, seed=0):
    return evaluations.Result(name, float(rung), seed, 50, *ABOUT, float(rung), frechet, 0.9, 1.0)


def test_each_ladder_is_climbed_to_its_first_good_rung_and_the_cheapest_sampler_is_advised(tmp_path):
    contenders = [
        evaluations.Contender(name, (5, 10, 20), lambda *_: None, ours)
        for name, ours in (("slow", True), ("fast", True), ("never", True), ("theirs", False))
    ]
    standard = evaluations.reference(100)
    distances = {
        ("slow", 5): 9.0, ("slow", 10): 4.0, ("slow", 20): 2.05, ("fast", 5): 4.0, ("fast", 10): 2.1,
        ("never", 5): 9.0, ("never", 10): 8.0, ("never", 20): 7.0, ("theirs", 5): 2.0, (standard.name, 100): 2.0,
    }  # fmt: skip
    results, asked = evaluations.Results(tmp_path / "results.csv", ABOUT), []

    def measure(contender, rung, seed):
        asked.append((contender.name, rung, seed))
        return result(contender.name, rung, distances[contender.name, rung] + 0.02 * seed, seed)

    assert evaluations.fill(results, contenders, standard, 2, 50, measure)
    assert {(name, rung) for name, rung, _ in asked} == distances.keys() and len(asked) == 2 * len(distances)
    again = evaluations.Results(tmp_path / "results.csv", ABOUT)
    assert again.rows == results.rows, "the file holds all of them"
    assert evaluations.fill(again, contenders, standard, 2, 50, lambda *_: pytest.fail("measured twice"))
    text = evaluations.text_of(again, contenders, standard, 2, 50, (1.0, 0.1))
    needed = {line.split(" | ")[0].strip("| "): line.split(" | ")[1] for line in text.splitlines() if "5: " in line}
    assert needed == {"slow": "20", "fast": "10", "never": "more than 20", "theirs": "5"}
    ratios = statistics.mean([2.1 / 2.0, 2.12 / 2.02])
    error = abs(2.1 / 2.0 - 2.12 / 2.02) / 2  # of the mean of two
    assert f"| fast | 10 | {ratios:.3f} ± {error:.3f} | 2.11 |" in text
    for about in (("4567", "fp32", "cpu"), ("0123", "bf16", "cpu"), ("0123", "fp32", "cuda")):
        other = evaluations.Results(tmp_path / "results.csv", about)
        assert not other.of("fast", 5, 2, 50), "they are another network's, another precision's or another device's"
        with pytest.raises(ValueError, match="no reference"):
            evaluations.text_of(other, contenders, standard, 2, 50, (1.0, 0.1))
    assert text.endswith("Take **fast**: 10 evaluations.")
    row = {row.contender.name: row for row in (evaluations.row_of(again, c, standard, 2, 50) for c in contenders)}
    doubtful = evaluations.advice(list(row.values()), 1.0, 100.0)
    assert doubtful.endswith("chance does not tell apart from it: slow (4.01).")
    too_few = evaluations.text_of(again, contenders, standard, 2, 50, (1.0, 0.11))  # of 2.01
    assert too_few.endswith(
        "At this n chance moves the distance by 5% of the reference's: too few samples to name a sampler."
    )
    later = evaluations.fill(again, contenders, standard, 3, 50, lambda *_: pytest.fail("late"), deadline=-math.inf)
    assert not later, "nothing is begun when the time is up"
    assert "| slow | not run |" in evaluations.text_of(
        again,
        [evaluations.Contender("slow", (7,), lambda *_: None)],
        standard,
        2,
        50,
        (1.0, 0.1),
    )
    longer = evaluations.Contender("never", (5, 10, 20, 40), lambda *_: None)
    assert "| never | more than 20, not run further |" in evaluations.text_of(
        again, [longer], standard, 2, 50, (1.0, 0.1)
    )


def test_the_floor_is_dealt_with_the_labels_that_samples_are_asked_for():
    numbers = torch.arange(400)
    real = evaluations.Real(numbers[:, None].double(), numbers % 10, lambda x: (x, None))
    deals = [real.parts(25, deal) for deal in (0, 1)]
    for part, rest in deals:
        assert (part.long() % 10).flatten().bincount().tolist() == 5 * [3] + 5 * [2]
        assert torch.equal(torch.cat([part, rest]).flatten().sort().values, numbers.double()), "each is dealt once"
    assert set(deals[0][0].flatten().tolist()) != set(deals[1][0].flatten().tolist())


def test_a_result_that_was_stopped_in_its_midst_comes_out_the_same(tmp_path, monkeypatch):
    model, given = load_run("mnist")
    clock = SimpleNamespace(monotonic=iter(range(100)).__next__, perf_counter=lambda: 0.0)
    monkeypatch.setattr(evaluations, "time", clock)
    asked = torch.arange(12) % 10
    contender = evaluations.reference(2)  # it makes noise in its first step: the generator's state counts
    features = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    real = evaluations.Real(features, torch.arange(40) % 10, lambda x: (x[:, 0, 14, 12:15], asked))

    def draw(folder, seed=0, deadline=math.inf):
        return evaluations.measured(model, given, contender, 2.0, seed, 12, real, folder, deadline, batch=4)

    whole = draw(tmp_path / "whole")
    with pytest.raises(evaluations.TimeIsUp):
        draw(tmp_path / "cut", deadline=3 + 1)  # the whole one looked at the clock three times; now two batches
    kept = evaluations.Unfinished(
        tmp_path / "cut" / "unfinished.safetensors", (contender.name, 2.0, 0, 12, "", "fp32", "cpu"), 4
    ).read()
    assert [len(part) for part in kept[0]] == [4, 4] and kept[1] == [2, 2]
    draw(tmp_path / "other", seed=1)
    (tmp_path / "other" / "unfinished.safetensors").replace(tmp_path / "whole" / "unfinished.safetensors")
    for folder in ("cut", "whole"):  # in the second lies what was kept of another seed
        again = draw(tmp_path / folder)
        assert (again.frechet, again.evaluations, again.key) == (whole.frechet, 2.0, whole.key)
    half = evaluations.measured(
        model, given, contender, 2.0, 0, 12, real, tmp_path / "half", math.inf, batch=4, about=("", "bf16", "cpu")
    )
    assert half.precision == "bf16" and 0 < abs(half.frechet / whole.frechet - 1) < 0.1


def test_the_run_writes_its_table_and_goes_on_where_it_was_stopped(tmp_path, monkeypatch, capsys):
    readme = tmp_path / "README.md"
    readme.write_text("above\n<!-- evaluations: begin -->\nold\n<!-- evaluations: end -->\nbelow\n")
    monkeypatch.setattr(report, "README", readme)
    (fast,) = (c for c in evaluations.CONTENDERS if c.name == "dpmpp_2m, uniform grid")
    monkeypatch.setattr(evaluations, "CONTENDERS", (evaluations.Contender(fast.name, (1, 2), fast.walk),))
    monkeypatch.setattr(evaluations, "REAL", 200)
    monkeypatch.setattr(evaluations, "DEALS", 2)
    monkeypatch.setattr(evaluations, "WITHIN", 0.0)  # nothing is good enough: the whole ladder is climbed
    command = ["--model", "mnist", "--folder", str(tmp_path), "--n", "12", "--seeds", "1", "--reference", "2"]
    with pytest.raises(SystemExit, match="let the run go on"):
        evaluations.main([*command, "--minutes", "0"])
    evaluations.main(command)
    file = tmp_path / "results.csv"
    whole, table = file.read_text(), capsys.readouterr().out.split("\n\n", 1)[1]
    assert [line.split('"')[1] for line in whole.splitlines()[1:]] == ["ancestral, the reference", *2 * [fast.name]]
    assert "old" in readme.read_text(), "without --write the file is left alone"

    file.write_text("".join(whole.splitlines(keepends=True)[:-1]))  # as if it had been stopped before the last
    evaluations.main([*command, "--write"])
    without_seconds = [[line.rsplit(",", 1)[0] for line in text.splitlines()] for text in (whole, file.read_text())]
    assert without_seconds[0] == without_seconds[1], "the same seed is the same sample"
    assert capsys.readouterr().out.count("seed 0") == 1, "one result was missing"
    assert table.strip().split("\n\n")[-1] in readme.read_text() and "more than 2" in readme.read_text()
    assert readme.read_text().startswith("above") and readme.read_text().endswith("below\n")


# a report card over several seeds


def test_pictures_without_noise_get_the_cards_own_floor_and_noise_takes_them_away():
    model, given = load_run("mnist")
    card = measure(model, given, dataclasses.replace(given.sample, steps=1), 40, seed=3)
    distances = [quality.noisy_distance(given, 40, 3, noise) for noise in (0.0, 0.1, 0.3)]
    assert distances[0] == card.frechet_floor.value
    assert distances == sorted(set(distances))


def test_the_goal_is_half_of_what_the_noise_makes_in_the_mean_over_the_seeds():
    def drawn(frechet, noisy, agrees=0.5):
        regions, few = PrecisionRecall(0.25, 0.75), Estimate(0.5, 0.0)
        card = Quality(
            9, Estimate(frechet, 1), few, few, few, regions, regions, None, agrees, agrees, "", "dpmpp_2m", 1.0
        )
        return quality.Draw(card, noisy)

    one_above_one_below = [drawn(2.0, 2.0), drawn(0.5, 4.0)]
    text = quality.text_of(one_above_one_below)
    assert "| Fréchet distance | 1.250 ± 0.750 | 0.500 ± 0.000 | 3.000 ± 1.000 |" in text
    assert "| precision | 0.250 ± 0.000 |" in text and "| recall | 0.750 ± 0.000 |" in text
    assert "makes is 1.500: the goal is reached (samples less goal, seed by seed: -0.250 ± 1.250)" in text
    assert "at 2.50 times the floor" in text
    assert "the goal is not reached" in quality.text_of([drawn(2.0, 2.0), drawn(1.5, 4.0)])
    blind = quality.text_of([drawn(2.0, 0.5), drawn(0.5, 1.0)])
    assert "makes is 0.375: less than what real pictures get, and so no goal. The samples are at 2.50" in blind
    assert "label |  |  |  |" in quality.text_of([drawn(2.0, 2.0), drawn(0.5, 4.0, None)]), "one seed has no classifier"
    with pytest.raises(ValueError, match="at least 2"):
        quality.text_of(one_above_one_below[:1])


def test_the_cards_of_two_seeds_become_a_table_in_its_place(tmp_path, monkeypatch, capsys):
    readme = tmp_path / "README.md"
    readme.write_text("above\n<!-- quality_mnist: begin -->\nold\n<!-- quality_mnist: end -->\nbelow\n")
    monkeypatch.setattr(report, "README", readme)
    quality.main(["--model", "mnist", "--n", "12", "--seeds", "2", "--steps", "2", "--write"])
    text = readme.read_text()
    assert "Samples by dpmpp_2m, 2 steps" in text and "12 in each set, means over 2 seeds" in text
    assert "| Fréchet distance |" in text and "old" not in text and capsys.readouterr().err.count("seed ") == 2
    with pytest.raises(SystemExit):
        quality.main(["--seeds", "1"])
    assert "at least two seeds" in capsys.readouterr().err
    model, given = load_run("mnist")
    without = dataclasses.replace(given, model=dataclasses.replace(given.model, conditional=False))
    monkeypatch.setattr(quality, "load_run", lambda name: (model, without))
    with pytest.raises(SystemExit):
        quality.main([])
    assert "no model of pictures with labels" in capsys.readouterr().err


# a sampler


def test_a_samplers_cost_is_held_against_as_many_calls_as_it_makes(monkeypatch, capsys):
    monkeypatch.setattr(report, "keep_memory", lambda: False)  # it would be for all tests of this process
    monkeypatch.setattr(sampling, "BATCH", 2)
    monkeypatch.setattr(sampling, "STEPS", 3)
    monkeypatch.setattr(sampling, "ROUNDS", 2)
    sampling.main([])
    out = capsys.readouterr().out
    rows = {cells[1].strip(): cells[2:] for line in out.splitlines() if (cells := line.split("|"))[0] == "" and line}
    assert {name: int(rows[name][0]) for name in sampling.SAMPLERS} == {
        **dict.fromkeys(sampling.SAMPLERS, 3),
        "heun": 5,  # two a step, and one in the last
    }
    assert "Own work of at most 2%: reached" in out
    low, high = Spread(0.01, 0.01, 0.01), Spread(0.03, 0.03, 0.03)
    assert sampling.verdict({"a": low, "b": low}).endswith("reached by all.")
    assert sampling.verdict({"a": low, "b": high}).endswith("reached not by b.")
