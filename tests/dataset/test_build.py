from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from fractions import Fraction
from functools import partial

import pytest
import torch
from conftest import make_stems, write_files

from separation.audio.stft import Spectral, SpectralSettings
from separation.dataset import build
from separation.dataset.build import build_song, bytes_needed, check_disk, choose_parts, in_units, plan_store
from separation.dataset.layouts import Track, find_tracks
from separation.dataset.store import Store, create_store
from separation.errors import UserError
from separation.files import make_partial, partial_name
from separation.jobs import run_jobs
from separation.stems import STEMS

SETTINGS = SpectralSettings(n_fft=1024, hop=256)


def make_store(folder, root, stems=STEMS, speeds=()):
    jobs = plan_store(folder, SETTINGS, find_tracks("FOLDER", root), stems, speeds, root).jobs
    results = {job.track.name: result for job, result in run_jobs(partial(build_song, folder, SETTINGS), jobs)}
    return Store(folder), results


def chosen(files: tuple[str, ...], *stems: str) -> tuple[str, ...]:
    return choose_parts(Track("song", "train", dict.fromkeys(files)), stems)


def test_what_is_stored_of_a_whole_song():
    whole = ("mixture", *STEMS)
    assert chosen(whole, "vocals") == ("mixture", "vocals", "accompaniment")
    assert chosen(whole, "drums") == ("mixture", "drums")
    assert chosen(whole, "vocals", "bass") == ("mixture", "vocals", "bass", "accompaniment")
    assert chosen(whole, *STEMS) == whole
    assert chosen(STEMS, "vocals") == ("mixture", "vocals", "accompaniment")


def test_what_is_stored_of_a_song_in_two_parts():
    assert chosen(("vocals", "accompaniment"), *STEMS) == ("mixture", "vocals", "accompaniment")
    assert chosen(("vocals", "accompaniment"), "drums") == ("mixture", "accompaniment")


def test_an_instrumental_gives_its_accompaniment():
    assert chosen(("drums", "bass", "other"), "vocals") == ("mixture", "accompaniment")


def test_what_is_stored_of_lone_files():
    assert chosen(("vocals",), "vocals") == ("vocals",)
    assert chosen(("vocals",), "drums") == ()
    assert chosen(("accompaniment",), "drums") == ("accompaniment",)
    assert chosen(("mixture",), "drums") == ("mixture",)


def test_the_store_holds_the_spectrograms_of_the_files(tmp_path, song):
    write_files(tmp_path / "songs" / "whole", song)
    store, _ = make_store(tmp_path / "store", tmp_path / "songs", ["vocals"])
    (track,) = store.tracks()
    assert (track.subset, track.bandwidth, track.samples) == ("train", 22050, song["vocals"].shape[1])
    expected = {"mixture": sum(song.values()), "vocals": song["vocals"]}
    expected["accompaniment"] = expected["mixture"] - expected["vocals"]
    assert set(track.parts) == set(expected)
    for part, waveform in expected.items():
        spectrogram = Spectral(SETTINGS)(waveform)
        error = track.crop(part) - spectrogram
        assert error.abs().square().sum() < 1e-6 * spectrogram.abs().square().sum()


def test_mono_at_16_khz_stays_mono_and_tells_its_bandwidth(tmp_path):
    voice = make_stems(sample_rate=16000)["vocals"][:1]
    write_files(tmp_path / "songs" / "clip", {"vocals": voice, "accompaniment": voice.flip(1)}, 16000)
    store, _ = make_store(tmp_path / "store", tmp_path / "songs")
    (track,) = store.tracks()
    assert track.bandwidth == 8000
    assert abs(track.samples - 2 * 44100) <= 1
    energy = track.crop("vocals").abs().square().sum((0, 2))
    assert energy[SETTINGS.bin_of(8300) :].sum() < 1e-4 * energy.sum()


