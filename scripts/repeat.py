"""Run the notebooks again and again, strictly: whatever differs between two runs is found here, and not by a learner.

    python -m scripts.repeat [names of notebooks] [--times 10] [--threads 1 2] [--offline] [--minutes 60]

A run is nbval's: a fresh kernel executes every cell, and each output must be the stored one. The notebook is copied
into an empty folder first, and the kernel works there. ``--threads`` is how many PyTorch gets, ``--offline`` cuts the
network (Linux). Every run is a line of benchmarks/notebook_runs.csv, which is committed: a series that was stopped goes
on, on another machine too. A notebook whose code or outputs have changed is run anew, and its old lines go. A package
that has changed takes no run away, for the gate runs every notebook with it; what is said at the end counts the runs
that were made with the package as it is.
"""

import argparse
import functools
import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from benchmarks import report
from scripts import gate
from scripts.book_pages import chosen, notebooks

ROOT = Path(__file__).resolve().parents[1]
# A network of its own that leads nowhere, but for the machine's talk with itself, which a kernel needs.
CUT_OFF = """\
import fcntl, os, socket, struct, sys
with socket.socket() as s:
    fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", 0x41))  # SIOCSIFFLAGS: up and running
os.execvp(sys.argv[1], sys.argv[1:])
"""


@dataclass(frozen=True)
class Wish:
    """A run that is wanted: which notebook in which state, how many threads, the how-manieth, with a network or not."""

    name: str
    sha256: str
    threads: int
    k: int
    offline: bool


@dataclass(frozen=True)
class Run(Wish):
    """A run that was made: its seconds, "green" or what pytest said last, and of which commit and where."""

    seconds: float
    outcome: str
    commit: str
    machine: str

    @property
    def wish(self) -> Wish:
        """What it was made for."""
        return Wish(*(getattr(self, field.name) for field in fields(Wish)))

    def __str__(self) -> str:
        return f"{self.name}, {self.threads} threads, run {self.k + 1}: {self.outcome} ({self.seconds} s)"


def states(paths: Sequence[Path]) -> dict[str, str]:
    """The name of each notebook to a digest of its code and stored outputs; its text does not run."""
    found = {}
    for path in paths:
        cells = [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
        code = json.dumps([(c["source"], c["outputs"]) for c in cells])
        found[path.stem] = hashlib.sha256(code.encode()).hexdigest()[:16]
    return found


def wishes(paths: Sequence[Path], threads: Sequence[int], times: int, offline: bool) -> list[Wish]:
    """All runs, the first of each notebook before the second of any."""
    there = states(paths).items()
    return [Wish(name, state, n, k, offline) for k in range(times) for n in threads for name, state in there]


def made(wish: Wish, notebook: Path) -> Run:
    """Run a notebook in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(notebook, folder)
        command = [sys.executable, "-m", "pytest", "-q", "-c", str(ROOT / "pyproject.toml"), "--rootdir", folder]
        command += [*gate.NBVAL, "-p", "no:cacheprovider", notebook.name]
        if wish.offline:
            command = ["unshare", "--map-root-user", "--net", sys.executable, "-c", CUT_OFF, *command]
        environment = {**gate.environment(f"{folder}/runs"), "OMP_NUM_THREADS": str(wish.threads)}
        start = time.monotonic()
        done = subprocess.run(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        seconds = time.monotonic() - start
    if done.returncode:
        print(done.stdout[-4000:], done.stderr[-1000:], sep="\n", file=sys.stderr)
    said = (done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["nothing was said"])[-1]
    outcome = "green" if done.returncode == 0 else said.strip("= ")
    machine = f"{report.processor()}, {os.cpu_count()} cores, {report.versions()}"
    return Run(**asdict(wish), seconds=round(seconds, 1), outcome=outcome, commit=commit(), machine=machine)


def commit() -> str:
    """Of the repository, with "+" behind it where package or notebooks have changed since; empty outside of git."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + "+" * bool(git("diff", "HEAD", "--", "diffusion_edu", "notebooks"))


@functools.cache
def of_this_package(commit: str) -> bool:
    """Whether package and pins of a commit are those that lie here."""
    command = ["git", "diff", "--quiet", commit, "--", "diffusion_edu", "constraints.txt"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0


def summary(runs: Sequence[Run], wanted: Sequence[Wish]) -> str:
    """How many of the wanted runs are green, red, or not made yet; each red one by name."""
    there = {run.wish: run for run in runs}
    found = [there[wish] for wish in wanted if wish in there]
    red = [run for run in found if run.outcome != "green"]
    missing = len(wanted) - len(found)
    return "\n".join([*map(str, red), f"{len(found) - len(red)} green, {len(red)} red, {missing} not made yet"])


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 when every run that was asked for is green, else 1."""
    parser = argparse.ArgumentParser(description="The notebooks, again and again.")
    parser.add_argument("names", nargs="*", help="notebooks to run, such as 04_elbo; all of them if none is named")
    parser.add_argument("--times", type=int, default=10, help="runs of each (default: 10)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="of PyTorch (default: 1 2)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (default: 1)")
    parser.add_argument("--offline", action="store_true", help="without a network")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no run after so many minutes")
    parser.add_argument("--file", type=Path, default=ROOT / "benchmarks" / "notebook_runs.csv", help="of the runs")
    given = parser.parse_args(arguments)
    there = chosen(parser, given.names, notebooks())
    if given.offline and not shutil.which("unshare"):
        parser.error("--offline needs Linux's unshare; leave it out.")
    if min(given.times, given.jobs, *given.threads) < 1:
        parser.error("--times, --threads and --jobs must be at least 1.")
    wanted = wishes(list(there.values()), given.threads, given.times, given.offline)
    deadline = time.monotonic() + 60 * given.minutes
    now = states(notebooks())
    runs = [run for run in report.read_rows(given.file, Run) if now.get(run.name) == run.sha256]
    before = {run.wish for run in runs}

    def in_time(wish: Wish) -> Run | None:
        return made(wish, there[wish.name]) if time.monotonic() < deadline else None

    with ThreadPoolExecutor(given.jobs) as pool:
        begun = [pool.submit(in_time, wish) for wish in wanted if wish not in before]
        for ended in as_completed(begun):  # a long run does not keep the others from the record
            if (run := ended.result()) is not None:
                runs.append(run)
                report.write_rows(given.file, runs)
                print(run, flush=True)
    text = summary(runs, wanted)
    print(text)
    asked = set(wanted)
    now_too = sum(run.wish in asked and run.outcome == "green" and of_this_package(run.commit) for run in runs)
    print(f"{now_too} of the green ones were made with the package as it is now", file=sys.stderr)
    return 0 if text.endswith(" 0 red, 0 not made yet") else 1


if __name__ == "__main__":
    raise SystemExit(main())
