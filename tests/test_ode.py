"""The embedded pairs and their controller beside SciPy's: tableaus, stated orders, tolerance asked and error got."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate as scipy_integrate
from torch.testing import assert_close

from diffusion_edu.ode import BOGACKI_SHAMPINE, DORMAND_PRINCE, attempt, integrate, next_step, rms

PAIRS = {"5(4)": (DORMAND_PRINCE, scipy_integrate.RK45), "3(2)": (BOGACKI_SHAMPINE, scipy_integrate.RK23)}
every_pair = pytest.mark.parametrize(("pair", "scipys"), PAIRS.values(), ids=PAIRS.keys())
Y = torch.tensor([[2.0, 0.0]], dtype=torch.float64)


def van_der_pol(t, y):
    return torch.stack([y[:, 1], 5 * (1 - y[:, 0] ** 2) * y[:, 1] - y[:, 0]], 1)


def scipys_answer(method, tol, end=20.0):
    f = lambda t, y: van_der_pol(t, torch.as_tensor(y)[None])[0].numpy()  # noqa: E731
    found = scipy_integrate.solve_ivp(f, (0, end), Y[0].numpy(), method=method, rtol=tol, atol=tol)
    return torch.as_tensor(found.y[:, -1]), found.nfev


@every_pair
def test_the_tableau_is_scipys(pair, scipys):
    assert np.allclose(pair.nodes[:-1], scipys.C[1:], rtol=0, atol=1e-15) and pair.nodes[-1] == 1
    for row, theirs in zip(pair.stages, [*scipys.A[1:], scipys.B], strict=True):
        assert np.allclose(row, theirs[: len(row)], rtol=0, atol=1e-15)
    assert np.allclose(pair.error, -np.asarray(scipys.E), rtol=0, atol=1e-15)  # the sign does not matter to a norm


@every_pair
def test_each_stage_is_at_its_node_and_the_weights_sum_to_1(pair, scipys):
    for c, row in zip(pair.nodes, pair.stages, strict=True):
        assert math.isclose(sum(row), c, abs_tol=1e-14)
    assert abs(sum(pair.error)) < 1e-15


@every_pair
def test_the_solution_has_the_stated_order_and_the_difference_one_less(pair, scipys):
    # y' = -y + sin t, exact solution known; one step of length h errs by O(h^(order + 1)), the difference is O(h^order)
    f = lambda t, y: -y + math.sin(t)  # noqa: E731
    exact = lambda t, c: c * math.exp(-t) + (math.sin(t) - math.cos(t)) / 2  # noqa: E731
    y = torch.full((1, 1), exact(0.3, 2.0), dtype=torch.float64)
    errors, differences = [], []
    for h in (0.2, 0.1):
        y_new, slope, difference = attempt(pair, f, 0.3, y, h, f(0.3, y))
        errors.append(abs(y_new.item() - exact(0.3 + h, 2.0)))
        differences.append(difference.abs().item())
        assert_close(slope, f(0.3 + h, y_new))  # first same as last
    assert abs(math.log2(errors[0] / errors[1]) - (pair.order + 1)) < 0.25
    assert abs(math.log2(differences[0] / differences[1]) - pair.order) < 0.25


@every_pair
@pytest.mark.parametrize("tol", [1e-4, 1e-6])
def test_error_and_evaluations_are_near_scipys_on_the_same_problem(pair, scipys, tol):
    exact, _ = scipys_answer("DOP853", 1e-12)
    theirs, evaluations = scipys_answer(scipys, tol)
    *_, end = integrate(van_der_pol, Y, 0.0, 20.0, pair=pair, atol=tol, rtol=tol)
    assert end.t == 20
    assert (end.y[0] - exact).abs().max() < 10 * max(tol, float((theirs - exact).abs().max()))
    assert 0.7 < end.evaluations / evaluations < 1.3


def test_evaluations_and_rejections_are_counted_as_they_happen():
    calls = []

    def f(t, y):
        calls.append(t)
        return van_der_pol(t, y)

    points = list(integrate(f, Y, 0.0, 20.0, atol=1e-5, rtol=1e-5))
    assert points[-1].evaluations == len(calls) == 2 + 6 * (len(points) - 1 + points[-1].rejected)
    assert points[-1].rejected > 0 and all(p.error <= 1 for p in points)
    assert points[0].t == 0 and points[0].evaluations == 2 and torch.equal(points[0].y, Y)
    assert all(a.t < b.t for a, b in itertools.pairwise(points))


def test_there_and_back_again():
    circle = lambda t, y: torch.stack([y[:, 1], -y[:, 0]], 1)  # noqa: E731
    *_, there = integrate(circle, Y, 0.0, 1.0, atol=1e-10, rtol=1e-10)
    assert_close(there.y, 2 * torch.tensor([[math.cos(1), -math.sin(1)]], dtype=torch.float64), rtol=0, atol=1e-9)
    *_, back = integrate(circle, there.y, 1.0, 0.0, atol=1e-10, rtol=1e-10)
    assert_close(back.y, Y, rtol=0, atol=1e-9)


def test_a_step_that_fails_is_tried_shorter():
    # still for half the way, then a jolt: the long step that has grown meanwhile must be thrown away
    def f(t, y):
        return torch.full_like(y, 1e3 * math.exp(-(((t - 0.7) / 0.05) ** 2)))

    points = list(integrate(f, torch.zeros(1, 1, dtype=torch.float64), 0.0, 1.0, atol=1e-6, rtol=0))
    assert points[-1].rejected > 0
    exact = 1e3 * 0.05 * math.sqrt(math.pi) / 2 * (1 + math.erf(0.3 / 0.05))
    assert_close(points[-1].y.item(), exact, rtol=0, atol=1e-5)


def test_the_controller_aims_at_an_error_of_one_half():
    assert next_step(0.5, 0.5, 5) == 1
    assert next_step(1.0, 0.5, 5) < 1 < next_step(0.1, 0.5, 5)
    assert next_step(0.5, 1.0, 5) > 1  # the error is falling: not so careful
    assert_close((next_step(2.0, 0.5, 5), next_step(0.5, 2.0, 5)), (4 ** (-0.7 / 5), 4 ** (0.4 / 5)))
    assert next_step(0.0, 0.5, 3) == 10 and next_step(1e9, 0.5, 3) == 0.2


def test_the_worst_example_decides_for_the_batch():
    easy = torch.tensor([[0.0, 0.0]], dtype=torch.float64)  # the resting point
    *_, alone = integrate(van_der_pol, Y, 0.0, 5.0)
    *_, together = integrate(van_der_pol, torch.cat([easy, Y, easy]), 0.0, 5.0)
    assert_close(together.y[1:2], alone.y, rtol=0, atol=1e-9)
    assert_close(rms(torch.tensor([[3.0, 4.0], [0.0, 0.0]])), torch.tensor([math.sqrt(12.5), 0.0]))


@pytest.mark.parametrize(
    ("f", "options", "error", "sentence"),
    [
        (van_der_pol, {"atol": -1.0}, ValueError, "at least 0"),
        (van_der_pol, {"atol": 0.0, "rtol": 0.0}, ValueError, "not both 0"),
        (van_der_pol, {"atol": math.nan}, ValueError, "at least 0"),
        (van_der_pol, {"end": 0.0}, ValueError, "an interval"),
        (van_der_pol, {"max_evaluations": 50}, ArithmeticError, "Loosen the tolerance"),
        (lambda t, y: y * math.nan, {}, ArithmeticError, "NaN or infinite"),
        (lambda t, y: y + math.inf, {}, ArithmeticError, "infinite at t = 0, where it starts"),
        (lambda t, y: y**2, {}, ArithmeticError, "stands at"),  # y = 1 / (1/2 - t): no solution beyond 1/2
    ],
)
def test_what_cannot_be_solved_gets_a_sentence(f, options, error, sentence):
    options = {"end": 20.0, **options}
    with pytest.raises(error, match=sentence) as caught:
        list(integrate(f, Y, 0.0, **options))
    assert type(caught.value) is error


@pytest.mark.parametrize("y", [[[1.0, 2.0]], torch.zeros(0, 2), torch.zeros(2, 0), torch.zeros(2)])
def test_what_is_no_batch_is_refused(y):
    with pytest.raises(ValueError, match="integrate got y"):
        list(integrate(van_der_pol, y, 0.0, 1.0))


def test_without_an_absolute_tolerance_a_start_at_0_is_no_reason_for_steps_of_0():
    def slope(t, y):
        return torch.ones_like(y)

    *_, last = integrate(slope, torch.zeros(1, 2, dtype=torch.float64), 0.0, 1.0, atol=0.0, rtol=1e-6)
    assert_close(last.y, torch.ones(1, 2, dtype=torch.float64))
    assert last.evaluations < 100


def test_a_tolerance_below_what_float32_resolves_gets_a_sentence():
    with pytest.raises(ArithmeticError, match="float32"):
        list(integrate(van_der_pol, Y.float(), 0.0, 20.0, atol=1e-12, rtol=1e-12, max_evaluations=5000))


@every_pair
def test_a_number_that_stays_0_has_no_say_where_only_the_relative_error_counts(pair, scipys):
    y = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    *_, last = integrate(lambda t, y: -y, y, 0.0, 1.0, atol=0.0, rtol=1e-6, pair=pair)
    assert_close(last.y, y * math.exp(-1), rtol=1e-5, atol=0)


def test_a_slope_that_is_infinite_just_after_the_start_is_named():
    with pytest.raises(ArithmeticError, match="NaN or infinite between t = 0"):
        list(integrate(lambda t, y: y if t == 0 else y * math.inf, torch.ones(1, 1).double(), 0.0, 1.0))
