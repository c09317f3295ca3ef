"""The command line: recipes and flags, what a run leaves, resume after a kill, many processes, and what goes wrong."""

import csv
import dataclasses
import importlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from diffusion_edu import (
    EPS,
    SCORE,
    VELOCITY,
    X0,
    BetaSchedule,
    ClassifierFreeGuidance,
    CosineSchedule,
    EDMSchedule,
    FlowSchedule,
    GaussianMixture,
    ImageSet,
    SubVPSchedule,
    TrainConfig,
    Trainer,
    V,
    VESchedule,
    VPSchedule,
    ancestral,
    ddim,
    dpmpp_2m,
    edm,
    edm_weight,
    elbo_weight,
    euler,
    euler_maruyama,
    heun,
    min_snr,
    mnist_5k,
    moons,
    prior,
    sample,
    simple,
    times,
    transition_std,
)
from diffusion_edu.cli import (
    Recipe,
    SampleConfig,
    console,
    draw_samples,
    find_recipe,
    labels_for,
    load_run,
    main,
    measure,
    names,
    read_recipe,
    recipe,
    recipe_from,
    samples,
    to_toml,
)
from diffusion_edu.cli.recipe import DataConfig
from diffusion_edu.cli.run import Log
from diffusion_edu.data import seeded
from diffusion_edu.storage import load_tensors, save_tensors
from diffusion_edu.trainer import Progress
from tests.test_trainer import launched

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
TINY = """
[data]
set = "moons"
[mlp]
width = 16
depth = 1
[train]
steps = 60
batch_size = 16
log_every = 5
save_every = 5
device = "cpu"
[sample]
steps = 4
[log]
samples_every = 20
[evaluate]
n = 20
"""
LEFT = {
    "recipe.toml",
    "metrics.csv",
    "samples.png",
    "samples",
    "model.safetensors",
    "weights.safetensors",
    "checkpoint.safetensors",
    "config.json",
    "README.md",
}


@pytest.fixture
def tiny(tmp_path):
    """The path of a recipe that runs in a second."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return str(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a finished tiny run."""
    root = tmp_path_factory.mktemp("trained")
    (root / "tiny.toml").write_text(TINY)
    assert main(["train", str(root / "tiny.toml"), "--folder", str(root / "run")]) == 0
    return root / "run"


@pytest.fixture
def small_sets(monkeypatch):
    """Every set of pictures is a few random ones with its channels, 8x8: nothing is fetched, and steps are cheap."""

    def tiny_set(row):
        shape = (row.shape[0], 8, 8)

        def load(split, folder):
            images = torch.randint(0, 256, (12, *shape), dtype=torch.uint8)
            return ImageSet(images, torch.arange(12) % len(row.classes), row.classes)

        return dataclasses.replace(row, load=load, shape=shape)

    rows = {name: tiny_set(row) if isinstance(row, names.Pictures) else row for name, row in names.DATA.items()}
    monkeypatch.setattr(recipe, "DATA", rows)


def losses(folder):
    """{step: loss} of a run's log, in which every step is once and in order."""
    with (folder / "metrics.csv").open() as file:
        rows = [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file)]
    assert all(a[0] < b[0] for a, b in itertools.pairwise(rows))
    return dict(rows)


def same_files(a, b):
    """Whether two runs ended with the same numbers, bit for bit."""
    for name in ("checkpoint.safetensors", "model.safetensors", "weights.safetensors"):
        (one, _), (other, _) = load_tensors(a / name), load_tensors(b / name)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one), name
    assert losses(a) == losses(b)
    assert (a / "samples.png").read_bytes() == (b / "samples.png").read_bytes()
    return True


# Recipes


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_each_recipe_parses_and_runs_two_steps_on_a_tiny_set(path, small_sets):
    given = read_recipe(path)
    assert recipe_from(tomllib.loads(to_toml(given)), "its own text") == given
    cheap = {"steps": 2, "batch_size": 1, "log_every": 1, "device": "cpu", "precision": "fp32", "compile": False}
    config = dataclasses.replace(given.train, **cheap)
    model = given.build_model()
    data = given.data_set.training(None, 0)
    trainer = Trainer(model, data, given.build_loss(), config, times=given.build_times(model))
    assert [progress.step for progress in trainer] == [1, 2]


