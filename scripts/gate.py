"""Everything that CI runs, in order, with a summary at the end.

    python -m scripts.gate [names of steps]

All steps run even when an earlier one is red. The exit code is 0 only if each of them is green. A step that
found no test is red (pytest's exit code 5), and so is a repository without notebooks.
"""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHON = sys.executable
# Strict: each cell is executed, and its output must be the stored one, but for what the file of patterns names.
NBVAL = (
    *("--nbval", "--nbval-current-env", "--nbval-cell-timeout=1200"),
    *("--nbval-sanitize-with", str(ROOT / "tests" / "nbval_sanitize.cfg")),
)
# A test file, or a notebook, stays in one process: its cells build on each other, and so do a browser's tests. These
# often wait, so there is a process more than cores; and they take long, so they start first, in the folder's order.
CORES = os.cpu_count() or 1
PROCESSES = min(CORES + 1, 4)
PARALLEL = ("-n", str(PROCESSES), "--dist", "loadfile", "--no-loadscope-reorder", "--durations", "20")


@dataclass(frozen=True)
class Step:
    """One command of the gate."""

    name: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """How a step ended: its exit code, its seconds, and the last line that it printed."""

    name: str
    code: int
    seconds: float
    last_line: str


def steps() -> list[Step]:
    """The gate's steps."""
    notebooks = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "notebooks").glob("*.ipynb"))
    return [
        Step("format", (PYTHON, "-m", "ruff", "format", "--check", ".")),
        Step("lint", (PYTHON, "-m", "ruff", "check", ".")),
        Step("types", (PYTHON, "-m", "mypy")),
        # nbval takes seconds to import, in each process, and only the next step needs it
        Step("tests", (PYTHON, "-m", "pytest", *PARALLEL, "-p", "no:nbval")),
        # Without notebooks the folder's name is passed on: pytest then finds nothing, which is red.
        Step("notebooks", (PYTHON, "-m", "pytest", *PARALLEL, *NBVAL, *(notebooks or ["notebooks"]))),
    ]


def environment(runs: str) -> dict[str, str]:
    """What a test runs in; ``runs`` is the folder for what notebooks write."""
    found = {**os.environ, "DIFFUSION_EDU_RUNS": runs, "PYTHONUNBUFFERED": "1"}
    found.setdefault("OMP_WAIT_POLICY", "passive")  # threads that wait leave the core to the other process
    found.setdefault("OMP_NUM_THREADS", str(max(1, CORES // PROCESSES)))  # for all processes together, the cores
    found.pop("MPLBACKEND", None)  # a notebook's figures go into the notebook
    return found


def run(step: Step, environment: dict[str, str]) -> Result:
    """Run one step, showing its output as it comes."""
    print(f"\n=== {step.name}: {' '.join(['python', *step.command[1:]])}", flush=True)
    start = time.monotonic()
    last = ""
    with subprocess.Popen(
        step.command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        bufsize=1,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            last = line.strip() or last
    return Result(step.name, process.returncode, time.monotonic() - start, last)


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 when every step asked for is green, 1 when one is red, and 2 for a step that is not there."""
    wanted = sys.argv[1:] if arguments is None else arguments
    known = {step.name: step for step in steps()}
    unknown = [name for name in wanted if name not in known]
    if unknown:
        print(f"There is no step {', '.join(unknown)}. The steps are {', '.join(known)}.", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as runs:  # what notebooks write while they are tested
        results = [run(known[name], environment(runs)) for name in (wanted or known)]
    print("\n=== summary")
    for result in results:
        verdict = "green" if result.code == 0 else f"RED (exit code {result.code})"
        print(f"{result.name:<10} {verdict:<20} {result.seconds:6.1f} s   {result.last_line.strip('= ')}")
    red = [result.name for result in results if result.code]
    print(f"RED: {', '.join(red)}" if red else "all green")
    return 1 if red else 0


if __name__ == "__main__":
    raise SystemExit(main())
