"""The generator as a stream: masks for a song without end, in constant memory and with nothing computed twice.

Every convolution over frames keeps the last ones that it saw, so a song may come in pieces of any length, and each
frame of each layer is computed once. What comes out lags behind what goes in, by as much as masks look ahead. Feature
maps are `[frames, bands, channels]` here, which no layer has to reorder.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .bands import BandMerge, BandSplit, folded, folded_transpose, overlapping
from .block_stream import BlockStream, convolution, inverse_rms
from .eight_bits import BlockStreamIn8Bits
from .generator import Generator
from .history import History


class GeneratorStream:
    """A `Generator` whose log-shares come `lag` frames late, for views that come in pieces of whole strides.

    Before the first piece there is nothing, not even silence: let `generator.context` frames come before a song.

    Args:
        generator: the trained generator.
        dtype: what to compute in.
        eight_bits: whether the convolutions of the blocks are computed in 8-bit integers; the generator has `ranges`.
    """

    @torch.no_grad()
    def __init__(self, generator: Generator, dtype: torch.dtype, eight_bits: bool = False):
        self.generator, self.dtype = generator, dtype
        self.scale = generator.input_scale[:, None]
        self.shift = -generator.input_mean[:, None] * self.scale
        stream = BlockStreamIn8Bits if eight_bits else BlockStream
        self.inlet = BandSplitStream(generator.inlet, dtype)
        self.encoder = [[stream(block, dtype) for block in level] for level in generator.encoder]
        self.down = [convolution(layer.weight, layer.bias, dtype, stride=2) for layer in generator.down]
        self.bottom = [stream(block, dtype) for block in generator.bottom]
        self.up = [UpStream(layer.weight, layer.bias, dtype) for layer in generator.up]
        self.decoder = [[stream(block, dtype) for block in level] for level in generator.decoder]
        self.outlet = BandMergeStream(generator.outlet, dtype)

        # A level begins at an even frame, and what skips the levels below it waits for them.
        self.before = History(2)
        self.evens, self.skips, self.lag, lags = [], [], 1, []
        for level in self.encoder:
            self.evens.append(History(self.lag % 2))
            self.lag += self.lag % 2 + BlockStream.lag * len(level)
            lags.append(self.lag)
            self.lag //= 2
        self.lag += BlockStream.lag * len(self.bottom)
        for lag, level in zip(reversed(lags), reversed(self.decoder), strict=True):
            self.skips.append(History(2 * self.lag - lag))
            self.lag = 2 * self.lag + BlockStream.lag * len(level)

    @torch.no_grad()
    def __call__(self, views: Tensor) -> Tensor:
        """`[views, frames, bins]` to `[targets, channels, frames, bins]`."""
        x = torch.addcmul(self.shift, views, self.scale).to(self.dtype).permute(1, 2, 0).contiguous()
        x = self.inlet(self.before(x))
        skips = []
        for even, level, down in zip(self.evens, self.encoder, self.down, strict=True):
            x = run(level, even.delay(x))
            skips.append(x)
            x = down(x)
        x = run(self.bottom, x)
        for skip, level, up in zip(self.skips, reversed(self.decoder), reversed(self.up), strict=True):
            x = run(level, up(x, skip.delay(skips.pop())))
        return self.outlet(x).unflatten(0, (self.generator.targets, self.generator.audio_channels))


class UpStream:
    """A step up, `[frames, bands, channels]` to twice the frames and bands, and what skipped the levels below it.

    As a transposed convolution it takes twice as long as this matrix product.
    """

    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype):
        self.weight = weight.permute(0, 2, 3, 1).flatten(1).to(dtype)  # [channels, 2 frames * 2 bands * outputs]
        self.bias = bias.repeat(4).to(dtype)

    def __call__(self, x: Tensor, skip: Tensor) -> Tensor:
        places = torch.addmm(self.bias, x.flatten(0, 1), self.weight)
        places = places.view(*x.shape[:2], 2, 2, -1).transpose(1, 2)
        return (skip.view(places.shape) + places).view(skip.shape)  # in the order of the first


class BandSplitStream:
    """A `BandSplit`: `[frames, bins, views]` to `[frames - 2, bands, channels]`."""

    def __init__(self, split: BandSplit, dtype: torch.dtype):
        self.zones, self.layers = split.zones, []
        for layer, zone in zip(split.layers, split.zones, strict=True):
            # Bins lie outside of views in memory here, so folding moves nothing.
            weight = folded(layer.weight, zone.width).unflatten(1, (-1, zone.width)).transpose(1, 2).flatten(1, 2)
            self.layers.append(convolution(weight, layer.bias, dtype))

    def __call__(self, x: Tensor) -> Tensor:
        bands = []
        for zone, layer, piece in zip(self.zones, self.layers, overlapping(x, self.zones, dim=-2), strict=True):
            bands.append(layer(piece.reshape(piece.shape[0], -1, zone.width * piece.shape[2])))
        return torch.cat(bands, dim=1)


class BandMergeStream:
    """A `BandMerge`: `[frames, bands, channels]` to `[outputs, frames, bins]`."""

    def __init__(self, merge: BandMerge, dtype: torch.dtype):
        self.zones = merge.zones
        self.layers, self.biases = [], []
        for zone, layer in zip(merge.zones, merge.layers, strict=True):
            weight = folded_transpose(layer.weight * merge.norm.scale[..., None], zone.width)
            self.layers.append(convolution(weight, None, dtype, padding=(0, 1)))
            self.biases.append(layer.bias[:, None, None])

    def __call__(self, x: Tensor) -> Tensor:
        scale, merged = inverse_rms(x), []
        bands = x.split([zone.bands for zone in self.zones], dim=1)
        for zone, layer, bias, piece in zip(self.zones, self.layers, self.biases, bands, strict=True):
            bins = (layer(piece) * scale).unflatten(-1, (len(bias), -1)).permute(2, 0, 1, 3).flatten(2)
            merged.append(bins[..., zone.width // 2 : -(zone.width // 2)] + bias)
        return torch.cat(merged, dim=-1)


def run(level: list[BlockStream], x: Tensor) -> Tensor:
    for block in level:
        x = block(x)
    return x
