"""The models that come with the package: small, loadable, guided, and as good as a glance at their samples says."""

import re
from importlib import resources
from pathlib import Path

import pytest
import torch

from diffusion_edu import UNet, agreement, digit_classifier, predict
from diffusion_edu.cli import draw_samples, labels_for, load_run
from diffusion_edu.storage import load_tensors

MODELS = Path(str(resources.files("diffusion_edu"))) / "assets" / "models"
CLASSIFIERS = {"mnist": digit_classifier}


def test_each_shipped_model_is_one_that_is_tested_here():
    assert sorted(path.name for path in MODELS.iterdir()) == sorted(CLASSIFIERS)


@pytest.mark.parametrize("name", CLASSIFIERS)
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


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_samples_of_a_shipped_model_are_what_was_asked_for(name):
    model, recipe = load_run(name)
    labels = labels_for(recipe, "each", 200)
    settings = recipe.sample
    plain = draw_samples(model, recipe, settings, 200, labels, seed=0)
    none = draw_samples(model, recipe, settings, 200, None, seed=0)
    said, said_of_none = (predict(CLASSIFIERS[name](), x)[1] for x in (plain, none))
    assert agreement(said, labels) > {"mnist": 0.9}[name]
    assert agreement(said_of_none, labels) < 0.35, "without a label the classes come as they like"
    assert len(said_of_none.unique()) == 10, "and all of them come"
