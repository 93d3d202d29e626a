"""Memory-mapped spectrograms on disk, one folder per track, with their spectral settings.

    <store>/settings.json            the spectral settings of every track
    <store>/<track>/track.json       the track's metadata; written last
    <store>/<track>/<part>.npy       float16 [frames, channels, bins, 2 (real, imaginary)]
                                     or, in a compact track, int16 [samples, channels]

A part is the mixture, a stem or the accompaniment; mono parts have one channel on disk and two when read. Time is the
first axis, so a crop is one contiguous read. A compact track takes a quarter of the disk space, is transformed as it is
read, and serves any STFT at its sample rate. A track is built under a temporary name and renamed once it is complete.
Only files written by this program are ever removed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from separation.audio.stft import Spectral, SpectralSettings
from separation.errors import UserError
from separation.files import PARTIAL, drop_partial, make_partial, partial_name, write_file
from separation.inference.config import parse
from separation.stems import MIXTURE, PARTS, rest_parts

SETTINGS_FILE = "settings.json"
TRACK_FILE = "track.json"
OWN_FILES = {TRACK_FILE, *(f"{part}.npy" for part in PARTS)}
"""The only files that a track's folder may hold."""


@dataclass(frozen=True)
class StoredTrack:
    """One track of a store.

    `song` is shared by all speeds of a song, and splits go by it. `bandwidth` is the highest frequency, in hertz, that
    the track's files can hold: above it, silence says nothing about the music. `level` is that of the first part, the
    mixture unless the track is a lone part, in dB of a full-scale square wave. `step` is the value of one integer step
    in a compact track; other tracks have none. `teacher` names the networks whose estimates are the track's stems;
    `silent` then holds the spans of frames, ends excluded, in which they found a stem silent.
    """

    folder: Path
    name: str
    song: str
    subset: str
    parts: tuple[str, ...]
    samples: int
    frames: int
    bandwidth: float
    level: float
    settings: SpectralSettings
    root: str | None = None
    sources: Mapping[str, Sequence] = field(default_factory=dict)
    teacher: tuple[str, ...] = ()
    silent: dict[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    step: float | None = None

    def __post_init__(self):
        """Raise ValueError for invalid or inconsistent metadata."""
        if not self.parts or not {*self.parts} <= {*PARTS}:
            raise ValueError(f"parts must be some of {', '.join(PARTS)}")
        if self.step is not None and self.step <= 0:
            raise ValueError("step must be a number above 0")
        if self.bandwidth <= 0 or self.samples <= 0 or self.frames != self.settings.frames(self.samples):
            raise ValueError(
                f"{self.samples} samples, {self.frames} frames and {self.bandwidth} Hz do not fit together"
            )
        if any(not 0 <= first <= end <= self.frames for spans in self.silent.values() for first, end in spans):
            raise ValueError("silent must hold frames of the song")

    def at(self, settings: SpectralSettings) -> StoredTrack:
        """The same track under another STFT at its sample rate. Raises `UserError` unless it is compact."""
        if settings == self.settings:
            return self
        if self.step is None or settings.sample_rate != self.settings.sample_rate:
            raise _other_settings(self.folder.parent, self.settings, settings)
        frames, late = settings.frames(self.samples), self.settings.n_fft // 2 - self.settings.padding
        silent = {
            stem: frames_of([[late + frame * self.settings.hop for frame in span] for span in spans], settings, frames)
            for stem, spans in self.silent.items()
        }
        return replace(self, settings=settings, frames=frames, silent=silent)

    def check(self, bins: int) -> None:
        """Raise `UserError` when a part is missing or cut short, or its spectrogram does not have `bins` bins."""
        for part in self.parts:
            stored = self._open(part)
            if self.step is None and (found := stored.shape[2]) != bins:
                raise self._damaged(part, f"it has {found} bins in place of {bins}")

    def crop(self, part: str, start: int = 0, frames: int | None = None, bins: int | None = None) -> Tensor:
        """Read `part` from frame `start`, complex `[2 channels, bins, frames]`: the lowest `bins`, by default all."""
        stop = self.frames if frames is None else start + frames
        if self.step is not None:
            return self._transformed(part, start, min(stop, self.frames))[:, :bins].expand(2, -1, -1)
        halves = torch.from_numpy(np.array(self._open(part)[start:stop, :, :bins], order="C")).float()
        if not bool((halves * 0).sum() == 0):
            raise self._damaged(part, "it has values that are no numbers")
        return torch.view_as_complex(halves).permute(1, 2, 0).expand(2, -1, -1)

    def waveform(self, part: str) -> Tensor:
        """Samples of `part` of a compact track, int16 `[samples, channels]` in units of `step`."""
        return torch.from_numpy(np.array(self._open(part), order="C"))

    def _transformed(self, part: str, start: int, stop: int) -> Tensor:
        """Transform frames `start` to `stop`, excluded, of a compact track: complex `[channels, bins, frames]`."""
        first = start * self.settings.hop - self.settings.padding
        end = (stop - 1) * self.settings.hop - self.settings.padding + self.settings.n_fft
        samples = torch.from_numpy(np.array(self._open(part)[max(0, first) : end], order="C")).T * (self.step or 1)
        return _spectral(self.settings).analyse(pad(samples, (max(0, -first), end - max(0, first) - samples.shape[1])))

    def _open(self, part: str) -> np.ndarray:
        """Memory-map a part, afresh at each call: mappings that were kept would hold thousands of files open."""
        try:
            stored = np.load(self.folder / f"{part}.npy", mmap_mode="r", allow_pickle=False)
        except MemoryError:
            raise
        except Exception as error:  # numpy raises half a dozen exception types for damaged files
            raise self._damaged(part, str(error)) from error
        if not isinstance(stored, np.ndarray):
            raise self._damaged(part, "it holds several arrays")
        kind, axes = (np.float16, (2,)) if self.step is None else (np.int16, ())
        if stored.dtype != kind or stored.ndim != 2 + 2 * len(axes) or stored.shape[3:] != axes:
            raise self._damaged(part, f"it holds {stored.dtype} {list(stored.shape)}")
        if stored.shape[1] not in (1, 2):
            raise self._damaged(part, f"it has {stored.shape[1]} channels")
        unit, wanted = ("frames", self.frames) if self.step is None else ("samples", self.samples)
        if len(stored) != wanted:
            raise self._damaged(part, f"it has {len(stored)} {unit} in place of {wanted}")
        return stored

    def _damaged(self, part: str, reason: str) -> UserError:
        path, reason = self.folder / f"{part}.npy", " ".join(reason.split())[:200]
        return UserError(
            f"{path} is missing or damaged ({reason}): run dataset.py again, or remove its folder.", "damaged"
        )


class Store:
    """A spectrogram store, opened for reading.

    Args:
        folder: the store.
        settings: STFT to read it with, by default its own. Its compact tracks serve any at their sample rate.

    Raises:
        UserError: the folder is not a store.
    """

    def __init__(self, folder: Path, settings: SpectralSettings | None = None):
        self.folder, self.own = Path(folder), read_settings(Path(folder))
        self.settings = settings or self.own

    def tracks(self, subset: str | None = None) -> list[StoredTrack]:
        """Finished tracks in order of name, or only those of `subset`.

        Raises `UserError` when one is damaged, or cannot be read with these settings.
        """
        paths = (path for path in sorted(self.folder.glob(f"*/{TRACK_FILE}")) if not is_partial(path.parent))
        return [track for track in map(self._read, paths) if subset in (None, track.subset)]

    def track(self, name: str) -> StoredTrack:
        """One track by name. Raises `UserError` as `tracks` does, and when it does not exist."""
        return self._read(self.folder / name / TRACK_FILE)

    def _read(self, path: Path) -> StoredTrack:
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(values, dict):
                values.pop("doubt", None)  # written by older versions
                values |= {"folder": path.parent, "settings": asdict(self.own)}
            track = parse(StoredTrack, values, "")
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}.", code="damaged") from error
        except (ValueError, TypeError, RecursionError) as error:
            reason = f"{path} is damaged ({error}): run dataset.py again, or remove its folder."
            raise UserError(reason, code="damaged") from error
        return track.at(self.settings)


