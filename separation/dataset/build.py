"""Build a spectrogram store from tracks: find what it lacks, estimate the disk space, and write it."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from separation.audio.formats import SONG_SUFFIXES
from separation.audio.io import probe
from separation.audio.resample import resample
from separation.audio.stft import Spectral, SpectralSettings
from separation.dataset.layouts import Track
from separation.dataset.pseudo_labels import LabelledTrack, silent_spans
from separation.dataset.store import (
    SETTINGS_FILE,
    TRACK_FILE,
    Store,
    StoredTrack,
    check_own,
    create_store,
    frames_of,
    is_partial,
    stored_bytes,
    write_track,
)
from separation.errors import UserError, writing
from separation.files import is_hidden, sweep_partials
from separation.stems import ACCOMPANIMENT, MIXTURE, PARTS, STEMS

UNCHANGED = Fraction(1)

LOUDEST = 50_000
"""Largest number allowed in a spectrogram: half precision ends at 65,504."""


@dataclass(frozen=True)
class BuildJob:
    """One song to build: the parts to store, and the speeds at which it is missing, damaged or outdated."""

    track: Track
    parts: tuple[str, ...]
    speeds: tuple[Fraction, ...]
    root: Path | None = None
    compact: bool = False


@dataclass(frozen=True)
class BuildPlan:
    """Songs to build, stored tracks whose songs are gone, and songs without any of the chosen stems."""

    jobs: list[BuildJob]
    gone: list[StoredTrack]
    unused: list[Track]


def choose_parts(track: Track, stems: Sequence[str]) -> tuple[str, ...]:
    """Choose the parts of `track` to store for training on `stems`; none for a lone stem that is not among them.

    These are the mixture, the chosen stems and the accompaniment. An accompaniment with a file of its own is always
    stored; one that is a sum is stored if vocals are chosen, unless the chosen stems sum to it anyway.
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
) -> BuildPlan:
    """Make `folder` a store and plan what it still lacks. Songs stored with all their parts are finished.

    A song stored without some of the parts, damaged, or from files that have since changed is rebuilt at every stored
    speed and keeps its stems. Training songs are also stored at the other `speeds`. New tracks are `compact` or not;
    either kind counts as finished. Songs that were stored from `root` and are no longer among `tracks` are gone.

    Raises `UserError` when the folder cannot be a store with these settings.
    """
    with writing(folder):
        create_store(folder, settings)
        sweep_partials(folder)
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
            jobs.append(BuildJob(track, parts, tuple(lacking), root, compact))
    gone = [
        track
        for name, track in stored.items()
        if track and root and track.root == str(root.resolve()) and name not in wanted_names
    ]
    return BuildPlan(jobs, gone, unused)


def _stored(folder: Path, settings: SpectralSettings) -> dict[str, StoredTrack | None]:
    """Tracks of a store by name; None for damaged ones."""
    store = Store(folder)
    tracks: dict[str, StoredTrack | None] = {}
    for path in sorted(folder.glob(f"*/{TRACK_FILE}")):
        if not is_partial(path.parent):
            tracks[path.parent.name] = None
            with suppress(UserError):
                track = store.track(path.parent.name)
                track.check(settings.bins)
                tracks[path.parent.name] = track
    return tracks


def _parts_of(folder: Path, name: str) -> set[str]:
    """Parts of a stored track; for a damaged one, those that have a file."""
    with suppress(UserError):
        return {*Store(folder).track(name).parts}
    return {path.stem for path in (folder / name).glob("*.npy")}


def _is_finished(stored: StoredTrack | None, track: Track, parts: Sequence[str], root: Path | None) -> bool:
    """Whether a store has these parts of a track, made from its current files. Older stores do not record files."""
    if stored is None or not {*parts} <= {*stored.parts}:
        return False
    if not stored.sources:
        return True
    return {*stored.parts} <= {*track.parts} and stored.sources == sources_of(track, stored.parts, root)


def sources_of(track: Track, parts: Sequence[str], root: Path | None) -> dict[str, list]:
    """Files that `parts` are made from, and the teacher that labels them. If either changes, the track is rebuilt."""
    teacher = {"teacher": track.teacher.signature} if isinstance(track, LabelledTrack) else {}
    return track.signature(parts, root) | teacher


def bytes_needed(job: BuildJob, settings: SpectralSettings) -> int:
    """Estimated bytes of a song on disk; 0 when a file cannot be read, which `build_song` will report."""
    files = job.track.files_of(job.parts)
    try:
        infos = {part: [probe(file.path, file.track) for file in members] for part, members in files.items()}
    except UserError:
        return 0
    samples = max(info.samples * settings.sample_rate / info.sample_rate for part in infos.values() for info in part)
    channels = sum(max(info.channels for name in job.track.parts[part] for info in infos[name]) for part in job.parts)
    return sum(stored_bytes(settings, int(samples / speed), channels, job.compact) for speed in job.speeds)


