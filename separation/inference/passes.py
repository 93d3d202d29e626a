"""Test-time augmentation: a song is separated several times at different speeds, and each stem is the mean.

A network errs differently when a song is played faster, and higher: so even one network alone gains from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import cycle
from math import gcd, lcm

import numpy as np

from separation.inference.stream import (
    HIGHEST_RATE,
    Network,
    NetworkSong,
    Queue,
    Song,
    StreamSeparator,
    check_stems,
    grid_of,
    masked_targets,
    names,
    surroundings_of,
)

SPEEDS = (1.0, 1.12, 1.06, 0.94, 0.89)
"""How fast the song is played to the networks, in turn: faster first, which takes less time."""


class Passes(StreamSeparator):
    """A separator that runs several networks, or one several times, whose mean errs less than each of them.

    A network counts for the targets that it has. The last source of the network with the most sources is what the means
    of the others leave of the song. Networks that none of the stems needs are left out. What is played at another speed
    does not begin at the same samples everywhere, so a part of a song gives nearly what it is within the whole.

    Args:
        networks: trained networks, each as often as it is to be run.
        stems: name or names of the stems to give, by default the sources of the network with the most.
        speeds: how fast the song is played to the networks, in turn.
        chunk_frames, precision: as of `Separator`.

    Raises:
        UserError: the networks have no such stem.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        stems: str | Sequence[str] | None = None,
        speeds: Sequence[float] = SPEEDS,
        chunk_frames: int | None = None,
        precision: str = "auto",
    ):
        self.network: Network = max(networks, key=lambda network: len(network.sources))
        self.settings, self.chunk_frames, self.precision = self.network.settings, chunk_frames, precision
        self.stems = names(stems) or self.network.sources
        check_stems(self.network, self.stems)
        self.masked = masked_targets(self.network, self.stems)
        shared = [tuple(target for target in self.masked if target in network.targets) for network in networks]
        passes = zip(networks, cycle(speeds), shared, strict=False)
        self.passes = [(network, speed, targets) for network, speed, targets in passes if targets]

    @property
    def grid(self) -> Fraction:
        """A time that is whole strides of every network."""
        grids = [grid_of(network) for network, _, _ in self.passes]
        return Fraction(lcm(*(grid.numerator for grid in grids)), gcd(*(grid.denominator for grid in grids)))

    @property
    def surroundings(self) -> float:
        return max(speed * surroundings_of(network) for network, speed, _ in self.passes)

    def open(self, sample_rate: int, live: bool = False) -> PassesSong:
        return PassesSong(self, sample_rate, live)


class PassesSong(Song):
    """A song that several passes separate side by side: each gets every block when it comes, so none runs ahead."""

    def __init__(self, separator: Passes, sample_rate: int, live: bool):
        super().__init__(separator.network, separator.stems, sample_rate)
        self.masked = separator.masked
        self.passes = []
        for network, speed, targets in separator.passes:
            # Declaring a higher sample rate makes the network process the song sped up.
            rate = min(round(sample_rate * speed), HIGHEST_RATE)
            chunk = network.chunk(1 if live else separator.chunk_frames)
            step = network.begin(targets, separator.precision)
            song = NetworkSong(network, targets, targets, rate, step, chunk)
            self.passes.append((song, {target: Queue() for target in targets}))

    @property
    def latency(self) -> float:
        return max(song.latency * song.sample_rate for song, _ in self.passes) / self.sample_rate

    @property
    def waiting(self) -> int:
        """Samples of all stems that wait for other passes."""
        return sum(len(queue) for _, queues in self.passes for queue in queues.values())

    def separate(self, block: np.ndarray | None) -> Iterator[dict[str, np.ndarray]]:
        running = [(song.rest() if block is None else song.pieces(block), queues) for song, queues in self.passes]
        while running:
            # The pass furthest behind goes on, until it has nothing more to give.
            index = min(range(len(running)), key=lambda number: len(next(iter(running[number][1].values()))))
            pieces, queues = running[index]
            piece = next(pieces, None)
            if not piece:
                del running[index]
                continue
            for target, signal in piece.items():
                queues[target].put(signal)
            if ready := min(len(queue) for _, queues in self.passes for queue in queues.values()):
                taken = [{target: queue.take(ready) for target, queue in queues.items()} for _, queues in self.passes]
                yield {
                    target: np.mean([targets[target] for targets in taken if target in targets], axis=0)
                    for target in self.masked
                }