def is_partial(folder: Path) -> bool:
    """Whether a track's folder is unfinished: being written, or left behind by a stopped run."""
    return folder.name.endswith(PARTIAL)


def read_settings(folder: Path) -> SpectralSettings:
    """Read the spectral settings of a store. Raises `UserError` when `folder` is not a store."""
    path = folder / SETTINGS_FILE
    if not path.is_file():
        missing = f"{folder} is not a store: it has no {SETTINGS_FILE}; build one with dataset.py --output {folder}."
        raise UserError(missing, code="no_store")
    try:
        return parse(SpectralSettings, json.loads(path.read_text(encoding="utf-8")), "")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.", code="damaged") from error
    except (ValueError, TypeError, RecursionError) as error:
        reason = f"{path} is damaged, or not of a store ({error}): build the store in another folder."
        raise UserError(reason, code="damaged") from error


def _other_settings(store: Path, found: SpectralSettings, wanted: SpectralSettings) -> UserError:
    has, needs = (f"n_fft {x.n_fft}, hop {x.hop} at {x.sample_rate} Hz" for x in (found, wanted))
    hint = (
        f"build another with dataset.py --n-fft {wanted.n_fft} --hop {wanted.hop} or with --compact, for any STFT, or "
    )
    hint = hint if wanted.sample_rate == found.sample_rate else ""
    ours = f"spectral.n_fft={found.n_fft} spectral.hop={found.hop} spectral.sample_rate={found.sample_rate}"
    return UserError(f"the store {store} has {has}, not {needs}: {hint}train with --set {ours}.", code="other_stft")


