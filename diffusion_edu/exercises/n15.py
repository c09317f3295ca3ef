"""The exercises of ``15_flow_matching``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ..analytic import GaussianMixture
from ..checks import Exercise, diagnose, hunt
from ..data import moons, seeded
from ..denoiser import eps as eps_of
from ..denoiser import velocity as velocity_of
from ..schedule import BetaSchedule, FlowSchedule

__all__ = [
    "PROGRAMS",
    "bug_hunt",
    "flow_loss",
    "gaussian_velocity",
    "run_program",
    "straightness",
    "velocity_from_eps",
]

SCHEDULE = BetaSchedule.linear()
TIMES = (0.1, 0.35, 0.6, 0.9)  # of the straight path, where a converted velocity is asked for
PROGRAMS = tuple("ABCDE")
HONEST = "B"

Field = Callable[[Tensor, Tensor], Tensor]


# ----------------------------------------------------------------------------------------------- 15.1


def _flow_loss(attempt: Callable[..., object]) -> str | None:
    # As many examples as numbers in each, so that t on the wrong axis raises no error, and the check can name it.
    x_0, eps = torch.randn(2, 4, 4, generator=seeded(15, 1), dtype=torch.float64)
    t = torch.tensor([0.15, 0.4, 0.75, 0.95], dtype=torch.float64)

    def network(x: Tensor, time: Tensor) -> Tensor:
        return torch.sin(x) + 0.5 * time.reshape(-1, 1) * x**2

    def loss(x_t: Tensor, target: Tensor, told: Tensor = t) -> Tensor:
        return ((network(x_t, told) - target) ** 2).mean(1)

    a = t[:, None]
    x_t, backwards = (1 - a) * x_0 + a * eps, a * x_0 + (1 - a) * eps
    right = loss(x_t, eps - x_0)
    wrong = {
        "the sign of the target is turned: as t rises the point moves away from the data, so it is eps - x_0": (
            loss(x_t, x_0 - eps)
        ),
        "your path has the noise at t = 0, and your target has the data there: this course has the data at t = 0, in "
        "both": loss(backwards, eps - x_0),
        "this is the other convention throughout, with the noise at t = 0; the data were asked for at t = 0": (
            loss(backwards, x_0 - eps)
        ),
        "the target is the velocity, eps - x_0, and not x_0": loss(x_t, x_0),
        "the target is the velocity, eps - x_0, and not eps": loss(x_t, eps),
        "the network is told 1 - t; it has to be told the t that x_t was made with": loss(x_t, eps - x_0, 1 - t),
        "t multiplies the numbers of an example, and it belongs to the examples: give it a second axis, t[:, None]": (
            loss((1 - t) * x_0 + t * eps, eps - x_0)
        ),
        "this is the sum over each example's numbers, and their mean was asked for": 4 * right,
        "this is one number for the batch; one for each example was asked for, so take the mean over axis 1": (
            right.mean()
        ),
        "this is the mean over the batch, for each of the numbers; the mean over the numbers was asked for, axis 1": (
            ((network(x_t, t) - (eps - x_0)) ** 2).mean(0)
        ),
        "the squares are missing: this is the mean absolute error": (network(x_t, t) - (eps - x_0)).abs().mean(1),
    }
    return diagnose(attempt(network, x_0, eps, t), right, wrong)


# ----------------------------------------------------------------------------------------------- 15.2


def _gaussian_velocity(attempt: Callable[..., object]) -> str | None:
    x = torch.tensor([-1.3, 0.4, 2.0, 0.9, -0.2], dtype=torch.float64)
    t = torch.tensor([0.05, 0.3, 0.5, 0.8, 1.0], dtype=torch.float64)
    m, s = (torch.tensor(numbers, dtype=torch.float64) for numbers in ([0.7, -1, 0.5, 1.5, 2], [0.4, 1.5, 0.8, 2, 0.6]))

    def by(gain: Tensor, mean: Tensor = m) -> Tensor:
        return (x - (mean + gain * (x - (1 - t) * mean))) / t

    total = (1 - t) ** 2 * s**2 + t**2
    gain = (1 - t) * s**2 / total
    right = by(gain)
    wrong = {
        "the sign is turned: u = eps - x_0, which points from the data to the noise": -right,
        "this is right for data of mean 0; here the mean is m": by(gain, torch.zeros_like(m)),
        "this moves each particle away from the mean m, as if it were the x_0 of all: the particles at x have many "
        "x_0, and their mean is x_0_hat": (x - m) / t,
        "s is the standard deviation, and its square belongs where the variance does": (
            by((1 - t) * s / ((1 - t) ** 2 * s + t**2))
        ),
        "(1 - t) is missing in x_0_hat: before x - (1 - t) m stands (1 - t) s^2 / ((1 - t)^2 s^2 + t^2)": (
            by(s**2 / total)
        ),
        "(1 - t) is to be squared in the variance of x_t": by((1 - t) * s**2 / ((1 - t) * s**2 + t**2)),
        "t is to be squared in the variance of x_t": by((1 - t) * s**2 / ((1 - t) ** 2 * s**2 + t)),
        "this is x_0_hat; the velocity is (x - x_0_hat) / t": m + gain * (x - (1 - t) * m),
        "this is the score of x_t, and the velocity was asked for": -(x - (1 - t) * m) / total,
        "the way x - x_0_hat still has to be divided by the time t that it took": right * t,
        "the mean's own motion is missing: the middle of the density moves with velocity -m": right + m,
        "this is right for t < 1, and at t = 1 it divides by 1 - t, which is 0 there": lambda given: torch.allclose(
            given[:-1], right[:-1]
        ),
    }
    return diagnose(attempt(x, t, m, s), right, wrong)


# ----------------------------------------------------------------------------------------------- 15.3


def _velocity_from_eps(attempt: Callable[..., object]) -> str | None:
    mixture = GaussianMixture(*moons())
    of_ddpm, flow = mixture.denoiser(SCHEDULE), FlowSchedule()
    points = torch.randn(8, 2, generator=seeded(15, 3), dtype=torch.float64)

    def network(x: Tensor, t: Tensor) -> Tensor:
        return eps_of(of_ddpm, x, t)

    for number in TIMES:
        t = torch.tensor(number, dtype=torch.float64)
        there = SCHEDULE.time_at(flow.log_snr(t))
        alpha, sigma, x = SCHEDULE.alpha(there), SCHEDULE.sigma(there), points

        def by(eps_hat: Tensor, x: Tensor = x, t: Tensor = t) -> Tensor:
            return eps_hat - (x - t * eps_hat) / (1 - t)

        eps_hat = network(alpha / (1 - t) * x, there)
        here = network(x, t)
        seen = network(x, there)
        right = velocity_of(mixture.denoiser(flow), x, t)
        wrong = {
            "the sign is turned: the velocity is eps_hat - x_0_hat": -right,
            "the DDPM is asked at the straight path's own t and x; at that t it has another SNR": by(here),
            "the place is translated, and the time is not: the DDPM is asked at the straight path's t": (
                by(network(SCHEDULE.alpha(t) / (1 - t) * x, t))
            ),
            "the time is translated, and the place is not: the DDPM has to be shown alpha / (1 - t) times x": by(seen),
            "the place is scaled the wrong way round: x / (1 - t) is y, and the DDPM sees alpha y": (
                by(network((1 - t) / alpha * x, there))
            ),
            "x_0_hat has to be made with the alpha and sigma of the path that x is on, which are 1 - t and t": (
                eps_hat - (x - sigma * eps_hat) / alpha
            ),
            "this is eps_hat; the velocity is eps_hat - x_0_hat": eps_hat,
            "this is x_0_hat; the velocity is eps_hat - x_0_hat": (x - t * eps_hat) / (1 - t),
            "this is the velocity of the DDPM's own path, and the straight one's was asked for": (
                velocity_of(of_ddpm, alpha / (1 - t) * x, there)
            ),
            "there is a minus missing: the log SNR is 2 log((1 - t) / t), and this is the time for its negative": (
                by(network(alpha / (1 - t) * x, SCHEDULE.time_at(-flow.log_snr(t))))
            ),
            "a factor 2 is missing: log SNR is twice the logarithm of (1 - t) / t": (
                by(_asked_at(network, x / (1 - t), SCHEDULE.time_at(flow.log_snr(t) / 2)))
            ),
        }
        # Where a mistake happens to do no harm at this time, another time shows it.
        wrong = {words: answer for words, answer in wrong.items() if not torch.allclose(answer, right, atol=1e-3)}
        verdict = diagnose(attempt(network, SCHEDULE, x, t), right, wrong, atol=1e-5)
        if verdict is not None:
            return verdict
    return None


def _asked_at(network: Field, y: Tensor, t: Tensor) -> Tensor:
    return network(SCHEDULE.alpha(t) * y, t)


# ----------------------------------------------------------------------------------------------- 15.4


def _straightness(attempt: Callable[..., object]) -> str | None:
    n = 24
    start, curl = torch.randn(2, 50, generator=seeded(15, 4), dtype=torch.float64)
    t = torch.linspace(1, 0, n + 1, dtype=torch.float64)[:, None]
    path = t * start + (1 - t) * (0.3 * start + 1.2) + curl * torch.sin(3 * t) * t * (1 - t)
    speed, way = (path[:-1] - path[1:]) * n, path[0] - path[-1]
    right = ((speed - way) ** 2).mean()
    wrong = {
        "a step takes 1/n of the time, so its velocity is the difference times n": ((speed / n - way) ** 2).mean(),
        "the velocity and the way point in opposite directions: with rows from t = 1 down, path[1:] - path[:-1] counts "
        "time backwards, and x_1 - x_0 does not": ((speed + way) ** 2).mean(),
        "this is the sum, and the mean over particles and steps was asked for": ((speed - way) ** 2).sum(),
        "this is the sum over the steps; the integral over time is the mean over the steps": (
            ((speed - way) ** 2).sum(0).mean()
        ),
        "the square is missing: this is the mean absolute difference": (speed - way).abs().mean(),
        "this is the root of S": right.sqrt(),
        "this is the mean squared speed; the squared way is still to be taken off": (speed**2).mean(),
        "the last term, + Delta^2, is missing: this is the mean squared speed less twice the squared way": (
            (speed**2).mean() - 2 * (way**2).mean()
        ),
        "the way is the mean over all particles; each particle has its own": ((speed - way.mean()) ** 2).mean(),
        "one number for all particles was asked for, and this is one for each": ((speed - way) ** 2).mean(0),
        "one number was asked for, and this is one for each step": ((speed - way) ** 2).mean(1),
    }
    return diagnose(attempt(path), right, wrong)


# ----------------------------------------------------------------------------------------------- 15.5


def run_program(name: str, velocity: Field, x: Tensor, steps: int) -> Tensor:
    """One of five programs that claim to follow a velocity field by Euler's method, from t = 1 to 0.

    Args:
        name: "A", "B", "C", "D" or "E".
        velocity: (x, t) -> dx/dt, shape of x; t is (), float64.
        x: where to start, (B, D).
        steps: how many equal steps, >= 1.

    Returns:
        where the particles arrive, (B, D).

    Raises:
        ValueError: for another name.
    """
    if name not in PROGRAMS:
        raise ValueError(f"the programs are A, B, C, D and E, and {name!r} was asked for.")
    h = 1 / steps
    if name == "B":  # the other convention: tau rises from 0, and the velocity is turned
        for k in range(steps):
            tau = torch.tensor(k / steps, dtype=torch.float64)
            x = x + h * -velocity(x, 1 - tau)
        return x
    for k in range(steps - 1 if name == "E" else steps):  # E: the last step is never taken
        t = torch.tensor(k / steps if name == "D" else 1 - k / steps, dtype=torch.float64)  # D: upwards in time
        slope = velocity(x, 1 - t if name == "A" else t)  # A: told the wrong time
        x = x + h * slope if name in "CD" else x - h * slope  # C: the wrong sign; in D time rises
    return x


_MISSED = {
    "A": "A goes the right way by the right amounts, and asks at the wrong times: use a velocity that depends on t",
    "C": "C moves as far as it should, in the other direction: compare with where n steps must arrive",
    "D": "D takes the right number of steps, and runs away from the data: compare with where n steps must arrive",
    "E": "E is wrong by one step only: take few steps, and compare closely",
}


def _bug_hunt(attempt: Callable[..., object]) -> str | None:
    return hunt(
        lambda name: attempt(partial(run_program, name)),
        PROGRAMS,
        HONEST,
        _MISSED,
        advice="Work out what n steps of Euler's method give, not what the exact flow gives, and allow for rounding",
    )


flow_loss = Exercise("15.1", _flow_loss, hint="x_t and the target come from the same line, x_t = (1 - t) x_0 + t eps.")
gaussian_velocity = Exercise(
    "15.2",
    _gaussian_velocity,
    hint="u = (x - x_0_hat) / t, and the exact x_0_hat of Gaussian data is a straight line in x.",
)
velocity_from_eps = Exercise(
    "15.3",
    _velocity_from_eps,
    hint="same SNR for the time, same x / alpha for the place; then x = (1 - t) x_0_hat + t eps_hat.",
    praise="the DDPM's network moves particles along straight paths",
)
straightness = Exercise("15.4", _straightness, hint="velocity minus way, squared, and the mean of all of it.")
bug_hunt = Exercise(
    "15.5",
    _bug_hunt,
    hint="you choose the field, so choose one that depends on t and whose Euler sum you can write down.",
    praise="it accuses A, C, D and E, and lets the honest B go",
)
