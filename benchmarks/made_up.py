"""Synthetic music for benchmarks: a few songs of noise and tones, a store of them, and a small training run."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import soundfile
import torch
import yaml
from torch import Tensor

from separation.audio.stft import Spectral, SpectralSettings
from separation.dataset.store import create_store, write_track
from separation.stems import STEMS

SMALL = SpectralSettings(sample_rate=8000, n_fft=256, hop=64)


def make_song(seed: int, seconds: float = 1.0, sample_rate: int = 8000) -> dict[str, Tensor]:
    """The four stems `[2 channels, samples]` of a song; every seed gives different ones."""
    generator = torch.Generator().manual_seed(seed)
    samples = round(seconds * sample_rate)
    noise = 0.1 * torch.randn(len(STEMS), 2, samples, generator=generator)
    slow = torch.sin(torch.arange(samples) * torch.arange(1, len(STEMS) + 1)[:, None] / sample_rate * 6.0)
    return dict(zip(STEMS, noise * slow[:, None], strict=True))


def write_mixture(file: Path | BinaryIO, seed: int, seconds: float = 1.0, sample_rate: int = 44100) -> None:
    """Write a song, all stems in one, as wav."""
    mixture = sum(make_song(seed, seconds, sample_rate).values())
    soundfile.write(file, mixture.T.numpy(), sample_rate, format="WAV")


def write_songs(root: Path, count: int, sample_rate: int = 44100) -> Path:
    """Write a plain folder of songs, `root/<song>/<stem>.wav`."""
    for seed in range(count):
        (root / f"song {seed}").mkdir(parents=True)
        for stem, waveform in make_song(seed, 1.0, sample_rate).items():
            soundfile.write(root / f"song {seed}" / f"{stem}.wav", waveform.T.numpy(), sample_rate)
    return root


def make_store(folder: Path, train: int = 2, valid: int = 1) -> Path:
    """Build a store of songs with vocals."""
    create_store(folder, SMALL)
    for number in range(train + valid):
        song, subset = make_song(number, 2.0), "train" if number < train else "valid"
        rest = song["drums"] + song["bass"] + song["other"]
        parts = {"mixture": song["vocals"] + rest, "vocals": song["vocals"], "accompaniment": rest}
        name = f"{subset} {number}"
        write_track(folder, Spectral(SMALL), parts, name=name, song=name, subset=subset, bandwidth=4000.0)
    return folder


def write_config(path: Path, store: Path, **schedule: object) -> Path:
    """Write the config of a run on such a store that takes seconds, with losses of every kind."""
    settings = {
        "spectral": {"sample_rate": SMALL.sample_rate, "n_fft": SMALL.n_fft, "hop": SMALL.hop},
        "data": {
            "stores": {str(store): 1.0},
            "crop_frames": 16,
            "batch_size": 2,
            "unlabelled_batch_size": 2,
            "workers": 0,
        },
        "generator": {"band_layout": [[32, 2], [96, 8]], "widths": [6, 8]},
        "discriminator": {"widths": [4, 8], "scales": 2},
        "losses": {"identity": 1.0, "exchange": 1.0, "adversarial_rest": 1.0},
        "schedule": {
            "steps": 2,
            "warmup": 0,
            "precision": "fp32",
            "average": 0.9,
            "temperatures": [1.0, 2.0],
            **schedule,
        },
    }
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path
