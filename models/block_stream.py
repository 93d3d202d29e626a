"""The generator's blocks as streams of `[frames, bands, channels]`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from .blocks import Block, FrameNorm, FrequencyBranch
from .history import History


class BlockStream:
    """A `Block`, `lag` frames late."""

    lag = 2

    def __init__(self, block: Block, dtype: torch.dtype):
        norm, first, self.activation, second = block.convolution
        self.first = convolution(first.weight * norm.scale, first.bias, dtype, padding=(0, 1))
        self.second = convolution(second.weight, second.bias, dtype, padding=(0, 1))
        self.before = History(2 * self.lag)
        self.frequency = block.frequency and FrequencyStream(block.frequency, dtype)

    def __call__(self, x: Tensor) -> Tensor:
        x = self.before(x)
        y = self.second(self.activation(self.first(x * inverse_rms(x).to(x.dtype))))
        x = y.add_(x[self.lag : -self.lag])
        return self.frequency(x) if self.frequency else x


class FrequencyStream:
    """A `FrequencyBranch`, with what it is added to."""

    def __init__(self, branch: FrequencyBranch, dtype: torch.dtype):
        norm, squeeze, self.activation, stretch = branch
        self.scale = norm.scale.flatten()
        self.squeeze, self.squeeze_bias = squeeze.weight.to(dtype), squeeze.bias[:, None]
        self.stretch, self.stretch_bias = stretch.weight.to(dtype), stretch.bias[:, None].to(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        # Expanded, the weights take no memory; `@` would transpose the whole map first.
        squeeze, stretch = (weight.expand(x.shape[0], -1, -1) for weight in (self.squeeze, self.stretch))
        y = self.activation(torch.bmm(squeeze, x) * (inverse_rms(x) * self.scale) + self.squeeze_bias)
        return torch.baddbmm(x, stretch, y.to(x.dtype)).add_(self.stretch_bias)


def inverse_rms(x: Tensor) -> Tensor:
    """What brings each frame of `[frames, bands, channels]` to a root mean square of 1: `[frames, 1, 1]`, float32."""
    norm = torch.linalg.vector_norm(x.flatten(1), dim=1).float()
    return torch.rsqrt(norm.square() / x[0].numel() + FrameNorm.floor)[:, None, None]


def convolution(weight: Tensor, bias: Tensor | None, dtype: torch.dtype, **options) -> Callable[[Tensor], Tensor]:
    """A convolution of `[frames, bands, channels]`."""
    weight = weight.to(dtype, memory_format=torch.channels_last)
    bias = None if bias is None else bias.to(dtype)

    def convolve(x: Tensor) -> Tensor:
        return conv2d(x[None].permute(0, 3, 1, 2), weight, bias, **options)[0].permute(1, 2, 0)

    return convolve
