"""What the tests of audio files share: sounds whose place can be measured, and files that FFmpeg encodes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from separation.audio import io
from separation.audio.io import AudioReader, write
from separation.dataset.layouts import provide_ffmpeg

RATE = 44100

PICTURE = ("-f", "lavfi", "-i", "testsrc=d=8:s=64x48:r=25")
"""FFmpeg's options for a picture of 8 seconds."""


def noise(seconds: float = 8.0, channels: int = 2, seed: int = 0) -> Tensor:
    """`[channels, samples]` of noise below 5 kHz under a slow swell: every delay and every gap can be measured."""
    samples = round(seconds * RATE)
    spectrum = torch.fft.rfft(torch.randn(channels, samples, generator=torch.Generator().manual_seed(seed)))
    spectrum[:, round(5000 * seconds) :] = 0
    return 0.5 * torch.fft.irfft(spectrum, samples) * torch.sin(torch.linspace(0.3, 2.8, samples))


def read(path: Path, sample_rate: int | None = None, track: int | None = None) -> tuple[Tensor, int]:
    """As `separation.audio.io.read`, as a tensor."""
    waveform, rate = io.read(path, sample_rate, track)
    return torch.from_numpy(waveform), rate


def delay(copy: Tensor, song: Tensor) -> int:
    """Samples by which `copy` comes late, where its correlation with `song` is largest; both `[channels, samples]`."""
    size = copy.shape[-1] + song.shape[-1]
    spectrum = torch.fft.rfft(copy.sum(0), size) * torch.fft.rfft(song.sum(0), size).conj()
    peak = int(torch.fft.irfft(spectrum, size).argmax())
    return peak if peak < copy.shape[-1] else peak - size


def decode(path: Path, track: int | None = None) -> tuple[Tensor, list[str]]:
    """The waveform of a file, `[channels, samples]`, and the remarks about it."""
    with AudioReader(path, track) as reader:
        return torch.from_numpy(np.concatenate(list(reader), axis=-1)), reader.remarks


def ffmpeg(*arguments: str | Path) -> bytes:
    """Run FFmpeg's program: its standard output."""
    provide_ffmpeg()
    command = ["ffmpeg", "-v", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True).stdout


def ffprobe(path: Path) -> dict[str, Any]:
    """What FFmpeg's program says of a file."""
    provide_ffmpeg()
    command = ["ffprobe", "-v", "error", "-show_streams", "-show_format", "-show_chapters", "-of", "json", str(path)]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def encode(path: Path, song: Tensor, *options: str | Path, before: tuple[str, ...] = ()) -> Path:
    """Encode a song with FFmpeg's program, with `options` for the output, and `before` those of the other inputs."""
    plain = path.with_name("plain.wav")
    write(plain, song, RATE, bits="32f")
    ffmpeg(*before, "-i", plain, *options, path)
    plain.unlink()
    return path


def decoded_by_ffmpeg(path: Path, track: int = 0) -> Tensor:
    """What FFmpeg's program decodes, in stereo `[2, samples]`."""
    content = ffmpeg("-i", path, "-map", f"0:a:{track}", "-f", "f32le", "-ac", "2", "-")
    return torch.from_numpy(np.frombuffer(content, dtype=np.float32).reshape(-1, 2).T.copy())
