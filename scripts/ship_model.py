"""Put a finished run's model into the package, ``diffusion_edu/assets/models/NAME``, in half precision.

    diffusion-edu train mnist
    python -m scripts.ship_model runs/mnist mnist
    python -m scripts.ship_model --again mnist

Copied are the recipe, the log and the model card; the averaged weights are rounded to float16, and measured again as
they will be loaded. That quality goes into the card. ``--again`` measures a model that is there already, where what is
measured has changed.
"""

import argparse
import re
import shutil
from pathlib import Path

import torch

from diffusion_edu.cli import Quality, load_run, measure
from diffusion_edu.cli.recipe import RECIPE, WEIGHTS_FILE
from diffusion_edu.storage import save_weights, write_atomically

MODELS = Path(__file__).resolve().parents[1] / "diffusion_edu" / "assets" / "models"
LIMIT = 5e6  # bytes of weights: everybody who installs the package downloads them


SHIPPED = """\
`model.safetensors` holds the averaged weights in half precision, with which these numbers were measured;
`recipe.toml` everything that was set, and `metrics.csv` the log of the training. `scripts/ship_model.py` put them
here. The weights are under the licence of the package; the data that they were learnt from have one of their own."""


def main() -> None:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description="Put a finished run's model into the package.")
    parser.add_argument("run", type=Path, nargs="?", help="the run's folder")
    parser.add_argument("name", help="what load_run calls it")
    parser.add_argument("--again", action="store_true", help="measure the model that is there, and mend its card")
    asked = parser.parse_args()
    if asked.again == (asked.run is not None):
        parser.error("give a run's folder and a name, or --again and a name.")
    if asked.again:
        measure_again(asked.name)
    else:
        ship(asked.run, asked.name)


def ship(run: Path, name: str) -> None:
    """Round, measure, write."""
    card = (run / "README.md").read_text(encoding="utf-8")  # a run that is not finished has none
    model, _ = load_run(run)
    size = 2 * sum(p.numel() for p in model.parameters())
    if size > LIMIT:
        raise SystemExit(f"{run} has {size / 1e6:.1f} MB of weights in float16; at most {LIMIT / 1e6:.0f} MB may ship.")
    folder = MODELS / name
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(model, folder / WEIGHTS_FILE, torch.float16)
    for file in (RECIPE, "metrics.csv"):
        shutil.copyfile(run / file, folder / file)

    write_atomically(folder / "README.md", shipped_card(card, name, measured(folder)).encode())
    print(f"{folder}: {size / 1e6:.2f} MB")


def measure_again(name: str) -> None:
    """Put the quality of a model in the package into its card anew."""
    path = MODELS / name / "README.md"
    card = with_quality(path.read_text(encoding="utf-8"), measured(path.parent))
    write_atomically(path, card.encode())


def measured(folder: Path) -> Quality:
    """Of the weights as they will be loaded."""
    model, recipe = load_run(folder)
    of = recipe.evaluate
    quality = measure(model, recipe, recipe.sample, of.n, of.seed, of.bits)
    print(quality)
    return quality


def with_quality(card: str, quality: Quality) -> str:
    """The card with another table. Raises ValueError if it has none."""
    return replaced(card, r"(?<=\n)\| measure \|(?:.*\n)*?(?=\n)", quality.table() + "\n")


def shipped_card(card: str, name: str, quality: Quality) -> str:
    """The card of a run, made that of the model in the package.

    Raises:
        ValueError: if the card lacks one of the places to fill in: ``cli.run`` writes them.
    """
    card = with_quality(card, quality)
    for pattern, text in (
        (r"`model\.safetensors` holds (?:.|\n)*? that was set\.", SHIPPED),
        (r"\bFOLDER\b", name),
    ):
        card = replaced(card, pattern, text)
    return re.sub(r"(?m)^(diffusion-edu train .*?) --folder \S+", r"\1", card)  # where the run lay is nobody's business


def replaced(card: str, pattern: str, text: str) -> str:
    """The card with a text in place of what looks like the pattern. Raises ValueError if nothing does."""
    card, places = re.subn(pattern, lambda match: text, card)
    if not places:
        raise ValueError(f"the run's card has nothing like {pattern}; does cli.run write its cards otherwise now?")
    return card


if __name__ == "__main__":
    main()
