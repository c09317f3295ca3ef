"""The exercises of ``02_closed_form``."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..checks import Exercise, diagnose, hunted, listed, truth
from ..data import seeded
from ..process import q_sample, q_transition
from ..schedule import BetaSchedule

__all__ = ["JUMPS", "bug_hunt", "jump", "jump_on", "table"]

Jump = Callable[[Tensor, Tensor, int, Tensor], Tensor]


def _two_calls_differ(first: object, second: object) -> bool:
    return isinstance(first, Tensor) and isinstance(second, Tensor) and not torch.equal(first, second)


DRAWN = "two calls with the same noise give different answers: use the eps that is given and draw none"


def _jump(attempt: Callable[..., object]) -> str | None:
    schedule = BetaSchedule.linear()
    t = schedule.time(torch.tensor([100, 300, 500, 700]))
    alpha_bar = (schedule.alpha(t) ** 2).float()
    x_0, eps = torch.randn(2, 4, 3, 4, 4, generator=seeded(2, 1))
    a = alpha_bar.reshape(-1, 1, 1, 1)
    wrong = {
        "the noise is multiplied by 1 - alpha_bar, and this is the variance: the standard deviation was asked for": (
            torch.sqrt(a) * x_0 + (1 - a) * eps
        ),
        "x_0 is multiplied by alpha_bar, which is the share of its variance that is left; its amplitude, the root, was "
        "asked for": a * x_0 + torch.sqrt(1 - a) * eps,
        "both roots are missing: variances stand where standard deviations belong": a * x_0 + (1 - a) * eps,
        "the two factors have changed places: at alpha_bar = 1 the picture must be clean": (
            torch.sqrt(1 - a) * x_0 + torch.sqrt(a) * eps
        ),
        "the two amplitudes add up to 1 here; it is their squares that do": (
            torch.sqrt(a) * x_0 + (1 - torch.sqrt(a)) * eps
        ),
        "broadcasting, alpha_bar met the last axis, so that each column of pixels got a level of its own: it holds one "
        "number per picture and must be reshaped to (B, 1, 1, 1)": (
            torch.sqrt(alpha_bar) * x_0 + torch.sqrt(1 - alpha_bar) * eps
        ),
    }
    answer = attempt(x_0, alpha_bar, eps)
    if _two_calls_differ(answer, attempt(x_0, alpha_bar, eps)):
        return DRAWN
    return diagnose(answer, q_sample(schedule, x_0, t, eps), wrong)


def _jump_on(attempt: Callable[..., object]) -> str | None:
    schedule = BetaSchedule.linear()
    s, t = schedule.time(200), schedule.time(450)
    x_s, eps = torch.randn(2, 5, 3, generator=seeded(2, 2), dtype=torch.float64)
    a_s, a_t = schedule.alpha(s) ** 2, schedule.alpha(t) ** 2
    ratio = a_t / a_s
    mean = torch.sqrt(ratio) * x_s
    wrong = {
        "this is the jump from x_0, taken from x_s: it shrinks x_s as if nothing had shrunk it yet": (
            torch.sqrt(a_t) * x_s + torch.sqrt(1 - a_t) * eps
        ),
        "the factor of x_s is right, but the noise is that of a jump from x_0: what x_s holds already is counted "
        "twice": mean + torch.sqrt(1 - a_t) * eps,
        "here the variance of the noise is the difference (1 - alpha_bar_t) - (1 - alpha_bar_s); but the noise in x_s "
        "shrinks on the way too, so more has to be added": mean + torch.sqrt(a_s - a_t) * eps,
        "the noise is multiplied by 1 - alpha_bar_t / alpha_bar_s, and this is the variance: the standard deviation "
        "was asked for": mean + (1 - ratio) * eps,
        "x_s is multiplied by alpha_bar_t / alpha_bar_s, but its root was asked for": (
            ratio * x_s + torch.sqrt(1 - ratio) * eps
        ),
    }
    answer = attempt(x_s, a_s, a_t, eps)
    if _two_calls_differ(answer, attempt(x_s, a_s, a_t, eps)):
        return DRAWN
    normal = q_transition(schedule, x_s, s, t)
    return diagnose(answer, normal.mean + normal.std * eps, wrong, atol=1e-9)


ALLOWED = 1.0  # nats of log-SNR


def _table(attempt: Callable[..., object]) -> str | None:
    for T in (100, 200, 500):
        betas = attempt(T)
        if not isinstance(betas, Tensor) or betas.is_complex():
            kind = "complex Tensor" if isinstance(betas, Tensor) else type(betas).__name__
            return f"a tensor of {T} real betas was asked for, and this is a {kind}"
        if betas.shape != (T,):
            return f"for T = {T} the shape is {tuple(betas.shape)}, and one beta a step was asked for: ({T},)"
        betas = betas.detach().double()
        if not bool(((betas > 0) & (betas < 1)).all()):
            return f"for T = {T} there are betas that do not lie between 0 and 1, such as {_worst(betas):.3g}"
        diagnosis = _diagnose_table(betas, T)
        if diagnosis is not None:
            return diagnosis
    return None


def _worst(betas: Tensor) -> float:
    return betas[int((betas - 0.5).abs().nan_to_num(nan=math.inf).argmax())].item()


def _diagnose_table(betas: Tensor, T: int) -> str | None:
    ddpm, mine = BetaSchedule.linear(), BetaSchedule(betas)
    t = mine.time(torch.arange(1, T + 1))
    gap = mine.log_snr(t) - ddpm.log_snr(t)
    end = f"at T = {T} the log-SNR ends at {mine.log_snr(t[-1]).item():.1f}, where DDPM's ends at -10.1"
    known = {
        "the range 0.0001 to 0.02 was kept, and it is made for 1000 steps": torch.linspace(1e-4, 0.02, T),
        "this takes some of DDPM's betas and leaves the others out, and with them the noise that they add": (
            ddpm.betas[:: 1000 // T]
        ),
        "the betas were multiplied by T / 1000: fewer steps must each do more, not less": (
            torch.linspace(1e-4, 0.02, T) * T / 1000
        ),
        "the betas were multiplied by the root of 1000 / T; what a step takes from log alpha_bar is nearly beta, "
        "and not its root": torch.linspace(1e-4, 0.02, T) * math.sqrt(1000 / T),
    }
    for words, table in known.items():
        if torch.allclose(betas, table.double(), rtol=1e-3, atol=1e-6):
            return f"{words}. It destroys the data too late: {end}"
    if gap[-1] > ALLOWED:
        return f"it destroys the data too late: {end}"
    if gap[-1] < -ALLOWED:
        return f"it destroys the data too soon: {end}"
    if gap.abs().max() > ALLOWED:
        k = int(gap.abs().argmax()) + 1
        return (
            f"the end is right, but on the way it differs: for T = {T}, at t = {k / T:.3g}, the "
            f"log-SNR is {abs(gap[k - 1].item()):.1f} {'higher' if gap[k - 1] > 0 else 'lower'} than DDPM's. "
            f"Look at {'the first beta' if k == 1 else f'the betas up to step {k}'}"
        )
    return None


def _one_behind(betas: Tensor, x_0: Tensor, k: int, eps: Tensor) -> Tensor:
    alpha_bar = torch.cat([torch.ones(1), (1 - betas).cumprod(0)])[k - 1]
    return torch.sqrt(alpha_bar).to(x_0) * x_0 + torch.sqrt(1 - alpha_bar).to(x_0) * eps


def _of_one_step(betas: Tensor, x_0: Tensor, k: int, eps: Tensor) -> Tensor:
    kept = (1 - betas)[k - 1]
    return torch.sqrt(kept).to(x_0) * x_0 + torch.sqrt(1 - kept).to(x_0) * eps


def _variance_for_std(betas: Tensor, x_0: Tensor, k: int, eps: Tensor) -> Tensor:
    alpha_bar = (1 - betas).cumprod(0)[k - 1]
    return torch.sqrt(alpha_bar).to(x_0) * x_0 + (1 - alpha_bar).to(x_0) * eps


def _honest(betas: Tensor, x_0: Tensor, k: int, eps: Tensor) -> Tensor:
    log_alpha_bar = torch.log1p(-betas)[:k].sum()
    x_k = torch.exp(log_alpha_bar / 2).to(x_0) * x_0 + torch.sqrt(-torch.expm1(log_alpha_bar)).to(x_0) * eps
    return x_k.float().to(x_0)  # a network's input is float32


def _product_of_betas(betas: Tensor, x_0: Tensor, k: int, eps: Tensor) -> Tensor:
    product = betas.cumprod(0)[k - 1]
    return torch.sqrt(product).to(x_0) * x_0 + torch.sqrt(1 - product).to(x_0) * eps


JUMPS: dict[str, Jump] = {
    "A": _one_behind,
    "B": _of_one_step,
    "C": _variance_for_std,
    "D": _honest,
    "E": _product_of_betas,
}
HONEST = "D"
_MISSED = {
    "A": "A has the noise level of the step before: its x_1 is the clean x_0",
    "B": "B is right at k = 1 and only there",
    "C": "C's signal is right at every step, and its noise is too small",
    "E": "E keeps the variance at 1, but hardly anything of x_0 is left after one step",
}


def _bug_hunt(test: Callable[..., object]) -> str | None:
    betas = BetaSchedule.linear().betas
    accused = []
    for name, suspect in JUMPS.items():
        answer = test(suspect, betas)
        verdict = truth(answer)
        if verdict is None:
            return f"a test must return True or False, and on jump {name} yours returned a {type(answer).__name__}"
        if not verdict:
            accused.append(name)
    if len(accused) == len(JUMPS):
        return (
            f"it accuses all five, and {HONEST} is honest: its numbers are float32, so two that should be equal may "
            "differ in the seventh digit. Compare with a tolerance, and check that what you compare with is right"
        )
    if HONEST in accused:
        return f"it accuses {listed(accused)}, and {HONEST} is honest. Check that what you compare with is right"
    return hunted(accused, _MISSED)


jump = Exercise(
    "2.1", _jump, hint="both factors are roots, and their squares add up to 1; one number per picture needs a reshape."
)
jump_on = Exercise(
    "2.2",
    _jump_on,
    hint="the factor a takes sqrt(alpha_bar_s) to sqrt(alpha_bar_t); then ask how much variance must be "
    "added to a^2 (1 - alpha_bar_s) to make 1 - alpha_bar_t.",
)
table = Exercise(
    "2.3",
    _table,
    hint="by (2.8) the sum of the betas decides where the chain ends, and the sum up to step k how far it is by then.",
    praise="the same curve of log-SNR in 100, 200 and 500 steps",
)
bug_hunt = Exercise(
    "2.4",
    _bug_hunt,
    hint="with eps = 0 a jump shows its signal factor, and with x_0 = 0 its noise factor; compare both with k steps of "
    "the chain, at more than one k.",
    praise="it accuses A, B, C and E, and lets the honest D go",
)
