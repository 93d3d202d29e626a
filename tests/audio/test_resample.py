from __future__ import annotations

import numpy as np
import pytest
import torch

from separation.audio.resample import Resampler, resample


def tone(frequency: float, sample_rate: int, samples: int) -> torch.Tensor:
    time = torch.arange(samples, dtype=torch.float64) / sample_rate
    return torch.sin(2 * torch.pi * frequency * time).float()[None]


@pytest.mark.parametrize("rate", [8000, 22050, 48000, 96000])
def test_a_tone_stays_where_it_is_and_as_loud(rate):
    resampled = resample(tone(1000, rate, rate), rate, 44100)
    assert resampled.shape == (1, 44100)
    middle = slice(2000, -2000)
    torch.testing.assert_close(resampled[:, middle], tone(1000, 44100, 44100)[:, middle], atol=1e-4, rtol=0)


def test_an_impulse_comes_back_to_its_sample():
    song = torch.zeros(2, 48000)
    song[:, 12345] = 1
    there_and_back = resample(resample(song, 48000, 44100), 44100, 48000)
    assert there_and_back.shape == song.shape
    assert there_and_back[0].argmax() == 12345


@pytest.mark.parametrize("samples", [0, 1, 2, 480, 50001])
def test_blocks_resample_as_the_whole_does(samples):
    song = torch.randn(2, samples, generator=torch.Generator().manual_seed(0))
    whole = resample(song, 48000, 44100)
    assert whole.shape == (2, round(samples * 44100 / 48000))
    resampler = Resampler(48000, 44100, 2)
    blocks = [resampler.push(block.numpy()) for block in song.split(777, dim=-1)]
    assert np.array_equal(np.concatenate([*blocks, resampler.flush()], axis=1), whole.numpy())


def test_the_same_rate_changes_nothing():
    song = torch.rand(1, 100)
    assert torch.equal(resample(song, 44100, 44100), song)
