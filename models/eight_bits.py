"""Blocks with their convolutions in 8-bit integers, for processors that multiply these faster than any floats (VNNI).

Weights have one scale a channel, inputs one for all that ever comes: what `separation.network.ranges` has measured on
music. So a piece of a song is computed alike, whatever comes with it. What lies outside the range is cut off.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .block_stream import BlockStream, inverse_rms
from .blocks import Block, Range
from .history import History


class BlockStreamIn8Bits(BlockStream):
    """A `BlockStream` of a block whose `ranges` are known."""

    def __init__(self, block: Block, dtype: torch.dtype):
        super().__init__(block, dtype)
        norm, first, _, second = block.convolution
        ranges = block.convolution.ranges
        self.first = ConvolutionIn8Bits(first.weight * norm.scale, first.bias, ranges[0], torch.float32)
        self.second = ConvolutionIn8Bits(second.weight, second.bias, ranges[1], dtype)
        self.quantised, self.late = History(2 * self.lag), History(self.lag)

    def __call__(self, x: Tensor) -> Tensor:
        # What is remembered for the first convolution has a quarter of the bytes that it would have before its norm.
        y = self.first(self.quantised(self.first.quantise(x * inverse_rms(x))))
        y = self.second(self.second.quantise(self.activation(y)))
        x = self.late.add_late(x, y)
        return self.frequency(x) if self.frequency else x


class ConvolutionIn8Bits:
    """A 3 x 3 convolution over frames and bands, of `[frames, bands, channels]` to two frames less of `dtype`."""

    def __init__(self, weight: Tensor, bias: Tensor, inputs: Range, dtype: torch.dtype):
        low, high = inputs
        self.step = max(high - low, 1e-6) / 255
        self.zero = round(-low / self.step)
        scales = weight.abs().amax((1, 2, 3)).clamp_min(1e-12) / 127
        weight = (weight / scales[:, None, None, None]).round().to(torch.int8)
        geometry = [1, 1], [0, 1], [1, 1], 1  # stride, padding, dilation, groups
        packed = torch.ops.onednn.qconv_prepack(weight, scales, self.step, self.zero, *geometry, None)
        zeros = torch.zeros(len(weight), dtype=torch.int64)
        self.inputs = self.step, self.zero, packed, scales, zeros, bias.float(), *geometry
        self.outputs = 1.0, 0, dtype, "none", [], ""  # no scale, for they are floats, and nothing done to them

    def quantise(self, x: Tensor) -> Tensor:
        """Float32, which is changed, to the bytes that are convolved."""
        x = x.mul_(1 / self.step).add_(self.zero + 0.5).clamp_(0, 255.5)
        return x.to(torch.int16).to(torch.uint8)  # ten times faster than at once

    def __call__(self, x: Tensor) -> Tensor:
        x = x[None].permute(0, 3, 1, 2)
        x = torch.ops.onednn.qconv2d_pointwise(x, *self.inputs, *self.outputs)
        return x[0].permute(1, 2, 0)
