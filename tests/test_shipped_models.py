"""The models that come with the package: small, loadable, guided, and as good as a glance at their samples says."""

import re
from importlib import resources
from pathlib import Path

import pytest
import torch

from diffusion_edu import UNet, agreement, digit_classifier, predict
from diffusion_edu.cli import draw_samples, labels_for, load_run, main, measure
from diffusion_edu.storage import load_tensors
from scripts import ship_model

MODELS = Path(str(resources.files("diffusion_edu"))) / "assets" / "models"
SHIPPED = {"mnist": (digit_classifier, 0.9)}  # name: what reads its samples, and the least share read as asked


def test_each_shipped_model_is_one_that_is_tested_here():
    assert sorted(path.name for path in MODELS.iterdir()) == sorted(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_model_is_small_and_in_half_precision_and_has_its_card(name):
    folder = MODELS / name
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "recipe.toml", "README.md", "metrics.csv"}
    path = folder / "model.safetensors"
    assert path.stat().st_size <= 5e6
    tensors, _ = load_tensors(path)
    model, recipe = load_run(name)
    assert isinstance(model.network, UNet) and not model.training
    parameters = {key for key, _ in model.named_parameters()}
    assert {tensors[key].dtype for key in parameters} == {torch.float16}
    assert 0.1 <= recipe.train.label_drop <= 0.2
    card = (folder / "README.md").read_text(encoding="utf-8")
    count = sum(p.numel() for p in model.parameters())
    assert f"{count:,} parameters" in card and f"{recipe.train.steps:,} steps" in card
    last = (folder / "metrics.csv").read_text().splitlines()[-1].split(",")
    assert int(last[0]) == recipe.train.steps
    n, value, floor = re.search(r"\| Fréchet distance, n = (\d+) \| (\S+) \| (\S+) \|", card).groups()
    assert int(n) == recipe.evaluate.n and float(value) > 0 and float(floor) > 0
    assert f"diffusion-edu sample {name} " in card


@pytest.mark.parametrize("name", SHIPPED)
def test_samples_of_a_shipped_model_are_what_was_asked_for(name):
    (classifier, least), (model, recipe) = SHIPPED[name], load_run(name)
    labels = labels_for(recipe, "each", 200)
    settings = recipe.sample
    plain = draw_samples(model, recipe, settings, 200, labels, seed=0)
    none = draw_samples(model, recipe, settings, 200, None, seed=0)
    said, said_of_none = (predict(classifier(), x)[1] for x in (plain, none))
    assert agreement(said, labels) > least
    assert agreement(said_of_none, labels) < 0.35, "without a label the classes come as they like"
    assert len(said_of_none.unique()) == 10, "and all of them come"


def test_a_finished_run_becomes_a_shipped_model_with_its_own_quality_in_the_card(tmp_path, monkeypatch):
    recipe = tmp_path / "tiny.toml"
    recipe.write_text("""
        [data]
        set = "moons"
        [mlp]
        width = 16
        depth = 1
        [train]
        steps = 20
        batch_size = 16
        log_every = 5
        device = "cpu"
        [sample]
        steps = 2
        [evaluate]
        n = 20
    """)
    monkeypatch.chdir(tmp_path)
    run = Path("run")
    assert main(["train", "tiny.toml", "--folder", "run"]) == 0
    monkeypatch.setattr(ship_model, "MODELS", tmp_path / "models")
    ship_model.ship(run, "two_moons")
    folder = tmp_path / "models" / "two_moons"
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "recipe.toml", "README.md", "metrics.csv"}
    card, of_run = ((where / "README.md").read_text(encoding="utf-8") for where in (folder, run))
    assert "diffusion-edu train tiny.toml --folder run\n" in of_run and "diffusion-edu train tiny.toml\n" in card
    assert "diffusion-edu sample two_moons" in card and "FOLDER" not in card and "half precision" in card
    story, _, _ = of_run.partition("| measure |")
    assert card.startswith(story.replace(" --folder run", ""))
    model, given = load_run(folder)
    assert measure(model, given, given.sample, 20, 0).table() in card and card.count("| measure |") == 1

    monkeypatch.setattr(ship_model, "LIMIT", 10)
    with pytest.raises(SystemExit, match="may ship"):
        ship_model.ship(run, "too_large")
    assert not (tmp_path / "models" / "too_large").exists()
    with pytest.raises(ValueError, match="nothing like"):
        ship_model.shipped_card("# another card", "x", measure(model, given, given.sample, 20, 0))
