"""What a stored track holds, as signals to crop from: its mixture, a target of it, or the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from separation.dataset.store import StoredTrack
from separation.stems import MIXTURE, rest_parts


@dataclass(frozen=True)
class Signal:
    """Something that a track holds: the sum of its parts, each with its sign, times a gain."""

    track: StoredTrack
    parts: tuple[tuple[str, int], ...]
    gain: float = 1.0
    spans: tuple[tuple[int, int], ...] = ()
    """The frames, from the first to before the last, that crops may be taken from; none: all."""

    def crop(self, start: int, frames: int, bins: int) -> Tensor:
        """Complex `[2 channels, bins, frames]` from frame `start`."""
        return self.gain * sum(sign * self.track.crop(part, start, frames, bins) for part, sign in self.parts)


def runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """The first of true flags in a row, and the one after the last.

    >>> runs(np.array([True, True, False, True]))
    [(0, 2), (3, 4)]
    """
    edges = np.diff(flags.astype(int), prepend=0, append=0)
    return list(zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True))


def silence_of(track: StoredTrack, targets: Sequence[str], shortest: int) -> Signal | None:
    """The song where its teacher heard none of `targets` for so many frames; None when there is no such place."""
    spans: list[tuple[int, int]] = [(0, track.frames)]
    for target in targets:
        silent = [(first, end) for first, end in track.silent.get(target, ())]
        spans = [(max(a, c), min(b, d)) for a, b in spans for c, d in silent]
    spans = [(first, end) for first, end in spans if end - first >= shortest]
    return Signal(track, ((MIXTURE, 1),), spans=tuple(spans)) if spans and MIXTURE in track.parts else None


def mixture_of(track: StoredTrack) -> Signal | None:
    """The whole song; None when the track is a lone stem or a lone accompaniment."""
    return Signal(track, ((MIXTURE, 1),)) if MIXTURE in track.parts else None


def target_of(track: StoredTrack, target: str) -> Signal | None:
    """The isolated target; None when the track has none."""
    return Signal(track, ((target, 1),)) if target in track.parts else None


def shares_of(track: StoredTrack, targets: Sequence[str]) -> list[Signal]:
    """What a whole song is shared out to: its targets, in their order, and its rest if there is one."""
    signals = [*(target_of(track, target) for target in targets), rest_of(track, targets)]
    return [signal for signal in signals if signal]


def rest_of(track: StoredTrack, targets: Sequence[str]) -> Signal | None:
    """The song without `targets`; None when nobody can tell."""
    parts = rest_parts(track.parts, targets)
    return Signal(track, tuple(parts.items())) if parts else None
