"""The building blocks of the generator. Feature maps are `[batch, channels, frames, bands]` throughout."""

from __future__ import annotations

import torch
from torch import Tensor, nn

Range = tuple[float, float]
"""The least and the largest value of something; 0 lies within."""


class FrameNorm(nn.Module):
    """Root-mean-square normalisation of each frame over its channels and bands.

    Nothing is shared between songs or between distant frames: there are no batch statistics to lag behind the weights,
    a batch may be split over processes, and a song may be separated in pieces, all without changing the result.
    """

    floor = 1e-6  # of the mean square, lest silence be divided by nothing

    def __init__(self, channels: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        # In fp32 twice as fast as a mean of squares, which keeps the squares for the way back.
        norm = torch.linalg.vector_norm(x, dim=(1, 3), keepdim=True, dtype=torch.float32)
        power = norm.square() / (x.shape[1] * x.shape[3])
        return x * (torch.rsqrt(power + self.floor) * self.scale).to(x.dtype)


class ConvolutionBranch(nn.Sequential):
    """Time-frequency convolutions (TFC): what neighbouring frames and bands say."""

    ranges: tuple[Range, Range] | None = None
    """What comes to both convolutions, the first one's input without the scale of the norm; None: not measured."""

    def __init__(self, channels: int):
        super().__init__(
            FrameNorm(channels),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        start_silent(self[-1])


class FrequencyBranch(nn.Sequential):
    """Time-distributed fully connected layers over frequency (TDF): what distant bands, such as harmonics, say.

    Choi et al., "Investigating U-Nets with various intermediate blocks for spectrogram-based singing voice separation",
    ISMIR 2020 (KUIELab).
    """

    def __init__(self, channels: int, bands: int, squeeze: int):
        hidden = max(bands // squeeze, 8)
        super().__init__(FrameNorm(channels), nn.Linear(bands, hidden), nn.GELU(), nn.Linear(hidden, bands))
        start_silent(self[-1])


class Block(nn.Module):
    """A TFC-TDF block, or without `squeeze` a TFC block: its branches are residual, and begin as the identity."""

    def __init__(self, channels: int, bands: int, squeeze: int | None):
        super().__init__()
        self.convolution = ConvolutionBranch(channels)
        self.frequency = FrequencyBranch(channels, bands, squeeze) if squeeze else None

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.convolution(x)
        return x + self.frequency(x) if self.frequency else x


def start_silent(layer: nn.Conv2d | nn.Linear) -> None:
    """Let a residual branch begin as (nearly) nothing, so that a deep network starts as a shallow one."""
    nn.init.normal_(layer.weight, std=1e-3)
    nn.init.zeros_(layer.bias)
