"""The probability-flow ODE and its likelihood beside SciPy's solve_ivp and torchdiffeq's odeint.

SciPy gets nothing of ours: the mixture, its score and its Laplacian, and every schedule's drift and rate are written
down again here, in NumPy and in the papers' letters. So an error in any of them, or in our solver, would part the two.
torchdiffeq gets our denoiser's velocity as a function of t, and tests the stepping.
"""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch.testing import assert_close

from diffusion_edu import (
    BetaSchedule,
    CosineSchedule,
    DiffusionModel,
    EDMSchedule,
    FlowSchedule,
    GaussianMixture,
    SubVPSchedule,
    V,
    VESchedule,
    VPSchedule,
    adaptive_ode,
    euler,
    heun,
    log_likelihood,
    times,
    trajectory,
)
from diffusion_edu.denoiser import velocity
from diffusion_edu.ode import BOGACKI_SHAMPINE, DORMAND_PRINCE, integrate
from tests.agreement.peers import Network, noise, peer

torchdiffeq = peer("torchdiffeq", "peers")

WEIGHTS, MEANS, STDS = np.array([0.3, 0.5, 0.2]), np.array([[-1.0, 0.5], [1.2, 0.3], [0.0, -1.4]]), [0.2, 0.35, 0.15]
MIXTURE = GaussianMixture(*(torch.tensor(x, dtype=torch.float64) for x in (WEIGHTS, MEANS, STDS)))
RATIO = 1e-3  # the noise-to-signal ratio at which both stop: neither may ask at t = 0


def log_q(x, alpha, sigma):
    """log-density of alpha x_0 + sigma eps, its gradient and its Laplacian, at one point."""
    variance = (alpha * np.array(STDS)) ** 2 + sigma**2
    away = x - alpha * MEANS
    log_parts = np.log(WEIGHTS) - (away**2).sum(1) / (2 * variance) - np.log(2 * np.pi * variance)
    top = log_parts.max()
    total = top + np.log(np.exp(log_parts - top).sum())
    share, scores = np.exp(log_parts - total), -away / variance[:, None]
    score = share @ scores
    return total, score, share @ ((scores**2).sum(1) - 2 / variance) - (score**2).sum()


@dataclass(frozen=True)
class Theirs:
    """dx/dt = f x - g^2 score / 2 (Song et al. 2021, eq. 13), by the papers' (alpha, sigma, f, g^2)(t)."""

    numbers: object

    def slope(self, t, y):  # of x, and of the integral of the divergence
        alpha, sigma, f, g_squared = self.numbers(t)
        _, score, laplacian = log_q(y[:2], alpha, sigma)
        return np.append(f * y[:2] - g_squared / 2 * score, 2 * f - g_squared / 2 * laplacian)

    def solve(self, x, start, end):
        found = solve_ivp(self.slope, (start, end), np.append(x, 0.0), method="DOP853", rtol=1e-9, atol=1e-10)
        assert found.success
        return found.y[:2, -1], found.y[2, -1]


def variance_preserving(t):  # Song et al. 2021, eq. 32 and 33
    beta, integral = 0.1 + 19.9 * t, 0.1 * t + 19.9 * t**2 / 2
    return math.exp(-integral / 2), math.sqrt(1 - math.exp(-integral)), -beta / 2, beta


def sub_variance_preserving(t):  # Song et al. 2021, eq. 28 and 29
    alpha, _, f, beta = variance_preserving(t)
    return alpha, 1 - alpha**2, f, beta * (1 - alpha**4)


def variance_exploding(t):  # Song et al. 2021, eq. 29 and 30
    grown = 0.01**2 * (50 / 0.01) ** (2 * t)
    return 1.0, math.sqrt(grown - 0.01**2), 0.0, grown * 2 * math.log(50 / 0.01)


def edm(t):  # Karras et al. 2022: sigma itself is the time, here from 0 to 80
    return 1.0, 80 * t, 0.0, 2 * 80**2 * t


def cosine(t):  # Salimans and Ho 2022: log SNR = -2 log tan(pi t / 2), f = d log alpha / dt
    angle = math.pi * t / 2
    return math.cos(angle), math.sin(angle), -math.pi / 2 * math.tan(angle), math.pi * math.tan(angle)


def flow(t):  # Lipman et al. 2023, noise at 1: alpha = 1 - t, so f = -1 / (1 - t)
    return 1 - t, t, -1 / (1 - t), 2 * t / (1 - t)


