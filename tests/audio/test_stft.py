from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import REPOSITORY

from separation.audio.stft import Spectral, SpectralSettings

SETTINGS = [SpectralSettings(), SpectralSettings(n_fft=2048, hop=512), SpectralSettings(8000, 300, 100)]
SMALL = SpectralSettings(8000, 256, 64)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: f"{settings.n_fft}/{settings.hop}")
@pytest.mark.parametrize("samples", [1, 2, 99, 1023, 1024, 1025, 3072, 4096, 4097, 44100, 150_001])
def test_round_trip(settings, samples):
    spectral, waveform = Spectral(settings), noise(2, samples)
    spectrogram = spectral(waveform)
    assert spectrogram.shape == (2, settings.bins, settings.frames(samples))
    recovered = spectral.inverse(spectrogram, samples)
    assert recovered.shape == waveform.shape
    assert (recovered - waveform).abs().max() < 1e-5


def test_leading_axes_are_kept():
    spectral, waveform = Spectral(SMALL), noise(3, 4, 2, 500)
    spectrogram = spectral(waveform)
    assert spectrogram.shape[:3] == (3, 4, 2)
    torch.testing.assert_close(spectrogram[1, 2], spectral(waveform[1, 2]))
    torch.testing.assert_close(spectral.inverse(spectrogram, 500), waveform, atol=1e-5, rtol=0)


def test_pieces_of_a_song_are_analysed_as_within_the_whole():
    spectral, waveform = Spectral(SMALL), noise(2, 64 * 40)
    whole = spectral.analyse(waveform)
    first, frames = 7, 11
    piece = waveform[:, first * 64 : (first + frames - 1) * 64 + 256]
    torch.testing.assert_close(spectral.analyse(piece), whole[..., first : first + frames])


def test_pieces_of_a_song_add_up_to_the_whole():
    spectral = Spectral(SMALL)
    spectrogram = spectral(noise(2, 3000))
    whole = spectral.synthesise(spectrogram)
    pieces = torch.zeros_like(whole)
    for first in range(0, spectrogram.shape[-1], 7):
        piece = spectral.synthesise(spectrogram[..., first : first + 7])
        pieces[:, first * 64 : first * 64 + piece.shape[-1]] += piece
    torch.testing.assert_close(pieces, whole, atol=1e-6, rtol=0)


def test_a_sine_lies_in_its_bin_at_its_level():
    settings, level, k = SpectralSettings(), 0.5, 100
    frequency = k * settings.sample_rate / settings.n_fft
    time = torch.arange(5 * settings.n_fft, dtype=torch.float64) / settings.sample_rate
    spectrum = Spectral(settings)(level * torch.sin(2 * math.pi * frequency * time).float()).abs()[:, 8]
    assert settings.bin_of(frequency) == k == spectrum.argmax()
    # Half the level goes to the positive frequency; a Hann window has a mean of 1/2, and half that at the bins beside.
    expected = level / 2 * settings.n_fft / 2 / math.sqrt(settings.n_fft)
    assert spectrum[k] == pytest.approx(expected, rel=1e-4)
    assert spectrum[k + 1] == pytest.approx(expected / 2, rel=1e-3)
    assert spectrum[: k - 1].max() < 1e-4 * expected > spectrum[k + 2 :].max()


@pytest.mark.parametrize("sample", [0, 1, 255, 256, 700])
def test_an_impulse_stays_where_it_is(sample):
    spectral, waveform = Spectral(SMALL), torch.zeros(1, 1000)
    waveform[0, sample] = 1.0
    spectrogram = spectral(waveform)
    starts = torch.arange(spectrogram.shape[-1]) * SMALL.hop - SMALL.padding
    inside = (starts < sample) & (sample < starts + SMALL.n_fft)  # a periodic Hann window is 0 at its first sample
    assert torch.equal(spectrogram.abs().sum(dim=(0, 1)) > 1e-6, inside)
    assert spectral.inverse(spectrogram, 1000).argmax() == sample


def test_a_delay_of_hops_moves_whole_frames():
    spectral, waveform = Spectral(SMALL), noise(1, 1000)
    delayed = torch.nn.functional.pad(waveform, (3 * SMALL.hop, 0))
    torch.testing.assert_close(spectral(delayed)[..., 3:], spectral(waveform))
    assert spectral(delayed)[..., :3].abs().max() == 0


def test_spectrograms_of_a_sum_are_the_sum_of_the_spectrograms():
    spectral, a, b = Spectral(SMALL), noise(2, 2, 900)[0], noise(2, 2, 900)[1]
    torch.testing.assert_close(spectral(a + b), spectral(a) + spectral(b), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("n_fft", "hop"), [(4096, 2048), (4096, 1000), (0, 1), (4096, 0)])
def test_windows_that_do_not_sum_to_a_constant_are_refused(n_fft, hop):
    with pytest.raises(ValueError, match="hop"):
        SpectralSettings(n_fft=n_fft, hop=hop)


def test_bin_of_is_the_first_bin_at_or_above():
    settings = SpectralSettings(8000, 256, 64)  # 31.25 Hz a bin
    assert [settings.bin_of(f) for f in (0, 1, 31.25, 31.3, 4000, 99999)] == [0, 1, 1, 2, 128, 129]


def test_arrays_and_tensors_have_the_same_spectrograms():
    for settings in SETTINGS:
        spectral, waveform = Spectral(settings), noise(2, 9000)
        ours, theirs = spectral(waveform.numpy()), spectral(waveform)
        assert ours.dtype == np.complex64 and np.abs(ours - theirs.numpy()).max() < 2e-6
        back = spectral.inverse(ours, 9000)
        assert back.dtype == np.float32 and np.abs(back - waveform.numpy()).max() < 1e-5


def test_arrays_need_no_torch():
    program = """
import sys
import numpy as np
from separation.audio.stft import Spectral, SpectralSettings
spectral = Spectral(SpectralSettings())
assert spectral.inverse(spectral(np.ones((2, 9000), np.float32)), 9000).shape == (2, 9000)
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=True)
