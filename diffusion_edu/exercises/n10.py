"""The exercises of ``10_guidance``."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from ..analytic import GaussianMixture
from ..checks import Exercise, diagnose, hunt
from ..data import moons, seeded
from ..denoiser import eps as eps_of
from ..guidance import ClassifierFreeGuidance
from ..process import q_sample
from ..sampler import heun, sample, times
from ..schedule import CosineSchedule

__all__ = [
    "PROGRAMS",
    "bug_hunt",
    "clean_log_p",
    "drawn",
    "free_guidance",
    "guided_eps",
    "negative_prompt",
    "run_program",
    "same_scale",
    "trade",
]

SCHEDULE = CosineSchedule()
MIXTURE = GaussianMixture(*moons())
DENOISER, CLASSIFIER = MIXTURE.denoiser(SCHEDULE), MIXTURE.classifier(SCHEDULE)
PROGRAMS = tuple("ABCDE")
HONEST = "B"
NEARLY_CLEAN = 1e-3  # the time for which the classifier of clean data was made
WIDE = GaussianMixture(*moons(std=0.3))  # moons that overlap, so that Bayes' rule alone leaves doubts about the class
SCALES = (0.0, 0.5, 2.0, 4.0)  # at which fidelity and diversity are asked for; 1 is not among them
STARTS = 200  # each is drawn from twice, once for each class


def _noisy(n: int, t: Tensor) -> tuple[Tensor, Tensor]:
    """n noisy points (n, 2) at t, and labels (n,), 0 and 1 in turn."""
    x_0 = MIXTURE.sample(n, seeded(10, 1))
    x_t = q_sample(SCHEDULE, x_0, t, torch.randn(x_0.shape, generator=seeded(10, 2), dtype=torch.float64))
    return x_t, torch.arange(n) % 2


def _slope(x_t: Tensor, t: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
    """The slope in x_t, (B, 2), of ``of(log p)``: ``of`` makes one number of the classifier's log p, (B, classes)."""
    with torch.enable_grad():
        x = x_t.detach().requires_grad_()
        (slope,) = torch.autograd.grad(of(CLASSIFIER(x, t)), x)
    return slope


# ------------------------------------------------------------------------------------------------ 10.1


def _free_guidance(attempt: Callable[..., object]) -> str | None:
    t, w = torch.tensor(0.4, dtype=torch.float64), 2.5
    x_t, labels = _noisy(8, t)
    u, c = DENOISER(x_t, t), DENOISER(x_t, t, labels)
    zero = DENOISER(x_t, t, torch.zeros_like(labels))
    wrong = {
        "the scale is taken in the other convention, where 0 means no guidance: this is u + (1 + w)(c - u)": (
            u + (1 + w) * (c - u)
        ),
        "the two answers have changed places: start from the one without a label, and go towards the one with it": (
            c + w * (u - c)
        ),
        "this is the difference alone; it has to be added to the answer without a label": w * (c - u),
        "this leads away from the label: the difference is (with label) - (without)": u - w * (c - u),
        "the scale does nothing: this is the answer to the label": c,
        "the scale stands before the whole answer to the label; it belongs before the difference": u + w * c,
        "w and 1 - w have changed places": w * u + (1 - w) * c,
        "class 0 stands where no label belongs: the null label is NO_LABEL, which is negative": zero + w * (c - zero),
    }
    return diagnose(attempt(DENOISER, x_t, t, labels, w), u + w * (c - u), wrong)


# ------------------------------------------------------------------------------------------------ 10.2


def _same_scale(scales: object) -> str | None:
    if isinstance(scales, tuple | list) and any(scale is ... for scale in scales):
        return "some of the four are still missing: give four numbers"
    wrong: dict[str, object] = {
        "the first is still in the paper's own convention: at w' = 0 it gives c, which is our w = 1": lambda s: (
            s[0] == 0.5
        ),
        "in the first, 1 is to be added, not taken away": lambda s: s[0] == -0.5,
        "the second needs no translation: multiply out u + s (c - u)": lambda s: s[1] in (6.5, 8.5),
        "in the third, g = 0 already gives c, which is our w = 1": lambda s: s[2] == 3,
        "in the third, 1 is to be added, not taken away": lambda s: s[2] == 2,
        "in the fourth, k stands before the answer without a label: our w stands before the other": lambda s: (
            s[3] in (-1, 1)
        ),
        "in the fourth, look at k = 0: there it gives c, which is our w = 1": lambda s: s[3] in (0, -2),
    }
    return diagnose(scales, torch.tensor([1.5, 7.5, 4.0, 2.0]), wrong)


