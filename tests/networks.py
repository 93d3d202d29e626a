"""Networks for tests: one with random weights, and one that splits songs at a frequency, whose answers are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from separation.audio.stft import SpectralSettings
from separation.inference.masking import MaskingNetwork
from separation.inference.onnx import OnnxNetwork
from separation.inference.weights import build_network, load_weights, save_weights
from separation.training.config import Config, parse_config

FAST = SpectralSettings(sample_rate=44100, n_fft=512, hop=128)

CIRCULAR = dict.fromkeys(("identity", "idempotence", "remix_rest", "remix_target"), 20.0)
PAPER = CIRCULAR | dict.fromkeys(("adversarial_rest", "adversarial_mixture"), 10.0)
"""The weights that the paper gives its terms."""


def tiny_config(targets: tuple[str, ...] = ("vocals",)) -> Config:
    generator = {"band_layout": ((96, 4), (192, 8)), "widths": (6, 8, 8), "squeeze": 4}
    return Config(targets=targets, spectral=FAST, generator=generator)


def random_network(targets: tuple[str, ...] = ("vocals",)) -> MaskingNetwork:
    """A small network of the real kind, whose every layer does something."""
    torch.manual_seed(0)
    network = build_network(tiny_config(targets)).eval()
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return network


def random_weights(path: Path, targets: tuple[str, ...] = ("vocals",)) -> Path:
    """The weights file of `random_network`."""
    save_weights(path, random_network(targets), tiny_config(targets))
    return path


def onnx_network(folder: Path, targets: tuple[str, ...] = ("vocals",)) -> OnnxNetwork:
    """`random_network`, exported into a folder and run by ONNX Runtime."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from separation.apps.export import export

    path = folder / "network.onnx"
    export(random_weights(folder / "network.safetensors", targets), path)
    return OnnxNetwork(path)


def read_facts(path: Path) -> tuple[Config, dict[str, Any]]:
    """The config that weights were trained with, and what else is said about them."""
    facts = dict(load_weights(path).provenance)
    return parse_config(facts.pop("config"), str(path)), facts


class Above(nn.Module):
    """A network in the sense of `separation.models` whose only target is what lies in the bins from `edge` on."""

    context = 0

    def __init__(self, edge: int):
        super().__init__()
        self.edge = edge

    def forward(self, mixture: Tensor) -> Tensor:
        above = (torch.arange(mixture.shape[-2]) >= self.edge).float()[:, None]
        return above.expand(len(mixture), 1, *mixture.shape[1:])


class BandSplit(MaskingNetwork):
    """Calls vocals whatever lies above `frequency` hertz."""

    def __init__(self, frequency: float, settings: SpectralSettings = FAST):
        super().__init__(("vocals",), settings, Above(settings.bin_of(frequency)))
