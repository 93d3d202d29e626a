"""A waveform changes its sample rate, whole or block by block: the same samples either way, none early or late."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


def resample(waveform: Tensor, source_rate: int, target_rate: int) -> Tensor:
    """`[channels, samples]` at `source_rate` hertz as `[channels, round(samples * target_rate / source_rate)]`."""
    import torch

    if source_rate == target_rate:
        return waveform
    resampler = Resampler(source_rate, target_rate, len(waveform))
    return torch.from_numpy(np.concatenate([resampler.push(waveform.numpy()), resampler.flush()], axis=1))


class Resampler:
    """Resamples a float32 array that is pushed in by blocks: `[channels, n]` at `source_rate` hertz, to `target_rate`.

    The blocks that come out are not as long as those that went in.
    """

    def __init__(self, source_rate: int, target_rate: int, channels: int):
        self.rates, self.channels, self._stream = (source_rate, target_rate), channels, None
        if source_rate != target_rate:
            import soxr

            self._stream = soxr.ResampleStream(source_rate, target_rate, channels)

    def push(self, block: np.ndarray, last: bool = False) -> np.ndarray:
        """What a block lets out, `[channels, m]`."""
        if not self._stream:
            return block
        return self._stream.resample_chunk(np.ascontiguousarray(block.T), last=last).T

    def flush(self) -> np.ndarray:
        """What is left at the end of the stream, `[channels, m]`."""
        return self.push(np.zeros((self.channels, 0), np.float32), last=True)

    def delay(self) -> float:
        """By how many seconds what comes out is behind what went in, at most: measured, on a second of silence."""
        if not self._stream:
            return 0.0
        source, target = self.rates
        other, block, out, behind = Resampler(source, target, 1), max(1, source // 1000), 0, 0.0
        for samples in range(block, source, block):
            out += other.push(np.zeros((1, block), np.float32)).shape[-1]
            behind = max(behind, samples / source - out / target)
        return behind