# ------------------------------------------------------------------------------------------------ 10.3


def _negative_prompt(attempt: Callable[..., object]) -> str | None:
    cases = [(1.0, 0.8, 0.25), (3.0, 1.5, 0.49), (0.5, 1.5, 0.49), (2.5, 0.4, 0.09)]
    answers = []
    for case in cases:
        pair: Any = attempt(*case)
        try:
            mean, std = pair
        except (TypeError, ValueError):
            return "return two numbers, the mean and the standard deviation"
        answers.append([float(mean), float(std)])

    def table(of: Callable[[float, float, float], tuple[float, float]]) -> Tensor:
        return torch.tensor([of(*case) for case in cases], dtype=torch.float64)

    right = table(lambda w, m, v: ((2 * w - 1) * m, v**0.5))
    rest = right[1:]
    wrong = {
        "the second number is the variance, and the standard deviation was asked for": table(
            lambda w, m, v: ((2 * w - 1) * m, v)
        ),
        "this goes w steps on from the wanted class; w = 0 is the other class, at -m, and w = 1 the wanted one": table(
            lambda w, m, v: ((2 * w + 1) * m, v**0.5)
        ),
        "this starts between the classes, at 0, as without a label; here u is the answer to the class at -m": table(
            lambda w, m, v: (w * m, v**0.5)
        ),
        "from -m to m it is 2 m, and the start is -m, not 0": table(lambda w, m, v: (2 * w * m, v**0.5)),
        "the sign of the mean is turned: w = 1 has to give m": table(lambda w, m, v: ((1 - 2 * w) * m, v**0.5)),
        "the mean is right, and the spread is not: add up the two precisions, (1 - w)/v and w/v": lambda given: bool(
            torch.allclose(given[:, 0], right[:, 0]) and not torch.allclose(given[1:, 1], rest[:, 1])
        ),
    }
    return diagnose(torch.tensor(answers, dtype=torch.float64), right, wrong)


# ------------------------------------------------------------------------------------------------ 10.4


def _guided_eps(attempt: Callable[..., object]) -> str | None:
    t, w = torch.tensor(0.4, dtype=torch.float64), 1.7
    x_t, labels = _noisy(8, t)
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    eps_hat = eps_of(DENOISER, x_t, t)
    rows = torch.arange(len(x_t))

    def logits(x: Tensor, t: Tensor) -> Tensor:  # log p up to a number for each example, as a network gives it
        return CLASSIFIER(x, t) + 0.5 * x.square().sum(1, keepdim=True)

    slope = _slope(x_t, t, lambda log_p: log_p[rows, labels].sum())
    wrong = {
        "the sign is turned: noise is what has to be taken away, so eps_hat falls where x_0_hat rises": (
            eps_hat + w * sigma * slope
        ),
        "sigma^2 / alpha is the factor for x_0_hat; eps_hat takes another": eps_hat - w * sigma**2 / alpha * slope,
        "both the sign and the factor are those of x_0_hat": eps_hat + w * sigma**2 / alpha * slope,
        "sigma is missing: score = -eps_hat / sigma": eps_hat - w * slope,
        "there is one sigma too many: score = -eps_hat / sigma": eps_hat - w * sigma**2 * slope,
        "these are the slopes of the logits; log p is their log_softmax": eps_hat - w * sigma * (slope + x_t),
        "this is the slope of p, and the slope of log p was asked for": (
            eps_hat - w * sigma * _slope(x_t, t, lambda log_p: log_p.exp()[rows, labels].sum())
        ),
        "the slope is that of a mean over the batch, so a larger batch makes it smaller: take the sum": (
            eps_hat - w * sigma * slope / len(x_t)
        ),
        "log p of all classes was added up: take that of each example's own label": (
            eps_hat - w * sigma * _slope(x_t, t, lambda log_p: log_p.sum())
        ),
        "nothing was guided: this is eps_hat": eps_hat,
    }
    right = eps_hat - w * sigma * slope
    return diagnose(
        attempt(lambda x, t: eps_of(DENOISER, x, t), logits, x_t.clone(), t, labels, w, alpha, sigma), right, wrong
    )


# ------------------------------------------------------------------------------------------------ 10.5