CASES = {
    "vp": (VPSchedule(), variance_preserving),
    "sub-vp": (SubVPSchedule(), sub_variance_preserving),
    "ve": (VESchedule(), variance_exploding),
    "edm": (EDMSchedule(), edm),
    "cosine": (CosineSchedule(), cosine),
    "flow": (FlowSchedule(), flow),
}
every_case = pytest.mark.parametrize("name", CASES)


def time_of_ratio(schedule):
    return schedule.time_at(torch.tensor(-2 * math.log(RATIO), dtype=torch.float64))


@every_case
def test_the_probability_flow_is_scipys_solution_of_the_papers_equation(name):
    schedule, numbers = CASES[name]
    denoiser = MIXTURE.denoiser(schedule)
    x = float(schedule.sigma(torch.ones((), dtype=torch.float64))) * noise(3, 2, seed=2)
    # where f is infinite at 1 SciPy starts after one step of ours, which is then in both
    states = list(adaptive_ode(denoiser, x, 1e-8, 1e-8, sigma_min=RATIO))
    first = next(state for state in states if name not in ("cosine", "flow") or state.t < 0.95)
    at_end = states[-2]  # the last step, to 0, is x_0_hat
    assert_close(at_end.t, time_of_ratio(schedule))
    for i in range(3):
        theirs, _ = Theirs(numbers).solve(first.x[i].numpy(), float(first.t), float(at_end.t))
        np.testing.assert_allclose(at_end.x[i].numpy(), theirs, rtol=0, atol=3e-7)
    assert float((first.x - at_end.x).abs().min()) > 1e-3


@every_case
def test_the_likelihood_is_scipys_integral_of_the_divergence(name):
    """Up to the time at which alpha is still above 0; from there the exact density of x_t takes over, in both."""
    schedule, numbers = CASES[name]
    x_0 = torch.tensor([[-0.9, 0.6], [0.2, 0.1], [1.8, -1.0]], dtype=torch.float64)
    start = float(time_of_ratio(schedule))
    alpha, _, _, _ = numbers(start)
    end = 0.97 if name in ("cosine", "flow") else 1.0
    alpha_end, sigma_end, _, _ = numbers(end)
    theirs = []
    for x in x_0.numpy():
        x_end, integral = Theirs(numbers).solve(alpha * x, start, end)
        theirs.append(log_q(x_end, alpha_end, sigma_end)[0] + integral + 2 * math.log(alpha))
    q_1 = MIXTURE.marginal(schedule, torch.ones((), dtype=torch.float64))
    mine = log_likelihood(MIXTURE.denoiser(schedule), x_0, q_1.log_prob, sigma_min=RATIO, atol=1e-7, rtol=1e-7)
    np.testing.assert_allclose(mine.numpy(), theirs, rtol=0, atol=1e-6)
    # and both are the density of the data with that much noise
    noisy = MIXTURE.marginal(schedule, torch.tensor(start, dtype=torch.float64)).log_prob(alpha * x_0)
    np.testing.assert_allclose(theirs, (noisy + 2 * math.log(alpha)).numpy(), rtol=0, atol=1e-6)


def test_a_table_of_betas_is_the_ode_with_a_corner_at_each_node():
    """The rate is constant between nodes, -T log(1 - beta): SciPy goes from node to node, ours crosses them."""
    betas = np.linspace(0.02, 0.4, 10)
    schedule = BetaSchedule(torch.from_numpy(betas))
    x = noise(2, 2, seed=4)
    *_, at_end, _ = adaptive_ode(MIXTURE.denoiser(schedule), x, 1e-8, 1e-8, sigma_min=RATIO)

    def numbers(t):
        k = min(int(t * 10), 9)
        rate = -10 * np.log1p(-betas)
        integral = rate[:k].sum() / 10 + rate[k] * (t - k / 10)
        return math.exp(-integral / 2), math.sqrt(-math.expm1(-integral)), -rate[k] / 2, rate[k]

    for i in range(2):
        at, up = x[i].numpy(), 1.0
        for low in [*np.arange(9, 0, -1) / 10, float(at_end.t)]:
            # inside a piece: a node belongs to the piece on its right
            at, up = Theirs(lambda t, low=low: numbers(max(min(t, low + 0.1 - 1e-12), low))).solve(at, up, low)[0], low
        np.testing.assert_allclose(at_end.x[i].numpy(), at, rtol=0, atol=3e-7)


