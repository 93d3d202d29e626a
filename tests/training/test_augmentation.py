"""Sines and white spectra through the equaliser and the transposition: everything about them is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from separation.audio.spectral import Spectral, SpectralSettings
from separation.training.augmentation import equalised, random_equaliser, transposed

SETTINGS = SpectralSettings(sample_rate=8000, n_fft=512, hop=128)
BINS = 200


def spectrogram(*tones: float) -> Tensor:
    """Sines in hertz, half as loud on the right and of other phases: `[2 channels, bins, frames]`."""
    time = torch.arange(SETTINGS.sample_rate, dtype=torch.float64) / SETTINGS.sample_rate
    left = sum(torch.sin(2 * math.pi * tone * time + n) for n, tone in enumerate(tones))
    return Spectral(SETTINGS)(torch.stack([left, left / 2]).float())


def test_the_equaliser_is_smooth_and_keeps_within_its_gain():
    white = torch.ones(2, 96, 1, dtype=torch.complex64)
    gains = equalised(white, random_equaliser(np.random.default_rng(0), 6.0, 96))
    assert (gains[0] == gains[1]).all()
    decibels = 20 * torch.log10(gains.abs()[0, :, 0])
    assert decibels.abs().max() <= 6 + 1e-4 and decibels.std() > 1
    assert decibels[16:].diff().abs().max() < 12 * math.log2(17 / 16) + 1e-3  # at most 12 dB an octave


@pytest.mark.parametrize("semitones", [-5, -2, -0.3, 1, 4])
def test_a_transposed_sine_is_one_of_another_pitch(semitones):
    ratio = 2 ** (semitones / 12)
    found = transposed(spectrogram(703.0, 1900.0), ratio, BINS)[..., 8:40].abs()
    expected = spectrogram(703.0 * ratio, 1900.0 * ratio)[:, :BINS, 8:40].abs()
    # The lobes of the window are stretched along, by a third at the most.
    assert (found - expected).square().sum() < 0.1 * expected.square().sum()
    peaks = [int(tone * ratio / SETTINGS.sample_rate * SETTINGS.n_fft + 0.5) for tone in (703.0, 1900.0)]
    for peak in peaks:
        assert abs(int(found[0, peak - 5 : peak + 6, 10].argmax()) - 5) <= 1
    torch.testing.assert_close(found[1], found[0] / 2, rtol=1e-3, atol=1e-3)


def test_a_ratio_of_one_changes_nothing():
    crop = spectrogram(500.0, 3100.0)
    torch.testing.assert_close(transposed(crop, 1.0, BINS), crop[:, :BINS])


def test_sums_may_be_transposed_before_or_after():
    one, two = spectrogram(640.0), spectrogram(655.0)
    whole = transposed(one + two, 1.07, BINS)
    torch.testing.assert_close(transposed(one, 1.07, BINS) + transposed(two, 1.07, BINS), whole, atol=1e-4, rtol=1e-4)


def test_above_what_there_is_it_is_silent():
    crop = spectrogram(500.0)[:, :100] + 1
    found = transposed(crop, 0.8, BINS)
    assert found[:, 81:].abs().max() == 0
    assert found[:, :79].abs().min() > 0