def test_faster_songs_are_higher_and_shorter(tmp_path):
    sine = torch.sin(2 * torch.pi * 1000 * torch.arange(44100) / 44100)[None]
    write_files(tmp_path / "songs" / "train" / "sine", {"vocals": sine})
    write_files(tmp_path / "songs" / "valid" / "held out", {"vocals": sine})
    store, _ = make_store(tmp_path / "store", tmp_path / "songs", speeds=[Fraction("0.8"), Fraction("1.25")])
    tracks = {track.name: track for track in store.tracks()}
    assert set(tracks) == {"sine", "sine@0.8", "sine@1.25", "held out"}
    bandwidths = {"sine": 22050, "sine@0.8": 17640, "sine@1.25": 22050}
    for name, speed in (("sine", 1), ("sine@0.8", 0.8), ("sine@1.25", 1.25)):
        track = tracks[name]
        assert (track.song, track.subset, track.bandwidth) == ("sine", "train", bandwidths[name])
        assert abs(track.samples - 44100 / speed) <= 1
        peak = int(track.crop("vocals")[0, :, 20:-20].abs().sum(1).argmax())
        assert abs(peak * 44100 / 1024 - 1000 * speed) < 44100 / 1024


def test_finished_songs_are_kept_and_half_written_ones_built_again(tmp_path, song):
    for name in ("a", "b"):
        write_files(tmp_path / "songs" / name, song)
    store, built = make_store(tmp_path / "store", tmp_path / "songs")
    assert set(built) == {"a", "b"}
    shutil.move(store.folder / "b", store.folder / "b.partial")
    (store.folder / "b.partial" / "bass.npy").unlink()
    finished = (store.folder / "a" / "track.json").stat().st_mtime_ns

    store, built = make_store(tmp_path / "store", tmp_path / "songs")
    assert set(built) == {"b"}
    assert (store.folder / "a" / "track.json").stat().st_mtime_ns == finished
    assert [track.parts for track in store.tracks()] == [("mixture", *STEMS)] * 2


def test_more_stems_and_speeds_are_added_to_what_is_there(tmp_path, song):
    write_files(tmp_path / "songs" / "a", song)
    make_store(tmp_path / "store", tmp_path / "songs", ["vocals"])
    store, built = make_store(tmp_path / "store", tmp_path / "songs", ["drums"])
    assert set(built) == {"a"}
    assert store.tracks()[0].parts == ("mixture", "vocals", "drums", "accompaniment")
    assert make_store(tmp_path / "store", tmp_path / "songs", ["vocals"])[1] == {}
    store, _ = make_store(tmp_path / "store", tmp_path / "songs", ["vocals"], [Fraction("1.1")])
    assert {track.name: track.parts for track in store.tracks()} == {
        "a": ("mixture", "vocals", "drums", "accompaniment"),
        "a@1.1": ("mixture", "vocals", "drums", "accompaniment"),
    }


def test_a_damaged_song_is_named_and_the_others_are_built(tmp_path, song):
    write_files(tmp_path / "songs" / "good", song)
    write_files(tmp_path / "songs" / "bad", song)
    (tmp_path / "songs" / "bad" / "bass.wav").write_bytes(b"this is no sound")
    store, results = make_store(tmp_path / "store", tmp_path / "songs")
    assert results["good"] == []
    assert "bass.wav" in str(results["bad"])
    assert [track.name for track in store.tracks()] == ["good"]


def test_a_store_with_other_settings_is_refused(tmp_path, song):
    write_files(tmp_path / "songs" / "a", song)
    make_store(tmp_path / "store", tmp_path / "songs")
    with pytest.raises(UserError, match="n_fft 1024"):
        plan_store(tmp_path / "store", SpectralSettings(), find_tracks("FOLDER", tmp_path / "songs"), STEMS)


def test_a_file_where_the_store_should_be_is_a_sentence(tmp_path):
    (tmp_path / "store").touch()
    with pytest.raises(UserError) as error:
        plan_store(tmp_path / "store", SETTINGS, [], STEMS)
    assert error.value.code == "not_a_folder"


