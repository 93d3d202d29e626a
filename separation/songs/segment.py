"""A part of a song is separated as it would be within the whole."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from separation.errors import UserError
from separation.songs.outputs import Stems

TIME = r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d+)?)"
"""Hours and minutes, if there are any, and seconds."""

SURROUNDINGS = 3.0
"""Seconds before and after it that are heard as well: more than a network depends on."""


@dataclass(frozen=True)
class Segment:
    """From `start` to `end`, in seconds of the song."""

    start: float
    end: float

    @classmethod
    def parse(cls, text: str) -> Segment:
        """The segment that is written as 0:30-1:10, 90-120.5, 1:02:00- or -0:30. Raises `UserError` for others."""
        found = re.fullmatch(rf"(?:{TIME})?\s*-\s*(?:{TIME})?", text.strip())
        if not found or text.strip() == "-":
            raise UserError(f"--segment {text} cannot be understood: write it like 0:30-1:10, or 0:30- to the end.")
        start, end = _seconds(*found.groups()[:3], 0.0), _seconds(*found.groups()[3:], math.inf)
        if start >= end:
            raise UserError(f"--segment {text} ends before it begins: write it like 0:30-1:10.")
        return cls(start, end)

    @property
    def name(self) -> str:
        """The segment as part of a file's name, where colons may not be: 0.30-1.10."""
        return f"{_spell(self.start)}-{_spell(self.end) if self.end < math.inf else 'end'}"


class Window:
    """A segment of a song of some sample rate: what to hear of the song, and what to keep of its stems.

    What is heard begins at a multiple of `grid`, in seconds, so that frames lie as they do in the whole song.
    """

    def __init__(self, segment: Segment, sample_rate: int, grid: Fraction):
        self.segment = segment
        self.start = round(segment.start * sample_rate)
        self.end = round(segment.end * sample_rate) if segment.end < math.inf else math.inf
        first = max(0, segment.start - SURROUNDINGS) // grid * grid
        self.heard = round(first * sample_rate), self.end + round(SURROUNDINGS * sample_rate)

    def hear(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Of the song `[channels, samples]`, in blocks, what is to be separated."""
        return cut(blocks, *self.heard)

    def keep(self, pieces: Iterable[Stems]) -> Iterator[Stems]:
        """Of the stems of that, in pieces, what lies in the segment. Raises `UserError` when nothing does."""
        position, nothing = self.heard[0], True
        for piece in pieces:
            length = next(iter(piece.values())).shape[-1]
            begin, end = max(0, self.start - position), min(length, self.end - position)
            position += length
            if begin < end:
                nothing = False
                yield {stem: waveform[:, begin:end] for stem, waveform in piece.items()}
        if nothing:
            raise UserError(f"the song ends before --segment {self.segment.name} begins.")

    def length(self, samples: int) -> int:
        """Samples of the segment in a song of so many; 0 where that is not known."""
        return max(0, min(samples, self.end) - self.start)


def cut(blocks: Iterable[np.ndarray], start: int, end: float) -> Iterator[np.ndarray]:
    """The samples from `start` to `end` of a signal in blocks `[channels, n]`; it is not read beyond."""
    position = 0
    for block in blocks:
        if start < position + block.shape[-1]:
            yield block[:, max(0, start - position) : int(min(block.shape[-1], end - position))]
        position += block.shape[-1]
        if position >= end:
            return


def _seconds(hours: str | None, minutes: str | None, seconds: str | None, default: float) -> float:
    return default if seconds is None else 3600 * int(hours or 0) + 60 * int(minutes or 0) + float(seconds)


def _spell(seconds: float) -> str:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    rest = f"{seconds:06.3f}".rstrip("0").rstrip(".").replace(".", "_")
    return f"{hours}.{minutes:02}.{rest}" if hours else f"{minutes}.{rest}"
