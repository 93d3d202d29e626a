"""Blocks with their convolutions in 8-bit integers, for processors that multiply these faster than any floats (VNNI).

Weights have one scale a channel, inputs one for all that ever comes: what `separation.inference.ranges` has measured on
music. So a piece of a song is computed alike, whatever comes with it. What lies outside the range is cut off.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import conv2d, gelu

from .block_stream import BlockStream, FrequencyStream, inverse_rms
from .blocks import Block, Range
from .history import History

SIGMOID = 1.702
"""GELU is x sigmoid(1.702 x) to within 0.02 (Hendrycks and Gimpel, 2016), far less than a step of the bytes."""


class BlockStreamIn8Bits:
    """What `BlockStream` is, of a block whose `ranges` are known."""

    lag = BlockStream.lag

    def __init__(self, block: Block, dtype: torch.dtype):
        norm, first, _, second = block.convolution
        entering, between = (Bytes(limits) for limits in block.convolution.ranges)
        self.first = ConvolutionIn8Bits(first.weight * norm.scale, first.bias, entering, between)
        self.second = ConvolutionIn8Bits(second.weight, second.bias, between, dtype)
        self.entering, self.quantised, self.late = entering, History(2 * self.lag), History(self.lag)
        self.frequency = block.frequency and FrequencyStream(block.frequency, dtype)

    def __call__(self, x: Tensor) -> Tensor:
        # What is remembered for the first convolution has a quarter of the bytes that it would have before its norm.
        y = self.first(self.quantised(self.entering.of(x * inverse_rms(x))))
        x = self.late.add_late(x, self.second(y))
        return self.frequency(x) if self.frequency else x


class Bytes:
    """How numbers within `limits` are written as bytes: `step` times the byte less `zero`."""

    def __init__(self, limits: Range):
        low, high = limits
        self.step = max(high - low, 1e-6) / 255
        self.zero = round(-low / self.step)

    def of(self, x: Tensor) -> Tensor:
        """Of float32, which is changed."""
        x = x.mul_(1 / self.step).add_(self.zero + 0.5).clamp_(0, 255.5)
        return x.to(torch.int16).to(torch.uint8)  # ten times faster than at once


class ConvolutionIn8Bits:
    """A 3 x 3 convolution over frames and bands, of bytes `[frames, bands, channels]` to two frames less.

    What comes out are floats of a type or, after a GELU, bytes again.
    """

    def __init__(self, weight: Tensor, bias: Tensor, inputs: Bytes, outputs: torch.dtype | Bytes):
        scales, bias = weight.abs().amax((1, 2, 3)).clamp_min(1e-12) / 127, bias.float()
        weight = (weight / scales[:, None, None, None]).round().to(torch.int8)
        geometry = [1, 1], [0, 1], [1, 1], 1  # stride, padding, dilation, groups
        packed = torch.ops.onednn.qconv_prepack(weight, scales, inputs.step, inputs.zero, *geometry, None)
        if isinstance(outputs, Bytes):
            scales, bias = scales * SIGMOID, bias * SIGMOID  # for oneDNN's swish is x sigmoid(x)
            self.outputs = outputs.step * SIGMOID, outputs.zero, torch.uint8, "swish", [], ""
        else:
            self.outputs = 1.0, 0, outputs, "none", [], ""
        zeros = torch.zeros(len(weight), dtype=torch.int64)
        self.inputs = inputs.step, inputs.zero, packed, scales, zeros, bias, *geometry

    def __call__(self, x: Tensor) -> Tensor:
        x = x[None].permute(0, 3, 1, 2)
        x = torch.ops.onednn.qconv2d_pointwise(x, *self.inputs, *self.outputs)
        return x[0].permute(1, 2, 0)


@cache
def works() -> bool:
    """Whether this torch computes such convolutions on this machine, and rightly: its operators are no public ones."""
    x, weight = torch.linspace(-1, 2, 20 * 30 * 40).view(20, 30, 40), torch.linspace(-0.1, 0.2, 40 * 40 * 9)
    weight, bias = weight.view(40, 40, 3, 3), torch.linspace(-1, 1, 40)
    expected = gelu(conv2d(x.permute(2, 0, 1)[None], weight, bias, padding=(0, 1)))[0].permute(1, 2, 0)
    entering, leaving = Bytes((-1.0, 2.0)), Bytes((-0.2, float(expected.max())))
    try:
        y = ConvolutionIn8Bits(weight, bias, entering, leaving)(entering.of(x.clone()))
        return y.shape == expected.shape and bool(
            ((y.float() - leaving.zero) * leaving.step - expected).abs().max() < 1
        )
    except (RuntimeError, TypeError, ValueError, AttributeError):
        return False
