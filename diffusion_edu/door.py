"""Checks at the door: what is asked of a number, a tensor, a time, before anything is computed with it.

No notebook builds this. It is here so that a wrong call fails where it was made, with a sentence, and not three calls
later inside PyTorch, or not at all: alpha_t below 1, cast to the type of uint8 pictures, would be 0, and a step k in
place of a time t = k / T lies far beyond the end of the schedule.

Shape, dtype and device are known without asking the device, and are always looked at. Values are looked at only where
they lie in the CPU's memory: no check here ever waits for a GPU.
"""

from __future__ import annotations

import numbers
from pathlib import Path
from typing import TypeGuard

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "are_labels",
    "check_alike",
    "check_classes",
    "check_counts",
    "check_generator",
    "check_input",
    "check_noisy",
    "check_share",
    "check_times",
    "is_real",
    "said",
    "unreadable",
]


def is_real(*values: object) -> bool:
    """Whether each is a real number: not a string, a tensor, a bool or NaN. Infinity counts as one."""
    return all(type(v) is not bool and isinstance(v, numbers.Real) and bool(v == v) for v in values)


def are_labels(value: object) -> TypeGuard[Tensor]:
    """Whether it is a tensor of whole numbers, of any shape: neither floats nor bools."""
    return isinstance(value, Tensor) and not value.is_floating_point() and value.dtype != torch.bool


def check_counts(who: str, least: int = 1, **values: object) -> None:
    """Each must be a whole number from ``least`` up.

    Args:
        who: the one that was called, for the sentence.
        values: by the names that the caller knows them by.

    Raises:
        ValueError: if one is not.
    """
    for name, value in values.items():
        if type(value) is bool or not isinstance(value, numbers.Integral) or value < least:
            raise ValueError(f"{who} got {name}={value!r}; it must be a whole number, at least {least}.")


