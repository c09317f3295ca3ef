"""Run the quickstart notebook and leave what it made under runs/quickstart/.

    python -m scripts.quickstart

Each cell is announced, and what it prints is shown as it comes. The notebook writes its files to the folder
that DIFFUSION_EDU_RUNS names. Here that is a folder beside the last one, and its files are renamed into
place when all cells have run, so a run that fails leaves the results of the run before it alone. The
notebook as far as it came is then saved beside them.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from scripts.canonical_notebooks import canonical, dumps
from scripts.notebook_execution import NotebookFailedError, Screen, clear_outputs, execute, read, write_beside

ROOT = Path(__file__).resolve().parents[1]


def shown(path: Path) -> str:
    """The path as a person at the command line would type it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def main(arguments: list[str] | None = None) -> int:
    """Returns 0, or 1 when a cell failed, or 130 when the run was interrupted."""
    parser = argparse.ArgumentParser(description="Run the quickstart notebook.")
    parser.add_argument("--notebook", type=Path, default=ROOT / "notebooks" / "00_quickstart.ipynb")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "quickstart", help="folder for the results")
    given = parser.parse_args(arguments)
    source: Path = given.notebook.resolve()
    out: Path = given.out.resolve()

    notebook = read(source)
    clear_outputs(notebook)
    out.mkdir(parents=True, exist_ok=True)
    failed = out / f"{source.stem}.failed.ipynb"
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    start = time.monotonic()
    print(f"Running {source.name}. Its files will be in {shown(out)}", flush=True)
    try:
        execute(notebook, folder=source.parent, runs=staging, screen=Screen(sys.stdout))
        made = sorted(path for path in staging.rglob("*") if path.is_file())
        for path in made:
            target = out / path.relative_to(staging)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
        write_beside(out / source.name, dumps(canonical(notebook)))
        failed.unlink(missing_ok=True)
    except NotebookFailedError as error:
        write_beside(failed, dumps(canonical(notebook)))
        print(f"\n{error}\nThe notebook as far as it came is {shown(failed)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        write_beside(failed, dumps(canonical(notebook)))
        print(f"\nInterrupted. The notebook as far as it came is {shown(failed)}", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(staging, ignore_errors=True)

    print(f"\nDone in {time.monotonic() - start:.0f} s. You now have")
    for name in [source.name, *(str(path.relative_to(staging)) for path in made)]:
        size = (out / name).stat().st_size
        print(f"    {shown(out / name)}  ({size / 1e6:.2f} MB)")
    print("To open the notebook and move its sliders:\n    make lab      (without make: python -m scripts.lab)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