# torchdiffeq


def network():
    return DiffusionModel(Network(2), VPSchedule(), V, level=lambda schedule, t: 900 * t).eval()


def velocity_of(denoiser):
    return lambda t, x: velocity(denoiser, x, t)


@pytest.mark.parametrize("name", ["vp", "sub-vp", "ve", "edm", "cosine", "flow"])
@pytest.mark.parametrize(("step", "method"), [(euler(), "euler"), (heun(), "heun2")], ids=["euler", "heun"])
def test_fixed_steps_are_torchdiffeqs_at_every_time(name, step, method):
    """Euler and Heun on our grid, down to the last time above 0: the same numbers but for the order of sums."""
    schedule, _ = CASES[name]
    denoiser = MIXTURE.denoiser(schedule)
    grid = times(12, lambda t: t**2)[:-1]
    x = float(schedule.sigma(grid[0])) * noise(3, 2, seed=2)
    with torch.no_grad():
        theirs = torchdiffeq.odeint(velocity_of(denoiser), x, grid, method=method)
    mine = torch.stack([state.x for state in trajectory(step, denoiser, x, grid)])
    assert_close(mine, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("pair", "method", "tol"), [(DORMAND_PRINCE, "dopri5", 1e-7), (BOGACKI_SHAMPINE, "bosh3", 1e-5)]
)
def test_the_same_pair_of_torchdiffeq_errs_and_costs_about_as_much(pair, method, tol):
    """Upwards in time: theirs steps over the end and interpolates back, and below t = 0 there is nothing to ask."""
    model, calls = network(), [0]
    x, start, end = noise(4, 2, seed=2), 0.02, 0.9

    @torch.no_grad()
    def slope(t, x):
        calls[0] += 1
        return velocity(model, x, torch.as_tensor(t, dtype=torch.float64))

    span = torch.tensor([start, end], dtype=torch.float64)
    exact = torchdiffeq.odeint(slope, x, span, method="dopri8", rtol=1e-10, atol=1e-11)[-1]
    calls[0] = 0
    theirs = torchdiffeq.odeint(slope, x, span, method=method, rtol=tol, atol=tol)[-1]
    their_calls, calls[0] = calls[0], 0
    *_, mine = integrate(slope, x, start, end, pair=pair, atol=tol, rtol=tol)
    their_error, error = (float((answer - exact).abs().max()) for answer in (theirs, mine.y))
    assert error < 20 * tol and error < 10 * max(their_error, tol)
    # ours lets the worst example decide and aims at half of the tolerance, theirs takes the mean and nine tenths
    assert mine.evaluations == calls[0] < 2 * their_calls
    assert float((exact - x).abs().max()) > 0.5


def test_the_likelihood_of_a_network_is_torchdiffeqs_integral_of_the_trace():
    """A network's density has no closed form: the trace is taken by autograd here, as FFJORD does, in t."""
    model, x_0 = network(), noise(3, 2, seed=5)
    schedule = model.schedule
    start = time_of_ratio(schedule)
    alpha = schedule.alpha(start)

    def slope(t, state):
        with torch.enable_grad():
            x = state[0].detach().requires_grad_()
            v = velocity(model, x, t)
            trace = sum(torch.autograd.grad(v[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(2))
        return v.detach(), trace

    span = torch.stack([start, torch.ones_like(start)])
    state = (alpha * x_0, torch.zeros(3, dtype=torch.float64))
    # step_t: torchdiffeq steps beyond the end and reads its interpolant there, and beyond t = 1 there is no schedule
    ends = {"step_t": span}
    found = torchdiffeq.odeint(slope, state, span, method="dopri5", rtol=1e-7, atol=1e-8, options=ends)
    x_1, integral = (y[-1] for y in found)
    sigma_1 = schedule.sigma(torch.ones((), dtype=torch.float64))
    at_1 = torch.distributions.Normal(0.0, sigma_1).log_prob(x_1).sum(1)
    theirs = at_1 + integral + 2 * torch.log(alpha)
    mine = log_likelihood(model, x_0, sigma_min=RATIO, atol=1e-7, rtol=1e-7)
    assert_close(mine, theirs, rtol=0, atol=1e-5)  # a hundred of the tolerance that both keep in a step
    assert float(integral.abs().min()) > 0.01
