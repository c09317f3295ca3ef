"""Feed damaged and hostile files to everything that reads one.

    python -m scripts.fuzz [--inputs 100000] [--seed 0] [--only idx ...]

Each reader gets whole files of its kind with something done to them: bits turned, parts cut, doubled and moved, numbers
in headers replaced by very large ones, words of a recipe exchanged. It may take the file, or refuse it by one of the
errors that its docstring names, with a sentence; any other exception is a fault, and so is memory that grows with the
number of files. Input k of a seed is the same on every machine, so that a fault can be looked at again.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import random
import shutil
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from diffusion_edu import CosineSchedule, DiffusionModel, Fresh, ResidualMLP, TrainConfig, Trainer, V, data
from diffusion_edu.cli import read_recipe, to_toml
from diffusion_edu.cli.recipe import Recipe, recipe_from
from diffusion_edu.storage import load_weights, save_weights

GROWTH = 24 * 2**20  # bytes that the process may grow by in the second half; 1 kB for each of 50,000 files is twice it
LARGE = (0, 1, 2, 127, 128, 255, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64, 10**30, 10**400)
TEXTS = ("", "-1", "²", "1" * 5000, "NaN", "diffusion_edu checkpoint 2", "{}", "\0")
NAMES = ("x", "../x", "model.x", "optimizer.²", "optimizer.99.step", "")


@dataclass(frozen=True)
class Reader:
    """Something that reads a file.

    Args:
        files: whole files of its kind.
        read: reads a path.
        damage: what is done to a file before it is read.
        errors: what it may raise; each message must be a sentence.
        suffixes: of the file's name, one for each of ``files``.
    """

    files: tuple[bytes, ...]
    read: Callable[[Path], object]
    damage: Callable[[random.Random, bytes], bytes]
    suffixes: tuple[str, ...]
    errors: tuple[type[Exception], ...] = (ValueError,)


# What is done to a file


def turned(chance: random.Random, raw: bytes) -> bytes:
    """A few bytes changed, cut out, doubled or moved, wherever they are."""
    changed = bytearray(raw)
    for _ in range(chance.choice((1, 1, 2, 5, 20))):
        if not changed:
            break
        at, length = chance.randrange(len(changed)), chance.choice((1, 1, 2, 4, 8, 64))
        match chance.randrange(6):
            case 0:
                changed[at] ^= 1 << chance.randrange(8)
            case 1:
                changed[at : at + length] = chance.randbytes(length)
            case 2:
                del changed[at : at + length]
            case 3:
                changed[at:at] = changed[at : at + length]
            case 4:
                del changed[at:]
            case 5:
                size = chance.choice((2, 4, 8))
                number = chance.choice(LARGE) % 2 ** (8 * size)
                changed[at : at + size] = number.to_bytes(size, chance.choice(("big", "little")))
    return bytes(changed)


def at_the_head(chance: random.Random, raw: bytes) -> bytes:
    """As ``turned``, most often within the first bytes, where sizes stand."""
    head = min(len(raw), chance.choice((8, 16, 32, 64)))
    return turned(chance, raw) if chance.random() < 0.3 else turned(chance, raw[:head]) + raw[head:]


def inside_gzip(chance: random.Random, raw: bytes) -> bytes:
    """As ``at_the_head``, of the file or of what is packed in it."""
    if chance.random() < 0.5:
        return at_the_head(chance, raw)
    return gzip.compress(at_the_head(chance, gzip.decompress(raw)), 1, mtime=0)


def in_the_header(chance: random.Random, raw: bytes) -> bytes:
    """A safetensors file whose header says something else, or which is damaged as others are."""
    if chance.random() < 0.3:
        return at_the_head(chance, raw)
    size = int.from_bytes(raw[:8], "little")
    header, body = json.loads(raw[8 : 8 + size]), raw[8 + size :]
    for _ in range(chance.choice((1, 1, 2))):
        name = chance.choice(list(header))
        if name == "__metadata__":
            key = chance.choice(list(header[name]) or ["step"])
            header[name][key] = chance.choice(TEXTS)
            continue
        entry = header[name]
        match chance.randrange(6):
            case 0:
                kinds = ("F64", "F32", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "F4", "C64", "X9")
                entry["dtype"] = chance.choice(kinds)
            case 1:
                entry["shape"] = [chance.choice(LARGE) for _ in range(chance.randrange(4))]
            case 2:
                entry["data_offsets"] = sorted(chance.choice(LARGE) for _ in range(2))
            case 3:
                header[chance.choice(NAMES)] = header.pop(name)
            case 4:
                del header[name]
            case 5:
                entry["shape"] = entry["shape"][::-1] + chance.choice(([], [1], [0]))
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


WORDS = (
    *("0", "-1", "1e400", "nan", "inf", "true", '""', "[]", "[1, 2]", "[[[[[[[[", "{a = 1}", "10_000_000_000_000"),
    "\0",
    *("[train]", "[[train]]", "[unet]", "[sample]", "steps", "set", '"moons"', '"mnist_5k"', "=", "#", "\n", "'''"),
    "1979-05-27",
    *("channels = [16384, 16384]", "blocks = [16, 16]", '"../../etc/passwd"', "width = 16384", "depth = 256"),
)  # fmt: skip


def other_words(chance: random.Random, raw: bytes) -> bytes:
    """A recipe with words exchanged, lines moved, or damaged as others are."""
    if chance.random() < 0.2:
        return turned(chance, raw)
    lines = raw.decode().splitlines()
    for _ in range(chance.choice((1, 2, 4))):
        at = chance.randrange(len(lines))
        match chance.randrange(4):
            case 0:
                lines[at] = lines[at].partition("=")[0] + "= " + chance.choice(WORDS)
            case 1:
                lines[at] = chance.choice(WORDS)
            case 2:
                lines.insert(at, lines[chance.randrange(len(lines))])
            case 3:
                words = lines[at].split() or [""]
                words[chance.randrange(len(words))] = chance.choice(WORDS)
                lines[at] = " ".join(words)
    return "\n".join(lines).encode("utf-8", "surrogatepass")


# The readers


def readers(work: Path) -> dict[str, Reader]:
    """All of them, by name. ``work`` is a folder of their own."""
    torch.manual_seed(0)
    idx = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (2, 3, 4)) + bytes(range(24))

    model = DiffusionModel(ResidualMLP(2, 8, 1), CosineSchedule(), V)
    points = Fresh(lambda n, generator: torch.randn(n, 2, generator=generator))
    trainer = Trainer(model, points, config=TrainConfig(steps=2, batch_size=4, device="cpu")).run()
    trainer.save(work)
    save_weights(model, work / "weights")

    def bits(model: torch.nn.Module) -> list[bytes]:  # NaN is not equal to NaN, and its bits are
        return [p.detach().numpy().tobytes() for p in model.parameters()]

    def resume(path: Path) -> None:
        shutil.copyfile(path, work / "checkpoint.safetensors")
        before = trainer.step, bits(trainer.model)
        try:
            trainer.resume(work)
        except ValueError:
            if (trainer.step, bits(trainer.model)) != before:
                raise AssertionError("a checkpoint was refused, and the trainer changed") from None
            raise

    recipes = [to_toml(Recipe()), to_toml(recipe_from({"data": {"set": "moons"}}, ""))]

    def picture(mode: str, kind: str) -> bytes:
        from PIL import Image

        file = io.BytesIO()
        image = Image.frombytes(mode, (9, 7), bytes(range(63)) * len(Image.new(mode, (1, 1)).getbands()))
        image.save(file, kind, **({"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"}))
        return file.getvalue()

    shown = (picture("L", "png"), picture("RGBA", "png"), picture("RGB", "jpeg"), picture("CMYK", "jpeg"))

    def folder(path: Path) -> object:
        return data.image_folder(path.parent, 4)

    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in ("a.bin", "b.bin"):
            member = tarfile.TarInfo(name)
            member.size = 40
            tar.addfile(member, io.BytesIO(bytes(40)))
    packed = gzip.compress(archive.getvalue(), 1)

    shipped = Path(data.__file__).parent / "assets" / "mnist_5k.npz"
    npz = shipped.read_bytes()[:4096]

    def digits(path: Path) -> object:
        found: Any = data.resources.files  # type: ignore[attr-defined]

        class Elsewhere:
            def joinpath(self, name: str) -> Path:
                return path

        data.resources.files = lambda package: Elsewhere()  # type: ignore[attr-defined]
        try:
            return data._archive.__wrapped__("mnist_5k")
        finally:
            data.resources.files = found  # type: ignore[attr-defined]

    return {
        "idx": Reader((idx, gzip.compress(idx, 1)), data.read_idx, at_the_head, ("", ".gz")),
        "idx.gz": Reader((gzip.compress(idx, 1),), data.read_idx, inside_gzip, (".gz",)),
        "tar.gz": Reader((packed,), lambda path: data._tar_members(path, ["a.bin"], 40), inside_gzip, (".tar.gz",)),
        "npz": Reader((npz,), digits, turned, (".npz",), (RuntimeError,)),
        "pictures": Reader(shown, folder, at_the_head, (".png", ".png", ".jpg", ".jpeg")),
        "weights": Reader(
            ((work / "weights").read_bytes(),), lambda path: load_weights(model, path), in_the_header, ("",)
        ),
        "checkpoint": Reader(((work / "checkpoint.safetensors").read_bytes(),), resume, in_the_header, ("",)),
        "recipe": Reader(tuple(recipe.encode() for recipe in recipes), read_recipe, other_words, (".toml", ".toml")),
    }


def memory() -> int:
    """Bytes that this process holds now; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * 4096


