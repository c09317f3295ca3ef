r"""What the network is asked for: x_0, eps, v, the score, the velocity. One linear system, one row each.

Notebook: ``05_epsilon_objective`` derives the rows and their weights.

The network's output o stands for a combination of the two things that x_t was made of:

    [ x_t ]   [ alpha  sigma ] [ x_0 ]
    [  o  ] = [   a      b   ] [ eps ]           D = a sigma - b alpha

    x_0 = (sigma o - b x_t) / D         eps = (a x_t - alpha o) / D         |o - o*|^2 = (D / sigma)^2 |x_0 - x_0*|^2

So a row (a, b) says everything: the target in training, the conversion in sampling, and the weight that a plain squared
error on o puts on the error in x_0. To add a parameterisation, add a row.

(x_0 and eps: Ho et al. 2020, section 3.2; v: Salimans & Ho 2022, section 4; F: Karras et al. 2022, section 5;
velocity: Lipman et al. 2023; the score: Song et al. 2021.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from .door import check_alike, check_noisy, check_times, is_real, readable
from .schedule import NoiseSchedule, expand

__all__ = ["EPS", "SCORE", "VELOCITY", "X0", "Parameterization", "V", "edm"]

Row = Callable[[NoiseSchedule, Tensor], tuple[Tensor, Tensor]]


def _unscaled(schedule: NoiseSchedule, t: Tensor) -> Tensor:
    return torch.ones_like(schedule.alpha(t))


@dataclass(frozen=True)
class Parameterization:
    """A row (a, b): the network's output is o = a x_0 + b eps.

    Args:
        name: what messages call it.
        row: (schedule, t) -> (a, b), each of the shape of t.
        input_scale: (schedule, t) -> c_in, what x_t is multiplied by before the network sees it, shape of t.
    """

    name: str
    row: Row
    input_scale: Callable[[NoiseSchedule, Tensor], Tensor] = _unscaled

    def determinant(self, schedule: NoiseSchedule, t: Tensor) -> Tensor:
        """D = a sigma - b alpha; where it is 0 the output says nothing new about x_0. Shape of t."""
        a, b = self.row(schedule, t)
        return a * schedule.sigma(t) - b * schedule.alpha(t)

    def target(self, schedule: NoiseSchedule, x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """o* = a x_0 + b eps, what the network should say.

        Args:
            x_0, eps: (B, ...).
            t: () or (B,), in (0, 1].
        """
        check_alike("Parameterization.target", x_0=x_0, eps=eps)
        check_times("Parameterization.target", t=t)
        a, b = self.row(schedule, t)
        return expand(a, x_0) * x_0 + expand(b, eps) * eps

    def x_0(self, schedule: NoiseSchedule, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """x_0 = (sigma o - b x_t) / D.

        Args:
            output, x_t: (B, ...).
            t: () or (B,), in (0, 1].

        Raises:
            ValueError: if a time leaves [0, 1], or is 0 and the row's formula is not finite there.
        """
        check_alike("Parameterization.x_0", output=output, x_t=x_t)
        check_times("Parameterization.x_0", t=t)
        _, b = self.row(schedule, t)
        D = self.determinant(schedule, t)
        of_output, of_x_t = schedule.sigma(t) / D, b / D
        if readable(t) and not bool(t.detach().all()):
            if not bool((torch.isfinite(of_output) & torch.isfinite(of_x_t)).all()):  # 0 / 0 without noise
                check_noisy(f"a network that predicts {self.name}", t)
        return expand(of_output, output) * output - expand(of_x_t, x_t) * x_t

    def eps(self, schedule: NoiseSchedule, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """eps = (a x_t - alpha o) / D.

        Args:
            output, x_t: (B, ...).
            t: () or (B,), in (0, 1].
        """
        check_alike("Parameterization.eps", output=output, x_t=x_t)
        check_times("Parameterization.eps", t=t)
        a, _ = self.row(schedule, t)
        D = self.determinant(schedule, t)
        return expand(a / D, x_t) * x_t - expand(schedule.alpha(t) / D, output) * output

    def weight(self, schedule: NoiseSchedule, t: Tensor) -> Tensor:
        """(D / sigma)^2: |o - o*|^2 is this times |x_0 - x_0*|^2. Shape of t."""
        return (self.determinant(schedule, t) / schedule.sigma(t)) ** 2


def _x0(schedule: NoiseSchedule, t: Tensor) -> tuple[Tensor, Tensor]:
    one = torch.ones_like(schedule.alpha(t))
    return one, torch.zeros_like(one)


def _eps(schedule: NoiseSchedule, t: Tensor) -> tuple[Tensor, Tensor]:
    one = torch.ones_like(schedule.alpha(t))
    return torch.zeros_like(one), one


def _v(schedule: NoiseSchedule, t: Tensor) -> tuple[Tensor, Tensor]:
    return -schedule.sigma(t), schedule.alpha(t)


def _score(schedule: NoiseSchedule, t: Tensor) -> tuple[Tensor, Tensor]:
    sigma = schedule.sigma(t)
    return torch.zeros_like(sigma), -1 / sigma


def _velocity(schedule: NoiseSchedule, t: Tensor) -> tuple[Tensor, Tensor]:
    return schedule.rates(t)


X0 = Parameterization("x_0", _x0)  # the clean data
EPS = Parameterization("eps", _eps)  # the noise: DDPM's choice
V = Parameterization("v", _v)  # alpha eps - sigma x_0: at right angles to x_t
SCORE = Parameterization("score", _score)  # -eps / sigma: the gradient of log q(x_t | x_0)
VELOCITY = Parameterization("velocity", _velocity)  # dx_t/dt with x_0 and eps held fixed: flow matching's target


def edm(sigma_data: float = 0.5) -> Parameterization:
    """EDM's F: x_0 = c_skip x_t + c_out F, and the network sees c_in x_t (Karras et al. 2022, table 1).

    Written for any (alpha, sigma); at alpha = 1 it is theirs. If the data have standard deviation ``sigma_data``, the
    target has variance 1 at every t.

    Args:
        sigma_data: standard deviation of the data, > 0.
    """
    if not is_real(sigma_data) or not 0 < sigma_data < math.inf:
        raise ValueError(
            f"edm got sigma_data={sigma_data!r}; it is the standard deviation of the data, finite and above 0."
        )

    return Parameterization("edm F", partial(_edm_row, sigma_data), partial(_edm_input_scale, sigma_data))


def _edm_std(sigma_data: float, schedule: NoiseSchedule, t: Tensor) -> Tensor:
    """Standard deviation of x_t. Shape of t."""
    return torch.sqrt((schedule.alpha(t) * sigma_data) ** 2 + schedule.sigma(t) ** 2)


def _edm_row(sigma_data: float, schedule: NoiseSchedule, t: Tensor) -> tuple[Tensor, Tensor]:
    # c_skip = alpha sigma_data^2 / std^2 and c_out = sigma sigma_data / std, put into
    # a = (1 - c_skip alpha) / c_out and b = -c_skip sigma / c_out, and simplified: no 0 / 0 at t = 0.
    std = _edm_std(sigma_data, schedule, t)
    return schedule.sigma(t) / (sigma_data * std), -schedule.alpha(t) * sigma_data / std


def _edm_input_scale(sigma_data: float, schedule: NoiseSchedule, t: Tensor) -> Tensor:
    return 1 / _edm_std(sigma_data, schedule, t)
