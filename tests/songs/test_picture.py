from __future__ import annotations

import math
import weakref
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from separation.audio.decoders import AudioInfo
from separation.audio.stft import mel_filters
from separation.songs.picture import BANDS, COLUMNS, paint, sketch


def sine(frequency: float, seconds: float, rate: int = 44100) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)[None].astype(np.float32)


def split(waveform: np.ndarray, block: int) -> list[np.ndarray]:
    return [waveform[:, start : start + block] for start in range(0, waveform.shape[1], block)]


def draw(waveform: np.ndarray, rate: int = 44100, block: int = 1 << 16) -> np.ndarray:
    return sketch(split(waveform, block), AudioInfo(rate, *waveform.shape))


@pytest.mark.parametrize(("bins", "sample_rate", "highest"), [(2049, 44100, 20_000), (513, 8000, 4000)])
def test_filters_are_triangles_that_overlap_by_half(bins, sample_rate, highest):
    """Between the centres of the first and the last band, two filters sum to one at every bin."""
    filters = mel_filters(96, bins, sample_rate, 40, highest)
    frequencies = np.linspace(0, sample_rate / 2, bins)
    places = np.array([band(frequency, highest) for frequency in frequencies[1:]])
    inside = np.flatnonzero((places > 0) & (places < 95)) + 1
    np.testing.assert_allclose(filters[:, inside].sum(axis=0), 1, atol=1e-6)
    assert (abs(filters[:, inside].argmax(axis=0) - places[inside - 1]) <= 0.51).all()


def band(frequency: float, highest: float = 20_000) -> float:
    """Where on the mel scale, from 40 Hz to `highest`, a frequency lies: the number of its band."""
    mel = [2595 * math.log10(1 + hertz / 700) for hertz in (40, frequency, highest)]
    return (BANDS + 1) * (mel[1] - mel[0]) / (mel[2] - mel[0]) - 1


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(png)))


@pytest.mark.parametrize("rate", [16000, 44100, 48000, 96000])
@pytest.mark.parametrize("frequency", [100, 1000, 6000])
def test_a_sine_is_bright_in_its_band_alone(rate, frequency):
    power = draw(sine(frequency, 2, rate), rate)
    assert abs(int(power.mean(axis=1).argmax()) - band(frequency, min(20_000, rate / 2))) <= 0.7
    assert 0.3 < power.max() <= 1
    assert (power.mean(axis=1) > 1e-3 * power.mean(axis=1).max()).sum() < (20 if frequency == 100 else 7)


def test_time_runs_from_left_to_right_over_the_whole_picture():
    waveform = np.concatenate([sine(300, 3), np.zeros((1, 44100 * 3)), sine(5000, 6)], axis=-1)
    power = draw(waveform)
    columns = power.shape[1]
    low, high = power[round(band(300))], power[round(band(5000))]
    loud = [np.flatnonzero(line > 0.1 * line.max()) / columns for line in (low, high)]
    assert loud[0].min() < 0.01 and loud[0].max() == pytest.approx(0.25, abs=0.01)
    assert loud[1].min() == pytest.approx(0.5, abs=0.01) and loud[1].max() > 0.98


def test_a_picture_does_not_depend_on_the_blocks():
    waveform = np.random.default_rng(0).standard_normal((2, 100_000))
    for block in (100, 4097, 100_000):
        np.testing.assert_allclose(draw(waveform, block=block), draw(waveform), rtol=1e-3, atol=1e-9)


def test_channels_that_cancel_each_other_are_seen():
    left = sine(1000, 1)
    np.testing.assert_allclose(draw(np.concatenate([left, -left])), draw(left), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("samples", [1, 441, 5000])
def test_a_moment_of_sound_has_a_picture(samples):
    power = draw(0.5 * np.ones((2, samples)))
    assert power.shape[0] == BANDS and 1 <= power.shape[1] <= 10 and np.isfinite(power).all()


def test_a_long_song_takes_no_more_memory_than_a_short_one():
    """Every block is freed before the next but one arrives, and what is kept is a picture."""
    blocks, alive = weakref.WeakValueDictionary(), []

    class Block(np.ndarray):  # plain arrays take no weak references
        pass

    def stream(count: int):
        for _ in range(count):
            block = np.random.default_rng(0).random((1, 1 << 15)).view(Block)
            blocks[id(block)] = block
            yield block
            del block
            alive.append(len(blocks))

    minutes = 20
    count = minutes * 60 * 8000 // (1 << 15)
    assert sketch(stream(count), AudioInfo(8000, 1, count << 15)).shape == (BANDS, COLUMNS)
    assert len(alive) == count and max(alive) <= 2


def test_a_file_longer_than_its_header_says_is_drawn_to_its_end():
    power = sketch(split(sine(1000, 2), 1000), AudioInfo(44100, 1, 44100))
    assert np.isfinite(power).all() and power[round(band(1000)), -1] > 0.1


def test_stems_of_a_song_have_one_scale_with_the_low_notes_at_the_bottom():
    loud = np.zeros((BANDS, 10))
    loud[0] = 0.5
    images = {stem: pixels(png) for stem, png in paint({"loud": loud, "35 dB less": loud * 10**-3.5}).items()}
    for stem, brightest in (("loud", 255), ("35 dB less", 128)):
        assert images[stem].shape == (BANDS, 10) and images[stem].dtype == np.uint8
        assert (images[stem][-1] == brightest).all()
        assert (images[stem][:-1] == 0).all()


def test_silence_is_black_and_noise_at_its_edge_is_dark():
    silence, hiss = np.zeros((BANDS, 4)), np.full((BANDS, 4), 10**-9.5)
    images = paint({"silence": silence, "hiss": hiss})
    assert pixels(images["silence"]).max() == 0
    assert (pixels(images["hiss"]) == 128).all()  # half of 70 dB below -60 dB


@pytest.mark.parametrize("rate", [8, 50, 500])
def test_a_signal_of_very_few_samples_a_second_has_a_picture(rate):
    picture = sketch([np.random.default_rng(0).standard_normal((1, 20 * rate))], AudioInfo(rate, 1, 20 * rate))
    assert np.isfinite(picture).all() and picture.max() > 0