def test_recipes_are_the_six_that_the_readme_names_and_are_found_by_name():
    (sentence,) = re.findall(r"The recipes are (.+?)\.", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert {path.stem for path in RECIPES} == set(re.findall(r"`(\w+)`", sentence)) and len(RECIPES) == 6
    assert all(find_recipe(path.stem) == path for path in RECIPES)


def test_cifar10_has_the_numbers_of_edm():
    given = read_recipe(find_recipe("cifar10"))
    assert given.train.steps * given.train.batch_size == 200_000_000
    assert_close(given.train.ema_decay, 2 ** (-512 / 500_000), atol=5e-6, rtol=0)
    assert given.model.conditional and given.data_set.shape == (3, 32, 32)
    with torch.device("meta"):
        u = given.unet
        network = recipe.UNet(3, u.channels, u.blocks, 10, u.patch, u.attention, u.embedding, u.heads, u.dropout)
    assert 45e6 < sum(p.numel() for p in network.parameters()) < 65e6  # theirs has 55.7 million


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[train]\nstepz = 3", r"there is no train\.stepz; \[train\] has steps, .* Did you mean steps\?"),
        ("[trian]\nsteps = 3", r"there is no trian; a recipe has .* Did you mean train\?"),
        ("train = 3", r"train is 3; it must be a table, \[train\]"),
        ("[train]\nsteps = 'many'", r"train\.steps is 'many'; it must be a whole number"),
        ("[train]\nsteps = 2.5", r"train\.steps is 2\.5; it must be a whole number"),
        ("[train]\nsteps = true", r"train\.steps is True; it must be a whole number"),
        ("[train]\nsteps = 0", r"TrainConfig got steps=0"),
        ("[unet]\nchannels = 3", r"unet\.channels is 3; it must be a list, each item a whole number"),
        ("[unet]\nattention = [1]", r"unet\.attention is 1; it must be true or false"),
        ("[data]\nset = 'mnits'", r"data\.set is 'mnits'; it must be one of .* Did you mean mnist\?"),
        ("[model]\nschedule = 'cosin'", r"model\.schedule is 'cosin'; .* Did you mean cosine\?"),
        ("[sample]\nsampler = 'plms'", r"the sampler is 'plms'; it must be one of dpmpp_2m, ddim"),
        ("[sample]\nsteps = 0", r"steps=0; it takes at least one"),
        ("[evaluate]\nn = 3", r"give n = 0, or n >= 4"),
        ("[mlp]\nwidth = 64", r"sets mlp and trains on digits, for which the network is the one in unet"),
        ("[data]\nset = 'moons'\n[unet]\npatch = 2", r"sets unet and trains on moons"),
        ("[train\nsteps = 3", r"is not TOML .* fix that line"),
    ],
)
def test_a_wrong_recipe_gets_a_sentence_with_its_place(tmp_path, text, sentence, capsys):
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    assert main(["train", str(path), "--folder", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert re.search(sentence, said) and said.startswith(f"diffusion-edu: {path}")
    assert not (tmp_path / "run").exists()


def test_a_recipe_read_back_is_the_same_with_any_name_in_it():
    given = recipe_from(
        {"data": {"folder": 'C:\\new "data"/\u00fc\U0001f600'}, "unet": {"attention": [True, False]}}, ""
    )
    assert recipe_from(tomllib.loads(to_toml(given)), "") == given


def test_a_number_may_be_written_without_a_point():
    assert recipe_from({"train": {"learning_rate": 1}}, "").train.learning_rate == 1.0


# Names


def test_every_name_makes_what_it_says():
    for schedule in names.SCHEDULES.values():
        made = schedule()
        for table in (names.TIMES, names.GRIDS):
            for row in table.values():
                row(made) if table is names.TIMES else row(made, 4)
    for table in (names.PARAMETERIZATIONS, names.WEIGHTS, names.SAMPLERS):
        for row in table.values():
            row()
    for name, kind in (
        ("cosine", CosineSchedule), ("flow", FlowSchedule), ("vp", VPSchedule),
        ("sub_vp", SubVPSchedule), ("ve", VESchedule), ("edm", EDMSchedule),
    ):  # fmt: skip
        assert type(names.SCHEDULES[name]()) is kind
    for name, made in (
        ("linear", BetaSchedule.linear()),
        ("cosine", BetaSchedule.cosine()),
        ("sigmoid", BetaSchedule.sigmoid()),
    ):
        assert torch.equal(names.SCHEDULES[f"ddpm_{name}"]().betas, made.betas)
    t = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    for name, row in (("v", V), ("eps", EPS), ("x_0", X0), ("score", SCORE), ("velocity", VELOCITY), ("edm", edm(0.5))):
        assert_close(names.PARAMETERIZATIONS[name]().row(VPSchedule(), t), row.row(VPSchedule(), t))
    for name, weight in (
        ("simple", simple),
        ("min_snr", min_snr(5.0)),
        ("elbo", elbo_weight),
        ("edm", edm_weight(0.5)),
    ):
        assert_close(names.WEIGHTS[name]()(VPSchedule(), t), weight(VPSchedule(), t))
    assert names.WEIGHTS["own"]() is None


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("dpmpp_2m", dpmpp_2m()),
        ("ddim", ddim()),
        ("ancestral", ancestral()),
        ("ancestral_large", ancestral(transition_std)),
        ("euler", euler()),
        ("heun", heun()),
        ("euler_maruyama", euler_maruyama()),
    ],
)
def test_a_samplers_name_walks_as_the_sampler_does_and_as_no_other(name, step):
    denoiser, grid = GaussianMixture(*moons()).denoiser(VPSchedule()), times(4)
    x = torch.randn(20, 2, generator=seeded(0), dtype=torch.float64)
    walks = {key: sample(made(), denoiser, x, grid, generator=seeded(1)) for key, made in names.SAMPLERS.items()}
    assert torch.equal(walks.pop(name), sample(step, denoiser, x, grid, generator=seeded(1)))
    mine = sample(step, denoiser, x, grid, generator=seeded(1))
    assert all((mine - other).abs().max() > 1e-3 for other in walks.values())


def test_samples_are_clipped_as_asked_and_each_is_asked_for_by_its_label(monkeypatch):
    model, settings = load_run("mnist")
    labels, asked, network = torch.arange(260) // 26, [], model.network.forward

    def told(x, level, condition):
        asked.append(condition)
        return network(x, level, condition)

    monkeypatch.setattr(model.network, "forward", told)
    one_step = dataclasses.replace(settings.sample, sampler="ddim", steps=1)
    plain, clipped = (
        draw_samples(model, settings, dataclasses.replace(one_step, clip=clip), 260, labels, 0)
        for clip in (False, True)
    )
    assert torch.equal(torch.cat(asked), torch.cat([labels, labels]))
    assert plain.abs().max() > 1 and torch.equal(clipped, plain.clamp(-1, 1))


