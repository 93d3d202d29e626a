"""Resample a waveform, whole or block by block: the samples are the same either way, and none is early or late."""

from __future__ import annotations

import numpy as np


def resample(waveform: np.ndarray, source_rate: int, target_rate: int) -> np.ndarray:
    """Resample `[channels, samples]` to `[channels, round(samples * target_rate / source_rate)]`; rates in hertz."""
    if source_rate == target_rate:
        return waveform
    resampler = Resampler(source_rate, target_rate, len(waveform))
    return np.concatenate([resampler.push(waveform), resampler.flush()], axis=1)


class Resampler:
    """Resamples float32 blocks `[channels, n]` from `source_rate` to `target_rate`, in hertz.

    Output blocks do not correspond to input blocks in length.
    """

    def __init__(self, source_rate: int, target_rate: int, channels: int):
        self.rates, self.channels, self._stream = (source_rate, target_rate), channels, None
        if source_rate != target_rate:
            import soxr

            self._stream = soxr.ResampleStream(source_rate, target_rate, channels)

    def push(self, block: np.ndarray, last: bool = False) -> np.ndarray:
        """Take a block and return the output that is ready, `[channels, m]`."""
        if not self._stream:
            return block
        return self._stream.resample_chunk(np.ascontiguousarray(block.T, np.float32), last=last).T

    def flush(self) -> np.ndarray:
        """Return the rest of the output at the end of the stream, `[channels, m]`."""
        return self.push(np.zeros((self.channels, 0), np.float32), last=True)

    def delay(self) -> float:
        """Maximum delay of the output behind the input in seconds, measured on one second of silence."""
        if not self._stream:
            return 0.0
        source, target = self.rates
        other, block, out, behind = Resampler(source, target, 1), max(1, source // 1000), 0, 0.0
        for samples in range(block, source, block):
            out += other.push(np.zeros((1, block), np.float32)).shape[-1]
            behind = max(behind, samples / source - out / target)
        return behind
