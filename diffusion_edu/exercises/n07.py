"""The exercises of ``07_training``."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..checks import Exercise, diagnose, hunt
from ..data import global_seed, seeded
from ..schedule import CosineSchedule

__all__ = [
    "PROGRAMS",
    "accumulate",
    "bug_hunt",
    "ema",
    "resume",
    "run_program",
    "samples_while_training",
    "share_of_the_start",
    "walk",
]

PROGRAMS = tuple("ABCDE")
HONEST = "B"
DECAY = 0.999
RATE = 0.1


# ------------------------------------------------------------------------------------------------ 7.1


def _share_of_the_start(share: object) -> str | None:
    d, n = 0.9999, 5000
    wrong = {
        "this is the share of all that was learnt; the share of the start is the rest": 1 - d**n,
        "this is n times what one step takes away, as if each step took it from the whole; a step takes its share of "
        "what is left": n * (1 - d),
        "this is the share after one step": d,
        "this is the share after 10 000 steps, one window; the run has 5000": d**10_000,
        "this is the share that the newest weights have": 1 - d,
        "this is the decay 0.999, which forgets ten times as fast": 0.999**n,
    }
    return diagnose(share, d**n, wrong, atol=2e-3, rtol=0.0)


# ------------------------------------------------------------------------------------------------ 7.2


def _averaged(thetas: Tensor, decay_at: Callable[[int], float], start: Tensor | None = None) -> Tensor:
    """The average when update n = 0, 1, ... has the decay ``decay_at(n)``."""
    average = torch.zeros_like(thetas[0]) if start is None else start
    for n, theta in enumerate(thetas):
        average = decay_at(n) * average + (1 - decay_at(n)) * theta
    return average


def _ramp(n: int) -> float:
    return (1 + n) / (10 + n)


def _ema(attempt: Callable[..., object]) -> str | None:
    N = 12
    thetas = torch.randn(N, 3, generator=seeded(7, 2), dtype=torch.float64) + torch.linspace(0, 4, N)[:, None]
    # the cap is reached in the first, and never in the second
    return _ema_at(attempt, thetas, 0.5) or _ema_at(attempt, thetas, 0.999)


def _ema_at(attempt: Callable[..., object], thetas: Tensor, decay: float) -> str | None:
    right = _averaged(thetas, lambda n: min(decay, _ramp(n)) if n else 0.0)
    wrong = {
        "there is no warm-up in it: the first weights weigh far too much": _averaged(
            thetas, lambda n: decay if n else 0.0
        ),
        "it starts from zero and has no warm-up": _averaged(thetas, lambda n: decay),
        "the first weights are not copied: at n = 0 nine tenths of them go in, and the rest is zero": _averaged(
            thetas, lambda n: min(decay, _ramp(n))
        ),
        "decay and 1 - decay have changed places: it is the old average that is multiplied by the decay": _averaged(
            thetas, lambda n: 1 - min(decay, _ramp(n)) if n else 0.0
        ),
        "a maximum stands where the minimum belongs: the rule is there to lower the decay": _averaged(
            thetas, lambda n: max(decay, _ramp(n)) if n else 0.0
        ),
        "the count lags by one: the second weights are update n = 1, with the decay 2/11": _averaged(
            thetas, lambda n: min(decay, _ramp(n - 1)) if n else 0.0
        ),
        "the count runs ahead by one: the second weights are update n = 1, with the decay 2/11": _averaged(
            thetas, lambda n: min(decay, _ramp(n + 1)) if n else 0.0
        ),
        "this is the plain mean of all the weights": thetas.mean(0),
        "these are the last weights": thetas[-1],
    }
    if decay == 0.5:
        wrong["this is the rule (1 + n)/(10 + n) without its cap: the decay is the lesser of the two"] = _averaged(
            thetas, lambda n: _ramp(n) if n else 0.0
        )
    return diagnose(attempt(thetas.clone(), decay), right, wrong, atol=1e-9, rtol=1e-9)


# ------------------------------------------------------------------------------------------------ 7.3


def _accumulate(attempt: Callable[..., object]) -> str | None:
    x = torch.randn(10, 3, generator=seeded(7, 3), dtype=torch.float64)
    most, seen = 4, [0]

    def loss(theta: Tensor, part: Tensor) -> Tensor:
        seen[0] = max(seen[0], len(part))
        return ((part @ theta - 1) ** 2 + torch.sin(part[:, 0] * theta[1])).mean()

    def gradient(part: Tensor) -> Tensor:
        theta = start.clone().requires_grad_()
        return torch.autograd.grad(loss(theta, part), theta)[0]

    start = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
    right, parts = gradient(x), [gradient(part) for part in x.split(most)]
    wrong = {
        "the parts are added, and each is already a mean: with three parts the gradient is three times too long": sum(
            parts
        ),
        "this is the mean of the parts' gradients. The last part has two examples and not four: each part counts by "
        "its share of the batch": torch.stack(parts).mean(0),
        "the mean is taken twice: the loss of a part is a mean already": right / len(x),
        "this is the gradient of the last part alone": parts[-1],
        "the last part is left out: ten examples make two parts of four and one of two": gradient(x[:8]),
        "each part is divided by the number of examples; it is a mean already, so multiply it by its own number "
        "first": torch.stack(parts).sum(0) / len(x),
        "the sign is flipped: the gradient was asked for, not the step": -right,
    }
    seen[0] = 0
    answer = attempt(loss, start.clone().requires_grad_(), x.clone(), most)
    if seen[0] > most:
        return f"the loss was called with {seen[0]} examples at once, and there is room for {most}"
    return diagnose(answer, right, wrong, atol=1e-9)


# ------------------------------------------------------------------------------------------------ 7.4


class _Run:
    """A network, its optimiser and its average; the numbers of step k come from a generator seeded by k."""

    def __init__(self) -> None:
        with global_seed(7):
            self.network = nn.Linear(3, 3).double()
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=0.05)
        self.average = copy.deepcopy(self.network)

    def train(self, first: int, last: int) -> _Run:
        for step in range(first, last):
            x, noise = torch.randn(2, 8, 3, generator=seeded(7, 4, step), dtype=torch.float64)
            loss = ((self.network(x + noise) - noise) ** 2).mean()
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            with torch.no_grad():
                for a, p in zip(self.average.parameters(), self.network.parameters(), strict=True):
                    a.lerp_(p, 0.1)
        return self

    def weights(self) -> Tensor:
        return torch.cat([p.detach().flatten() for m in (self.network, self.average) for p in m.parameters()])


BREAK, END = 5, 9
PARTS = ("network", "optimiser", "average")


def _resumed(save: Callable[..., Any], load: Callable[..., Any]) -> Tensor | str:
    """The weights at the end of a run that was broken off and went on, or what is wrong with the two functions."""
    run = _Run().train(0, BREAK)
    checkpoint = save(run.network, run.optimiser, run.average, BREAK)
    run.train(BREAK, END)  # the first run goes on for a while, and is then lost
    new = _Run()
    fresh = new.weights()
    step = load(checkpoint, new.network, new.optimiser, new.average)
    if isinstance(step, bool) or not isinstance(step, int | np.integer):
        return f"my_load must return the step to go on with, a whole number, and yours returned {type(step).__name__}"
    if not 0 <= step <= END:
        return f"my_load returned {step}; the run was broken off after {BREAK} steps, so step {BREAK} is the next"
    if step == 0 and torch.equal(fresh, new.weights()):
        return "nothing was loaded, and the run began anew at step 0: it ends where it should, but the work is lost"
    return new.train(int(step), END).weights()


def _variant(copied: str, loaded: str, step: int) -> Tensor:
    """The end of a resumed run that copied and loaded only some parts, named by initials: "no": network, optimiser."""

    def save(*given: Any) -> dict[str, Any]:
        states = dict(zip(PARTS, (part.state_dict() for part in given[:3]), strict=True))
        return {name: copy.deepcopy(state) if name[0] in copied else state for name, state in states.items()}

    def load(checkpoint: dict[str, Any], *given: Any) -> int:
        for name, part in zip(PARTS, given, strict=True):
            if name[0] in loaded:
                part.load_state_dict(checkpoint[name])
        return step

    weights = _resumed(save, load)
    assert isinstance(weights, Tensor)
    return weights


def _resume(save: Callable[..., object], load: Callable[..., object]) -> str | None:
    right = _Run().train(0, END).weights()
    answer = _resumed(save, load)
    if isinstance(answer, str):
        return answer
    wrong: dict[str, object] = {
        "nothing was loaded: this is a new run that starts in the middle": _variant("noa", "", BREAK),
        "the optimiser was not restored: Adam has lost its two averages, and its first steps are as long as at the "
        "start": _variant("noa", "na", BREAK),
        "the average of the weights was not restored: it starts again from the new network's": _variant(
            "noa", "no", BREAK
        ),
        "the optimiser and the average were not restored": _variant("noa", "n", BREAK),
        "the weights were not restored": _variant("noa", "oa", BREAK),
        "all is restored but the step: the run saw the numbers of steps 0, 1, 2 ... a second time": _variant(
            "noa", "noa", 0
        ),
        "it goes on one step too late: after 5 steps, numbered from 0, the next is step 5": _variant(
            "noa", "noa", BREAK + 1
        ),
        "it goes on one step too early: step 4 was done already": _variant("noa", "noa", BREAK - 1),
    }
    stale = [_variant(copied, "noa", BREAK) for copied in ("", "n", "o", "a", "no", "na", "oa")]
    wrong[
        "the checkpoint changed after it was made: state_dict() gives the tensors themselves, and the run went on "
        "working on them. Copy them, with copy.deepcopy or by writing a file"
    ] = lambda given: any(torch.allclose(given, weights, atol=1e-9) for weights in stale)
    return diagnose(answer, right, wrong, atol=1e-12, rtol=0.0)


# ------------------------------------------------------------------------------------------------ 7.5


def run_program(
    name: str, network: nn.Module, pictures: Tensor, steps: int, device: str | torch.device = "cpu"
) -> nn.Module:
    """One of five programs that claim to train a network to find the noise in noisy pictures.

    Each step takes all the pictures, draws a time and a noise for each, makes x_t under the cosine schedule, and makes
    one step of SGD at the rate 0.1 on the mean squared error of ``network(x_t, t)`` against the noise.

    Args:
        name: "A", "B", "C", "D" or "E".
        network: called as ``network(x_t, t)`` with x_t (B, 1, H, W) and t (B,) in (0, 1]; moved to the device and
            trained in place.
        pictures: uint8, (B, 1, H, W).
        steps: how many, >= 1.
        device: where to train.

    Returns:
        a copy of the network with averaged weights: decay 0.999, with warm-up, if the program is honest.

    Raises:
        ValueError: for another name.
    """
    if name not in PROGRAMS:
        raise ValueError(f"the programs are A, B, C, D and E, and {name!r} was asked for.")
    generator = seeded(7, 5)
    network = network.to(device)
    schedule = CosineSchedule()
    levels = torch.arange(1001, dtype=torch.float64) / 1000
    table = torch.stack([schedule.alpha(levels), schedule.sigma(levels)]).float()
    if name != "D":
        table = table.to(device)  # D: a plain tensor, left where it was made
    x_0 = pictures.to(device).float() / 255
    if name != "C":
        x_0 = 2 * x_0 - 1  # C: data in [0, 1]
    average = copy.deepcopy(network).eval()
    optimiser = torch.optim.SGD(network.parameters(), lr=RATE)
    for n in range(steps):
        k = torch.randint(1, 1001, (len(x_0),), generator=generator)
        eps = torch.randn(x_0.shape, generator=generator).to(device)
        alpha_t, sigma_t = table[:, k].reshape(2, -1, 1, 1, 1)
        x_t = alpha_t * x_0 + sigma_t * eps
        loss = ((network(x_t, (k / 1000).to(device)) - eps) ** 2).mean()
        if name != "A":  # A: the gradients of all steps add up
            optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        ramp = (1 + n) / (10 + n) if n else 0.0
        decay = DECAY if name == "E" else min(DECAY, ramp)  # E: no warm-up
        with torch.no_grad():
            for a, p in zip(average.parameters(), network.parameters(), strict=True):
                a.lerp_(p, 1 - decay)
    return average


_MISSED = {
    "A": "A trains on the right pictures; give it a network with one weight, far from its best value, and look at the "
    "weight after each step: where should it go?",
    "C": "C goes wrong only before the first step; what should a network see, on average, when all of the pictures are "
    "black?",
    "D": "D is right on the CPU; ask for another device. The meta device is on every machine",
    "E": "E trains the network as it should; look at what it returns after 50 steps",
}


def _bug_hunt(attempt: Callable[..., object]) -> str | None:
    return hunt(
        lambda name: attempt(partial(run_program, name)),
        PROGRAMS,
        HONEST,
        _MISSED,
        advice="A mean over noisy pictures is not exact: allow for chance, and give training the steps that it needs",
    )


# ------------------------------------------------------------------------------------------------ 7.6


def walk(model: nn.Module, noise: Tensor) -> Tensor:
    """Somebody's sampler: eight steps from noise to data under the cosine schedule, without any fresh noise.

    It calls the model in the mode in which it finds it, even in training mode.

    Args:
        model: called as ``model(x_t, t)`` with x_t (B, ...) and t (B,) in (0, 1]; answers v.
        noise: (B, ...), the start.

    Returns:
        the samples, shape of ``noise``.
    """
    schedule, x_t = CosineSchedule(), noise
    for t, s in pairwise(torch.linspace(1, 0, 9, dtype=torch.float64)):
        alpha_t, sigma_t, alpha_s, sigma_s = (
            float(scale(time)) for time in (t, s) for scale in (schedule.alpha, schedule.sigma)
        )
        v = model(x_t, torch.full((len(x_t),), float(t), dtype=x_t.dtype))
        x_0_hat, eps_hat = alpha_t * x_t - sigma_t * v, sigma_t * x_t + alpha_t * v
        x_t = alpha_s * x_0_hat + sigma_s * eps_hat
    return x_t


class _Forgetful(nn.Module):
    """A small network with dropout and random weights.

    At each call it reports two things to ``note``: whether dropout was on, and whether the answer has a graph.
    """

    def __init__(self, note: Callable[[bool, bool], None]) -> None:
        super().__init__()
        self.note = note
        with global_seed(76):
            self.first, self.dropout, self.last = nn.Linear(5, 32), nn.Dropout(0.5), nn.Linear(32, 4)
        self.double()

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        h = torch.tanh(self.first(torch.cat([x_t, t[:, None]], dim=1)))
        v: Tensor = self.last(self.dropout(h))
        self.note(self.dropout.training, v.requires_grad)
        return v


def _samples_while_training(attempt: Callable[..., object]) -> str | None:
    noise = torch.randn(6, 4, generator=seeded(7, 6), dtype=torch.float64)
    with global_seed(6), torch.set_grad_enabled(True):  # seeds dropout, which takes no generator
        return _samples_from(attempt, noise, True) or _samples_from(attempt, noise, False)


def _samples_from(attempt: Callable[..., object], noise: Tensor, training: bool) -> str | None:
    """What is wrong with the samples of a model that was in training mode, or in eval mode, before the call."""
    shaken: list[bool] = []
    graphs: list[bool] = []

    def note(dropped: bool, graph: bool) -> None:
        shaken.append(dropped)
        graphs.append(graph)

    model = _Forgetful(note)
    with torch.no_grad():
        right = walk(model.eval(), noise)
    shaken.clear()
    graphs.clear()
    model.train(training)
    answer = attempt(model, noise.clone())
    wrong: dict[str, object] = {
        "dropout was on: the walk called the model in training mode, where two calls with the same noise give two "
        "answers, and neither is the model's. Call eval() before the walk": lambda given: any(shaken),
        "this is the noise itself: walk it back, with exercise.walk(model, noise)": noise,
    }
    diagnosis = diagnose(answer, right, wrong, atol=1e-6)
    if diagnosis is not None:
        return diagnosis
    if not torch.is_grad_enabled():
        return (
            "gradients are switched off for good: the next training step will have none. Walk inside a block "
            "`with torch.no_grad():`"
        )
    if not all(p.requires_grad for p in model.parameters()):
        return "the weights take no gradients any more: the training that goes on after this learns nothing"
    if isinstance(answer, Tensor) and answer.requires_grad:
        return (
            "the samples carry the graph of all their steps, which stays in memory as long as they do: walk under "
            "torch.no_grad()"
        )
    if any(graphs):
        return (
            "the samples are detached from their graph at the end, but on the way it was built all the same, and took "
            "the memory of every step: walk under torch.no_grad()"
        )
    modes = {module.training for module in model.modules()}
    if modes != {training}:
        left = "with some of its parts in one mode and some in the other"
        advice = "Put back what was there, for all of them"
        if modes == {False}:
            left, advice = "in eval mode", "The training goes on without its dropout"
        if modes == {True}:
            left, advice = "in training mode", "Put back what was there, which is not always training mode"
        before = "training" if training else "eval"
        return f"the samples are right, but the model is left {left}; it was in {before} mode before. {advice}"
    return None


share_of_the_start = Exercise(
    "7.1", _share_of_the_start, hint="each update multiplies what was there by the decay: (7.12)."
)
ema = Exercise("7.2", _ema, hint="copy the first weights; then update n = 1, 2, ... with min(decay, (1 + n)/(10 + n)).")
accumulate = Exercise(
    "7.3", _accumulate, hint="(7.21): the gradient of each part, times the part's share of the batch; add them up."
)
resume = Exercise(
    "7.4",
    _resume,
    hint="a dict of deep copies of three state_dict()s and the step; load_state_dict() puts them back.",
    praise="the resumed run ends with the same weights as one that was never broken off",
)
bug_hunt = Exercise(
    "7.5",
    _bug_hunt,
    hint="bring a network of your own: one weight w, the answer w everywhere, and a note of the mean of each x_t.",
    praise="it accuses A, C, D and E, and lets the honest B go",
)
samples_while_training = Exercise(
    "7.6",
    _samples_while_training,
    hint="note model.training; eval(); walk under torch.no_grad(); model.train(what you noted).",
    praise="the samples are the model's own, and the training does not notice that somebody looked",
)
