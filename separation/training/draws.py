"""What an example is made of: a crop for each of its sources, and how each is changed; and the making of one crop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from separation.audio.stft import SpectralSettings
from separation.dataset.store import Signal
from separation.training.augmentation import equalised


@dataclass(frozen=True)
class Draw:
    """A crop of a signal from frame `start`, and its changes in the order in which they are made.

    `equaliser` holds the gains at octaves in decibels, if there are any. With `swap` left and right change places;
    with `mono` both become their mean. `gain` is a factor: below 0 it inverts the polarity, 0 is silence.
    """

    signal: Signal
    start: int
    equaliser: tuple[float, ...] = ()
    swap: bool = False
    mono: bool = False
    gain: float = 1.0


@dataclass(frozen=True)
class Example:
    """The sources of an example; None is silence. All are silent above `bandwidth`, in hertz.

    `labelled` says by target whether its source is all of it (1), or others may hold some too (0); `taught` whether a
    teacher says what they are.
    """

    draws: tuple[Draw | None, ...]
    bandwidth: float = math.inf
    labelled: tuple[float, ...] = ()
    taught: bool = False

    def limit(self, settings: SpectralSettings) -> int:
        """The bin that all sources are silent from, where a missing sound would be no sign of a missing source."""
        if self.bandwidth >= settings.sample_rate / 2:
            return settings.bins
        return settings.bin_of(0.95 * self.bandwidth)


def make(examples: Sequence[Example], settings: SpectralSettings, bins: int, frames: int) -> Tensor:
    """The sources of examples, read from their stores: complex `[examples, sources, 2 channels, bins, frames]`."""
    made = torch.zeros(len(examples), len(examples[0].draws), 2, bins, frames, dtype=torch.complex64)
    for sources, example in zip(made, examples, strict=True):
        for source, draw in zip(sources, example.draws, strict=True):
            if draw and draw.gain:
                source.copy_(_crop(draw, bins, frames))
        sources[..., example.limit(settings) :, :] = 0
    return made


def _crop(draw: Draw, bins: int, frames: int) -> Tensor:
    crop = draw.signal.crop(draw.start, frames, bins)
    if draw.equaliser:
        crop = equalised(crop, draw.equaliser)
    if draw.swap:
        crop = crop.flip(0)
    if draw.mono:
        crop = crop.mean(0, keepdim=True).expand_as(crop)
    return crop * draw.gain
