"""Convert samples of any type to floats, and a waveform to another rate.

Resampled whole or block by block, the samples are the same, and none is early or late.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from separation.errors import UserError

FULL_SCALE = {"uint8": 1 << 7, "int8": 1 << 7, "int16": 1 << 15, "int32": 1 << 31}
"""Steps from silence to full scale of integer samples, as in wav files and numpy; in uint8, silence is 128."""


def as_waveform(samples: Any, exact: bool = False) -> np.ndarray:
    """Convert samples of any numeric type, in a tensor or anything array-like, to float32 with full scale at 1.

    With `exact`, types that float32 would round become float64 instead. Raises `UserError` for types that cannot be
    samples: booleans, complex numbers, and integers without a full scale.

    >>> as_waveform([[-0.5, 1]]), as_waveform(np.array([-32768, 16384], np.int16))
    (array([[-0.5,  1. ]], dtype=float32), array([-1. ,  0.5], dtype=float32))
    """
    try:
        if hasattr(samples, "detach"):  # a tensor, on any device
            samples = samples.detach().cpu().resolve_neg()
            is_short = samples.is_floating_point() and samples.element_size() < 4  # numpy has no bfloat16
            samples = (samples.float() if is_short else samples).numpy()
        samples = np.asarray(samples)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"the song is not an array of samples ({error}): give a tensor or a numpy array.") from error
    name, kind = samples.dtype.name, samples.dtype.kind
    if kind not in "biufc":
        raise UserError("the song is not an array of samples: give a tensor or a numpy array.")
    if kind != "f" and name not in FULL_SCALE:
        known = "int16, int32, uint8 or floats between -1 and 1"
        raise UserError(f"samples of type {name} have no full scale: give {known}.")
    floats = samples.astype(np.result_type(samples.dtype, np.float32), copy=False)
    if name in FULL_SCALE:
        floats = (floats - 128 if name == "uint8" else floats) / FULL_SCALE[name]
    return floats if exact else floats.astype(np.float32, copy=False)


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
