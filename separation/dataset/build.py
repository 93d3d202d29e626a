"""Tracks become a spectrogram store: which parts of a song are stored, how much that takes, and the building itself."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

from torch import Tensor

from separation.audio.io import probe
from separation.audio.spectral import Spectral, SpectralSettings
from separation.dataset.store import Store, create_store, stored_bytes, write_track
from separation.dataset.tracks import Track
from separation.errors import UserError
from separation.stems import ACCOMPANIMENT, MIXTURE, PARTS, STEMS
from separation.workers import run_jobs

UNCHANGED = Fraction(1)


@dataclass(frozen=True)
class Job:
    """One song to build: the parts to store, and the speeds at which the store still lacks some of them."""

    track: Track
    parts: tuple[str, ...]
    speeds: tuple[Fraction, ...]


def choose_parts(track: Track, stems: Sequence[str]) -> tuple[str, ...]:
    """The parts of `track` to store for training on `stems`; none for a lone stem that is not among them.

    They are the mixture, the chosen stems, and the accompaniment: one that has a file of its own always, one that is a
    sum where vocals are chosen, unless the chosen stems sum to it anyway.
    """
    wanted = {MIXTURE, *stems}
    if ACCOMPANIMENT in track.files or ("vocals" in stems and not {*track.stems} <= {*stems}):
        wanted.add(ACCOMPANIMENT)
    return tuple(part for part in PARTS if part in wanted and part in track.parts)


def plan_store(
    folder: Path,
    settings: SpectralSettings,
    tracks: Sequence[Track],
    stems: Sequence[str],
    speeds: Sequence[Fraction] = (),
) -> list[Job]:
    """Make `folder` a store and say what it still lacks; songs that it holds with all their parts are finished.

    A song that it holds without some of the parts is built again, and keeps the stems it had. Training songs are also
    stored at the other `speeds`. Raises `UserError` when the folder cannot be a store with these settings.
    """
    try:
        create_store(folder, settings)
    except OSError as error:
        raise UserError(f"{folder} cannot be made a store: {error.strerror}.") from error
    stored = {track.name: track.parts for track in Store(folder).tracks()}
    jobs = []
    for track in tracks:
        wanted = (UNCHANGED, *speeds) if track.subset == "train" else (UNCHANGED,)
        found = {speed: {*stored.get(variant_name(track.name, speed), ())} for speed in wanted}
        parts = choose_parts(track, [stem for stem in STEMS if stem in {*stems}.union(*found.values())])
        lacking = tuple(speed for speed in wanted if not {*parts} <= found[speed])
        if lacking:
            jobs.append(Job(track, parts, lacking))
    return jobs


def bytes_needed(job: Job, settings: SpectralSettings) -> int:
    """About what a song will take on disk; 0 when a file cannot be read, which `build_song` will report."""
    files = job.track.files_of(job.parts)
    try:
        infos = {path: probe(path) for path in {file.path for file in files.values()}}
    except UserError:
        return 0
    samples = min(info.samples * settings.sample_rate / info.sample_rate for info in infos.values())
    channels = sum(max(infos[files[name].path].channels for name in job.track.parts[part]) for part in job.parts)
    return sum(stored_bytes(settings, int(samples / speed), channels) for speed in job.speeds)


def check_disk(folder: Path, needed: int) -> None:
    """Raise `UserError` when the disk of `folder` has fewer than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(f"the store {folder} needs {in_units(needed)}, but its disk has only {in_units(free)} free.")


def build_store(
    folder: Path, settings: SpectralSettings, jobs: Sequence[Job], workers: int
) -> Iterator[tuple[Job, UserError | None]]:
    """Build the songs of `jobs`, yielding each with None, or with the reason why it could not be built."""
    return run_jobs(partial(build_song, folder, settings), jobs, workers)


def build_song(folder: Path, settings: SpectralSettings, job: Job) -> None:
    """Read and transform one song, and write it into the store at each speed. Raises `UserError` when it cannot."""
    spectral = Spectral(settings)
    waveforms, rate = job.track.read(job.parts, settings.sample_rate)
    for speed in job.speeds:
        try:
            write_track(
                folder,
                spectral,
                {part: change_speed(waveform, speed) for part, waveform in waveforms.items()},
                name=variant_name(job.track.name, speed),
                song=job.track.name,
                subset=job.track.subset,
                bandwidth=float(min(rate * speed, settings.sample_rate) / 2),
            )
        except OSError as error:
            raise UserError(f"it cannot be written to {folder}: {error.strerror}.") from error


def change_speed(waveform: Tensor, speed: Fraction) -> Tensor:
    """Play a waveform faster: its pitch times `speed`, its length divided by it. `[channels, samples]` to the same."""
    from torchaudio.functional import resample  # much faster than soxr for ratios as simple as these

    return resample(waveform, speed.numerator, speed.denominator)


def variant_name(name: str, speed: Fraction) -> str:
    """Name in the store of the song `name` at another speed, as in "song@0.9"."""
    return name if speed == UNCHANGED else f"{name}@{float(speed):g}"


def in_units(size: int) -> str:
    """Bytes as people read them.

    >>> in_units(2_340_000_000)
    '2.34 GB'
    """
    return f"{size / 1e9:.2f} GB"