@pytest.mark.parametrize("name", ["moons", "ring", "swiss", "digits", "mnist_5k"])
def test_a_data_set_is_what_its_row_says(name):
    row = names.DATA[name]
    x, labels = row.training(None, 0).batch(0, 64)
    real, real_labels = row.real("test", 100, None, 0)
    assert x.shape == (64, *row.shape) and real.shape == (100, *row.shape) and x.dtype == real.dtype == torch.float32
    assert 0 <= min(labels.min(), real_labels.min()) and max(labels.max(), real_labels.max()) < len(row.classes)
    features, said = row.features(None).of(real)
    assert features.shape[0] == 100 and features.ndim == 2
    assert said is None or (said == real_labels).double().mean() > 0.9
    if isinstance(row, names.Pictures):
        assert row.load("test", None).names == row.classes


@pytest.mark.parametrize("sampler", [name for name in names.SAMPLERS if name != "euler_maruyama"])
@pytest.mark.parametrize("grid", names.GRIDS)
def test_every_sampler_draws_from_a_run_on_every_grid(trained, sampler, grid):
    model, given = load_run(trained)
    settings = dataclasses.replace(given.sample, sampler=sampler, grid=grid)
    x = draw_samples(model, given, settings, 5, labels_for(given, "each", 5), seed=0)
    assert x.shape == (5, 2) and bool(x.isfinite().all())


def test_guidance_leads_the_samples_of_a_run_and_1_leaves_them_as_they_are(trained):
    model, given = load_run(trained)
    labels = labels_for(given, "each", 6)
    plain, guided, once = (
        draw_samples(model, given, dataclasses.replace(given.sample, guidance=w), 6, labels, seed=0) for w in (1, 3, 1)
    )
    grid = names.GRIDS[given.sample.grid](model.schedule, given.sample.steps)
    noise = prior(model.schedule, (6, 2), seeded(0))
    step = names.SAMPLERS[given.sample.sampler]()
    assert torch.equal(plain, once) and not torch.equal(plain, guided)
    led = sample(step, ClassifierFreeGuidance(model, 3), noise, grid, labels)
    assert_close(guided, led.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("tables", "sentence"),
    [
        ({"sample": {"guidance": 2.0}, "model": {"conditional": False}}, "this model has no labels"),
        ({"sample": {"guidance": 2.0}, "train": {"label_drop": 0.0}}, "hides no labels in training"),
        ({"sample": {"guidance": float("inf")}}, "guidance=inf"),
    ],
)
def test_guidance_of_what_cannot_be_guided_is_refused_before_training(tables, sentence):
    with pytest.raises(ValueError, match=sentence):
        recipe_from(tables, "")


# Flags


def test_help_explains_every_field(capsys):
    with pytest.raises(SystemExit) as end:
        main(["train", "moons", "--help"])
    assert end.value.code == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for table in dataclasses.fields(Recipe):
        for field in dataclasses.fields(getattr(Recipe(), table.name)):
            flag = f"--{table.name}.{field.name}".replace("_", "-")
            words = re.search(rf"{re.escape(flag)}[ ,](.*?)\(default", said)
            assert words and len(re.findall(r"[a-z]{3,}", words[1])) >= 3, f"{flag} has no help"
    assert "(default: 3000)" in said, "the defaults are those of the recipe named"


@pytest.mark.parametrize("command", ["sample", "evaluate"])
def test_help_of_the_other_commands_needs_no_run(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0 and "--sampler" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", ["", "fly", "train", "train nope", "sample nope", "evaluate .", "sample --n 3"])
def test_a_wrong_command_gets_a_sentence(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments.split()) == 2
    said = capsys.readouterr().err
    assert "diffusion-edu" in said and len(said) > 60 and "Traceback" not in said


def test_a_flag_misspelt_or_out_of_range_names_the_right_one(tiny, capsys):
    for flags, said in ((["--train.stepz", "3"], "--train.steps"), (["--train.steps", "0"], "steps=0")):
        with pytest.raises(SystemExit) as end:
            main(["train", tiny, *flags])
        assert end.value.code == 2 and said in capsys.readouterr().err


def test_the_module_runs_as_a_program():
    run = subprocess.run([sys.executable, "-m", "diffusion_edu", "--help"], capture_output=True, text=True)
    assert run.returncode == 0 and "usage: diffusion-edu train RECIPE" in run.stdout


@pytest.mark.parametrize(("missing", "flags"), [("tyro", []), ("torch.utils.tensorboard", ["--log.tensorboard"])])
def test_a_missing_library_gets_a_sentence(tiny, tmp_path, monkeypatch, capsys, missing, flags):
    monkeypatch.setitem(sys.modules, missing, None)
    assert main(["train", tiny, "--folder", str(tmp_path / "run"), *flags]) == 2
    assert "missing. Install it: pip install" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# What a run leaves


def test_a_finished_run_is_complete(trained):
    assert {path.name for path in trained.iterdir()} == LEFT
    assert read_recipe(trained / "recipe.toml") == read_recipe(trained.parent / "tiny.toml")
    assert list(losses(trained)) == list(range(5, 61, 5))
    assert sorted(path.name for path in (trained / "samples").iterdir()) == [f"{k:06d}.png" for k in (20, 40, 60)]
    Image.open(trained / "samples.png").verify()
    last, _ = load_tensors(trained / "weights.safetensors")
    checkpoint, metadata = load_tensors(trained / "checkpoint.safetensors")
    assert metadata["step"] == "60" and all(torch.equal(value, checkpoint[f"model.{k}"]) for k, value in last.items())
    assert any(key.startswith("optimizer.") for key in checkpoint)


def test_the_card_says_command_data_seconds_and_measured_quality(trained):
    card = (trained / "README.md").read_text()
    for words in ("diffusion-edu train", "tiny.toml --folder", "`moons`", "60 steps of 16 examples", "seconds on"):
        assert words in card
    for name in ("Fréchet distance", "KID"):
        assert re.search(rf"\| {name} ± standard error, n = 20 \| [\d.e-]+ ± [\d.e-]+ \| [\d.e-]+ ± [\d.e-]+ \|", card)
    assert re.search(r"\| classifier agrees with the label \| 0\.\d+ \| [01]\.\d+ \|", card)
    assert all(re.search(rf"\| {name} \| [01]\.\d+ \| [01]\.\d+ \|", card) for name in ("precision", "recall"))
    assert "training one" not in card, "a toy's training examples are never seen twice"


def test_a_finished_run_is_left_alone(trained, capsys):
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.is_file()}
    assert main(["train", str(trained.parent / "tiny.toml"), "--folder", str(trained)]) == 0
    assert "finished" in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.is_file()}


