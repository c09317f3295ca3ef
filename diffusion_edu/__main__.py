"""``python -m diffusion_edu``: the command line, for where its script is not on the path."""

from .cli import console

__all__ = ["console"]

if __name__ == "__main__":
    console()
