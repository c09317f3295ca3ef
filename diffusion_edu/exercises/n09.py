"""The exercises of ``09_ddim``."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from itertools import pairwise

import torch
from torch import Tensor

from ..analytic import GaussianMixture
from ..checks import Exercise, diagnose, hunted, strange
from ..data import global_seed, mnist_5k, moons, seeded
from ..denoiser import Denoiser
from ..metrics import agreement, digit_classifier, predict
from ..sampler import ddim, invert, sample, times
from ..schedule import BetaSchedule, CosineSchedule

__all__ = [
    "BETAS",
    "MIXTURE",
    "bug_hunt",
    "coefficients",
    "edit",
    "edit_digits",
    "exact_inversion",
    "run_loop",
    "step_with_eta",
]

BETAS = torch.linspace(0.004, 0.2, 100, dtype=torch.float64)  # of the six loops
STEPS = 40  # a loop visits 40 of the 100 levels
ETA = 0.5
SAMPLES = 2000
MIXTURE = GaussianMixture(  # the data of the six loops, on a line
    torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64),
    torch.tensor([[-1.5], [-0.2], [1.3]], dtype=torch.float64),
    torch.tensor([0.12, 0.06, 0.15], dtype=torch.float64),
)
LOOPS = tuple("ABCDEF")
HONEST, OTHER_ETA = "D", "A"  # the second draws its noise with another eta, which is no bug
HONEST_RUNS = 16
LIMIT = 8.0  # standard deviations

EDIT_STEPS = 20  # up, and as many down, in exercise 9.4
NEAR = 0.15  # root mean square, in units of the data
UP_ONLY = -2  # stands in for the label of the way down: there is no way down
DIGIT_STEPS = 8  # up, and as many down, in exercise 9.6
SEEN_NEW, SEEN_OLD, OWN = 0.6, 0.25, 0.85  # what section 7 asks: two shares of labels, and a ratio of distances
BACK = 0.07  # root mean square of a pixel, of the digits that keep their label
SAME = 0.01  # in the same unit: answers this close come from the same computation
ROUND_TRIP = 1e-5  # the error that exercise 9.3 allows, in units of the data
GENTLE = GaussianMixture(
    torch.tensor([0.4, 0.6], dtype=torch.float64),
    torch.tensor([[-0.6], [0.5]], dtype=torch.float64),
    torch.tensor([0.5, 0.7], dtype=torch.float64),
)


# ------------------------------------------------------------------------------------------------ 9.1


def _step_with_eta(attempt: Callable[..., object]) -> str | None:
    x_t, x_0_hat, z = torch.randn(3, 5, 2, generator=seeded(9, 1), dtype=torch.float64)
    a_t, s_t, a_s, s_s = (torch.tensor(number, dtype=torch.float64) for number in (0.5, 0.9, 0.8, 0.7))
    share = 1 - (a_t * s_s / (a_s * s_t)) ** 2  # 1 - rho
    eps_hat = (x_t - a_t * x_0_hat) / s_t

    def step(std: Tensor, kept: Tensor, noise: Tensor | None = None) -> Tensor:
        return a_s * x_0_hat + kept * eps_hat + (std if noise is None else noise) * z

    def member(std: Tensor) -> Tensor:
        return step(std, torch.sqrt(s_s**2 - std**2))

    for eta in (0.6, 0.0, 1.0):
        std = eta * s_s * torch.sqrt(share)
        kept = torch.sqrt(s_s**2 - std**2)
        wrong = {}
        if eta > 0:
            wrong = {
                "no new noise is in it: std z is missing": step(0 * std, kept),
                "the old noise is kept in full: with new noise in, sqrt(sigma_s^2 - std^2) of it remains": step(
                    std, s_s
                ),
                "the new noise is multiplied by its variance, and its standard deviation belongs there": step(
                    std, kept, std**2
                ),
                "the new noise has the width of the step forward, sigma_t sqrt(1 - rho); the posterior's has sigma_s": (
                    member(eta * s_t * torch.sqrt(share)) if eta < 0.7 else x_t + 1e9
                ),
                "1 - rho is a share of a variance: the standard deviation needs its root, sqrt(1 - rho)": (
                    member(eta * s_s * share)
                ),
                "sigma_s - std stands where sqrt(sigma_s^2 - std^2) belongs: variances subtract, not deviations": step(
                    std, s_s - std
                ),
            }
        if 0 < eta < 1:
            wrong |= {
                "eta multiplies the standard deviation; here it multiplies the variance": member(
                    eta**0.5 * s_s * torch.sqrt(share)
                ),
                "eta is a share of the posterior's standard deviation, sigma_s sqrt(1 - rho), not of sigma_s": member(
                    eta * s_s
                ),
                "this is the step for eta = 1 whatever eta is": member(s_s * torch.sqrt(share)),
            }
        wrong |= {
            "x_0_hat has the factor alpha_t; in x_s it has alpha_s": (a_t - a_s) * x_0_hat + member(std),
            "the noise that is kept is eps_hat, and here x_t - alpha_t x_0_hat was not divided by sigma_t": (
                a_s * x_0_hat + kept * s_t * eps_hat + std * z
            ),
            "x_t stands where eps_hat belongs: take alpha_t x_0_hat out and divide by sigma_t": (
                a_s * x_0_hat + kept * x_t + std * z
            ),
        }
        diagnosis = diagnose(attempt(x_t, x_0_hat, z, a_t, s_t, a_s, s_s, eta), member(std), wrong)
        if diagnosis is not None:
            return diagnosis if diagnosis in wrong else f"with eta = {eta:g}, {diagnosis}"
    return None


# ------------------------------------------------------------------------------------------------ 9.2


def _coefficients(on_x_0: object, on_x_t: object) -> str | None:
    wrong = {
        "the two have changed places: a stands before x_0, b before x_t": torch.tensor([0.6, 0.44]),
        "this is the member without new noise; the variance 0.36^2 has to be taken out of sigma_s^2 first": (
            torch.tensor([0.35, 0.75])
        ),
        "b is what is kept of eps; x_t holds 0.8 eps, so divide it by sigma_t, and then find a": torch.tensor(
            [0.8 - 0.6 * 0.48, 0.48]
        ),
        "a is alpha_s here, but b x_t brings some x_0 too: a + b alpha_t = alpha_s": torch.tensor([0.8, 0.6]),
        "deviations were subtracted, 0.6 - 0.36; it is the variances that add up": torch.tensor([0.62, 0.3]),
        "this also has the right marginal, but with the noise turned over: of the two roots take the positive one": (
            torch.tensor([1.16, -0.6])
        ),
        "these are the posterior's, whose std is 0.496; here it has to be 0.36": torch.tensor([0.546875, 0.421875]),
    }
    numbers = torch.tensor([float(part) for part in (on_x_0, on_x_t)], dtype=torch.float64)  # type: ignore[arg-type]
    return diagnose(numbers, torch.tensor([0.44, 0.6]), wrong, atol=6e-4, rtol=0.0)


# ------------------------------------------------------------------------------------------------ 9.3


def _up(
    denoiser: Callable[..., Tensor], x: Tensor, grid: Tensor, at_target: bool, labels: Tensor | None = None
) -> Tensor:
    """The walk up that asks the denoiser once a step (at t if at_target, else at s), in the form with eps_hat."""
    schedule = CosineSchedule()
    upwards = grid.flip(0)
    for s, t in pairwise(upwards):
        asked = t if at_target or s == 0 else s
        alpha, sigma = schedule.alpha(asked), schedule.sigma(asked)
        eps_hat = (x - alpha * denoiser(x, asked, labels)) / sigma
        x = schedule.alpha(t) * (x - schedule.sigma(s) * eps_hat) / schedule.alpha(s) + schedule.sigma(t) * eps_hat
    return x


def _exact_inversion(attempt: Callable[..., object]) -> str | None:
    denoiser = GENTLE.denoiser(CosineSchedule())
    grid = 0.9 * times(18)
    x_0 = GENTLE.sample(300, seeded(9, 3))
    top = torch.as_tensor(attempt(denoiser, x_0.clone(), grid.clone())).double()
    if top.shape != x_0.shape:
        return f"the noises have the shape {tuple(top.shape)}, and the data have {tuple(x_0.shape)}"
    if not bool(top.isfinite().all()):
        return (
            "there are numbers in it that are not finite: at s = 0 nothing may be divided by sigma_s, and no denoiser "
            "is asked at 0"
        )
    error = _rms(sample(ddim(), denoiser, top, grid) - x_0)
    if error <= ROUND_TRIP:
        return None
    *_, package = invert(denoiser, x_0, grid)
    known = {
        "this is the way down, and the data were taken for noise: walk times.flip(0)": sample(
            ddim(), denoiser, x_0, grid
        ),
        "each step asks once, at t, about x_s: put the new x_t into the right side, until it stops changing": (
            _up(denoiser, x_0, grid, True)
        ),
        "this is what invert() gives with its one question a step; an exact way back needs more iterations": package.x,
        "the denoiser is asked at s, the time that the step comes from; the step down will ask at t, about x_t": _up(
            denoiser, x_0, grid, False
        ),
        "these are the data as they came": x_0,
    }
    for words, wrong in known.items():
        if _rms(top - wrong) < 1e-6:
            return words
    return (
        f"going down again with ddim() misses the data by {error:.1e} (root mean square), and {ROUND_TRIP:.0e} was "
        "asked for: take more rounds at each step, or look for a slip in the equation"
    )


def _rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


# ------------------------------------------------------------------------------------------------ 9.4


@lru_cache(maxsize=1)
def _points() -> tuple[GaussianMixture, Tensor]:
    mixture = GaussianMixture(*moons())
    return mixture, mixture.given(0).sample(100, seeded(9, 4))


@lru_cache(maxsize=16)
def _edited(up: int | None, down: int | None) -> Tensor:
    """The points brought up with one label (or none), and down with another."""
    mixture, x_0 = _points()
    labels = [None if label is None else torch.full((len(x_0),), label) for label in (up, down)]
    denoiser, grid = mixture.denoiser(CosineSchedule()), times(EDIT_STEPS)
    *_, top = invert(denoiser, x_0, grid, labels[0], iterations=4)
    return top.x if down == UP_ONLY else sample(ddim(), denoiser, top.x, grid, labels[1])


def _edit(attempt: Callable[..., object]) -> str | None:
    mixture, x_0 = _points()
    denoiser, grid = mixture.denoiser(CosineSchedule()), times(EDIT_STEPS)
    old, new = (torch.full((len(x_0),), label) for label in (0, 1))

    def answer() -> Tensor:
        return torch.as_tensor(attempt(denoiser, x_0.clone(), old.clone(), new.clone(), grid.clone())).double()

    with global_seed(9):
        first, second = answer(), answer()
    if first.shape != x_0.shape:
        return f"the edited points have the shape {tuple(first.shape)}, and {tuple(x_0.shape)} was asked for"
    if not bool(first.isfinite().all()):
        return "there are numbers in it that are not finite"
    if _rms(first - second) > 1e-6:
        return (
            "asked twice about the same points, it gives two answers: fresh noise is in it, and it blurs the points. "
            "Start from the noise that the points came from, and go down with eta = 0"
        )
    known: dict[str, tuple[int | None, int | None]] = {
        "the points came back as they were: go down with new_labels": (0, 0),
        "they were inverted without a label; a conditional sampler makes them from a different noise than an "
        "unconditional sampler does": (None, 1),
        "they were inverted with the labels that they should get, not with those that they have": (1, 1),
        "they are inverted with the new labels and brought down with the old ones: it is the other way round": (1, 0),
        "they went down without a label": (0, None),
        "these are the noises; now go down from them with new_labels": (0, UP_ONLY),
    }
    distance = _rms(first - _edited(0, 1))
    if distance <= NEAR:
        return None
    distances = {words: _rms(first - _edited(*labels)) for words, labels in known.items()}
    closest = min(distances, key=lambda words: distances[words])
    if distances[closest] < NEAR:
        return closest
    return (
        f"these are not the edited points: they lie {distance:.2f} from them (root mean square). Invert with labels, "
        "then sample(ddim(), ...) from there with new_labels, on the same times"
    )


# ------------------------------------------------------------------------------------------------ 9.5


@lru_cache(maxsize=64)
def _run(name: str, seed: int) -> Tensor:
    schedule = BetaSchedule(BETAS)
    alphas, sigmas, T = schedule.alpha_bars.sqrt(), (1 - schedule.alpha_bars).sqrt(), len(BETAS)
    denoiser, generator = MIXTURE.denoiser(schedule), seeded(9, ord(name), seed)
    ks = torch.linspace(T, 1, STEPS).round().long().tolist()
    x = torch.randn(SAMPLES, 1, generator=generator, dtype=torch.float64)
    for i, k in enumerate(ks):
        before = ks[i + 1] if i + 1 < len(ks) else 0
        if name == "B":
            before = max(k - T // STEPS, 0)
        if name == "E" and i + 1 == len(ks):
            before = 1
        a_t, s_t, a_s, s_s = alphas[k], sigmas[k], alphas[before], sigmas[before]
        x_0_hat = denoiser(x, schedule.time(k))
        eps_hat = (x - a_t * x_0_hat) / s_t
        std = (0.8 if name == OTHER_ETA else ETA) * s_s * torch.sqrt(1 - (a_t * s_s / (a_s * s_t)) ** 2)
        kept = s_s if name == "C" else torch.sqrt(s_s**2 - std**2)
        width = std**2 if name == "F" else std
        x = a_s * x_0_hat + kept * eps_hat + width * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    return x.squeeze(1)


def run_loop(name: str, seed: int = 0) -> Tensor:
    """The samples of one of six programs that claim to sample ``MIXTURE`` by DDIM, with the exact denoiser.

    They take 40 of 100 levels, with eta = 0.5; one honest program uses another eta.

    Args:
        name: "A", "B", "C", "D", "E" or "F".
        seed: of the draws.

    Returns:
        (2000,), float64.

    Raises:
        ValueError: for another name.
    """
    if name not in LOOPS:
        raise ValueError(f"the loops are A, B, C, D, E and F, and {name!r} was asked for.")
    return _run(name, seed).clone()


_MISSED = {
    "B": "B ends about half of its steps a little above the level that it tells the next step: its heaps are too "
    "wide, and all of them have some noise left",
    "C": "C keeps all the old noise and adds new: its samples lie too far out, and the heaps at the sides are too full",
    "E": "E is right except for its last step: every heap is a little too wide, and the sizes of the heaps are right",
    "F": "F has heaps that are too narrow, and too many samples in the middle one",
}


def _bug_hunt(attempt: Callable[..., object]) -> str | None:
    accused = strange(
        lambda name, seed: attempt(run_loop(name, seed), MIXTURE),
        LOOPS,
        HONEST,
        runs=HONEST_RUNS,
        limit=LIMIT,
        atol=1e-6,
    )
    if accused is None:
        return "on an honest loop your measure gives numbers that are not finite"
    for name in (HONEST, OTHER_ETA):
        if name in accused:
            return f"it accuses loop {name}, which is honest" + (
                ", though it uses another eta than the rest. Its samples have nearly the right distribution: measure "
                "how far samples are from that, and nothing finer"
                if name == OTHER_ETA
                else ": another run of the same loop gives quite another value. Average over the samples"
            )
    return hunted(accused, _MISSED)


# ------------------------------------------------------------------------------------------------ 9.6


def _digits() -> tuple[Tensor, Tensor, Tensor]:
    """Ten test digits, one of each label, and two more; their labels; and the new labels: the last two keep theirs."""
    test = mnist_5k("test")
    of = [(test.labels == label).nonzero().flatten() for label in range(10)]
    chosen = torch.stack([places[0] for places in of] + [of[2][1], of[8][1]])
    labels = test.labels[chosen]
    return test.x_0[chosen].float(), labels, torch.where(torch.arange(len(chosen)) < 10, (labels + 3) % 10, labels)


def _failed(edited: Tensor, x_0: Tensor, old: Tensor, new: Tensor) -> str | None:
    """Which of section 7's measures fails, or what is wrong with the digits that keep their label; else None."""
    _, seen = predict(digit_classifier(), edited[:10])
    of_new, of_old = agreement(seen, new[:10]), agreement(seen, old[:10])
    if of_new <= SEEN_NEW or of_old >= SEEN_OLD:
        return (
            f"the classifier sees the new label in {of_new:.0%} of the ten digits and the old one in {of_old:.0%}, and "
            f"more than {SEEN_NEW:.0%} and less than {SEEN_OLD:.0%} were asked for: go up with labels and down with "
            "new_labels, and take the form of (9.22) that fits the time"
        )
    distance = torch.cdist(x_0[:10].flatten(1).double(), edited[:10].flatten(1).double())
    own, others = distance.diagonal().mean(), distance[~torch.eye(10, dtype=torch.bool)].mean()
    if own >= OWN * others:
        return (
            f"these are digits of the new labels, but the distance to their own originals is {own / others:.0%} of "
            f"that to the others, and less than {OWN:.0%} was asked for: the noise has to be the one that x_0 came "
            "from, and the way down must add none (eta = 0)"
        )
    missed = _rms(edited[10:] - x_0[10:])
    if missed >= BACK:
        return (
            f"the two digits that keep their label miss their originals by {missed:.3f} (root mean square), and less "
            f"than {BACK} was asked for: the way up has to be the way down, walked backwards on the same times"
        )
    return None


