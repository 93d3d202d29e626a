"""The project's only STFT and its exact inverse, for numpy arrays and torch tensors, and its only mel filters.

Arrays do not require torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class SpectralSettings:
    """Parameters of the STFT: saved with every store and weights file, and compared when the two are combined."""

    sample_rate: int = 44100
    n_fft: int = 4096
    hop: int = 1024

    def __post_init__(self):
        if min(self.sample_rate, self.n_fft, self.hop) < 1:
            raise ValueError("sample_rate, n_fft and hop must be positive")
        if self.sample_rate > 1_000_000 or self.n_fft > 1 << 20:
            raise ValueError(f"sample_rate must be at most 1000000, and n_fft at most {1 << 20}")
        if self.n_fft % self.hop or self.n_fft // self.hop < 3:
            raise ValueError(
                "hop must divide n_fft at least 3 times, or overlapping Hann windows do not sum to a constant"
            )

    @property
    def bins(self) -> int:
        """Number of frequency bins of a spectrogram."""
        return self.n_fft // 2 + 1

    @property
    def padding(self) -> int:
        """Samples of silence before a song, so that every sample is covered by the same number of windows."""
        return self.n_fft - self.hop

    def frames(self, samples: int) -> int:
        """Number of frames in the spectrogram of a waveform of `samples` samples."""
        return -(-(samples + self.padding) // self.hop)

    def bin_of(self, frequency: float) -> int:
        """Index of the first bin at or above `frequency` in hertz, at most `bins`."""
        return min(self.bins, -int(-frequency * self.n_fft // self.sample_rate))


class Spectral:
    """The STFT and its inverse, as a pair. Takes torch tensors or float32 numpy arrays and returns the same kind.

    Frame t covers the samples from `t * hop - padding`, under a periodic Hann window, scaled by 1 / sqrt(n_fft). Every
    sample is covered by n_fft / hop windows whose squares sum to a constant, so the inverse is a plain overlap-add: it
    works frame by frame, and a song may be transformed in pieces.
    """

    def __init__(self, settings: SpectralSettings):
        self.settings, size = settings, settings.n_fft
        self.overlap = size // settings.hop
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
        self.gain = float((window**2).sum()) / settings.hop
        self.windows = {None: (window * size**-0.5, window * size**0.5 / self.gain)}  # by device
        self.windows[None] = tuple(window.astype(np.float32) for window in self.windows[None])

    def __call__(self, waveform: Any) -> Any:
        """Spectrogram of a whole waveform: `[..., samples]` to complex `[..., bins, frames]`."""
        samples, left = waveform.shape[-1], self.settings.padding
        right = self.settings.frames(samples) * self.settings.hop - samples
        if isinstance(waveform, np.ndarray):
            return self.analyse(np.pad(waveform, [(0, 0)] * (waveform.ndim - 1) + [(left, right)]))
        from torch.nn.functional import pad

        return self.analyse(pad(waveform, (left, right)))

    def inverse(self, spectrogram: Any, samples: int) -> Any:
        """Waveform of a whole spectrogram: complex `[..., bins, frames]` to `[..., samples]`."""
        start = self.settings.padding
        return self.synthesise(spectrogram)[..., start : start + samples]

    def analyse(self, waveform: Any) -> Any:
        """Spectrogram of the frames entirely inside a piece: `[..., samples]` to complex `[..., bins, frames]`."""
        window = self._windows(waveform)[0]
        if isinstance(waveform, np.ndarray):
            framed = np.lib.stride_tricks.sliding_window_view(waveform, self.settings.n_fft, axis=-1)
            spectrum = np.fft.rfft(framed[..., :: self.settings.hop, :] * window)
            return spectrum.astype(np.complex64, copy=False).swapaxes(-1, -2)
        import torch

        spectrogram = torch.stft(
            waveform.reshape(-1, waveform.shape[-1]),
            self.settings.n_fft,
            self.settings.hop,
            window=window,
            center=False,
            return_complex=True,
        )
        return spectrogram.reshape(*waveform.shape[:-1], *spectrogram.shape[-2:])

    def synthesise(self, spectrogram: Any) -> Any:
        """Overlap-add of a piece: complex `[..., bins, frames]` to `[..., (frames - 1) * hop + n_fft]`.

        Only samples covered by n_fft / hop of the frames are complete; neighbouring pieces add up where they overlap.
        """
        window, hop = self._windows(spectrogram)[1], self.settings.hop
        if isinstance(spectrogram, np.ndarray):
            frames = np.fft.irfft(spectrogram.swapaxes(-1, -2), self.settings.n_fft).astype(np.float32, copy=False)
            frames *= window
        else:
            import torch

            frames = torch.fft.irfft(spectrogram.transpose(-1, -2), n=self.settings.n_fft) * window
        *axes, count, _ = frames.shape
        blocks = frames.reshape(*axes, count, self.overlap, hop)
        shape = (*axes, count + self.overlap - 1, hop)
        waveform: Any = np.zeros(shape, np.float32) if isinstance(frames, np.ndarray) else frames.new_zeros(shape)
        for k in range(self.overlap):
            waveform[..., k : k + count, :] += blocks[..., k, :]
        return waveform.reshape(*axes, -1)

    def _windows(self, signal: Any) -> Any:
        """Analysis and synthesis windows, scale included, as arrays or as tensors on the device of `signal`."""
        if isinstance(signal, np.ndarray):
            return self.windows[None]
        if signal.device not in self.windows:
            import torch

            analysis, synthesis = (torch.from_numpy(window).to(signal.device) for window in self.windows[None])
            self.windows[signal.device] = analysis, synthesis
        return self.windows[signal.device]


def mel_filters(bands: int, bins: int, sample_rate: int, lowest: float, highest: float) -> np.ndarray:
    """Triangular filters `[bands, bins]` for a power spectrum, evenly spaced on the mel scale, in hertz.

    The scale is HTK's, 2595 log10(1 + f / 700) (O'Shaughnessy, Speech Communication, 1987).
    """
    frequencies = np.linspace(0, sample_rate / 2, bins)
    first, last = (2595 * math.log10(1 + frequency / 700) for frequency in (lowest, highest))
    edges = 700 * (10 ** (np.linspace(first, last, bands + 2) / 2595) - 1)
    below, centre, above = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (frequencies - below) / (centre - below), (above - frequencies) / (above - centre)
    return np.minimum(rising, falling).clip(min=0)