def is_sentence(error: Exception) -> bool:
    """Whether an error says something, and ends like a sentence."""
    return len(str(error)) > 20 and str(error).rstrip()[-1] in ".?"


def attack(inputs: int, seed: int = 0, only: tuple[str, ...] = ()) -> tuple[Counter[str], list[str], int]:
    """Feed the readers in turns.

    Args:
        inputs: files in all.
        seed: of the damage.
        only: names of readers; empty for all.

    Returns:
        how often each reader took and refused a file, the faults in words, and how many bytes the process grew while it
        was fed the second half. (The allocator keeps some tens of megabytes that the first half has needed.)
    """
    counts, faults = Counter[str](), list[str]()
    fast = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=fast) as root, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of what it then refuses, or reads all the same
        work = Path(root)
        (work / "of").mkdir()
        (work / "one").mkdir()
        known: Mapping[str, Reader] = readers(work / "of")
        unknown = sorted(set(only) - set(known))
        if unknown:
            raise SystemExit(f"there is no reader {', '.join(unknown)}; the names are {', '.join(known)}.")
        names = [name for name in known if not only or name in only]
        warm = 0
        for k in range(inputs):
            if k == max(1, inputs // 2):
                warm = memory()
            name = names[k % len(names)]
            reader, chance = known[name], random.Random(f"{seed} {k}")
            which = chance.randrange(len(reader.files))
            path = work / "one" / f"file{reader.suffixes[which]}"
            path.write_bytes(reader.damage(chance, reader.files[which]))
            try:
                reader.read(path)
                counts[f"{name} taken"] += 1
            except reader.errors as error:
                counts[f"{name} refused"] += 1
                if not is_sentence(error):
                    faults.append(f"input {k} of seed {seed}, {name}: no sentence: {error!r}")
            except Exception as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                faults.append(f"input {k} of seed {seed}, {name}: {error!r} at {where.filename}:{where.lineno}")
            path.unlink()
        return counts, faults, max(0, memory() - warm) if warm else 0


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 when there is no fault and memory did not grow."""
    parser = argparse.ArgumentParser(description="Feed damaged and hostile files to everything that reads one.")
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[], metavar="READER")
    asked = parser.parse_args(arguments)
    start = time.monotonic()
    counts, faults, growth = attack(asked.inputs, asked.seed, tuple(asked.only))
    for what, count in sorted(counts.items()):
        print(f"{what:<20} {count}")
    for fault in faults[:20]:
        print(fault[:500], file=sys.stderr)
    print(
        f"{asked.inputs} files in {time.monotonic() - start:.0f} s: {len(faults)} faults; {growth / 2**20:.1f} MiB more"
    )
    return 1 if faults or growth > GROWTH else 0


if __name__ == "__main__":
    sys.exit(main())
