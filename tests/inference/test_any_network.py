"""Networks that know nothing of streams are separated in chunks or in segments; what they must give is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import FAST, BandSplit, random_network
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from separation.errors import UserError
from separation.inference.config import NetworkSettings
from separation.inference.masking import MaskingNetwork
from separation.inference.separator import Separator
from separation.inference.weights import build_network, load_weights, save_weights

HOP = FAST.hop


def noise(samples: int, channels: int = 2) -> Tensor:
    return 0.2 * torch.randn(channels, samples, generator=torch.Generator().manual_seed(0))


class Smear(nn.Module):
    """A network with a context of `context` frames, all of which count alike, and with a stride."""

    def __init__(self, targets: int, bins: int, complete: bool, context: int = 5, stride: int = 1, turn: float = 0.0):
        super().__init__()
        self.targets, self.context, self.stride, self.turn = targets, context, stride, turn
        self.weight = nn.Parameter(torch.ones(1, 1, 1, 2 * context + 1))

    def forward(self, mixture: Tensor) -> Tensor:
        assert mixture.shape[-1] % self.stride == 0
        level = conv2d(pad(mixture.abs().mean(1, keepdim=True), (self.context, self.context)), self.weight)
        masks = torch.sigmoid(level - level.mean(2, keepdim=True))[:, None].expand(-1, self.targets, 2, -1, -1)
        return torch.polar(masks, torch.full_like(masks, self.turn)) if self.turn else masks


class WholeSong(nn.Module):
    """A network that sees all it is given: its mask is the place within that, rising from 0 to 1 `rises` times."""

    def __init__(self, segment: int, rises: float = 1.0):
        super().__init__()
        self.segment, self.rises, self.lengths = segment, rises, []

    def forward(self, mixture: Tensor) -> Tensor:
        frames = mixture.shape[-1]
        self.lengths.append(frames)
        place = (torch.arange(frames) / frames * self.rises).clamp(max=1.0)
        return place.expand(len(mixture), 1, *mixture.shape[1:])


def network(module: nn.Module) -> MaskingNetwork:
    return MaskingNetwork(("vocals",), FAST, module)


@pytest.mark.parametrize("chunk_frames", [None, 1, 16, 100])
@pytest.mark.parametrize("sizes", [{}, {"context": 9, "stride": 4}, {"context": 0}, {"turn": 0.7}], ids=str)
@torch.no_grad()
def test_chunks_give_what_the_whole_song_does(sizes, chunk_frames):
    smear = network(Smear(1, FAST.bins, False, **sizes))
    song = noise(30_000)
    shift = smear.context * HOP * 3 + 4 * HOP * smear.stride
    shift -= shift % (smear.stride * HOP)
    mirrored = torch.from_numpy(np.pad(song.numpy(), ((0, 0), (shift, shift)), mode="symmetric"))
    whole = smear.spectral.inverse(smear(smear.spectral(mirrored)[None])[0, 0], mirrored.shape[1])[:, shift:-shift]
    found = Separator(smear, chunk_frames=chunk_frames, precision="fp32")(song, 44100)
    assert whole.std() > 0.01
    torch.testing.assert_close(found["vocals"], whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(found["vocals"] + found["accompaniment"], song, atol=1e-6, rtol=0)


@torch.no_grad()
def test_a_stream_is_the_same_as_chunks():
    """`UNet.stream` is an optimisation: without it the same network gives the same stems."""
    song, streamed = noise(60_000), random_network()
    plain = Hidden(streamed.generator)
    expected = Separator(streamed, precision="fp32")(song, 44100)
    found = Separator(network(plain), precision="fp32")(song, 44100)
    assert expected["vocals"].std() > 0.01 and not hasattr(plain, "stream")
    torch.testing.assert_close(found["vocals"], expected["vocals"], atol=1e-5, rtol=0)


class Hidden(nn.Module):
    """A U-Net that keeps its stream to itself."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner, self.context, self.stride = inner, inner.context, inner.stride

    def forward(self, mixture: Tensor) -> Tensor:
        return self.inner(mixture)


@torch.no_grad()
def test_segments_overlap_and_their_weights_sum_to_one():
    """With the same mask for every frame of every segment, the target is that share of the song everywhere."""
    half = WholeSong(segment=40)
    half.forward = lambda mixture: torch.full((len(mixture), 1, *mixture.shape[1:]), 0.5)
    song = noise(50_000)
    for chunk_frames in (None, 1, 7):
        stems = Separator(network(half), chunk_frames=chunk_frames, precision="fp32")(song, 44100)
        torch.testing.assert_close(stems["vocals"], song / 2, atol=1e-6, rtol=0)


@torch.no_grad()
def test_below_150_decibels_there_is_silence_for_the_network():
    """Subnormal numbers, in which a fade-out ends, take processors several times the time of music."""
    torch.set_flush_denormal(False)  # which a command may have switched on in this process
    half = WholeSong(segment=40)
    half.forward = lambda mixture: torch.full((len(mixture), 1, *mixture.shape[1:]), 0.5)
    separator, song = Separator(network(half), precision="fp32"), noise(10_000).clamp(-0.3, 0.3)
    torch.testing.assert_close(separator(1e-4 * song, 44100)["vocals"], 0.5e-4 * song, atol=2e-8, rtol=0)
    for level in (1e-8, 1e-39):
        stems = separator(level * song, 44100)
        assert (level * song).any() and not stems["vocals"].any()
        assert torch.equal(stems["accompaniment"], level * song)


