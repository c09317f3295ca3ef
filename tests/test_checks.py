import functools
import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import sympy
import torch

from diffusion_edu.checks import BrokenExerciseError, Claim, Exercise, claim, diagnose, find_claims, truth
from diffusion_edu.exercises import n00, n10

# --- claims


def test_a_claim_that_holds_prints_exactly_one_line(capsys):
    with claim("4.7", "KL of two Gaussians"):
        assert 1 + 1 == 2
    assert capsys.readouterr().out == "✓ (4.7) KL of two Gaussians\n"


def test_a_claim_that_fails_is_a_sentence_with_its_equation_and_prints_nothing(capsys):
    with (
        pytest.raises(AssertionError, match=r"^Equation \(4\.7\), the mean, does not hold: 2 is not 3$") as e,
        claim("4.7", "the mean"),
    ):
        raise AssertionError("2 is not 3")
    assert str(e.value.__cause__) == "2 is not 3"
    assert capsys.readouterr().out == ""


def test_a_plain_assert_without_a_message_still_makes_a_sentence():
    # compiled here, since pytest writes a message into the asserts of its own files
    code = compile("with claim('1.1', 'the mean'):\n    assert sum([1]) == 2", "cell", "exec")
    with pytest.raises(AssertionError, match=r"does not hold: an assertion without a message failed"):
        exec(code, {"claim": claim})


def test_another_exception_keeps_its_type_and_names_the_equation():
    with pytest.raises(ZeroDivisionError) as e, claim("1.1", "the mean"):
        1 / 0  # noqa: B018
    assert e.value.__notes__ == ["This stopped the check of equation (1.1), the mean."]


@pytest.mark.parametrize("tag", ["4.7", "12.30", "4.7b", "A.3"])
def test_an_equation_number_is_a_tag(tag):
    with claim(tag, "holds"):
        pass


@pytest.mark.parametrize("tag", ["", "4", "(4.7)", "4.7.1", "eq:kl", "a.1"])
def test_what_is_no_equation_number_is_refused(tag):
    with pytest.raises(ValueError, match="equation's number"), claim(tag, "holds"):
        pass


@pytest.mark.parametrize("statement", ["", "  ", "two\nlines"])
def test_a_statement_is_one_line(statement):
    with pytest.raises(ValueError, match="in one line"), claim("1.1", statement):
        pass


def test_a_claim_refuses_to_run_where_asserts_are_skipped():
    code = "from diffusion_edu.checks import claim\nwith claim('1.1', 'x'):\n    assert False"
    run = subprocess.run([sys.executable, "-O", "-c", code], capture_output=True, text=True)
    assert run.returncode != 0
    assert "Claim (1.1) cannot be checked under -O" in run.stderr
    assert "✓" not in run.stdout


# --- the checks of a claim


def test_checks_are_counted():
    t = sympy.Symbol("t")
    with claim("1.1", "all of them") as c:
        c.close(1.0, 1.0 + 1e-9, atol=1e-8)
        c.close(torch.ones(2, 3), np.ones((2, 3)), atol=0.0)
        c.close(torch.ones(2, 3), 1, atol=0.0)
        c.close([math.inf, 100.0], [math.inf, 101.0], atol=0.0, rtol=0.01)
        c.zero(sympy.sin(t) ** 2 + sympy.cos(t) ** 2 - 1)
        c.zero(sympy.zeros(2, 2))
        c.statistic(1.05, 1.0, standard_error=0.01)
        c.statistic(torch.tensor([1.0, 2.0]), torch.tensor([1.1, 2.1]), 0.1)
        c.true(True, "no")
        c.true(torch.tensor(True), "no")
        c.true(np.bool_(True), "no")
        c.true(sympy.true, "no")
        assert c.checks == 12


def failure(check):
    with pytest.raises(AssertionError) as e, claim("1.1", "it") as c:
        check(c)
    return str(e.value).removeprefix("Equation (1.1), it, does not hold: ")


