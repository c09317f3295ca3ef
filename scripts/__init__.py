"""The commands behind the Makefile. Run each from the repository: `python -m scripts.<name>`."""
