from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, gelu

from separation.inference.device import is_int8_native
from separation.models import Generator, eight_bits
from separation.models.eight_bits import Bytes, ConvolutionIn8Bits
from separation.models.history import History
from separation.models.streaming import GeneratorStream

pytestmark = pytest.mark.skipif(
    not is_int8_native(torch.device("cpu")), reason="without VNNI, sums of 8-bit products may overflow"
)


def decibels(signal: Tensor, error: Tensor) -> float:
    return float(10 * torch.log10(signal.square().sum() / error.square().sum()))


@pytest.mark.parametrize("inputs", [(-5.0, 5.0), (-0.2, 6.0), (0.0, 6.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_convolution_is_the_one_in_floats_but_for_rounding(inputs, dtype):
    torch.manual_seed(0)
    weight, bias = torch.randn(16, 16, 3, 3) / 12, torch.randn(16)
    x = torch.rand(20, 30, 16) * (inputs[1] - inputs[0]) + inputs[0]
    entering = Bytes(inputs)
    y = ConvolutionIn8Bits(weight, bias, entering, dtype)(entering.of(x.clone()))
    expected = conv2d(x.permute(2, 0, 1)[None], weight, bias, padding=(0, 1))[0].permute(1, 2, 0)
    assert (y.dtype, y.shape) == (dtype, (18, 30, 16))
    assert decibels(expected - bias, y.float() - expected) > 38


def test_what_lies_outside_the_range_is_cut_off():
    entering = Bytes((-1.0, 3.0))
    layer = ConvolutionIn8Bits(torch.ones(1, 1, 3, 3), torch.zeros(1), entering, torch.float32)
    x = torch.full((3, 3, 1), 100.0)
    assert layer(entering.of(x.clone()))[0, 1, 0] == pytest.approx(9 * 3, rel=0.01)
    assert layer(entering.of(-x))[0, 1, 0] == pytest.approx(-9, rel=0.02)


def test_bytes_after_a_gelu_are_those_of_the_gelu():
    torch.manual_seed(0)
    weight, bias, x = torch.randn(8, 8, 3, 3) / 8, torch.randn(8), torch.randn(20, 30, 8)
    entering, leaving = Bytes((-5.0, 5.0)), Bytes((-0.2, 8.0))
    y = ConvolutionIn8Bits(weight, bias, entering, leaving)(entering.of(x.clone()))
    expected = gelu(ConvolutionIn8Bits(weight, bias, entering, torch.float32)(entering.of(x.clone())))
    assert y.dtype == torch.uint8
    assert ((y.float() - leaving.zero) * leaving.step - expected).abs().max() < 0.021 + leaving.step / 2


@torch.no_grad()
@pytest.mark.parametrize("sizes", [{}, {"blocks": (2,), "decoder_levels": None}, {"widths": (6,)}], ids=str)
def test_a_stream_in_8_bits_is_that_in_floats_but_for_rounding_however_it_is_cut(sizes):
    torch.manual_seed(0)
    generator = Generator(**{"targets": 2, "zones": ((32, 4), (96, 8)), "widths": (6, 8, 8), "squeeze": 4, **sizes})
    for parameter in generator.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    generator.eval().ranges = [((-8.0, 8.0), (-0.2, 12.0))] * len(generator.branches())
    sound = torch.rand(4, 96, generator.bins)
    sound[:, : generator.context] = 0

    def streamed(size: int, eight_bits: bool) -> Tensor:
        stream = GeneratorStream(generator, torch.float32, eight_bits)
        logits = torch.cat([stream(piece) for piece in sound.split(size, dim=1)], dim=2)
        return logits[:, :, generator.context + stream.lag :]

    whole, exact = streamed(96, True), streamed(96, False)
    for size in (8, 24):  # what comes in between is computed in floats, and may be rounded to another side
        assert decibels(exact - exact.mean(), whole - streamed(size, True)) > 40
    assert 25 < decibels(exact - exact.mean(), whole - exact) < 60


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_adding_late_is_adding_what_was_delayed(size):
    torch.manual_seed(0)
    x, y = torch.randn(14, 5), torch.randn(14, 5)
    adding, delaying = History(2), History(2)
    for piece, to in zip(x.split(size), y.split(size), strict=True):
        expected = to + delaying.delay(piece)
        assert torch.equal(adding.add_late(piece, to.clone()), expected)


def test_where_the_operators_are_others_floats_are_used(monkeypatch):
    eight_bits.works.cache_clear()
    assert eight_bits.works() and is_int8_native(torch.device("cpu"))
    for broken in (lambda *_: torch.zeros(1, 40, 18, 30), lambda: None):
        eight_bits.works.cache_clear()
        with monkeypatch.context() as patch:
            patch.setattr(torch.ops.onednn, "qconv2d_pointwise", broken)
            assert not is_int8_native(torch.device("cpu"))
    eight_bits.works.cache_clear()
