"""What every test may use: the device under test, and a seeded source of noise."""

import signal

import pytest
import torch
from hypothesis import HealthCheck, settings

# The same examples each time, so that a change is judged by itself; `--hypothesis-profile deep` draws others, and many.
settings.register_profile(
    "course", deadline=None, max_examples=60, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("deep", settings.get_profile("course"), max_examples=2000, derandomize=False)
settings.load_profile("course")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device",
        choices=("cpu", "cuda", "mps"),
        default="cpu",
        help="where the tests that take a device run (default: cpu)",
    )
    parser.addoption(
        "--every-notebook",
        action="store_true",
        help="run each notebook in JupyterLab and move its sliders there, and not only 00_quickstart (minutes)",
    )
    parser.addoption(
        "--kills",
        type=int,
        default=4,
        help="how often test_faults.py kills a run or a download, at moments of four kinds in turns (default: 4)",
    )


def pytest_configure() -> None:
    """A shell starts what it puts in the background with Ctrl-C ignored, and the tests of Ctrl-C send it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def device(pytestconfig: pytest.Config) -> torch.device:
    """The device named by --device. One that is asked for and not there is an error, not a skip."""
    name = pytestconfig.getoption("--device")
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there[name]:
        raise pytest.UsageError(
            f"--device {name} was asked for, and PyTorch {torch.__version__} finds no such device here. "
            f"It finds {', '.join(d for d in there if there[d])}."
        )
    return torch.device(name)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test starts from the same global random state."""
    torch.manual_seed(0)


@pytest.fixture
def generator() -> torch.Generator:
    """A generator on the CPU, seeded the same for every test."""
    return torch.Generator("cpu").manual_seed(0)
