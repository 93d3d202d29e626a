"""How good a network is in the middle of its training: energy-ratio SDR on the validation songs of the stores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median

import torch
from torch import Tensor

from separation.audio.stft import Spectral
from separation.dataset.store import Store, StoredTrack, mixture_of, rest_of, target_of
from separation.inference.masking import MaskingNetwork
from separation.inference.separator import Separator

Scores = dict[str, dict[str, float]]
"""SDR in decibels by song and source."""


def sdr(reference: Tensor, estimate: Tensor) -> float:
    """10 log10 of the energy of `reference` against that of the error, in dB, over a whole signal of any shape."""
    floor = 1e-10
    error = (reference - estimate).square().sum() + floor
    return float(10 * torch.log10((reference.square().sum() + floor) / error))


def validation_tracks(stores: Iterable[str]) -> list[StoredTrack]:
    """The validation songs of the stores that have a mixture, and something else to compare with.

    Raises `UserError` when one is damaged.
    """
    found = []
    for store in (Store(Path(folder)) for folder in stores):
        for track in store.tracks("valid"):
            if len(track.parts) > 1 and mixture_of(track):
                track.check(store.settings.bins)
                found.append(track)
    return found


def validate(network: MaskingNetwork, tracks: Iterable[StoredTrack]) -> Scores:
    """SDR of each source of each song; a source that a song lacks or that is silent has none."""
    return scores_of(Separator(network), tracks)


def scores_of(separator: Separator, tracks: Iterable[StoredTrack]) -> Scores:
    """The same, of a separator."""
    network, scores = separator.network, {}
    spectral = Spectral(network.settings)
    for track in tracks:
        references = {target: target_of(track, target) for target in network.targets}
        if len(network.sources) > len(network.targets):
            references[network.sources[-1]] = rest_of(track, network.targets)

        def waveform(signal, track: StoredTrack = track) -> Tensor:
            return spectral.inverse(signal.crop(0, track.frames, network.settings.bins), track.samples)

        estimates = separator(waveform(mixture_of(track)), network.settings.sample_rate)
        scores[track.name] = {
            source: sdr(reference, estimates[source])
            for source, signal in references.items()
            if signal and (reference := waveform(signal)).square().mean() > 1e-8
        }
    return scores


def medians(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The median over songs of each source's SDR, in dB."""
    sources = {source: None for song in scores.values() for source in song}
    return {source: median(song[source] for song in scores.values() if source in song) for source in sources}


def mean_of(targets: Sequence[str], scores: Mapping[str, Mapping[str, float]]) -> float | None:
    """The mean SDR of the targets over all songs, in dB; None when no song has any of them.

    What to choose by: with few songs medians move by several times as much as the songs do.
    """
    values = [song[target] for song in scores.values() for target in targets if target in song]
    return fmean(values) if values else None