def test_a_folder_of_another_run_or_with_other_things_is_refused(trained, tiny, tmp_path, capsys):
    assert main(["train", tiny, "--folder", str(trained), "--train.batch-size", "32", "--mlp.depth", "2"]) == 2
    said = capsys.readouterr().err
    assert "mlp.depth is 1 there and 2 here; these differ too: train.batch_size" in said
    assert main(["train", tiny, "--folder", str(tmp_path)]) == 2
    assert "is not empty and holds no run" in capsys.readouterr().err


def test_tensorboard_is_written_where_it_is_asked_for(tiny, tmp_path, monkeypatch):
    written = []

    class Writer:
        def __init__(self, folder, purge_step):
            self.folder = folder

        def add_scalar(self, name, value, step):
            written.append((name, step))

        def close(self):
            written.append("closed")

    fake = type(sys)("torch.utils.tensorboard")
    fake.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    flags = ["--log.tensorboard", "--train.steps", "5", "--evaluate.n", "0"]
    assert main(["train", tiny, "--folder", str(tmp_path / "run"), *flags]) == 0
    assert ("loss", 5) in written and written[-1] == "closed"
    assert "Not measured" in (tmp_path / "run" / "README.md").read_text()


# Samples and their measures


def test_sample_writes_a_grid_and_numbers_and_a_seed_means_the_same_ones(trained, tmp_path):
    paths = [tmp_path / name for name in ("a.safetensors", "b.safetensors", "c.safetensors")]
    for path, seed in zip(paths, ("3", "3", "4"), strict=True):
        grid = ["--out", str(tmp_path / "grid.png"), "--tensors", str(path)]
        assert main(["sample", str(trained), "--n", "7", "--seed", seed, "--condition", "lower,0", *grid]) == 0
    (a, metadata), (b, _), (c, _) = map(load_tensors, paths)
    assert torch.equal(a["samples"], b["samples"]) and not torch.equal(a["samples"], c["samples"])
    assert a["labels"].tolist() == [1, 0, 1, 0, 1, 0, 1] and a["samples"].shape == (7, 2)
    assert metadata["sampler"] == "dpmpp_2m" and metadata["seed"] == "3"
    Image.open(tmp_path / "grid.png").verify()


