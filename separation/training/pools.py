"""Which song may give what: every stored song, by the stems it has and by the labels it may use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from separation.audio.stft import SpectralSettings
from separation.dataset.store import (
    Signal,
    Store,
    StoredTrack,
    check_settings,
    mixture_of,
    rest_of,
    shares_of,
    silence_of,
    target_of,
)
from separation.errors import UserError
from separation.stems import ACCOMPANIMENT, MIXTURE, STEMS
from separation.training.config import DataSettings
from separation.training.held_out import hold_out, seeded

LEVELS = {MIXTURE: -17, "vocals": -22, "drums": -24, "bass": -24, "other": -23, ACCOMPANIMENT: -19}
"""How loud a song is in training, and a part that comes without its song, in dB of full scale: MUSDB18's medians."""

SILENT = -80
"""Level, in dB of full scale, below which there is nothing to make louder."""


def levelled(signal: Signal) -> Signal:
    """The same, as loud as MUSDB18: how loud a collection was mastered is no part of its music.

    The parts of a song keep their balance.
    """
    track = signal.track
    gain = LEVELS[track.parts[0]] - track.level if track.level > SILENT else 0
    return replace(signal, gain=10 ** (gain / 20))


class Pool:
    """Signals to draw from: a store by its share, then a song, then a variant of it, each with the same chance.

    So a long album or a folder of many short takes weighs no more than its share. All come levelled.
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
        """All that can be drawn."""
        return (signal for songs in self._songs.values() for variants in songs.values() for signal in variants)

    def draw(self, rng: np.random.Generator) -> Signal:
        stores = list(self._songs)
        shares = np.array([self._shares[store] for store in stores])
        songs = self._songs[stores[rng.choice(len(stores), p=shares / shares.sum())]]
        variants = songs[list(songs)[rng.integers(len(songs))]]
        return variants[rng.integers(len(variants))]


@dataclass
class Pools:
    """What the training songs of all stores give.

    `labelled` holds the tracks with every target and the rest; `targets` and `rests` what may be remixed; `mixtures`
    and `rests_without` what the terms for unlabelled music take: mixtures, and music that lacks one of the targets.
    `taught` holds the tracks whose targets and rest are a teacher's estimates, which no other pool takes for true;
    `held_out` are the tracks that `data.valid` keeps to validate on.
    """

    labelled: Pool
    targets: dict[str, Pool]
    rests: Pool
    mixtures: Pool
    rests_without: dict[str, Pool]
    taught: Pool
    labelled_songs: list[str] = field(default_factory=list)
    held_out: list[StoredTrack] = field(default_factory=list)

    def signals(self, targets: Sequence[str]) -> Iterator[Signal]:
        """All that examples are made of, some of it several times."""
        for pool in (*self.targets.values(), self.rests, self.mixtures, *self.rests_without.values()):
            yield from pool.signals()
        for pool in (self.labelled, self.taught):
            for signal in pool.signals():
                yield from shares_of(signal.track, targets)

    def counts(self) -> tuple[int, int]:
        """How many songs give an isolated target, and how many others there are to learn from."""
        labelled = set().union(*(pool.songs for pool in self.targets.values()))
        pools = (self.rests, self.mixtures, *self.rests_without.values())
        return len(labelled), len(set().union(*(pool.songs for pool in pools)) - labelled)


def open_pools(targets: Sequence[str], data: DataSettings, spectral: SpectralSettings, bandwidth: float) -> Pools:
    """Sort the training songs of the stores in `data` by what they give.

    Unlabelled music has no mask for the bins that its files cannot hold: tracks below `bandwidth`, in hertz, are used
    with labels only. Raises `UserError` when a store is missing or has other spectral settings, and as `hold_out` does.
    """
    tracks = list(training_tracks(data, spectral))
    kept_out, held_out = hold_out([track for _, track in tracks], targets, data)
    tracks = [(store, track) for store, track in tracks if track.song not in kept_out]
    labelled_songs = _choose_labelled(
        (track for _, track in tracks if set(targets) & set(track.parts) and not track.teacher), data
    )
    pools = Pools(
        labelled=Pool(data.stores),
        targets={target: Pool(data.stores) for target in targets},
        rests=Pool(data.stores),
        mixtures=Pool(data.stores),
        rests_without={target: Pool(data.stores) for target in targets},
        taught=Pool(data.stores),
        labelled_songs=sorted(labelled_songs),
        held_out=held_out,
    )
    for store, track in tracks:
        isolated = bool(set(targets) & set(track.parts))
        if track.teacher:
            _add_taught(pools, store, track, targets, data, bandwidth)
        elif isolated and track.song not in labelled_songs:
            _add_unlabelled(pools, store, track, targets, data, bandwidth)
        else:
            _add_labelled(pools, store, track, targets, bandwidth)
    return pools


def training_tracks(data: DataSettings, spectral: SpectralSettings) -> Iterable[tuple[str, StoredTrack]]:
    """The tracks that batches may be cropped from, each with its store. Raises `UserError` as `open_pools` does."""
    for folder in data.stores:
        store = Store(Path(folder))
        check_settings(store.settings, spectral, f"the store {folder}")
        tracks = [track for track in store.tracks("train") if track.frames >= data.crop_frames]
        if not tracks:
            raise UserError(
                f"the store {folder} has no training song of {data.crop_frames} frames or more: "
                "build it with dataset.py, or lower data.crop_frames."
            )
        for track in tracks:
            track.check(spectral.bins)
            yield folder, track


def _choose_labelled(tracks: Iterable[StoredTrack], data: DataSettings) -> set[str]:
    songs = sorted({track.song for track in tracks}, key=lambda song: seeded(song, data.labelled_seed))
    return set(songs[: data.labelled])


def _add_labelled(pools: Pools, store: str, track: StoredTrack, targets: Sequence[str], bandwidth: float) -> None:
    isolated = [target_of(track, target) for target in targets]
    rest = rest_of(track, targets)
    for target, signal in zip(targets, isolated, strict=True):
        if signal:
            pools.targets[target].add(store, signal)
    if rest:
        pools.rests.add(store, rest)
    if _is_whole(track, targets):
        pools.labelled.add(store, isolated[0])
    if track.bandwidth < bandwidth:
        return
    # Music that is known to lack the targets is no mixture, even where it comes as one.
    if (mixture := mixture_of(track)) and (any(isolated) or not rest):
        pools.mixtures.add(store, mixture)
    for target in targets:
        if without := rest_of(track, [target]):
            pools.rests_without[target].add(store, without)


def _is_whole(track: StoredTrack, targets: Sequence[str]) -> bool:
    """Whether a track has all targets, and the rest if there is one."""
    return all(target_of(track, target) for target in targets) and bool(
        rest_of(track, targets) or {*targets} == {*STEMS}
    )


def _add_taught(
    pools: Pools, store: str, track: StoredTrack, targets: Sequence[str], data: DataSettings, bandwidth: float
) -> None:
    """A song with a teacher's labels. It is unlabelled music, too, of which is known where a target is silent."""
    if _is_whole(track, targets):
        pools.taught.add(store, target_of(track, targets[0]))
    if track.bandwidth < bandwidth:
        return
    pools.mixtures.add(store, mixture_of(track))
    if {*targets} != {*STEMS} and (silence := silence_of(track, targets, data.crop_frames)):
        pools.rests.add(store, silence)
    for target in targets:
        if silence := silence_of(track, [target], data.crop_frames):
            pools.rests_without[target].add(store, silence)


def _add_unlabelled(
    pools: Pools, store: str, track: StoredTrack, targets: Sequence[str], data: DataSettings, bandwidth: float
) -> None:
    """A song whose labels may not be used gives its mixture or its rests, never both (and never its targets)."""
    if data.remaining == "drop" or track.bandwidth < bandwidth:
        return
    gives_rest = data.remaining == "split" and int(seeded(track.song, data.labelled_seed + 1), 16) % 2
    if not gives_rest:
        if mixture := mixture_of(track):
            pools.mixtures.add(store, mixture)
        return
    if rest := rest_of(track, targets):
        pools.rests.add(store, rest)
    for target in targets:
        if without := rest_of(track, [target]):
            pools.rests_without[target].add(store, without)
