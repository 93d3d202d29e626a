"""Songs are packed to be carried to a machine that has nothing else: Ogg Vorbis, in folders that `FOLDER` reads.

A store is built from them there. It takes seconds, where a store would take a hundred times as long to be carried.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from separation.audio.io import AudioWriter
from separation.dataset.layouts import Track
from separation.errors import UserError
from separation.files import sweep_partials
from separation.jobs import run_jobs
from separation.stems import ACCOMPANIMENT, MIXTURE, STEMS

COMPRESSION = 0.8
"""libsndfile's, from 0 to 1: 0.75 MB a minute of a stereo stem, with an error 18 dB below it."""


@dataclass(frozen=True)
class Packing:
    """A song to pack, into a folder of its own; of longer ones the middle `seconds`."""

    track: Track
    folder: Path
    seconds: float | None = None


def plan_packing(folder: Path, tracks: Sequence[Track], seconds: float | None = None) -> list[Packing]:
    """The songs that are not yet in `folder`. Raises `UserError` when it cannot be a folder, or no time is taken."""
    if seconds is not None and not 0 < seconds < math.inf:
        raise UserError(f"--pack-seconds must be a number above 0, not {seconds:g}.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made a folder: {error.strerror}.") from error
    jobs = [Packing(track, folder / track.subset / track.name, seconds) for track in tracks]
    for job in jobs:
        if job.folder.is_dir():
            sweep_partials(job.folder)
    return [job for job in jobs if not all((job.folder / f"{part}.ogg").is_file() for part in packed_parts(job.track))]


def packed_parts(track: Track) -> tuple[str, ...]:
    """The parts of a song that others do not sum to."""
    complete = {*STEMS} <= {*track.files} or {"vocals", ACCOMPANIMENT} <= {*track.files}
    return tuple(part for part in track.files if part != MIXTURE or not complete)


def pack(
    folder: Path, jobs: Sequence[Packing], workers: int, cluster: str | None = None
) -> Iterator[tuple[Packing, UserError | None]]:
    """Pack songs into folders below `folder`, yielding each with None, or why it could not be packed.

    With the address of a `cluster`, its workers do it, and all paths are absolute.
    """
    return run_jobs(pack_song, jobs, workers, cluster=cluster, folders=[folder])


def pack_song(job: Packing) -> None:
    """Write the parts of a song. Raises `UserError` when one cannot be read or written."""
    waveforms, rate = job.track.read(packed_parts(job.track))
    samples = next(iter(waveforms.values())).shape[-1]
    length = min(samples, round((job.seconds or samples / rate) * rate))
    start = (samples - length) // 2
    for part, waveform in waveforms.items():
        path = job.folder / f"{part}.ogg"
        with AudioWriter(path, rate, len(waveform), length, compression=COMPRESSION) as writer:
            writer.write(waveform[:, start : start + length].clamp(-1, 1))
