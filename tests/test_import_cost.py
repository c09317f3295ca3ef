"""`import diffusion_edu` is cheap: it loads PyTorch, and nothing that only some of its users need."""

import json
import subprocess
import sys

import pytest

MOST_SECONDS = 0.3
NOT_LOADED = (
    "matplotlib",
    "ipywidgets",
    "IPython",
    "sklearn",
    "scipy",
    "accelerate",
    "pandas",
    "pooch",
    "tyro",
    "PIL",
    "requests",
)

PROBE = """
import json, sys, time
import torch
before = set(sys.modules)
start = time.perf_counter()
import diffusion_edu
seconds = time.perf_counter() - start
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print(json.dumps([seconds, sorted(loaded), sorted({name.partition(".")[0] for name in sys.modules})]))
"""


@pytest.fixture(scope="module")
def probes():
    """[seconds over `import torch`, packages newly loaded, all loaded] of five fresh interpreters."""
    runs = [subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True) for _ in range(5)]
    for run in runs:
        assert run.returncode == 0, run.stderr
    return [json.loads(run.stdout) for run in runs]


@pytest.mark.parametrize("package", NOT_LOADED)
def test_import_does_not_load(package, probes):
    assert package not in probes[0][2], f"import diffusion_edu loads {package}; it newly loads {probes[0][1]}"


def test_import_costs_at_most_0_3_seconds_over_torch(probes):
    seconds = [probe[0] for probe in probes]
    # the least of them: what else the machine does only adds to the others
    assert min(seconds) <= MOST_SECONDS, f"seconds of five imports: {seconds}"
