"""Validation during training: the validation songs, their SDR, and the temperature of the masks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any, cast

from torch import Tensor

from separation.audio.stft import Spectral, SpectralSettings
from separation.dataset.layouts import artist_of, is_named
from separation.dataset.store import Signal, Store, StoredTrack, rest_of, target_of
from separation.errors import UserError
from separation.inference.masking import MaskingNetwork
from separation.inference.separator import Separator, sdr
from separation.runtime import count
from separation.stems import MIXTURE
from separation.training.config import DataSettings

Scores = dict[str, dict[str, float]]
"""SDR in dB by song and source. Songs are keyed by track folder, because two may share a name."""


def validation_tracks(stores: Iterable[str], spectral: SpectralSettings | None = None) -> list[StoredTrack]:
    """Validation songs of the stores that have a mixture and at least one other part to compare with.

    Raises `UserError` when a song is damaged, or a store is missing or has another STFT.
    """
    found = []
    for store in (Store(Path(folder), spectral) for folder in stores):
        for track in store.tracks("valid"):
            if len(track.parts) > 1 and target_of(track, MIXTURE):
                track.check(store.settings.bins)
                found.append(track)
    return found


def seeded(name: str, seed: int) -> str:
    """Random sort key of a name, independent of other names, so that subsets are nested."""
    return hashlib.sha256(f"{seed} {name}".encode()).hexdigest()


def hold_out(
    tracks: Sequence[StoredTrack], targets: Sequence[str], data: DataSettings
) -> tuple[set[str], list[StoredTrack]]:
    """Return the songs that `data.valid` excludes from training, and the tracks among them to validate on.

    A number of songs is drawn by `labelled_seed`, artist by artist, and all songs of these artists are excluded. An
    artist with more songs than still wanted is skipped as long as others suffice. Songs with a target are validated on,
    at their original speed.

    Raises `UserError` when too few songs qualify, or when no song or artist has a name that `data.valid` lists.
    """
    scored = [
        track
        for track in tracks
        if track.name == track.song and MIXTURE in track.parts and not track.teacher and {*targets} & {*track.parts}
    ]
    if isinstance(data.valid, int):
        excluded = _drawn({track.song for track in scored}, {track.song for track in tracks}, data.valid, data)
    else:
        excluded = set()
        for name in data.valid or ():
            found = {track.song for track in tracks if is_named(track.song, name)}
            if not found:
                raise UserError(
                    f"data.valid: no store has a training song or an artist called {name!r}.", code="no_such_song"
                )
            excluded |= found
    songs = [track for track in scored if track.song in excluded]
    if excluded and not songs:
        raise UserError(
            f"data.valid: none of these songs has a mixture and isolated {' or '.join(targets)} beside it.",
            code="no_such_song",
        )
    return excluded, songs


def _drawn(candidates: set[str], songs: set[str], wanted: int, data: DataSettings) -> set[str]:
    if wanted and wanted >= len(candidates):
        raise UserError(
            f"data.valid={wanted} leaves nothing to train on: {count(len(candidates), 'song')} with stems in all.",
            code="too_few_songs",
        )

    def by_seed(name: str) -> str:
        return seeded(name, data.labelled_seed + 2)

    artists: dict[str, list[str]] = {}
    for song in sorted(candidates, key=by_seed):
        artists.setdefault(artist_of(song), []).append(song)
    drawn: set[str] = set()
    for artist in sorted(artists, key=by_seed):
        if len(drawn) + len(artists[artist]) <= wanted:
            drawn |= {*artists[artist]}
    excluded = {artist_of(song) for song in drawn}
    # If whole artists do not make up the number, take single songs of the others.
    drawn |= {*sorted(candidates - drawn, key=by_seed)[: wanted - len(drawn)]}
    return drawn | {song for song in songs if artist_of(song) in excluded}


def validate(
    separator: Separator, tracks: Sequence[StoredTrack], progress: Callable[[int], None] | None = None
) -> Scores:
    """SDR of each source of each song, in dB, except for sources that a song lacks or that are silent.

    `progress` is called with the index of each song before it is separated.
    """
    network, scores = separator.network, {}
    spectral = Spectral(network.settings)
    for number, track in enumerate(tracks):
        if progress:
            progress(number)
        references = {target: target_of(track, target) for target in network.targets}
        if len(network.sources) > len(network.targets):
            references[network.sources[-1]] = rest_of(track, network.targets)

        def waveform(signal: Signal, track: StoredTrack = track) -> Tensor:
            return spectral.inverse(signal.crop(0, track.frames, network.settings.bins), track.samples)

        mixture = target_of(track, MIXTURE)
        estimates = separator(waveform(mixture), network.settings.sample_rate) if mixture else {}
        scores[str(track.folder)] = {
            source: sdr(reference, estimates[source])
            for source, signal in references.items()
            if signal and (reference := waveform(signal)).square().mean() > 1e-8
        }
    return scores


def medians(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Median over songs of each source's SDR, in dB."""
    sources = {source: None for song in scores.values() for source in song}
    return {source: median(song[source] for song in scores.values() if source in song) for source in sources}


def mean_of(targets: Sequence[str], scores: Mapping[str, Mapping[str, float]]) -> float | None:
    """Mean SDR of the targets over all songs, in dB; None when no song has any of them.

    It selects the best step: medians over few songs vary several times as much.
    """
    values = [song[target] for song in scores.values() for target in targets if target in song]
    return fmean(values) if values else None


def fit_temperature(
    network: MaskingNetwork,
    tracks: Sequence[StoredTrack],
    temperatures: Sequence[float],
    progress: Callable[[int, int], None] | None = None,
) -> tuple[float, Scores]:
    """Divide the network's logits by the temperature with the best mean SDR of its targets on `tracks`.

    An L1 loss makes masks nearly binary, while SDR rewards masks that express uncertainty: Guo et al., "On calibration
    of modern neural networks", ICML 2017. Returns the temperature and its scores. If nothing can be scored, the
    temperature nearest 1 is used.
    """
    tried, generator = {}, cast(Any, network.generator)
    for number, temperature in enumerate(temperatures):
        generator.scale_logits(1 / temperature)
        tried[temperature] = validate(
            Separator(network), tracks, progress and (lambda song, number=number: progress(number, song))
        )
        generator.scale_logits(temperature)

    def merit(temperature: float) -> float:
        mean = mean_of(network.targets, tried[temperature])
        return -abs(temperature - 1) if mean is None else mean

    best = max(tried, key=merit)
    generator.scale_logits(1 / best)
    return best, tried[best]
