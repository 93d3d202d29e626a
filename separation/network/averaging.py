"""Better stems for more time: the mean of what separators make of copies of a song."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import cycle, tee
from math import gcd, lcm

import torch
from torch import Tensor

from separation.errors import UserError
from separation.network.separator import Separator
from separation.network.stream import Queue

COPIES = ((0, False), (1 / 2, True))
"""The copies of a song: how far each is shifted, in strides of the network, and whether its channels are swapped."""


class AveragingSeparator:
    """Gives the mean of the stems that separators make of copies of a song, shifted and with the channels swapped.

    Each copy goes to the next separator, or all to the one. These err in part independently, and less in the mean. The
    stems sum to the song as those of the separators do.

    Raises:
        UserError: the separators do not give the same stems.
    """

    def __init__(self, separators: Sequence[Separator], copies: Sequence[tuple[float, bool]] = COPIES):
        self.separators, self.copies = separators, copies
        self.stems, self.device = separators[0].stems, separators[0].device
        if any(separator.stems != self.stems for separator in separators):
            raise UserError(f"the weights do not all give {', '.join(self.stems)}: name the stems.")

    def stream(self, blocks: Iterable[Tensor], sample_rate: int) -> Iterator[dict[str, Tensor]]:
        """As `Separator.stream`: stems, as blocks by name, of a song that comes in blocks `[1 or 2 channels, n]`."""
        songs = tee(blocks, len(self.copies))
        streams = [
            hear_copy(separator, song, sample_rate, shift, swap)
            for song, separator, (shift, swap) in zip(songs, cycle(self.separators), self.copies, strict=False)
        ]
        queues = [{stem: Queue() for stem in self.stems} for _ in streams]
        running = True
        while running:
            running = False
            for stream, waiting in zip(streams, queues, strict=True):
                if piece := next(stream, None):
                    running = True
                    for stem, waveform in piece.items():
                        waiting[stem].put(waveform)
            if ready := min(len(waiting[self.stems[0]]) for waiting in queues):
                taken = {stem: [waiting[stem].take(ready) for waiting in queues] for stem in self.stems}
                yield {stem: torch.stack(copies).mean(dim=0) for stem, copies in taken.items()}

    @property
    def grid(self) -> Fraction:
        """As `Separator.grid`."""
        grids = [separator.grid for separator in self.separators]
        return Fraction(lcm(*(grid.numerator for grid in grids)), gcd(*(grid.denominator for grid in grids)))


def hear_copy(
    separator: Separator, blocks: Iterable[Tensor], sample_rate: int, shift: float, swap: bool
) -> Iterator[dict[str, Tensor]]:
    """The stems of a copy that begins `shift` strides later and has its channels swapped; undone in the stems."""
    late = round(shift * separator.grid * sample_rate)

    def copy() -> Iterator[Tensor]:
        silence = late
        for block in blocks:
            if silence:
                yield block.new_zeros(len(block), silence)
                silence = 0
            yield block.flip(0) if swap else block

    for piece in separator.stream(copy(), sample_rate):
        early = min(late, next(iter(piece.values())).shape[-1])
        late -= early
        yield {stem: (signal.flip(0) if swap else signal)[:, early:] for stem, signal in piece.items()}