def frames_of(spans: Sequence[Sequence[float]], settings: SpectralSettings, frames: int) -> tuple[tuple[int, int], ...]:
    """Convert spans of samples to spans of the frames, of `frames`, whose centre lies in them; ends are excluded."""
    late = settings.n_fft // 2 - settings.padding  # centre of frame 0

    def frame(sample: float) -> int:
        return min(frames, max(0, math.ceil((sample - late) / settings.hop)))

    return tuple((frame(first), frame(end)) for first, end in spans)


def create_store(folder: Path, settings: SpectralSettings) -> None:
    """Make `folder` a store, or check that it is one. Raises `UserError` for other settings or foreign files."""
    if (folder / SETTINGS_FILE).exists():
        if (found := read_settings(folder)) != settings:
            raise _other_settings(folder, found, settings)
        return
    folder.mkdir(parents=True, exist_ok=True)  # here, since a file in its place is not the error of a full disk
    others = sorted(path.name for path in folder.iterdir() if not (is_partial(path) or path.name.startswith(".")))
    if others:
        raise UserError(
            f"{folder} is not empty ({others[0]}): dataset.py writes to an empty folder or to a store of its own; "
            "name another --output.",
            code="not_ours",
        )
    write_file(folder / SETTINGS_FILE, json.dumps(asdict(settings), indent=2))


def write_track(
    folder: Path,
    spectral: Spectral,
    waveforms: Mapping[str, Tensor],
    *,
    name: str,
    song: str,
    subset: str,
    bandwidth: float,
    root: str | None = None,
    sources: Mapping[str, Sequence] | None = None,
    teacher: Sequence[str] = (),
    silent: Mapping[str, Sequence[Sequence[int]]] | None = None,
    compact: bool = False,
) -> None:
    """Write one track into the store `folder` atomically; see `StoredTrack`.

    `waveforms` holds `[1 or 2 channels, samples]` for each part, all of one length, at the store's sample rate. A
    `compact` track keeps them, as 16-bit integers scaled to its peak, instead of their spectrograms. Raises `UserError`
    when a folder of that name holds foreign files.
    """
    parts = sorted(waveforms, key=PARTS.index)
    final = folder / name
    samples = {waveform.shape[-1] for waveform in waveforms.values()}
    if len(samples) > 1:
        raise ValueError(f"the parts of {name} differ in length")
    check_own(final)
    partial = make_partial(folder, as_folder=True)
    try:
        peak = max(float(waveform.abs().max()) for waveform in waveforms.values())
        step = peak / 32767 if compact and peak else 1 / 32767
        for part, waveform in waveforms.items():
            if compact:
                stored = (waveform.T / step).round().to(torch.int16)
            else:
                stored = torch.view_as_real(spectral(waveform)).permute(2, 0, 1, 3).to(torch.float16)
            np.save(partial / f"{part}.npy", stored.contiguous().numpy())
        description = {
            "name": name,
            "song": song,
            "subset": subset,
            "parts": parts,
            "samples": min(samples),
            "frames": spectral.settings.frames(min(samples)),
            "bandwidth": bandwidth,
            "level": round(level(waveforms[parts[0]]), 2),
            "root": root,
            "sources": sources or {},
        }
        if compact:
            description |= {"step": step}
        if teacher:
            description |= {"teacher": [*teacher], "silent": silent or {}}
        (partial / TRACK_FILE).write_text(json.dumps(description, indent=2, ensure_ascii=False), encoding="utf-8")
        _replace(final, partial)
    finally:
        drop_partial(partial)


