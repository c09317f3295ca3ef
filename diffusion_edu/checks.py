"""What a notebook asserts, and what an exercise answers: one line each.

Every numbered equation of the course is checked where it is derived,

    with claim("4.7", "KL of two Gaussians") as c:
        c.close(kl(p, q), monte_carlo, atol=1e-3)

prints ``✓ (4.7) KL of two Gaussians`` and nothing else, so that a stored output is the same on every machine.
What fails raises an AssertionError: a sentence with the equation, the statement and what was found instead.

A claim that checks nothing would print its tick too. Two things guard against it: ``find_claims`` reads a
notebook's source and counts the checks in each claim, so that a test can refuse those with none; and a claim
refuses to run under ``python -O``, which takes plain ``assert`` statements out.

An exercise looks at an attempt and answers in words:

    exercise = Exercise("1.2", lambda step: diagnose(step(x), right, {"this is the variance": right**2}))
    exercise(step)

gives ``Exercise 1.2: not attempted yet`` for a stub, else ``Exercise 1.2: ✓ right`` or
``Exercise 1.2: ✗ this is the variance.`` Used in every notebook.
"""

from __future__ import annotations

import ast
import functools
import inspect
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import EllipsisType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from .door import is_real, said

__all__ = [
    "BrokenExerciseError",
    "Claim",
    "Exercise",
    "FoundClaim",
    "Verdict",
    "claim",
    "diagnose",
    "doubted",
    "find_claims",
    "hunt",
    "hunted",
    "listed",
    "parsed",
    "strange",
    "truth",
]

TAG = re.compile(r"(\d{1,2}|[A-Z])\.\d{1,3}[a-z]?")


# ---------------------------------------------------------------------------------------------- claims


class Claim:
    """The checks of one claim. Each counts itself, and raises an AssertionError, a sentence, where it fails.

    Attributes:
        checks: how many have held so far. Plain ``assert`` statements are not among them.
    """

    def __init__(self) -> None:
        self.checks = 0

    def close(self, actual: object, expected: object, *, atol: float, rtol: float = 0.0) -> None:
        """|actual - expected| <= atol + rtol |expected|, everywhere.

        Args:
            actual: numbers of any shape: a tensor, an array, a number.
            expected: numbers of the same shape, or one scalar: broadcasting would hide mistakes.
            atol: the difference that is allowed, in the unit of ``actual``.
            rtol: the difference that is allowed beside it, as a part of |expected|.

        Raises:
            AssertionError: where they differ by more, or a number is not finite where the other is.
            TypeError: where either is not numeric.
        """
        a, b = _pair(actual, expected)
        _hold(_difference(a, b, atol, rtol))
        self.checks += 1

    def zero(self, expression: object) -> None:
        """A SymPy expression, or each entry of a SymPy matrix, simplifies to 0.

        Args:
            expression: left side minus right side of what is claimed.

        Raises:
            AssertionError: where it does not; the sentence shows the rest.
            TypeError: where it is not a SymPy expression (write an equation as a difference).
        """
        import sympy

        entries = list(expression) if isinstance(expression, sympy.MatrixBase) else [expression]
        if not entries:
            raise AssertionError("there is nothing to compare: the matrix is empty")
        for entry in entries:
            if not isinstance(entry, sympy.Expr):
                raise TypeError(
                    f"zero() takes a SymPy expression and was given {type(entry).__name__}: {entry}. "
                    "Write an equation as left side minus right side, and compare numbers with close()."
                )
            rest = sympy.simplify(entry)
            _hold(None if rest == 0 else f"after simplification {rest} remains where 0 was expected")
        self.checks += 1

    def statistic(self, value: object, expected: object, standard_error: object, *, sigmas: float = 6.0) -> None:
        """A measured statistic lies no more than ``sigmas`` of its own standard errors from what is expected.

        Args:
            value: the estimate, of any shape.
            expected: of the same shape, or one scalar.
            standard_error: of the same shape, or one scalar; positive, in the unit of ``value``.
            sigmas: how many standard errors are allowed. At 6, a right value fails once in 500 million draws.

        Raises:
            AssertionError: where it lies further away, or is not finite.
            ValueError: where a standard error is not positive and finite.
            TypeError: where any of them is not numeric.
        """
        a, b = _pair(value, expected)
        error = _pair(value, standard_error)[1]
        if not bool(((error > 0) & error.isfinite()).all()):
            raise ValueError(
                f"statistic() got the standard error {standard_error}; it must be positive and finite. A sample "
                "without any spread has none: compare its values with close()."
            )
        distance = ((a - b).abs() / error).flatten()
        if distance.numel() == 0:
            raise AssertionError("there are no numbers to compare: the tensors are empty")
        worst = int(distance.nan_to_num(nan=math.inf).argmax())
        found, wanted, unit = (x.flatten()[worst].item() for x in (a, b.expand_as(a), error.expand_as(a)))
        _hold(
            None
            if distance[worst] <= sigmas
            else f"{found:.6g} was measured{_where(a, worst)} and {wanted:.6g} expected, "
            f"{distance[worst]:.1f} standard errors of {unit:.2g} apart, where {sigmas:g} were allowed"
        )
        self.checks += 1

    def true(self, condition: object, why: str) -> None:
        """A condition holds.

        Args:
            condition: one truth value: a bool, or a tensor or array with one element.
            why: what is wrong if it is false, in words that complete the sentence "(4.7) does not hold: ...".

        Raises:
            AssertionError: where it is false.
            TypeError: where it is not one truth value.
        """
        if hasattr(condition, "item") and getattr(condition, "shape", None) in ((), (1,)):
            condition = condition.item()
        if not isinstance(condition, bool) and type(condition).__name__ not in (
            "BooleanTrue",
            "BooleanFalse",
        ):
            raise TypeError(
                f"true() takes one truth value and was given {type(condition).__name__}. "
                "Reduce many values to one with .all() or .any(), and compare numbers with close()."
            )
        _hold(None if condition else why)
        self.checks += 1


