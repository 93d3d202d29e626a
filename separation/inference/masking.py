"""A network with its STFT, which turns a mixture's spectrogram into those of its targets, at once or as a stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from separation.audio.stft import Spectral, SpectralSettings
from separation.inference.device import choose_precision, trusted_precision
from separation.inference.stream import whole_strides
from separation.models.unet_stream import Memory
from separation.runtime import count
from separation.stems import source_names

CHUNK = 64
"""Frames separated at a time, unless a network needs more."""


class MaskingNetwork(nn.Module):
    """A network of `separation.models`, or your own, with what it needs for separation: its targets and its STFT.

    Its masks multiply complex spectrograms. The rest is the mixture minus the targets: it needs no mask, and the
    sources always sum to the mixture.
    """

    def __init__(self, targets: Sequence[str], settings: SpectralSettings, generator: nn.Module):
        super().__init__()
        self.targets = tuple(targets)
        self.sources = source_names(targets)
        self.settings = settings
        self.spectral = Spectral(settings)
        self.generator = generator
        self.licence = ""  # of the weights, as stated in their file
        self.trusted: torch.dtype | None = None  # None until bfloat16 is first used

    @property
    def device(self) -> torch.device:
        return next((tensor.device for tensor in self.generator.state_dict().values()), torch.device("cpu"))

    @property
    def place(self) -> str:
        if self.device.type == "cuda":
            return f"torch, {torch.cuda.get_device_name(self.device)}"
        return f"torch, {self.device.type.upper()}, {count(torch.get_num_threads(), 'thread')}"

    @property
    def stride(self) -> int:
        """The number of frames in an input of the network must be a multiple of this."""
        return getattr(self.generator, "stride", 1)

    @property
    def segment(self) -> int | None:
        """Frames per segment that the network is used on; None if its context is finite."""
        segment = getattr(self.generator, "segment", None)
        return segment and max(segment // self.stride, 4) * self.stride

    @property
    def context(self) -> int:
        """Frames on either side that a frame depends on or, in a network with segments, by which segments overlap."""
        if self.segment:
            return whole_strides(self.segment // 4, self.stride)
        return whole_strides(int(getattr(self.generator, "context")), self.stride)  # noqa: B009 (for the type checker)

    def chunk(self, frames: int | None) -> int:
        """How many frames to separate at a time: about as many as requested, or as many as suit the network."""
        if self.segment:
            return min(whole_strides(frames or self.segment, self.stride), self.segment - self.context)
        if frames is None and not hasattr(self.generator, "stream"):
            frames = max(CHUNK, 2 * self.context)  # the context is recomputed for every chunk
        return whole_strides(frames or CHUNK, self.stride)

    def forward(self, mixture: Tensor) -> Tensor:
        """Complex `[batch, 2 channels, bins, frames]` to complex `[batch, targets, 2 channels, bins, frames]`."""
        frames = mixture.shape[-1]
        masks = self.generator(pad(mixture, (0, -frames % self.stride)))[..., :frames]
        return masks * mixture[:, None]

    def begin(self, targets: Sequence[str], precision: str) -> TorchStep:
        """Start a song, for some of the targets; `precision` is as in `choose_precision`."""
        dtype = choose_precision(precision, self.device)
        if self.trusted is None and dtype == torch.bfloat16:
            self.trusted = trusted_precision(dtype, self.device, self._noise)
        return TorchStep(self, targets, self.trusted if dtype == torch.bfloat16 and self.trusted else dtype)

    def masks(self, dtype: torch.dtype) -> Masks:
        """Masks of a song that arrives in pieces, computed in `dtype`."""
        if stream := getattr(self.generator, "stream", None):
            return stream(dtype)
        return SegmentedMasks(self, dtype) if self.segment else ChunkedMasks(self, dtype)

    @torch.no_grad()
    def _noise(self, dtype: torch.dtype) -> list[Tensor]:
        """Masks of a short piece of pink noise."""
        frames = whole_strides(16, self.stride)
        noise = torch.randn(2, frames, self.settings.bins, 2, generator=torch.Generator().manual_seed(0))
        slope = 1 + torch.arange(self.settings.bins)[:, None] / 50
        return [self.masks(dtype)(torch.view_as_complex(noise / slope).transpose(1, 2).to(self.device))]


class Masks(Protocol):
    """Masks of a song that arrives in pieces of whole strides; they are `lag` frames late."""

    lag: int

    def __call__(self, mixture: Tensor) -> Tensor:
        """Complex `[2 channels, bins, frames]` to masks of as many frames, `[targets, 2 channels, bins, frames]`."""


class TorchStep:
    """A network at work on one song; see `separation.inference.stream.Step`."""

    def __init__(self, network: MaskingNetwork, targets: Sequence[str], dtype: torch.dtype):
        self.spectral, self.device = network.spectral, network.device
        self.masked = [network.targets.index(target) for target in targets]
        self.masks = network.masks(dtype)
        self.lag = self.masks.lag
        self.mixture = Memory(self.lag, dim=-2)

    @torch.no_grad()
    def __call__(self, piece: np.ndarray) -> np.ndarray:
        spectrogram = self.spectral.analyse(torch.from_numpy(piece).to(self.device))
        masks = self.masks(spectrogram).transpose(-1, -2)  # frames before bins, as in memory
        mixture = self.mixture.delay(spectrogram.transpose(-1, -2))
        targets = mixture.new_empty(len(self.masked), *mixture.shape)
        for target, number in zip(targets, self.masked, strict=True):
            if masks.is_complex():
                torch.mul(mixture, masks[number], out=target)
            else:  # a complex product would first make a complex copy of the mask
                torch.mul(mixture.real, masks[number], out=target.real)
                torch.mul(mixture.imag, masks[number], out=target.imag)
        return self.spectral.synthesise(targets.transpose(-1, -2)).cpu().numpy()


class ChunkedMasks:
    """Masks by a network with finite context: every piece is computed with its context on both sides."""

    def __init__(self, network: MaskingNetwork, dtype: torch.dtype):
        self.generator, self.dtype, self.device = network.generator, dtype, network.device
        self.lag = network.context
        self.before = Memory(2 * self.lag, dim=-1)

    def __call__(self, mixture: Tensor) -> Tensor:
        masks = run(self.generator, self.before(mixture), self.dtype)
        return masks[..., self.lag : self.lag + mixture.shape[-1]]


class SegmentedMasks:
    """Masks by a network with infinite context: segments overlap and are crossfaded with weights that sum to one.

    Each piece completes a segment, which ends where the piece does. Masks are output once no later segment contributes
    to them, `lag` frames late. The lag is the overlap of segments; a piece is at most a segment minus the overlap.
    """

    def __init__(self, network: MaskingNetwork, dtype: torch.dtype):
        self.generator, self.dtype, self.segment = network.generator, dtype, network.segment or 1
        self.lag = network.context
        self.mixture: Tensor | None = None
        self.waiting: Tensor | None = None

    def __call__(self, mixture: Tensor) -> Tensor:
        frames = mixture.shape[-1]
        before = mixture[..., :0] if self.mixture is None else self.mixture
        self.mixture = torch.cat([before, mixture], dim=-1)[..., -self.segment :]
        masks = run(self.generator, self.mixture, self.dtype)
        if self.waiting is None:  # nothing precedes the song to fade from
            self.waiting = torch.zeros_like(masks[..., :1]).expand(*masks.shape[:-1], self.lag)
        overlap = min(self.lag, masks.shape[-1] - frames)
        rising = (torch.arange(1, overlap + 1, device=masks.device) / (overlap + 1)).to(masks.real.dtype)
        older, newer = self.waiting[..., self.lag - overlap :], masks[..., masks.shape[-1] - frames - overlap :]
        faded = older * (1 - rising) + newer[..., :overlap] * rising
        waiting = torch.cat([self.waiting[..., : self.lag - overlap], faded, newer[..., overlap:]], dim=-1)
        self.waiting = waiting[..., frames:]
        return waiting[..., :frames]


def run(generator: nn.Module, mixture: Tensor, dtype: torch.dtype) -> Tensor:
    """Masks of one piece, complex `[2 channels, bins, frames]`, by a network that computes in `dtype`."""
    with torch.autocast(mixture.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        masks = generator(mixture[None])[0]
    return masks if masks.is_complex() else masks.float()
