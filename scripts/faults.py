"""Kill training runs and downloads at random moments, and see that nothing is lost.

    python -m scripts.faults [--kills 50] [--seed 0]

One run of the command line is started over and over in the same folder, and dies by ``kill -9``: while it trains, half
through the writing of a file, while it resumes. Beside it a data set is fetched from a slow server on this machine, and
that dies too. After each death every file that has its name is whole, the checkpoint has not gone back, and the log is
at most one report ahead of it. The next start says what it did. The run that is at last left alone ends with the same
numbers, bit for bit, as one that nobody touched.

``pytest --kills N tests/test_faults.py`` is the same; the gate runs it with a few. It needs fork and SIGKILL: no
Windows.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gzip
import hashlib
import http.server
import io
import multiprocessing
import os
import random
import re
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from diffusion_edu import data, trainer
from diffusion_edu.cli import main as command_line
from diffusion_edu.cli import read_recipe
from diffusion_edu.storage import copy_state, load_tensors

STEPS = 200
EVERY = 5  # steps between two checkpoints, and between two rows of the log
RECIPE = f"""
[data]
set = "moons"
[mlp]
width = 16
depth = 1
[train]
steps = {STEPS}
batch_size = 16
log_every = {EVERY}
save_every = {EVERY}
device = "cpu"
[sample]
steps = 4
[log]
samples_every = 100
[evaluate]
n = 20
"""
MOMENTS = ("training", "saving", "resuming", "downloading")
PRELOAD = ["diffusion_edu.cli", "diffusion_edu.viz", "accelerate", "tyro", "torch._dynamo", "pooch"]


# What the children do


def train(arguments: list[str], said: str, at_write: int | None, at_copy: int | None) -> None:
    """A command that dies half through a write, or before a part of a resume; its stderr goes to a file."""
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    writes, copies = 0, 0
    fsync = os.fsync

    def counted_write(file: int) -> None:
        nonlocal writes
        writes += 1
        if writes == at_write:
            os.ftruncate(file, os.fstat(file).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(file)

    def counted_copy(*given: Any) -> None:
        nonlocal copies
        copies += 1
        if copies == at_copy:
            os.kill(os.getpid(), signal.SIGKILL)
        copy_state(*given)

    os.fsync = counted_write  # type: ignore[assignment]
    resuming: Any = trainer
    resuming.copy_state = counted_copy
    raise SystemExit(command_line(arguments))


def fetch(address: str, cache: str, sizes: dict[str, int], sha256: dict[str, str]) -> None:
    """Load the test split of a small Fashion-MNIST, which has to be fetched."""
    import pooch

    os.environ.update(DIFFUSION_EDU_MIRROR=address, NO_PROXY="127.0.0.1")
    os.environ.pop("DIFFUSION_EDU_DATA", None)
    pooch.os_cache = lambda name: Path(cache) / name
    data._FASHION_MNIST = dataclasses.replace(data._FASHION_MNIST, sizes=sizes, sha256=sha256, system=())
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the progress bar
    found = data.fashion_mnist("test")
    raise SystemExit(0 if len(found) == sizes["test"] else 3)


# The server of the downloads


def small_set(n: int = 300) -> dict[str, bytes]:
    """The two files of a test split with n pictures, by name."""
    pixels = torch.randint(256, (n, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    labels = torch.arange(n, dtype=torch.uint8) % 10
    first = data._FASHION_MNIST.first["test"]
    labels[: len(first)] = torch.tensor(first, dtype=torch.uint8)

    def idx(x: torch.Tensor) -> bytes:
        head = bytes([0, 0, 8, x.ndim]) + b"".join(n.to_bytes(4, "big") for n in x.shape)
        return gzip.compress(head + x.numpy().tobytes())

    return {"t10k-images-idx3-ubyte.gz": idx(pixels), "t10k-labels-idx1-ubyte.gz": idx(labels)}


@contextmanager
def slow_server(files: dict[str, bytes], pieces: int = 20, pause: float = 0.02) -> Iterator[str]:
    """Serves files by their last name, a piece at a time; yields its address."""

    class Slow(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = files[self.path.rpartition("/")[2]]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            step = -(-len(content) // pieces)
            try:
                for k in range(0, len(content), step):
                    self.wfile.write(content[k : k + step])
                    time.sleep(pause)
            except OSError:  # the one who asked was killed
                pass

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


# What must be true after each death


def checkpoint(folder: Path) -> int:
    """The step that the folder's checkpoint stands at, 0 where there is none."""
    path = folder / "checkpoint.safetensors"
    return int(load_tensors(path)[1]["step"]) if path.exists() else 0


def check_whole(folder: Path, before: int) -> None:
    """Every file that has its name is whole, and the checkpoint and the log are where they may be.

    Raises:
        AssertionError: if not.
    """
    from PIL import Image

    for path in folder.glob("*.safetensors"):
        load_tensors(path)
    for path in [*folder.glob("*.png"), *folder.glob("samples/*.png")]:
        with Image.open(path) as image:
            image.verify()
    if (folder / "recipe.toml").exists():
        read_recipe(folder / "recipe.toml")
    step, log = checkpoint(folder), folder / "metrics.csv"
    rows = log.read_bytes().splitlines(keepends=True)[1:] if log.exists() else []
    logged = [int(row.split(b",")[0]) for row in rows if row.endswith(b"\n")]
    assert step % EVERY == 0 and step >= before, f"the checkpoint went from step {before} to {step}"
    assert not logged or logged[-1] - step <= EVERY, f"the log stands at {logged[-1]}, the checkpoint at {step}"


