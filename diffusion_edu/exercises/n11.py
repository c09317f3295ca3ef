"""The exercises of ``11_score_matching``."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from ..analytic import GaussianMixture
from ..checks import Exercise, diagnose, listed
from ..data import seeded
from ..schedule import CosineSchedule

__all__ = [
    "PROGRAMS",
    "annealed",
    "basins",
    "bug_hunt",
    "dsm_loss",
    "levels",
    "mixture_score",
    "run_program",
    "step_size",
]

WALKERS = 4000  # of the learner's annealed Langevin
SHARE = 0.8  # of the data lie in the left heap
LEFT_RIGHT = GaussianMixture(
    torch.tensor([SHARE, 1 - SHARE], dtype=torch.float64),
    torch.tensor([[-1.0], [1.0]], dtype=torch.float64),
    torch.tensor([0.1, 0.1], dtype=torch.float64),
)

PROGRAMS = tuple("ABCDEF")
HONEST = "D"
COIN = GaussianMixture(
    torch.tensor([0.3, 0.7], dtype=torch.float64),
    torch.tensor([[-1.0], [1.0]], dtype=torch.float64),
    torch.zeros(2, dtype=torch.float64),
)
COIN_SCHEDULE = CosineSchedule()
RATIOS = torch.exp(torch.linspace(math.log(4.0), math.log(0.25), 12, dtype=torch.float64))  # sigma / alpha, falling
MOVES, SIZE = 12, 0.4
RUNS = 2000  # walkers of a program
HONEST_RUNS = 24  # how often a measure is taken on the honest program, to learn how much it varies by itself
LIMIT = 6.0  # standard deviations above the mean of the honest runs: further up, a program is ranked as broken


# ----------------------------------------------------------------------------------------------- 11.1


def _mixture_score(attempt: Callable[..., object]) -> str | None:
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    means = torch.tensor([-1.0, 0.5, 1.5], dtype=torch.float64)
    stds = torch.tensor([0.5, 0.8, 0.4], dtype=torch.float64)
    x = torch.linspace(-2.5, 2.5, 9, dtype=torch.float64)
    away = x[:, None] - means
    bells = torch.exp(-((away / stds) ** 2) / 2)
    slopes = -away / stds**2

    def averaged(by: Tensor, own: Tensor = slopes) -> Tensor:
        return (by * own).sum(1) / by.sum(1)

    right = averaged(weights * bells / stds)
    wrong = {
        "the sign is turned: the score points to where the density grows": -right,
        "this is the slope of the density; the score is the slope of its logarithm, so divide by the density": (
            (weights * bells / stds * slopes).sum(1) / math.sqrt(2 * math.pi)
        ),
        "the components' scores are averaged with the weights w_k; at a given x each counts with its probability "
        "given x": (weights * slopes).sum(1),
        "the weights w_k are missing in the probabilities given x": averaged(bells / stds),
        "in the probabilities given x each bell lacks its normaliser 1 / s_k, which does not cancel where the s_k "
        "differ": averaged(weights * bells),
        "the distance from a component's mean is divided by its standard deviation, and the variance belongs there": (
            averaged(weights * bells / stds, -away / stds)
        ),
        "this is the score of the likeliest component alone; the others count too, each with its probability": (
            slopes.gather(1, (weights * bells / stds).argmax(1, keepdim=True)).squeeze(1)
        ),
        "the components' scores are added, and not averaged with their probabilities given x": slopes.sum(1),
    }
    return diagnose(attempt(x.clone(), weights.clone(), means.clone(), stds.clone()), right, wrong)


# ----------------------------------------------------------------------------------------------- 11.2


def _dsm_loss(attempt: Callable[..., object]) -> str | None:
    alpha, sigma = torch.tensor(0.6, dtype=torch.float64), torch.tensor(1.7, dtype=torch.float64)
    x_0, eps = torch.randn(2, 6, 3, generator=seeded(11, 2), dtype=torch.float64)

    def score(x_t: Tensor) -> Tensor:
        return torch.tanh(x_t) - 0.4 * x_t

    def loss(output: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        return weight * ((output - target) ** 2).mean(1)

    x_t = alpha * x_0 + sigma * eps
    target, s = -eps / sigma, score(x_t)
    right = loss(s, target, sigma**2)
    wrong = {
        "the target's sign is turned: the score points back, from x_t towards alpha x_0, and eps points away": (
            loss(s, -target, sigma**2)
        ),
        "the target lacks its 1 / sigma: the slope of log q(x_t | x_0) is -eps / sigma": loss(s, -eps, sigma**2),
        "the target is divided by sigma once too often: x_t - alpha x_0 is sigma eps, so one sigma cancels": (
            loss(s, -eps / sigma**2, sigma**2)
        ),
        "the weight sigma^2 is missing": loss(s, target, torch.ones_like(sigma)),
        "the weight is sigma, and sigma^2 was asked for": loss(s, target, sigma),
        "x_t was made without alpha: x_t = alpha x_0 + sigma eps": (loss(score(x_0 + sigma * eps), target, sigma**2)),
        "x_t was made with the variance: sigma eps was asked for, not sigma^2 eps": (
            loss(score(alpha * x_0 + sigma**2 * eps), target, sigma**2)
        ),
        "the score is asked at the clean x_0; it has to be asked at the noised x_t": (
            loss(score(x_0), target, sigma**2)
        ),
        "the target forgets alpha: it is the slope of log q(x_t | x_0), whose centre is alpha x_0": (
            loss(s, -(x_t - x_0) / sigma**2, sigma**2)
        ),
        "there is a factor 1/2 that was not asked for": right / 2,
        "each example's numbers were added up; their mean was asked for": right * 3,
    }
    given = attempt(score, x_0.clone(), eps.clone(), alpha, sigma)
    if isinstance(given, Tensor) and given.ndim == 0:
        return "one number came back for the whole batch; one for each example was asked for"
    return diagnose(given, right, wrong)


# ----------------------------------------------------------------------------------------------- 11.3


def _step_size(h: object) -> str | None:
    v = 4.0
    wrong = {
        "this is v/10, right only for infinitely small steps: the variance is v / (1 - h/(2v)), so solve that": v / 10,
        "this is h/v; multiply by v": 2 * (1 - 1 / 1.05),
        "this makes the standard deviation 5 % too large, and the variance was asked for": 2 * v * (1 - 1 / 1.05**2),
        "the factor 2 is missing: the denominator is 1 - h/(2v)": v * (1 - 1 / 1.05),
        "this is h/(2v); multiply by 2v": 1 - 1 / 1.05,
        "this is sqrt(h/v), a step in standard deviations; h itself was asked for": math.sqrt(2 * (1 - 1 / 1.05)),
    }
    return diagnose(h, 2 * v * (1 - 1 / 1.05), wrong, atol=2e-3, rtol=0.0)


# ----------------------------------------------------------------------------------------------- 11.4


class _Recorded:
    """A score that remembers at which noise levels it was asked."""

    def __init__(self, score: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.score = score
        self.asked: list[float] = []

    def __call__(self, x: Tensor, sigma: object) -> Tensor:
        level = torch.as_tensor(sigma, dtype=torch.float64).flatten()[0]  # one for all walkers
        self.asked.append(float(level))
        return self.score(x, level)


def _exact_score(x: Tensor, sigma: Tensor) -> Tensor:
    stds = torch.sqrt(LEFT_RIGHT.stds**2 + sigma**2)
    return GaussianMixture(LEFT_RIGHT.weights, LEFT_RIGHT.means, stds).score(x)


def _annealed(attempt: Callable[..., object]) -> str | None:
    # First two levels with a score that is one number: what is added to x is then known in mean and variance.
    two, moves, size, slope = torch.tensor([2.0, 0.5], dtype=torch.float64), 3, 0.8, 3.0
    probe = _Recorded(lambda x, sigma: torch.full_like(x, slope))
    start = torch.zeros(20_000, 1, dtype=torch.float64)
    moved = attempt(probe, start.clone(), two, moves, size, seeded(11, 4))
    if not isinstance(moved, Tensor) or moved.shape != start.shape:
        return "return the points after the last move, a tensor of the shape of x"
    if probe.asked == [2.0] * moves + [0.5] * moves:
        pass
    elif probe.asked == [0.5] * moves + [2.0] * moves:
        return "the levels are walked from the smallest sigma to the largest; annealing goes from much noise to little"
    elif probe.asked == [2.0, 0.5] * moves:
        return "the loops are the wrong way round: all the moves at one level first, then the next level"
    elif probe.asked == [2.0, 0.5]:
        return "there is one move at each level, and several were asked for"
    elif set(probe.asked) == {0.5}:
        return "only the last level is used, so this is plain Langevin at the smallest sigma"
    else:
        levels = ", ".join(f"{sigma:g}" for sigma in probe.asked)
        said = f"asked at sigma = {levels}" if levels else "never asked"
        return (
            f"the score was {said}; with {moves} moves at each of the levels 2 and 0.5 it should be asked {moves} "
            f"times at 2 and then {moves} times at 0.5"
        )
    steps = (size * two) ** 2
    fixed = (size * two[-1]) ** 2 * len(two)
    wrong = {
        "the step is the same at each level; h = (size sigma)^2 grows with the level's sigma": moves * slope * fixed,
        "the points walk against the score: its sign is turned": -moves * slope * steps.sum(),
        "the step is size sigma, and its square belongs there": moves * slope * (size * two).sum(),
        "the step is size sigma^2, where (size sigma)^2 belongs": moves * slope * (size * two**2).sum(),
        "the score is multiplied by 2 h; in this course's convention it is h, and the noise sqrt(2 h)": (
            2 * moves * slope * steps.sum()
        ),
        "the score is multiplied by h/2, which goes with noise of variance h; here it is h, with sqrt(2 h)": (
            moves * slope * steps.sum() / 2
        ),
    }
    what = "the mean of what is added to x is wrong"
    told = diagnose(moved.double().mean(), moves * slope * steps.sum(), wrong, atol=0.18, rtol=0.0, what=what)
    if told is not None:
        return told
    wrong = {
        "there is no noise: the points climb to the tops of the hills and stay there": torch.zeros_like(steps.sum()),
        "the noise has the variance h, and 2 h belongs there: its factor is sqrt(2 h)": moves * steps.sum(),
        "the noise is multiplied by h, and its factor is sqrt(2 h)": moves * (steps**2).sum(),
        "the noise is multiplied by 2 h, and its factor is the root of that": moves * (4 * steps**2).sum(),
        "the noise is the same at each level": moves * 2 * fixed,
    }
    what = "the variance of what is added to x is wrong"
    told = diagnose(moved.double().var(), 2 * moves * steps.sum(), wrong, atol=0.02, rtol=0.06, what=what)
    if told is not None:
        return told

    # Now the two heaps, and the weights that it finds.
    sigmas = torch.exp(torch.linspace(math.log(2.0), math.log(0.1), 30, dtype=torch.float64))
    start = 2 * torch.randn(WALKERS, 1, generator=seeded(11, 5), dtype=torch.float64)
    end = attempt(_Recorded(_exact_score), start, sigmas, 10, 0.4, seeded(11, 6))
    if not isinstance(end, Tensor) or not bool(torch.isfinite(end).all()):
        return "with the score of two heaps the points run away to infinity"
    share = float((end < 0).double().mean())
    if abs(share - SHARE) > 0.06:
        return f"a share of {share:.2f} of the points ends in the left heap, where {SHARE} of the data are"
    return None


# ----------------------------------------------------------------------------------------------- 11.5


def levels() -> tuple[Tensor, Tensor]:
    """alpha and sigma of the twelve noise levels that the programs of exercise 11.5 walk down, each (12,)."""
    t = COIN_SCHEDULE.time_at(-2 * torch.log(RATIOS))
    return COIN_SCHEDULE.alpha(t), COIN_SCHEDULE.sigma(t)


@lru_cache(maxsize=64)
def _walk(name: str, seed: int) -> Tensor:
    generator = seeded(11, ord(name), seed)
    denoiser = COIN.denoiser(COIN_SCHEDULE)
    times = COIN_SCHEDULE.time_at(-2 * torch.log(RATIOS))
    x = torch.randn(RUNS, 1, generator=generator, dtype=torch.float64)
    walk = []
    for t in times:
        alpha, sigma = COIN_SCHEDULE.alpha(t), COIN_SCHEDULE.sigma(t)
        h = (SIZE * sigma) ** 2
        for _ in range(MOVES):
            x_0_hat = denoiser(x, t)
            eps_hat = (x - (1.0 if name == "B" else alpha) * x_0_hat) / sigma
            score = -eps_hat if name == "F" else -eps_hat / sigma
            if name == "A":
                score = -score
            width = h if name == "C" else torch.sqrt(2 * h)
            x = x + h * score + width * torch.randn(x.shape, generator=generator, dtype=torch.float64)
        walk.append(x)
    sample = denoiser(x, t)
    if name == "E":
        sample = sample + torch.sqrt(2 * h) * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    return torch.stack([*walk, sample]).squeeze(-1)


def run_program(name: str, seed: int = 0) -> Tensor:
    """The walk of one of six programs that claim to be annealed Langevin on a coin with P(+1) = 0.7.

    Args:
        name: "A", "B", "C", "D", "E" or "F".
        seed: of the draws.

    Returns:
        x of shape (13, 2000), float64: x[i] after the moves at level i = 0 ... 11, and x[12] the samples.

    Raises:
        ValueError: for another name.
    """
    if name not in PROGRAMS:
        raise ValueError(f"the programs are A, B, C, D, E and F, and {name!r} was asked for.")
    return _walk(name, seed).clone()


_MISSED = {
    "A": "A runs away from the data, so that its states are far too wide on the way; the last denoising hides it",
    "B": "B is a little too wide at the noisy levels; at the last ones, where alpha is nearly 1, it hardly shows",
    "C": "C has hardly any noise on the way: compare the spread of each state with that of q(x_t)",
    "E": "E walks as it should; only its samples lie around -1 and +1, and a coin shows exactly -1 or +1",
    "F": "F pulls too weakly where the noise is small: compare the spread at the last levels with that of q(x_t)",
}


def _bug_hunt(measure: Callable[..., object]) -> str | None:
    alphas, sigmas = levels()

    def of(name: str, seed: int) -> float | None:
        value = measure(run_program(name, seed), alphas.clone(), sigmas.clone())
        try:
            number = float(torch.as_tensor(value, dtype=torch.float64).item())
        except (TypeError, ValueError, RuntimeError):
            return None
        return math.inf if math.isnan(number) else number

    usual = [of(HONEST, seed) for seed in range(1, 1 + HONEST_RUNS)]
    marks = {name: of(name, 0) for name in PROGRAMS}
    numbers = [number for number in (*usual, *marks.values()) if number is not None]
    if len(numbers) < len(usual) + len(marks):
        return "a measure is one number for a program, the larger the worse: add up what you compare, or take the worst"
    honest = torch.tensor([number for number in usual if number is not None], dtype=torch.float64)
    if not bool(honest.isfinite().all()):
        return "on an honest program your measure gives numbers that are not finite"
    limit = float(honest.mean() + LIMIT * honest.std()) + 1e-9
    worse = {name for name, number in marks.items() if number is not None and number > limit}
    if HONEST in worse:
        return (
            f"it ranks program {HONEST}, which is honest, among the broken: another run of the same program gives "
            "quite another value. Average over the walkers"
        )
    escaped = [name for name in _MISSED if name not in worse]
    if not escaped:
        return None
    found = (
        f"it ranks {listed(sorted(worse))} behind the honest one" if worse else "it ranks none behind the honest one"
    )
    return f"{found}, and cannot tell {listed(escaped)} from it. " + ". ".join(_MISSED[name] for name in escaped)


# ----------------------------------------------------------------------------------------------- 11.6


def _on_line(weights: list[float], means: list[float], stds: list[float]) -> GaussianMixture:
    weights_, means_, stds_ = (torch.tensor(numbers, dtype=torch.float64) for numbers in (weights, means, stds))
    return GaussianMixture(weights_, means_[:, None], stds_)


LOOSE = 2000  # walkers in each of the three cases
MOVES_AT_ONE_LEVEL = 300
FAR_HEAPS = (
    _on_line([0.9, 0.1], [-1.0, 2.0], [0.02, 0.02]),
    _on_line([0.2, 0.1, 0.7], [-1.5, 0.0, 2.0], [0.02, 0.06, 0.02]),
    _on_line([0.5, 0.5], [-1.0, 1.0], [0.03, 0.03]),
)


def _starts() -> list[Tensor]:
    """Where the walkers of each case begin, (2000,): a bell, a stretch of the line, and one side of the valley."""
    generator = seeded(11, 7)
    bell = 0.3 + torch.randn(LOOSE, generator=generator, dtype=torch.float64)
    stretch = 4 * torch.rand(LOOSE, generator=generator, dtype=torch.float64) - 2
    one_side = 0.2 + 2 * torch.rand(LOOSE, generator=generator, dtype=torch.float64)
    return [bell, stretch, one_side]


@lru_cache(maxsize=1)
def _walked() -> list[Tensor]:
    """The share of the walkers in each heap after plain Langevin with the exact score, (K,) for each case."""
    generator = seeded(11, 8)
    shares = []
    for heaps, start in zip(FAR_HEAPS, _starts(), strict=True):
        h = (0.4 * float(heaps.stds.min())) ** 2
        x = start[:, None]
        for _ in range(MOVES_AT_ONE_LEVEL):
            z = torch.randn(x.shape, generator=generator, dtype=torch.float64)
            x = x + h * heaps.score(x) + math.sqrt(2 * h) * z
        shares.append(heaps.responsibilities(x).mean(0))
    return shares


def _share_of(chosen: Tensor, heaps: GaussianMixture) -> Tensor:
    return torch.bincount(chosen, minlength=len(heaps.weights)).double() / len(chosen)


def _basins(attempt: Callable[..., object]) -> str | None:
    starts, given = _starts(), []
    for heaps, start in zip(FAR_HEAPS, starts, strict=True):
        answer = attempt(start.clone(), heaps.weights.clone(), heaps.means[:, 0].clone(), heaps.stds[:, 0].clone())
        shares = torch.as_tensor(answer).detach().double()
        if shares.shape != heaps.weights.shape:
            return f"return one share for each heap: the shape {tuple(heaps.weights.shape)}, not {tuple(shares.shape)}"
        given.append(shares)
    if not bool(torch.cat(given).isfinite().all()):
        return (
            "there is a 0/0: far from all heaps each bell is 0 in floating point. Compare logarithms of the bells, "
            "or distances counted in widths"
        )

    def table(of: Callable[[GaussianMixture, Tensor], Tensor]) -> Tensor:  # of each heap in each case, (7,)
        return torch.cat([of(heaps, start) for heaps, start in zip(FAR_HEAPS, starts, strict=True)])

    def nearest(heaps: GaussianMixture, start: Tensor) -> Tensor:
        return _share_of((start[:, None] - heaps.means[:, 0]).abs().argmin(1), heaps)

    def least(heaps: GaussianMixture, start: Tensor) -> Tensor:
        return _share_of(heaps.component_log_prob(start[:, None]).argmin(1), heaps)

    def underflown(heaps: GaussianMixture, start: Tensor) -> Tensor:
        return _share_of(heaps.component_log_prob(start[:, None]).exp().argmax(1), heaps)

    def twice(heaps: GaussianMixture, start: Tensor) -> Tensor:
        shares = heaps.weights * _share_of(heaps.component_log_prob(start[:, None]).argmax(1), heaps)
        return shares / shares.sum()

    right, weights = torch.cat(_walked()), table(lambda heaps, start: heaps.weights)
    wrong: dict[str, object] = {
        "these are the weights of the density. At this noise no walker sees them: they count in the valleys alone, and "
        "nobody can stay there": lambda shares: bool(torch.allclose(shares, weights)),
        "these are equal shares, which forget where the walkers start": table(
            lambda heaps, start: torch.full_like(heaps.weights, 1 / len(heaps.weights))
        ),
        "the sign is turned: the score leads uphill, into the heap that the start belongs to, and not away from it": (
            table(least)
        ),
        "the shares stand in the wrong order: give them in the order of the means": torch.cat(
            [shares.flip(0) for shares in _walked()]
        ),
        "these are numbers of walkers; divide by how many there are": lambda shares: bool(
            torch.allclose(shares / LOOSE, right, atol=0.02)
        ),
        "each walker goes to the heap whose middle is nearest, and that is right for equal widths alone: count "
        "distances in widths of the heap": table(nearest),
        "far from all heaps each bell is 0 in floating point, and the first of equals was taken: compare logarithms "
        "of the bells, or distances counted in widths": table(underflown),
        "the weights are counted once more: a start's own heap is all that matters": table(twice),
        "these are nearly the weights of the density, as annealed Langevin finds them. Here there is one level alone, "
        "and no noise that joins the heaps": lambda shares: bool((shares - weights).abs().max() < 0.1),
    }
    return diagnose(torch.cat(given), right, wrong, atol=0.02, rtol=0.0)


mixture_score = Exercise(
    "11.1", _mixture_score, hint="the score of each component, averaged with the component's probability given x."
)
dsm_loss = Exercise(
    "11.2", _dsm_loss, hint="make x_t, ask the score there, compare with -eps / sigma, weigh by sigma^2."
)
step_size = Exercise("11.3", _step_size, hint="v / (1 - h/(2v)) = 1.05 v.")
annealed = Exercise(
    "11.4",
    _annealed,
    hint="two loops: over the levels, and over the moves at one level; h = (size sigma)^2 is the level's own.",
    praise="the weights come out right, though the points began anywhere",
)
bug_hunt = Exercise(
    "11.5",
    _bug_hunt,
    hint="the states have a variance that you know, alpha^2 Var[x_0] + sigma^2, and a coin's samples are -1 or +1.",
    praise="it ranks A, B, C, E and F behind the honest D",
)
basins = Exercise(
    "11.6",
    _basins,
    hint="the score at a start is that of one heap alone, (11.3): find out which, for each walker.",
    praise="the walkers do as you said, whatever the weights",
)
