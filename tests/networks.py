"""Networks for tests: one with random weights, and one that splits songs at a frequency, whose answers are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from separation.audio.spectral import Spectral, SpectralSettings
from separation.inference.checkpoint import build_network, load_weights, save_weights
from separation.inference.config import GeneratorSettings
from separation.inference.masking import MaskingNetwork
from separation.stems import source_names
from separation.training.config import Config, parse_config

FAST = SpectralSettings(sample_rate=44100, n_fft=512, hop=128)

CIRCULAR = dict.fromkeys(("identity", "idempotence", "remix_rest", "remix_target"), 20.0)
PAPER = CIRCULAR | dict.fromkeys(("adversarial_rest", "adversarial_mixture"), 10.0)
"""The weights that the paper gives its terms."""


def tiny_config(targets: tuple[str, ...] = ("vocals",)) -> Config:
    generator = GeneratorSettings(zones=((96, 4), (192, 8)), widths=(6, 8, 8), squeeze=4)
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


def read_facts(path: Path) -> tuple[Config, dict[str, Any]]:
    """The config that weights were trained with, and what else is said about them."""
    facts = dict(load_weights(path).provenance)
    return parse_config(facts.pop("config"), str(path)), facts


class BandSplit(nn.Module):
    """Calls vocals whatever lies above `frequency` hertz."""

    context, stride, lag, targets, ranges = 0, 1, 0, ("vocals",), None

    def __init__(self, frequency: float, settings: SpectralSettings = FAST):
        super().__init__()
        self.settings, self.spectral, self.sources = settings, Spectral(settings), source_names(self.targets)
        self.edge = settings.bin_of(frequency)

    def forward(self, mixture: Tensor) -> Tensor:
        above = (torch.arange(self.settings.bins) >= self.edge).float()[:, None]
        return (mixture * above)[..., None, :, :, :]

    def stream(self, dtype: torch.dtype, targets: tuple[str, ...], eight_bits: bool) -> BandSplit:
        return self