@contextmanager
def claim(tag: str, statement: str) -> Iterator[Claim]:
    """Checks one equation: prints its tick when the block ends well, and one sentence when it does not.

    Args:
        tag: the equation's number, as in its LaTeX tag: "4.7", "4.7b", "A.3".
        statement: what is claimed, in words. It is printed, so it holds no measured number.

    Yields:
        a ``Claim``, whose checks say what they found. A plain ``assert`` works too.

    Raises:
        AssertionError: where a check fails; the check's own error is chained to it.
        ValueError: where the tag or the statement is not of this form.
        RuntimeError: under ``python -O``.
    """
    if not TAG.fullmatch(tag):
        raise ValueError(f"claim() got the tag {tag!r}; give an equation's number, such as 4.7, 4.7b or A.3.")
    if not statement.strip() or "\n" in statement:
        raise ValueError(f"claim() got the statement {statement!r} for ({tag}); say in one line what is claimed.")
    if not __debug__:
        raise RuntimeError(
            f"Claim ({tag}) cannot be checked under -O or PYTHONOPTIMIZE, which skip assertions. "
            "Start Python without them."
        )
    try:
        yield Claim()
    except AssertionError as error:
        reason = str(error).strip() or "an assertion without a message failed; the traceback above shows which"
        raise AssertionError(f"Equation ({tag}), {statement}, does not hold: {reason}") from error
    except Exception as error:
        error.add_note(f"This stopped the check of equation ({tag}), {statement}.")
        raise
    print(f"✓ ({tag}) {statement}")


@dataclass(frozen=True)
class FoundClaim:
    """One ``with claim(...)`` in a source text."""

    tag: str  # "" where it is not written out as a string
    statement: str  # the same
    line: int  # 1 for the first line of the source
    kinds: tuple[str, ...]  # of its checks, in order: "assert", or the name of what is called, such as "close"

    @property
    def checks(self) -> int:
        """How many assertions and calls of a check stand in its block; 0 is a claim that checks nothing."""
        return len(self.kinds)


