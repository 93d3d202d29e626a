"""Weights learn from some songs what their convolutions must hold, so that these may be computed in 8-bit integers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor

from separation.audio.io import read
from separation.inference.checkpoint import load_weights, save_weights
from separation.inference.masking import MaskingNetwork
from separation.inference.ranges import measure_ranges
from separation.runtime import Progress
from separation.songs.find import Song, find_songs

SECONDS = 10
"""Of a song at a time: more would take more memory."""


def calibrate(path: Path, inputs: Sequence[str]) -> None:
    """Measure the ranges of the weights in `path` on songs, and write them there. Raises `UserError` as both may."""
    weights, (songs, _) = load_weights(path), find_songs(inputs)
    measure_ranges(weights.network, _spectrograms(weights.network, songs))
    save_weights(path, weights.network, weights.settings, weights.provenance, weights.licence)


def _spectrograms(network: MaskingNetwork, songs: Sequence[Song]) -> Iterator[Tensor]:
    rate = network.settings.sample_rate
    with Progress(len(songs)) as progress:
        for song in songs:
            waveform, _ = read(song.file.path, rate, song.file.stream)
            for piece in waveform.expand(2, -1).split(SECONDS * rate, dim=-1):
                yield network.spectral(piece)[None]
            progress.done()