def _edit_digits(attempt: Callable[..., object], denoiser: Denoiser) -> str | None:
    x_0, old, new = _digits()
    grid = times(DIGIT_STEPS)
    with global_seed(9):
        answer = attempt(denoiser, x_0.clone(), old.clone(), new.clone(), grid.clone())
    edited = torch.as_tensor(answer).detach().float()
    if edited.shape != x_0.shape:
        return f"the edited digits have the shape {tuple(edited.shape)}, and {tuple(x_0.shape)} was asked for"
    if not bool(edited.isfinite().all()):
        return (
            "there are numbers in it that are not finite: at s = 0 nothing may be divided by sigma_s, and no denoiser "
            "is asked at 0"
        )
    failed = _failed(edited, x_0, old, new)
    if failed is None:
        return None

    edited, x_0, old, new = edited[:2], x_0[:2], old[:2], new[:2]  # two digits tell the mistakes apart, and are quick

    @cache
    def up(labels: Tensor | None, on: Tensor = grid) -> Tensor:
        *_, top = invert(denoiser, x_0, on, labels)
        return top.x

    def down(x: Tensor, labels: Tensor | None) -> Tensor:
        return sample(ddim(), denoiser, x, grid, labels)

    known: dict[str, Callable[[], Tensor]] = {
        "the digits came back as they were: go down with new_labels": lambda: down(up(old), old),
        "they were inverted with the labels that they should get, not with those that they have: the noise then gives "
        "the old digit back": lambda: down(up(new), new),
        "they were inverted without a label, and so the noise still says which digit it was": lambda: down(
            up(None), new
        ),
        "they are inverted with the new labels and brought down with the old ones: it is the other way round": (
            lambda: down(up(new), old)
        ),
        "they went down without a label": lambda: down(up(old), None),
        "these are the noises; now go down from them with new_labels": lambda: up(old),
        "the grid is not mirrored: the first walk goes down too, from x_0 as if it were noise; walk times.flip(0)": (
            lambda: down(down(x_0, old), new)
        ),
        "the grid is not mirrored: the walk up stops at times[1], and the way down starts at times[0]": (
            lambda: down(up(old, grid[1:]), new)
        ),
        "x_0 itself went down, as if it were noise; it has to go up first": lambda: down(x_0, new),
        "the denoiser is asked at s, the time that the step comes from; the step down will ask at t": (
            lambda: down(_up(denoiser, x_0, grid, False, old), new)
        ),
        "each step takes the form with eps_hat, whose weak place is the noisy end: where sigma_t > alpha_t take the "
        "form with x_0_hat": lambda: down(_up(denoiser, x_0, grid, True, old), new),
    }
    return next((words for words, wrong in known.items() if _rms(edited - wrong()) < SAME), failed)


