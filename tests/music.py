"""Made-up songs whose stems are as unlike as those of real ones, and stores of them."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from separation.audio.stft import Spectral, SpectralSettings
from separation.dataset.store import create_store, write_track
from separation.stems import ACCOMPANIMENT, MIXTURE, STEMS

TINY = SpectralSettings(sample_rate=8000, n_fft=256, hop=64)
"""An STFT that makes tests fast."""


def make_song(seed: int, seconds: float = 4.0, sample_rate: int = 44100) -> dict[str, Tensor]:
    """The mixture, the four stems and the accompaniment of a made-up song, each `[2 channels, samples]`."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    root = rng.uniform(100, 160)
    stems = {
        "vocals": _pan(_voice(rng, time, root), 0.5),
        "drums": _pan(_bursts(rng, time), rng.uniform(0.4, 0.6)),
        "bass": _pan(_line(rng, time, root / 2), 0.5),
        "other": _pan(_chords(rng, time, root), 0.2) + _pan(_chords(rng, time, root), 0.8),
    }
    stems = {stem: torch.from_numpy(stems[stem].astype(np.float32)) for stem in STEMS}
    accompaniment = stems["drums"] + stems["bass"] + stems["other"]
    return {MIXTURE: accompaniment + stems["vocals"], **stems, ACCOMPANIMENT: accompaniment}


def _voice(rng: np.random.Generator, time: np.ndarray, root: float) -> np.ndarray:
    """A tone of many harmonics with vibrato, in notes of half a second."""
    pitch = _notes(rng, time, 0.5, root * 2.0 ** (rng.choice([0, 2, 4, 5, 7, 9, 11], 99) / 12)) * 2
    rate = len(time) / (time[-1] + time[1])
    phase = 2 * np.pi * np.cumsum(pitch * (1 + 0.03 * np.sin(2 * np.pi * 5.5 * time))) / rate
    tone = sum(np.sin(k * phase) / k for k in range(1, 12) if k * pitch.max() < 0.45 * rate)
    return 0.2 * tone * np.sin(np.pi * (time % 0.5) / 0.5) ** 0.3


def _bursts(rng: np.random.Generator, time: np.ndarray) -> np.ndarray:
    """Noise that dies away, four times a second."""
    return 0.3 * rng.standard_normal(len(time)) * np.exp(-25 * (time % 0.25))


def _line(rng: np.random.Generator, time: np.ndarray, root: float) -> np.ndarray:
    """A low sine, in notes of a second."""
    return 0.25 * np.sin(2 * np.pi * _notes(rng, time, 1.0, root * 2.0 ** (rng.choice([0, 5, 7], 99) / 12)) * time)


def _chords(rng: np.random.Generator, time: np.ndarray, root: float) -> np.ndarray:
    """Three steady tones, in chords of a second."""
    chords = root * 4 * 2.0 ** (rng.choice([0, 5, 7, 9], 99) / 12)
    tones = [_notes(rng, time, 1.0, chords * interval) for interval in (1, 5 / 4, 3 / 2)]
    return 0.08 * sum(np.sin(2 * np.pi * tone * time + rng.uniform(0, 6)) for tone in tones)


def _notes(rng: np.random.Generator, time: np.ndarray, seconds: float, pitches: np.ndarray) -> np.ndarray:
    return pitches[(time / seconds).astype(int) % len(pitches)]


def _pan(signal: np.ndarray, right: float) -> np.ndarray:
    """`[samples]` to `[2 channels, samples]`; `right` is 0 for left, 0.5 for the middle and 1 for right."""
    return np.stack([math.cos(right * math.pi / 2) * signal, math.sin(right * math.pi / 2) * signal])


def add_track(
    store: Path,
    settings: SpectralSettings,
    name: str,
    waveforms: Mapping[str, Tensor],
    subset: str = "train",
    song: str | None = None,
    bandwidth: float | None = None,
    **options,
) -> None:
    """Write a track into a store, which is made if it is none yet; `options` are those of `write_track`."""
    create_store(store, settings)
    options |= {"name": name, "song": song or name, "subset": subset}
    write_track(store, Spectral(settings), waveforms, bandwidth=bandwidth or settings.sample_rate / 2, **options)


def make_store(
    store: Path,
    settings: SpectralSettings = TINY,
    train: int = 3,
    valid: int = 1,
    seconds: float = 2.0,
    parts: Sequence[str] = (MIXTURE, "vocals", ACCOMPANIMENT),
    compact: bool = False,
) -> Path:
    """A store of made-up songs, no two of them the same: `train-0`, `train-1`, ..., `valid-0`, ..."""
    names = [("train", f"train-{n}") for n in range(train)] + [("valid", f"valid-{n}") for n in range(valid)]
    for seed, (subset, name) in enumerate(names):
        song = make_song(seed, seconds, settings.sample_rate)
        add_track(store, settings, name, {part: song[part] for part in parts}, subset, compact=compact)
    return store


def cover_art(format: str = "JPEG", size: tuple[int, int] = (60, 40)) -> bytes:
    """The picture that a song has."""
    content = io.BytesIO()
    Image.new("RGB", size, "red").save(content, format)
    return content.getvalue()
