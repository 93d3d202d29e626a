"""The U-Net as a stream: masks for a song of any length, in constant memory and computing no frame twice.

Every convolution over frames keeps the last frames it saw, so a song may come in pieces of any number of strides. The
output lags behind the input by as many frames as masks look ahead. Feature maps are `[frames, bands, channels]` here,
an order that no layer has to change. tests/models/test_unet_stream.py compares both forms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from .unet import (
    BandMerge,
    BandSplit,
    Block,
    FrameNorm,
    UNet,
    bins_to_channels,
    compress,
    kernel,
    overlapping,
    transposed_to_plain,
)


class UNetStream:
    """A `UNet` for a mixture in pieces of whole strides, whose masks come `lag` frames late.

    Its state starts at zero: feed `network.context` frames of padding first.

    Args:
        network: the trained network.
        dtype: compute precision.
    """

    @torch.no_grad()
    def __init__(self, network: UNet, dtype: torch.dtype):
        self.network, self.dtype = network, dtype
        self.scale = network.input_scale[:, None]
        self.shift = -network.input_mean[:, None] * self.scale
        self.inlet = BandSplitStream(network.inlet, dtype)
        self.encoder = [blocks(level, dtype) for level in network.encoder]
        self.down = [convolution(*kernel(layer), dtype, stride=2) for layer in network.down]
        self.bottom = blocks(network.bottom, dtype)
        self.up = [UpStream(*kernel(layer), dtype) for layer in network.up]
        self.decoder = [blocks(level, dtype) for level in network.decoder]
        self.outlet = BandMergeStream(network.outlet, dtype)

        # Delays start each level at an even frame, and hold its skip connection until the levels below catch up.
        self.before = Memory(2)
        self.evens: list[Memory] = []
        self.skips: list[Memory] = []
        self.lag, lags = 1, []
        for level in self.encoder:
            self.evens.append(Memory(self.lag % 2))
            self.lag += self.lag % 2 + BlockStream.lag * len(level)
            lags.append(self.lag)
            self.lag //= 2
        self.lag += BlockStream.lag * len(self.bottom)
        for lag, level in zip(reversed(lags), reversed(self.decoder), strict=True):
            self.skips.append(Memory(2 * self.lag - lag))
            self.lag = 2 * self.lag + BlockStream.lag * len(level)

    @torch.no_grad()
    def __call__(self, mixture: Tensor) -> Tensor:
        """Complex `[2 channels, bins, frames]` to masks `[targets, 2 channels, bins, frames]` of as many frames."""
        mixture = mixture.transpose(-1, -2)  # frames before bins, as they lie in memory
        logits = self.logits(compress(mixture[..., : self.network.used_bins]))
        return self.network.masks(logits[None], mixture.shape[-1], dim=-1)[0].transpose(-1, -2)

    def logits(self, views: Tensor) -> Tensor:
        """`[views, frames, bins]` to `[targets, channels, frames, bins]`, both of the lowest `used_bins`."""
        x = torch.addcmul(self.shift, views, self.scale).to(self.dtype).permute(1, 2, 0).contiguous()
        x = self.inlet(self.before(x))
        skips: list[Tensor] = []
        for even, level, down in zip(self.evens, self.encoder, self.down, strict=True):
            x = run(level, even.delay(x))
            skips.append(x)
            x = down(x)
        x = run(self.bottom, x)
        for skip, level, up in zip(self.skips, reversed(self.decoder), reversed(self.up), strict=True):
            x = run(level, up(x, skip.delay(skips.pop())))
        return self.outlet(x).unflatten(0, (self.network.targets, self.network.audio_channels))


class Memory:
    """Prepends the last `length` frames to the next piece, and zeros to the first. Frames are the axis `dim`."""

    def __init__(self, length: int, dim: int = 0):
        self.length, self.dim = length, dim
        self.frames: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Return `x` with the `length` frames before it."""
        if self.frames is None:
            self.frames = torch.zeros_like(x.narrow(self.dim, 0, 1)).repeat_interleave(self.length, self.dim)
        x = torch.cat([self.frames, x], self.dim)
        self.frames = x.narrow(self.dim, x.shape[self.dim] - self.length, self.length).clone()
        return x

    def delay(self, x: Tensor) -> Tensor:
        """Return as many frames as `x` has, `length` frames late."""
        return self(x).narrow(self.dim, 0, x.shape[self.dim]) if self.length else x