def said(value: object) -> str:
    """A value in words, for an error: tensors and arrays by their shape and type, anything else as it prints."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}, type {value.dtype} on {value.device}"
    if isinstance(value, np.ndarray):
        return f"a NumPy array of shape {value.shape}, type {value.dtype}"
    text = repr(value)
    return f"{text if len(text) < 60 else type(value).__name__} ({type(value).__name__})"


def check_alike(who: str, **tensors: Tensor) -> None:
    """Each must be a float tensor, and all of one shape and on one device.

    Args:
        who: the one that was called, for the sentence.
        tensors: by the names that the caller knows them by.

    Raises:
        ValueError: if they differ in shape or device.
        TypeError: if one is no tensor, or not of floats.
    """
    first = next(iter(tensors.values()))
    for name, x in tensors.items():
        if not isinstance(x, Tensor) or not x.is_floating_point():
            raise TypeError(
                f"{who} got {name} = {said(x)}; it needs a float tensor (to_model_range makes one of 8-bit pictures)."
            )
        if x.shape != first.shape or x.device != first.device:
            given = ", ".join(f"{name} = {said(x)}" for name, x in tensors.items())
            raise ValueError(f"{who} got {given}; they must have the same shape and be on the same device.")


def check_input(who: str, x: Tensor, shape: tuple[int | str, ...], weight: Tensor, name: str = "x") -> None:
    """A network's input must have the shape that it was built for, and the type and device of its weights.

    Args:
        who: the network, for the sentence.
        x: (B, ...).
        shape: what is wanted, such as ("B", 3, "H", "W"): a number must match, a letter stands for any number from 1
            up ("B" for 0 too).
        weight: one of the network's weights, of any shape. Under autocast that of x may differ, float64 excepted.
        name: of x, for the sentence.

    Raises:
        ValueError: if the shape or the device is another.
        TypeError: if x is not of floats, or of another precision than the weights.
    """
    check_tensors(who, "a tensor", **{name: x})
    fits = x.ndim == len(shape) and all(
        n == wanted if isinstance(wanted, int) else n > 0 or wanted == "B"
        for n, wanted in zip(x.shape, shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"{who} got {name} of shape {tuple(x.shape)}; it was built for ({', '.join(map(str, shape))}), and takes "
            "no side of 0."
        )
    if x.device != weight.device:
        raise ValueError(
            f"{who} got {name} on {x.device}, and its weights are on {weight.device}; move one to the other."
        )
    if not x.is_floating_point() or (
        x.dtype != weight.dtype  # meta has no autocast, and where there is one it leaves float64 as it is
        and (x.is_meta or x.dtype == torch.float64 or not torch.is_autocast_enabled(x.device.type))
    ):
        raise TypeError(
            f"{who} got {name} of type {x.dtype}, and its weights are {weight.dtype}; give {name}.to({weight.dtype})"
            + ("." if x.is_floating_point() else f", or to_model_range({name}) of 8-bit pictures.")
        )


def readable(*tensors: Tensor) -> bool:
    """Whether their values can be looked at: they are on the CPU, so that nothing waits, and no graph is compiled."""
    return all(x.device.type == "cpu" for x in tensors) and not torch.compiler.is_compiling()


def check_tensors(who: str, wanted: str = "a tensor", **given: object) -> None:
    """Each must be a tensor.

    Raises:
        TypeError: if one is not; the sentence asks for what is ``wanted``.
    """
    for name, value in given.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{who} got {name} = {said(value)}; give {wanted}.")


def check_classes(who: str, labels: Tensor, classes: int, has: str) -> None:
    """Each label must be below ``classes``; negative ones stand for none. They are read only on the CPU.

    Args:
        who: the one that was given them, for the sentence.
        labels: (B,), whole numbers.
        classes: how many there are.
        has: the words between ``who`` and the number of classes in the sentence, such as "was built for".

    Raises:
        ValueError: if one is above the last class.
    """
    if readable(labels) and len(labels) and (last := int(labels.max())) >= classes:
        raise ValueError(
            f"{who} got the label {last}, and {has} {classes} classes: labels are from 0 to {classes - 1}, and -1 for "
            "none."
        )


def check_share(who: str, **values: object) -> None:
    """Each must be a number in [0, 1].

    Raises:
        ValueError: if one is not.
    """
    for name, value in values.items():
        if not is_real(value) or not 0 <= value <= 1:  # type: ignore[operator]
            raise ValueError(f"{who} got {name}={value!r}; it is a share, a number from 0 to 1.")


def check_times(who: str, **times: Tensor) -> None:
    """Each must be a float tensor, of any shape or (), and lie in [0, 1]; the values are read only on the CPU.

    Raises:
        ValueError: if one leaves [0, 1], or is NaN.
        TypeError: if one is not a float tensor, such as a plain number or a count of steps.
    """
    for name, t in times.items():
        if not isinstance(t, Tensor) or not t.is_floating_point():
            raise TypeError(
                f"{who} got {name} = {said(t)}; a time is a float tensor, () or (B,), in [0, 1]: "
                "torch.tensor(0.5), or schedule.time(k) for the step k of a table of betas."
            )
        if readable(t) and t.numel():
            t = t.detach()
            low, high = (t.item(), t.item()) if t.ndim == 0 else (end.item() for end in torch.aminmax(t))
            if not (low >= 0 and high <= 1):
                raise ValueError(
                    f"{who} got {name} from {low:.4g} to {high:.4g}; a time lies in [0, 1], "
                    "the data at 0 and the noise at 1."
                )


def check_noisy(who: str, t: Tensor) -> None:
    """A time () or (B,) at which a denoiser may be asked: above 0, because at 0 there is no noise to see.

    Raises:
        ValueError: if it is 0, which is read only on the CPU, or as for ``check_times``.
        TypeError: as for ``check_times``.
    """
    check_times(who, t=t)
    if readable(t) and not bool(t.detach().all()):
        raise ValueError(f"{who} was asked at t = 0, where there is no noise and eps_hat is 0 / 0; ask at a t above 0.")


def unreadable(path: Path) -> PermissionError:
    """The error for a file that exists and may not be read, which must not be called damaged."""
    return PermissionError(f"{path} may not be read by this user; change its rights, or ask its owner.")


def check_generator(who: str, generator: torch.Generator | None) -> None:
    """It must be a generator, or None.

    Raises:
        TypeError: if it is something else, such as a seed.
    """
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(
            f"{who} got generator = {said(generator)}; give torch.Generator().manual_seed(0), or None for the global "
            "one."
        )
