"""Small spectrogram pictures of a song's stems, drawn in constant memory and without torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from io import BytesIO
from itertools import chain

import numpy as np
from PIL import Image

from separation.audio.decoders import AudioInfo
from separation.audio.stft import mel_filters

COLUMNS = 1024
"""Width of a picture in pixels; songs too short for that many columns get fewer."""

BANDS, LOWEST, HIGHEST = 96, 40, 20_000
"""Height of a picture: the number of mel bands, lowest at the bottom, and the frequencies that they span, in hertz."""

RANGE = 70
"""Decibels from black to white. White is the loudest spot of all stems, or `FAINT` if that is louder."""

FAINT = -60


def sketch(blocks: Iterable[np.ndarray], info: AudioInfo) -> np.ndarray:
    """The mel spectrogram `[bands, columns]` of a signal that arrives in blocks `[channels, n]`.

    A value is the mean power over the channels and the duration of a column; a full-scale sine has a power of 1. `info`
    gives the total length.
    """
    # Not the networks' STFT: it is never inverted, so the hop may be as long as the window, at any sample rate.
    size = max(16, 2 ** round(math.log2(info.sample_rate / 11)))  # 93 ms at 44.1 kHz
    hop = min(max(info.samples // (4 * COLUMNS), size // 8), size)
    columns = min(max(info.samples // hop, 1), COLUMNS)
    highest = min(HIGHEST, info.sample_rate / 2)
    filters = mel_filters(BANDS, size // 2 + 1, info.sample_rate, min(LOWEST, highest / 2), highest)
    window = np.hanning(size + 1)[:-1].astype(np.float32)
    filters *= 4 / (size * np.square(window).sum())
    sums, counts, frame = np.zeros((columns, BANDS)), np.zeros(columns), 0
    margin = np.zeros((info.channels, size // 2), np.float32)  # a frame shows the time at its centre
    pending = margin[:, :0]
    for block in chain([margin], blocks, [margin]):
        pending = np.concatenate([pending, block], axis=1)
        frames = 1 + (pending.shape[1] - size) // hop
        if frames < 1:
            continue
        framed = np.lib.stride_tricks.sliding_window_view(pending, size, axis=1)[:, ::hop] * window
        power = np.square(np.abs(np.fft.rfft(framed))).mean(axis=0) @ filters.T
        column = np.minimum((frame + np.arange(frames)) * hop * columns // max(info.samples, 1), columns - 1)
        np.add.at(sums, column, power)
        np.add.at(counts, column, 1)
        pending, frame = pending[:, frames * hop :], frame + frames
    return sums.T / np.maximum(counts, 1)


def paint(sketches: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """The sketches of a song's stems as greyscale PNGs on one brightness scale, low frequencies at the bottom."""
    white = max(10 ** (FAINT / 10), *(float(power.max()) for power in sketches.values()))
    pictures = {}
    for stem, power in sketches.items():
        level = 1 + 10 * np.log10(np.maximum(power / white, 1e-20)) / RANGE
        pixels = np.rint(255 * level.clip(0, 1)).astype(np.uint8)[::-1]
        with BytesIO() as file:
            Image.fromarray(pixels).save(file, "PNG", optimize=True)
            pictures[stem] = file.getvalue()
    return pictures