def run_program(name: str, x_t: Tensor, t: Tensor, labels: Tensor, w: float) -> Tensor:
    """One of five programs that claim to be the guided denoiser of the moons under the cosine schedule.

    Args:
        name: "A", "B", "C", "D" or "E".
        x_t: (B, 2).
        t: (), in (0, 1).
        labels: (B,), 0 or 1.
        w: the scale; 0 ignores the labels and 1 is Bayes' rule.

    Returns:
        (B, 2): the guided x_0_hat, if the program is honest.

    Raises:
        ValueError: for another name.
    """
    if name not in PROGRAMS:
        raise ValueError(f"the programs are A, B, C, D and E, and {name!r} was asked for.")
    x, rows = x_t.detach().double(), torch.arange(len(x_t))
    without, with_label = DENOISER(x, t), DENOISER(x, t, labels)
    if name == "C":  # the other convention
        guided = without + (1 + w) * (with_label - without)
    elif name == "D":  # the plain mean of both classes' answers for the one without a label
        mean = (DENOISER(x, t, torch.zeros_like(labels)) + DENOISER(x, t, torch.ones_like(labels))) / 2
        guided = mean + w * (with_label - mean)
    else:
        told = torch.full_like(t, NEARLY_CLEAN) if name == "A" else t  # A: a classifier of clean data
        alpha_t, sigma_t = SCHEDULE.scales(t, like=x)
        factor = sigma_t**2 if name == "E" else sigma_t**2 / alpha_t
        guided = without + w * factor * _slope(x, told, lambda log_p: log_p[rows, labels].sum())
    return guided.to(x_t.dtype)


_MISSED = {
    "A": "A asks a classifier that never saw noise. At w = 0 that does no harm, and at very little noise hardly any",
    "C": "C counts its scale from another zero, and at each scale it is wrong by as much as one more step of guidance",
    "D": "D is right at w = 1, where what it starts from cancels; try another scale",
    "E": "E has a wrong factor, which is near the right one as long as alpha is near 1; give it more noise, and w > 0",
}


def _bug_hunt(attempt: Callable[..., object]) -> str | None:
    return hunt(
        lambda name: attempt(partial(run_program, name), DENOISER),
        PROGRAMS,
        HONEST,
        _MISSED,
        advice="Work out from denoiser(x_t, t) and "
        "denoiser(x_t, t, labels) what the guided answer must be; allow for rounding",
    )


# ------------------------------------------------------------------------------------------------ 10.6


@lru_cache(maxsize=64)
def _drawn(w: float) -> tuple[Tensor, Tensor]:
    start = torch.randn(STARTS, 2, generator=seeded(10, 3), dtype=torch.float64).repeat_interleave(2, 0)
    asked = torch.arange(2 * STARTS) % 2
    guided = ClassifierFreeGuidance(WIDE.denoiser(SCHEDULE), w)
    return sample(heun(), guided, start, times(12), asked), asked


def drawn(w: float) -> tuple[Tensor, Tensor]:
    """Samples of two moons that overlap, guided by the exact denoiser; every scale and class has the same 200 starts.

    Args:
        w: the scale; 0 ignores the labels and 1 is Bayes' rule.

    Returns:
        the samples, (400, 2) in float64, and the label that each was asked for, (400,), 0 and 1 in turn.

    Raises:
        ValueError: if the scale is not finite.
    """
    x, asked = _drawn(float(w))
    return x.clone(), asked.clone()


def clean_log_p(x: Tensor) -> Tensor:
    """log p(y | x) of both classes at clean points, exactly: (N, 2) to (N, 2), in nats."""
    return WIDE.classifier(SCHEDULE)(x, torch.zeros((), dtype=x.dtype, device=x.device))


def _spread(x: Tensor, groups: Tensor) -> Tensor:
    """The total variance within a group, averaged over the two groups: (N, D) and (N,) to one number."""
    return torch.stack([x[groups == k].var(0).sum() for k in (0, 1)]).mean()


