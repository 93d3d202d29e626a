from __future__ import annotations

import json

import pytest
import torch
from music import make_song
from networks import random_network, tiny_config
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from separation import __main__ as commands
from separation.audio.io import write
from separation.errors import UserError
from separation.inference import separator as separator_module
from separation.inference.checkpoint import load_weights, save_weights
from separation.inference.device import choose_eight_bits, is_int8_native
from separation.inference.ranges import measure_ranges
from separation.inference.separator import Separator

CPU = torch.device("cpu")


def spectrogram(network, seed: int, seconds: float = 1.0) -> torch.Tensor:
    return network.spectral(make_song(seed, seconds, network.settings.sample_rate)["mixture"])[None]


@torch.no_grad()
def test_ranges_are_the_widest_of_what_comes_to_each_convolution():
    network = random_network(("vocals",))
    assert network.generator.ranges is None
    branch, seen = network.generator.branches()[0], []
    branch[0].scale.data.fill_(3.0)
    branch[1].register_forward_pre_hook(lambda _, x: seen.append(x[0] / 3))
    measure_ranges(network, [spectrogram(network, 0), spectrogram(network, 1)])
    low, high = network.generator.ranges[0][0]
    assert high == pytest.approx(max(float(x.max()) for x in seen), rel=1e-5)
    assert low == pytest.approx(min(float(x.min()) for x in seen), rel=1e-5)
    assert float(branch[0].scale.max()) == 3.0
    assert all(-0.2 < low <= 0 < high for _, (low, high) in network.generator.ranges)  # what a GELU gives


@torch.no_grad()
def test_weights_keep_their_ranges_and_refuse_foreign_ones(tmp_path):
    network = random_network(("vocals",))
    measure_ranges(network, [spectrogram(network, 0)])
    save_weights(tmp_path / "new.safetensors", network, tiny_config(("vocals",)))
    loaded = load_weights(tmp_path / "new.safetensors").network.generator
    assert loaded.ranges == network.ranges
    with safe_open(tmp_path / "new.safetensors", framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(tmp_path / "new.safetensors")
    many = len(loaded.ranges)
    for wrong in (5, [[[0, 1]]] * many, [[[1, 2], [0, 1]]] * many, [[[0, 1], [0, 1]]] * (many + 1), [["ab", "cd"]]):
        save_file(tensors, tmp_path / "wrong.safetensors", metadata | {"ranges": json.dumps(wrong)})
        with pytest.raises(UserError, match="is damaged"):
            load_weights(tmp_path / "wrong.safetensors")


def test_songs_tell_the_ranges_of_weights_that_have_none(tmp_path, monkeypatch, capsys):
    network, path = random_network(("vocals",)), tmp_path / "old.safetensors"
    save_weights(path, network, tiny_config(("vocals",)), {"step": 3}, licence="MIT")
    rate = network.settings.sample_rate
    write(tmp_path / "song.wav", make_song(0, 1.0, rate)["mixture"], rate)
    write(tmp_path / "mono.wav", make_song(1, 1.0, rate)["mixture"][:1], rate)
    monkeypatch.setattr("sys.argv", ["separation", "calibrate", str(path), str(tmp_path / "song.wav")])
    commands.main()
    weights = load_weights(path)
    assert weights.network.generator.ranges and weights.provenance == {"step": 3} and weights.licence == "MIT"
    before = weights.network.generator.ranges
    monkeypatch.setattr("sys.argv", ["separation", "calibrate", str(path), str(tmp_path)])
    commands.main()
    after = load_weights(path).network.generator.ranges
    assert after[0][0][0] <= before[0][0][0] + 1e-3 and after[0][0][1] >= before[0][0][1] - 1e-3


def test_8_bits_are_for_cpus_that_are_fast_at_it_and_networks_that_are_ready():
    assert choose_eight_bits("int8", CPU, ready=True)
    assert choose_eight_bits("auto", CPU, ready=True) == is_int8_native(CPU)
    assert not choose_eight_bits("auto", CPU, ready=False)
    assert not choose_eight_bits("fp32", CPU, ready=True)
    assert not choose_eight_bits("auto", torch.device("cuda"), ready=True)
    for device, ready in ((CPU, False), (torch.device("cuda"), True)):
        with pytest.raises(UserError, match="precision int8 is for CPUs"):
            choose_eight_bits("int8", device, ready)


@pytest.mark.skipif(not is_int8_native(CPU), reason="without VNNI, sums of 8-bit products may overflow")
def test_stems_in_8_bits_are_near_those_in_floats_and_sum_to_the_song(monkeypatch):
    network = random_network(("vocals",))
    measure_ranges(network, [spectrogram(network, seed) for seed in range(3)])
    rate = network.settings.sample_rate
    song = make_song(5, 2.0, rate)["mixture"]
    assert Separator(network).eight_bits
    eight, exact = (Separator(network, precision=kind)(song, rate) for kind in ("int8", "fp32"))
    error = (eight["vocals"] - exact["vocals"]).square().mean()
    assert 0 < error < 1e-3 * exact["vocals"].square().mean()
    torch.testing.assert_close(sum(eight.values()), song, atol=1e-5, rtol=0)
    in_pieces = list(Separator(network, precision="int8").stream(song.split(1000, dim=-1), rate))
    assert torch.equal(torch.cat([piece["vocals"] for piece in in_pieces], dim=-1), eight["vocals"])
    monkeypatch.setattr(separator_module, "choose_eight_bits", lambda *_: False)
    assert not Separator(network).eight_bits
