from __future__ import annotations

import pytest
from music import TINY, add_track, make_song

from separation.errors import UserError
from separation.training.config import DataSettings
from separation.training.pools import Pools, open_pools

ARTISTS = {"A": 1, "B": 3, "C": 1, "D": 2, "E": 1, "F": 1}
PARTS = ("mixture", "vocals", "accompaniment")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Songs of several artists, one of them at another speed, a song without stems by E, and an official validation."""
    folder, parts = tmp_path_factory.mktemp("held out") / "store", make_song(0, 0.2, TINY.sample_rate)
    parts = {part: parts[part] for part in PARTS}
    for artist, count in ARTISTS.items():
        for number in range(count):
            add_track(folder, TINY, f"{artist} - {number}", parts)
    add_track(folder, TINY, "A - 0@0.9", parts, song="A - 0")
    add_track(folder, TINY, "E - unlabelled", {"mixture": parts["mixture"]})
    add_track(folder, TINY, "G - official", parts, subset="valid")
    return folder


def split(store, valid, seed: int = 0) -> tuple[set[str], set[str]]:
    """The songs that a network hears, and the names of the tracks that it is validated on."""
    data = DataSettings(stores={str(store): 1.0}, crop_frames=2, valid=valid, labelled_seed=seed)
    pools: Pools = open_pools(("vocals",), data, TINY, bandwidth=0.0)
    songs = {song for pool in (pools.labelled, pools.rests, pools.mixtures) for song in pool._songs[str(store)]}
    return songs, {track.name for track in pools.held_out}


ALL = {f"{artist} - {number}" for artist, count in ARTISTS.items() for number in range(count)} | {"E - unlabelled"}


@pytest.mark.parametrize("valid", [None, 0, ()])
def test_without_it_every_training_song_is_trained_on(store, valid):
    assert split(store, valid) == (ALL, set())


def test_a_number_of_songs_is_kept_out_with_all_that_is_by_their_artists(store):
    drawn = set()
    for seed in range(12):
        heard, validated = split(store, 3, seed)
        assert len(validated) == 3 and not any("@" in name for name in validated)
        assert not {name[0] for name in heard} & {name[0] for name in validated}
        assert heard == {song for song in ALL if song[0] not in {name[0] for name in validated}}
        assert (heard, validated) == split(store, 3, seed)
        drawn |= {frozenset(validated)}
    assert len(drawn) > 4


def test_songs_of_one_artist_must_do_where_there_are_no_others(tmp_path):
    parts = make_song(0, 0.2, TINY.sample_rate)
    for number in range(4):
        add_track(tmp_path, TINY, f"Me - {number}", {part: parts[part] for part in PARTS})
    heard, validated = split(tmp_path, 1)
    assert (len(heard), len(validated)) == (3, 1) and not heard & validated
    with pytest.raises(UserError, match=r"data\.valid: 4 songs cannot be kept out, for only 4 have stems"):
        split(tmp_path, 4)


def test_songs_and_artists_may_be_named(store):
    heard, validated = split(store, ("B", "A - 0"))
    assert validated == {"B - 0", "B - 1", "B - 2", "A - 0"}
    assert heard == ALL - validated
    for name in ("Nobody", "A - ", "G - official"):
        with pytest.raises(UserError, match=f"no store has a training song or an artist called '{name}'"):
            split(store, (name,))
    with pytest.raises(UserError, match="none of these songs has a mixture and isolated vocals"):
        split(store, ("E - unlabelled",))