def test_close_says_where_and_by_how_much():
    actual = torch.tensor([[1.0, 2.0], [3.0, 4.5]], dtype=torch.float64)
    expected = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
    assert (
        failure(lambda c: c.close(actual, expected, atol=0.1))
        == "4.5 was found at [1, 1] and 4 expected, 0.5 apart, where 0.1 was allowed"
    )


@pytest.mark.parametrize(
    ("actual", "expected"),
    [(math.nan, 1.0), (1.0, math.nan), (math.inf, 1.0), (1.0, math.inf), (-math.inf, math.inf)],
)
def test_close_fails_on_what_is_not_finite(actual, expected):
    assert "expected" in failure(lambda c: c.close([0.0, actual], [0.0, expected], atol=1.0))
    assert f"{actual:g} was found at [1]" in failure(lambda c: c.close([0, actual], [0, expected], atol=1))


def test_close_does_not_broadcast():
    assert "the shape (3, 1) was found and (3,) expected" in failure(
        lambda c: c.close(torch.ones(3, 1), torch.ones(3), atol=1.0)
    )


def test_nothing_is_not_close_to_nothing():
    assert "empty" in failure(lambda c: c.close(torch.ones(0), torch.ones(0), atol=1.0))
    assert "empty" in failure(lambda c: c.statistic(torch.ones(0), 0.0, 1.0))


def test_zero_shows_the_rest():
    x = sympy.Symbol("x")
    assert failure(lambda c: c.zero((x + 1) ** 2 - x**2 - 1)) == (
        "after simplification 2*x remains where 0 was expected"
    )
    assert "x remains" in failure(lambda c: c.zero(sympy.Matrix([[0, x]])))
    assert "nan remains" in failure(lambda c: c.zero(sympy.nan))


@pytest.mark.parametrize("value", [0, 0.0, torch.zeros(()), sympy.Eq(sympy.Symbol("x"), 1), sympy.true])
def test_zero_takes_only_expressions(value):
    with pytest.raises(TypeError, match="left side minus right side"), claim("1.1", "it") as c:
        c.zero(value)


def test_statistic_counts_standard_errors():
    assert failure(lambda c: c.statistic(1.07, 1.0, 0.01)) == (
        "1.07 was measured and 1 expected, 7.0 standard errors of 0.01 apart, where 6 were allowed"
    )
    assert "2 was measured at [1]" in failure(lambda c: c.statistic([0.0, 2.0], 0.0, 0.1, sigmas=3))
    assert "nan was measured" in failure(lambda c: c.statistic(math.nan, 0.0, 0.1))


@pytest.mark.parametrize("error", [0.0, -1.0, math.nan, math.inf])
def test_a_standard_error_is_positive_and_finite(error):
    with pytest.raises(ValueError, match="positive and finite"), claim("1.1", "it") as c:
        c.statistic(0.0, 0.0, error)


def test_true_ends_the_sentence_with_its_why():
    assert failure(lambda c: c.true(False, "the order is 1")) == "the order is 1"
    assert failure(lambda c: c.true(torch.tensor([False]), "the order is 1")) == "the order is 1"


@pytest.mark.parametrize("value", [1, None, "yes", torch.ones(2, dtype=torch.bool), sympy.Symbol("x") > 1])
def test_true_takes_one_truth_value(value):
    with pytest.raises(TypeError, match="one truth value"), claim("1.1", "it") as c:
        c.true(value, "no")


@pytest.mark.parametrize("value", ["1", None, 1j])
def test_numbers_are_wanted_where_numbers_are_compared(value):
    with pytest.raises(TypeError, match="give real numbers to compare"), claim("1.1", "it") as c:
        c.close(value, 1.0, atol=1.0)


# --- claims found in a source text


def checks(body, head="with claim('1.1', 'it') as c:"):
    source = head + "\n" + "\n".join("    " + line for line in body.splitlines())
    (found,) = find_claims(source)
    return found.checks