def test_samples_leave_the_global_generator_alone(trained):
    before = torch.get_rng_state()
    model, given = load_run(trained)
    draw_samples(model, given, given.sample, 3, None, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--condition", "middle"], "a class in condition is 'middle'; it must be one of upper, lower, 0, 1"),
        (["--n", "0"], "n=0"),
        (["--seed", "-1"], "seed=-1"),
        (["--device", "abacus"], "'abacus' was asked for"),
        (["--sampler", "euler_maruyama"], "start just below 1"),
        (["--guidance", "2", "--condition", "none"], "it needs one integer label"),
    ],
)
def test_sample_says_what_it_cannot_do(trained, tmp_path, capsys, flags, sentence):
    assert main(["sample", str(trained), *flags, "--out", str(tmp_path / "x.png")]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()


def test_labels_of_a_model_without_labels_are_refused():
    given = recipe_from({"model": {"conditional": False}}, "")
    assert labels_for(given, "each", 4) is None and labels_for(given, "none", 4) is None
    with pytest.raises(ValueError, match="trained without labels"):
        labels_for(given, "3", 4)


def test_a_model_that_never_did_without_labels_is_not_asked_to():
    given = recipe_from({"train": {"label_drop": 0.0}}, "")
    assert labels_for(given, "each", 2) is not None
    with pytest.raises(ValueError, match="no label was hidden in this model's training"):
        labels_for(given, "none", 4)


def test_a_model_that_would_never_see_a_label_is_refused():
    with pytest.raises(ValueError, match="hides every label in training"):
        recipe_from({"train": {"label_drop": 1.0}}, "")
    without = recipe_from({"train": {"label_drop": 1.0}, "model": {"conditional": False}}, "")
    assert labels_for(without, "each", 2) is None


@pytest.mark.parametrize(("share", "words"), [("0", "never hidden, so"), ("0.25", "hidden in 25% of the examples, so")])
def test_the_card_says_how_often_labels_were_hidden(tmp_path, tiny, share, words):
    flags = ["--train.label-drop", share, "--evaluate.n", "0", "--folder", str(tmp_path / "run")]
    assert main(["train", tiny, *flags]) == 0
    assert words in (tmp_path / "run" / "README.md").read_text()


def test_a_model_without_labels_is_trained_and_measured(tmp_path, tiny):
    flags = ["--model.no-conditional", "--folder", str(tmp_path / "run")]
    assert main(["train", tiny, *flags]) == 0
    model, given = load_run(tmp_path / "run")
    assert model.network.embed.num_classes is None and labels_for(given, "each", 3) is None


def test_a_new_model_leaves_the_generators_of_a_gpu_alone(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", asked.append)
    before = torch.get_rng_state()
    recipe_from({}, "").build_model()
    assert not asked and torch.equal(torch.get_rng_state(), before)


def test_a_console_that_lacks_a_letter_gets_the_numbers_and_the_file_is_written(trained, tmp_path):
    command = [
        sys.executable,
        "-m",
        "diffusion_edu",
        "evaluate",
        str(trained),
        "--n",
        "20",
        "--out",
        str(tmp_path / "q"),
    ]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert "20" in run.stdout and json.loads((tmp_path / "q").read_text())


def test_a_folder_whose_name_is_no_utf8_is_refused_before_training(tiny, tmp_path, capsys):
    folder = tmp_path / os.fsdecode(b"run\xff")
    assert main(["train", tiny, "--folder", str(folder)]) == 2
    assert "is not in UTF-8, which checkpoints need" in capsys.readouterr().err
    assert not folder.exists()


def test_evaluate_prints_n_errors_and_floors(trained, tmp_path, capsys):
    assert main(["evaluate", str(trained), "--n", "50", "--out", str(tmp_path / "q.json")]) == 0
    said = capsys.readouterr().out
    assert "Fréchet distance ± standard error, n = 50" in said and "real examples" in said
    numbers = json.loads((tmp_path / "q.json").read_text())
    assert numbers["n"] == 50 and numbers["kid_standard_error"] > 0 and numbers["agreement_real"] > 0.9
    assert numbers["frechet"] > numbers["frechet_standard_error"] > 0 < numbers["frechet_real_standard_error"]


def test_real_training_pictures_in_place_of_samples_measure_as_the_floor(monkeypatch):
    given = recipe_from({"data": {"set": "mnist_5k"}}, "")
    asked = []

    def real(model, recipe, settings, n, condition, seed):
        asked.append(condition)
        x, labels = recipe.data_set.real("train", 4000, None, seed)
        return x[samples.alike(labels, condition)]

    monkeypatch.setattr(samples, "draw_samples", real)
    quality = measure(given.build_model(), given, given.sample, 200, seed=0)
    assert quality.frechet == quality.frechet_floor > (0, 0) and quality.kid == quality.kid_floor
    assert torch.equal(asked[0], given.data_set.real("test", 200, None, 0)[1])
    assert quality.agreement > 0.95 and quality.agreement_real > 0.9  # real pictures of what was asked
    assert quality.regions == quality.regions_floor and min(quality.regions) > 0.5
    assert quality.memorised.share == 1.0 and quality.memorised.expected == 0.8  # each is its own nearest example
    assert "| nearest example is a training one | 1.000 ± " in quality.table()


@pytest.mark.parametrize(
    ("labels", "wanted", "taken"),
    [
        ([0, 1, 0, 1, 2], [1, 0, 1], [1, 0, 3]),
        ([2, 2, 2], [2, 2], [0, 1]),
        ([0, 0, 1], [1, 1, 0], [2, 1, 0]),  # a second 1 is not there: the first that is left over
        ([0, 0], [5, 5], [0, 1]),
        ([0, 1], [], []),
    ],
)
def test_examples_are_chosen_with_the_labels_that_are_wanted(labels, wanted, taken):
    found = samples.alike(torch.tensor(labels), torch.tensor(wanted, dtype=torch.long))
    assert found.tolist() == taken


def test_the_real_points_of_a_toy_have_the_wanted_labels_too(monkeypatch):
    given, seen = recipe_from({"data": {"set": "moons"}, "model": {"conditional": True}}, ""), []
    monkeypatch.setattr(samples, "draw_samples", lambda model, recipe, settings, n, condition, seed: torch.zeros(n, 2))
    monkeypatch.setattr(samples, "kid", lambda x, y: seen.append((x, y)))
    measure(given.build_model(), given, given.sample, 300, seed=0)
    (_, reference), (other, _) = seen
    of_each = [given.data_set.features(None).of(x)[1].bincount(minlength=2) for x in (reference, other)]
    assert (of_each[0] - of_each[1]).abs().max() <= 1  # Bayes' rule misreads a point now and then


def test_a_run_that_is_not_whole_gets_a_sentence(trained, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no recipe\.toml"):
        load_run(tmp_path)
    (tmp_path / "recipe.toml").write_text((trained / "recipe.toml").read_text())
    with pytest.raises(FileNotFoundError, match=r"holds no model\.safetensors"):
        load_run(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((trained / "model.safetensors").read_bytes()[:-10])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load_run(tmp_path)


def test_half_precision_weights_of_a_run_can_be_sampled(trained, tmp_path):
    weights, _ = load_tensors(trained / "model.safetensors")
    save_tensors(tmp_path / "model.safetensors", {name: value.half() for name, value in weights.items()})
    (tmp_path / "recipe.toml").write_text((trained / "recipe.toml").read_text())
    model, given = load_run(tmp_path)
    assert draw_samples(model, given, given.sample, 3, None, seed=0).dtype == torch.float32


def test_a_model_that_comes_with_the_package_is_found_by_its_name(trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path / "assets" / "models" / "two_moons")
    monkeypatch.setattr(recipe.resources, "files", lambda package: tmp_path)
    model, given = load_run("two_moons")
    assert given.data.set == "moons" and not model.training
    with pytest.raises(FileNotFoundError, match=r"or one of the models that come with the package: two_moons\."):
        load_run("three_moons")


# Broken off and resumed


def test_the_log_is_cut_back_to_the_checkpoint_and_half_a_line_is_dropped(tmp_path):
    path = tmp_path / "metrics.csv"
    log = Log(path, 0)
    for step in (5, 10, 15):
        log.add(Progress(step, 20, 0.5, 1e-3, step / 10, 100.0))
    path.write_text(path.read_text() + "20,0.4")
    resumed = Log(path, 10)
    assert [row[0] for row in resumed.rows] == ["5", "10"] and resumed.seconds == 1.0
    resumed.add(Progress(15, 20, 0.5, 1e-3, 0.25, 100.0))
    assert path.read_text().splitlines()[-1] == "15,0.5,0.001,1.250,100.0"


def test_ctrl_c_saves_and_the_same_command_ends_as_if_nothing_had_been(trained, tmp_path, monkeypatch, capsys):
    command = ["train", str(trained.parent / "tiny.toml"), "--folder", str(tmp_path / "run")]
    add = Log.add

    def interrupted(self, progress):
        add(self, progress)
        if progress.step == 25:
            raise KeyboardInterrupt

    monkeypatch.setattr(Log, "add", interrupted)
    assert main(command) == 130
    assert "The same command goes on" in capsys.readouterr().err
    monkeypatch.setattr(Log, "add", add)
    assert main(command) == 0
    assert "Going on from step 25 of 60" in capsys.readouterr().err
    assert same_files(trained, tmp_path / "run")


def test_a_run_killed_at_its_very_end_is_finished_by_the_same_command(trained, tmp_path, monkeypatch):
    command = ["train", str(trained.parent / "tiny.toml"), "--folder", str(tmp_path / "run")]

    def dies(*args):
        raise KeyboardInterrupt

    run = importlib.import_module("diffusion_edu.cli.run")
    show = run._show

    def dies_at_the_end(trainer, *rest):
        return show(trainer, *rest) if trainer.step < 60 else dies()

    for function in ("_show", "save_weights", "measure", "_card"):
        with monkeypatch.context() as patch:
            patch.setattr(run, function, dies_at_the_end if function == "_show" else dies)
            assert main(command) == 130
    assert main(command) == 0
    assert {path.name for path in (tmp_path / "run").iterdir()} == LEFT and same_files(trained, tmp_path / "run")
    assert {path.name for path in (tmp_path / "run" / "samples").iterdir()} == {f"{k:06d}.png" for k in (20, 40, 60)}


def test_a_sampler_that_cannot_start_is_refused_before_training(tiny, tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(["train", tiny, "--sample.sampler", "euler_maruyama", "--folder", str(folder)]) == 2
    assert "euler_maruyama was asked to step from t = 1" in capsys.readouterr().err and not folder.exists()
    flags = ["--model.schedule", "vp", "--train.steps", "5", "--evaluate.n", "0", "--folder", str(folder)]
    assert main(["train", tiny, "--sample.sampler", "euler_maruyama", *flags]) == 0


def test_test_pictures_that_cannot_be_fetched_are_missed_before_training_and_by_evaluate(tmp_path, monkeypatch, capsys):
    def load(split, folder):
        if split == "test":
            raise RuntimeError("mnist_5k could not fetch the test pictures; try again with a connection.")
        return mnist_5k(split)

    rows = {**names.DATA, "mnist_5k": dataclasses.replace(names.DATA["mnist_5k"], load=load)}
    monkeypatch.setattr(recipe, "DATA", rows)
    (tmp_path / "few.toml").write_text(
        '[data]\nset = "mnist_5k"\n[unet]\nchannels = [8]\nblocks = [1]\n[train]\nsteps = 1\n'
        "[sample]\nsteps = 2\n[log]\nsamples = 4\n"
    )
    command = ["train", str(tmp_path / "few.toml"), "--folder", str(tmp_path / "run")]
    assert main(command) == 2
    assert "could not fetch the test pictures" in capsys.readouterr().err
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()
    assert main([*command, "--evaluate.n", "0"]) == 0
    assert main(["evaluate", str(tmp_path / "run"), "--n", "20"]) == 2
    assert "could not fetch the test pictures" in capsys.readouterr().err


def test_evaluate_measures_with_the_recipes_seed_and_bits(trained, monkeypatch):
    module, seeds = importlib.import_module("diffusion_edu.cli"), []
    text = (trained / "recipe.toml").read_text()
    assert "seed = 0" in text

    def noted(model, recipe, settings, n, seed, bits):
        seeds.append((n, seed, bits))
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "measure", noted)
    monkeypatch.setattr(module, "load_run", with_seed(module.load_run, 5))
    assert main(["evaluate", str(trained)]) == main(["evaluate", str(trained), "--seed", "7", "--bits", "2"]) == 130
    assert seeds == [(20, 5, 3), (20, 7, 2)]


def with_seed(load, seed):
    """``load_run`` of recipes whose evaluation has another seed."""

    def loaded(name):
        model, given = load(name)
        return model, dataclasses.replace(given, evaluate=dataclasses.replace(given.evaluate, seed=seed, bits=3))

    return loaded


def test_what_a_killed_process_left_is_cleared_away_and_what_an_editor_left_is_not(tmp_path):
    module = importlib.import_module("diffusion_edu.cli.run")
    left = [".checkpoint.safetensors.abc_1234", ".README.md.zzzzzzzz", "samples/.000020.png.a0a0a0a0"]
    kept = [".README.md.swp", ".recipe.toml.swp", ".metrics.csv.ods#", "README.md"]
    (tmp_path / "samples").mkdir()
    for name in (*left, *kept):
        (tmp_path / name).write_text("x")
    assert module._tidy(tmp_path) == 3
    assert {path.name for path in tmp_path.iterdir()} == {"samples", *kept}
    assert not list((tmp_path / "samples").iterdir())


def test_what_a_process_left_that_was_killed_at_its_first_file_is_no_other_run(tiny, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / ".recipe.toml.abc_1234").write_text("[data")
    assert main(["train", tiny, "--train.steps", "20", "--folder", str(run), "--evaluate.n", "0"]) == 0
    assert not list(run.glob(".*"))


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_the_parts_of_a_batch_may_change_in_a_run_where_no_dropout_goes_by_them(dropout, tmp_path):
    module = importlib.import_module("diffusion_edu.cli.run")
    table = {"data": {"set": "mnist_5k"}, "unet": {"dropout": dropout}}
    before, now = (recipe_from({**table, "train": {"accumulate": n}}, "") for n in (1, 2))
    (tmp_path / "recipe.toml").write_text(to_toml(before))
    if not dropout:
        module._same_run(now, tmp_path)
        return
    with pytest.raises(ValueError, match=r"another recipe: train\.accumulate is 1 there and 2 here"):
        module._same_run(now, tmp_path)


@pytest.mark.parametrize("another", [False, True], ids=["the same recipe", "another recipe"])
def test_what_another_process_did_while_this_one_began_is_not_written_over(
    another, tiny, tmp_path, monkeypatch, capsys
):
    module, run = importlib.import_module("diffusion_edu.cli.run"), tmp_path / "run"
    flags = ["--folder", str(run), "--evaluate.n", "0"]
    alone, began = module._alone, []

    def late(folder):  # before this one has the lock, the other one does all its work
        if not began:
            began.append(True)
            steps = ["--train.steps", "40", "--train.seed", "1"] if another else ["--train.steps", "20"]
            assert main(["train", tiny, *steps, *flags]) == 0
        return alone(folder)

    monkeypatch.setattr(module, "_alone", late)
    assert main(["train", tiny, "--train.steps", "20", *flags]) == 2
    said = "holds a run of another recipe" if another else "another process has been at work"
    assert said in capsys.readouterr().err
    assert (run / "README.md").is_file(), "the card of the run that is done"


def test_where_others_made_the_test_pictures_nobody_is_accused_of_copying(monkeypatch):
    model, settings = load_run("mnist")
    assert not names.DATA["mnist"].exchangeable and names.DATA["mnist_5k"].exchangeable
    row = dataclasses.replace(names.DATA["mnist_5k"], exchangeable=False)
    monkeypatch.setattr(recipe, "DATA", {**names.DATA, "mnist_5k": row})
    found = measure(model, settings, dataclasses.replace(settings.sample, steps=1), 10, 0)
    assert found.memorised is None


def test_a_finished_run_goes_further_by_another_cycle_as_if_it_had_been_asked_for_at_once(tiny, tmp_path, capsys):
    short = ["train", tiny, "--train.steps", "20", "--evaluate.n", "0"]
    long = ["train", tiny, "--train.steps", "40", "--train.cycles", "2", "--evaluate.n", "0"]
    assert main([*long, "--folder", str(tmp_path / "at once")]) == 0
    run = tmp_path / "in two"
    assert main([*short, "--folder", str(run)]) == 0
    assert "20 steps of 16 examples, " in (run / "README.md").read_text()
    assert main([*long, "--folder", str(run)]) == 0
    assert "Going on from step 20 of 40" in capsys.readouterr().err
    assert same_files(run, tmp_path / "at once")
    assert "40 steps of 16 examples in 2 cycles of the learning rate, " in (run / "README.md").read_text()

    for steps, cycles in ((20, 1), (60, 2), (60, 4)):  # fewer cycles, or others
        flags = ["--train.steps", str(steps), "--train.cycles", str(cycles), "--folder", str(run)]
        assert main(["train", tiny, *flags]) == 2
        assert "holds a run of another recipe" in capsys.readouterr().err


def test_the_card_of_a_shorter_run_does_not_stay_while_it_goes_further(tiny, tmp_path, monkeypatch):
    flags = ["--folder", str(tmp_path / "run"), "--evaluate.n", "0"]
    assert main(["train", tiny, "--train.steps", "20", *flags]) == 0

    def dies(*args):
        raise KeyboardInterrupt

    long = ["train", tiny, "--train.steps", "40", "--train.cycles", "2", *flags]
    with monkeypatch.context() as patch:
        patch.setattr(importlib.import_module("diffusion_edu.cli.run"), "_card", dies)
        assert main(long) == 130
    assert not (tmp_path / "run" / "README.md").exists()
    assert main(long) == 0
    assert "40 steps" in (tmp_path / "run" / "README.md").read_text()


def test_a_diverged_run_says_so(tiny, tmp_path, capsys):
    flags = ["--train.learning-rate", "1e30", "--train.clip-norm", "1e30", "--folder", str(tmp_path / "run")]
    assert main(["train", tiny, *flags]) == 1
    assert "no longer a number" in capsys.readouterr().err


# Many processes


@pytest.mark.slow
def test_two_processes_go_on_from_one_with_its_losses(tmp_path, monkeypatch):
    # global batch 8 on one process for 4 steps, then on two for 4 more: the curve is that of one process throughout
    path = tmp_path / "small.toml"
    path.write_text("""
        [data]
        set = "digits"
        [unet]
        channels = [8, 12]
        blocks = [1, 1]
        embedding = 16
        heads = 2
        [train]
        steps = 8
        batch_size = 8
        log_every = 1
        save_every = 4
        device = "cpu"
        [sample]
        steps = 2
        [evaluate]
        n = 20
    """)
    alone, together = tmp_path / "alone", tmp_path / "together"
    assert main(["train", str(path), "--folder", str(alone)]) == 0
    add = Log.add

    def interrupted(self, progress):
        add(self, progress)
        if progress.step == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(Log, "add", interrupted)
    command = ["train", str(path), "--folder", str(together)]
    assert main(command) == 130
    run, (first, second) = launched("torchrun", ["-m", "diffusion_edu", *command], together)
    assert run.returncode == 0, run.stderr
    assert run.stderr.count("Going on from step 4 of 8") == 1, "one process speaks"
    assert list(losses(together)) == list(range(1, 9))
    assert_close(list(losses(together).values()), list(losses(alone).values()), rtol=1e-4, atol=1e-5)
    assert {path.name for path in together.iterdir()} == LEFT
    assert "2 processes" in (together / "README.md").read_text()
    renamed = Counter(line.removeprefix("renamed ") for line in first if line.startswith("renamed"))
    assert renamed["checkpoint.safetensors"] == renamed["model.safetensors"] == 1, "at the end, and by one process"
    assert set(renamed.values()) == {1} and second == [], "the second process writes nothing"
    again, (_, second) = launched("torchrun", ["-m", "diffusion_edu", *command], together)
    assert again.returncode == 0 and again.stderr.count("holds this run, finished") == 1, again.stderr
    assert second == []
    one, two = (load_tensors(folder / "model.safetensors")[0] for folder in (alone, together))
    flat = lambda weights: torch.cat([weights[name].double().flatten() for name in sorted(one)])  # noqa: E731
    assert (flat(two) - flat(one)).norm() < 2e-3 * flat(one).norm()


def test_one_of_many_processes_ends_without_pythons_clearing_away(monkeypatch, capsys):
    # a gloo thread that drops a tensor while Python shuts down aborts the process; see cli.console
    calls = []
    monkeypatch.setattr(sys, "argv", ["diffusion-edu", "unknown"])
    with pytest.raises(SystemExit) as ended:
        console()
    assert ended.value.code == 2
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: calls.append("destroyed"))
    monkeypatch.setattr(os, "_exit", calls.append)
    with pytest.raises(SystemExit):  # only because os._exit has been replaced
        console()
    assert calls == ["destroyed", 2]
    assert "no command 'unknown'" in capsys.readouterr().err


def test_the_recipe_of_the_defaults_is_the_default_everywhere():
    assert recipe_from({}, "") == Recipe() and Recipe().train == TrainConfig()


def test_the_page_on_scale_has_the_numbers_of_the_recipe():
    page = (ROOT / "docs" / "training_at_scale.md").read_text()
    given = read_recipe(find_recipe("cifar10"))
    with torch.device("meta"):
        u = given.unet
        network = recipe.UNet(3, u.channels, u.blocks, 10, u.patch, u.attention, u.embedding, u.heads, u.dropout)
        with FlopCounterMode(display=False) as flops:
            network(torch.zeros(2, 3, 32, 32), torch.zeros(2), torch.zeros(2, dtype=torch.long)).sum().backward()
    N = sum(p.numel() for p in network.parameters())
    assert f"N = {N:,}" in page and f"costs {flops.get_total_flops() / 2 / 1e9:.1f} GFLOP" in page
    links = {"200 GB/s": 200e9, "20 GB/s": 20e9, "400 Gbit/s": 50e9, "100 Gbit/s": 12.5e9}
    rows = re.findall(r"^\| (\d+) \| .*?, (\S+ \S+) \| (\S+) \| (\S+) \| .* \| (\S+)(?: to (\S+))? \|$", page, re.M)
    assert len(rows) == 4
    for P, link, compute, reduce, low, high in rows:
        t_c = given.train.batch_size / int(P) / 2000
        t_a = 2 * (int(P) - 1) / int(P) * 4 * N / links[link]
        best, worst = t_c / max(t_c, t_c / 3 + t_a), t_c / (t_c + t_a)
        assert_close([float(compute), float(reduce)], [1e3 * t_c, 1e3 * t_a], rtol=0.03, atol=0)
        assert_close([float(low), float(high)], [worst, best], rtol=0, atol=0.01)


@pytest.mark.parametrize("seed", [2**63, 2**64])
def test_a_number_that_the_recipes_file_cannot_hold_is_refused_before_training(tiny, tmp_path, capsys, seed):
    assert main(["train", tiny, "--folder", str(tmp_path / "run"), "--train.seed", str(seed)]) == 2
    assert f"train.seed is {seed}; a whole number of TOML is below 2^63" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_path_that_is_no_utf8_does_not_keep_a_run_from_its_end(tmp_path):
    odd = tmp_path / os.fsdecode(b"r\xff.toml")
    odd.write_text(TINY)
    assert main(["train", str(odd), "--folder", str(tmp_path / "run")]) == 0
    out = ["--out", str(tmp_path / os.fsdecode(b"x\xff.png")), "--tensors", str(tmp_path / "x.safetensors")]
    assert main(["sample", str(tmp_path / "run"), "--n", "4", *out]) == 0


def test_numpys_floats_and_the_character_del_are_read_back():
    given = Recipe(data=DataConfig(folder="a\x7fb"), sample=SampleConfig(guidance=np.float64(1.5)))
    assert recipe_from(tomllib.loads(to_toml(given)), "") == given


def test_bits_of_points_are_refused_before_training(tiny, tmp_path, capsys):
    flags = ["--evaluate.n", "8", "--evaluate.bits", "2", "--folder", str(tmp_path / "run")]
    assert main(["train", tiny, *flags]) == 2
    assert "only 8-bit pictures have" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_a_grid_that_was_broken_off_is_drawn_when_the_run_goes_on(tiny, tmp_path, monkeypatch):
    command = ["train", tiny, "--folder", str(tmp_path / "run")]

    def dies(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(importlib.import_module("diffusion_edu.cli.run"), "_show", dies)
        assert main(command) == 130
    assert main(command) == 0
    assert len(list((tmp_path / "run" / "samples").iterdir())) == 3


def test_a_recipe_may_begin_with_the_mark_that_windows_puts_there(tmp_path):
    (tmp_path / "r.toml").write_text("[train]\nsteps = 3\n", encoding="utf-8-sig")
    assert read_recipe(tmp_path / "r.toml").train.steps == 3


def test_tensorboards_files_are_closed_where_a_run_is_broken_off(tiny, tmp_path, monkeypatch):
    written = []

    class Writer:
        def __init__(self, folder, purge_step):
            pass

        def add_scalar(self, name, value, step):
            raise KeyboardInterrupt

        def close(self):
            written.append("closed")

    fake = type(sys)("torch.utils.tensorboard")
    fake.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    assert main(["train", tiny, "--folder", str(tmp_path / "run"), "--log.tensorboard"]) == 130
    assert written == ["closed"]
