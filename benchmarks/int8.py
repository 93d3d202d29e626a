"""What 8-bit integers would cost in the network's convolutions, and what they would save.

    python -m benchmarks.int8 --store store/MUSDB18 --weights pretrained/vocals.safetensors

Quality: SDR as an energy ratio on the validation songs of the store, in float32 and with convolutions whose weights
(one scale a channel) and inputs (one scale a layer) are rounded to 8 bits. Time: each 3 x 3 convolution of the
network's levels for a piece of 128 frames, in int8 with its inputs quantised and its outputs brought back, against
float32 and bfloat16, in turn within one run.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from math import sqrt
from pathlib import Path
from statistics import fmean, median, stdev
from time import process_time

import separation.start  # noqa: F401 (first: see there)

# isort: split
import torch
from separation.models import Generator
from torch import Tensor, nn

from separation.audio.spectral import Spectral
from separation.dataset.signals import mixture_of, target_of
from separation.errors import run_script
from separation.network.checkpoint import load_network
from separation.network.masking import MaskingNetwork
from separation.training.validation import sdr, validation_tracks

FRAMES = 128
"""Of a piece, as songs are separated."""


def rounded(x: Tensor, dim: tuple[int, ...] | None = None) -> Tensor:
    """`x` in 255 equal steps around 0: of its largest magnitude, or of that over the axes `dim`.

    >>> rounded(torch.tensor([127.0, 0.4, -3.6]))
    tensor([127.,   0.,  -4.])
    """
    largest = x.abs().amax() if dim is None else x.abs().amax(dim=dim, keepdim=True)
    scale = largest.clamp_min(1e-12) / 127
    return (x / scale).round() * scale


@contextmanager
def in_8_bits(network: nn.Module, kernel: int | None) -> Iterator[None]:
    """Round weights and inputs of all convolutions, or of those with a `kernel` of so many bins and frames."""
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d) and kernel in (None, *m.kernel_size)]
    before = [layer.weight.data for layer in layers]
    hooks = [layer.register_forward_pre_hook(lambda _, inputs: (rounded(inputs[0]),)) for layer in layers]
    try:
        for layer in layers:
            layer.weight.data = rounded(layer.weight.data, (1, 2, 3))
        yield
    finally:
        for layer, weight, hook in zip(layers, before, hooks, strict=True):
            layer.weight.data = weight
            hook.remove()


@torch.inference_mode()
def scores(network: MaskingNetwork, store: Path) -> list[float]:
    """SDR in dB of every target of every validation song."""
    spectral, found = Spectral(network.settings), []
    for track in validation_tracks([str(store)]):

        def crop(signal, track=track) -> Tensor:
            return signal.crop(0, track.frames, network.settings.bins)

        estimates = network(crop(mixture_of(track))[None])[0]
        for target, estimate in zip(network.targets, estimates, strict=True):
            if truth := target_of(track, target):
                reference = spectral.inverse(crop(truth), track.samples)
                found.append(sdr(reference, spectral.inverse(estimate, track.samples)))
    return found


def seconds(layer: nn.Module, x: Tensor, runs: int) -> float:
    """The fastest of some runs."""
    times = []
    for _ in range(runs):
        begun = process_time()
        layer(x)
        times.append(process_time() - begun)
    return min(times)


class Quantised(nn.Module):
    """A convolution in int8, between floats."""

    def __init__(self, layer: nn.Conv2d, x: Tensor):
        super().__init__()
        model = torch.ao.quantization.QuantWrapper(deepcopy(layer)).eval()
        model.qconfig = torch.ao.quantization.get_default_qconfig("x86")
        torch.ao.quantization.prepare(model, inplace=True)
        model(x)
        self.model = torch.ao.quantization.convert(model)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


@torch.inference_mode()
def times(generator: Generator, runs: int) -> Iterator[tuple[str, list[float]]]:
    """By level, the seconds of one convolution of it, in float32, bfloat16 and int8."""
    bands = sum(zone.bands for zone in generator.zones)
    for level, blocks in enumerate((*generator.encoder, generator.bottom)):
        layer = blocks[0].convolution[1]
        shape = (1, layer.in_channels, FRAMES >> level, bands >> level)
        x = torch.randn(shape).contiguous(memory_format=torch.channels_last)
        layer = deepcopy(layer).to(memory_format=torch.channels_last)
        half, whole = deepcopy(layer).bfloat16(), Quantised(layer, x)
        turns = [
            [seconds(layer, x, runs), seconds(half, x.bfloat16(), runs), seconds(whole, x, runs)] for _ in range(3)
        ]
        yield " x ".join(map(str, shape[1:])), [median(column) for column in zip(*turns, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    network = load_network(options.weights).eval()
    print("| channels x frames x bands | float32 in ms | bfloat16 | int8, conversions included |\n|---|---|---|---|")
    for shape, (single, half, whole) in times(network.generator, options.runs):
        print(f"| {shape} | {1000 * single:.1f} | {half / single:.2f}x | {whole / single:.2f}x |", flush=True)
    print("\n| 8 bits in | gain in dB |\n|---|---|")
    before = scores(network, options.store)
    for name, kernel in {"3 x 3 convolutions": 3, "all convolutions": None}.items():
        with in_8_bits(network.generator, kernel):
            gains = [after - old for after, old in zip(scores(network, options.store), before, strict=True)]
        print(f"| {name} | {fmean(gains):+.2f} ± {stdev(gains) / sqrt(len(gains)):.2f} |", flush=True)


if __name__ == "__main__":
    run_script(main)
