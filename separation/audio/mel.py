"""Mel filters: how pictures of spectrograms are drawn the way we hear."""

from __future__ import annotations

import torch
from torch import Tensor


def mel_filters(bands: int, bins: int, sample_rate: int, lowest: float, highest: float) -> Tensor:
    """Triangles `[bands, bins]` over the bins of a power spectrum, evenly spaced on the mel scale.

    `lowest` and `highest` are where the first one begins and the last one ends, in hertz. The scale is HTK's: 2595
    log10(1 + f / 700) (O'Shaughnessy, Speech Communication, 1987).
    """
    frequencies = torch.linspace(0, sample_rate / 2, bins)
    limits = 2595 * torch.log10(1 + torch.tensor([lowest, highest]) / 700)
    edges = 700 * (10 ** (torch.linspace(*limits.tolist(), bands + 2) / 2595) - 1)
    below, centre, above = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (frequencies - below) / (centre - below), (above - frequencies) / (above - centre)
    return torch.minimum(rising, falling).clamp(min=0)