def parsed(source: str) -> ast.Module:
    """A notebook's cell as a syntax tree. IPython's ``%magic`` and ``!shell`` lines are skipped.

    Raises:
        SyntaxError: where the source is not Python.
    """
    return ast.parse(re.sub(r"^([ \t]*)[%!]{1,2}[A-Za-z].*$", r"\1pass", source, flags=re.MULTILINE))


def find_claims(source: str) -> list[FoundClaim]:
    """The claims in a source text, found without running it, each with the number of its checks.

    A check is an ``assert`` of something that is not a constant, a call of one of ``Claim``'s checks on the
    name that the claim is bound to, or a call of a function named ``assert_...``. The checks of a claim
    inside another do not count for the outer one. IPython's ``%magic`` and ``!shell`` lines are skipped.

    Args:
        source: Python code, such as a notebook's cell.

    Returns:
        the claims in the order of their lines.

    Raises:
        SyntaxError: where the source is not Python.
    """
    found = []
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.With):
            for item in node.items:
                if _is_call_of_claim(item.context_expr):
                    found.append(_found_claim(node, item))
    return sorted(found, key=lambda c: c.line)


def _is_call_of_claim(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and _name(node.func) == "claim"


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _found_claim(block: ast.With, item: ast.withitem) -> FoundClaim:
    call = item.context_expr
    assert isinstance(call, ast.Call)
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    given.update(zip(("tag", "statement"), call.args, strict=False))
    words = {
        name: node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
        for name, node in given.items()
    }
    bound = item.optional_vars.id if isinstance(item.optional_vars, ast.Name) else None
    kinds = tuple(
        _name(node.func) if isinstance(node, ast.Call) and _name(node.func) in _CHECKS else "assert"
        for statement in block.body
        for node in _walk_outside_claims(statement)
        if _is_check(node, bound)
    )
    return FoundClaim(words.get("tag", ""), words.get("statement", ""), block.lineno, kinds)


def _walk_outside_claims(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.With) and any(_is_call_of_claim(item.context_expr) for item in node.items):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _walk_outside_claims(child)


_CHECKS = ("close", "zero", "statistic", "true")  # the methods of a Claim that check


def _is_check(node: ast.AST, bound: str | None) -> bool:
    if isinstance(node, ast.Assert):
        return any(isinstance(part, ast.Name) for part in ast.walk(node.test))
    if not isinstance(node, ast.Call):
        return False
    if _name(node.func).startswith("assert_"):
        return True
    method = node.func
    return (
        isinstance(method, ast.Attribute)
        and isinstance(method.value, ast.Name)
        and method.value.id == bound
        and method.attr in _CHECKS
    )


# ------------------------------------------------------------------------------------------- exercises


class BrokenExerciseError(Exception):
    """An exercise that is itself wrong, for example because one of its wrong answers is right."""


@dataclass(frozen=True)
class Verdict:
    """What an exercise says about an attempt. Displayed or printed, it shows its message, one line."""

    status: Literal["not attempted", "right", "wrong"]
    message: str  # the whole line

    def __repr__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Exercise:
    """An exercise: ``exercise(attempt)`` is its verdict, and never raises for what a learner wrote.

    An attempt is a value, or a function that the check calls. It counts as not attempted where the value, or what
    the function returns, is ``...`` or None, or where the function raises NotImplementedError without a message.
    """

    number: str  # of notebook and exercise: "1.2"
    check: Callable[..., str | None]  # takes the attempts; None is right, a sentence says what is wrong
    hint: str = ""  # one sentence, shown with a wrong answer
    praise: str = ""  # what a right answer teaches; printed with its tick

    def __call__(self, *attempts: object) -> Verdict:
        """The verdict on one attempt, or on several where the check takes several.

        Args:
            attempts: what the learner wrote, in the order in which ``check`` takes it: tensors of any shape,
                numbers, functions.

        Raises:
            BrokenExerciseError: where the exercise itself is at fault.
        """
        try:
            diagnosis = self.check(*(_watched(attempt) for attempt in attempts))
        except _NotAttempted:
            return Verdict("not attempted", f"Exercise {self.number}: not attempted yet")
        except BrokenExerciseError:
            raise
        except _Raised as raised:
            diagnosis = f"your code raised {_in_words(raised.error)}"
        except Exception as error:
            diagnosis = f"the check could not use what your code returned: {_in_words(error)}"
        if diagnosis is None:
            return Verdict("right", f"Exercise {self.number}: ✓ right" + (f": {self.praise}" if self.praise else ""))
        hint = f" Hint: {self.hint}" if self.hint else ""
        return Verdict("wrong", f"Exercise {self.number}: ✗ {diagnosis.rstrip('.')}.{hint}")


def diagnose(
    answer: object,
    right: object,
    wrong: Mapping[str, object] | None = None,
    *,
    atol: float = 1e-6,
    rtol: float = 1e-5,
    what: str = "",
) -> str | None:
    """What is wrong with an answer, by comparing it with answers known to be wrong.

    Args:
        answer: what the learner's code gave: a tensor, array or number of any shape, or what ``==`` compares.
        right: the right answer.
        wrong: diagnosis -> an answer that deserves it, or a function that takes the answer (as a tensor in
            float64, of the right shape) and says whether it does. The first that fits is taken.
        atol: how far apart equal numbers may be, in their unit.
        rtol: the same, as a part of the right number.
        what: which of several answers this is, for the diagnoses that do not come from ``wrong``.

    Returns:
        None where the answer is right, else the diagnosis in words.

    Raises:
        BrokenExerciseError: where a wrong answer equals the right one.
    """
    wanted = _tensor(right)
    if wanted is None:
        return _diagnose_by_equality(answer, right, wrong or {})
    which = f"{what}: " if what else ""
    given = _tensor(answer)
    if given is None:
        return f"{which}a number or a tensor was asked for, and this is {_a(type(answer).__name__)}"
    diagnosis = None
    for words, known in (wrong or {}).items():
        if callable(known):
            fits = given.shape == wanted.shape and bool(known(given))
        else:
            value = _tensor(known)
            if value is None:
                raise BrokenExerciseError(f"The wrong answer '{words}' is no number and the right one is.")
            if value.shape == wanted.shape and _difference(value, wanted, atol, rtol) is None:
                raise BrokenExerciseError(f"The wrong answer '{words}' equals the right one, up to the tolerance.")
            fits = value.shape == given.shape and _difference(given, value, atol, rtol) is None
        if fits and diagnosis is None:
            diagnosis = words
    if given.shape == wanted.shape and _difference(given, wanted, atol, rtol) is None:
        return None
    if diagnosis is not None:
        return diagnosis
    if given.shape != wanted.shape:
        return f"{which}the shape is {tuple(given.shape)} where {tuple(wanted.shape)} was asked for"
    if not bool(given.isfinite().all()):
        return f"{which}there are numbers in it that are not finite"
    gap = (given - wanted).abs().max().item()
    return f"{which}the numbers are off by up to {gap:.2g}, in a way that is not among the usual mistakes"


def _diagnose_by_equality(answer: object, right: object, wrong: Mapping[str, object]) -> str | None:
    for words, known in wrong.items():
        if not callable(known) and known == right:
            raise BrokenExerciseError(f"The wrong answer '{words}' equals the right one.")
    if answer == right:
        return None
    for words, known in wrong.items():
        if known(answer) if callable(known) else answer == known:
            return words
    return f"{answer!r} is not the answer"


class _NotAttempted(Exception):
    """The attempt is still the stub."""


class _Raised(Exception):
    """The learner's function raised ``error``."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def _watched(attempt: object) -> Any:
    """The attempt; a function is wrapped, to tell its stub and its exceptions from the check's own."""
    if _is_stub(attempt):
        raise _NotAttempted
    if not (inspect.isroutine(attempt) or isinstance(attempt, functools.partial)):
        return attempt
    function: Callable[..., object] = attempt

    def watched(*args: Any, **kwargs: Any) -> object:
        try:
            result = function(*map(_own, args), **{name: _own(value) for name, value in kwargs.items()})
        except NotImplementedError as error:
            if error.args:  # PyTorch's own, of an operation or a type; a stub's has no words
                raise _Raised(error) from error
            raise _NotAttempted from None
        except Exception as error:
            raise _Raised(error) from error
        if _is_stub(result) or (isinstance(result, tuple) and any(_is_stub(part) for part in result)):
            raise _NotAttempted
        return result

    return watched


def _own(value: object) -> object:
    """A tensor's copy, so that a function that works in place spoils nothing for the check; anything else as it is."""
    return value.detach().clone().requires_grad_(value.requires_grad) if isinstance(value, Tensor) else value


def _is_stub(value: object) -> bool:
    return value is None or isinstance(value, EllipsisType)


def _in_words(error: Exception) -> str:
    first_line = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first_line}" if first_line else type(error).__name__