def _replace(final: Path, partial: Path) -> None:
    """Give a complete track its name. If several runs write the same track, the last one wins."""
    for attempt in range(10):
        try:
            remove_track(final)
            partial.rename(final)
            return
        except OSError:  # another run was faster
            if attempt == 9:
                raise


def check_own(folder: Path) -> None:
    """Raise `UserError` when `folder` exists and is anything but a track written by this program."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UserError(f"{folder} is in the way: dataset.py did not write it; name another --output.", "not_ours")
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    others = [path for path in paths if path.name not in OWN_FILES or not path.is_file() or path.is_symlink()]
    if paths and not is_partial(folder) and folder / TRACK_FILE not in paths:
        others = paths
    if others:
        raise UserError(f"{others[0]} was not written by dataset.py: name another --output.", code="not_ours")


def remove_track(folder: Path) -> None:
    """Remove a track's folder, if it exists, atomically. Raises `UserError` as `check_own` does."""
    check_own(folder)
    if folder.is_dir():
        if not is_partial(folder):
            folder = folder.rename(folder.with_name(partial_name()))
        for name in OWN_FILES:
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()


def level(waveform: Tensor) -> float:
    """RMS level of a waveform of any shape, in dB of full scale; -100 for silence."""
    return float(10 * torch.log10(waveform.square().mean() + 1e-10))


@lru_cache(maxsize=4)
def _spectral(settings: SpectralSettings) -> Spectral:
    return Spectral(settings)


def stored_bytes(settings: SpectralSettings, samples: int, channels: int, compact: bool = False) -> int:
    """Bytes that one part takes in a store."""
    if compact:
        return samples * channels * 2
    return settings.frames(samples) * channels * settings.bins * 4


@dataclass(frozen=True)
class Signal:
    """A signal derived from a track: the signed sum of some of its parts, times a gain."""

    track: StoredTrack
    parts: tuple[tuple[str, int], ...]
    gain: float = 1.0
    spans: tuple[tuple[int, int], ...] = ()
    """Spans of frames, ends excluded, that crops may be taken from; none: the whole track."""

    def crop(self, start: int, frames: int, bins: int) -> Tensor:
        """Read complex `[2 channels, bins, frames]` from frame `start`."""
        crops = (sign * self.track.crop(part, start, frames, bins) for part, sign in self.parts)
        return self.gain * sum(crops, start=torch.zeros(()))


def runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """Start and end, excluded, of each run of true flags.

    >>> runs(np.array([True, True, False, True]))
    [(0, 2), (3, 4)]
    """
    edges = np.diff(flags.astype(int), prepend=0, append=0)
    return list(zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True))


def silence_of(track: StoredTrack, targets: Sequence[str], shortest: int) -> Signal | None:
    """The mixture where its teacher found no `targets` for at least `shortest` frames; None if nowhere."""
    spans: list[tuple[int, int]] = [(0, track.frames)]
    for target in targets:
        silent = [(first, end) for first, end in track.silent.get(target, ())]
        spans = [(max(a, c), min(b, d)) for a, b in spans for c, d in silent]
    spans = [(first, end) for first, end in spans if end - first >= shortest]
    return Signal(track, ((MIXTURE, 1),), spans=tuple(spans)) if spans and MIXTURE in track.parts else None


def target_of(track: StoredTrack, target: str) -> Signal | None:
    """The isolated target, or the mixture; None when the track has none."""
    return Signal(track, ((target, 1),)) if target in track.parts else None


def shares_of(track: StoredTrack, targets: Sequence[str]) -> list[Signal]:
    """The sources that make up a whole song: its targets in order, and its rest if there is one."""
    signals = [*(target_of(track, target) for target in targets), rest_of(track, targets)]
    return [signal for signal in signals if signal]


def rest_of(track: StoredTrack, targets: Sequence[str]) -> Signal | None:
    """The song without `targets`; None when its parts do not determine it."""
    parts = rest_parts(track.parts, targets)
    return Signal(track, tuple(parts.items())) if parts else None
