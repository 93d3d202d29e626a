"""Pseudo-labels for songs without stems: each stem as a network estimates it, and where it is silent.

Where the estimate of a stem lies far below the mixture, the stem counts as silent, and the mixture itself is a clean
sum of the others, untouched by any network: Luo and Yu, "Music Source Separation with Band-split RNN", 2023.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from separation.dataset.layouts import Track
from separation.dataset.store import runs
from separation.inference.separator import Separator, Stems, join
from separation.inference.weights import find_weights
from separation.jobs import report_share
from separation.runtime import prepare_torch
from separation.stems import MIXTURE

DEPTH = 27.0
"""Decibels below the mixture at which a good network's estimate counts as silence."""
AUDIBLE = -50
"""Level of the mixture, in dB of full scale, below which no stem is judged."""
WINDOW = 0.5
"""Seconds over which levels are measured."""
SHORTEST = 4.0
"""Shortest silence of a stem in seconds, before its first and last window are left out."""
BLOCK = 1 << 18
"""Samples between progress reports."""


@dataclass(frozen=True)
class Teacher:
    """Networks whose averaged estimates label the `stems` of songs: weights files, or the shipped `fast` or `best`.

    A stem counts as silent where its estimate lies `depth` decibels below the mixture. A network trained without
    isolated stems leaves a residue everywhere and needs 12 dB. `network` names the class of a network from outside this
    package.

    Raises `UserError` when the weights cannot be loaded or do not separate one of the stems.
    """

    weights: tuple[str, ...]
    stems: tuple[str, ...]
    depth: float = DEPTH
    network: str | None = None

    def __post_init__(self) -> None:
        self.separator  # noqa: B018 (loads the weights, or raises)

    @cached_property
    def signature(self) -> list[str]:
        """Identifies the teacher: songs labelled by another teacher are labelled again."""
        # Both engines give the same labels, so a store built by one is not rebuilt by the other.
        engine = "auto" if any(name.endswith(".onnx") for name in self.weights) else "torch"
        files = find_weights(self.weights, self.stems, engine)
        hashes = [hashlib.sha256(file.read_bytes()).hexdigest()[:16] for file in files]
        return hashes if self.depth == DEPTH else [*hashes, f"{self.depth:g} dB"]

    @property
    def separator(self) -> Separator:
        """The networks, loaded once per process."""
        return _load(self.weights, self.stems, self.network)


@lru_cache(maxsize=1)
def _load(weights: tuple[str, ...], stems: tuple[str, ...], network: str | None) -> Separator:
    prepare_torch()
    return Separator.load(weights, stems=stems, network=network)


@dataclass(frozen=True)
class LabelledTrack(Track):
    """A song that has only a mixture, with a teacher's estimates as its stems."""

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
        """As `Track.read_padded`, but stems `[2 channels, samples]` are estimates. Reports its progress."""
        read, rate, silence = Track(self.name, self.subset, self.files).read_padded([MIXTURE], sample_rate)
        mixture = read[MIXTURE].expand(2, -1)

        def pieces() -> Iterator[Stems]:
            done = 0
            for piece in self.teacher.separator.stream(mixture.split(BLOCK, dim=-1), sample_rate or rate):
                yield piece
                done += next(iter(piece.values())).shape[-1]
                report_share(done / mixture.shape[-1])

        stems = {stem: torch.from_numpy(signal) for stem, signal in join(pieces(), self.stems, 2).items()}
        return {part: mixture if part == MIXTURE else stems[part] for part in parts}, rate, silence


def label(tracks: Sequence[Track], teacher: Teacher) -> list[Track]:
    """The same songs, with training songs that have only a mixture set to be labelled when they are read."""
    return [
        LabelledTrack(track.name, track.subset, track.files, teacher)
        if {*track.files} == {MIXTURE} and track.subset == "train"
        else track
        for track in tracks
    ]


def silent_spans(estimate: Tensor, mixture: Tensor, sample_rate: int, depth: float = DEPTH) -> list[tuple[int, int]]:
    """Spans of samples, ends excluded, where a stem is silent.

    Args:
        estimate: the stem, `[channels, samples]`.
        mixture: the song, of the same shape.
        sample_rate: in hertz.
        depth: decibels by which the stem must lie below the song.
    """
    window = round(WINDOW * sample_rate)
    below, level = _levels(estimate, window), _levels(mixture, window)
    silent = (below < level - depth) & (level > AUDIBLE)
    spans = runs(silent.numpy())
    return [((first + 1) * window, (end - 1) * window) for first, end in spans if end - first >= SHORTEST / WINDOW]


def _levels(waveform: Tensor, window: int) -> Tensor:
    """Level of each complete window, in dB of full scale: `[channels, samples]` to `[windows]`."""
    count = waveform.shape[-1] // window
    windows = waveform[:, : count * window].unflatten(-1, (count, window))
    return 10 * torch.log10(windows.square().mean(dim=(0, 2)) + 1e-12)
