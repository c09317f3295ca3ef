"""``python -m diffusion_edu``: the command line, also where the script ``diffusion-edu`` is not on the path."""

from .cli import console

__all__ = ["console"]

if __name__ == "__main__":
    console()
