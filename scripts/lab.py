"""Open JupyterLab on your quickstart notebook once you have run it, else on the syllabus.

python -m scripts.lab [further options of jupyter lab]
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def address(root: Path) -> str:
    """The part of JupyterLab's URL that names what to open."""
    executed = Path("runs/quickstart/00_quickstart.ipynb")
    return f"/lab/tree/{(executed if (root / executed).is_file() else Path('notebooks/README.md')).as_posix()}"


def environment() -> dict[str, str]:
    """What JupyterLab is told: pages of text open as they read, and a browser that has not answered for ten minutes is
    still there. (JupyterLab's own limit is a minute and a half. Where many notebooks compute at once, a browser can be
    slower; what a kernel says meanwhile is lost, and its next cells wait for ever.) Your own settings still win."""
    paths = [str(ROOT / "scripts" / "lab_config"), os.environ.get("JUPYTER_CONFIG_PATH", "")]
    return {**os.environ, "JUPYTER_CONFIG_PATH": os.pathsep.join(filter(None, paths))}


def hint(code: int, options: Sequence[str], user: int | None) -> str:
    """What to do where JupyterLab has not started because of root; else empty.

    Args:
        code: JupyterLab's exit code.
        options: of jupyter lab.
        user: the number of the account, 0 for root; None where accounts have none.
    """
    allowed = any("allow-root" in option.replace("_", "-") for option in options)
    if code == 0 or user != 0 or allowed:
        return ""
    return (
        "You work as root, for whom JupyterLab does not start by itself. In a container of your own that is no harm: "
        'make lab LAB=--allow-root, or LAB="--allow-root --no-browser" where the browser is on another machine. '
        "Without make: python -m scripts.lab --allow-root."
    )


def main() -> int:
    """Returns JupyterLab's own exit code."""
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={ROOT}"]
    command += [f"--LabApp.default_url={address(ROOT)}", *sys.argv[1:]]
    try:
        code = subprocess.call(command, env=environment())
    except KeyboardInterrupt:  # JupyterLab has asked and stopped by itself
        return 0
    if sentence := hint(code, sys.argv[1:], os.geteuid() if hasattr(os, "geteuid") else None):
        print(sentence, file=sys.stderr)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
