"""Which training songs are kept out of the training, to validate on singers that the network has not heard."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from separation.dataset.layouts import artist_of, is_named
from separation.dataset.store import StoredTrack
from separation.errors import UserError
from separation.stems import MIXTURE
from separation.training.config import DataSettings


def seeded(name: str, seed: int) -> str:
    """A random key for a name that does not depend on which other names there are, so that subsets are nested."""
    return hashlib.sha256(f"{seed} {name}".encode()).hexdigest()


def hold_out(
    tracks: Sequence[StoredTrack], targets: Sequence[str], data: DataSettings
) -> tuple[set[str], list[StoredTrack]]:
    """The songs that `data.valid` keeps out of the training, and the tracks among them to validate on.

    A number of songs is drawn by `labelled_seed`, artist by artist: all that is by them stays out, and who has more
    songs than are wanted is left in, while others will do. Validated on are songs with a target, at their own speed.

    Raises `UserError` when there are fewer such songs, or none of a name that `data.valid` lists.
    """
    scored = [track for track in tracks if track.name == track.song and _can_be_scored(track, targets)]
    if isinstance(data.valid, int):
        kept_out = _drawn({track.song for track in scored}, {track.song for track in tracks}, data.valid, data)
    else:
        kept_out = set()
        for name in data.valid or ():
            found = {track.song for track in tracks if is_named(track.song, name)}
            if not found:
                raise UserError(f"data.valid: no store has a training song or an artist called {name!r}.")
            kept_out |= found
    songs = [track for track in scored if track.song in kept_out]
    if kept_out and not songs:
        raise UserError(f"data.valid: none of these songs has a mixture and isolated {' or '.join(targets)} beside it.")
    return kept_out, songs


def _can_be_scored(track: StoredTrack, targets: Sequence[str]) -> bool:
    return MIXTURE in track.parts and not track.teacher and bool({*targets} & {*track.parts})


def _drawn(candidates: set[str], songs: set[str], wanted: int, data: DataSettings) -> set[str]:
    if wanted and wanted >= len(candidates):
        raise UserError(f"data.valid: {wanted} songs cannot be kept out, for only {len(candidates)} have stems.")

    def by_seed(name: str) -> str:
        return seeded(name, data.labelled_seed + 2)

    artists: dict[str, list[str]] = {}
    for song in sorted(candidates, key=by_seed):
        artists.setdefault(artist_of(song), []).append(song)
    drawn: set[str] = set()
    for artist in sorted(artists, key=by_seed):
        if len(drawn) + len(artists[artist]) <= wanted:
            drawn |= {*artists[artist]}
    alone = {artist_of(song) for song in drawn}
    # Where all are by a few artists, songs by them must do.
    drawn |= {*sorted(candidates - drawn, key=by_seed)[: wanted - len(drawn)]}
    return drawn | {song for song in songs if artist_of(song) in alone}