@pytest.mark.parametrize(
    "body",
    [
        "assert x == 1",
        "assert torch.allclose(a, b), 'no'",
        "c.close(a, b, atol=0)",
        "c.zero(a - b)",
        "c.statistic(a, b, 0.1)",
        "c.true(a < b, 'no')",
        "assert_close(a, b)",
        "torch.testing.assert_close(a, b)",
        "for x in xs:\n    if x:\n        assert x > 0",
        "%matplotlib inline\nassert x",
    ],
)
def test_a_check_is_found_in_every_way_of_writing_it(body):
    assert checks(body) == 1


@pytest.mark.parametrize(
    "body",
    [
        "pass",
        "print('assert x')",
        "assert True",
        "assert 2 + 2 == 4",
        "d.close(a, b, atol=0)",
        "file.close()",
        "c.checks",
        "torch.allclose(a, b)",
        "with claim('1.2', 'inner'):\n    pass",
    ],
)
def test_a_claim_without_a_check_is_found(body):
    found = find_claims("with claim('1.1', 'it') as c:\n    " + body.replace("\n", "\n    "))
    assert found[0].checks == 0


def test_an_inner_claim_lends_no_check_to_the_outer():
    outer, inner = find_claims("with claim('1.1', 'outer') as c:\n    with claim('1.2', 'inner'):\n        assert x")
    assert (outer.tag, outer.checks) == ("1.1", 0)
    assert (inner.tag, inner.checks) == ("1.2", 1)


def test_tag_statement_and_line_are_read_from_every_form_of_call():
    source = "x = 1\n\nwith checks.claim(tag='A.3', statement='it'):\n    assert x\nwith claim(name, 'f'):\n    pass\n"
    first, second = find_claims(source)
    assert (first.tag, first.statement, first.line, first.checks) == ("A.3", "it", 3, 1)
    assert (second.tag, second.statement, second.line, second.checks) == ("", "f", 5, 0)


def test_no_claim_is_found_where_there_is_none():
    assert find_claims("with open(x) as c:\n    assert c\nclaim('1.1', 'not a block')\n'with claim'") == []


# --- exercises

EXERCISE = Exercise(
    "1.2",
    lambda std: diagnose(
        std(torch.tensor([0.25])),
        torch.tensor([0.5]),
        {
            "this is the variance: the standard deviation was asked": torch.tensor([0.25]),
            "a standard deviation is never negative": lambda answer: bool((answer < 0).any()),
        },
    ),
    hint="Which of the two has the unit of x?",
    praise="the root of the variance",
)


def raises_not_implemented(variance):
    raise NotImplementedError


@pytest.mark.parametrize("stub", [..., None, lambda variance: ..., lambda variance: None, raises_not_implemented])
def test_a_stub_is_not_attempted_and_does_not_raise(stub):
    verdict = EXERCISE(stub)
    assert verdict.status == "not attempted"
    assert repr(verdict) == str(verdict) == "Exercise 1.2: not attempted yet"


def test_the_right_answer_is_right():
    assert EXERCISE(torch.sqrt).status == "right"
    assert EXERCISE(functools.partial(torch.pow, exponent=0.5)).status == "right"
    assert str(EXERCISE(lambda v: v.sqrt())) == "Exercise 1.2: ✓ right: the root of the variance"
    assert str(Exercise("1.2", lambda x: None)(1)) == "Exercise 1.2: ✓ right"


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda v: v, "this is the variance: the standard deviation was asked"),
        (lambda v: -v.sqrt(), "a standard deviation is never negative"),
        (lambda v: v + 1, "the numbers are off by up to 0.75"),
        (lambda v: v.sqrt().expand(2, 1), "the shape is (2, 1) where (1,) was asked for"),
        (lambda v: v * math.nan, "there are numbers in it that are not finite"),
        (lambda v: "0.5", "a number or a tensor was asked for, and this is a str"),
        (lambda v: 1 / 0, "your code raised ZeroDivisionError: division by zero"),
        (lambda v, w: v, "your code raised TypeError: "),
        (lambda v: v.to("meta").cpu(), "your code raised NotImplementedError: "),  # PyTorch's own, no stub
        (3, "the check could not use what your code returned: TypeError: 'int' object is not callable"),
    ],
)
def test_a_wrong_answer_is_told_what_is_wrong_and_does_not_raise(attempt, words):
    verdict = EXERCISE(attempt)
    assert verdict.status == "wrong"
    assert verdict.message.startswith(f"Exercise 1.2: ✗ {words}")
    assert verdict.message.endswith(". Hint: Which of the two has the unit of x?")


