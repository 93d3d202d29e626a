"""The file of a song becomes the files of its stems, as a stream."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from separation.audio.formats import AudioFile
from separation.audio.io import AudioInfo, AudioReader, AudioWriter
from separation.files import partial_name
from separation.inference.stream import StreamSeparator, check_channels
from separation.songs.outputs import StemFormat, Stems, open_outputs
from separation.songs.segment import Segment, Window


@dataclass
class Tally:
    """What was heard of a stem: the sum of its squares, and how many of its samples lay beyond full scale."""

    samples: int = 0
    energy: float = 0.0
    beyond: int = 0

    def hear(self, waveform: np.ndarray) -> None:
        self.samples += waveform.size
        if not waveform.size:
            return
        self.energy += float(np.vdot(waveform, waveform))
        if max(-waveform.min(), waveform.max()) > 1:  # rare, and counting is slow
            self.beyond += int((abs(waveform) > 1).sum())

    @property
    def level(self) -> float:
        """Root mean square in dBFS: 0 at full scale, minus infinity for silence."""
        return 10 * math.log10(self.energy / self.samples) if self.energy else -math.inf


@dataclass(frozen=True)
class RenderReport:
    """What became of a song: its length and the time that it took, in seconds; the gain of `rescale`; and its stems.

    `remarks` say what of the song was passed over.
    """

    seconds: float
    elapsed: float
    gain: float
    stems: Mapping[str, Tally]
    remarks: tuple[str, ...] = ()


def render(
    separator: StreamSeparator,
    song: AudioFile,
    paths: Mapping[str, Path],
    form: StemFormat,
    progress: Callable[[int, int], None] = lambda done, samples: None,
    segment: Segment | None = None,
) -> RenderReport:
    """Separate `song`, or a segment of it, and write each stem to its path in `paths`, whole or not at all.

    `progress` is told how many samples are done, and how many the song is said to have (0 if it does not say). Raises
    `UserError` when the song cannot be read or separated, or its stems not written.
    """
    started, gain = perf_counter(), 1.0
    tallies = {stem: Tally() for stem in paths}
    folders = _missing_folders(paths.values())
    try:
        with AudioReader(song.path, song.stream) as reader, ExitStack() as stack:
            info, remarks = reader.info, reader.remarks
            check_channels(info.channels)
            write = stack.enter_context(open_outputs(paths, form, reader))
            samples = info.samples
            if segment:
                window = Window(segment, info.sample_rate, separator.grid)
                pieces = window.keep(separator.stream(window.hear(reader.arrays()), info.sample_rate))
                samples = window.length(samples)
            else:
                pieces = separator.stream(reader.arrays(), info.sample_rate)
            pieces = _watch(map(as_arrays, pieces), lambda done: progress(done, samples))
            if form.clip == "rescale":
                beside = next(iter(paths.values())).parent
                scratch = beside / partial_name()
                scratch.mkdir(mode=0o700)
                stack.callback(shutil.rmtree, scratch, ignore_errors=True)
                gain, pieces = rescale(pieces, scratch, info)
            for stems in pieces:
                if form.full_scale:
                    stems = round_together(stems, form.full_scale)
                for stem, waveform in stems.items():
                    tallies[stem].hear(waveform)
                write(stems)
    finally:
        for folder in folders:
            with suppress(OSError):
                folder.rmdir()  # does nothing where there are stems
    seconds = next(iter(tallies.values())).samples / info.channels / info.sample_rate
    return RenderReport(seconds, perf_counter() - started, gain, tallies, tuple(remarks))


def as_arrays(stems: Mapping[str, Any]) -> Stems:
    """A piece of a song as arrays, whatever separated it."""
    return {stem: np.asarray(waveform) for stem, waveform in stems.items()}


def round_together(stems: Stems, full_scale: int) -> Stems:
    """Round stems to 1 / `full_scale` so that their sum is rounded only once: each hands its error on to the next."""
    # Half as many bytes are twice as fast, and float32 has room for 16 bits and the errors below them.
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


def rescale(pieces: Iterable[Stems], scratch: Path, info: AudioInfo) -> tuple[float, Iterator[Stems]]:
    """The gain, at most 1, that brings the loudest sample of all stems to full scale, and the stems with that gain.

    It is not known before the song has ended, so the stems wait in files in the folder `scratch`.
    """
    peak, writers = 1.0, {}
    with ExitStack() as stack:
        for stems in pieces:
            for stem, waveform in stems.items():
                if stem not in writers:
                    writer = AudioWriter(scratch / f"{stem}.wav", info.sample_rate, info.channels, info.samples, "32f")
                    writers[stem] = stack.enter_context(writer)
                peak = max(peak, float(abs(waveform).max(initial=0)))
                writers[stem].write(waveform)
    return 1 / peak, _scaled({stem: writer.path for stem, writer in writers.items()}, 1 / peak)


def _scaled(paths: Mapping[str, Path], gain: float) -> Iterator[Stems]:
    with ExitStack() as stack:
        readers = [stack.enter_context(AudioReader(path)).arrays() for path in paths.values()]
        for waveforms in zip(*readers, strict=True):
            yield {stem: waveform * np.float32(gain) for stem, waveform in zip(paths, waveforms, strict=True)}


def _missing_folders(paths: Iterable[Path]) -> list[Path]:
    """The folders that are yet to be made for `paths`, each before those that it lies in."""
    # Path.exists would raise for a folder that may not be entered: the writers have a sentence for that.
    missing = {folder for path in paths for folder in path.parents if not os.path.exists(folder)}  # noqa: PTH110
    return sorted(missing, key=lambda folder: len(folder.parts), reverse=True)


def _watch(pieces: Iterable[Stems], tell: Callable[[int], None]) -> Iterator[Stems]:
    done = 0
    for stems in pieces:
        yield stems
        done += next(iter(stems.values())).shape[-1]
        tell(done)
