"""Spectrograms on disk: memory-mapped, half precision, one folder a track, the spectral settings beside them.

    <store>/settings.json            the spectral settings of every track
    <store>/<track>/track.json       what the track is; written last
    <store>/<track>/<part>.npy       float16 [frames, channels, bins, 2 (real, imaginary)]

A part is the mixture, a stem or the accompaniment; mono parts have one channel on disk and two when read. Frames come
first, so a crop in time is one contiguous read. A track is built in `<track>.partial/` and renamed when it is whole.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from separation.audio.spectral import Spectral, SpectralSettings
from separation.errors import UserError
from separation.files import PARTIAL, replacing
from separation.stems import PARTS

SETTINGS_FILE = "settings.json"
TRACK_FILE = "track.json"


@dataclass(frozen=True)
class StoredTrack:
    """One track of a store.

    `song` is what splits go by: variants of a song (other speeds) share it. `bandwidth` is the highest frequency, in
    hertz, that the track's files can hold: above it, silence says nothing about the music. `level` is that of the first
    part, the mixture unless the track is a lone part, in dB of a full-scale square wave.
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

    def crop(self, part: str, start: int = 0, frames: int | None = None, bins: int | None = None) -> Tensor:
        """Complex `[2 channels, bins, frames]` of `part`, from frame `start`; the lowest `bins` bins or else all."""
        stop = self.frames if frames is None else start + frames
        # Opened anew each time: an array that stays mapped keeps a file open, and a store has thousands of them.
        stored = np.load(self.folder / f"{part}.npy", mmap_mode="r")
        halves = torch.from_numpy(np.array(stored[start:stop, :, :bins]))
        spectrogram = torch.view_as_complex(halves.float()).permute(1, 2, 0)
        return spectrogram.expand(2, -1, -1)


@dataclass(frozen=True)
class Store:
    """A folder of spectrograms, opened for reading. Raises `UserError` when it is none."""

    folder: Path
    settings: SpectralSettings = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "settings", read_settings(self.folder))

    def tracks(self, subset: str | None = None) -> list[StoredTrack]:
        """The finished tracks in order of their names; those of `subset` alone if it is given."""
        tracks = [
            self._read(path) for path in sorted(self.folder.glob(f"*/{TRACK_FILE}")) if not is_partial(path.parent)
        ]
        return [track for track in tracks if subset in (None, track.subset)]

    def _read(self, path: Path) -> StoredTrack:
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            values["parts"] = tuple(values["parts"])
            return StoredTrack(folder=path.parent, **values)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged ({error}): delete its folder and run dataset.py again.") from error


def is_partial(folder: Path) -> bool:
    """Whether a track's folder was left half-written by a run that was stopped."""
    return folder.name.endswith(PARTIAL)


def read_settings(folder: Path) -> SpectralSettings:
    """The spectral settings of a store. Raises `UserError` when `folder` is no store."""
    path = Path(folder) / SETTINGS_FILE
    if not path.is_file():
        raise UserError(
            f"{folder} is no spectrogram store (it has no {SETTINGS_FILE}): "
            f"build one with dataset.py --output {folder}."
        )
    try:
        return SpectralSettings(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}): delete the store and build it again with dataset.py.") from error


def check_settings(found: SpectralSettings, wanted: SpectralSettings, whose: str) -> None:
    """Raise `UserError` unless `whose` spectral settings are the wanted ones."""
    if found != wanted:
        raise UserError(
            f"{whose} was made with {found}, but {wanted} is asked for: build it anew, or change the config."
        )


def create_store(folder: Path, settings: SpectralSettings) -> None:
    """Make `folder` a store with these settings, or check that it is one. Raises `UserError` when it has others."""
    if (folder / SETTINGS_FILE).exists():
        check_settings(read_settings(folder), settings, f"the store {folder}")
        return
    folder.mkdir(parents=True, exist_ok=True)  # here, for a file in its place is another mistake than a full disk
    with replacing(folder / SETTINGS_FILE) as partial:
        partial.write_text(json.dumps(asdict(settings), indent=2), encoding="utf-8")


def write_track(
    folder: Path,
    spectral: Spectral,
    waveforms: Mapping[str, Tensor],
    *,
    name: str,
    song: str,
    subset: str,
    bandwidth: float,
) -> None:
    """Write one track into the store `folder`, all of it or nothing.

    `waveforms` holds `[1 or 2 channels, samples]` for each part, at the store's sample rate; they are cut to the
    shortest.
    """
    parts = sorted(waveforms, key=PARTS.index)
    final, partial = folder / name, folder / (name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    samples = min(waveform.shape[-1] for waveform in waveforms.values())
    for part, waveform in waveforms.items():
        spectrogram = torch.view_as_real(spectral(waveform[:, :samples])).permute(2, 0, 1, 3)
        np.save(partial / f"{part}.npy", spectrogram.to(torch.float16).numpy())
    description = {
        "name": name,
        "song": song,
        "subset": subset,
        "parts": parts,
        "samples": samples,
        "frames": spectral.settings.frames(samples),
        "bandwidth": bandwidth,
        "level": round(level(waveforms[parts[0]]), 2),
    }
    (partial / TRACK_FILE).write_text(json.dumps(description, indent=2, ensure_ascii=False), encoding="utf-8")
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)


def level(waveform: Tensor) -> float:
    """Root mean square of a waveform of any shape, in dB of full scale; -100 for silence."""
    return float(10 * torch.log10(waveform.square().mean() + 1e-10))


def stored_bytes(settings: SpectralSettings, samples: int, channels: int) -> int:
    """Bytes that one part of `samples` samples takes in a store."""
    return settings.frames(samples) * channels * settings.bins * 4