def check_said(said: Path, before: int, half_written: int) -> bool:
    """Whether a start came as far as to say what it did; what it said is what was true.

    Raises:
        AssertionError: if it is not.
    """
    text = said.read_text(encoding="utf-8") if said.exists() else ""
    going_on = re.search(r"Going on from step (\d+) of", text)
    cleared = re.search(r"Cleared away (\d+) half-written", text)
    assert going_on is None or int(going_on[1]) == before, f"it said step {going_on and going_on[1]}, not {before}"
    assert cleared is None or int(cleared[1]) == half_written
    if going_on is not None:
        assert (cleared is not None) == (half_written > 0), f"{half_written} half-written files, and it said: {text}"
    return going_on is not None


def half_written(folder: Path) -> int:
    """How many files a killed process left beside their places."""
    return len([path for path in folder.rglob(".*") if path.is_file()])


def same_numbers(a: Path, b: Path) -> bool:
    """Whether two runs ended with the same weights, averages, optimiser and samples, bit for bit."""
    for name in ("checkpoint.safetensors", "model.safetensors", "weights.safetensors"):
        (one, _), (other, _) = load_tensors(a / name), load_tensors(b / name)
        if one.keys() != other.keys() or not all(torch.equal(one[key], other[key]) for key in one):
            return False
    return (a / "samples.png").read_bytes() == (b / "samples.png").read_bytes()


def campaign(kills: int, root: Path, seed: int = 0) -> Counter[str]:
    """Kill a run and a download in turns, ``kills`` times in all; returns the deaths by moment.

    Raises:
        AssertionError: if anything was lost, or came back otherwise than it should.
    """
    chance, deaths = random.Random(seed), Counter[str]()
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    recipe, straight, folder, cache = root / "tiny.toml", root / "straight", root / "run", root / "cache"
    recipe.write_text(RECIPE, encoding="utf-8")
    with contextlib.redirect_stderr(io.StringIO()):
        assert command_line(["train", str(recipe), "--folder", str(straight)]) == 0
    command = ["train", str(recipe), "--folder", str(folder)]
    said, told = root / "stderr", 0
    files = small_set()
    sha256 = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}

    with slow_server(files) as address:
        download = (address, str(cache), {"test": 300}, sha256)
        for k in range(kills):
            moment = MOMENTS[k % len(MOMENTS)]
            before, litter = checkpoint(folder), half_written(folder)
            if moment == "downloading":
                for path in cache.rglob("*.gz"):
                    path.unlink()
                child = context.Process(target=fetch, args=download)
            else:
                at_write = chance.randint(1, 25) if moment == "saving" else None
                at_copy = chance.randint(1, 2) if moment == "resuming" else None
                child = context.Process(target=train, args=(command, str(said), at_write, at_copy))
            child.start()
            if moment == "downloading":
                until = time.monotonic() + 60
                while child.is_alive() and not any(cache.rglob("*")) and time.monotonic() < until:
                    time.sleep(0.005)
                time.sleep(chance.uniform(0, 0.6))
                child.kill()
            elif moment == "training":  # at any time; reading the checkpoint meanwhile: never half a file
                enough = min(before + EVERY * chance.randint(1, 4), STEPS - EVERY)
                while child.is_alive() and checkpoint(folder) < enough:
                    time.sleep(0.01)
                time.sleep(chance.uniform(0, 0.05))
                child.kill()
            child.join(120)
            assert child.exitcode in (-9, 0), f"{moment}: exit code {child.exitcode}: {said.read_text()[-500:]}"
            deaths[moment] += child.exitcode == -9
            check_whole(folder, before)
            if moment == "downloading":
                for path in cache.rglob("*.gz"):
                    assert path.read_bytes() == files[path.name], f"{path} is not whole"
            else:
                told += check_said(said, before, litter)
            if checkpoint(folder) >= STEPS - 2 * EVERY and k + 1 < kills:  # all but done: start again
                for path in sorted(folder.rglob("*"), reverse=True):
                    path.rmdir() if path.is_dir() else path.unlink()

        child = context.Process(target=fetch, args=download)
        child.start()
        child.join(120)
        assert child.exitcode == 0, "a download that nobody killed did not end well"

    before, litter = checkpoint(folder), half_written(folder)
    child = context.Process(target=train, args=(command, str(said), None, None))
    child.start()
    child.join(300)
    assert child.exitcode == 0
    told += check_said(said, before, litter)
    assert told or not before, "no start ever said where it went on"
    assert same_numbers(straight, folder), "the run that was killed ended with other numbers"
    assert not half_written(folder), "what was left half-written was not cleared away"
    return deaths


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 when nothing was lost."""
    parser = argparse.ArgumentParser(description="Kill runs and downloads at random moments; see that nothing is lost.")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as root:
        deaths = campaign(asked.kills, Path(root), asked.seed)
    by_moment = ", ".join(f"{deaths[moment]} {moment}" for moment in MOMENTS)
    seconds = time.monotonic() - start
    print(f"{asked.kills} moments, {deaths.total()} deaths ({by_moment}) in {seconds:.0f} s: nothing lost.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
