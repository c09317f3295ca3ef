"""The exercises of ``05_epsilon_objective``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from ..analytic import GaussianMixture
from ..checks import Exercise, diagnose, hunt
from ..data import global_seed, moons, seeded
from ..denoiser import eps as eps_of
from ..loss import min_snr, snr
from ..parameterization import V
from ..process import q_sample
from ..schedule import BetaSchedule

__all__ = ["PROGRAMS", "bug_hunt", "loss_in_v", "run_program", "train_on_moons", "v_from_eps"]

SCHEDULE = BetaSchedule.linear()
K = 300  # the step at which the small network is trained
MARGIN = 0.05  # how far above the floor its loss may lie, as a fraction of the floor
FRESH = 20_000  # draws on which it is judged
PROGRAMS = tuple("ABCDE")
HONEST = "C"
GAMMA = 5.0

Denoiser = Callable[[Tensor, Tensor], Tensor]


# ------------------------------------------------------------------------------------------------ 5.1


def _v_from_eps(attempt: Callable[..., object]) -> str | None:
    alpha, sigma = torch.tensor(0.7, dtype=torch.float64), torch.tensor(1.3, dtype=torch.float64)
    x_t, eps_hat = torch.randn(2, 6, 3, generator=seeded(5, 1), dtype=torch.float64)
    x_0_hat = (x_t - sigma * eps_hat) / alpha
    right = alpha * eps_hat - sigma * x_0_hat
    wrong = {
        "the sign is wrong: v = alpha eps - sigma x_0, with the plus before eps": -right,
        "the two factors have changed places: alpha belongs to eps and sigma to x_0": sigma * eps_hat - alpha * x_0_hat,
        "x_t stands where x_0_hat belongs: solve x_t = alpha x_0 + sigma eps for x_0 first": (
            alpha * eps_hat - sigma * x_t
        ),
        "this is right where alpha^2 + sigma^2 = 1 and nowhere else; any alpha and sigma were asked for": (
            (eps_hat - sigma * x_t) / alpha
        ),
        "this is x_t again: with a plus between them, alpha x_0_hat + sigma eps_hat is what x_t was made of": x_t,
        "this is x_0_hat; go on and put it into v = alpha eps_hat - sigma x_0_hat": x_0_hat,
        "there is a plus where v has a minus: v = alpha eps_hat - sigma x_0_hat": alpha * eps_hat + sigma * x_0_hat,
    }
    return diagnose(attempt(x_t, eps_hat, alpha, sigma), right, wrong)


# ------------------------------------------------------------------------------------------------ 5.2


def _loss_in_v(loss: object) -> str | None:
    wrong = {
        "the same error has another size in another row: multiply by the weight of v over the weight of eps": 0.30,
        "this is v's weight times the loss in eps; the loss in eps already holds a weight, SNR, which has to be "
        "divided out first": 0.30 * 5,
        "the ratio is upside down: this would be a loss in v turned into one in eps": 0.30 * 4 / 5,
        "this is the error in x_0; now multiply it by the weight of v, SNR + 1": 0.30 / 4,
        "this divides v's weight SNR + 1 out of a loss that never had it; the loss in eps holds SNR": 0.30 / 5,
        "this is SNR times the loss in eps; the error in x_0 is the loss in eps divided by SNR": 0.30 * 4,
    }
    return diagnose(loss, 0.375, wrong, atol=5e-4, rtol=0.0)


# ------------------------------------------------------------------------------------------------ 5.3


def _train_on_moons(attempt: Callable[..., object]) -> str | None:
    t = SCHEDULE.time(K)
    alpha_bar = SCHEDULE.alpha_bars[K].float()
    mixture = GaussianMixture(*moons())
    data = seeded(5, 3)
    with global_seed(5):  # the learner's own torch.randn is seeded too, and nobody else's
        network = nn.Sequential(nn.Linear(2, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2))
        trained = attempt(network, lambda n: mixture.sample(n, data).float(), alpha_bar)
    if not isinstance(trained, nn.Module):
        return f"return the network itself, for the check to try on fresh draws; this is a {type(trained).__name__}"

    generator = seeded(5, 4)
    x_0 = mixture.sample(FRESH, generator).float()
    eps = torch.randn(x_0.shape, generator=generator)
    x_t = q_sample(SCHEDULE, x_0, t, eps)
    denoiser = mixture.denoiser(SCHEDULE)
    exact, x_0_hat = eps_of(denoiser, x_t.double(), t).float(), denoiser(x_t.double(), t).float()
    with torch.no_grad():
        output = trained(x_t)
    if output.shape != eps.shape:
        return (
            f"the network's output has the shape {tuple(output.shape)} for points of shape {tuple(x_t.shape)}; "
            "the two should be equal"
        )
    floor, excess = _mean_square(exact - eps), _mean_square(output - exact)
    if excess <= MARGIN * floor:
        return None

    # The noise that one would see in x_t, had it been made as alpha_bar x_0 + (1 - alpha_bar) eps.
    a, b = float(alpha_bar), float(1 - alpha_bar)
    rootless = GaussianMixture(mixture.weights, a * mixture.means, torch.sqrt((a * mixture.stds) ** 2 + b**2))
    sigma = b**0.5
    known = {
        "it has learnt x_0, and the noise was asked for: compare the output with eps": x_0_hat,
        "it has learnt the noise with its sign flipped: the target is eps": -exact,
        "it has learnt the score, -eps / sigma: the target is eps itself": -exact / sigma,
        "it answers for points that were made in another way than these: the roots are missing in "
        "sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps": (-b * rootless.score(x_t.double())).float(),
        "it answers 0 nearly everywhere, so it has found nothing: the target has to be the noise that is in x_k, and "
        "each step of the optimiser has to change this network": torch.zeros_like(eps),
    }
    distances = {words: _mean_square(output - answer) for words, answer in known.items()}
    closest = min(distances, key=lambda words: distances[words])
    if distances[closest] < excess / 4:
        return closest
    return (
        f"on fresh draws its loss lies {100 * excess / floor:.0f} % above the floor, and at most {100 * MARGIN:.0f} % "
        "was asked for. Try fresh points and fresh noise in every step, more steps, or a better step size"
    )


def _mean_square(x: Tensor) -> float:
    return float(x.square().mean())


# ------------------------------------------------------------------------------------------------ 5.4


def run_program(name: str, denoiser: Denoiser, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """One of five programs that claim to give the loss with the min-SNR weight, by way of v.

    Args:
        name: "A", "B", "C", "D" or "E".
        denoiser: (x_t, t) -> x_0_hat, shape of x_t.
        x_0: clean data, (B, D).
        t: (B,), in (0, 1].
        eps: the noise, (B, D).

    Returns:
        (B,): min(SNR(t), 5) times the mean over each example's numbers of (x_0 - x_0_hat)^2, if it is honest.

    Raises:
        ValueError: for another name.
    """
    if name not in PROGRAMS:
        raise ValueError(f"the programs are A, B, C, D and E, and {name!r} was asked for.")
    x_t = q_sample(SCHEDULE, x_0, t, eps)
    told = t.roll(1) if name == "D" else t  # D: not the time of this x_t
    x_0_hat = denoiser(x_t, told)
    alpha_t, sigma_t = SCHEDULE.scales(t, like=x_t)
    output = alpha_t * (x_t - alpha_t * x_0_hat) / sigma_t - sigma_t * x_0_hat
    target = alpha_t * eps - sigma_t * x_0
    if name == "E":
        target = -target
    loss = ((output - target) ** 2).flatten(1).mean(1)
    weight = snr(SCHEDULE, t).clamp(min=GAMMA) if name == "A" else min_snr(GAMMA)(SCHEDULE, t)
    factor = weight / V.weight(SCHEDULE, t)
    return (factor * loss.mean() if name == "B" else factor * loss).to(x_0.dtype)


_MISSED = {
    "A": "A answers 0 to a perfect denoiser, and tells it the right times; only the weight that it puts on an error is "
    "wrong, at every time but the one with SNR = 5",
    "B": "B is right where all the examples of a batch share one time and one error; give them different ones",
    "D": "D is right for each denoiser that ignores t; use one whose answer depends on the t that it is told",
    "E": "E changes with the weight as it should; try a denoiser that makes no error at all",
}


def _bug_hunt(attempt: Callable[..., object]) -> str | None:
    return hunt(
        lambda name: attempt(partial(run_program, name), SCHEDULE),
        PROGRAMS,
        HONEST,
        _MISSED,
        advice="Work out on paper what the loss must be; allow for rounding",
    )


v_from_eps = Exercise("5.1", _v_from_eps, hint="first x_0_hat from x_t and eps_hat, then v from x_0_hat and eps_hat.")
loss_in_v = Exercise("5.2", _loss_in_v, hint="go by way of the error in x_0: each row's loss is its weight times that.")
train_on_moons = Exercise(
    "5.3",
    _train_on_moons,
    hint="the training step of section 5, at one k: draw x_0, draw eps, make x_k of both, compare the output with eps.",
    praise="on fresh draws the loss lies above the floor, and by less than 5 % of it",
)
bug_hunt = Exercise(
    "5.4",
    _bug_hunt,
    hint="you choose the denoiser, so you can choose the error: x_0 + something that you know.",
    praise="it accuses A, B, D and E, and lets the honest C go",
)
