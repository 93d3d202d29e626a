"""Tracks become a spectrogram store: which parts of a song are stored, how much that takes, and the building itself."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

from torch import Tensor

from separation.audio.formats import AUDIO_SUFFIXES
from separation.audio.io import probe
from separation.audio.stft import Spectral, SpectralSettings
from separation.dataset.layouts import Track
from separation.dataset.pseudo_labels import LabelledTrack, doubts, silent_spans
from separation.dataset.store import (
    SETTINGS_FILE,
    TRACK_FILE,
    Store,
    StoredTrack,
    check_own,
    create_store,
    is_partial,
    stored_bytes,
    write_track,
)
from separation.errors import UserError
from separation.files import sweep_partials
from separation.jobs import run_jobs
from separation.stems import ACCOMPANIMENT, MIXTURE, PARTS, STEMS

UNCHANGED = Fraction(1)

LOUDEST = 50_000
"""Largest number that a spectrogram may reach: half precision ends at 65,504."""


@dataclass(frozen=True)
class Job:
    """One song to build: the parts to store, and the speeds at which the store lacks it, or has it of other files."""

    track: Track
    parts: tuple[str, ...]
    speeds: tuple[Fraction, ...]
    root: Path | None = None
    compact: bool = False


@dataclass(frozen=True)
class Plan:
    """What a store lacks, its tracks of songs that are no longer there, and the songs that have none of the stems."""

    jobs: list[Job]
    gone: list[StoredTrack]
    unused: list[Track]


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
    root: Path | None = None,
    compact: bool = False,
) -> Plan:
    """Make `folder` a store and say what it still lacks; songs that it holds with all their parts are finished.

    A song that it holds without some of the parts, damaged, or made from other files than there are now, is built again
    at every speed it is stored at, and keeps the stems it had. Training songs are also stored at the other `speeds`.
    What is built is `compact` or not; either kind counts as finished. Songs that were stored from `root` and are no
    longer among `tracks` are gone.

    Raises `UserError` when the folder cannot be a store with these settings.
    """
    try:
        create_store(folder, settings)
        sweep_partials(folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be made a store: {error.strerror}.") from error
    stored, names = _stored(folder, settings), {track.name for track in tracks}
    variants: dict[str, list[Fraction]] = {}
    for name in stored.keys() - names:
        song, _, speed = name.rpartition("@")
        with suppress(ValueError):
            variants.setdefault(song, []).append(Fraction(speed).limit_denominator(100))
    jobs, unused, wanted_names = [], [], set()
    for track in tracks:
        others = (*speeds, *sorted(variants.get(track.name, ()))) if track.subset == "train" else ()
        wanted = {speed: variant_name(track.name, speed) for speed in (UNCHANGED, *others)}
        known = {part for name in wanted.values() for part in _parts_of(folder, name)}
        parts = choose_parts(track, [stem for stem in STEMS if stem in {*stems} | known])
        wanted_names |= {*wanted.values()}
        lacking = [speed for speed, name in wanted.items() if not _is_finished(stored.get(name), track, parts, root)]
        if not parts:
            unused.append(track)
        elif lacking:
            jobs.append(Job(track, parts, tuple(lacking), root, compact))
    gone = [
        track
        for name, track in stored.items()
        if track and root and track.root == str(root.resolve()) and name not in wanted_names
    ]
    return Plan(jobs, gone, unused)


def _stored(folder: Path, settings: SpectralSettings) -> dict[str, StoredTrack | None]:
    """The tracks of a store by name; None for those that are damaged."""
    store, tracks = Store(folder), {}
    for path in sorted(folder.glob(f"*/{TRACK_FILE}")):
        if not is_partial(path.parent):
            tracks[path.parent.name] = None
            with suppress(UserError):
                track = store.track(path.parent.name)
                track.check(settings.bins)
                tracks[path.parent.name] = track
    return tracks


def _parts_of(folder: Path, name: str) -> set[str]:
    """The parts that a stored track has or, where it is damaged, had."""
    with suppress(UserError):
        return {*Store(folder).track(name).parts}
    return {path.stem for path in (folder / name).glob("*.npy")}


def _is_finished(stored: StoredTrack | None, track: Track, parts: Sequence[str], root: Path | None) -> bool:
    """Whether a store has these parts of a track, made from the files that there are now; older stores do not say."""
    if stored is None or not {*parts} <= {*stored.parts}:
        return False
    if not stored.sources:
        return True
    if isinstance(track, LabelledTrack) and not stored.doubt:
        return False  # labelled before there were doubts
    return {*stored.parts} <= {*track.parts} and stored.sources == sources_of(track, stored.parts, root)


def sources_of(track: Track, parts: Sequence[str], root: Path | None) -> dict[str, list]:
    """Each file that `parts` are made of, as it lies under `root`, with its stream, bytes and time of change."""
    sources = {}
    for name, file in track.files_of(parts).items():
        with suppress(OSError):  # reading the song will tell
            stat = file.path.stat()
            place = file.path.relative_to(root) if root and file.path.is_relative_to(root) else file.path
            sources[name] = [place.as_posix(), file.track or 0, stat.st_size, stat.st_mtime_ns]
    if isinstance(track, LabelledTrack):
        sources["teacher"] = track.teacher.signature
    return sources


def bytes_needed(job: Job, settings: SpectralSettings) -> int:
    """About what a song will take on disk; 0 when a file cannot be read, which `build_song` will report."""
    files = job.track.files_of(job.parts)
    try:
        infos = {path: probe(path) for path in {file.path for file in files.values()}}
    except UserError:
        return 0
    samples = max(info.samples * settings.sample_rate / info.sample_rate for info in infos.values())
    channels = sum(max(infos[files[name].path].channels for name in job.track.parts[part]) for part in job.parts)
    return sum(stored_bytes(settings, int(samples / speed), channels, job.compact) for speed in job.speeds)


def check_disk(folder: Path, needed: int) -> None:
    """Raise `UserError` when the disk of `folder` has fewer than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(f"the store {folder} needs {in_units(needed)}, but its disk has only {in_units(free)} free.")


