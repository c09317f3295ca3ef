"""Every public name says what it is, and what takes or returns tensors says their shapes."""

import importlib
import inspect
import pkgutil
import re

import pytest

import diffusion_edu

WALK = pkgutil.walk_packages(diffusion_edu.__path__, "diffusion_edu.")
MODULES = sorted(info.name for info in WALK if info.name != "diffusion_edu.__main__")
# A shape is a parenthesis with a comma, such as `(B,)` or `(N + 1, D)`, or the empty one, or the word.
SHAPE = re.compile(r"\(\s*(\*|\.\.\.)?[\w\s+*/.-]*,[^()]*\)|\(\s*\)|\bshape[sd]?\b|\bscalars?\b", re.IGNORECASE)


def own_doc(member, owner=None):
    """The docstring of `member`, or the one that it inherits from a class of ours."""
    if member.__doc__:
        return member.__doc__
    for base in inspect.getmro(owner)[1:] if owner else ():
        inherited = vars(base).get(member.__name__)
        if base.__module__.startswith("diffusion_edu") and getattr(inherited, "__doc__", None):
            return inherited.__doc__
    return ""


def takes_or_returns_tensors(function):
    return any("Tensor" in str(annotation) for annotation in inspect.get_annotations(function).values())


def missing(name, thing):
    """What the docstrings of `thing`, called `name`, lack: a sentence each."""
    found = []
    if inspect.isclass(thing):
        class_doc = thing.__doc__ or ""
        if not class_doc:
            found.append(f"{name} has no docstring.")
        for key, value in vars(thing).items():
            function = getattr(value, "__func__", value)  # of a class method or a static method
            function = function.fget if isinstance(function, property) else function
            if key.startswith("_") or not inspect.isfunction(function):
                continue
            if function.__qualname__ != f"{thing.__qualname__}.{key}":
                continue  # a field whose default is a function
            doc = own_doc(function, thing)
            if key == "forward":
                doc += class_doc  # a network's class may say what goes in and what comes out
            if not doc:
                found.append(f"{name}.{key} has no docstring.")
            elif takes_or_returns_tensors(function) and not SHAPE.search(doc):
                found.append(f"{name}.{key} takes or returns tensors and its docstring gives no shape.")
    elif inspect.isroutine(thing):
        doc = own_doc(thing)
        if not doc:
            found.append(f"{name} has no docstring.")
        elif takes_or_returns_tensors(thing) and not SHAPE.search(doc):
            found.append(f"{name} takes or returns tensors and its docstring gives no shape.")
    return found


@pytest.mark.parametrize("module_name", MODULES)
def test_every_public_name_has_a_docstring_with_shapes(module_name):
    module = importlib.import_module(module_name)
    assert module.__doc__, f"{module_name} has no docstring."
    assert getattr(module, "__all__", None), f"{module_name} does not say what is public: give it an __all__."
    absent = [name for name in module.__all__ if not hasattr(module, name)]
    assert not absent, f"{module_name}.__all__ names {absent}, which it does not define."
    found = [
        sentence for name in module.__all__ for sentence in missing(f"{module_name}.{name}", getattr(module, name))
    ]
    assert not found, "\n".join(found)


def test_what_the_package_exports_is_there():
    absent = [name for name in diffusion_edu.__all__ if not hasattr(diffusion_edu, name)]
    assert not absent


@pytest.mark.parametrize(
    "text", ["x: (B,), in nats", "(N + 1, D)", "(...,)", "of any shape", "(B, C, H, W)", "one scalar"]
)
def test_a_shape_is_recognised(text):
    assert SHAPE.search(text)


@pytest.mark.parametrize("text", ["the noise", "t (in seconds)", "the mean (of x)", "alpha(t)"])
def test_what_is_no_shape_is_not_taken_for_one(text):
    assert not SHAPE.search(text)


def test_a_function_without_docstring_or_shape_is_found():
    from torch import Tensor

    def bare(x: Tensor) -> Tensor:
        return x

    def vague(x: Tensor) -> Tensor:
        """Gives x back."""
        return x

    assert missing("bare", bare) and missing("vague", vague)