def _trade(attempt: Callable[..., Any]) -> str | None:
    wanted = "return a pair of numbers for each scale: its fidelity and its diversity"
    given = attempt(drawn, clean_log_p, SCALES)
    try:
        table = torch.tensor([[float(number) for number in row] for row in given], dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        return wanted
    if table.shape != (len(SCALES), 2):
        return f"{wanted}. The shape is {tuple(table.shape)}, and {(len(SCALES), 2)} was asked for"

    def over(of: Callable[[Tensor, Tensor], Tensor], scales: tuple[float, ...] = SCALES) -> Tensor:
        return torch.stack([of(*_drawn(w)) for w in scales])

    def own(x: Tensor, asked: Tensor) -> Tensor:  # log p of the class that was asked for, (N,)
        return clean_log_p(x).gather(1, asked[:, None])[:, 0]

    def sure(x: Tensor, asked: Tensor) -> Tensor:
        return own(x, asked).exp().mean()

    def told_apart(x: Tensor, asked: Tensor) -> Tensor:
        return _spread(x, clean_log_p(x).argmax(1))

    def together(x: Tensor, asked: Tensor) -> Tensor:
        return x.var(0).sum()

    def of_first(x: Tensor, asked: Tensor) -> Tensor:
        return x[asked == 0].var(0).sum()

    def ratio(of: Callable[[Tensor, Tensor], Tensor], unguided: float = 1.0) -> Tensor:
        return over(of) / of(*_drawn(unguided))

    fidelity, diversity = over(sure), ratio(_spread)
    if torch.allclose(table.flip(1), torch.stack([fidelity, diversity], 1), atol=1e-3):
        return "the two numbers have changed places: first the fidelity, then the diversity"
    further = tuple(1 + w for w in SCALES)
    one_too_far = over(sure, further)
    if torch.allclose(table[:, 0], one_too_far, atol=1e-3, rtol=0):
        return (
            "the samples are those of the scale 1 + w: draw takes the scale in our convention, so hand it on as it is"
        )
    told = diagnose(
        table[:, 0],
        fidelity,
        {
            "the fidelity is a mean of log p, and the mean of p itself was asked for": over(
                lambda x, asked: own(x, asked).mean()
            ),
            "the fidelity is exp of the mean of log p, where a few hopeless samples outweigh all others: first exp, "
            "then the mean": over(lambda x, asked: own(x, asked).mean().exp()),
            "the fidelity is the share of samples for which the class asked for is the likelier one, as in section 7; "
            "the mean of p was asked for": over(lambda x, asked: (clean_log_p(x).argmax(1) == asked).double().mean()),
            "the fidelity is that of the likeliest class, whatever was asked for": over(
                lambda x, asked: clean_log_p(x).amax(1).exp().mean()
            ),
            "the fidelity is p of class 0 for all samples; half of them were asked to be of class 1": over(
                lambda x, asked: clean_log_p(x)[:, 0].exp().mean()
            ),
            "the fidelity is p of the class that was not asked for": 1 - fidelity,
        },
        atol=1e-3,
        rtol=0.0,
        what="the fidelity is wrong",
    )
    return told or diagnose(
        table[:, 1],
        diversity,
        {
            "the diversity is the variance of all samples together. From w = 0.5 on it grows with the scale, because "
            "guidance drives the classes apart: take each class by itself": ratio(together),
            "the diversity is the variance of all samples together, and it is divided by that at w = 0: take each "
            "class by itself, and w = 1 for the samples without guidance": ratio(together, 0.0),
            "the diversity is divided by that at w = 0, where the label is ignored. No guidance, in our convention, "
            "is w = 1, the plain answer to the label": ratio(_spread, 0.0),
            "the diversity is a variance; divide it by that of the samples without guidance": over(_spread),
            "the diversity is the variance of all samples together, and divided by nothing: take each class by "
            "itself, and divide by the same without guidance": over(together),
            "the diversity is a ratio of standard deviations, and variances were asked for": diversity.sqrt(),
            "the diversity is upside down: divide the guided by the unguided": 1 / diversity,
            "the samples are sorted by what the classifier sees in them. Sort them by what was asked for": (
                ratio(told_apart)
            ),
            "the diversity is that of class 0 alone; average over the two classes": ratio(of_first),
            "the diversity is the variance of the first coordinate alone; add up both": ratio(
                lambda x, asked: _spread(x[:, :1], asked)
            ),
        },
        atol=1e-3,
        rtol=0.0,
        what="the diversity is wrong",
    )


free_guidance = Exercise(
    "10.1",
    _free_guidance,
    hint="two answers, one with labels and one without; go from the second towards the first, w times the way.",
)
same_scale = Exercise(
    "10.2", _same_scale, hint="bring each into the form u + w (c - u): w is what stands before c, and 1 - w before u."
)
negative_prompt = Exercise(
    "10.3",
    _negative_prompt,
    hint="multiply the two Gaussians to the powers 1 - w and w: precisions add, and so do precision times mean.",
)
guided_eps = Exercise("10.4", _guided_eps, hint="(10.4), with w before the slope of log p.")
bug_hunt = Exercise(
    "10.5",
    _bug_hunt,
    hint="you have the exact denoiser, with and without labels, so you know the guided answer at each scale.",
    praise="it accuses A, C, D and E, and lets the honest B go",
)
trade = Exercise(
    "10.6",
    _trade,
    hint="sort the samples by the label that was asked for, and look up in section 4 which scale is no guidance.",
    praise="more scale makes the samples surer of their class, and more alike within it",
)
