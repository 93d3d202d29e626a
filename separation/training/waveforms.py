"""The waveforms of compact stores in the memory of a device, where whole batches of crops are made of them at once.

A GPU that waited for batches from the processor would wait most of the time. What it is sent are orders: which samples
to take, and what to do with them. The batches are those of `draws.make`, but for rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from separation.audio.stft import Spectral, SpectralSettings
from separation.dataset.store import StoredTrack
from separation.errors import UserError
from separation.training.augmentation import equaliser_factors
from separation.training.config import Config
from separation.training.draws import Example
from separation.training.pools import Pools

Place = tuple[int, int]
"""The first sample of a part in the memory, and the one after its last."""


@dataclass
class Orders:
    """Examples as numbers, for pieces of waveforms and for the sources that they are summed to.

    Of each piece: the `position` of its first sample, `first` and `end` of the part that it lies in, `source`, `scale`.
    Of each source: `swap`, `mono`, `limit` (bin), and the factors of its `equaliser` by bin.
    """

    position: Tensor
    first: Tensor
    end: Tensor
    source: Tensor
    scale: Tensor
    swap: Tensor
    mono: Tensor
    limit: Tensor
    equaliser: Tensor
    examples: int

    def pin_memory(self) -> Orders:
        return self._each(Tensor.pin_memory)

    def to(self, device: torch.device) -> Orders:
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def _each(self, change) -> Orders:
        values = (getattr(self, field.name) for field in fields(self))
        return Orders(*(change(value) if isinstance(value, Tensor) else value for value in values))


@dataclass(frozen=True)
class Clerk:
    """Writes orders; it knows the places of the waveforms, and needs none of them: worker processes have one each."""

    places: dict[tuple[Path, str], Place]
    settings: SpectralSettings
    bins: int

    def orders(self, examples: Sequence[Example]) -> Orders:
        """Examples with the same number of sources, as numbers."""
        settings, pieces, sources, equalisers = self.settings, [], [], []
        draws = [(draw, example.limit(settings)) for example in examples for draw in example.draws]
        for index, (draw, limit) in enumerate(draws):
            if not (draw and draw.gain):
                sources.append((False, False, limit))
                equalisers.append(())
                continue
            sources.append((draw.swap, draw.mono, limit))
            equalisers.append(draw.equaliser)
            track, start = draw.signal.track, draw.start * settings.hop - settings.padding
            for part, sign in draw.signal.parts:
                first, end = self.places[track.folder, part]
                pieces.append((first + start, first, end, index, sign * draw.signal.gain * draw.gain * track.step))
        position, first, end, source, scale = zip(*pieces, strict=True) if pieces else ((),) * 5
        swap, mono, limits = zip(*sources, strict=True)
        return Orders(
            *(torch.tensor(values, dtype=torch.int64) for values in (position, first, end, source)),
            torch.tensor(scale, dtype=torch.float32),
            torch.tensor(swap),
            torch.tensor(mono),
            torch.tensor(limits),
            self._equalisers(equalisers),
            len(examples),
        )

    def _equalisers(self, equalisers: Sequence[tuple[float, ...]]) -> Tensor:
        if not any(equalisers):
            return torch.ones(0)
        flat = torch.ones(self.bins)
        return torch.stack([equaliser_factors(gains, self.bins) if gains else flat for gains in equalisers])


class Waveforms:
    """The waveforms of `parts`, each of a compact track, on a device.

    Raises `UserError` when a track is not compact, or is damaged.
    """

    def __init__(
        self, parts: Iterable[tuple[StoredTrack, str]], settings: SpectralSettings, bins: int, device: torch.device
    ):
        self.settings, self.bins = settings, bins
        self.spectral = Spectral(settings)
        places, pieces, length = {}, [], 0
        for track, part in parts:
            if (track.folder, part) not in places:
                piece = track.waveform(part).to(device)
                places[track.folder, part] = (length, length + len(piece))
                pieces.append(piece.expand(-1, 2))
                length += len(piece)
        self.samples = torch.cat(pieces) if pieces else torch.zeros(0, 2, dtype=torch.int16, device=device)
        self.clerk = Clerk(places, settings, bins)

    @torch.no_grad()
    def make(self, orders: Orders, frames: int) -> Tensor:
        """The sources of examples: complex `[examples, sources, 2 channels, bins, frames]`."""
        orders = orders.to(self.samples.device)
        waveforms = self._crops(orders, (frames - 1) * self.settings.hop + self.settings.n_fft)
        waveforms = torch.where(orders.swap[:, None, None], waveforms.flip(1), waveforms)
        waveforms = torch.where(orders.mono[:, None, None], waveforms.mean(1, keepdim=True), waveforms)
        spectrograms = self.spectral.analyse(waveforms)[:, :, : self.bins]
        bins = torch.arange(self.bins, device=self.samples.device)
        kept = (bins < orders.limit[:, None]).float()
        if len(orders.equaliser):
            kept = kept * orders.equaliser
        spectrograms = spectrograms * kept[:, None, :, None]
        return spectrograms.unflatten(0, (orders.examples, -1))

    def _crops(self, orders: Orders, length: int) -> Tensor:
        """The summed pieces of each source, `[sources, 2 channels, length]`; what lies outside of a part is silent."""
        crops = torch.zeros(len(orders.swap), length, 2, device=self.samples.device)
        if len(orders.position):
            index = orders.position[:, None] + torch.arange(length, device=self.samples.device)
            inside = (index >= orders.first[:, None]) & (index < orders.end[:, None])
            index = torch.minimum(torch.maximum(index, orders.first[:, None]), orders.end[:, None] - 1)
            pieces = self.samples[index] * (inside * orders.scale[:, None])[..., None]
            crops.index_add_(0, orders.source, pieces)
        return crops.transpose(1, 2)


def waveforms_of(pools: Pools, config: Config, device: torch.device) -> Waveforms | None:
    """The waveforms that batches are made of, if `data.in_memory` asks for it or, by default, a GPU may have them.

    Raises `UserError` when it asks for it and a track is not compact.
    """
    signals = [*pools.signals(config.targets)]
    spectra = [signal.track.folder for signal in signals if signal.track.step is None]
    wanted = device.type == "cuda" and not spectra if config.data.in_memory is None else config.data.in_memory
    if not wanted:
        return None
    if spectra:
        raise UserError(f"data.in_memory needs waveforms, and {spectra[0]} has none: build its store with --compact.")
    parts = ((signal.track, part) for signal in signals for part, _ in signal.parts)
    return Waveforms(parts, config.spectral, config.used_bins, device)
