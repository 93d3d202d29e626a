"""A script's output never costs its work: not on a terminal of another alphabet, not into a closed pipe."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO


class Steady:
    """A text stream whose writes cannot fail: what cannot be written is dropped, and all that comes after it."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except (OSError, ValueError):
            self._fall_silent()
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._fall_silent()

    def _fall_silent(self) -> None:
        # The interpreter flushes the file itself at its end, and would fail there once more.
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def steady_streams() -> None:
    """Let standard output and error take every character, and never fail."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # it was closed before the program began
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 (open until the end)
        with suppress(AttributeError, ValueError):
            stream.reconfigure(errors="replace")
        setattr(sys, name, Steady(stream))
