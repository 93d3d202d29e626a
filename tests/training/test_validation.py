from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from conftest import refused
from music import TINY, add_track, make_song
from networks import FAST, BandSplit, random_network

from separation.dataset.store import Store
from separation.inference.separator import Separator
from separation.training.config import DataSettings
from separation.training.sources import SourcePools, open_pools
from separation.training.validation import Scores, fit_temperature, mean_of, medians, validate, validation_tracks


def by_name(scores: Scores) -> Scores:
    return {Path(folder).name: song for folder, song in scores.items()}


def test_medians_are_over_the_songs_that_have_a_source():
    scores = {
        "a": {"vocals": 1.0, "accompaniment": 4.0},
        "b": {"vocals": 5.0},
        "c": {"vocals": 3.0, "accompaniment": 8.0},
        "d": {},
    }
    assert medians(scores) == {"vocals": 3.0, "accompaniment": 6.0}
    assert medians({}) == {}


def test_the_mean_is_over_all_songs_and_targets():
    scores = {"one": {"vocals": 1.0, "other": 9.0}, "two": {"vocals": 3.0, "drums": 8.0}, "three": {"other": 0.0}}
    assert mean_of(["vocals", "drums"], scores) == 4.0
    assert mean_of(["bass"], scores) is None
    assert mean_of(["vocals"], {}) is None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Songs whose vocals all lie above 2 kHz and whose other stems all lie below."""
    folder = tmp_path_factory.mktemp("validation") / "store"
    time = torch.arange(44100) / 44100
    low, high = (torch.sin(2 * math.pi * frequency * time).expand(2, -1) / 4 for frequency in (500, 4000))
    whole = {"mixture": low + high, "vocals": high, "accompaniment": low}
    add_track(folder, FAST, "training", whole)
    add_track(folder, FAST, "whole", whole, subset="valid")
    add_track(folder, FAST, "instrumental", {**whole, "mixture": low, "vocals": 0 * high}, subset="valid")
    add_track(folder, FAST, "unlabelled", {"mixture": low + high}, subset="valid")
    add_track(folder, FAST, "wrong", {"mixture": low + high, "vocals": low, "accompaniment": high}, subset="valid")
    return folder


def test_validation_songs_are_those_with_something_to_compare(folder):
    assert [track.name for track in validation_tracks([str(folder)], FAST)] == ["instrumental", "whole", "wrong"]
    assert len(validation_tracks([str(folder)] * 2, FAST)) == 6


def test_each_source_that_sounds_is_scored(folder):
    scores = by_name(validate(Separator(BandSplit(2000)), validation_tracks([str(folder)], FAST)))
    assert {name: set(sources) for name, sources in scores.items()} == {
        "whole": {"vocals", "accompaniment"},
        "wrong": {"vocals", "accompaniment"},
        "instrumental": {"accompaniment"},
    }
    assert min(*scores["whole"].values(), scores["instrumental"]["accompaniment"]) > 25
    # All of one source in place of the other: twice the energy is wrong.
    assert scores["wrong"] == pytest.approx({"vocals": -3.01, "accompaniment": -3.01}, abs=0.05)


def test_songs_are_heard_as_loud_as_they_are(folder):
    """In training they are brought to a level of their own."""

    network, (track,) = BandSplit(2000), [track for track in Store(folder).tracks() if track.name == "whole"]
    seen, network.trusted = [], torch.float32  # or noise would come first, to see whether bfloat16 can be trusted
    network.generator.register_forward_pre_hook(lambda _, inputs: seen.append(float(inputs[0].abs().max())))
    validate(Separator(network), [track])
    assert max(seen) == pytest.approx(float(track.crop("mixture").abs().max()), rel=0.05)


def test_two_songs_of_one_name_count_twice(folder, tmp_path):
    """A song of the same name in another store is another song."""
    song = make_song(0, 0.5)
    add_track(tmp_path / "s", FAST, "whole", {part: song[part] for part in ("mixture", "vocals")}, subset="valid")
    scores = validate(Separator(BandSplit(2000)), validation_tracks([str(folder), str(tmp_path / "s")], FAST))
    assert len(scores) == 4
    assert len([name for name in scores if Path(name).name == "whole"]) == 2


def test_a_source_that_no_song_has_is_not_scored(folder, tmp_path):
    song = make_song(0, 0.5)
    add_track(tmp_path / "s", FAST, "song", {"mixture": song["mixture"], "bass": song["bass"]}, subset="valid")
    assert by_name(validate(Separator(BandSplit(2000)), Store(tmp_path / "s").tracks())) == {"song": {}}


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
    pools: SourcePools = open_pools(("vocals",), data, TINY, bandwidth=0.0)
    songs = {song for pool in (pools.whole, pools.rests, pools.mixtures) for song in pool._songs[str(store)]}
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
    with refused("too_few_songs"):
        split(tmp_path, 4)


def test_songs_and_artists_may_be_named(store):
    heard, validated = split(store, ("B", "A - 0"))
    assert validated == {"B - 0", "B - 1", "B - 2", "A - 0"}
    assert heard == ALL - validated
    for name in ("Nobody", "A - ", "G - official"):
        with refused("no_such_song"):
            split(store, (name,))
    with refused("no_such_song"):
        split(store, ("E - unlabelled",))


@pytest.fixture
def tracks(tmp_path):
    song = make_song(0, 1.0)
    network = random_network()
    add_track(tmp_path, network.settings, "song", {part: song[part] for part in ("mixture", "vocals", "accompaniment")})
    return Store(Path(tmp_path)).tracks()


def test_the_temperature_with_the_best_score_is_taken(tracks):
    """What a network is given as logits is known: masks of its own song, far too certain."""
    network = random_network()
    network.generator.scale_logits(40.0)
    before = by_name(validate(Separator(network), tracks))["song"]["vocals"]
    temperature, scores = fit_temperature(network, tracks, (1.0, 2.0, 50.0, 1e4))
    assert temperature != 1.0
    assert by_name(scores)["song"]["vocals"] > before
    assert by_name(validate(Separator(network), tracks))["song"]["vocals"] == pytest.approx(
        by_name(scores)["song"]["vocals"], abs=1e-3
    )


def test_every_other_temperature_scores_worse(tracks):
    temperatures = (1.0, 3.0, 100.0)
    best, scores = fit_temperature(random_network(), tracks, temperatures)
    for temperature in temperatures:
        network = random_network()
        network.generator.scale_logits(1 / temperature)
        assert (
            by_name(validate(Separator(network), tracks))["song"]["vocals"] <= by_name(scores)["song"]["vocals"] + 1e-3
        )
    assert best in temperatures


def test_without_songs_the_network_stays_as_it_is():
    network, untouched = random_network(), random_network()
    temperature, scores = fit_temperature(network, [], (0.5, 1.0, 2.0))
    assert (temperature, scores) == (1.0, {})
    for one, other in zip(network.parameters(), untouched.parameters(), strict=True):
        torch.testing.assert_close(one, other)


@torch.no_grad()
def test_scaled_logits_are_scaled():
    network = random_network()
    views = torch.rand(1, 4, network.generator.used_bins, 8)
    before = network.generator.logits(views)
    network.generator.scale_logits(0.25)
    torch.testing.assert_close(network.generator.logits(views), before / 4)
    assert math.isfinite(float(before.abs().max()))