def _a(noun: str) -> str:
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def truth(answer: object) -> bool | None:
    """The one truth value of an answer: a bool, or a tensor or array that holds one. None for anything else.

    Args:
        answer: what a learner's test returned.
    """
    if isinstance(answer, Tensor | np.ndarray | np.generic) and answer.ndim <= 1 and math.prod(answer.shape) == 1:
        answer = answer.item()
    return answer if isinstance(answer, bool) else None


# what a learner is told if the test answers anything but True or False
NO_VERDICT = (
    "a test answers True for honest or False: reduce a comparison of many numbers to one value with bool(... .all())"
)


def doubted(test: Callable[[str], object], names: Iterable[str]) -> list[str] | None:
    """The programs that a learner's test answers False to; None if it answers anything but True or False.

    Args:
        test: name of a program -> whether the learner takes it for honest.
        names: of the programs to judge.
    """
    verdicts = {name: truth(test(name)) for name in names}
    return None if None in verdicts.values() else [name for name, verdict in verdicts.items() if not verdict]


def hunt(
    test: Callable[[str], object],
    names: Iterable[str],
    honest: str,
    missed: Mapping[str, str],
    *,
    advice: str,
    what: str = "program",
) -> str | None:
    """What to say of a bug hunt, where a learner's test must tell the honest program, which has no bug, from the broken
    ones, one program at a time: None where it accuses all that are broken, and no other.

    Args:
        test: name of a program -> whether the learner takes it for honest.
        names: of the programs to judge.
        honest: the name of the one without a bug.
        missed: for each broken program, what to say of it where the test does not find it.
        advice: a sentence or two for a test that accuses the honest one.
        what: the word for what is judged.
    """
    accused = doubted(test, names)
    if accused is None:
        return NO_VERDICT
    if honest in accused:
        return f"it accuses {what} {honest}, which is honest. {advice}"
    return hunted(accused, missed)


