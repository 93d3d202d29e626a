"""Several networks take a song apart together: each stem is the mean of what they say, and all sum to the song."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from fractions import Fraction
from itertools import cycle, tee
from math import gcd, lcm
from typing import Any

import numpy as np
import torch
from torch import Tensor

from separation.network.separator import Separator
from separation.network.sources import check_stems, masked_targets, names, with_rests
from separation.network.stream import Queue
from separation.network.waveforms import as_waveform, check_rate, check_waveform

COPIES = ((Fraction(0), False), (Fraction(1, 2), True))
"""The copies of a song that networks hear in turn: shifted by so many strides, and with channels swapped or not."""


class Ensemble(Separator):
    """A `Separator` of several networks, whose mean errs less than each of them.

    A network counts for the targets that it has. The last source of the network with the most sources is what the means
    of the others leave of the song. Each hears another copy of the song, so one network given twice helps as well.
    Networks that none of the stems needs are left out.

    Args:
        members: separators, each with a network of its own, on one device.
        stems: name or names of the stems to give, by default the sources of the network with the most.

    Raises:
        UserError: the networks have no such stem.
    """

    def __init__(self, members: Sequence[Separator], stems: str | Sequence[str] | None = None):
        widest = max(members, key=lambda member: len(member.network.sources))
        self.network, self.device, self.dtype = widest.network, widest.device, widest.dtype
        self.stems = names(stems) or self.network.sources
        check_stems(self.network, self.stems)
        self.masked = masked_targets(self.network, self.stems)
        shared = [[target for target in self.masked if target in member.network.targets] for member in members]
        self.members = [restricted(*part) for part in zip(members, shared, strict=True) if part[1]]

    @property
    def grid(self) -> Fraction:
        """As `Separator.grid`: a time that is whole strides of every network."""
        grids = [member.grid for member in self.members]
        return Fraction(lcm(*(grid.numerator for grid in grids)), gcd(*(grid.denominator for grid in grids)))

    def stream(self, blocks: Iterable[Tensor | Any], sample_rate: int | None = None) -> Iterator[dict[str, Tensor]]:
        """As `Separator.stream`: the stems of a song that comes in blocks `[1 or 2 channels, n]`, as blocks by name."""
        rate = self.network.settings.sample_rate if sample_rate is None else check_rate(sample_rate)
        song = Queue()

        def heard() -> Iterator[Tensor]:
            for block in map(as_waveform, blocks):
                check_waveform(block)
                song.put(block.numpy())
                yield block

        parts = zip(self.members, tee(heard(), len(self.members)), cycle(COPIES), strict=False)
        streams = [hear_copy(member, part, rate, *shifts) for member, part, shifts in parts]
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


def hear_copy(
    separator: Separator, blocks: Iterable[Tensor], sample_rate: int, shift: Fraction, swap: bool
) -> Iterator[dict[str, Tensor]]:
    """The stems of a copy that begins `shift` strides later and has its channels swapped; undone in the stems."""
    late = round(shift * separator.grid * sample_rate)
    song = (block.flip(0) if swap else block for block in blocks)
    for piece in separator.stream(led_in(song, late), sample_rate):
        early = min(late, next(iter(piece.values())).shape[-1])
        late -= early
        yield {stem: (signal.flip(0) if swap else signal)[:, early:] for stem, signal in piece.items()}


def led_in(blocks: Iterable[Tensor], samples: int) -> Iterator[Tensor]:
    """A song in blocks `[channels, n]`, with so many `samples` of it, mirrored, before its beginning."""
    blocks, held = iter(blocks), 0
    beginning = []
    while held < samples and (block := next(blocks, None)) is not None:
        beginning.append(block)
        held += block.shape[-1]
    if held:
        first = torch.cat(beginning, dim=-1).numpy()
        yield torch.from_numpy(np.pad(first, ((0, 0), (samples, 0)), mode="symmetric"))
    yield from blocks
