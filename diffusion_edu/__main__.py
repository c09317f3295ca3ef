"""``python -m diffusion_edu``: the command line, for where its script is not on the path."""

from .cli import main

__all__ = ["main"]

if __name__ == "__main__":
    raise SystemExit(main())
