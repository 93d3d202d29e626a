"""Pools of sources for examples: every stored song, by its stems and by the labels that may be used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from separation.audio.stft import SpectralSettings
from separation.dataset.store import Signal, Store, StoredTrack, rest_of, shares_of, silence_of, target_of
from separation.errors import UserError
from separation.stems import ACCOMPANIMENT, MIXTURE, STEMS
from separation.training.config import DataSettings
from separation.training.validation import hold_out, seeded

LEVELS = {MIXTURE: -17, "vocals": -22, "drums": -24, "bass": -24, "other": -23, ACCOMPANIMENT: -19}
"""Training level of a song, or of a part without its song, in dB of full scale: medians of MUSDB18."""

SILENT = -80
"""Level in dB of full scale below which a signal is not amplified."""


def levelled(signal: Signal) -> Signal:
    """The signal at the level of MUSDB18, so that its mastering does not reveal which collection it comes from.

    The parts of a song keep their balance.
    """
    track = signal.track
    gain = LEVELS[track.parts[0]] - track.level if track.level > SILENT else 0
    return replace(signal, gain=10 ** (gain / 20))


class SourcePool:
    """Signals to draw: a store in proportion to its share, then a song, then a variant of it, both uniformly.

    A large collection or many short takes thus weigh no more than their store's share. All signals are levelled.
    """

    def __init__(self, shares: Mapping[str, float]):
        self._shares = shares
        self._songs: dict[str, dict[str, list[Signal]]] = {}

    def add(self, store: str, signal: Signal) -> None:
        self._songs.setdefault(store, {}).setdefault(signal.track.song, []).append(levelled(signal))

    def __len__(self) -> int:
        return sum(len(songs) for songs in self._songs.values())

    @property
    def songs(self) -> set[str]:
        """The names of all songs."""
        return {song for songs in self._songs.values() for song in songs}

    def signals(self) -> Iterator[Signal]:
        """All signals in the pool."""
        return (signal for songs in self._songs.values() for variants in songs.values() for signal in variants)

    def draw(self, rng: np.random.Generator) -> Signal:
        stores = list(self._songs)
        shares = np.array([self._shares[store] for store in stores])
        songs = self._songs[stores[rng.choice(len(stores), p=shares / shares.sum())]]
        variants = songs[list(songs)[rng.integers(len(songs))]]
        return variants[rng.integers(len(variants))]


@dataclass
class SourcePools:
    """What the training songs of all stores offer.

    `whole` holds songs with true stems for every target and the rest, `pseudo_labelled` songs with estimated stems,
    which no other pool treats as true. `targets` and `rests` hold material for remixes, `mixtures` and `rests_without`
    material for the terms for unlabelled music: mixtures, and music that lacks one of the targets. `held_out` lists the
    tracks that `data.valid` reserves for validation.
    """

    whole: SourcePool
    pseudo_labelled: SourcePool
    targets: dict[str, SourcePool]
    rests: SourcePool
    mixtures: SourcePool
    rests_without: dict[str, SourcePool]
    labelled_songs: list[str] = field(default_factory=list)
    held_out: list[StoredTrack] = field(default_factory=list)

    def signals(self, targets: Sequence[str]) -> Iterator[Signal]:
        """All signals that examples are made of, some of them more than once."""
        for pool in (*self.targets.values(), self.rests, self.mixtures, *self.rests_without.values()):
            yield from pool.signals()
        for pool in (self.whole, self.pseudo_labelled):
            for signal in pool.signals():
                yield from shares_of(signal.track, targets)

    def counts(self) -> tuple[int, int]:
        """Numbers of songs with an isolated target and of all others."""
        labelled = set().union(*(pool.songs for pool in self.targets.values()))
        pools = (self.rests, self.mixtures, *self.rests_without.values())
        return len(labelled), len(set().union(*(pool.songs for pool in pools)) - labelled)


def open_pools(targets: Sequence[str], data: DataSettings, spectral: SpectralSettings, bandwidth: float) -> SourcePools:
    """Sort the training songs of `data.stores` into pools.

    Tracks whose bandwidth in hertz is below `bandwidth` are used only with labels, because examples of unlabelled music
    are not band-limited. Raises `UserError` as `training_tracks` and `hold_out` do.
    """
    tracks = list(training_tracks(data, spectral))
    excluded, held_out = hold_out([track for _, track in tracks], targets, data)
    tracks = [(store, track) for store, track in tracks if track.song not in excluded]
    isolated = {track.song for _, track in tracks if {*targets} & {*track.parts} and not track.teacher}
    labelled = sorted(isolated, key=lambda song: seeded(song, data.labelled_seed))[: data.labelled]
    names = ("whole", "pseudo_labelled", "rests", "mixtures")
    by_target: list[dict[str, SourcePool]] = [{t: SourcePool(data.stores) for t in targets} for _ in range(2)]
    pools = SourcePools(
        **{name: SourcePool(data.stores) for name in names},
        targets=by_target[0],
        rests_without=by_target[1],
        labelled_songs=sorted(labelled),
        held_out=held_out,
    )
    for store, track in tracks:
        wide = track.bandwidth >= bandwidth
        if track.teacher:
            _add_pseudo_labelled(pools, store, track, targets, data.crop_frames, wide)
        elif {*targets} & {*track.parts} and track.song not in labelled:
            _add_unlabelled(pools, store, track, targets, data, wide)
        else:
            _add_labelled(pools, store, track, targets, wide)
    return pools


def training_tracks(data: DataSettings, spectral: SpectralSettings) -> Iterator[tuple[str, StoredTrack]]:
    """Yield the tracks long enough for a crop, each with its store.

    Raises `UserError` when a store is missing or damaged, has another STFT, or has no song as long as a crop.
    """
    for folder in data.stores:
        tracks = Store(Path(folder), spectral).tracks("train")
        tracks = [track for track in tracks if track.frames >= data.crop_frames]
        if not tracks:
            raise UserError(
                f"the store {folder} has no training song of {data.crop_frames} frames or more: "
                "build it with dataset.py, or lower data.crop_frames.",
                code="no_songs",
            )
        for track in tracks:
            track.check(spectral.bins)
            yield folder, track


def _add_labelled(pools: SourcePools, store: str, track: StoredTrack, targets: Sequence[str], wide: bool) -> None:
    """Add a song whose stems may be used. If it is `wide` in frequency, it also serves as unlabelled music."""
    isolated = [target_of(track, target) for target in targets]
    rest = rest_of(track, targets)
    for target, signal in zip(targets, isolated, strict=True):
        if signal:
            pools.targets[target].add(store, signal)
    if rest:
        pools.rests.add(store, rest)
    if _is_whole(track, targets) and isolated[0]:
        pools.whole.add(store, isolated[0])
    if not wide:
        return
    # Music known to lack the targets is not a mixture, even if it is stored as one.
    if (mixture := target_of(track, MIXTURE)) and (any(isolated) or not rest):
        pools.mixtures.add(store, mixture)
    _add_rests_without(pools, store, track, targets)


def _add_pseudo_labelled(
    pools: SourcePools, store: str, track: StoredTrack, targets: Sequence[str], shortest: int, wide: bool
) -> None:
    """Add a song with pseudo-labels: also as unlabelled music, and as a true rest where targets are silent."""
    estimate, mixture = target_of(track, targets[0]), target_of(track, MIXTURE)
    if estimate and _is_whole(track, targets):
        pools.pseudo_labelled.add(store, estimate)
    if not wide or not mixture:
        return
    pools.mixtures.add(store, mixture)
    if {*targets} != {*STEMS} and (silence := silence_of(track, targets, shortest)):
        pools.rests.add(store, silence)
    for target in targets:
        if silence := silence_of(track, [target], shortest):
            pools.rests_without[target].add(store, silence)


def _add_unlabelled(
    pools: SourcePools, store: str, track: StoredTrack, targets: Sequence[str], data: DataSettings, wide: bool
) -> None:
    """Add a song whose labels may not be used: its mixture or its rests, never both, and never its targets."""
    if data.remaining == "drop" or not wide:
        return
    if data.remaining == "split" and int(seeded(track.song, data.labelled_seed + 1), 16) % 2:
        if rest := rest_of(track, targets):
            pools.rests.add(store, rest)
        _add_rests_without(pools, store, track, targets)
    elif mixture := target_of(track, MIXTURE):
        pools.mixtures.add(store, mixture)


def _add_rests_without(pools: SourcePools, store: str, track: StoredTrack, targets: Sequence[str]) -> None:
    for target in targets:
        if without := rest_of(track, [target]):
            pools.rests_without[target].add(store, without)


def _is_whole(track: StoredTrack, targets: Sequence[str]) -> bool:
    """Whether a track has all targets, and the rest if there is one."""
    return all(target_of(track, target) for target in targets) and bool(
        rest_of(track, targets) or {*targets} == {*STEMS}
    )
