"""The masking generator g: a U-Net from compressed spectrograms to one mask for each target and channel."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from .bands import BandMerge, BandSplit, Zones, spread
from .blocks import Block, ConvolutionBranch, Range


class Generator(nn.Module):
    """A TFC-TDF U-Net whose masks are shares of the mixture: in [0, 1], and over the targets at most 1 together.

    Bins are gathered to bands first; every level below halves frames and bands. Bins above the highest zone get the
    mean mask of the top bands, so nothing there is lost or silenced.

    Songs are separated by its twin, `models.streaming.GeneratorStream`, which computes the same piece by piece. Whoever
    changes one changes both: tests/models/test_streaming.py holds them together.

    Args:
        targets: how many targets the mixture is shared out to.
        complete: whether the targets are all there is, and share the whole mixture out; else there is a rest.
        views: compressed magnitudes a bin comes with (left, right, middle, side).
        zones: which bins of the spectrogram the network looks at, and how many make a band; see `models.bands`.
        widths: channels of each level of the U-Net, from the top down.
        blocks: TFC-TDF blocks on each side of each level, from the top down; levels past the last number have as many.
        decoder_levels: how many levels, from the top down, have blocks on the way up; None: all.
        frequency_levels: how many levels, from the top down, have TDFs in their blocks; None: all.
        squeeze: how much narrower the hidden layer of a TDF is than its bands.
    """

    audio_channels = 2
    top_bands = 8

    def __init__(
        self,
        targets: int,
        complete: bool = False,
        views: int = 4,
        zones: Zones = ((256, 2), (768, 8), (1536, 16)),
        widths: tuple[int, ...] = (32, 64, 96, 128),
        blocks: tuple[int, ...] = (1,),
        decoder_levels: int | None = 1,
        frequency_levels: int | None = 1,
        squeeze: int = 8,
    ):
        super().__init__()
        spreads = spread(zones)
        count = sum(zone.bands for zone in spreads)
        if count % 2 ** (len(widths) - 1):
            raise ValueError(f"the bands must be a multiple of {2 ** (len(widths) - 1)} (2 a level), not {count}")
        self.targets, self.complete = targets, complete
        self.zones, self.bins = spreads, spreads[-1].end
        bands = [count // 2**level for level in range(len(widths))]

        # What a bin usually holds; set from the training data, so that every bin arrives centred and of unit variance.
        self.register_buffer("input_mean", torch.zeros(views, self.bins))
        self.register_buffer("input_scale", torch.ones(views, self.bins))

        self.inlet = BandSplit(views, widths[0], spreads)

        def level(index: int) -> nn.Sequential:
            tdf = frequency_levels is None or index < frequency_levels
            count = blocks[min(index, len(blocks) - 1)]
            return nn.Sequential(*(Block(widths[index], bands[index], squeeze if tdf else None) for _ in range(count)))

        steps = list(pairwise(widths))
        rising = len(steps) if decoder_levels is None else decoder_levels
        self.encoder = nn.ModuleList(level(index) for index in range(len(steps)))
        self.down = nn.ModuleList(nn.Conv2d(upper, lower, 2, 2) for upper, lower in steps)
        self.bottom = level(len(steps))
        self.up = nn.ModuleList(nn.ConvTranspose2d(lower, upper, 2, 2) for upper, lower in steps)
        self.decoder = nn.ModuleList(level(index) if index < rising else nn.Sequential() for index in range(len(steps)))
        self.outlet = BandMerge(widths[0], targets * self.audio_channels, spreads)

    @property
    def stride(self) -> int:
        """Frames that the bottom of the U-Net folds into one: inputs are a multiple of it."""
        return 2 ** len(self.down)

    @property
    def ranges(self) -> tuple[tuple[Range, Range], ...] | None:
        """What comes to the convolutions of each block, where that has been measured on music; see `eight_bits`."""
        found = tuple(branch.ranges for branch in self.branches())
        return None if None in found else found

    @ranges.setter
    def ranges(self, ranges: Sequence[tuple[Range, Range]] | None) -> None:
        for branch, measured in zip(self.branches(), ranges or [None] * len(self.branches()), strict=True):
            branch.ranges = measured

    def branches(self) -> list[ConvolutionBranch]:
        """The convolutions of all blocks: on the way down, at the bottom, and on the way up."""
        return [module for module in self.modules() if isinstance(module, ConvolutionBranch)]

    @property
    def context(self) -> int:
        """Frames on either side that a frame's mask can depend on (half the receptive field)."""
        frames = 1  # the inlet
        for index, (falling, rising) in enumerate(zip(self.encoder, self.decoder, strict=True)):
            frames += (2 * len(falling) + 2 * len(rising) + 1) * 2**index  # pairs of 3x3, and the pooled neighbour
        return frames + 2 * len(self.bottom) * self.stride

    def forward(self, views: Tensor, bins: int) -> Tensor:
        """Masks for a mixture.

        Args:
            views: compressed magnitudes `[batch, views, bins, frames]`; frames are a multiple of `stride`.
            bins: bins of the masks wanted: as many as the network looks at, or more.

        Returns:
            `[batch, targets, channels, bins, frames]`, nonnegative, with a sum over the targets of 1 or, if there is a
            rest, at most 1.
        """
        return self.masks(self.logits(views[..., : self.bins, :]), bins)

    def masks(self, logits: Tensor, bins: int, dim: int = -2) -> Tensor:
        """Masks from log-shares `[batch, targets, channels, ...]` whose bins are the axis `dim`; see `forward`."""
        masks = self.shares(logits.float())
        if bins == self.bins:
            return masks
        count = min(self.top_bands * self.zones[-1].width, self.bins)
        top = masks.narrow(dim, self.bins - count, count).mean(dim, keepdim=True)
        above = [-1] * masks.dim()
        above[dim] = bins - self.bins
        return torch.cat([masks, top.expand(above)], dim)

    def shares(self, logits: Tensor) -> Tensor:
        """Softmax over the targets and, unless they are complete, a rest whose log-share is 0."""
        if self.complete:
            return torch.softmax(logits, dim=1)
        if self.targets == 1:
            return torch.sigmoid(logits)
        return torch.softmax(pad(logits, (0, 0, 0, 0, 0, 0, 0, 1)), dim=1)[:, :-1]

    @torch.no_grad()
    def scale_logits(self, factor: float) -> None:
        """Make every mask softer (`factor` below 1) or harder from now on."""
        for parameter in self.outlet.layers.parameters():
            parameter *= factor

    def logits(self, views: Tensor) -> Tensor:
        """Log-shares up to a constant: `[batch, views, bins, frames]` to `[batch, targets, channels, bins, frames]`."""
        x = (views - self.input_mean[..., None]) * self.input_scale[..., None]
        x = self.inlet(x.transpose(-1, -2))  # [batch, channels, frames, bands] from here on
        if x.is_cuda:
            x = x.contiguous(memory_format=torch.channels_last)  # as its convolutions are fastest
        skips = []
        for block, down in zip(self.encoder, self.down, strict=True):
            x = block(x)
            skips.append(x)
            x = down(x)
        x = self.bottom(x)
        for block, up in zip(reversed(self.decoder), reversed(self.up), strict=True):
            x = block(up(x) + skips.pop())
        return self.outlet(x).unflatten(1, (self.targets, self.audio_channels)).transpose(-1, -2)


def pad_frames(spectrogram: Tensor, stride: int) -> Tensor:
    """Silence after the last frame, up to a multiple of `stride` frames: `[..., frames]` to `[..., padded frames]`."""
    return pad(spectrogram, (0, -spectrogram.shape[-1] % stride))
