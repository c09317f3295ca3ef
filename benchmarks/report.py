"""What the measurements share: the median and its spread, a Markdown table, facts about the machine, README's places.

A place in README.md is the text between two comments, ``<!-- NAME: begin -->`` and ``<!-- NAME: end -->``. A benchmark
that is run with ``--write`` puts its result there and leaves the rest of the file alone.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import datetime
import io
import math
import os
import platform
import re
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import torch

from diffusion_edu import Estimate
from diffusion_edu.storage import write_atomically
from diffusion_edu.trainer import computes_in_bf16

Row = TypeVar("Row")

README = Path(__file__).with_name("README.md")


@dataclass(frozen=True)
class Spread:
    """The median of some rounds, and the quartiles around it."""

    low: float
    median: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """Raises ValueError for fewer than two values: one round has no spread."""
        if len(values) < 2:
            raise ValueError(f"a spread was asked of {len(values)} rounds; measure at least 2.")
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        return Spread(low, statistics.median(values), high)

    def text(self, digits: int = 2) -> str:
        """``median (low to high)``."""
        return f"{self.median:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def mean(values: Sequence[float]) -> Estimate:
    """The mean of independent values and its standard error; at least two."""
    return Estimate(statistics.mean(values), statistics.stdev(values) / math.sqrt(len(values)))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is flush left, the others are numbers and flush right.

    Raises:
        ValueError: if a row has not one cell a column.
    """
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"a table of {len(header)} columns got the row {list(row)}; give one cell a column.")
    rule = ["---"] + ["--:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))


def machine(device: torch.device) -> str:
    """One line: what it ran on, and when."""
    return f"{hardware(device)}, {versions()}"


def hardware(device: torch.device) -> str:
    """What it ran on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    half = " that compute in bf16" if device.type == "cpu" and computes_in_bf16(device) else ""
    return f"{device.type}: {name}, {os.cpu_count()} cores{half}, {torch.get_num_threads()} threads"


def versions() -> str:
    """What it ran with, and when."""
    today = datetime.date.today().isoformat()
    return f"PyTorch {torch.__version__}, Python {platform.python_version()}, {platform.system()}, {today}"


def processor() -> str:
    """The name that it has for its maker."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def read_rows(path: Path, kind: type[Row]) -> list[Row]:
    """The rows of a CSV file as records of a dataclass of texts, numbers and truth values; none if there is no file."""
    if not path.is_file():
        return []
    types = get_type_hints(kind)
    with path.open(encoding="utf-8", newline="") as file:
        return [
            kind(**{name: text == "True" if types[name] is bool else types[name](text) for name, text in row.items()})
            for row in csv.DictReader(file)
        ]


def write_rows(path: Path, rows: Sequence[Any]) -> None:
    """Records of one dataclass as a CSV file that is whole at every moment. At least one row."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(rows[0])], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.getvalue().encode())


def keep_memory() -> bool:
    """Let glibc keep memory that was freed, so that nothing is fetched from the system again while something is timed.

    Which of two programs has to fetch memory anew depends on where their blocks happen to lie, and not on what they do.

    Returns:
        whether the C library is one that can be told.
    """
    trim_threshold, mmap_threshold = -1, -3  # malloc.h's M_TRIM_THRESHOLD and M_MMAP_THRESHOLD
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(trim_threshold, 2**31 - 1) and mallopt(mmap_threshold, 2**25))  # as large as they may be


def add_device(parser: argparse.ArgumentParser) -> None:
    """The flag ``--device`` of a measurement."""
    parser.add_argument("--device", choices=("cpu", "cuda", "mps"), default="cpu", help="(default: cpu)")


def of_device(name: str, device: torch.device) -> str:
    """The place of a result: one of its own for each kind of device."""
    return name if device.type == "cpu" else f"{name}_{device.type}"


def first_line(error: Exception) -> str:
    """Its kind, and the first line of what it says, if it says anything."""
    return ": ".join([type(error).__name__, *str(error).splitlines()[:1]])


def say(text: str) -> None:
    """A line on stderr, at once: what a benchmark is doing."""
    print(text, file=sys.stderr, flush=True)


def placed(document: str, name: str, text: str) -> str:
    """The document with ``text`` in the place ``name``.

    Raises:
        ValueError: if the document has not exactly one such place.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if document.count(begin) != 1 or document.count(end) != 1 or document.index(begin) > document.index(end):
        raise ValueError(f"the document must have the line {begin} once, and {end} once below it.")
    before, rest = document.split(begin)
    return f"{before}{begin}\n\n{text.strip()}\n\n{end}{rest.split(end)[1]}"


def with_place(document: str, name: str) -> str:
    """The document with a place for a GPU's result below that of the CPU's, where it had none."""
    base = name.removesuffix("_cuda").removesuffix("_mps")
    end = f"<!-- {base}: end -->"
    if base == name or f"<!-- {name}: begin -->" in document:
        return document
    return document.replace(end, f"{end}\n\n<!-- {name}: begin -->\n<!-- {name}: end -->")


def publish(name: str, text: str, write: bool, page: Path | None = None) -> None:
    """Print a result, and if asked put it into its place in a page.

    Args:
        name: of the place.
        text: the result, in Markdown.
        write: whether to put it there.
        page: None for README.md.

    Raises:
        ValueError: if the place is not there.
    """
    print(text)
    if write:
        page = README if page is None else page
        write_atomically(page, placed(with_place(page.read_text(encoding="utf-8"), name), name, text).encode())
