"""A waveform changes its sample rate, whole or block by block: the same samples either way, none early or late."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor


def resample(waveform: Tensor, source_rate: int, target_rate: int) -> Tensor:
    """`[channels, samples]` at `source_rate` hertz as `[channels, round(samples * target_rate / source_rate)]`."""
    return torch.cat(list(resample_blocks([waveform], source_rate, target_rate)), dim=-1)


def resample_blocks(blocks: Iterable[Tensor], source_rate: int, target_rate: int) -> Iterator[Tensor]:
    """Resample a stream of `[channels, n]`; the blocks that come out are not as long as those that went in."""
    resampler = None
    for block in blocks:
        resampler = resampler or Resampler(source_rate, target_rate, len(block))
        yield resampler.push(block)
    if resampler:
        yield resampler.flush()


class Resampler:
    """Resamples a stream that is pushed into it: `[channels, n]` at `source_rate` hertz, to `target_rate`."""

    def __init__(self, source_rate: int, target_rate: int, channels: int):
        self.rates, self.channels = (source_rate, target_rate), channels
        self._stream = self._open()

    def _open(self):
        if self.rates[0] == self.rates[1]:
            return None
        import soxr

        return soxr.ResampleStream(*self.rates, self.channels)

    def push(self, block: Tensor, last: bool = False) -> Tensor:
        """What a block lets out, `[channels, m]`."""
        if not self._stream:
            return block
        return torch.from_numpy(self._stream.resample_chunk(block.T.contiguous().numpy(), last=last)).T

    def flush(self) -> Tensor:
        """What is left at the end of the stream, `[channels, m]`."""
        return self.push(torch.zeros(self.channels, 0), last=True)

    def delay(self) -> float:
        """By how many seconds what comes out is behind what went in, at most: measured, on a second of silence."""
        if not self._stream:
            return 0.0
        source, target = self.rates
        other, block, out, behind = Resampler(source, target, 1), max(1, source // 1000), 0, 0.0
        for samples in range(block, source, block):
            out += other.push(torch.zeros(1, block)).shape[-1]
            behind = max(behind, samples / source - out / target)
        return behind
