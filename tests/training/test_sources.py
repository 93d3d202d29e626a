from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from conftest import refused
from music import TINY, add_track, make_song

from separation.audio.stft import Spectral, SpectralSettings
from separation.dataset.store import Signal, Store, StoredTrack, level, rest_of, target_of
from separation.errors import UserError
from separation.stems import MIXTURE
from separation.training.config import DataSettings
from separation.training.sources import LEVELS, SourcePool, SourcePools, open_pools

ALL = ("mixture", "vocals", "drums", "bass", "other", "accompaniment")
KINDS = {
    "all stems": ALL,
    "stems alone": ("mixture", "vocals", "drums", "bass", "other"),
    "vocals and accompaniment": ("mixture", "vocals", "accompaniment"),
    "vocals and mixture": ("mixture", "vocals"),
    "lone vocals": ("vocals",),
    "lone drums": ("drums",),
    "lone accompaniment": ("accompaniment",),
    "lone mixture": ("mixture",),
    "no bass": ("mixture", "vocals", "drums", "other"),
}


@pytest.fixture(scope="module")
def track(tmp_path_factory):
    """A stored track of one of `KINDS`."""
    folder = tmp_path_factory.mktemp("pools") / "kinds"
    song = make_song(0, 1.0, TINY.sample_rate)
    for name, parts in KINDS.items():
        add_track(folder, TINY, name, {part: song[part] for part in parts})
    tracks = {track.name: track for track in Store(folder).tracks()}
    return tracks.__getitem__


def whole(signal: Signal) -> torch.Tensor:
    return signal.crop(0, signal.track.frames, TINY.bins)


def stored(track: StoredTrack, *parts: str) -> torch.Tensor:
    return sum(track.crop(part) for part in parts)


@pytest.mark.parametrize("name", [name for name, parts in KINDS.items() if "mixture" in parts])
def test_the_mixture_of_a_song(track, name):
    assert torch.equal(whole(target_of(track(name), MIXTURE)), track(name).crop("mixture"))


@pytest.mark.parametrize("name", ["lone vocals", "lone drums", "lone accompaniment"])
def test_a_lone_part_has_no_mixture(track, name):
    assert target_of(track(name), MIXTURE) is None


def test_a_target_is_isolated_or_none(track):
    assert torch.equal(whole(target_of(track("no bass"), "drums")), track("no bass").crop("drums"))
    assert target_of(track("no bass"), "bass") is None
    assert target_of(track("lone mixture"), "vocals") is None


@pytest.mark.parametrize(
    ("name", "targets", "parts"),
    [
        ("all stems", ["vocals"], ("accompaniment",)),
        ("all stems", ["drums"], ("vocals", "bass", "other")),
        ("all stems", ["vocals", "drums"], ("bass", "other")),
        ("stems alone", ["vocals"], ("drums", "bass", "other")),
        ("vocals and accompaniment", ["vocals"], ("accompaniment",)),
        ("lone accompaniment", ["vocals"], ("accompaniment",)),
    ],
)
def test_the_rest_is_the_sum_of_what_is_left(track, name, targets, parts):
    assert torch.equal(whole(rest_of(track(name), targets)), stored(track(name), *parts))


@pytest.mark.parametrize(
    ("name", "targets"), [("no bass", ["vocals"]), ("no bass", ["drums"]), ("vocals and mixture", ["vocals"])]
)
def test_where_stems_are_missing_the_rest_is_the_mixture_without_the_targets(track, name, targets):
    """What bass there is sounds in the mixture alone."""
    expected = stored(track(name), "mixture") - stored(track(name), *targets)
    torch.testing.assert_close(whole(rest_of(track(name), targets)), expected)
    assert expected[:, TINY.bin_of(40) : TINY.bin_of(100)].abs().max() > 0.3  # the bass


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("lone vocals", ["vocals"]),
        ("lone vocals", ["drums"]),
        ("lone drums", ["vocals"]),
        ("lone mixture", ["vocals"]),
        ("lone accompaniment", ["drums"]),
        ("lone accompaniment", ["vocals", "drums"]),
        ("vocals and accompaniment", ["drums"]),
        ("no bass", ["bass"]),
        ("all stems", ["vocals", "drums", "bass", "other"]),
    ],
)
def test_the_rest_is_none_where_nobody_can_tell(track, name, targets):
    assert rest_of(track(name), targets) is None


def songs_of(pool: SourcePool) -> set[str]:
    return {song for songs in pool._songs.values() for song in songs}


def roles(pools: SourcePools) -> dict[str, set[str]]:
    given = {"labelled": pools.whole, "rests": pools.rests, "mixtures": pools.mixtures}
    given |= {f"targets {target}": pool for target, pool in pools.targets.items()}
    given |= {f"without {target}": pool for target, pool in pools.rests_without.items()}
    return {name: songs_of(pool) for name, pool in given.items()}


def open_folder(folder, targets=("vocals",), bandwidth=0.0, **data) -> SourcePools:
    return open_pools(targets, DataSettings(stores={str(folder): 1.0}, crop_frames=16, **data), TINY, bandwidth)


