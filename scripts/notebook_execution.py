"""Execute a notebook with the Python that runs this process, and show what its cells print as they print it.

The one place that starts a kernel: `scripts.quickstart` and `scripts.canonical_notebooks` both use it. The
kernel is always this environment's own. Other kernels named `python3`, such as one in the user's home or on
JUPYTER_PATH, are never looked up.
"""

import asyncio
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import ipykernel.kernelspec
import nbformat.reader
import zmq
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

ANSI = re.compile(r"\x1b\[[0-9;]*m")
PROGRESS_MODELS = {"FloatProgressModel", "IntProgressModel"}


class NotebookFailedError(Exception):
    """A cell of a notebook did not finish; the message says which and why."""


class OwnKernelSpecManager(KernelSpecManager):
    """Answers every kernel name with a kernel of the running Python."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """The kernel of `sys.executable`, whatever the name."""
        # Its figures go into the notebook, whatever MPLBACKEND says in the shell.
        spec = ipykernel.kernelspec.get_kernel_dict()
        spec["env"] = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
        return KernelSpec(resource_dir=ipykernel.kernelspec.RESOURCES, **spec)


class Screen:
    """Prints a cell's output as it comes, and a sign of life where nothing comes.

    `quiet_for` is the number of silent seconds after which the elapsed time is printed.
    """

    def __init__(self, out: TextIO, quiet_for: float = 10.0) -> None:
        self.out = out
        self.quiet_for = quiet_for
        self.lock = threading.Lock()
        self.at_line_start = True
        self.last = self.start = time.monotonic()

    def line(self, text: str) -> None:
        """Print a line of our own, on a line of its own."""
        self.stream(("" if self.at_line_start else "\n") + text + "\n")

    def stream(self, text: str) -> None:
        """Print what a cell printed. Off a terminal a carriage return becomes a new line."""
        if not text:
            return
        if not self.out.isatty():
            text = re.sub(r"\r+(?!\n)", "\n", text)
            text = text.lstrip("\n") if self.at_line_start else text
        with self.lock:
            self.out.write(text)
            self.out.flush()
            self.at_line_start = text.endswith(("\n", "\r")) if text else self.at_line_start
            self.last = time.monotonic()

    @contextmanager
    def watch(self) -> Iterator[None]:
        """While a cell runs, print the seconds so far whenever it has been silent for `quiet_for`."""
        self.start = self.last = time.monotonic()
        done = threading.Event()

        def beat() -> None:
            while not done.wait(min(0.5, self.quiet_for / 2)):
                if time.monotonic() - self.last >= self.quiet_for:
                    self.line(f"    ... still running, {time.monotonic() - self.start:.0f} s")

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


class StreamingClient(NotebookClient):  # type: ignore[misc, unused-ignore]
    """A NotebookClient that also shows each message on a `Screen` as it arrives."""

    screen: Screen | None = None

    def process_message(self, msg: dict[str, Any], cell: NotebookNode, cell_index: int) -> NotebookNode | None:
        """Show the message, then let nbclient store it."""
        if self.screen is not None:
            self.show(self.screen, msg["msg_type"], msg["content"])
        result: NotebookNode | None = super().process_message(msg, cell, cell_index)
        return result

    def show(self, screen: Screen, kind: str, content: dict[str, Any]) -> None:
        """Text as text, a progress widget as a line for each 5 %, a picture as its label."""
        if kind == "stream":
            screen.stream(content["text"])
        elif kind in ("execute_result", "display_data", "update_display_data"):
            text = content["data"].get("text/plain", "")
            screen.line(f"    {text if len(text) <= 400 else text[:400] + ' ...'}")
        elif kind == "comm_msg" and "value" in (state := content["data"].get("state", {})):
            whole = {**self.widget_state.get(content["comm_id"], {}), **state}
            if whole.get("_model_name") in PROGRESS_MODELS and whole.get("max"):
                before = self.widget_state.get(content["comm_id"], {}).get("value", 0)
                twentieth = [int(20 * float(v) / float(whole["max"])) for v in (before, whole["value"])]
                if twentieth[1] > twentieth[0]:
                    screen.line(f"    {5 * twentieth[1]} %")


def first_line(cell: NotebookNode) -> str:
    """The line that tells a reader which cell this is."""
    lines = [line.strip() for line in cell.source.splitlines() if line.strip()]
    return lines[0][:90] if lines else "(empty)"


def run_interruptibly(client: NotebookClient, manager: AsyncKernelManager, cwd: str, env: dict[str, str]) -> None:
    """Execute the client's notebook such that Ctrl-C reaches the running cell, as it does in JupyterLab.

    Raises KeyboardInterrupt after the cell has had its turn to clean up, and whatever the client raises.
    """
    raised: list[BaseException] = []
    loop: list[asyncio.AbstractEventLoop] = []
    done = threading.Event()  # not Thread.join: interrupted once, Python 3.11's holds the thread for finished

    async def run() -> None:
        loop.append(asyncio.get_running_loop())
        await client.async_execute(cwd=cwd, env=env)

    def work() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            raised.append(error)
        finally:
            done.set()

    # In a thread, because in the main one nbclient takes Ctrl-C for itself and kills the kernel.
    threading.Thread(target=work, daemon=True).start()
    try:
        while not done.wait(0.2):
            pass
    except KeyboardInterrupt:
        if loop and manager.has_kernel:
            asyncio.run_coroutine_threadsafe(manager._async_interrupt_kernel(), loop[0])
            done.wait(30)
        raise
    if raised:
        raise raised[0]


def execute(
    notebook: NotebookNode,
    folder: Path,
    runs: Path,
    screen: Screen | None = None,
    timeout: int | None = None,
) -> None:
    """Execute `notebook` in place.

    The kernel's working directory is `folder`, and DIFFUSION_EDU_RUNS in its environment is `runs`, the
    folder that a notebook writes its files to. `timeout` is in seconds for each cell; None waits for ever.

    Raises KeyboardInterrupt, and NotebookFailedError when a cell fails, takes too long or its kernel dies.
    The cells before it, and the failed cell's own outputs, are then in `notebook`.
    """
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    client = StreamingClient(
        notebook,
        kernel_name="python3",
        timeout=timeout,
        record_timing=False,
        coalesce_streams=True,
        store_widget_state=True,
    )
    client.km = manager = AsyncKernelManager(
        kernel_name="python3",
        kernel_spec_manager=OwnKernelSpecManager(),
        # Without encryption the kernel prints a warning at each start.
        transport_encryption="auto" if zmq.has("curve") else "disabled",
    )
    client.screen = screen

    watches: list[Any] = []
    running: list[int] = []

    def start(cell: NotebookNode, cell_index: int) -> None:
        running[:] = [cell_index]
        if screen is not None:
            number = next(n for n, c in enumerate(code, 1) if c is cell)
            screen.line(f"[{number}/{len(code)}] {first_line(cell)}")
            watches.append(screen.watch())
            watches[-1].__enter__()

    def stop() -> None:
        if watches:
            watches.pop().__exit__(None, None, None)

    def end(cell: NotebookNode, cell_index: int, execute_reply: dict[str, Any]) -> None:
        stop()
        if screen is not None and execute_reply["content"]["status"] == "ok":
            screen.line(f"    done in {time.monotonic() - screen.start:.1f} s")

    client.on_cell_execute = start
    client.on_cell_executed = end
    try:
        run_interruptibly(client, manager, cwd=str(folder), env={**os.environ, "DIFFUSION_EDU_RUNS": str(runs)})
    except CellExecutionError as error:
        what = ANSI.sub("", f"{error.ename}: {error.evalue}")
        where = ANSI.sub("", error.traceback)
        raise NotebookFailedError(f"Cell {running[0]} failed with {what}\n\n{where}") from None
    except CellTimeoutError:
        first = first_line(notebook.cells[running[0]])
        raise NotebookFailedError(f"Cell {running[0]} ({first}) was still running after {timeout} s.") from None
    except DeadKernelError:
        where = f"in cell {running[0]}" if running else "before the first cell"
        raise NotebookFailedError(
            f"The Python kernel died {where}, most likely for want of memory: close other programs and try again."
        ) from None
    finally:
        stop()


def write_beside(path: Path, text: str) -> None:
    """Write a file under another name, then rename it, so that `path` is never half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        beside.write_text(text, encoding="utf-8", newline="\n")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def read(path: Path) -> NotebookNode:
    """Read a notebook as it is, without repairing it."""
    if not path.is_file():
        print(f"There is no notebook at {path}. Give the path of an .ipynb file.", file=sys.stderr)
        raise SystemExit(2)
    return nbformat.reader.reads(path.read_text(encoding="utf-8"))


def clear_outputs(notebook: NotebookNode) -> None:
    """Take away what its code cells have shown, and that they were run, so that nothing old can pass for new."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
