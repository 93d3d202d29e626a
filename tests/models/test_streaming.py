from __future__ import annotations

import pytest
import torch
from torch import Tensor

from separation.models import Generator
from separation.models.history import History
from separation.models.streaming import GeneratorStream


def random_generator(**sizes) -> Generator:
    """A small generator whose every layer does something."""
    torch.manual_seed(0)
    generator = Generator(**{"targets": 2, "zones": ((32, 4), (96, 8)), "widths": (6, 8, 8), "squeeze": 4, **sizes})
    for parameter in generator.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    generator.input_mean += 0.2
    generator.input_scale *= 1.5
    return generator.eval()


def views(generator: Generator, frames: int) -> Tensor:
    """`[views, frames, bins]`, whose first and last frames are silence as far as masks can look."""
    sound = torch.rand(4, frames, generator.bins, generator=torch.Generator().manual_seed(1))
    sound[:, : generator.context] = sound[:, -generator.context :] = 0
    return sound


def streamed(generator: Generator, sound: Tensor, size: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, int]:
    """What comes out of a stream fed `size` frames at a time, `[targets, channels, frames, bins]`, and its lag."""
    stream = GeneratorStream(generator, dtype)
    return torch.cat([stream(piece) for piece in sound.split(size, dim=1)], dim=2), stream.lag


SIZES = [
    {},
    {"widths": (6, 8)},
    {"widths": (6,)},
    {"blocks": (2,)},
    {"blocks": (1, 2)},
    {"blocks": (0,)},
    {"decoder_levels": None, "frequency_levels": None},
    {"decoder_levels": 0, "frequency_levels": 0},
    {"zones": ((96, 4),), "targets": 1},
    {"zones": ((16, 2), (64, 4), (96, 8)), "widths": (6, 8)},
]


@torch.no_grad()
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("size", [8, 24, 160])
def test_a_stream_gives_what_the_generator_does(sizes, size):
    generator = random_generator(**sizes)
    sound = views(generator, 160)
    expected = generator.logits(sound.transpose(-1, -2)[None])[0].transpose(-1, -2)
    logits, lag = streamed(generator, sound, size)
    heard = slice(generator.context, 160 - lag)
    assert expected[:, :, heard].std() > 0.01
    torch.testing.assert_close(logits[:, :, lag:][:, :, heard], expected[:, :, heard], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_half_precision_changes_little():
    generator = random_generator()
    sound = views(generator, 160)
    exact, _ = streamed(generator, sound, 40)
    rounded, _ = streamed(generator, sound, 40, torch.bfloat16)
    assert 0 < (rounded.float() - exact).abs().mean() < 0.01 * exact.abs().mean()


@torch.no_grad()
def test_no_frame_of_the_future_is_needed_beyond_the_lag():
    generator = random_generator()
    sound = views(generator, 160)
    _, lag = streamed(generator, sound, 8)
    assert lag <= generator.context
    changed = sound.clone()
    changed[:, 80:] += 1
    before, after = (streamed(generator, song, 8)[0][:, :, :80] for song in (sound, changed))
    torch.testing.assert_close(before, after)


@pytest.mark.parametrize("length", [0, 1, 5, 12])
def test_a_delay_is_as_long_as_asked(length):
    song = torch.arange(1.0, 41)[:, None]
    delay = History(length)
    late = torch.cat([delay.delay(piece) for piece in song.split([3, 1, 20, 16])])
    assert torch.equal(late, torch.cat([torch.zeros(length, 1), song])[:40])


def test_a_history_comes_before_what_comes_next():
    history = History(2, dim=1)
    assert history(torch.tensor([[1.0, 2, 3]])).tolist() == [[0, 0, 1, 2, 3]]
    assert history(torch.tensor([[4.0]])).tolist() == [[2, 3, 4]]
    assert history(torch.tensor([[5.0, 6]])).tolist() == [[3, 4, 5, 6]]