def test_what_each_kind_of_song_gives_for_vocals(track):
    folder = track("lone mixture").folder.parent
    whole_songs = {"all stems", "stems alone", "vocals and accompaniment", "vocals and mixture", "no bass"}
    assert roles(open_folder(folder)) == {
        "labelled": whole_songs,
        "targets vocals": whole_songs | {"lone vocals"},
        "rests": whole_songs | {"lone accompaniment"},
        "without vocals": whole_songs | {"lone accompaniment"},
        "mixtures": whole_songs | {"lone mixture"},
    }


def test_what_each_kind_of_song_gives_for_drums_and_bass(track):
    folder = track("lone mixture").folder.parent
    four = {"all stems", "stems alone"}
    assert roles(open_folder(folder, ("drums", "bass"))) == {
        "labelled": four,
        "targets drums": four | {"lone drums", "no bass"},
        "targets bass": four,
        "rests": four,
        "without drums": four | {"no bass"},
        "without bass": four,
        "mixtures": {name for name, parts in KINDS.items() if "mixture" in parts},
    }


def test_what_each_kind_of_song_gives_for_all_four_stems(track):
    folder = track("lone mixture").folder.parent
    pools = open_folder(folder, ("vocals", "drums", "bass", "other"))
    assert roles(pools)["labelled"] == {"all stems", "stems alone"}
    assert roles(pools)["rests"] == set()
    assert roles(pools)["without vocals"] >= {"all stems", "lone accompaniment"}


@pytest.fixture(scope="module")
def twenty(tmp_path_factory):
    """A store of 20 songs with vocals and accompaniment, each at two speeds, and one validation song."""
    folder = tmp_path_factory.mktemp("pools") / "twenty"
    song = make_song(0, 0.2, TINY.sample_rate)
    waveforms = {part: song[part] for part in KINDS["vocals and accompaniment"]}
    for n in range(20):
        for name in (f"song {n:02}", f"song {n:02}@0.9"):
            add_track(folder, TINY, name, waveforms, song=f"song {n:02}")
    add_track(folder, TINY, "validation song", waveforms, subset="valid")
    return folder


def test_validation_songs_are_not_trained_on(twenty):
    assert all("validation song" not in songs for songs in roles(open_folder(twenty)).values())


def test_labelled_subsets_are_nested_and_picked_by_the_seed(twenty):
    picked = {n: set(open_folder(twenty, labelled=n).labelled_songs) for n in (0, 5, 10, 20)}
    assert {n: len(songs) for n, songs in picked.items()} == {0: 0, 5: 5, 10: 10, 20: 20}
    assert picked[5] < picked[10] < picked[20]
    assert picked[5] == set(open_folder(twenty, labelled=5).labelled_songs)
    assert picked[5] != set(open_folder(twenty, labelled=5, labelled_seed=1).labelled_songs)
    assert picked[20] == set(open_folder(twenty).labelled_songs)


def test_labelled_subsets_do_not_depend_on_the_other_songs(twenty, tmp_path):
    """With songs added, those that were picked are still picked before the others that there were."""
    before = open_folder(twenty, labelled=5).labelled_songs
    song = make_song(1, 0.2, TINY.sample_rate)
    for n in range(5):
        add_track(tmp_path, TINY, f"new song {n}", {"vocals": song["vocals"], "mixture": song["mixture"]})
    data = DataSettings(stores={str(twenty): 1.0, str(tmp_path): 1.0}, crop_frames=16, labelled=10)
    after = open_pools(("vocals",), data, TINY, 0.0).labelled_songs
    assert set(before) <= set(after)


@pytest.mark.parametrize(
    ("remaining", "mixtures", "rests"), [("mixture", 20, 5), ("drop", 5, 5), ("split", range(8, 18), range(8, 18))]
)
def test_what_songs_past_the_labelled_ones_give(twenty, remaining, mixtures, rests):
    pools = open_folder(twenty, labelled=5, remaining=remaining)
    given, labelled = roles(pools), set(pools.labelled_songs)
    assert given["labelled"] == given["targets vocals"] == labelled
    assert given["mixtures"] & given["rests"] == labelled
    assert given["rests"] == given["without vocals"]
    for count, wanted in ((len(pools.mixtures), mixtures), (len(pools.rests), rests)):
        assert count in (wanted if isinstance(wanted, range) else [wanted])


@pytest.mark.parametrize("seed", range(3))
def test_without_labels_a_split_song_gives_its_mixture_or_its_rest_and_never_its_target(twenty, seed):
    given = roles(open_folder(twenty, labelled=0, remaining="split", labelled_seed=seed))
    assert given["labelled"] == given["targets vocals"] == set()
    assert not given["mixtures"] & given["rests"]
    assert len(given["mixtures"] | given["rests"]) == 20
    assert given["mixtures"] and given["rests"] == given["without vocals"]


