"""Frequency bins become bands, and back: narrow bands where notes lie close together, wide ones above.

A band of 20 Hz tells one note of a bass or of a low voice from the next; one of 170 Hz does for what lies above 8 kHz,
and costs an eighth. (Tong et al., "SCNet: Sparse compression network for music source separation", ICASSP 2024.)
"""

from __future__ import annotations

from collections import namedtuple
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from .blocks import FrameNorm

Zones = tuple[tuple[int, int], ...]
"""Zones of bands of the same width, from the lowest up: the bin that a zone ends before, and the bins to a band."""


class Zone(namedtuple("Zone", ("first", "end", "width"))):
    """The bins from `first` up to, and without, `end`, in bands of `width` bins."""

    @property
    def bands(self) -> int:
        return (self.end - self.first) // self.width


def spread(zones: Zones) -> list[Zone]:
    """The zones with their first bins. Raises ValueError when bands do not fill them."""
    spreads = []
    for (first, _), (end, width) in pairwise(((0, 0), *zones)):
        if width < 2 or width % 2:
            raise ValueError(f"a zone's bands must be of an even number of bins, not {width}")
        if end <= first or (end - first) % width:
            raise ValueError(f"a zone from bin {first} to {end} cannot be filled with bands of {width} bins")
        spreads.append(Zone(first, end, width))
    return spreads


class BandSplit(nn.Module):
    """`[batch, views, frames, bins]` to `[batch, channels, frames, bands]`: every band sees half of each neighbour."""

    def __init__(self, views: int, channels: int, zones: list[Zone]):
        super().__init__()
        self.zones = zones
        self.layers = nn.ModuleList(
            nn.Conv2d(views, channels, (3, 2 * zone.width), (1, zone.width), padding=(1, 0)) for zone in zones
        )

    def forward(self, x: Tensor) -> Tensor:
        bands = []
        for zone, layer, piece in zip(self.zones, self.layers, overlapping(x, self.zones), strict=True):
            weight = folded(layer.weight, zone.width)
            bands.append(conv2d(folded(piece, zone.width), weight, layer.bias, padding=layer.padding))
        return torch.cat(bands, dim=-1)


class BandMerge(nn.Module):
    """`[batch, channels, frames, bands]` to `[batch, outputs, frames, bins]`, with a norm before."""

    def __init__(self, channels: int, outputs: int, zones: list[Zone]):
        super().__init__()
        self.zones = zones
        self.norm = FrameNorm(channels)
        self.layers = nn.ModuleList(
            nn.ConvTranspose2d(channels, outputs, (1, 2 * zone.width), (1, zone.width), padding=(0, zone.width // 2))
            for zone in zones
        )

    def forward(self, x: Tensor) -> Tensor:
        bins, pieces = [], self.norm(x).split([zone.bands for zone in self.zones], dim=-1)
        for zone, layer, piece in zip(self.zones, self.layers, pieces, strict=True):
            halves = conv2d(piece, folded_transpose(layer.weight, zone.width), padding=(0, 1))
            spread_out = halves.unflatten(1, (-1, zone.width)).movedim(2, -1).flatten(-2)
            bins.append(spread_out[..., zone.width // 2 : -(zone.width // 2)] + layer.bias[:, None, None])
        return torch.cat(bins, dim=-1)


def overlapping(x: Tensor, zones: list[Zone], dim: int = -1) -> list[Tensor]:
    """What each zone sees of the axis `dim` of `x`, -1 or -2: its bins, and half a band more on both sides."""
    margin = max(zone.width for zone in zones) // 2
    x = pad(x, (0, 0) * (-1 - dim) + (margin, margin))
    return [x.narrow(dim, margin + z.first - z.width // 2, z.end - z.first + z.width) for z in zones]


# A convolution that is as wide as two bands and goes in strides of one is computed as one over two neighbours, in which
# the bins of a band are channels. It is as fast or faster. And it is right: with bfloat16, on processors with AMX,
# oneDNN gets wide convolutions of few channels wrong, and gradients of wide transposed ones (torch 2.14).


def folded(x: Tensor, width: int) -> Tensor:
    """Bins become channels: `[..., views, frames, bands * width]` to `[..., views * width, frames, bands]`."""
    return x.unflatten(-1, (-1, width)).movedim(-1, -3).flatten(-4, -3)


def folded_transpose(weight: Tensor, width: int) -> Tensor:
    """The weight of a transposed convolution, `[channels, outputs, 1, 2 * width]`, as that of a plain one.

    It is `[outputs * width, channels, 1, 2]`: a bin comes from the band before it and from its own.
    """
    return weight.unflatten(-1, (2, width)).flip(-2).permute(1, 4, 0, 2, 3).flatten(0, 1)
