from __future__ import annotations

import pytest
import torch
from torch import Tensor

from separation.models import UNet
from separation.models.unet_stream import Memory


def random_network(**sizes) -> UNet:
    """A small network whose every layer does something."""
    torch.manual_seed(0)
    network = UNet(**{"targets": 2, "bins": 100, "band_layout": ((32, 4), (96, 8)), "widths": (6, 8, 8), **sizes})
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    network.fit_input(torch.full((4, 96), 0.2), torch.full((4, 96), 1.5))
    return network.eval()


def mixture(network: UNet, frames: int) -> Tensor:
    """`[2 channels, bins, frames]`, whose first and last frames are silence as far as masks can look."""
    sound = torch.randn(2, 100, frames, generator=torch.Generator().manual_seed(1), dtype=torch.complex64)
    sound[..., : network.context] = sound[..., -network.context :] = 0
    return sound


def streamed(network: UNet, sound: Tensor, size: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, int]:
    """What comes out of a stream fed `size` frames at a time, `[targets, channels, bins, frames]`, and its lag."""
    stream = network.stream(dtype)
    return torch.cat([stream(piece) for piece in sound.split(size, dim=-1)], dim=-1), stream.lag


SIZES = [
    {},
    {"widths": (6, 8)},
    {"widths": (6,)},
    {"blocks": (2,)},
    {"blocks": (1, 2)},
    {"blocks": (0,)},
    {"decoder_levels": None, "frequency_levels": None},
    {"decoder_levels": 0, "frequency_levels": 0},
    {"band_layout": ((96, 4),), "targets": 1},
    {"band_layout": ((16, 2), (64, 4), (96, 8)), "widths": (6, 8)},
]


@torch.no_grad()
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("size", [8, 24, 160])
def test_a_stream_gives_what_the_network_does(sizes, size):
    network = random_network(**sizes)
    sound = mixture(network, 160)
    expected = network(sound[None])[0]
    masks, lag = streamed(network, sound, size)
    heard = slice(network.context, 160 - lag)
    assert expected[..., heard].std() > 0.01
    torch.testing.assert_close(masks[..., lag:][..., heard], expected[..., heard], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_half_precision_changes_little():
    network = random_network()
    sound = mixture(network, 160)
    exact, _ = streamed(network, sound, 40)
    rounded, _ = streamed(network, sound, 40, torch.bfloat16)
    assert 0 < (rounded.float() - exact).abs().mean() < 0.01 * exact.abs().mean()


@torch.no_grad()
def test_no_frame_of_the_future_is_needed_beyond_the_lag():
    network = random_network()
    sound = mixture(network, 160)
    _, lag = streamed(network, sound, 8)
    assert lag <= network.context
    changed = sound.clone()
    changed[..., 80:] += 1
    before, after = (streamed(network, song, 8)[0][..., :80] for song in (sound, changed))
    torch.testing.assert_close(before, after)


@pytest.mark.parametrize("length", [0, 1, 5, 12])
def test_a_delay_is_as_long_as_asked(length):
    song = torch.arange(1.0, 41)[:, None]
    delay = Memory(length)
    late = torch.cat([delay.delay(piece) for piece in song.split([3, 1, 20, 16])])
    assert torch.equal(late, torch.cat([torch.zeros(length, 1), song])[:40])


def test_a_history_comes_before_what_comes_next():
    history = Memory(2, dim=1)
    assert history(torch.tensor([[1.0, 2, 3]])).tolist() == [[0, 0, 1, 2, 3]]
    assert history(torch.tensor([[4.0]])).tolist() == [[2, 3, 4]]
    assert history(torch.tensor([[5.0, 6]])).tolist() == [[3, 4, 5, 6]]
