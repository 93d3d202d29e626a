"""Separate the file of a song, or a segment of it, into the files of its stems, as a stream."""

from __future__ import annotations

import math
import os
import re
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import IO, Any

import numpy as np

from separation.audio.formats import AudioFile
from separation.audio.io import AudioReader
from separation.errors import UserError, writing
from separation.inference.separator import Separator
from separation.inference.stream import check_channels
from separation.runtime import clock
from separation.songs.outputs import STEM_FORMATS, StemFormat, Stems, open_outputs

TIME = r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d+)?)"
"""Hours and minutes, both optional, and seconds."""


@dataclass(frozen=True)
class Segment:
    """A segment from `start` to `end`, in seconds of the song."""

    start: float
    end: float
    text: str = field(default="", compare=False)
    """As it was typed."""

    @classmethod
    def parse(cls, text: str) -> Segment:
        """Parse a segment such as 0:30-1:10, 90-120.5, 1:02:00- or -0:30. Raises `UserError` for anything else."""
        found = re.fullmatch(rf"(?:{TIME})?\s*-\s*(?:{TIME})?", text.strip())
        if not found or text.strip() == "-":
            raise UserError(f"--segment {text} cannot be understood: write it like 0:30-1:10, or 0:30- to the end.")
        start, end = _seconds(found.groups()[:3], 0.0), _seconds(found.groups()[3:], math.inf)
        if start > end:
            raise UserError(f"--segment {text} ends before it begins: write it like 0:30-1:10.")
        if start == end:
            raise UserError(f"--segment {text} is empty: write it like 0:30-1:10.")
        return cls(start, end, text.strip())

    @property
    def name(self) -> str:
        """The segment as part of a file name, which must not contain colons: 0.30-1.10."""
        return f"{_spell(self.start)}-{_spell(self.end) if self.end < math.inf else 'end'}"


def _seconds(groups: Sequence[str | None], default: float) -> float:
    hours, minutes, seconds = groups
    return default if seconds is None else 3600 * int(hours or 0) + 60 * int(minutes or 0) + float(seconds)


def _spell(seconds: float) -> str:
    whole, thousandths = divmod(round(1000 * seconds), 1000)
    rest = f"_{thousandths:03}".rstrip("0").rstrip("_")
    return clock(whole).replace(":", ".") + rest