def hunted(accused: Collection[str], missed: Mapping[str, str]) -> str | None:
    """What to say of a bug hunt that does not accuse the honest program: None where it finds all that are broken.

    Args:
        accused: the names of the programs that the learner's test accuses.
        missed: for each broken program, what to say of it where it is not among them.
    """
    escaped = [name for name in missed if name not in accused]
    if not escaped:
        return None
    count = {3: "three", 4: "four", 5: "five"}.get(len(missed), str(len(missed)))
    found = f"it finds {listed(accused)}" if accused else f"it finds none of the {count}"
    return f"{found}, and takes {listed(escaped)} for honest. " + ". ".join(missed[name] for name in escaped)


def listed(names: Collection[str]) -> str:
    """One or more names in words: "A", "A and B", "A, B and C"."""
    *first, last = names
    return " and ".join([", ".join(first), last] if first else [last])


def strange(
    statistic: Callable[[str, int], object], names: Iterable[str], honest: str, *, runs: int, limit: float, atol: float
) -> list[str] | None:
    """The programs on which a statistic is far from its values on the honest one; None if one of those is not finite.

    Args:
        statistic: (name of a program, seed of a run) -> a number, or a tensor of several.
        names: of the programs to judge, each by its run with seed 0.
        honest: the program whose runs with other seeds tell how much the statistic varies by itself.
        runs: how many of those runs, >= 2.
        limit: how far counts as far, in standard deviations over those runs.
        atol: a difference that is put down to rounding, as a part of 1 + |mean|.
    """

    def of(name: str, seed: int) -> Tensor:
        return torch.as_tensor(statistic(name, seed)).detach().double().flatten()

    usual = torch.stack([of(honest, seed) for seed in range(1, 1 + runs)])
    if not bool(usual.isfinite().all()):
        return None
    mean, std = usual.mean(0), usual.std(0)
    # written so that what is not a number is strange too
    return [
        name for name in names if not bool(((of(name, 0) - mean).abs() - atol * (1 + mean.abs()) <= limit * std).all())
    ]


