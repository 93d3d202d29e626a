"""A song is heard several times at different speeds: each stem is the mean of what was heard, and all sum to the song.

A network errs differently when a song is played faster, and higher: so one alone gains, too, from hearing it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from fractions import Fraction
from itertools import cycle, tee
from math import gcd, lcm
from typing import Any, NoReturn

import numpy as np
from torch import Tensor

from separation.errors import UserError
from separation.inference.separator import Separator
from separation.inference.sources import check_stems, masked_targets, names, with_rests
from separation.inference.stream import Queue
from separation.inference.waveforms import HIGHEST_RATE, as_waveform, check_rate, check_waveform

SPEEDS = (1.0, 1.12, 1.06, 0.94, 0.89)
"""How fast the song is played to the networks, in turn: faster first, which takes less time."""


class Ensemble(Separator):
    """A `Separator` of several networks, or of one several times, whose mean errs less than each of them.

    A network counts for the targets that it has. The last source of the network with the most sources is what the means
    of the others leave of the song. Networks that none of the stems needs are left out. What is heard at another speed
    does not begin at the same samples everywhere, so a part of a song gives nearly what it is within the whole.

    Args:
        members: separators on one device, who hear the song at the `speeds` in turn.
        stems: name or names of the stems to give, by default the sources of the network with the most.
        speeds: how fast the song is played to them.

    Raises:
        UserError: the networks have no such stem.
    """

    def __init__(
        self,
        members: Sequence[Separator],
        stems: str | Sequence[str] | None = None,
        speeds: Sequence[float] = SPEEDS,
    ):
        widest = max(members, key=lambda member: len(member.network.sources))
        self.network, self.device, self.dtype = widest.network, widest.device, widest.dtype
        self.stems = names(stems) or self.network.sources
        check_stems(self.network, self.stems)
        self.masked = masked_targets(self.network, self.stems)
        shared = [[target for target in self.masked if target in member.network.targets] for member in members]
        self.speeds = speeds
        self.members = [restricted(*part) for part in zip(members, shared, strict=True) if part[1]]

    @property
    def grid(self) -> Fraction:
        """As `Separator.grid`: a time that is whole strides of every network."""
        grids = [member.grid for member in self.members]
        return Fraction(lcm(*(grid.numerator for grid in grids)), gcd(*(grid.denominator for grid in grids)))

    def live(self, sample_rate: int, chunk_frames: int = 1) -> NoReturn:
        """Raises `UserError`: what is heard at several speeds is not ready at one time."""
        raise UserError("sound that is still being heard takes one network: choose `fast`, `live` or one weights file.")

    def stream(self, blocks: Iterable[Tensor | Any], sample_rate: int | None = None) -> Iterator[dict[str, Tensor]]:
        """As `Separator.stream`: the stems of a song that comes in blocks `[1 or 2 channels, n]`, as blocks by name."""
        rate = self.network.settings.sample_rate if sample_rate is None else check_rate(sample_rate)
        song = Queue()

        def heard() -> Iterator[Tensor]:
            for block in map(as_waveform, blocks):
                check_waveform(block)
                song.put(block.numpy())
                yield block

        # Who is told that a second has more samples than it has hears the song faster.
        parts = zip(self.members, tee(heard(), len(self.members)), cycle(self.speeds), strict=False)
        streams = [member.stream(part, min(round(rate * speed), HIGHEST_RATE)) for member, part, speed in parts]
        waiting = [{target: Queue() for target in member.stems} for member in self.members]
        running = True
        while running:
            running = False
            for stream, queues in zip(streams, waiting, strict=True):
                if piece := next(stream, None):
                    running = True
                    for target, signal in piece.items():
                        queues[target].put(signal.numpy())
            if ready := min(len(next(iter(queues.values()))) for queues in waiting):
                taken = [{target: queue.take(ready) for target, queue in queues.items()} for queues in waiting]
                means = {
                    target: np.mean([targets[target] for targets in taken if target in targets], axis=0)
                    for target in self.masked
                }
                stems = with_rests(self.network, means, song.take(ready))
                yield {stem: self.give(stems[stem]) for stem in self.stems}


def restricted(separator: Separator, targets: Sequence[str]) -> Separator:
    """The same separator, with these targets as its stems."""
    separator = copy(separator)
    separator.stems, separator.masked = tuple(targets), masked_targets(separator.network, targets)
    return separator
