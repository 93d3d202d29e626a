from __future__ import annotations

import numpy as np
import pytest

from separation.audio.resample import Resampler, resample


def tone(frequency: float, sample_rate: int, samples: int) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * np.arange(samples) / sample_rate).astype(np.float32)[None]


@pytest.mark.parametrize("rate", [8000, 22050, 48000, 96000])
def test_a_tone_stays_where_it_is_and_as_loud(rate):
    resampled = resample(tone(1000, rate, rate), rate, 44100)
    assert resampled.shape == (1, 44100)
    middle = slice(2000, -2000)
    np.testing.assert_allclose(resampled[:, middle], tone(1000, 44100, 44100)[:, middle], atol=1e-4, rtol=0)


def test_an_impulse_comes_back_to_its_sample():
    song = np.zeros((2, 48000), np.float32)
    song[:, 12345] = 1
    there_and_back = resample(resample(song, 48000, 44100), 44100, 48000)
    assert there_and_back.shape == song.shape
    assert there_and_back[0].argmax() == 12345


@pytest.mark.parametrize("samples", [0, 1, 2, 480, 50001])
def test_blocks_resample_as_the_whole_does(samples):
    song = np.random.default_rng(0).standard_normal((2, samples), np.float32)
    whole = resample(song, 48000, 44100)
    assert whole.shape == (2, round(samples * 44100 / 48000))
    resampler = Resampler(48000, 44100, 2)
    blocks = [resampler.push(song[:, start : start + 777]) for start in range(0, samples, 777)]
    assert np.array_equal(np.concatenate([*blocks, resampler.flush()], axis=1), whole)


def test_the_same_rate_changes_nothing():
    song = tone(1000, 44100, 100)
    assert np.array_equal(resample(song, 44100, 44100), song)
