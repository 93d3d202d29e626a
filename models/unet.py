"""The default network: a U-Net over time and frequency. Feature maps are `[batch, channels, frames, bands]`."""

from __future__ import annotations

from collections import namedtuple
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

if TYPE_CHECKING:
    from .unet_stream import UNetStream

FLOOR = 1e-10
"""Power below which a bin counts as silent; it keeps the gradient of the compression finite."""


def compress(spectrogram: Tensor) -> Tensor:
    """The input of the networks: compressed magnitudes of left, right, mid and side.

    Complex `[..., 2 channels, bins, frames]` to real `[..., 4 views, bins, frames]`, or with bins and frames swapped.
    Values are magnitude ** 0.25, 0 for silence; the paper uses 0.3, but square roots are many times cheaper. Mid and
    side expose the phase difference of the channels without using phases.
    """
    left, right = spectrogram.unbind(-3)
    # One view at a time, so that intermediate results fit into the processor's cache.
    views = (_compressed(left), _compressed(right), _compressed((left + right) / 2), _compressed((left - right) / 2))
    return torch.stack(views, dim=-3)


def _compressed(view: Tensor) -> Tensor:
    return compress_powers(view.real.square() + view.imag.square())


def compress_powers(power: Tensor) -> Tensor:
    """Compressed magnitudes from powers of any shape."""
    return (power + FLOOR).sqrt().sqrt().sqrt() - FLOOR**0.125


def soft_masks(logits: Tensor, complete: bool) -> Tensor:
    """Softmax over the targets and, unless `complete`, an implicit rest with logit 0: `[batch, targets, ...]`."""
    if logits.shape[1] == 1 and not complete:
        return torch.sigmoid(logits)
    shares = logits if complete else torch.cat([logits, torch.zeros_like(logits[:, :1])], dim=1)
    if torch.onnx.is_in_onnx_export():  # softmax over any axis but the last takes six times as long there
        powers = torch.exp(shares - shares.amax(dim=1, keepdim=True))
        shares = powers / powers.sum(dim=1, keepdim=True)
    else:
        shares = torch.softmax(shares, dim=1)
    return shares[:, : logits.shape[1]]