def test_the_size_is_known_before(tmp_path, song):
    write_files(tmp_path / "songs" / "a", song)
    write_files(tmp_path / "songs" / "b", {"mixture": song["other"][:1]})
    jobs = plan_store(
        tmp_path / "store", SETTINGS, find_tracks("FOLDER", tmp_path / "songs"), STEMS, [Fraction("0.5")]
    ).jobs
    expected = sum(bytes_needed(job, SETTINGS) for job in jobs)
    store, _ = make_store(tmp_path / "store", tmp_path / "songs", speeds=[Fraction("0.5")])
    found = sum(path.stat().st_size for path in store.folder.glob("*/*.npy"))
    assert abs(found - expected) < 0.01 * found


def test_a_disk_too_small_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(build.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**10, 0, 2 * 10**9))
    check_disk(tmp_path, 10**9)
    with pytest.raises(UserError, match=r"needs 3\.00 GB.*only 2\.00 GB"):
        check_disk(tmp_path, 3 * 10**9)


def test_a_disk_that_fills_up_meanwhile_is_told_for_the_song(tmp_path, song, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    write_files(tmp_path / "songs" / "a", song)
    monkeypatch.setattr(build, "write_track", fail)
    _, results = make_store(tmp_path / "store", tmp_path / "songs")
    assert results["a"].code == "disk_full"


def test_sizes_read_well():
    assert in_units(2_340_000_000) == "2.34 GB"


def replace_file(path, waveform):
    """Another sound in a file of the same size and, by its clock, from before."""
    write_files(path.parent, {path.stem: waveform})
    os.utime(path, ns=(10**18, 10**18))


def test_a_song_is_built_again_when_its_files_are_others(tmp_path, song):
    songs = tmp_path / "songs"
    for name in ("a", "b"):
        write_files(songs / name, song)
    make_store(tmp_path / "store", songs, ["vocals"], [Fraction("0.9")])
    assert make_store(tmp_path / "store", songs, ["vocals"])[1] == {}
    replace_file(songs / "a" / "bass.wav", song["drums"])
    store, built = make_store(tmp_path / "store", songs, ["vocals"])
    assert set(built) == {"a"}  # at both speeds, and its mixture, for the bass is in it
    expected = Spectral(SETTINGS)(song["vocals"] + 2 * song["drums"] + song["other"])
    assert (store.track("a").crop("mixture") - expected).abs().max() < 0.01 * expected.abs().max()
    assert store.track("a@0.9").sources == store.track("a").sources
    assert make_store(tmp_path / "store", songs, ["vocals"])[1] == {}
    write_files(songs / "b", {"mixture": song["vocals"]})  # and that is what the mixture is from now on
    assert set(make_store(tmp_path / "store", songs, ["vocals"])[1]) == {"b"}


def test_songs_that_are_gone_are_named_and_those_of_other_roots_are_not(tmp_path, song):
    for name in ("one/a", "one/train", "one/b", "other/c"):
        write_files(tmp_path / name, song)
    shutil.rmtree(tmp_path / "one" / "train")
    for root in ("one", "other"):
        make_store(tmp_path / "store", tmp_path / root, ["vocals"], [Fraction("0.9")])
    shutil.move(tmp_path / "one" / "a", tmp_path / "away")

    def plan(root):
        return plan_store(tmp_path / "store", SETTINGS, find_tracks("FOLDER", root), ["vocals"], [], root)

    assert [track.name for track in plan(tmp_path / "one").gone] == ["a", "a@0.9"]
    assert plan(tmp_path / "other").gone == []
    (tmp_path / "one" / "valid").mkdir()
    shutil.move(tmp_path / "one" / "b", tmp_path / "one" / "valid" / "b")
    moved = plan(tmp_path / "one")
    assert [track.name for track in moved.gone] == [
        "a",
        "a@0.9",
        "b@0.9",
    ]  # only songs to train on come at other speeds
    assert [(job.track.name, job.speeds) for job in moved.jobs] == [("b", (Fraction(1),))]


@pytest.mark.parametrize("damage", ["bass.npy", "track.json", None])
def test_a_damaged_song_is_built_again(tmp_path, song, damage):
    write_files(tmp_path / "songs" / "a", song)
    store, _ = make_store(tmp_path / "store", tmp_path / "songs")
    if damage:
        path = store.folder / "a" / damage
        path.write_bytes(path.read_bytes()[:-1000] if damage == "bass.npy" else b'{"name": null}')
    else:
        (store.folder / "a" / "bass.npy").unlink()
    store, built = make_store(tmp_path / "store", tmp_path / "songs", ["vocals"])
    assert built == {"a": []}
    assert store.track("a").parts == ("mixture", *STEMS)  # it keeps the stems it had
    store.track("a").check(SETTINGS.bins)


def test_a_file_that_ends_early_is_followed_by_silence(tmp_path, song):
    song["vocals"] = song["vocals"][:, :22050]
    write_files(tmp_path / "songs" / "a", song)
    store, built = make_store(tmp_path / "store", tmp_path / "songs", ["vocals"])
    assert built == {"a": ["vocals ends 1.5 s early, and is silent there"]}
    track = store.track("a")
    assert track.samples == 88200
    vocals = Spectral(SETTINGS).inverse(track.crop("vocals"), track.samples)
    torch.testing.assert_close(vocals[:, :22050], song["vocals"], atol=2e-3, rtol=0)
    assert vocals[:, 22050:].abs().max() < 1e-3


def test_samples_far_beyond_full_scale_are_stored_in_numbers_that_half_precision_has(tmp_path, song):
    """A file of floats that were meant as whole numbers of 16 bits."""
    write_files(tmp_path / "songs" / "a", {stem: 2**18 * waveform for stem, waveform in song.items()})
    write_files(tmp_path / "songs" / "b", song)
    store, built = make_store(tmp_path / "store", tmp_path / "songs", ["vocals"])
    assert built["b"] == [] and "far beyond full scale, and stored at 1/" in built["a"][0]
    loud, plain = (store.track(name).crop("vocals") for name in ("a", "b"))
    scale = int(built["a"][0].split("1/")[1].split()[0])
    assert (loud * scale / 2**18 - plain).abs().max() < 2e-3 * plain.abs().max()


FOREIGN = ("a/vocals.wav", "a/notes.txt", "a/vocals.npy/x", "a/vocals.npy", "a")


@pytest.mark.parametrize("name", FOREIGN)
def test_nothing_is_removed_that_dataset_did_not_write(tmp_path, song, name):
    """Songs in the folder of the store itself, as with `--root m --output m`, or anything else in a track's place."""
    write_files(tmp_path / "songs" / "a", song)
    folder = tmp_path / "store"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text("mine")
    with pytest.raises(UserError) as error:
        make_store(folder, tmp_path / "songs")
    assert error.value.code == "not_ours"
    assert [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()] == [name]
    (folder / "settings.json").write_text(json.dumps(asdict(SETTINGS)))
    _, built = make_store(folder, tmp_path / "songs")
    assert built["a"].code == "not_ours"
    assert (folder / name).read_text() == "mine"


def test_a_link_in_a_songs_place_is_not_followed(tmp_path, song):
    write_files(tmp_path / "songs" / "a", song)
    store, _ = make_store(tmp_path / "elsewhere", tmp_path / "songs")
    create_store(tmp_path / "store", SETTINGS)
    (tmp_path / "store" / "a").symlink_to(store.folder / "a")
    replace_file(tmp_path / "songs" / "a" / "bass.wav", song["drums"])
    before = store.track("a")
    _, built = make_store(tmp_path / "store", tmp_path / "songs")
    assert built["a"].code == "not_ours" and store.track("a") == before


def test_left_overs_of_runs_that_are_over_are_swept_up(tmp_path, song):
    write_files(tmp_path / "songs" / "a", song)
    store, _ = make_store(tmp_path / "store", tmp_path / "songs")
    running = make_partial(store.folder, as_folder=True)  # locked, as by another process
    dead, running, mine = partial_name(), running.name, "mine.partial"
    for name in (dead, running, mine):
        shutil.copytree(store.folder / "a", store.folder / name, dirs_exist_ok=True)
    make_store(tmp_path / "store", tmp_path / "songs")
    assert {path.name for path in store.folder.glob("*.partial")} == {running, mine}
    assert [track.name for track in store.tracks()] == ["a"]