step_with_eta = Exercise(
    "9.1",
    _step_with_eta,
    hint="three parts: alpha_s x_0_hat, the noise that is kept, new noise; the last two have factors whose squares add "
    "up to sigma_s^2.",
    praise="with eta = 0, 0.6 and 1",
)
coefficients = Exercise("9.2", _coefficients, hint="first b from the variances, then a from the means.")
exact_inversion = Exercise(
    "9.3",
    _exact_inversion,
    hint="x_t = alpha_t (x_s - sigma_s eps_hat) / alpha_s + sigma_t eps_hat, with eps_hat asked about x_t at t; start "
    "with x_s for x_t and repeat.",
    praise="down again, every point is where it was",
)
edit = Exercise(
    "9.4",
    _edit,
    hint="*_, top = invert(denoiser, x_0, times, labels) gives the noises as top.x.",
    praise="the same noise with another label: the points lie on the other moon, each at its place",
)
bug_hunt = Exercise(
    "9.5",
    _bug_hunt,
    hint="a measure may have several entries, torch.stack([...]): how wide the heaps are, and how full.",
    praise="it accuses B, C, E and F, and lets D go, and A, which differs only in its eta",
)
edit_digits = Exercise(
    "9.6",
    _edit_digits,
    hint="up: for s, t in pairwise(times.flip(0)), asked at t with labels; down: sample(ddim(), ...) with new_labels.",
    praise="the new label is seen, something of each original is kept, and two digits are back where they were",
)
