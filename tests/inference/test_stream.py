from __future__ import annotations

import pytest
import torch
from networks import onnx_network, random_network
from torch import Tensor

from separation.errors import UserError
from separation.inference.separator import Separator
from separation.stems import STEMS


def noise(samples: int, channels: int = 2) -> Tensor:
    return 0.2 * torch.randn(channels, samples, generator=torch.Generator().manual_seed(0))


def blocks(song: Tensor, size: int | None) -> list[Tensor]:
    """A song in blocks of `size` samples, or of any: none, one and thousands."""
    if size:
        return list(song.split(size, dim=-1))
    sizes = [0, 1, 441, 0, 10000, 3]
    return list(song.split([*sizes, song.shape[-1] - sum(sizes)], dim=-1))


@pytest.fixture(scope="module", params=["torch", "onnx"])
def network(request, tmp_path_factory):
    """The same network, run by both engines."""
    return random_network(STEMS) if request.param == "torch" else onnx_network(tmp_path_factory.mktemp("onnx"), STEMS)


@pytest.mark.parametrize(
    ("rate", "channels", "size"), [(44100, 2, 128), (44100, 1, None), (48000, 2, 1000), (8000, 1, 37)]
)
def test_a_song_heard_live_is_the_whole_song_to_the_bit(network, rate, channels, size):
    song, stems = noise(20000, channels), ("vocals", "accompaniment", "no_drums")
    whole = Separator(network, stems, chunk_frames=1)(song, rate)
    live = Separator(network, stems).live(rate)
    pushed, got, behind = 0, [], 0
    for block in blocks(song, size):
        got.append(live.push(block))
        pushed += block.shape[-1]
        behind = max(behind, pushed - sum(piece["vocals"].shape[-1] for piece in got))
    got.append(live.flush())
    for stem in stems:
        assert torch.equal(torch.cat([piece[stem] for piece in got], dim=-1), whole[stem])
    assert whole["vocals"].std() > 0.01
    if size:  # no stem is later than was said, nor much earlier
        assert behind - size < live.latency * rate < 1.1 * behind + 0.01 * rate


def test_the_size_of_chunks_changes_no_more_than_rounding(network):
    song = noise(30000)
    whole, live = (
        Separator(network, precision="fp32")(song, 44100),
        Separator(network, precision="fp32").live(44100),
    )
    first, last = live.push(song), live.flush()
    for stem, waveform in whole.items():
        torch.testing.assert_close(torch.cat([first[stem], last[stem]], dim=-1), waveform, atol=1e-6, rtol=0)


def test_a_song_that_never_was_has_empty_stems(network):
    live = Separator(network).live(44100)
    assert all(stem.shape == (2, 0) for stem in live.flush().values())


def test_channels_that_come_and_go_are_refused(network):
    live = Separator(network).live(44100)
    live.push(noise(100))
    with pytest.raises(UserError, match="2 channels, but one of its blocks has 1"):
        live.push(noise(100, 1))
    with pytest.raises(UserError, match="sample rate"):
        Separator(network).live(0)
