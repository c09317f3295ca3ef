"""How good the samples of a shipped model are: its report card over several seeds.

    python -m benchmarks.quality [--model fashion_mnist] [--seeds 6] [--write]

The card that comes with a model is one draw. Here each seed draws the samples and the real pictures of both kinds
anew, so that the means have standard errors that hold all of this chance. (Where there are no more than n test
pictures, they are the same each time, and that chance is not in the errors.) Beside the samples stand real training
pictures, as on the card, and these pictures with normal noise of a known size: a scale for a distance.
The goal is half the distance that noise of standard deviation 0.1 makes, on pixels in [-1, 1]. Where the features
hardly see this noise, half of it is less than real pictures get, and there is no goal.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks import report
from diffusion_edu import frechet_distance
from diffusion_edu.cli import Recipe, load_run
from diffusion_edu.cli.samples import Quality, measure, real_examples
from diffusion_edu.data import seeded

NOISE = 0.1


@dataclass(frozen=True)
class Draw:
    """What one seed gave: the card, and the distance of training pictures with noise."""

    card: Quality
    noisy: float


def noisy_distance(recipe: Recipe, n: int, seed: int, noise: float = NOISE) -> float:
    """The Fréchet distance of n training pictures with noise to n test pictures, both those of the card of a seed.

    Args:
        recipe: of a model with labels.
        n: examples in each set, at least 4.
        seed: of the choice of pictures, and of the noise.
        noise: its standard deviation, on pixels in [-1, 1]; 0 gives the card's distance of real pictures.
    """
    test, _, _, chosen = real_examples(recipe, n, seed)
    with_noise = chosen + noise * torch.randn(chosen.shape, generator=seeded(seed))
    of = recipe.data_set.features(recipe.data.folder).of
    return frechet_distance(of(with_noise)[0], of(test[: len(chosen)])[0])


def text_of(draws: Sequence[Draw]) -> str:
    """The table and whether the goal is reached, in Markdown.

    Raises:
        ValueError: if there are fewer than two draws: one has no spread.
    """
    if len(draws) < 2:
        raise ValueError(f"means over {len(draws)} seed have no standard error; measure at least 2.")
    cards, noisy = [draw.card for draw in draws], [draw.noisy for draw in draws]

    def cell(values: Sequence[float | None], digits: int) -> str:
        there = [value for value in values if value is not None]
        if len(there) < len(values):
            return ""
        value, error = report.mean(there)
        return f"{value:.{digits}f} ± {error:.{digits}f}"

    rows = [
        (name, cell([of(card) for card in cards], digits), cell([of_real(card) for card in cards], digits), scale)
        for name, digits, of, of_real, scale in (
            ("Fréchet distance", 3, lambda c: c.frechet.value, lambda c: c.frechet_floor.value, cell(noisy, 3)),
            ("KID", 4, lambda c: c.kid.value, lambda c: c.kid_floor.value, ""),
            ("precision", 3, lambda c: c.regions.precision, lambda c: c.regions_floor.precision, ""),
            ("recall", 3, lambda c: c.regions.recall, lambda c: c.regions_floor.recall, ""),
            ("classifier agrees with the label", 3, lambda c: c.agreement, lambda c: c.agreement_real, ""),
        )
    ]
    samples = statistics.mean(card.frechet.value for card in cards)
    floor = statistics.mean(card.frechet_floor.value for card in cards)
    goal = statistics.mean(noisy) / 2
    difference = report.mean([card.frechet.value - value / 2 for card, value in zip(cards, noisy, strict=True)])
    verdict = (
        f"{'is reached' if samples <= goal else 'is not reached'} (samples less goal, seed by seed: "
        f"{difference.value:+.3f} ± {difference.standard_error:.3f})"
    )
    return "\n\n".join(
        [
            report.table(
                ("measure", "samples", "training pictures", f"training pictures with noise of {NOISE:g}"), rows
            ),
            f"Half of what the noise makes is {goal:.3f}: "
            + (f"the goal {verdict}" if goal > floor else "less than what real pictures get, and so no goal")
            + f". The samples are at {samples / floor:.2f} times the floor.",
        ]
    )


def main(arguments: list[str] | None = None) -> None:
    """Draw, measure and print the table."""
    parser = argparse.ArgumentParser(description="A shipped model's report card over several seeds.")
    parser.add_argument("--model", default="fashion_mnist", help="a shipped model, or the folder of a run of pictures")
    parser.add_argument("--n", type=int, default=2000, help="samples a seed (default: 2000)")
    parser.add_argument("--seeds", type=int, default=6, help="how many seeds (default: 6)")
    parser.add_argument("--steps", type=int, help="of the sampler (default: the recipe's)")
    parser.add_argument("--guidance", type=float, help="its scale (default: the recipe's)")
    report.add_device(parser)
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
    given = parser.parse_args(arguments)
    if given.seeds < 2:
        parser.error("give at least two seeds: the mean over one has no standard error")

    model, recipe = load_run(given.model)
    if not recipe.model.conditional or not recipe.of_pictures:
        parser.error(f"{given.model} is no model of pictures with labels; give another")
    device = torch.device(given.device)
    model.to(device).network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    asked = {name: getattr(given, name) for name in ("steps", "guidance") if getattr(given, name) is not None}
    settings = replace(recipe.sample, **asked)
    draws = []
    for seed in range(given.seeds):
        card = measure(model, recipe, settings, given.n, seed)
        draws.append(Draw(card, noisy_distance(recipe, given.n, seed)))
        report.say(
            f"seed {seed}: samples {card.frechet.value:.3f}, real {card.frechet_floor.value:.3f}, "
            f"with noise {draws[-1].noisy:.3f} ({card.seconds:.0f} s)"
        )
    about = (
        f"{report.machine(device)}, fp32. Samples by {draws[0].card.sampling}; {draws[0].card.n} in each set, "
        f"means over {given.seeds} seeds ± their standard errors."
    )
    place = report.of_device(f"quality_{Path(given.model).name}", device)
    report.publish(place, f"{about}\n\n{text_of(draws)}", given.write)


if __name__ == "__main__":
    main()