@torch.no_grad()
def test_segments_have_no_joints():
    """Masks that jump by 1 where a segment ends and the next begins change by small steps where they are crossfaded."""
    ramps, song = WholeSong(segment=64), torch.full((2, 150_000), 0.5)
    vocals = Separator(network(ramps), precision="fp32")(song, 44100)["vocals"][0, 20_000:-20_000]
    assert max(ramps.lengths) == 64 and vocals.max() - vocals.min() > 0.2
    steps = (vocals[HOP:] - vocals[:-HOP]).abs() / 0.5  # of the mask, from frame to frame
    assert steps.max() < 2 / 16  # segments overlap by 16 frames
    assert ramps.lengths.count(64) > 0.9 * 150_000 / HOP / 48 - 2


@torch.no_grad()
@pytest.mark.parametrize("make", [lambda: random_network(), lambda: network(Smear(1, FAST.bins, False, 9, 4))])
def test_surroundings_are_all_that_a_part_depends_on(make):
    """And not much more: a part with half of them around it is another."""
    separator, song, rate = Separator(make(), precision="fp32"), noise(60_000), 44100
    whole = separator(song, rate)["vocals"]
    start, end = 31_000, 34_000

    def part(surroundings: float) -> Tensor:
        first = int((start / rate - surroundings) // separator.grid * separator.grid * rate)
        heard = song[:, first : end + round(surroundings * rate)]
        return separator(heard, rate)["vocals"][:, start - first : end - first]

    torch.testing.assert_close(part(separator.surroundings), whole[:, start:end], atol=1e-5, rtol=0)
    assert (part(separator.surroundings / 4) - whole[:, start:end]).abs().max() > 1e-4


@torch.no_grad()
def test_live_segments_are_the_whole_song():
    song, separator = noise(20_000), Separator(network(WholeSong(segment=24)), chunk_frames=1, precision="fp32")
    whole, live, got = separator(song, 44100)["vocals"], separator.live(44100), []
    for block in song.split(500, dim=-1):
        got.append(live.push(block)["vocals"])
    torch.testing.assert_close(torch.cat([*got, live.flush()["vocals"]], dim=-1), whole, atol=1e-6, rtol=0)


@pytest.mark.parametrize("targets", [("vocals",), ("vocals", "drums", "bass", "other")])
def test_open_unmix_is_built_saved_loaded_and_separates(tmp_path, targets):
    settings = NetworkSettings(targets, FAST, "open_unmix", {"hidden": 16, "layers": 1, "segment": 64})
    torch.manual_seed(0)
    built = build_network(settings).eval()
    path = tmp_path / "open_unmix.safetensors"
    save_weights(path, built, settings)
    loaded = load_weights(path)
    assert loaded.settings == settings and settings.generator["dropout"] == 0.4
    song = noise(40_000)
    stems = Separator(loaded.network, precision="fp32")(song, 48000)
    assert tuple(stems) == built.sources and all(stem.std() > 0.01 for stem in stems.values())
    torch.testing.assert_close(sum(stems.values()), song, atol=1e-5, rtol=0)


@pytest.fixture
def own_network(tmp_path, monkeypatch):
    """A weights file of a network whose code is not of this package, in a folder from which it can be imported."""
    folder = tmp_path / "code"
    folder.mkdir()
    source = f"import torch\nfrom torch import Tensor, nn\nfrom torch.nn.functional import conv2d, pad\n{SMEAR}"
    (folder / "my_network.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    settings = NetworkSettings(("vocals",), FAST, "my_network:Smear", {"context": 3})
    save_weights(tmp_path / "own.safetensors", build_network(settings), settings)
    import sys

    sys.modules.pop("my_network")
    return tmp_path / "own.safetensors"


def test_code_is_imported_only_when_it_is_named(own_network):
    import sys

    for named in (None, "unet", "other:Smear"):
        with pytest.raises(UserError) as error:
            load_weights(own_network, network=named)
        assert error.value.code == "untrusted_network" and "--network my_network:Smear" in str(error.value)
        assert "my_network" not in sys.modules
    separator = Separator.load(own_network, "cpu", network="my_network:Smear")
    assert separator(noise(5000), 44100)["vocals"].shape == (2, 5000)


@pytest.mark.parametrize(
    ("name", "arguments", "complaint"),
    [
        ("no_such_package:Net", {}, "cannot be imported"),
        ("networks:NoSuchClass", {}, "cannot be imported"),
        ("test_any_network:Smear", {"depth": 3}, "unknown key generator.depth"),
        ("test_any_network:Smear", {"context": "wide"}, "generator.context must be a whole number"),
        ("test_any_network:WholeSong", {}, "must take targets, bins and complete, not"),
    ],
)
def test_what_is_no_network_is_a_sentence(name, arguments, complaint):
    with pytest.raises(UserError, match=complaint):
        build_network(NetworkSettings(("vocals",), FAST, name, arguments))
    with pytest.raises(ValueError, match="network must be one of unet, open_unmix"):
        NetworkSettings(network="resnet")


def test_a_network_without_parameters_runs_on_the_cpu():
    assert BandSplit(1000).device == torch.device("cpu")


SMEAR = __import__("inspect").getsource(Smear)