class UNet(nn.Module):
    """A TFC-TDF U-Net with soft masks, each in [0, 1] and at most 1 in sum over the targets.

    Bins are first grouped into bands; every level down halves frames and bands. Bins above the band layout get the mean
    mask of the top bands, so nothing there is lost or silenced. Choi et al., "Investigating U-Nets with various
    intermediate blocks for spectrogram-based singing voice separation", ISMIR 2020.

    Args:
        targets: number of targets.
        bins: bins of the spectrogram.
        complete: whether the masks sum to one over the targets; otherwise the remainder is an implicit rest.
        band_layout: `(end, width)` from the lowest bin up: bins below `end` are grouped into bands of `width` bins.
        widths: channels of each level, from the top down.
        blocks: TFC-TDF blocks on each side of each level, from the top down; the last number applies to deeper levels.
        decoder_levels: number of levels, from the top down, with blocks in the decoder; None: all.
        frequency_levels: number of levels, from the top down, with TDFs in their blocks; None: all.
        squeeze: ratio of a TDF's bands to the units of its hidden layer, which has at least 8.

    Raises:
        ValueError: the arguments do not fit together.
    """

    audio_channels, views = 2, 4
    top_bands = 8
    input_mean: Tensor
    input_scale: Tensor

    def __init__(
        self,
        targets: int,
        bins: int,
        complete: bool = False,
        band_layout: tuple[tuple[int, int], ...] = ((256, 2), (768, 8), (1536, 16)),
        widths: tuple[int, ...] = (32, 64, 96, 128),
        blocks: tuple[int, ...] = (1,),
        decoder_levels: int | None = 1,
        frequency_levels: int | None = 1,
        squeeze: int = 8,
    ):
        super().__init__()
        for name, values, least, most in (
            ("widths", widths, 1, 8192),
            ("blocks", blocks, 0, 64),
            ("squeeze", [squeeze], 1, 10**6),
            ("decoder_levels", [decoder_levels or 0], 0, 64),
            ("frequency_levels", [frequency_levels or 0], 0, 64),
        ):
            if not 0 < len(values) <= 16 or not all(least <= value <= most for value in values):
                raise ValueError(f"{name} must be 1 to 16 numbers from {least} to {most:,}, not {values!s:.80}")
        self.band_layout = zones = layout_zones(band_layout, bins)
        count = sum(zone.bands for zone in zones)
        if count % 2 ** (len(widths) - 1):
            raise ValueError(f"the bands must be a multiple of {2 ** (len(widths) - 1)} (2 a level), not {count}")
        self.targets, self.complete = targets, complete
        self.used_bins = zones[-1].end
        bands = [count // 2**level for level in range(len(widths))]

        self.register_buffer("input_mean", torch.zeros(self.views, self.used_bins))
        self.register_buffer("input_scale", torch.ones(self.views, self.used_bins))
        self.inlet = BandSplit(self.views, widths[0], zones)

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
        self.outlet = BandMerge(widths[0], targets * self.audio_channels, zones)

    @property
    def stride(self) -> int:
        """Frames that the bottom of the U-Net merges into one. Inputs must be a multiple of it."""
        return 2 ** len(self.down)

    @property
    def context(self) -> int:
        """Frames on either side that a frame's mask can depend on: half the receptive field."""
        frames = 1  # the inlet
        for index, (falling, rising) in enumerate(zip(self.encoder, self.decoder, strict=True)):
            blocks = len([*falling.children(), *rising.children()])
            frames += (2 * blocks + 1) * 2**index  # pairs of 3x3 convolutions, and the pooled neighbour
        return frames + 2 * len(self.bottom) * self.stride

    def forward(self, mixture: Tensor) -> Tensor:
        """Masks of the mixture, complex `[batch, 2 channels, bins, frames]` with frames a multiple of `stride`.

        Returns `[batch, targets, 2 channels, bins, frames]` in [0, 1]. Bins may be just the lowest `used_bins`.
        """
        logits = self.logits(compress(mixture[..., : self.used_bins, :]))
        return self.masks(logits, mixture.shape[-2])

    def stream(self, dtype: torch.dtype) -> UNetStream:
        """Masks of one song in pieces, computed in `dtype`; see `UNetStream`."""
        from .unet_stream import UNetStream  # which itself imports this module

        return UNetStream(self, dtype)

    def masks(self, logits: Tensor, bins: int, dim: int = -2) -> Tensor:
        """Turn `logits` `[batch, targets, channels, ...]`, bins on the axis `dim`, into masks; see `forward`."""
        masks = soft_masks(logits.float(), self.complete)
        if bins == self.used_bins:
            return masks
        count = min(self.top_bands * self.band_layout[-1].width, self.used_bins)
        top = masks.narrow(dim, self.used_bins - count, count).mean(dim, keepdim=True)
        above = [-1] * masks.dim()
        above[dim] = bins - self.used_bins
        return torch.cat([masks, top.expand(above)], dim)

    @torch.no_grad()
    def fit_input(self, mean: Tensor, scale: Tensor) -> None:
        """Set input normalisation: subtract `mean` from the views, multiply by `scale`, both `[4 views, bins]`."""
        self.input_mean.copy_(mean[:, : self.used_bins])
        self.input_scale.copy_(scale[:, : self.used_bins])

    @torch.no_grad()
    def scale_logits(self, factor: float) -> None:
        """Scale the logits of all masks: a `factor` below 1 softens them, above 1 it hardens them."""
        for parameter in self.outlet.layers.parameters():
            parameter.mul_(factor)

    def logits(self, views: Tensor) -> Tensor:
        """Logits of the masks: `[batch, views, bins, frames]` to `[batch, targets, channels, bins, frames]`."""
        x = (views - self.input_mean[..., None]) * self.input_scale[..., None]
        x = self.inlet(x.transpose(-1, -2))  # [batch, channels, frames, bands] from here on
        if x.is_cuda:
            x = x.contiguous(memory_format=torch.channels_last)  # the fastest layout for its convolutions
        skips: list[Tensor] = []
        for block, down in zip(self.encoder, self.down, strict=True):
            x = block(x)
            skips.append(x)
            x = down(x)
        x = self.bottom(x)
        for block, up in zip(reversed(self.decoder), reversed(self.up), strict=True):
            x = block(up(x) + skips.pop())
        return self.outlet(x).unflatten(1, (self.targets, self.audio_channels)).transpose(-1, -2)


class FrameNorm(nn.Module):
    """RMS normalisation of each frame over its channels and bands.

    Frames are normalised independently. There are no batch statistics to lag behind the weights, and neither splitting
    a batch over processes nor separating a song in pieces changes the result.
    """

    floor = 1e-6  # of the mean square: avoids division by zero in silence

    def __init__(self, channels: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        # In fp32 twice as fast as a mean of squares, which stores the squares for the backward pass.
        norm = torch.linalg.vector_norm(x, dim=(1, 3), keepdim=True, dtype=torch.float32)
        power = norm.square() / (x.shape[1] * x.shape[3])
        return x * (torch.rsqrt(power + self.floor) * self.scale).to(x.dtype)


class Block(nn.Module):
    """A TFC-TDF block or, without `squeeze`, a TFC block. Its branches are residual, and it starts as the identity.

    The TFC, time-frequency convolutions, sees neighbouring frames and bands. The TDF, fully connected layers over
    frequency, relates distant bands, such as harmonics.
    """

    def __init__(self, channels: int, bands: int, squeeze: int | None):
        super().__init__()
        self.convolution = nn.Sequential(
            FrameNorm(channels),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        zero_init(self.convolution[-1])
        self.frequency: nn.Sequential | None = None
        if squeeze:
            hidden = max(bands // squeeze, 8)
            self.frequency = nn.Sequential(
                FrameNorm(channels), nn.Linear(bands, hidden), nn.GELU(), nn.Linear(hidden, bands)
            )
            zero_init(self.frequency[-1])

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.convolution(x)
        return x + self.frequency(x) if self.frequency else x


def zero_init(layer: nn.Module) -> None:
    """Initialise the last layer of a residual branch near zero, so that a deep network starts as a shallow one."""
    weight, bias = kernel(layer)
    nn.init.normal_(weight, std=1e-3)
    nn.init.zeros_(bias)


def kernel(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """The weight and the bias of a layer."""
    return layer.get_parameter("weight"), layer.get_parameter("bias")


class Zone(namedtuple("Zone", ("first", "end", "width"))):
    """Bins from `first` to `end`, excluded, in bands of `width` bins.

    Bands are narrow where notes lie close together and wide above: 20 Hz resolves neighbouring bass notes, while 170 Hz
    is enough above 8 kHz, at an eighth of the cost. Tong et al., "SCNet: Sparse compression network for music source
    separation", ICASSP 2024.
    """

    @property
    def bands(self) -> int:
        return (self.end - self.first) // self.width


def layout_zones(band_layout: tuple[tuple[int, int], ...], bins: int) -> list[Zone]:
    """Zones of a band layout, with their first bins. Raises ValueError when bands do not fill them."""
    zones = []
    if not 0 < len(band_layout) <= 64 or band_layout[-1][0] > bins:
        raise ValueError(f"band_layout must name 1 to 64 zones, and end at bin {bins} (n_fft / 2 + 1) at most")
    for (first, _), (end, width) in pairwise(((0, 0), *band_layout)):
        if width < 2 or width % 2:
            raise ValueError(f"a zone's bands must be of an even number of bins, not {width}")
        if end <= first or (end - first) % width:
            raise ValueError(f"a zone from bin {first} to {end} cannot be filled with bands of {width} bins")
        zones.append(Zone(first, end, width))
    return zones


class BandSplit(nn.Module):
    """`[batch, views, frames, bins]` to `[batch, channels, frames, bands]`: each band sees half of its neighbours."""

    def __init__(self, views: int, channels: int, zones: list[Zone]):
        super().__init__()
        self.zones = zones
        self.layers = nn.ModuleList(
            nn.Conv2d(views, channels, (3, 2 * zone.width), (1, zone.width), padding=(1, 0)) for zone in zones
        )

    def forward(self, x: Tensor) -> Tensor:
        bands = []
        for zone, layer, piece in zip(self.zones, self.layers, overlapping(x, self.zones), strict=True):
            weight, bias = kernel(layer)
            weight = bins_to_channels(weight, zone.width)
            bands.append(conv2d(bins_to_channels(piece, zone.width), weight, bias, padding=(1, 0)))
        return torch.cat(bands, dim=-1)


class BandMerge(nn.Module):
    """Normalise `[batch, channels, frames, bands]` and expand it to `[batch, outputs, frames, bins]`."""

    def __init__(self, channels: int, outputs: int, zones: list[Zone]):
        super().__init__()
        self.zones = zones
        self.norm = FrameNorm(channels)
        self.layers = nn.ModuleList(
            nn.ConvTranspose2d(channels, outputs, (1, 2 * zone.width), (1, zone.width), padding=(0, zone.width // 2))
            for zone in zones
        )

    def forward(self, x: Tensor) -> Tensor:
        bins: list[Tensor] = []
        pieces = self.norm(x).split([zone.bands for zone in self.zones], dim=-1)
        for zone, layer, piece in zip(self.zones, self.layers, pieces, strict=True):
            weight, bias = kernel(layer)
            halves = conv2d(piece, transposed_to_plain(weight, zone.width), padding=(0, 1))
            spread_out = halves.unflatten(1, (-1, zone.width)).movedim(2, -1).flatten(-2)
            bins.append(spread_out[..., zone.width // 2 : -(zone.width // 2)] + bias[:, None, None])
        return torch.cat(bins, dim=-1)


def overlapping(x: Tensor, zones: list[Zone], dim: int = -1) -> list[Tensor]:
    """Slice the axis `dim` of `x`, -1 or -2, by zone: its bins, and half a band more on both sides."""
    margin = max(zone.width for zone in zones) // 2
    x = pad(x, (0, 0) * (-1 - dim) + (margin, margin))
    return [x.narrow(dim, margin + z.first - z.width // 2, z.end - z.first + z.width) for z in zones]


# A convolution two bands wide with a stride of one band is computed over two neighbouring bands, with the bins of each
# as channels. This is at least as fast, and correct: with bfloat16 on processors with AMX, oneDNN of torch 2.13.0 and
# 2.14.1 gets wide convolutions of few channels wrong, and the gradients of wide transposed ones.


def bins_to_channels(x: Tensor, width: int) -> Tensor:
    """`[..., views, frames, bands * width]` to `[..., views * width, frames, bands]`."""
    return x.unflatten(-1, (-1, width)).movedim(-1, -3).flatten(-4, -3)


def transposed_to_plain(weight: Tensor, width: int) -> Tensor:
    """Convert the weight of a transposed convolution, `[channels, outputs, 1, 2 * width]`, to that of a plain one.

    It becomes `[outputs * width, channels, 1, 2]`: a bin comes from the band before it and from its own.
    """
    return weight.unflatten(-1, (2, width)).flip(-2).permute(1, 4, 0, 2, 3).flatten(0, 1)
