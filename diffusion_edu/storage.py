"""Files: written under another name and then renamed, read without running anything that is in them.

A file that has its final name is whole. Weights and checkpoints are safetensors: numbers and a little text, no
pickles, so that loading a stranger's file cannot run a stranger's code.
"""

from __future__ import annotations

import copy
import errno
import json
import os
import secrets
from collections.abc import Callable, Mapping
from functools import lru_cache, wraps
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from .door import unreadable

Module = TypeVar("Module", bound=nn.Module)

# what weights may be kept as; a file may hold other types too, which cannot be copied
NUMBERS = (
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
)

__all__ = ["load_tensors", "load_weights", "save_tensors", "save_weights", "write_atomically"]


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file so that at every moment the name holds the old content or the new, never a part.

    Args:
        path: where; the folder is made if it is missing.
        content: the whole file.

    Raises:
        OSError: if the folder cannot be written or the disk is full; what was there before is untouched.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # a pipe or a device would be replaced by a file
            raise FileExistsError(errno.EEXIST, "it is no plain file")
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.parent / f".{path.name}.{secrets.token_hex(4)}"
        file = beside.open("xb")
    except OSError as error:
        raise _unwritten(path, error) from error
    try:
        with file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException as error:
        beside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _unwritten(path, error) from error
        raise


def _unwritten(path: Path, error: OSError) -> OSError:
    """The same error with a sentence."""
    reason = error.strerror or str(error)
    said = OSError(
        f"{path} could not be written ({reason}); what was there before is untouched. Make room, or give a "
        "folder that can be written."
    )
    said.errno = error.errno
    return said


def save_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Tensors of any shape by name, and text by name, as one safetensors file, atomically."""
    ready: dict[str, Tensor] = {}
    places = set()
    for name, value in tensors.items():
        value = value.detach().cpu().resolve_conj().resolve_neg().contiguous()
        place = value.untyped_storage().data_ptr()
        ready[name] = value.clone() if place in places else value  # tied weights: a copy under each name
        places.add(place)
    write_atomically(path, safetensors.torch.save(ready, metadata=dict(metadata or {})))


def load_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What ``save_tensors`` wrote: the tensors, of any shape, on the CPU, and the text.

    Raises:
        FileNotFoundError: if there is no such file.
        PermissionError: if it may not be read.
        ValueError: if it is not a whole safetensors file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; check the path, or train first.")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})
    except PermissionError as error:
        raise unreadable(path) from error
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"{path} is not a whole safetensors file ({error}); it may be cut off: copy or make it again."
        ) from error


def save_weights(model: nn.Module, path: str | os.PathLike[str], dtype: torch.dtype | None = None) -> None:
    """A module's parameters and buffers, atomically.

    Args:
        dtype: float16 halves the file; only parameters are cast, and buffers such as a table of betas keep their
            digits.

    Raises:
        TypeError: if the type is not float16, bfloat16, float32 or float64.
        OSError: if the file cannot be written.
    """
    if dtype is not None and not (dtype in NUMBERS and dtype.is_floating_point):
        raise TypeError(f"save_weights got dtype={dtype!r}; weights are floats: torch.float16, for example, or None.")
    every = model.named_parameters(remove_duplicate=False)  # tied weights have several names
    parameters = {name for name, value in every if value.is_floating_point()}
    state = model.state_dict()
    save_tensors(path, {n: v.to(dtype) if dtype is not None and n in parameters else v for n, v in state.items()})


def load_weights(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Copy weights of any precision into a module with the same names and shapes.

    Raises:
        FileNotFoundError: if there is no such file.
        PermissionError: if it may not be read.
        ValueError: if the file is damaged, or its names or shapes are not the module's; the module is then unchanged.
    """
    tensors, _ = load_tensors(path)
    copy_state(model, tensors, str(path))


def with_shipped_weights(model: Module, name: str) -> Module:
    """A module with the weights ``name`` that come with the package: in float32 whatever the default type, in eval
    mode, and without gradients.
    """
    with resources.as_file(resources.files("diffusion_edu") / "assets" / f"{name}.safetensors") as path:
        load_weights(model.float(), path)
    return model.eval().requires_grad_(False)


def each_its_own(build: Callable[[], Module]) -> Callable[[], Module]:
    """A function that builds a module once and gives each caller a copy, so that a change reaches no other caller."""

    @lru_cache(maxsize=1)
    def once() -> Module:
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):  # weights that are drawn only to be replaced
            return build()

    @wraps(build)
    def own() -> Module:
        return copy.deepcopy(once())

    return own


def shipped_card(name: str) -> dict[str, Any]:
    """How the shipped weights ``name`` were made and how good they are."""
    text = (resources.files("diffusion_edu") / "assets" / f"{name}.json").read_text(encoding="utf-8")
    card: dict[str, Any] = json.loads(text)
    return card


def copy_state(model: nn.Module, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Copy named tensors into a module, all or none of them. Where a file holds in float32 what the module has in
    float64 (it was written on a device without float64), and they agree, the module keeps its own digits.

    Raises:
        ValueError: if the names, shapes or kinds of number are not the module's.
    """
    check_state(model, tensors, origin)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            given = tensors[name]
            shorter = value.dtype == torch.float64 and given.dtype == torch.float32
            if not shorter or not torch.equal(value.to(given.device, torch.float32), given):
                value.copy_(given)


def check_state(model: nn.Module, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Refuse named tensors that cannot be copied into a module.

    Raises:
        ValueError: if the names, shapes or kinds of number are not the module's.
    """
    state = model.state_dict()
    if any(value.is_meta for value in state.values()):
        raise ValueError(
            f"the weights in {origin} cannot be copied into a model on the meta device, which holds no numbers: call "
            "model.to_empty(device='cpu') first, or build it elsewhere."
        )
    missing, extra = sorted(state.keys() - tensors.keys()), sorted(tensors.keys() - state.keys())
    if missing or extra:
        raise ValueError(
            f"the weights in {origin} belong to another model: {len(missing)} tensors are missing (first: "
            f"{(missing or ['-'])[0]}) "
            f"and {len(extra)} are unknown (first: {(extra or ['-'])[0]}). Build the model as it was built for "
            "training."
        )
    for name, value in state.items():
        if tensors[name].shape != value.shape:
            raise ValueError(
                f"the weights in {origin} belong to another model: {name} has shape {tuple(tensors[name].shape)} "
                f"there and {tuple(value.shape)} here. Build the model as it was built for training."
            )
        found, floats = tensors[name].dtype, value.is_floating_point()
        if found != value.dtype and (found.is_floating_point != floats or found not in NUMBERS):
            raise ValueError(
                f"the weights in {origin} hold {name} as {found}; it is {value.dtype} here. Save it in one "
                f"of {', '.join(str(kind) for kind in NUMBERS if kind.is_floating_point == floats)}."
            )
