"""A real Chromium, and a real JupyterLab for it to open.

`browser` is Chromium, with nothing sent home. `lab` is a JupyterLab server of our own, with its own settings and
folders, serving a copy of notebooks/. `run_notebook(name)` opens one there, runs all its cells and gives the page.
Without Chromium the tests are skipped with a sentence; where CI is set they fail instead.
"""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from playwright.sync_api import Browser, BrowserContext, Locator, Page, sync_playwright

from scripts.lab import environment as lab_environment

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_FLAGS = [
    "--no-sandbox",  # CI runs as root in a container
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LAB_SETTINGS = {
    # Every cell is in the page, not only those on the screen.
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
SECONDS_TO_START = 60
SECONDS_TO_OPEN = 60

# Waiting for what the page shows is a race: a menu may be there before the kernel is. The application itself knows.
# Nothing in a page has a time limit of its own, so each wait is given one.
PIECES = """const within = (seconds, what, promise) => Promise.race([promise, new Promise((_, fail) =>
  setTimeout(() => fail(new Error(`${what}: not done after ${seconds} s`)), 1000 * seconds))]);
const opened = async ({ context, sessionContext }) => {
  await context.ready;
  await sessionContext.ready;
  await sessionContext.session.kernel.info;
};
const codeOf = (panel) => panel.content.widgets.filter((cell) => cell.model.type === "code");
const errorsOf = (panel) => {
  // A widget that cannot be drawn says so in its place, and in no output.
  const broken = panel.node.querySelectorAll(".jupyter-widgets-error-widget").length;
  if (broken) return [`${broken} widgets could not be drawn`];
  const outputs = codeOf(panel).flatMap((cell) => cell.model.outputs.toJSON());
  const errors = outputs.filter((output) => output.output_type === "error");
  return errors.map(({ ename, evalue }) => `${ename}: ${evalue}`);
};
"""
OPENED = f"""async (seconds) => {{
  {PIECES}
  await within(seconds, "opening (does the notebook name its kernel?)", (async () => {{
    const {{ shell, restored }} = window.jupyterapp;
    await restored;
    await opened(shell.currentWidget);
  }})());
}}"""
RUN_ALL = f"""async (seconds) => {{
  {PIECES}
  const {{ commands, shell }} = window.jupyterapp;
  await within(seconds, "running all cells", commands.execute("notebook:run-all-cells"));
  return errorsOf(shell.currentWidget);
}}"""

RUN_AT_ONCE = f"""async ([names, toOpen, seconds]) => {{
  {PIECES}
  const {{ commands, restored }} = window.jupyterapp;
  await restored;
  const panels = [];
  for (const path of names) {{
    const panel = await commands.execute("docmanager:open", {{ path, factory: "Notebook" }});
    await within(toOpen, `opening ${{path}}`, opened(panel));
    panels.push(panel);
  }}
  const running = panels.map(({{ id }}) => commands.execute("notebook:run-all-cells", {{ semanticWidget: id }}));
  await within(seconds, "running all cells of all notebooks", Promise.all(running));
  const left = (panel) => codeOf(panel).filter((cell) => cell.model.executionCount === null).length;
  return panels.map((panel) => [left(panel), errorsOf(panel)]);
}}"""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`live_notebook` is each notebook that is run in JupyterLab: a short copy of the first, or all of them."""
    if "live_notebook" in metafunc.fixturenames:
        every = metafunc.config.getoption("--every-notebook")
        names = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
        metafunc.parametrize("live_notebook", names if every else ["short"], indirect=True)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium from the system."""
    executable = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if executable is None:
        reason = (
            f"There is no Chromium here ({', '.join(CHROMIUM)}). Debian calls it chromium, Ubuntu chromium-browser."
        )
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_FLAGS)
        yield chromium
        chromium.close()


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab."""

    url: str
    token: str
    folder: Path  # what it serves


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A JupyterLab server on a free port, for the whole session."""
    home = tmp_path_factory.mktemp("lab")
    folder = home / "served"
    folder.mkdir()
    if (ROOT / "notebooks").is_dir():
        shutil.copytree(ROOT / "notebooks", folder, dirs_exist_ok=True)
    for name, values in LAB_SETTINGS.items():
        settings = home / "settings" / f"{name}.jupyterlab-settings"
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text(json.dumps(values), encoding="utf-8")
    environment = {
        **lab_environment(),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "IPYTHONDIR": str(home / "ipython"),
        "DIFFUSION_EDU_RUNS": str(home / "runs"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    served = Lab(f"http://127.0.0.1:{port}", secrets.token_hex(16), folder)
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
        *("--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0"),
        *(f"--IdentityProvider.token={served.token}", f"--ServerApp.root_dir={folder}"),
        "--LabApp.expose_app_in_browser=True",  # window.jupyterapp, see OPENED
        "--LabApp.extension_manager=readonly",
    ]
    log = home / "log"
    with log.open("w") as sink:
        server = subprocess.Popen(command, env=environment, stdout=sink, stderr=subprocess.STDOUT, cwd=folder)
    try:
        _wait_for(served, server, log)
        yield served
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait_for(lab: Lab, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while True:
        try:
            urllib.request.urlopen(f"{lab.url}/api/status?token={lab.token}", timeout=2).close()
            return
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"JupyterLab did not start. It says:\n{log.read_text(encoding='utf-8')}")
            time.sleep(0.2)


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser window's memory, fresh for each test."""
    fresh = browser.new_context(viewport={"width": 1280, "height": 1400})
    fresh.set_default_timeout(30_000)
    yield fresh
    fresh.close()


@pytest.fixture
def open_notebook(lab: Lab, context: BrowserContext) -> Callable[[str], Page]:
    """Opens a notebook that the server has, and waits for its kernel. Nothing runs yet."""

    def opened(name: str) -> Page:
        assert (lab.folder / name).is_file(), f"There is no notebook {name}."
        page = context.new_page()
        page.goto(f"{lab.url}/lab/tree/{name}?reset&token={lab.token}", timeout=1000 * SECONDS_TO_OPEN)
        page.locator(".jp-Notebook").wait_for(timeout=1000 * SECONDS_TO_OPEN)
        page.evaluate(OPENED, SECONDS_TO_OPEN)
        return page

    return opened


@pytest.fixture
def run_notebook(open_notebook: Callable[[str], Page]) -> Callable[..., Page]:
    """Opens a notebook, runs all its cells, and fails where one of them does."""

    def run(name: str, seconds: float = 120) -> Page:
        page = open_notebook(name)
        errors = page.evaluate(RUN_ALL, seconds)
        assert not errors, f"{name} stopped: {errors}"
        return page

    return run


@pytest.fixture
def run_at_once(lab: Lab, context: BrowserContext) -> Callable[..., dict[str, tuple[int, list[str]]]]:
    """Opens notebooks in one JupyterLab, starts all of them, and waits: how many cells were not run, and the errors."""

    def run(names: list[str], seconds: float) -> dict[str, tuple[int, list[str]]]:
        page = context.new_page()
        page.goto(f"{lab.url}/lab?reset&token={lab.token}", timeout=1000 * SECONDS_TO_OPEN)
        page.wait_for_function("window.jupyterapp", timeout=1000 * SECONDS_TO_OPEN)
        return dict(zip(names, page.evaluate(RUN_AT_ONCE, [names, SECONDS_TO_OPEN, seconds]), strict=True))

    return run


@pytest.fixture
def add_notebook(lab: Lab) -> Callable[[str, NotebookNode], str]:
    """Writes a notebook where the server finds it, and gives its name."""

    def add(name: str, notebook: NotebookNode) -> str:
        # A notebook that names no kernel makes JupyterLab ask for one, and wait.
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, lab.folder / name)
        return name

    return add


@pytest.fixture
def live_notebook(request: pytest.FixtureRequest, add_notebook: Callable[[str, NotebookNode], str]) -> str:
    """The name of a notebook to run. The short one is 00 with 30 steps of training, 100 samples and no verdict."""
    if request.param != "short":
        return str(request.param)
    notebook = nbformat.read(ROOT / "notebooks" / "00_quickstart.ipynb", as_version=4)
    cells = {cell.id: cell for cell in notebook.cells}
    notebook.cells.remove(cells["verdicts"])
    training = cells["ten-lines"]
    for long, short, times in ((r"TrainConfig\(\d+", "TrainConfig(30", 1), (r"\b1000\b", "100", 2)):
        training.source, changed = re.subn(long, short, training.source)
        assert changed == times
    return add_notebook("00_short.ipynb", notebook)


@pytest.fixture
def moves_by_keyboard() -> Callable[[Page, Locator, Locator, str], None]:
    """Asserts that a key, pressed on a slider, changes what is seen of a picture."""

    def check(page: Page, slider: Locator, picture: Locator, key: str) -> None:
        slider.scroll_into_view_if_needed()
        before = picture.screenshot()
        slider.focus()
        slider.press(key)
        deadline = time.monotonic() + 20
        while picture.screenshot() == before:
            assert time.monotonic() < deadline, f"{key} was pressed on the slider, and the picture did not change."
            page.wait_for_timeout(100)

    return check
