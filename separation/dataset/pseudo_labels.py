"""Songs that come without stems are labelled by networks: each stem as they hear it, where it is silent, and how sure.

The silence rule: where the estimate of a stem lies far below the mixture, the stem is silent, and the mixture itself is
a clean sum of the others, made by no network. Source: Luo and Yu, Music Source Separation with Band-split RNN, 2023.

Doubts: a network that learned from errors in decibels gives the share of a bin that it expects to be the stem's, so its
masks tell how wrong they expect to be. `benchmarks/doubts.py` measures how well they know.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor
from torch.nn.functional import pad

from separation.audio.io import read
from separation.audio.resample import resample
from separation.dataset.layouts import Track
from separation.dataset.store import STRETCH, runs
from separation.errors import UserError
from separation.inference.separator import Separator
from separation.inference.weights import find_weights
from separation.stems import MIXTURE

DEPTH = 27.0
"""Decibels that the estimate of a silent stem lies below the mixture, at least, if its teacher hears well."""
AUDIBLE = -50
"""Level of the mixture, in dB of full scale, below which nothing can be told."""
WINDOW = 0.5
"""Seconds that levels are taken over."""
SHORTEST = 4.0
"""Seconds that a stem must be silent for. The first and the last window of them are left out."""
LEAST_DOUBT = -60.0
"""Decibels: where nothing sounds there is nothing to doubt."""


@dataclass(frozen=True)
class Teacher:
    """Networks whose mean labels the `stems` of songs: weights files, or `fast` or `best` of the shipped ones.

    A stem is silent where its estimate lies `depth` decibels below the mixture. Of a network that learned without
    isolated stems, which leaves something everywhere, that is asked too much: it tells silence from 12 dB on.

    Raises `UserError` when they are no weights, or do not separate one of the stems.
    """

    weights: tuple[str, ...]
    stems: tuple[str, ...]
    depth: float = DEPTH

    def __post_init__(self):
        self.separator  # noqa: B018 (it is loaded, or refused)

    @cached_property
    def signature(self) -> list[str]:
        """What tells this teacher from others: what they have labelled is labelled again."""
        files = find_weights(self.weights, self.stems)
        hashes = [hashlib.sha256(file.read_bytes()).hexdigest()[:16] for file in files]
        return hashes if self.depth == DEPTH else [*hashes, f"{self.depth:g} dB"]

    @property
    def separator(self) -> Separator:
        """The networks, loaded once in every process."""
        return _loaded(self.weights, self.stems)


@lru_cache(maxsize=1)
def _loaded(weights: tuple[str, ...], stems: tuple[str, ...]) -> Separator:
    return Separator.load(weights, stems=stems)


@dataclass(frozen=True)
class LabelledTrack(Track):
    """A song of which there is the mixture alone: its stems are what a teacher makes of it."""

    teacher: Teacher

    @property
    def stems(self) -> tuple[str, ...]:
        return self.teacher.stems

    @cached_property
    def parts(self) -> dict[str, tuple[str, ...]]:
        return dict.fromkeys((MIXTURE, *self.stems), (MIXTURE,))

    def read_padded(
        self, parts: Sequence[str], sample_rate: int | None = None
    ) -> tuple[dict[str, Tensor], int, dict[str, float]]:
        """As `Track.read_padded`: stems `[2 channels, samples]` that are estimates."""
        file = self.files[MIXTURE]
        mixture, rate = read(file.path, track=file.track)
        if len(mixture) > 2:
            raise UserError(f"{file.path} has {len(mixture)} channels: mix it down to stereo.")
        target = sample_rate or rate
        mixture = resample(mixture, rate, target).expand(2, -1)
        waveforms = {MIXTURE: mixture} | self.teacher.separator(mixture, target)
        return {part: waveforms[part] for part in parts}, rate, {}


def label(tracks: Sequence[Track], teacher: Teacher) -> list[Track]:
    """The same songs; those for training that have a mixture and nothing else are labelled when they are read."""
    return [
        LabelledTrack(track.name, track.subset, track.files, teacher)
        if {*track.files} == {MIXTURE} and track.subset == "train"
        else track
        for track in tracks
    ]


def silent_spans(estimate: Tensor, mixture: Tensor, sample_rate: int, depth: float = DEPTH) -> list[tuple[int, int]]:
    """Where a stem is silent, as first samples and ends.

    Args:
        estimate: the stem, `[channels, samples]`.
        mixture: the song, of the same shape.
        sample_rate: in hertz.
        depth: how far the stem must lie below the song, in decibels.
    """
    window = round(WINDOW * sample_rate)
    below, level = _levels(estimate, window), _levels(mixture, window)
    silent = (below < level - depth) & (level > AUDIBLE)
    spans = runs(silent.numpy())
    return [((first + 1) * window, (end - 1) * window) for first, end in spans if end - first >= SHORTEST / WINDOW]


def doubts(stem: Tensor, song: Tensor) -> list[float]:
    """The error that the masks of a stem expect, in dB of the mixture, of each `STRETCH` of frames.

    A mask m takes m of a bin. If m is the share that is right on average, and a bin is all the stem's or not at all,
    the error to be expected is m (1 - m) of the bin's energy. Both are complex `[channels, bins, frames]`.
    """
    return levels_of(stem.abs() * (song - stem).abs(), song)


def levels_of(error: Tensor, song: Tensor) -> list[float]:
    """Energy of an error in dB of the song, of each `STRETCH` of frames: real and complex `[channels, bins, frames]`.

    Where nothing sounds it is `LEAST_DOUBT`, and never less.
    """

    def energies(values: Tensor) -> Tensor:
        frames = pad(values.sum(dim=(0, 1)), (0, -values.shape[-1] % STRETCH))
        return frames.unflatten(0, (-1, STRETCH)).sum(dim=1).clamp_min(1e-10)

    whole = energies(song.abs().square())
    levels = (10 * torch.log10(energies(error) / whole)).masked_fill(whole <= 1e-10, LEAST_DOUBT)
    return [round(level, 1) for level in levels.clamp_min(LEAST_DOUBT).tolist()]


def _levels(waveform: Tensor, window: int) -> Tensor:
    """Levels of whole windows, in dB of full scale: `[channels, samples]` to `[windows]`."""
    count = waveform.shape[-1] // window
    windows = waveform[:, : count * window].unflatten(-1, (count, window))
    return 10 * torch.log10(windows.square().mean(dim=(0, 2)) + 1e-12)
