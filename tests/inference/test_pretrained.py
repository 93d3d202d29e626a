"""The weights that are shipped."""

from __future__ import annotations

import pytest
import torch

from separation import Separator
from separation.inference.separator import sdr
from separation.inference.weights import PRETRAINED, load_network, load_weights, pretrained

CARD = PRETRAINED / "README.md"
WEIGHTS = sorted(PRETRAINED.glob("*.safetensors"))


def test_there_are_weights_for_vocals():
    assert pretrained("vocals") in WEIGHTS


@pytest.mark.parametrize("path", WEIGHTS, ids=lambda path: path.stem)
def test_weights_are_small_and_described(path):
    assert path.stat().st_size < 10_000_000
    assert path.name in CARD.read_text(encoding="utf-8")
    weights = load_weights(path)
    config = weights.provenance["config"]
    begun_with = config.get("weights") or ()
    begun_with = [begun_with] if isinstance(begun_with, str) else begun_with
    assert weights.provenance["step"] > 0 or len(begun_with) > 1  # the mean of others is a step 0
    assert set(weights.settings.targets) <= set(weights.provenance["validation_sdr"])
    assert not any(name.startswith(("/", "~", "..")) for name in (*config["data"]["stores"], *begun_with))


def test_vocals_are_heard_in_singing_and_not_in_noise():
    """A sung tone over noise: what is taken out is far nearer to the tone than the song is."""
    network = load_network(pretrained("vocals"))
    rate = network.settings.sample_rate
    time = torch.arange(3 * rate) / rate
    vibrato = 220 * time - 1.2 * torch.cos(2 * torch.pi * 5.5 * time) / 5.5
    voice = sum(torch.sin(2 * torch.pi * k * vibrato) / k for k in range(1, 20)).expand(2, -1) * 0.1
    noise = torch.randn(2, len(time), generator=torch.Generator().manual_seed(0)) * 0.05
    stems = Separator(network)(voice + noise, rate)
    assert sdr(voice, stems["vocals"]) > sdr(voice, voice + noise) + 3
    assert stems["vocals"].shape == voice.shape
