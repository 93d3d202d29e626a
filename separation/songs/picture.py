"""The stems of a song become small pictures of their spectrograms, in constant memory however long the song is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from io import BytesIO
from itertools import chain

import torch
from torch import Tensor

from separation.audio.decoders import AudioInfo
from separation.audio.mel import mel_filters

COLUMNS = 1024
"""How wide a picture is at most, in pixels; a song too short for them has fewer."""

BANDS = 96
"""How high a picture is: so many mel bands between these frequencies in hertz, the lowest at the bottom."""

LOWEST, HIGHEST = 40, 20_000

RANGE = 70
"""Decibels from black to white; white is the loudest spot of all stems, if that is louder than `FAINT`."""

FAINT = -60


def sketch(blocks: Iterable[Tensor], info: AudioInfo) -> Tensor:
    """The spectrogram of a signal that comes in blocks `[channels, n]`, as long together as `info` says.

    Gives `[bands, columns]`: the mean power over the channels and over a column's time, where a sine at full scale has
    a power of 1.
    """
    # Not the networks' STFT: it is never inverted, so it may take hops as long as its windows, and songs at any rate.
    size = max(16, 2 ** round(math.log2(info.sample_rate / 11)))  # 93 ms at 44.1 kHz
    hop = min(max(info.samples // (4 * COLUMNS), size // 8), size)
    columns = min(max(info.samples // hop, 1), COLUMNS)
    highest = min(HIGHEST, info.sample_rate / 2)
    filters = mel_filters(BANDS, size // 2 + 1, info.sample_rate, min(LOWEST, highest / 2), highest)
    window = torch.hann_window(size)
    filters = filters * 4 / (size * window.square().sum())
    sums, counts, frame = torch.zeros(BANDS, columns), torch.zeros(columns), 0
    margin = torch.zeros(info.channels, size // 2)  # a frame shows the time at its middle
    waiting = margin[:, :0]
    for block in chain([margin], blocks, [margin]):
        waiting = torch.cat([waiting, block], dim=-1)
        frames = 1 + (waiting.shape[-1] - size) // hop
        if frames < 1:
            continue
        spectrogram = torch.stft(waiting, size, hop, window=window, center=False, return_complex=True)
        power = filters @ (spectrogram.real.square() + spectrogram.imag.square()).mean(dim=0)
        column = (torch.arange(frame, frame + frames) * hop * columns // max(info.samples, 1)).clamp(max=columns - 1)
        sums.index_add_(1, column, power)
        counts.index_add_(0, column, torch.ones(frames))
        waiting, frame = waiting[:, frames * hop :], frame + frames
    return sums / counts.clamp(min=1)


def paint(sketches: Mapping[str, Tensor]) -> dict[str, bytes]:
    """The sketches of a song's stems as grey PNG pictures on one scale of brightness, low notes at the bottom."""
    from PIL import Image

    white = max(10 ** (FAINT / 10), *(float(power.max()) for power in sketches.values()))
    pictures = {}
    for stem, power in sketches.items():
        level = 1 + 10 * torch.log10((power / white).clamp(min=1e-20)) / RANGE
        pixels = (255 * level.clamp(0, 1)).round().to(torch.uint8).flip(0)
        with BytesIO() as file:
            Image.fromarray(pixels.numpy()).save(file, "PNG", optimize=True)
            pictures[stem] = file.getvalue()
    return pictures
