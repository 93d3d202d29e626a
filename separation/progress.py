"""How far a batch is: a bar on a terminal, and in a log file a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

from tqdm import tqdm

PAUSE = 30.0
"""Seconds between two lines in a log file; the first comes after a third of it."""

REFRESH = 0.1
"""Seconds between two pictures of the bar."""

SETTLING = 1.0
"""Seconds before a time left is told: what comes first is slow, and says little about the rest."""


def clock(seconds: float) -> str:
    """A length of time as players show it.

    >>> clock(65.4), clock(3723)
    ('1:05', '1:02:03')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class Progress:
    """The progress of a batch of `total` items, to be used inside `with`.

    Call `done` when an item has ended, and `within` with the share of a running one that is done, where that is known.
    Time left is reckoned from the first `within` on, or else from the start; it is told when it can be known.

    Args:
        total: items in the batch.
        unit: what they are called, in the plural.
        abreast: items that are worked on at a time.
        file: where the bar or the lines go, by default to standard error.
        now: a clock, in seconds.
    """

    def __init__(
        self,
        total: int,
        unit: str = "songs",
        abreast: int = 1,
        file: TextIO | None = None,
        now: Callable[[], float] = time.monotonic,
    ):
        self.total, self.unit, self.abreast, self.finished, self.running = total, unit, abreast, 0, 0.0
        self._now, self._file = now, file or sys.stderr
        self._start = self._shown = now()
        self._first: tuple[float, float] | None = None
        layout = "{percentage:3.0f}%|{bar}| {desc}"
        live = bool(total) and self._file.isatty()
        self._bar = tqdm(total=1.0, bar_format=layout, leave=False, file=self._file, disable=not live)
        self._wait = REFRESH if live else PAUSE / 3

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    @property
    def share(self) -> float:
        """How much of the batch is done, from 0 to 1."""
        return min(1.0, (self.finished + self.running) / max(1, self.total))

    def within(self, share: float) -> None:
        """A share of the running item, from 0 to 1, is done."""
        self.running = min(1.0, share)
        if self._first is None:
            self._first = self._now(), self.share
        self._show()

    def done(self) -> None:
        """One more item has ended."""
        self.finished, self.running = self.finished + 1, 0.0
        self._show()

    def say(self, line: str, file: TextIO | None = None) -> None:
        """Print a line, above the bar if there is one."""
        tqdm.write(line, file=file or sys.stdout)

    def left(self) -> float | None:
        """Seconds until the batch has ended, or None where nobody can tell yet."""
        begun, share = self._first or (self._start, 0.0)
        known = self._first or self.finished > 2 * self.abreast or self.finished == self.total
        took = self._now() - begun
        if not known or took < SETTLING or self.share <= share:
            return None
        return took / (self.share - share) * (1 - self.share)

    def _show(self) -> None:
        now = self._now()
        if now - self._shown < self._wait:
            return
        left = self.left()
        left = "" if left is None else f", {clock(left)} left"
        count = f"{self.finished} of {self.total} {self.unit}" if self.total > 1 else ""
        if not self._bar.disable:
            self._bar.n = self.share
            self._bar.set_description_str((count + left).removeprefix(", "))
        elif self._wait < PAUSE or now - self._shown >= PAUSE:
            print(f"{count or f'{self.share:.0%}'} after {clock(now - self._start)}{left}", file=self._file, flush=True)
            self._wait = PAUSE
        self._shown = now
