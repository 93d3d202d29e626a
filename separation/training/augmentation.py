"""Changes of a crop's sound that leave it the music of its kind: complex `[2 channels, bins, frames]`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def random_equaliser(rng: np.random.Generator, decibels: float, bins: int) -> tuple[float, ...]:
    """Gains up to `decibels` at the octaves that so many bins reach."""
    return tuple(rng.uniform(-decibels, decibels, int(np.log2(bins)) + 2).tolist())


def equaliser_factors(gains: Sequence[float], bins: int) -> Tensor:
    """A smooth equaliser, float32 `[bins]`: gains at octaves in dB, joined by straight lines over log frequency."""
    octaves = np.log2(1 + np.arange(bins))
    return torch.from_numpy(10 ** (np.interp(octaves, np.arange(len(gains)), gains) / 20)).float()


def equalised(crop: Tensor, gains: Sequence[float]) -> Tensor:
    """The crop through the equaliser with these gains."""
    return crop * equaliser_factors(gains, crop.shape[-2])[:, None]


def transposed(crop: Tensor, ratio: float, bins: int) -> Tensor:
    """The same at the same tempo, all frequencies times `ratio`: as many `bins`, silent above what the crop has.

    The frequency axis is stretched, pitch and formants alike, with straight lines between bins. Phases are
    in line within each frame, where sources are summed, and no longer from frame to frame, where nobody looks.
    """
    below, lower, upper = stretch(torch.tensor(ratio, dtype=torch.float64), crop.shape[-2], bins)
    parts = torch.view_as_real(crop).flatten(-2)  # real numbers in rows are many times faster to pick
    stretched = [
        channel.index_select(0, below).mul_(lower[:, None]).addcmul_(channel.index_select(0, below + 1), upper[:, None])
        for channel in parts
    ]
    return torch.view_as_complex(torch.stack(stretched).unflatten(-1, (-1, 2)))


def stretch(ratio: Tensor, size: Tensor | int, bins: int) -> tuple[Tensor, Tensor, Tensor]:
    """What each of `bins` is made of when frequencies are multiplied by `ratio`, float64 `[...]`, of `size` bins.

    The bin that it lies above, `[..., bins]`, and the factors of that one and of the next.
    """
    to = torch.arange(bins, device=ratio.device)
    at = to / ratio[..., None]
    size = torch.as_tensor(size, device=ratio.device)[..., None]
    below = torch.minimum(at.floor().long(), size - 2)
    share = (at - below).float()
    # The phase of a sine in the middle of the window turns by half a circle from bin to bin: undone, then done again.
    signs = (1 - 2 * ((to - below) % 2)) * (share <= 1)
    return below, signs * (1 - share), -signs * share
