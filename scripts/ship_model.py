"""Put a finished run's model into the package, ``diffusion_edu/assets/models/NAME``, in half precision.

    diffusion-edu train mnist
    python scripts/ship_model.py runs/mnist mnist

Copied are the recipe, the log and the model card; the averaged weights are rounded to float16, and measured again as
they will be loaded. That quality goes into the card.
"""

import argparse
import re
import shutil
from pathlib import Path

import torch

from diffusion_edu.cli import load_run, measure
from diffusion_edu.cli.recipe import RECIPE, WEIGHTS_FILE
from diffusion_edu.storage import save_weights, write_atomically

MODELS = Path(__file__).resolve().parents[1] / "diffusion_edu" / "assets" / "models"
LIMIT = 5e6  # bytes of weights: everybody who installs the package downloads them


def main() -> None:
    """Round, measure, write."""
    parser = argparse.ArgumentParser(description="Put a finished run's model into the package.")
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("name", help="what load_run will call it")
    asked = parser.parse_args()
    card = (asked.run / "README.md").read_text(encoding="utf-8")  # a run that is not finished has none
    folder = MODELS / asked.name
    folder.mkdir(parents=True, exist_ok=True)
    model, _ = load_run(asked.run)
    save_weights(model, folder / WEIGHTS_FILE, torch.float16)
    size = (folder / WEIGHTS_FILE).stat().st_size
    if size > LIMIT:
        raise SystemExit(f"{folder / WEIGHTS_FILE} has {size / 1e6:.1f} MB; at most {LIMIT / 1e6:.0f} MB may ship.")
    for name in (RECIPE, "metrics.csv"):
        shutil.copyfile(asked.run / name, folder / name)

    model, recipe = load_run(folder)
    quality = measure(model, recipe, recipe.sample, recipe.evaluate.n, recipe.evaluate.seed)
    print(quality)
    table = [f"| {' | '.join(row)} |" for row in quality.rows()]
    head, rows, tail = re.fullmatch(r"(.*\n\|---\|---\|---\|\n)((?:\|.*\|\n)+)(.*)", card, re.DOTALL).groups()  # type: ignore[union-attr]
    assert rows.count("\n") == len(table)
    card = head + "".join(f"{row}\n" for row in table) + tail
    card = re.sub(r"`model\.safetensors` holds .*? that was set\.", SHIPPED, card, flags=re.DOTALL)
    card = card.replace("FOLDER", asked.name)
    write_atomically(folder / "README.md", card.encode())
    print(f"{folder}: {size / 1e6:.2f} MB")


SHIPPED = (
    "`model.safetensors` holds the averaged weights in half precision, of which these numbers are; `recipe.toml`\n"
    "everything that was set, and `metrics.csv` the log of the training. `scripts/ship_model.py` put them here."
)

if __name__ == "__main__":
    main()
