"""A pass of a network over a song: several make test-time augmentation, of which a single pass is the plain case.

A network makes different errors when a song is played faster and thus higher, so the mean of several passes has a
smaller error than each: even a single network gains from it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from separation.audio.resample import Resampler
from separation.inference.stream import HIGHEST_RATE, SILENCE, Network, Queue, TargetsStream

SPEEDS = (1.0, 1.12, 1.06, 0.94, 0.89)
"""Speeds at which the song is played to the networks, in turn: faster ones first, as they take less time."""


class Pass:
    """One network over one song `[1 or 2 channels, n]`, for some of its targets.

    Args:
        network: the trained network.
        targets: the targets to output.
        sample_rate: of the song, in hertz.
        speed: speed at which the song is played to the network.
        chunk_frames: frames separated at a time; None for what suits the network.
        precision: of the network.
    """

    def __init__(
        self,
        network: Network,
        targets: Sequence[str],
        sample_rate: int,
        speed: float,
        chunk_frames: int | None,
        precision: str,
    ):
        self.targets = targets
        # Declaring a higher sample rate makes the network process the song sped up.
        self.speed, self.rate = speed, min(round(sample_rate * speed), HIGHEST_RATE)
        own_rate = network.settings.sample_rate
        self._inward, self._outward = (
            Resampler(self.rate, own_rate, 2),
            Resampler(own_rate, self.rate, 2 * len(targets)),
        )
        self._stream = TargetsStream(network, network.begin(targets, precision), network.chunk(chunk_frames))
        self.delay = self._stream.delay / own_rate + self._inward.delay() + self._outward.delay()
        self.waiting = Queue()  # output that is ready, all targets one after the other

    def push(self, block: np.ndarray | None, channels: int, missing: int) -> None:
        """Take a block, or None at the end of the song, of which `missing` samples have not been output yet."""
        if block is None:
            audible = self._inward.flush()
        else:
            block = np.where(abs(block) < SILENCE, np.float32(0), block)
            audible = self._inward.push(np.broadcast_to(block, (2, block.shape[1])))
        for piece in self._stream.push(audible, last=block is None):
            self._put(self._outward.push(piece.reshape(2 * len(piece), -1)), channels)
        if block is None:
            self._put(self._outward.flush(), channels)
            # Resampling there and back can lose a sample at the end.
            self._put(np.zeros((2 * len(self.targets), max(0, missing - len(self.waiting))), np.float32), channels)

    def _put(self, targets: np.ndarray, channels: int) -> None:
        if channels == 1:
            targets = targets.reshape(len(self.targets), 2, targets.shape[1]).mean(axis=1)
        self.waiting.put(targets)
