"""What may be given to a `Separator`: any array of samples becomes float32 `[channels, samples]`, full scale at 1."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from separation.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

FULL_SCALE = {"int8": 1 << 7, "int16": 1 << 15, "int32": 1 << 31}
"""Steps from silence to full scale of signed samples, as wav files and numpy hold them; uint8 has 128 for silence."""

HIGHEST_RATE = 1_000_000
"""In hertz: whatever is above was mistyped."""


def as_waveform(samples: Any) -> Tensor:
    """Samples of any kind of number, a tensor or what numpy takes for an array, as float32 with full scale at 1.

    Raises `UserError` for numbers that no sample is made of: those without a full scale, truth values, complex ones.
    """
    import torch

    try:
        waveform = samples if isinstance(samples, torch.Tensor) else torch.as_tensor(_plain(samples))
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"the song is no array of samples ({error}): give a tensor or a numpy array.") from error
    waveform, name = waveform.detach().cpu(), str(waveform.dtype).removeprefix("torch.")
    if waveform.is_floating_point():
        return waveform.float()
    if name == "uint8":
        return (waveform.float() - 128) / 128
    if name in FULL_SCALE:
        return (waveform.double() / FULL_SCALE[name]).float()
    raise UserError(f"samples of type {name} have no full scale: give int16, int32, uint8 or floats between -1 and 1.")


def _plain(samples: Any) -> np.ndarray:
    """An array in the order of bytes and of memory that torch takes: wav files may have another."""
    array = np.asarray(samples)
    return np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(array.shape)


def check_rate(sample_rate: Any) -> int:
    """A sample rate in hertz as a whole number. Raises `UserError` when it cannot be one."""
    try:
        rate = math.nan if isinstance(sample_rate, bool) else float(sample_rate)
    except (TypeError, ValueError) as error:
        raise UserError(f"the sample rate must be a number of hertz, not {sample_rate!r}.") from error
    if not (math.isfinite(rate) and rate == int(rate) and 0 < rate <= HIGHEST_RATE):
        raise UserError(f"the sample rate must be a whole number of hertz above 0, not {sample_rate!r}.")
    return int(rate)


def check_waveform(waveform: Any) -> None:
    """Raise `UserError` unless this is `[1 or 2 channels, samples]` of numbers."""
    if waveform.ndim != 2:
        shape = list(waveform.shape)
        raise UserError(f"the song has the shape {shape}: give [channels, samples], [samples] or a batch of songs.")
    check_channels(len(waveform))
    if not is_finite(waveform):
        raise UserError("the song has samples that are not numbers: export it anew.")


def check_channels(channels: int) -> None:
    """Raise `UserError` unless a song with so many channels can be separated."""
    if channels not in (1, 2):
        hint = "put the channels first" if channels > 64 else "mix it down to stereo first"
        raise UserError(f"a song with {channels} channels cannot be separated: {hint}.")


def is_finite(waveform: Any) -> bool:
    """Whether all samples are numbers: `isfinite().all()`, but many times faster."""
    return math.isfinite(waveform.sum()) or bool((waveform * 0).sum() == 0)  # a sum can overflow
