"""The models that come with the package: small, loadable, guided, and as good as a glance at their samples says."""

import functools
import json
import math
import re
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest
import torch

from diffusion_edu import (
    ClassifierGuidance,
    CosineSchedule,
    GaussianMixture,
    Treated,
    UNet,
    agreement,
    clip_x_0,
    dequantize,
    digit_classifier,
    dpmpp_2m,
    fashion_classifier,
    noisy_digit_classifier,
    noisy_digit_classifier_card,
    noisy_fashion_classifier,
    noisy_fashion_classifier_card,
    predict,
    prior,
    sample,
    times,
)
from diffusion_edu.cli import draw_samples, labels_for, load_run, main, measure, recipe_from, samples
from diffusion_edu.cli.recipe import EvaluateConfig
from diffusion_edu.data import seeded
from diffusion_edu.storage import load_tensors
from scripts import ship_model, train_noisy_classifier

ROOT = Path(__file__).resolve().parents[1]
MODELS = Path(str(resources.files("diffusion_edu"))) / "assets" / "models"
# name: what reads its samples, and the least share read as asked
SHIPPED = {"mnist": (digit_classifier, 0.9), "fashion_mnist": (fashion_classifier, 0.8)}


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
    pattern = r"\| Fréchet distance ± standard error, n = (\d+) \| (\S+) ± (\S+) \| (\S+) ± (\S+) \|"
    n, *numbers = re.search(pattern, card).groups()
    assert int(n) == recipe.evaluate.n and all(float(number) > 0 for number in numbers)
    assert f"diffusion-edu sample {name} " in card


@pytest.mark.parametrize("name", SHIPPED)
def test_samples_of_a_shipped_model_are_what_was_asked_for(name):
    (classifier, least), (model, recipe) = SHIPPED[name], load_run(name)
    labels = labels_for(recipe, "each", 100)
    settings = recipe.sample
    plain = draw_samples(model, recipe, settings, 100, labels, seed=0)
    none = draw_samples(model, recipe, settings, 100, None, seed=0)
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

    (folder / "README.md").write_text(re.sub(r"\| precision .*\n", "", card), encoding="utf-8")
    ship_model.measure_again("two_moons")
    assert (folder / "README.md").read_text(encoding="utf-8") == card, "as it was measured before"

    monkeypatch.setattr(ship_model, "LIMIT", 10)
    with pytest.raises(SystemExit, match="may ship"):
        ship_model.ship(run, "too_large")
    assert not (tmp_path / "models" / "too_large").exists()
    with pytest.raises(ValueError, match="nothing like"):
        ship_model.shipped_card("# another card", "x", measure(model, given, given.sample, 20, 0))


# the classifiers of noisy pictures

# name: itself, its card, what reads samples, the model that it guides; the least accuracy on pictures that are nearly
# clean and at t = 0.7, and the most nats on the former
NOISY = {
    "digit": (noisy_digit_classifier, noisy_digit_classifier_card, digit_classifier, "mnist", (0.97, 0.8, 0.1)),
    "fashion": (
        noisy_fashion_classifier,
        noisy_fashion_classifier_card,
        fashion_classifier,
        "fashion_mnist",
        (0.86, 0.7, 0.37),
    ),
}


@pytest.fixture(params=NOISY)
def noisy(request):
    """Name, classifier, card, reader, model's name, bounds and test set of one, where its pictures are at hand."""
    classifier, card, reader, guides, bounds = NOISY[request.param]
    subject = train_noisy_classifier.SUBJECTS[request.param]
    if request.param == "fashion" and not Path("/usr/share/datasets/fashion-mnist").is_dir():
        pytest.skip("Debian's dataset-fashion-mnist is not installed")
    test = subject.load("test")
    return request.param, classifier, card(), reader, guides, bounds, test


