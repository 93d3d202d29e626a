"""Which places of a teacher's labels are used: all but those where its masks expect the largest error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from separation.dataset.signals import runs
from separation.dataset.store import STRETCH, StoredTrack
from separation.errors import UserError

Spans = tuple[tuple[int, int], ...]
"""Frames, from the first to before the last of each span."""


def sure_places(
    tracks: Sequence[StoredTrack], targets: Sequence[str], doubted: float, frames: int
) -> dict[Path, Spans]:
    """By the folder of each track, where crops of so many `frames` may be taken from it; none at all is possible.

    Of all places that hold a crop, the share `doubted` is left out where the errors that are expected of `targets`
    make up the most of the mixture. Raises `UserError` when a track has no doubts.
    """
    if not doubted:
        return {track.folder: ((0, track.frames),) for track in tracks}
    length = math.ceil(frames / STRETCH)  # of a place, in stretches
    levels = {track.folder: _levels(track, targets, length) for track in tracks}
    threshold = np.quantile(np.concatenate([*levels.values()]), 1 - doubted) if levels else 0.0
    return {
        track.folder: tuple(
            (min(first * STRETCH, track.frames - frames), min((end - 1 + length) * STRETCH, track.frames))
            for first, end in runs(levels[track.folder] <= threshold)
        )
        for track in tracks
    }


def _levels(track: StoredTrack, targets: Sequence[str], length: int) -> np.ndarray:
    """The share of the energy that is expected to be wrong, of places that begin at each stretch."""
    if not {*targets} <= {*track.doubt}:
        raise UserError(
            f"data.doubted needs the doubts of the teacher, which {track.folder} has not: run dataset.py --label again."
        )
    wrong = sum(10 ** (np.array(track.doubt[target]) / 10) for target in targets)
    length = min(length, len(wrong))
    return np.convolve(wrong, np.full(length, 1 / length), "valid")