def check_disk(folder: Path, needed: int) -> None:
    """Raise `UserError` when the disk of `folder` has fewer than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"the store {folder} needs {in_units(needed)}, but its disk has only {in_units(free)} free.", "disk_full"
        )


def build_song(folder: Path, settings: SpectralSettings, job: BuildJob) -> list[str]:
    """Read and transform one song, write it into the store at each speed, and return remarks on it.

    Raises `UserError` when it cannot be read or written.
    """
    track, spectral, sources = job.track, Spectral(settings), sources_of(job.track, job.parts, job.root)
    for speed in job.speeds:
        check_own(folder / variant_name(track.name, speed))
    waveforms, rate, silence = track.read_padded(job.parts, settings.sample_rate)
    teacher: tuple[str, ...] = ()
    silent: dict[str, list[tuple[int, int]]] = {}
    if isinstance(track, LabelledTrack):
        teacher, mixture, depth = track.teacher.weights, waveforms[MIXTURE], track.teacher.depth
        estimates = {part: waveform for part, waveform in waveforms.items() if part in STEMS}
        silent = {stem: silent_spans(x, mixture, settings.sample_rate, depth) for stem, x in estimates.items()}
    remarks = [f"{name} ends {seconds:.1f} s early, and is silent there" for name, seconds in silence.items()]
    if (gain := _gain(waveforms, settings)) < 1:
        waveforms = {part: gain * waveform for part, waveform in waveforms.items()}
        remarks.append(f"far beyond full scale, and stored at 1/{round(1 / gain)} of it")
    for speed in job.speeds:
        changed = {part: change_speed(waveform, speed) for part, waveform in waveforms.items()}
        frames = settings.frames(changed[job.parts[0]].shape[-1])
        scaled = {stem: [[float(x / speed) for x in span] for span in spans] for stem, spans in silent.items()}
        with writing(folder):
            write_track(
                folder,
                spectral,
                changed,
                name=variant_name(track.name, speed),
                song=track.name,
                subset=track.subset,
                bandwidth=float(min(rate * speed, Fraction(settings.sample_rate)) / 2),
                root=str(job.root.resolve()) if job.root else None,
                sources=sources,
                compact=job.compact,
                teacher=teacher,
                silent={stem: frames_of(spans, settings, frames) for stem, spans in scaled.items()},
            )
    return remarks


def _gain(waveforms: Mapping[str, Tensor], settings: SpectralSettings) -> float:
    """Power of 2 that makes a song fit into half precision: 1 unless it is far beyond full scale."""
    peak = max(float(waveform.abs().max()) for waveform in waveforms.values())
    if not math.isfinite(peak):
        raise UserError("its samples are so large that they overflow: export it again.", code="damaged")
    largest = peak * math.sqrt(settings.n_fft) / 2  # bin 0 of a frame held at the peak, under a Hann window
    return 2.0 ** min(0, math.floor(math.log2(LOUDEST / largest))) if largest else 1.0


def change_speed(waveform: Tensor, speed: Fraction) -> Tensor:
    """Change the speed of a waveform `[channels, samples]`: its pitch times `speed`, its length divided by it."""
    return torch.from_numpy(resample(waveform.numpy(), speed.numerator, speed.denominator))


def variant_name(name: str, speed: Fraction) -> str:
    """Name under which the store keeps the song `name` at a given speed, as in "song@0.9"."""
    return name if speed == UNCHANGED else f"{name}@{float(speed):g}"


def in_units(size: int) -> str:
    """Format a number of bytes for people.

    >>> in_units(2_340_000_000)
    '2.34 GB'
    """
    return f"{size / 1e9:.2f} GB"


def skipped(root: Path, tracks: Iterable[Track]) -> list[Path]:
    """Audio files under `root` that none of `tracks` uses, and folders without any audio.

    Hidden folders, system folders and spectrogram stores are left out.
    """
    used = {file.path for track in tracks for files in track.files.values() for file in files}
    with_audio: set[Path] = {folder for path in used for folder in path.parents}
    found: list[Path] = []
    folders: list[Path] = []
    for place, below, names in os.walk(root):
        folder = Path(place)
        if {SETTINGS_FILE, TRACK_FILE} & {*names}:
            below.clear()
            continue
        below[:] = sorted(name for name in below if not is_hidden(name))
        folders.append(folder)
        for path in (folder / name for name in sorted(names) if not is_hidden(name)):
            if path.suffix.lower() in SONG_SUFFIXES and path not in used:
                found.append(path)
                with_audio |= {*path.parents}
    empty = [folder for folder in folders if folder not in with_audio]
    return found + [folder for folder in empty if folder.parent not in empty]
