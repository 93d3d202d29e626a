"""The history of a run as a text file: a line of JSON for every point of its curves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from separation.files import replacing

HISTORY = "history.jsonl"


class History:
    """`<output>/history.jsonl`: `{"step": 50, "losses": {...}}` and `{"step": 500, "validation_sdr": {...}}`.

    A run that is taken up again at `step` goes on after it: later lines are of steps that will come again.
    """

    def __init__(self, output: Path, step: int):
        self.path = output / HISTORY
        lines = self.path.read_text(encoding="utf-8").splitlines() if step and self.path.is_file() else []
        kept = [line for line in lines if _step_of(line) <= step]
        with replacing(self.path) as partial:
            partial.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def add(self, step: int, **values: Mapping[str, float]) -> None:
        """Append a line. Raises `OSError` when the disk cannot take it."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")


def _step_of(line: str) -> float:
    """The step of a line; that of one which was cut short is never reached."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