# --------------------------------------------------------------------------------------------- numbers


def _tensor(value: object) -> Tensor | None:
    """The value as a tensor in float64 on the CPU, or None where it is not numeric."""
    try:
        if is_real(value):  # also a fraction of Python or SymPy, which NumPy would keep as an object
            value = float(value)  # type: ignore[arg-type]
        elif isinstance(value, tuple | list) and is_real(*value):
            value = [float(number) for number in value]
        # torch would make Python's floats float32, and 1e-12 could not be asked of them
        tensor = value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None
    return None if tensor.is_complex() else tensor.detach().cpu().double()  # in this order: MPS has no float64


def _pair(actual: object, expected: object) -> tuple[Tensor, Tensor]:
    """Both as tensors, of one shape or the second a scalar."""
    a, b = _tensor(actual), _tensor(expected)
    for tensor, value in ((a, actual), (b, expected)):
        if tensor is None:
            raise TypeError(f"A check got {said(value)}; give real numbers to compare: a tensor, an array or a number.")
    assert a is not None and b is not None
    if b.dim() and a.shape != b.shape:
        raise AssertionError(
            f"the shape {tuple(a.shape)} was found and {tuple(b.shape)} expected (nothing is broadcast here)"
        )
    return a, b


def _difference(a: Tensor, b: Tensor, atol: float, rtol: float) -> str | None:
    """None where a and b are close, else the worst place in words."""
    if a.numel() == 0:
        return "there are no numbers to compare: the tensors are empty"
    b = b.expand_as(a)
    if bool(torch.isclose(a, b, atol=atol, rtol=rtol).all()):
        return None
    excess = (a - b).abs() - (atol + rtol * b.abs())
    excess = torch.where(a == b, -math.inf, excess.nan_to_num(nan=math.inf, posinf=math.inf))
    worst = int(excess.flatten().argmax())
    found, wanted = a.flatten()[worst].item(), b.flatten()[worst].item()
    return (
        f"{found:.10g} was found{_where(a, worst)} and {wanted:.10g} expected, "
        f"{abs(found - wanted):.3g} apart, where {atol + rtol * abs(wanted):.3g} was allowed"
    )


def _where(tensor: Tensor, flat_index: int) -> str:
    if tensor.dim() == 0:
        return ""
    index = ", ".join(str(int(i)) for i in torch.unravel_index(torch.tensor(flat_index), tensor.shape))
    return f" at [{index}]"


def _hold(fault: str | None) -> None:
    if fault is not None:
        raise AssertionError(fault)