class BlockStream:
    """A `Block`, `lag` frames late."""

    lag = 2

    def __init__(self, block: Block, dtype: torch.dtype):
        norm, first, self.activation, second = block.convolution
        weight, bias = kernel(first)
        self.first = convolution(weight * norm.get_parameter("scale"), bias, dtype, padding=(0, 1))
        self.second = convolution(*kernel(second), dtype, padding=(0, 1))
        self.before = Memory(2 * self.lag)
        self.frequency = FrequencyStream(block.frequency, dtype) if block.frequency else None

    def __call__(self, x: Tensor) -> Tensor:
        x = self.before(x)
        y = self.second(self.activation(self.first(x * inverse_rms(x).to(x.dtype))))
        x = y.add_(x[self.lag : -self.lag])
        return self.frequency(x) if self.frequency else x


class FrequencyStream:
    """The TDF of a `Block`, with its residual connection."""

    def __init__(self, branch: nn.Sequential, dtype: torch.dtype):
        norm, squeeze, self.activation, stretch = branch
        self.scale = norm.get_parameter("scale").flatten()
        (weight, bias), (stretch_weight, stretch_bias) = kernel(squeeze), kernel(stretch)
        self.squeeze, self.squeeze_bias = weight.to(dtype), bias[:, None]
        self.stretch, self.stretch_bias = stretch_weight.to(dtype), stretch_bias[:, None].to(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        # Expanded weights take no memory; `@` would first transpose the whole map.
        squeeze, stretch = (weight.expand(x.shape[0], -1, -1) for weight in (self.squeeze, self.stretch))
        y = self.activation(torch.bmm(squeeze, x) * (inverse_rms(x) * self.scale) + self.squeeze_bias)
        return torch.baddbmm(x, stretch, y.to(x.dtype)).add_(self.stretch_bias)


class UpStream:
    """Upsample `[frames, bands, channels]` to twice the frames and bands, and add the skip connection.

    A transposed convolution takes twice as long as this matrix product.
    """

    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype):
        self.weight = weight.permute(0, 2, 3, 1).flatten(1).to(dtype)  # [channels, 2 frames * 2 bands * outputs]
        self.bias = bias.repeat(4).to(dtype)

    def __call__(self, x: Tensor, skip: Tensor) -> Tensor:
        places = torch.addmm(self.bias, x.flatten(0, 1), self.weight)
        places = places.view(*x.shape[:2], 2, 2, -1).transpose(1, 2)
        return (skip.view(places.shape) + places).view(skip.shape)  # the sum keeps the memory order of `skip`


class BandSplitStream:
    """A `BandSplit`: `[frames, bins, views]` to `[frames - 2, bands, channels]`."""

    def __init__(self, split: BandSplit, dtype: torch.dtype):
        self.zones, self.layers = split.zones, []
        for layer, zone in zip(split.layers, split.zones, strict=True):
            # Views are innermost in memory here, so grouping bins moves no data.
            weight, bias = kernel(layer)
            weight = bins_to_channels(weight, zone.width).unflatten(1, (-1, zone.width))
            self.layers.append(convolution(weight.transpose(1, 2).flatten(1, 2), bias, dtype))

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
            weight, bias = kernel(layer)
            weight = transposed_to_plain(weight * merge.norm.scale[..., None], zone.width)
            self.layers.append(convolution(weight, None, dtype, padding=(0, 1)))
            self.biases.append(bias[:, None, None])

    def __call__(self, x: Tensor) -> Tensor:
        scale, merged = inverse_rms(x), []
        bands = x.split([zone.bands for zone in self.zones], dim=1)
        for zone, layer, bias, piece in zip(self.zones, self.layers, self.biases, bands, strict=True):
            bins = (layer(piece) * scale).unflatten(-1, (len(bias), -1)).permute(2, 0, 1, 3).flatten(2)
            merged.append(bins[..., zone.width // 2 : -(zone.width // 2)] + bias)
        return torch.cat(merged, dim=-1)


def inverse_rms(x: Tensor) -> Tensor:
    """Factor that scales each frame of `[frames, bands, channels]` to an RMS of 1: `[frames, 1, 1]`, float32."""
    norm = torch.linalg.vector_norm(x.flatten(1), dim=1).float()
    return torch.rsqrt(norm.square() / x[0].numel() + FrameNorm.floor)[:, None, None]


def convolution(weight: Tensor, bias: Tensor | None, dtype: torch.dtype, **options: Any) -> Callable[[Tensor], Tensor]:
    """Make a convolution of `[frames, bands, channels]`."""
    weight = weight.to(dtype, memory_format=torch.channels_last)
    bias = None if bias is None else bias.to(dtype)

    def convolve(x: Tensor) -> Tensor:
        return conv2d(x[None].permute(0, 3, 1, 2), weight, bias, **options)[0].permute(1, 2, 0)

    return convolve


def blocks(level: nn.Module, dtype: torch.dtype) -> list[BlockStream]:
    return [BlockStream(block, dtype) for block in level.children() if isinstance(block, Block)]


def run(level: list[BlockStream], x: Tensor) -> Tensor:
    for block in level:
        x = block(x)
    return x
