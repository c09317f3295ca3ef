"""Write constraints.txt: one exact version for every package that the project and its extras pull in.

pip resolves the project with all its extras, as if into an empty environment, and installs nothing. The
pins that constraints.txt already has are kept, so that a new dependency does not move the others;
`--upgrade` resolves them anew. Local suffixes (`+cpu`) and the packages that only PyTorch's CUDA build
needs are left out, so that the one file serves each build of PyTorch.

Run it as `make constraints`, on the oldest Python that the project serves. It takes about a minute.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "constraints.txt"
CUDA_ONLY = re.compile(r"^(nvidia-|cuda-|triton$)")
HEADER = """\
# Exact versions of what the Makefile, CI and the book install: `pip install -c constraints.txt -e .[course]`.
# Written by `make constraints` from pyproject.toml; do not edit by hand.
# A constraint installs nothing by itself. It only says which version, if the package is wanted at all.
"""


def normal(name: str) -> str:
    """The form of a package name in which two spellings of it are equal."""
    return re.sub(r"[-_.]+", "-", name).lower()


def resolve(pins: Path | None, extras: list[str]) -> dict[str, str]:
    """Ask pip which versions it would install; returns {name: version without local suffix}."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
    if pins is not None:
        command += ["--constraint", str(pins)]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command += ["--report", str(report), f"{ROOT}[{','.join(extras)}]"]
        if subprocess.run(command).returncode:
            raise SystemExit(
                "pip found no set of versions for pyproject.toml under the pins in constraints.txt; "
                "its reason is above. Run `python -m scripts.make_constraints --upgrade` to resolve all anew."
            )
        found = json.loads(report.read_text(encoding="utf-8"))["install"]
    versions = {normal(i["metadata"]["name"]): i["metadata"]["version"].partition("+")[0] for i in found}
    return {name: versions[name] for name in sorted(versions) if not CUDA_ONLY.match(name)}


def main() -> None:
    """Resolve, and write the file beside before it takes the old one's place."""
    parser = argparse.ArgumentParser(description="Write constraints.txt from pyproject.toml.")
    parser.add_argument("--upgrade", action="store_true", help="let every pin move to the newest release")
    upgrade: bool = parser.parse_args().upgrade

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = None if upgrade or not TARGET.exists() else TARGET
    versions = resolve(pins, sorted(project["optional-dependencies"]))
    versions.pop(normal(project["name"]), None)

    text = HEADER + "".join(f"{name}=={version}\n" for name, version in versions.items())
    beside = TARGET.with_suffix(".txt.new")
    beside.write_text(text, encoding="utf-8", newline="\n")
    os.replace(beside, TARGET)
    print(f"constraints.txt: {len(versions)} packages pinned")


if __name__ == "__main__":
    main()
