"""What each notebook costs: seconds, processor seconds, memory. Writes the table of book/costs.md.

    python -m scripts.costs [names of notebooks] [--write] [--at-once]

Each notebook is executed from its first cell to its last in a kernel of its own, one after another, and a cell behind
the last asks the kernel what it has used. `--at-once` starts all kernels together, as in a JupyterLab with every
notebook open and running, and says whether all of them finish.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import nbformat
import torch

from benchmarks import report
from scripts.book_pages import chosen, notebooks
from scripts.notebook_execution import execute, read

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "book" / "costs.md"
ASK = """\
import json, pathlib, re, resource, sys, time
_status = pathlib.Path("/proc/self/status")  # on Linux ru_maxrss remembers the process that this one was forked from
_high = re.search(r"VmHWM:\\s*(\\d+) kB", _status.read_text()) if _status.exists() else None
_unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
_most = int(_high[1]) * 1024 if _high else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _unit
print(json.dumps({"cpu": time.process_time(), "memory": _most}))
"""


@dataclass(frozen=True)
class Cost:
    """What one notebook used.

    Args:
        name: of the notebook.
        seconds: by the clock, with the start of its kernel.
        cpu: processor seconds of its kernel.
        memory: its kernel's largest, in bytes.
        stored: size of the notebook with its outputs, in bytes.
    """

    name: str
    seconds: float
    cpu: float
    memory: int
    stored: int

    def row(self) -> tuple[str, ...]:
        """Its row of the table."""
        megabytes = (f"{self.memory / 2**20:.0f}", f"{self.stored / 2**20:.1f}")
        return (f"[{self.name}](../notebooks/{self.name}.ipynb)", f"{self.seconds:.0f}", f"{self.cpu:.0f}", *megabytes)


def cost(path: Path) -> Cost:
    """Execute a copy of a notebook and ask. Raises NotebookFailedError if a cell fails."""
    notebook = read(path)
    notebook.cells.append(nbformat.v4.new_code_cell(ASK))
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as runs:
        execute(notebook, folder=path.parent, runs=Path(runs))
    used = json.loads(notebook.cells[-1].outputs[0].text)
    return Cost(path.stem, time.perf_counter() - start, used["cpu"], used["memory"], path.stat().st_size)


def table(costs: list[Cost]) -> str:
    """The machine, and a row a notebook."""
    header = ("notebook", "seconds", "processor seconds", "memory, MiB", "stored, MiB")
    return f"{report.machine(torch.device('cpu'))}.\n\n" + report.table(header, [cost.row() for cost in costs])


def main(arguments: list[str] | None = None) -> int:
    """Returns 0, or 1 where a notebook did not finish."""
    parser = argparse.ArgumentParser(description="What each notebook costs.")
    parser.add_argument("names", nargs="*", help="notebooks to run, such as 04_elbo; all of them if none is named")
    parser.add_argument("--write", action="store_true", help="put the table into book/costs.md")
    parser.add_argument("--at-once", action="store_true", help="all kernels together")
    given = parser.parse_args(arguments)
    if given.write and (given.names or given.at_once):
        parser.error("--write takes all notebooks, one after another: leave out names and --at-once.")
    wanted = list(chosen(parser, given.names, notebooks()).values())
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that wait leave the core to another kernel
    costs, failed = [], []
    with ThreadPoolExecutor(len(wanted) if given.at_once else 1) as pool:
        for path, running in [(path, pool.submit(cost, path)) for path in wanted]:
            try:
                costs.append(running.result())
                print(" ".join(costs[-1].row()[1:]), path.stem, flush=True)
            except Exception as error:  # whatever ends one notebook, the others go on
                failed.append(path.stem)
                print(f"{path.stem} did not finish: {error}", file=sys.stderr, flush=True)
    report.publish("costs", table(costs), given.write and not failed, PAGE)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
