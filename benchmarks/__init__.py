"""Measurements: run one with ``python -m benchmarks.NAME``. Their tables are in README.md beside this file."""
