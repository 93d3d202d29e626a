"""Pack songs as Ogg Vorbis to carry them to another machine, in folders that the `FOLDER` layout reads.

Building a store there takes seconds; copying one there would take a hundred times as long.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from separation.audio.io import AudioWriter
from separation.dataset.layouts import Track
from separation.errors import UserError, writing
from separation.files import sweep_partials
from separation.stems import ACCOMPANIMENT, FOUR, MIXTURE

COMPRESSION = 0.8
"""libsndfile's compression level, from 0 to 1: 0.75 MB per minute of a stereo stem, its error 18 dB below it."""


def plan_packing(folder: Path, tracks: Sequence[Track], seconds: float | None = None) -> list[Track]:
    """List the songs not yet in `folder`. Raises `UserError` when it cannot be made or `seconds` is not positive."""
    if seconds is not None and not 0 < seconds < math.inf:
        raise UserError(f"--pack-seconds must be a number above 0, not {seconds:g}.")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    places = {track.name: folder / track.subset / track.name for track in tracks}
    for place in filter(Path.is_dir, places.values()):
        sweep_partials(place)
    return [
        track
        for track in tracks
        if not all((places[track.name] / f"{part}.ogg").is_file() for part in packed_parts(track))
    ]


def packed_parts(track: Track) -> tuple[str, ...]:
    """The parts of a song to pack: all that have files, except a mixture that the others sum to."""
    complete = {*FOUR} <= {*track.files} or {"vocals", ACCOMPANIMENT} <= {*track.files}
    return tuple(part for part in track.files if part != MIXTURE or not complete)


def pack_song(folder: Path, seconds: float | None, track: Track) -> None:
    """Pack a song into a folder below `folder`, cut to its middle `seconds`.

    Raises `UserError` when a part cannot be read or written.
    """
    waveforms, rate = track.read(packed_parts(track))
    samples = next(iter(waveforms.values())).shape[-1]
    length = min(samples, round((seconds or samples / rate) * rate))
    start = (samples - length) // 2
    for part, waveform in waveforms.items():
        path = folder / track.subset / track.name / f"{part}.ogg"
        with AudioWriter(path, rate, len(waveform), length, compression=COMPRESSION) as writer:
            writer.write(waveform[:, start : start + length].clamp(-1, 1))