def test_a_classifier_of_noisy_pictures_has_the_accuracies_of_its_card_on_pictures_it_never_saw(noisy):
    _, classifier, card, _, _, (nearly_clean, noisier, most_nats), test = noisy
    assert card["t"] == list(train_noisy_classifier.LEVELS)
    rows = list(zip(card["t"], card["test_accuracy"], card["test_nats"], strict=True))
    for t, accuracy, nats in rows if len(test) <= 1000 else rows[::5]:
        found, found_nats = train_noisy_classifier.measured(classifier(), test, t)
        # five of a thousand may fall on the other side on a machine that rounds differently: near t = 1 all are close
        assert abs(found - accuracy) <= 0.005 and found_nats == pytest.approx(nats, abs=2e-3), t
    clean, noise = card["test_accuracy"][0], card["test_accuracy"][-1]
    assert clean > nearly_clean and abs(noise - card["chance_accuracy"]) < 0.06
    assert card["test_accuracy"][card["t"].index(0.7)] > noisier
    assert card["test_nats"][0] < most_nats and max(card["test_nats"]) < card["chance_nats"]
    assert card["chance_accuracy"] == torch.bincount(test.labels).max() / len(test.labels)


def test_a_classifier_of_noisy_pictures_is_small_and_fits_the_shipped_model(noisy):
    name, made, card, _, guides, _, _ = noisy
    classifier, (model, _) = made(), load_run(guides)
    path = MODELS.parent / f"noisy_{name}_classifier.safetensors"
    assert path.stat().st_size < 1e6
    assert {value.dtype for value in load_tensors(path)[0].values()} == {torch.float16}
    assert sum(p.numel() for p in classifier.parameters()) == card["parameters"]
    assert type(classifier.schedule) is type(model.schedule) and not classifier.training
    assert not any(p.requires_grad for p in classifier.parameters())


def test_guided_by_a_classifier_of_noisy_pictures_samples_are_what_was_asked_for(noisy):
    _, classifier, _, reader, guides, _, _ = noisy
    model, _ = load_run(guides)
    asked = torch.arange(30) % 10
    x = prior(model.schedule, (30, 1, 28, 28), seeded(0))

    def drawn(scale):
        guided = ClassifierGuidance(model, classifier(), scale, interval=(0, 0.99))
        return sample(dpmpp_2m(), Treated(guided, clip_x_0), x, times(8), asked)

    none = sample(dpmpp_2m(), Treated(model, clip_x_0), x, times(8))
    assert torch.equal(drawn(0.0), none), "scale 0 is the model without a label"
    said_of_none, said = (predict(reader(), found)[1] for found in (none, drawn(4.0)))
    assert agreement(said, asked) > agreement(said_of_none, asked) + 0.3


def test_training_a_classifier_of_noisy_pictures_again_writes_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(train_noisy_classifier, "LEVELS", (0.5,))
    config = replace(train_noisy_classifier.CONFIG, steps=3, batch_size=8)
    for folder in ("a", "b"):
        torch.rand(1)  # whatever was drawn before does not matter
        train_noisy_classifier.train("digit", tmp_path / folder, config)
    a, b = ((tmp_path / folder / "noisy_digit_classifier.safetensors").read_bytes() for folder in ("a", "b"))
    assert a == b
    again = replace(config, seed=1)
    train_noisy_classifier.train("digit", tmp_path / "c", again)
    assert a != (tmp_path / "c" / "noisy_digit_classifier.safetensors").read_bytes()


def test_what_is_shipped_is_float32_whatever_the_default_type():
    shipped = {
        "digits": digit_classifier.__wrapped__,
        "clothes": fashion_classifier.__wrapped__,
        "noisy digits": noisy_digit_classifier.__wrapped__,
        "noisy clothes": noisy_fashion_classifier.__wrapped__,
        **{name: functools.partial(lambda name: load_run(name)[0], name) for name in SHIPPED},
    }
    torch.set_default_dtype(torch.float64)
    try:
        types = {name: {p.dtype for p in make().parameters()} for name, make in shipped.items()}
    finally:
        torch.set_default_dtype(torch.float32)
    assert types == {name: {torch.float32} for name in shipped}


