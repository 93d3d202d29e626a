"""What defines the project's one STFT."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SpectralSettings:
    """What defines the STFT: saved beside every store and inside every checkpoint, and compared whenever they meet."""

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
        """Frequency bins of a spectrogram."""
        return self.n_fft // 2 + 1

    @property
    def padding(self) -> int:
        """Samples of silence before a song, so that every sample lies under the same number of windows."""
        return self.n_fft - self.hop

    def frames(self, samples: int) -> int:
        """Frames of the spectrogram of a waveform of `samples` samples."""
        return -(-(samples + self.padding) // self.hop)

    def bin_of(self, frequency: float) -> int:
        """The first bin at or above `frequency` in hertz, at most `bins`."""
        return min(self.bins, -int(-frequency * self.n_fft // self.sample_rate))
