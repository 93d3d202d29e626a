"""Changes of a crop's sound that leave it the music of its kind: complex `[2 channels, bins, frames]`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def equalised(crop: Tensor, rng: np.random.Generator, decibels: float) -> Tensor:
    """A smooth random equaliser: gains up to `decibels` at octaves, joined by straight lines over log frequency."""
    octaves = np.log2(1 + np.arange(crop.shape[-2]))
    knots = np.arange(int(octaves[-1]) + 2)
    gains = rng.uniform(-decibels, decibels, len(knots))
    factors = 10 ** (np.interp(octaves, knots, gains) / 20)
    return crop * torch.from_numpy(factors.astype(np.float32))[:, None]


def transposed(crop: Tensor, ratio: float, bins: int) -> Tensor:
    """The same at the same tempo, all frequencies times `ratio`: as many `bins`, silent above what the crop has.

    The frequency axis is stretched, pitch and formants alike, with straight lines between bins. Phases are
    in line within each frame, where sources are summed, and no longer from frame to frame, where nobody looks.
    """
    at = torch.arange(bins, dtype=torch.float64) / ratio
    below = at.floor().long().clamp_max(crop.shape[-2] - 2)
    share = (at - below).float()
    # The phase of a sine in the middle of the window turns by half a circle from bin to bin: undone, then done again.
    signs = (1 - 2 * ((torch.arange(bins) - below) % 2)) * (share <= 1)
    lower, upper = (signs * (1 - share))[:, None], (-signs * share)[:, None]
    parts = torch.view_as_real(crop).flatten(-2)  # real numbers in rows are many times faster to pick
    stretched = [
        channel.index_select(0, below).mul_(lower).addcmul_(channel.index_select(0, below + 1), upper)
        for channel in parts
    ]
    return torch.view_as_complex(torch.stack(stretched).unflatten(-1, (-1, 2)))