def test_a_part_of_an_answer_may_be_the_stub():
    exercise = Exercise("1.3", lambda f: diagnose(f()[0], 1.0))
    assert exercise(lambda: (1.0, ...)).status == "not attempted"
    assert exercise(lambda: (1.0, 2.0)).status == "right"


def test_an_exercise_may_take_several_attempts():
    exercise = Exercise("1.4", lambda mean, std: diagnose(mean, 0.0) or diagnose(std, 1.0))
    assert exercise(0.0, ...).status == "not attempted"
    assert exercise(0.0, 2.0).status == "wrong"
    assert exercise(0.0, 1).status == "right"


def test_a_module_is_passed_to_the_check_as_it_is():
    exercise = Exercise("6.1", lambda net: None if isinstance(net, torch.nn.Module) else "a module was asked for")
    assert exercise(torch.nn.Linear(1, 1)).status == "right"


def test_a_choice_is_compared_by_equality():
    wrong = {"chain A is right: look at its variance": "A", "name one chain": lambda a: len(a) > 1}
    exercise = Exercise("1.5", lambda choice: diagnose(choice, "B", wrong))
    assert exercise("B").status == "right"
    assert "chain A is right" in exercise("A").message
    assert "name one chain" in exercise("AB").message
    assert "'C' is not the answer" in exercise("C").message


@pytest.mark.parametrize(("right", "wrong"), [(1.0, {"off": 1.0 + 1e-9}), ("B", {"off": "B"}), (1.0, {"off": "one"})])
def test_a_wrong_answer_that_is_right_breaks_the_exercise_aloud(right, wrong):
    with pytest.raises(BrokenExerciseError, match="off"):
        Exercise("1.6", lambda x: diagnose(x, right, wrong))(2.0)


def test_pythons_floats_are_compared_in_float64():
    exact = torch.tensor(1 / 3, dtype=torch.float64)
    Claim().close(exact, 1 / 3, atol=1e-15)
    Claim().close([1 / 3, 2 / 3], torch.tensor([1 / 3, 2 / 3], dtype=torch.float64), atol=1e-15)
    with pytest.raises(AssertionError):
        Claim().close(1 / 3 + 1e-9, 1 / 3, atol=1e-12)


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        (True, True),
        (torch.tensor(False), False),
        (torch.tensor([True]), True),
        (np.True_, True),
        (np.bool_(False), False),
    ],
)
def test_one_truth_value_is_read_from_what_libraries_give_back(answer, value):
    assert truth(answer) is value


@pytest.mark.parametrize("answer", [1, None, "True", torch.tensor([True, False]), torch.tensor(1.0), np.array([])])
def test_what_is_no_truth_value_is_none(answer):
    assert truth(answer) is None


@pytest.mark.parametrize("half", [Fraction(1, 2), sympy.Rational(1, 2), sympy.Float(0.5)])
def test_a_fraction_is_a_number(half):
    assert n00.half_and_half(half).status == "right"
    assert n10.same_scale((3 * half, 15 * half, 8 * half, 4 * half)).status == "right"
    Claim().close(half, 0.5, atol=0.0)


def test_an_empty_matrix_is_not_zero():
    with pytest.raises(AssertionError, match="nothing to compare"):
        Claim().zero(sympy.Matrix(0, 0, []))