def build_store(
    folder: Path, settings: SpectralSettings, jobs: Sequence[Job], workers: int, cluster: str | None = None
) -> Iterator[tuple[Job, list[str] | UserError]]:
    """Build the songs of `jobs`, yielding each with what is to be said of it, or why it could not be built.

    With the address of a `cluster`, its workers do it, and all paths are absolute.
    """
    return run_jobs(partial(build_song, folder, settings), jobs, workers, cluster=cluster, folders=[folder])


def build_song(folder: Path, settings: SpectralSettings, job: Job) -> list[str]:
    """Read and transform one song, and write it into the store at each speed; what is to be said of it, in words.

    Raises `UserError` when it cannot be read or written.
    """
    spectral, sources = Spectral(settings), sources_of(job.track, job.parts, job.root)
    for speed in job.speeds:
        check_own(folder / variant_name(job.track.name, speed))
    waveforms, rate, silence = job.track.read_padded(job.parts, settings.sample_rate)
    teacher, silent, stems = (), {}, []
    if isinstance(job.track, LabelledTrack):
        teacher, mixture = job.track.teacher.weights, waveforms[MIXTURE]
        stems = [part for part in waveforms if part in STEMS]
        rule = (mixture, settings.sample_rate, job.track.teacher.depth)
        silent = {stem: silent_spans(waveforms[stem], *rule) for stem in stems}
    notes = [f"{name} ends {seconds:.1f} s early, and is silent there" for name, seconds in silence.items()]
    if (gain := _gain(waveforms, settings)) < 1:
        waveforms = {part: gain * waveform for part, waveform in waveforms.items()}
        notes.append(f"far beyond full scale, and stored at 1/{round(1 / gain)} of it")
    for speed in job.speeds:
        changed = {part: change_speed(waveform, speed) for part, waveform in waveforms.items()}
        song = spectral(changed[MIXTURE]) if stems else None
        try:
            write_track(
                folder,
                spectral,
                changed,
                name=variant_name(job.track.name, speed),
                song=job.track.name,
                subset=job.track.subset,
                bandwidth=float(min(rate * speed, settings.sample_rate) / 2),
                root=str(job.root.resolve()) if job.root else None,
                sources=sources,
                compact=job.compact,
                teacher=teacher,
                silent={stem: frames_of(spans, speed, settings) for stem, spans in silent.items()},
                doubt={stem: doubts(spectral(changed[stem]), song) for stem in stems},
            )
        except OSError as error:
            raise UserError(f"it cannot be written to {folder}: {error.strerror}.") from error
    return notes


def frames_of(spans: Sequence[tuple[int, int]], speed: Fraction, settings: SpectralSettings) -> list[tuple[int, int]]:
    """Spans of samples as spans of the frames whose middle lies in them, of the song at another speed."""
    late = settings.n_fft // 2 - settings.padding  # where the middle of frame 0 lies
    return [tuple(max(0, math.ceil((Fraction(time) / speed - late) / settings.hop)) for time in span) for span in spans]


def _gain(waveforms: Mapping[str, Tensor], settings: SpectralSettings) -> float:
    """A power of 2 that makes a song fit into half precision: 1 for all but those far beyond full scale."""
    peak = max(float(waveform.abs().max()) for waveform in waveforms.values())
    if not math.isfinite(peak):
        raise UserError("its samples are so loud that their numbers overflow: export it anew.")
    largest = peak * math.sqrt(settings.n_fft) / 2  # what a frame of the peak alone has, under a Hann window
    return 2.0 ** min(0, math.floor(math.log2(LOUDEST / largest))) if largest else 1.0


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


def skipped(root: Path, tracks: Iterable[Track]) -> list[Path]:
    """The audio files under `root` that none of `tracks` uses, and the folders in which there is no audio at all.

    Hidden folders and stores of spectrograms are left out.
    """
    used = {file.path for track in tracks for file in track.files.values()}
    found: list[Path] = []
    with_audio: set[Path] = {folder for path in used for folder in path.parents}
    folders: list[Path] = []
    for place, below, files in os.walk(root):
        folder = Path(place)
        if {SETTINGS_FILE, TRACK_FILE} & {*files}:
            below.clear()
            continue
        below[:] = sorted(name for name in below if not name.startswith("."))
        folders.append(folder)
        for name in sorted(files):
            path = folder / name
            if path.suffix.lower() in AUDIO_SUFFIXES and not name.startswith(".") and path not in used:
                found.append(path)
                with_audio |= {*path.parents}
    empty = [folder for folder in folders if folder not in with_audio]
    return found + [folder for folder in empty if folder.parent not in empty]