def test_files_of_a_low_sample_rate_are_used_with_labels_only(tmp_path):
    song = make_song(0, 1.0, TINY.sample_rate)
    for name, parts in KINDS.items():
        add_track(tmp_path, TINY, name, {part: song[part] for part in parts}, bandwidth=2000.0)
    given = roles(open_folder(tmp_path, bandwidth=3000.0))
    assert len(given["labelled"]) == 5
    assert "lone accompaniment" in given["rests"]
    assert given["mixtures"] == given["without vocals"] == set()
    assert roles(open_folder(tmp_path, bandwidth=3000.0, labelled=0, remaining="split"))["mixtures"] == set()


def test_songs_are_drawn_by_store_then_song_then_variant(track):
    """Long albums and songs with many variants weigh no more than their share."""
    pool = SourcePool({"a": 3.0, "b": 1.0, "empty": 5.0})
    signals = {name: target_of(track(name), "vocals") for name in ("all stems", "no bass", "lone vocals")}
    pool.add("a", signals["all stems"])
    for _ in range(9):  # variants of one song
        pool.add("b", signals["no bass"])
    pool.add("b", signals["lone vocals"])
    assert len(pool) == 3
    rng = np.random.default_rng(0)
    drawn = Counter(pool.draw(rng).track.name for _ in range(4000))
    shares = {name: count / 4000 for name, count in drawn.items()}
    assert shares == pytest.approx({"all stems": 3 / 4, "no bass": 1 / 8, "lone vocals": 1 / 8}, abs=0.03)


def only_signals(pools: SourcePools) -> dict[str, Signal]:
    """What each pool that is not empty gives, of a store of one song."""
    given = {"mixture": pools.mixtures, "rest": pools.rests, **pools.targets}
    given |= {f"without {target}": pool for target, pool in pools.rests_without.items()}
    return {name: pool.draw(np.random.default_rng(0)) for name, pool in given.items() if len(pool)}


def level_of(signal: Signal) -> float:
    return level(Spectral(TINY).inverse(whole(signal), signal.track.samples))


@pytest.mark.parametrize("loudness", [2.0, 0.03])
def test_how_loud_a_song_was_mastered_makes_no_difference(tmp_path, loudness):
    """The song is brought to its level in training, and its parts with it: they sum to it as before."""
    song = make_song(0, 1.0, TINY.sample_rate)
    for name, gain in (("as it is", 1), ("mastered", loudness)):
        add_track(tmp_path / name, TINY, name, {part: gain * song[part] for part in ALL}, song="song")
    folders = tmp_path / "as it is", tmp_path / "mastered"
    before, after = (only_signals(open_folder(folder, ("vocals", "bass"))) for folder in folders)
    assert before.keys() == after.keys() == {"mixture", "rest", "vocals", "bass", "without vocals", "without bass"}
    for name, signal in before.items():
        torch.testing.assert_close(whole(after[name]), whole(signal), rtol=1e-2, atol=1e-2)
    assert level_of(after["mixture"]) == pytest.approx(LEVELS["mixture"], abs=0.1)
    mixture = whole(after["mixture"])
    torch.testing.assert_close(whole(after["vocals"]) + whole(after["without vocals"]), mixture, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(whole(after["bass"]) + whole(after["without bass"]), mixture, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(("part", "role"), [("vocals", "vocals"), ("accompaniment", "rest"), ("mixture", "mixture")])
def test_a_lone_part_is_as_loud_as_it_usually_is_in_a_song(tmp_path, part, role):
    song = make_song(0, 1.0, TINY.sample_rate)
    add_track(tmp_path, TINY, "lone", {part: 0.1 * song[part]})
    assert level_of(only_signals(open_folder(tmp_path))[role]) == pytest.approx(LEVELS[part], abs=0.1)


def test_silence_is_left_alone(tmp_path):
    add_track(tmp_path, TINY, "silence", {"vocals": torch.full((2, 8000), 1e-5)})
    assert only_signals(open_folder(tmp_path))["vocals"].gain == 1


def test_a_store_with_other_settings_is_refused(twenty):
    data = DataSettings(stores={str(twenty): 1.0}, crop_frames=16)
    with refused("other_stft"):
        open_pools(("vocals",), data, SpectralSettings(8000, 256, 32), 0.0)


def test_a_compact_store_serves_another_stft(tmp_path):
    song, spectral = make_song(0, 2.0, TINY.sample_rate), SpectralSettings(TINY.sample_rate, 512, 128)
    parts = {part: song[part] for part in ("mixture", "vocals", "accompaniment")}
    add_track(tmp_path, TINY, "song", parts, compact=True)
    pools = open_pools(("vocals",), DataSettings(stores={str(tmp_path): 1.0}, crop_frames=16), spectral, 0.0)
    (signal,) = pools.targets["vocals"].signals()
    found, expected = signal.crop(3, 16, spectral.bins) / signal.gain, Spectral(spectral)(song["vocals"])[..., 3:19]
    assert (found - expected).abs().max() < 1e-3 * expected.abs().max()


def test_a_store_that_is_missing_or_has_no_long_enough_song_is_named(twenty, tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        open_folder(tmp_path / "nowhere")
    data = DataSettings(stores={str(twenty): 1.0}, crop_frames=1000)
    with refused("no_songs"):
        open_pools(("vocals",), data, TINY, 0.0)
