"""Measurements and stress tests. Run each from the repository, as `python -m benchmarks.NAME`."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