def test_notebook_14_says_what_the_means_over_seeds_say():
    document = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    notebook = json.loads((ROOT / "notebooks" / "14_evaluation.ipynb").read_text(encoding="utf-8"))
    (text,) = ("".join(cell["source"]) for cell in notebook["cells"] if cell["id"] == "cards-after")

    def above(model: str, measure: str) -> tuple[float, float]:
        """How far the samples are above real pictures, and the standard error of that, as if independent."""
        place = document.split(f"<!-- quality_{model}: begin -->")[1].split("<!-- quality_")[0]
        row = next(line for line in place.splitlines() if line.startswith(f"| {measure} |"))
        (samples, of_samples), (real, of_real), *_ = re.findall(r"(-?[\d.]+) ± ([\d.]+)", row)
        return float(samples) - float(real), math.hypot(float(of_samples), float(of_real))

    (digits, chance), (clothes, chance_of_clothes) = (above(m, "Fréchet distance") for m in ("mnist", "fashion_mnist"))
    assert f"the digits are {digits:.2f} above their real pictures, and that is many standard errors" in text
    assert digits > 10 * chance
    assert f"the clothes {clothes:.2f}, less than two" in text and clothes < 2 * chance_of_clothes
    (digits, chance), (clothes, chance_of_clothes) = (above(m, "KID") for m in ("mnist", "fashion_mnist"))
    assert digits > 5 * chance and clothes < 2 * chance_of_clothes, "sure of the digits, and not of the clothes"
    for quantity, words in (
        ("precision", "in precision by"),
        ("recall", "in recall by"),
        ("classifier agrees with the label", "in the classifier's agreement by"),
    ):
        clothes, chance = above("fashion_mnist", quantity)
        assert f"{words} {-clothes:.3f}" in text and -clothes > 2 * chance
    digits, chance = above("mnist", "recall")
    clothes, chance_of_clothes = above("fashion_mnist", "recall")
    assert abs(digits + clothes) < math.hypot(chance, chance_of_clothes), "as far above as the others are below"


class OnPictures:
    """A mixture's denoiser of points, asked with pictures."""

    def __init__(self, mixture, schedule):
        self.inner, self.schedule = mixture.denoiser(schedule), schedule

    def __call__(self, x_t, t, condition=None):
        return self.inner(x_t.flatten(1), t).reshape(x_t.shape)


def test_bits_per_dim_are_those_of_the_exact_density():
    # 1 + 1 pixels; what a code by this density needs is known: -log2 p(x + u) per pixel, and log2(127.5) for the unit
    mixture = GaussianMixture(
        torch.tensor([0.3, 0.7]), torch.tensor([[-0.5, 0.2], [0.4, 0.1]]), torch.tensor([0.2, 0.3])
    )
    model = OnPictures(mixture, CosineSchedule())
    pictures = torch.randint(0, 256, (400, 1, 1, 2), generator=seeded(0)) / 127.5 - 1
    log_p = mixture.log_prob(dequantize(pictures, seeded(2)).flatten(1))
    each = -log_p / (2 * math.log(2)) + math.log2(127.5)
    value, error = samples.code_length(model, pictures, None, seed=1)
    assert value == pytest.approx(float(each.mean()), abs=0.05), "one probe a picture: unbiased, with noise of its own"
    assert error == pytest.approx(float(each.std()) / 20, rel=0.1)


def test_a_report_card_has_bits_where_they_are_asked_for():
    model, recipe = load_run("mnist")
    recipe = replace(recipe, sample=replace(recipe.sample, steps=2))
    quality = measure(model, recipe, recipe.sample, 8, 0, bits=3)
    assert quality.measured_bits == 3 and quality.as_dict()["bits_per_dim"] == quality.bits.value
    assert 1 < quality.bits.value < 4 and quality.bits_training != quality.bits
    assert re.search(
        r"\| bits per dim of test pictures, n = 3 \| \S+ ± \S+ \| \S+ ± \S+ of training ones \|", quality.table()
    )
    assert "bits per dim" not in measure(model, recipe, recipe.sample, 8, 0).table()
    with pytest.raises(ValueError, match="bits=9 and n=8; give from 2 to n"):
        measure(model, recipe, recipe.sample, 8, 0, bits=9)
    with pytest.raises(ValueError, match="bits=1 and n=1000; give from 2 to n"):
        EvaluateConfig(bits=1)
    points = recipe_from({"data": {"set": "moons"}}, "")
    with pytest.raises(ValueError, match="bits=3 for points; only 8-bit pictures have them"):
        measure(model, points, recipe.sample, 8, 0, bits=3)
