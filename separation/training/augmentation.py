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
