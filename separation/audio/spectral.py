"""A waveform becomes a complex spectrogram and back: the project's one STFT, and the compression for the networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from separation.audio.settings import SpectralSettings


class Spectral(nn.Module):
    """The STFT and its exact inverse, as a pair.

    Frame t covers the samples from `t * hop - padding`, under a periodic Hann window, scaled by 1 / sqrt(n_fft). Every
    sample lies under n_fft / hop windows whose squares sum to a constant, so the inverse is a plain overlap-add: it
    holds frame by frame, and a song may be transformed in pieces.
    """

    def __init__(self, settings: SpectralSettings):
        super().__init__()
        self.settings = settings
        window = torch.hann_window(settings.n_fft)
        self.register_buffer("window", window, persistent=False)
        self.overlap = settings.n_fft // settings.hop
        self.gain = float(window.square().sum()) / settings.hop

    def forward(self, waveform: Tensor) -> Tensor:
        """Spectrogram of a whole waveform: `[..., samples]` to complex `[..., bins, frames]`."""
        settings, samples = self.settings, waveform.shape[-1]
        right = settings.frames(samples) * settings.hop - samples
        return self.analyse(nn.functional.pad(waveform, (settings.padding, right)))

    def inverse(self, spectrogram: Tensor, samples: int) -> Tensor:
        """Waveform of a whole spectrogram: complex `[..., bins, frames]` to `[..., samples]`."""
        start = self.settings.padding
        return self.synthesise(spectrogram)[..., start : start + samples]

    def analyse(self, waveform: Tensor) -> Tensor:
        """Spectrogram of the frames wholly inside a piece: `[..., samples]` to complex `[..., bins, frames]`."""
        spectrogram = torch.stft(
            waveform.reshape(-1, waveform.shape[-1]),
            self.settings.n_fft,
            self.settings.hop,
            window=self.window,
            center=False,
            normalized=True,
            return_complex=True,
        )
        return spectrogram.reshape(*waveform.shape[:-1], *spectrogram.shape[-2:])

    def synthesise(self, spectrogram: Tensor) -> Tensor:
        """Overlap-add of a piece: complex `[..., bins, frames]` to `[..., (frames - 1) * hop + n_fft]`.

        Only the samples under n_fft / hop of the frames are complete; neighbouring pieces add up at their joints.
        """
        frames = torch.fft.irfft(spectrogram.transpose(-1, -2), n=self.settings.n_fft, norm="ortho")
        frames = frames * (self.window / self.gain)
        blocks = frames.unflatten(-1, (self.overlap, self.settings.hop))
        waveform = blocks.new_zeros(*blocks.shape[:-3], blocks.shape[-3] + self.overlap - 1, self.settings.hop)
        for k in range(self.overlap):
            waveform[..., k : k + blocks.shape[-3], :] += blocks[..., k, :]
        return waveform.flatten(-2)


FLOOR = 1e-10
"""Power below which a bin counts as silent; it keeps the gradient of the compression finite."""


def compress(spectrogram: Tensor) -> Tensor:
    """What the networks see: compressed magnitudes of left, right, middle and side.

    Complex `[..., 2 channels, bins, frames]` to real `[..., 4, bins, frames]`, or with bins and frames swapped:
    magnitude ** 0.25 (the paper's is 0.3; square roots are many times cheaper), 0 for silence. Middle and side make the
    phase difference of the channels visible without phases.
    """
    left, right = spectrogram.unbind(-3)
    # One view at a time: what it takes fits into the processor's cache.
    views = (_compressed(left), _compressed(right), _compressed((left + right) / 2), _compressed((left - right) / 2))
    return torch.stack(views, dim=-3)


def _compressed(view: Tensor) -> Tensor:
    return compress_powers(view.real.square() + view.imag.square())


def compress_powers(power: Tensor) -> Tensor:
    """Compressed magnitudes from their squares, of any shape."""
    return (power + FLOOR).sqrt().sqrt().sqrt() - FLOOR**0.125
