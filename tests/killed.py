"""A run of the command line that is killed while it writes. See test_cli.py."""

import os
import signal

from diffusion_edu.cli import main


def run(arguments: list[str], writes: int | None) -> None:
    """Run a command; at the given write, leave half of the file and die as by ``kill -9``."""
    done, fsync = 0, os.fsync

    def counted(file: int) -> None:
        nonlocal done
        done += 1
        if done == writes:
            os.ftruncate(file, os.fstat(file).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(file)

    os.fsync = counted
    raise SystemExit(main(arguments))
