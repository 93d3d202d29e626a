"""A song that is still being heard becomes stems: blocks are pushed in, and what is ready comes out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from separation.audio.resample import Resampler
from separation.errors import UserError
from separation.network.waveforms import as_waveform, check_rate, check_waveform, is_finite

if TYPE_CHECKING:
    from separation.network.separator import Separator

Stems = dict[str, Tensor]
"""A piece of a song: `[channels, n]` for each stem, by name."""


class SongStream:
    """One song, in blocks `[1 or 2 channels, n]` of any length: `push` each, then `flush`. See `Separator.live`.

    What all calls give, one after the other, is as long as the song.

    Args:
        separator: what takes the song apart.
        sample_rate: of the song, in hertz.
        chunk: frames separated at a time, whole strides of the network.
    """

    def __init__(self, separator: Separator, sample_rate: int, chunk: int):
        self.separator, self.stems = separator, separator.stems
        self.sample_rate = check_rate(sample_rate)
        own_rate = separator.network.settings.sample_rate
        self._inward = Resampler(self.sample_rate, own_rate, 2)
        self._outward = Resampler(own_rate, self.sample_rate, 2 * len(separator.masked))
        self._targets = TargetsStream(separator, chunk)
        self._song, self._channels = Queue(), 0  # until the first block tells

    @property
    def latency(self) -> float:
        """Seconds of sound that the stems are behind the song, at most."""
        own_rate = self.separator.network.settings.sample_rate
        return self._targets.delay / own_rate + self._inward.delay() + self._outward.delay()

    def push(self, block: Tensor | Any) -> Stems:
        """The stems of what can be told after the next block: none, a little or a lot.

        Raises `UserError` as `Separator.stream` does.
        """
        return self._join(self.pieces(block))

    def flush(self) -> Stems:
        """The stems of the rest: the song has ended."""
        return self._join(self.rest())

    def pieces(self, block: Tensor | Any) -> Iterator[Stems]:
        """What `push` gives, in pieces of the chunks."""
        block = as_waveform(block)
        check_waveform(block)
        self._channels = self._channels or len(block)
        if len(block) != self._channels:
            raise UserError(f"the song has {self._channels} channels, and one of its blocks {len(block)}.")
        self._song.put(block)
        for targets in self._targets.push(self._inward.push(block.expand(2, -1))):
            yield from self._ready(self._outward.push(targets.flatten(0, 1)))

    def rest(self) -> Iterator[Stems]:
        """What `flush` gives, in pieces of the chunks."""
        if not self._channels:
            return
        for targets in self._targets.push(self._inward.flush(), last=True):
            yield from self._ready(self._outward.push(targets.flatten(0, 1)))
        yield from self._ready(self._outward.flush())
        # Resampled back, a song can have lost a sample at its end.
        yield from self._ready(torch.zeros(2 * len(self.separator.masked), len(self._song)))

    def _ready(self, targets: Tensor) -> Iterator[Stems]:
        song = self._song.take(targets.shape[-1])
        if length := song.shape[-1]:
            yield self.separator.share_out(song, targets[:, :length])

    def _join(self, pieces: Iterator[Stems]) -> Stems:
        pieces = list(pieces)
        nothing = torch.zeros(self._channels or 2, 0)
        return {stem: torch.cat([nothing, *(piece[stem] for piece in pieces)], dim=-1) for stem in self.stems}


class TargetsStream:
    """A song at the network's rate becomes its masked targets: `[2, n]` to `[targets, 2, m]`, chunk by chunk."""

    @torch.no_grad()
    def __init__(self, separator: Separator, chunk: int):
        self.network, self.device = separator.network, separator.device
        settings, self.chunk = self.network.settings, chunk
        self.stream = self.network.stream(separator.dtype, separator.masked)
        # Silence stands in for what the first frames depend on, and for the frames that let the last ones out.
        self.missing = separator.context + self.stream.lag
        self.buffer = torch.zeros(2, separator.context * settings.hop + settings.padding)
        self.skipped = self.missing * settings.hop + settings.padding
        self.tail: Tensor | float = 0.0
        self.samples = 0

    @property
    def delay(self) -> int:
        """Samples that what comes out is behind what went in, at most."""
        return (self.stream.lag + self.chunk) * self.network.settings.hop + self.network.settings.padding

    def push(self, block: Tensor, last: bool = False) -> Iterator[Tensor]:
        """What a block lets out. After the `last` one it goes on past the end, by less than a stride of frames."""
        settings, padding = self.network.settings, self.network.settings.padding
        chunk = self.chunk * settings.hop
        self.samples += block.shape[-1]
        self.buffer = torch.cat([self.buffer, block], dim=-1)
        while self.buffer.shape[-1] >= chunk + padding:
            piece, self.buffer = self.buffer[:, : chunk + padding], self.buffer[:, chunk:]
            self.missing -= self.chunk
            yield self._separate(piece)
        if last and self.samples:
            frames = settings.frames(self.samples) + self.missing
            rest = -(-frames // self.network.stride) * self.network.stride * settings.hop
            self.buffer = pad(self.buffer, (0, rest + padding - self.buffer.shape[-1]))
            for start in range(0, rest, chunk):
                yield self._separate(self.buffer[:, start : start + chunk + padding])

    @torch.no_grad()
    def _separate(self, piece: Tensor) -> Tensor:
        spectral = self.network.spectral
        spectrogram = spectral.analyse(piece.to(self.device))
        waveform = spectral.synthesise(self.stream(spectrogram)).cpu()
        if not is_finite(waveform):
            raise UserError("the song is so loud that its numbers overflow: scale its samples to at most 1.")
        samples = spectrogram.shape[-1] * self.network.settings.hop
        waveform[..., :-samples] += self.tail
        waveform, self.tail = waveform[..., :samples], waveform[..., samples:]
        skipped, self.skipped = self.skipped, max(0, self.skipped - samples)
        return waveform[..., skipped:]


class Queue:
    """Samples `[channels, n]` that wait, first in, first out."""

    def __init__(self):
        self._samples: Tensor | None = None

    def __len__(self) -> int:
        return 0 if self._samples is None else self._samples.shape[-1]

    def put(self, block: Tensor) -> None:
        self._samples = block if self._samples is None else torch.cat([self._samples, block], dim=-1)

    def take(self, count: int) -> Tensor:
        """The first `count` samples, or as many as there are."""
        taken, self._samples = self._samples[:, :count], self._samples[:, count:]
        return taken
