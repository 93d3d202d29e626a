"""A mixture's spectrogram becomes the spectrograms of its targets: compression, generator, and the masks applied."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from separation.audio.spectral import Spectral, SpectralSettings, compress
from separation.models import Generator
from separation.models.blocks import Range
from separation.models.generator import pad_frames
from separation.models.history import History
from separation.models.streaming import GeneratorStream
from separation.stems import source_names


class MaskingNetwork(nn.Module):
    """The generator with all it needs to be used: its targets, and the STFT it was trained with.

    Masks multiply complex spectrograms, and their sum over the targets is at most one. What the targets leave of the
    mixture is the rest: it needs no mask, and the sources always sum to the mixture.
    """

    def __init__(self, targets: Sequence[str], settings: SpectralSettings, generator: Generator):
        super().__init__()
        self.targets = tuple(targets)
        self.sources = source_names(targets)
        self.settings = settings
        self.spectral = Spectral(settings)
        self.generator = generator

    @property
    def stride(self) -> int:
        """Frames a piece must start at a multiple of, to be separated as within the whole."""
        return self.generator.stride

    @property
    def context(self) -> int:
        """Frames on either side that a frame can depend on."""
        return self.generator.context

    @property
    def ranges(self) -> tuple[tuple[Range, Range], ...] | None:
        """What comes to the convolutions of each block; None where it has not been measured, see `ranges.py`."""
        return self.generator.ranges

    def forward(self, mixture: Tensor) -> Tensor:
        """Complex `[batch, 2 channels, bins, frames]` to complex `[batch, targets, 2 channels, bins, frames]`."""
        frames = mixture.shape[-1]
        views = pad_frames(compress(mixture), self.stride)
        masks = self.generator(views, mixture.shape[-2])[..., :frames]
        return masks * mixture[:, None]

    def stream(
        self, dtype: torch.dtype, targets: Sequence[str] | None = None, eight_bits: bool = False
    ) -> TargetStream:
        """A stream of the same for one song, with masks computed in `dtype`: of some of the targets, or else of all.

        With `eight_bits` the convolutions of its blocks are computed in integers.
        """
        return TargetStream(self, dtype, self.targets if targets is None else targets, eight_bits)


class TargetStream:
    """Some targets of a song that comes in pieces of whole strides, `lag` frames late.

    Let `network.context` frames come before it, as for `GeneratorStream`.
    """

    def __init__(self, network: MaskingNetwork, dtype: torch.dtype, targets: Sequence[str], eight_bits: bool):
        self.generator = network.generator
        self.masked = [network.targets.index(target) for target in targets]
        self.logits = GeneratorStream(network.generator, dtype, eight_bits)
        self.lag = self.logits.lag
        self.mixture = History(self.lag, dim=-2)

    def __call__(self, mixture: Tensor) -> Tensor:
        """Complex `[2 channels, bins, frames]` to complex `[targets, 2 channels, bins, frames]`."""
        mixture = mixture.transpose(-1, -2)  # frames in front of bins, as they lie in memory
        logits = self.logits(compress(mixture[..., : self.generator.bins]))
        masks = self.generator.masks(logits[None], mixture.shape[-1], dim=-1)[0]
        mixture = self.mixture.delay(mixture)
        targets = mixture.new_empty(len(self.masked), *mixture.shape)
        for target, number in zip(targets, self.masked, strict=True):
            # As a complex product, it would make a complex copy of the mask first.
            torch.mul(mixture.real, masks[number], out=target.real)
            torch.mul(mixture.imag, masks[number], out=target.imag)
        return targets.transpose(-1, -2)
