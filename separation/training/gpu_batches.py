"""Batches made on the device: the waveforms of compact stores stay in its memory, and only plans are sent to it.

A plan says which samples to take and how to process them. Batches match `batches.read_examples` up to rounding. Waiting
for batches made on the CPU would leave a GPU idle most of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from separation.audio.stft import Spectral, SpectralSettings
from separation.dataset.store import StoredTrack
from separation.errors import UserError
from separation.training.batches import Batch, Example, assemble, equaliser_factors
from separation.training.config import Config
from separation.training.sources import SourcePools


@dataclass
class BatchPlan:
    """Examples as numbers: the pieces of waveforms to read, and the sources that they sum to.

    Each piece has the `position` of its first sample, `first` and `end` of the part it lies in, a `source` and a
    `scale`. Each source has `swap`, `mono`, a `limit` in bins, and `equaliser` factors per bin.
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

    def pin_memory(self) -> BatchPlan:
        return self._each(Tensor.pin_memory)

    def to(self, device: torch.device) -> BatchPlan:
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def _each(self, change: Callable[[Tensor], Tensor]) -> BatchPlan:
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **{name: cast(Any, change(value)) for name, value in tensors.items()})


@dataclass(frozen=True)
class BatchPlanner:
    """Makes plans. It needs only the place of each part in memory, first sample and end, not the waveforms."""

    places: dict[tuple[Path, str], tuple[int, int]]
    settings: SpectralSettings
    bins: int

    def __call__(self, examples: Sequence[Example]) -> BatchPlan:
        """Plan examples that have the same number of sources."""
        draws = [(draw, example.limit(self.settings)) for example in examples for draw in example.draws]
        pieces: list[tuple[int, int, int, int]] = []
        scales: list[float] = []
        for index, (draw, _) in enumerate(draws):
            if draw is None or not draw.gain:
                continue
            for part, sign in draw.signal.parts:
                first, end = self.places[draw.signal.track.folder, part]
                start = draw.start * self.settings.hop - self.settings.padding
                pieces.append((first + start, first, end, index))
                scales.append(sign * draw.signal.gain * draw.gain * (draw.signal.track.step or 0))
        position, first_sample, end_sample, source = torch.tensor(pieces, dtype=torch.int64).view(-1, 4).unbind(1)
        equalisers = [draw.equaliser if draw and draw.gain else () for draw, _ in draws]
        flat = torch.ones(self.bins)
        factors = [equaliser_factors(gains, self.bins) if gains else flat for gains in equalisers]
        return BatchPlan(
            position=position,
            first=first_sample,
            end=end_sample,
            source=source,
            scale=torch.tensor(scales, dtype=torch.float32),
            swap=torch.tensor([bool(draw and draw.swap) for draw, _ in draws]),
            mono=torch.tensor([bool(draw and draw.mono) for draw, _ in draws]),
            limit=torch.tensor([limit for _, limit in draws]),
            equaliser=torch.stack(factors) if any(equalisers) else torch.ones(0),
            examples=len(examples),
        )


class ResidentWaveforms:
    """The waveforms of `parts` of compact tracks, on a device.

    Raises `UserError` when a track is damaged.
    """

    def __init__(
        self,
        parts: Iterable[tuple[StoredTrack, str]],
        settings: SpectralSettings,
        bins: int,
        frames: int,
        device: torch.device,
    ):
        self.settings, self.bins, self.frames, self.device = settings, bins, frames, device
        self.spectral = Spectral(settings)
        places, pieces, length = {}, [], 0
        for track, part in parts:
            if (track.folder, part) not in places:
                piece = track.waveform(part).to(device)
                places[track.folder, part] = (length, length + len(piece))
                pieces.append(piece.expand(-1, 2))
                length += len(piece)
        self.samples = torch.cat(pieces) if pieces else torch.zeros(0, 2, dtype=torch.int16, device=device)
        self.planner = BatchPlanner(places, settings, bins)

    def finish(self, planned: dict[str, Any]) -> Batch:
        """Render planned parts into a batch."""
        return assemble(
            {
                name: self.render(value) if isinstance(value, BatchPlan) else value.to(self.device)
                for name, value in planned.items()
            }
        )

    @torch.no_grad()
    def render(self, plan: BatchPlan) -> Tensor:
        """Render the sources of examples: complex `[examples, sources, 2 channels, bins, frames]`."""
        plan = plan.to(self.device)
        waveforms = self._crops(plan, (self.frames - 1) * self.settings.hop + self.settings.n_fft)
        waveforms = torch.where(plan.swap[:, None, None], waveforms.flip(1), waveforms)
        waveforms = torch.where(plan.mono[:, None, None], waveforms.mean(1, keepdim=True), waveforms)
        spectrograms = self.spectral.analyse(waveforms)[:, :, : self.bins]
        kept = (torch.arange(self.bins, device=self.device) < plan.limit[:, None]).float()
        if len(plan.equaliser):
            kept = kept * plan.equaliser
        return (spectrograms * kept[:, None, :, None]).unflatten(0, (plan.examples, -1))

    def _crops(self, plan: BatchPlan, length: int) -> Tensor:
        """Sum the pieces of each source to `[sources, 2 channels, length]`, silent outside their parts."""
        crops = torch.zeros(len(plan.swap), length, 2, device=self.device)
        if len(plan.position):
            index = plan.position[:, None] + torch.arange(length, device=self.device)
            inside = (index >= plan.first[:, None]) & (index < plan.end[:, None])
            index = torch.minimum(torch.maximum(index, plan.first[:, None]), plan.end[:, None] - 1)
            pieces = self.samples[index] * (inside * plan.scale[:, None])[..., None]
            crops.index_add_(0, plan.source, pieces)
        return crops.transpose(1, 2)


def resident_waveforms(pools: SourcePools, config: Config, device: torch.device) -> ResidentWaveforms | None:
    """Load the training waveforms onto the device if `data.in_memory` says so or, by default, on a GPU.

    Returns None otherwise. Raises `UserError` when `data.in_memory` is set and a track is not compact.
    """
    signals = [*pools.signals(config.targets)]
    spectra = [signal.track.folder for signal in signals if signal.track.step is None]
    wanted = device.type == "cuda" and not spectra if config.data.in_memory is None else config.data.in_memory
    if not wanted:
        return None
    if spectra:
        raise UserError(
            f"data.in_memory needs waveforms, and {spectra[0]} has none: build its store with --compact.",
            code="not_compact",
        )
    parts = ((signal.track, part) for signal in signals for part, _ in signal.parts)
    return ResidentWaveforms(parts, config.spectral, config.used_bins, config.data.crop_frames, device)