class Window:
    """A segment of a song in samples: what to read of the song, and what to keep of its stems.

    Reading includes the `surroundings` that a stem depends on, and begins at a multiple of `grid`, both in seconds, so
    that the network sees the same frames as in the whole song.
    """

    def __init__(self, segment: Segment, sample_rate: int, grid: float, surroundings: float):
        self.segment = segment
        self.start = round(segment.start * sample_rate)
        self.end = round(segment.end * sample_rate) if segment.end < math.inf else math.inf
        if self.start == self.end:
            raise UserError(f"--segment {segment.text} is too short to hold a sample: write it like 0:30-1:10.")
        first = max(0, segment.start - surroundings) // grid * grid
        self.first, self.last = round(first * sample_rate), self.end + round(surroundings * sample_rate)

    def cut(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The part of a song, in blocks `[channels, n]`, that is to be separated; nothing beyond it is read."""
        position = 0
        for block in blocks:
            if self.first < position + block.shape[-1]:
                end = int(min(block.shape[-1], self.last - position))
                yield block[:, max(0, self.first - position) : end]
            position += block.shape[-1]
            if position >= self.last:
                return

    def keep(self, pieces: Iterable[Stems]) -> Iterator[Stems]:
        """The part of its stems, in pieces, that lies in the segment. Raises `UserError` if nothing does."""
        position, is_empty = self.first, True
        for piece in pieces:
            length = next(iter(piece.values())).shape[-1]
            begin, end = max(0, self.start - position), int(min(length, self.end - position))
            position += length
            if begin < end:
                is_empty = False
                yield {stem: waveform[:, begin:end] for stem, waveform in piece.items()}
        if is_empty:
            raise UserError(f"the song ends before --segment {self.segment.text} begins.", "no_such_segment")

    def length(self, samples: int) -> int:
        """Length of the segment in a song of `samples`, in samples; 0 if that is unknown."""
        return int(max(0, min(samples, self.end) - self.start))


@dataclass
class Tally:
    """Statistics of a stem: its samples, the sum of their squares, and how many are beyond full scale."""

    samples: int = 0
    energy: float = 0.0
    beyond: int = 0

    def add(self, waveform: np.ndarray) -> None:
        self.samples += waveform.size
        if not waveform.size:
            return
        self.energy += float(np.vdot(waveform, waveform))
        if max(-waveform.min(), waveform.max()) > 1:  # rare, and counting is slow
            self.beyond += int((abs(waveform) > 1).sum())

    @property
    def level(self) -> float:
        """Root mean square in dBFS: 0 for a full-scale square wave, minus infinity for silence."""
        return 10 * math.log10(self.energy / self.samples) if self.energy else -math.inf


@dataclass(frozen=True)
class RenderReport:
    """The result for a song: its length and the time that it took, in seconds; the gain of `rescale`; and its stems.

    `remarks` describe anything odd about the song's file.
    """

    seconds: float
    elapsed: float
    gain: float
    stems: Mapping[str, Tally]
    remarks: tuple[str, ...] = ()


def render(
    separator: Separator,
    song: AudioFile,
    paths: Mapping[str, Path],
    form: StemFormat,
    progress: Callable[[int, int], None] = lambda done, samples: None,
    segment: Segment | None = None,
    kept: Collection[str] = (),
) -> RenderReport:
    """Separate `song`, or a segment of it, and write each stem to its path in `paths`, atomically.

    `paths` holds the separator's stems in order, under the names that they go by; those in `kept` are not written.
    `progress` receives the number of samples that are done and that of the song, 0 if its file does not state it.
    Raises `UserError` if the song cannot be read or separated, or if its stems cannot be written.
    """
    started, gain = perf_counter(), 1.0
    tallies = {stem: Tally() for stem in paths}
    with making_folders(paths.values()), AudioReader(song.path, song.track) as reader, ExitStack() as stack:
        info = reader.info
        check_channels(info.channels)
        written = {stem: path for stem, path in paths.items() if stem not in kept}
        write = stack.enter_context(open_outputs(written, form, reader))
        blocks, samples = iter(reader), info.samples
        window = Window(segment, info.sample_rate, float(separator.grid), separator.surroundings) if segment else None
        if window:
            blocks, samples = window.cut(blocks), window.length(samples)
        pieces: Iterator[Stems] = (named(piece, paths) for piece in separator.stream(blocks, info.sample_rate))
        pieces = watched(window.keep(pieces) if window else pieces, lambda done: progress(done, samples))
        if form.clip == "rescale":
            folder = next(iter(paths.values())).parent
            with writing(folder):
                scratch = stack.enter_context(tempfile.TemporaryFile(dir=folder, prefix="."))
                gain, pieces = rescale(pieces, scratch, form.format in STEM_FORMATS)
        for stems in pieces:
            if form.full_scale:
                stems = round_together(stems, form.full_scale)
            for stem, waveform in stems.items():
                tallies[stem].add(waveform)
            write(stems)
    seconds = next(iter(tallies.values())).samples / info.channels / info.sample_rate
    return RenderReport(seconds, perf_counter() - started, gain, tallies, tuple(reader.remarks))


def named(piece: Mapping[str, Any], names: Iterable[str]) -> Stems:
    """A piece of a song as arrays, under other names in the same order."""
    return {name: np.asarray(waveform) for name, waveform in zip(names, piece.values(), strict=True)}


def watched(pieces: Iterable[Stems], progress: Callable[[int], None]) -> Iterator[Stems]:
    """Pass pieces through; `progress` receives the number of samples that are done."""
    done = 0
    for stems in pieces:
        yield stems
        done += next(iter(stems.values())).shape[-1]
        progress(done)


def round_together(stems: Stems, full_scale: int) -> Stems:
    """Round stems to 1 / `full_scale` so that their sum is rounded only once: each passes its error on to the next."""
    # float32 is twice as fast, and has room for 16 bits and the errors below them.
    kind = np.float32 if full_scale <= 1 << 15 else np.float64
    rounded, error = {}, None
    for stem, waveform in stems.items():
        wanted = np.multiply(waveform, full_scale, dtype=kind)
        if error is not None:
            wanted += error
        steps = np.rint(wanted)
        error = np.subtract(wanted, steps, out=wanted)
        rounded[stem] = np.divide(steps, full_scale, out=steps)
    return rounded


def rescale(pieces: Iterable[Stems], scratch: IO[bytes], with_mixture: bool = False) -> tuple[float, Iterator[Stems]]:
    """The gain, at most 1, that brings the loudest sample of all stems to full scale, and the stems with that gain.

    Their sum counts as well if `with_mixture` is set. The gain is unknown until the song has ended, so the stems are
    buffered in the file `scratch`.
    """
    peak, count = 1.0, 0
    names: tuple[str, ...] = ()
    for stems in pieces:
        names, count, block = tuple(stems), count + 1, np.stack([*stems.values()])
        peak = max(peak, float(abs(block).max(initial=0)))
        if with_mixture:
            peak = max(peak, float(abs(block.sum(axis=0)).max(initial=0)))
        np.save(scratch, block)
    scratch.seek(0)
    blocks = (np.load(scratch) * np.float32(1 / peak) for _ in range(count))
    return 1 / peak, (dict(zip(names, block, strict=True)) for block in blocks)


@contextmanager
def making_folders(paths: Iterable[Path]) -> Iterator[None]:
    """After the block, remove the folders that `paths` need if they were created in it and are empty."""
    # Path.exists would raise for a folder without permission: the writers report that themselves.
    missing = {folder for path in paths for folder in path.parents if not os.path.exists(folder)}  # noqa: PTH110
    try:
        yield
    finally:
        for folder in sorted(missing, key=lambda folder: len(folder.parts), reverse=True):
            with suppress(OSError):
                folder.rmdir()  # fails if it contains stems
