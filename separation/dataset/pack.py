"""Songs are packed to be carried to a machine that has nothing else: Ogg Vorbis, in folders that `FOLDER` reads.

Building a store there takes seconds; carrying it would take a hundred times as long.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from separation.audio.io import AudioWriter
from separation.dataset.layouts import Track
from separation.errors import UserError, cannot_write
from separation.files import sweep_partials
from separation.jobs import run_jobs
from separation.stems import ACCOMPANIMENT, FOUR, MIXTURE

COMPRESSION = 0.8
"""libsndfile's, from 0 to 1: 0.75 MB a minute of a stereo stem, with an error 18 dB below it."""


def plan_packing(folder: Path, tracks: Sequence[Track], seconds: float | None = None) -> list[Track]:
    """The songs that are not yet in `folder`. Raises `UserError` when it cannot be made, or `seconds` is no time."""
    if seconds is not None and not 0 < seconds < math.inf:
        raise UserError(f"--pack-seconds must be a number above 0, not {seconds:g}.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    places = {track.name: folder / track.subset / track.name for track in tracks}
    for place in filter(Path.is_dir, places.values()):
        sweep_partials(place)
    return [
        track
        for track in tracks
        if not all((places[track.name] / f"{part}.ogg").is_file() for part in packed_parts(track))
    ]


def packed_parts(track: Track) -> tuple[str, ...]:
    """The parts of a song that are not the sum of others."""
    complete = {*FOUR} <= {*track.files} or {"vocals", ACCOMPANIMENT} <= {*track.files}
    return tuple(part for part in track.files if part != MIXTURE or not complete)


def pack(
    tracks: Sequence[Track], folder: Path, seconds: float | None, workers: int, cluster: str | None = None
) -> Iterator[tuple[Track, UserError | None]]:
    """Pack songs into folders below `folder`, yielding each with None, or the reason why it could not be packed.

    Longer songs give their middle `seconds`. With the address of a `cluster`, its workers do it, and all paths are
    absolute.
    """
    return run_jobs(partial(pack_song, folder, seconds), tracks, workers, cluster=cluster, folders=[folder])


def pack_song(folder: Path, seconds: float | None, track: Track) -> None:
    """Write the parts of a song. Raises `UserError` when one cannot be read or written."""
    waveforms, rate = track.read(packed_parts(track))
    samples = next(iter(waveforms.values())).shape[-1]
    length = min(samples, round((seconds or samples / rate) * rate))
    start = (samples - length) // 2
    for part, waveform in waveforms.items():
        path = folder / track.subset / track.name / f"{part}.ogg"
        with AudioWriter(path, rate, len(waveform), length, compression=COMPRESSION) as writer:
            writer.write(waveform[:, start : start + length].clamp(-1, 1))
