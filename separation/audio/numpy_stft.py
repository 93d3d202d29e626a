"""The project's STFT and its inverse without torch; see `separation.audio.spectral.Spectral`."""

from __future__ import annotations

import numpy as np

from separation.audio.settings import SpectralSettings


class Stft:
    """Float32 pieces of songs to spectrograms with real and imaginary parts, and back."""

    def __init__(self, settings: SpectralSettings):
        self.settings, size = settings, settings.n_fft
        self.overlap = size // settings.hop
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
        # The scale of the spectrum is taken together with the windows.
        self.before = (window * size**-0.5).astype(np.float32)
        self.after = (window * size**0.5 * settings.hop / (window**2).sum()).astype(np.float32)

    def analyse(self, waveform: np.ndarray) -> np.ndarray:
        """Spectrogram of the frames wholly inside a piece: `[..., samples]` to `[..., frames, bins, 2]`."""
        framed = np.lib.stride_tricks.sliding_window_view(waveform, self.settings.n_fft, axis=-1)
        spectrum = np.fft.rfft(framed[..., :: self.settings.hop, :] * self.before).astype(np.complex64, copy=False)
        return spectrum.view(np.float32).reshape(*spectrum.shape, 2)

    def synthesise(self, spectrogram: np.ndarray) -> np.ndarray:
        """Overlap-add of a piece: `[..., frames, bins, 2]` to `[..., (frames - 1) * hop + n_fft]`."""
        spectrum = np.ascontiguousarray(spectrogram).view(np.complex64)[..., 0]
        frames = np.fft.irfft(spectrum, self.settings.n_fft).astype(np.float32, copy=False)
        frames *= self.after
        *axes, count, _ = frames.shape
        blocks = frames.reshape(*axes, count, self.overlap, self.settings.hop)
        waveform = np.zeros((*axes, count + self.overlap - 1, self.settings.hop), np.float32)
        for k in range(self.overlap):
            waveform[..., k : k + count, :] += blocks[..., k, :]
        return waveform.reshape(*axes, -1)
