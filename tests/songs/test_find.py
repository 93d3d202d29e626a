from __future__ import annotations

import importlib.util
import os

import pytest
import torch
from sounds import read

from separation.audio.io import write
from separation.errors import UserError
from separation.songs.batch import name_apart
from separation.songs.find import Song, find_songs, labelled
from separation.stems import STEMS


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def names_of(songs: list[Song]) -> dict[str, str]:
    return {song.name: song.file.path.name for song in songs}


def test_a_folder_gives_its_songs_and_names_the_rest(tmp_path):
    touch(tmp_path, "album/b.MP3", "album/ä.flac", "album/cover.jpg", "album/.hidden.mp3", "album/deeper/c.wav")
    songs, others = find_songs(["album"])
    assert names_of(songs) == {"b": "b.MP3", "ä": "ä.flac"}
    assert [path.name for path in others] == ["cover.jpg"]


def test_custom_is_the_folder_input(tmp_path):
    touch(tmp_path, "input/a.wav")
    assert names_of(find_songs(["custom"])[0]) == {"a": "a.wav"}


def test_what_servers_and_bins_keep_is_no_song(tmp_path):
    junk = ("album/.AppleDouble/a.wav", "album/.@__thumb/s800a.mp3", ".Trash-1000/files/b.wav", "#recycle/c.wav")
    touch(tmp_path, *(f"music/{name}" for name in (*junk, "@eaDir/a.wav", "album/._a.wav", "album/a.wav")))
    for name in ("music", "music/album", "music/**/*.wav", "music/*/*"):
        assert names_of(find_songs([name])[0]) == {"a": "a.wav"}
    assert names_of(find_songs(["music/#recycle/*.wav"])[0]) == {"c": "c.wav"}  # who names it means it


@pytest.mark.parametrize(("title", "name"), [("What? - a", "What_ - a"), ("A:B", "A_B"), ("R.E.M.", "R.E.M")])
@pytest.mark.skipif(os.name != "posix", reason="no file is called so there")
def test_folders_of_stems_have_names_that_windows_takes(tmp_path, title, name):
    touch(tmp_path, f"{title}.wav", f"{title}/mixture.wav")
    assert set(names_of(find_songs([f"{title}.wav"])[0])) == set(names_of(find_songs([title])[0])) == {name}


def test_globs_are_expanded_also_below_folders(tmp_path):
    touch(tmp_path, "x/a.wav", "x/y/b.wav", "x/c.mp3")
    assert set(names_of(find_songs(["x/*.wav"])[0])) == {"a"}
    assert set(names_of(find_songs([str(tmp_path / "x" / "**" / "*.wav")])[0])) == {"a", "b"}


def test_a_name_with_brackets_is_a_file_before_it_is_a_glob(tmp_path):
    touch(tmp_path, "song [live].wav")
    assert set(names_of(find_songs(["song [live].wav"])[0])) == {"song [live]"}


def test_named_files_are_taken_whatever_they_are_called(tmp_path):
    touch(tmp_path, "a.xyz")
    songs, _ = find_songs(["a.xyz", "missing.wav", "b.stem.mp4"])
    assert names_of(songs) == {"a": "a.xyz", "missing": "missing.wav", "b": "b.stem.mp4"}


def test_a_name_of_dots_leads_to_no_other_folder(tmp_path):
    touch(tmp_path, "...wav", "..wav")
    assert names_of(find_songs(["...wav", "..wav"])[0]) == {"...wav": "...wav", "..wav": "..wav"}


def test_songs_of_the_same_name_are_told_apart_and_each_file_is_taken_once(tmp_path):
    touch(tmp_path, "a.mp3", "a.wav", "x/A.flac", "y/a.WAV", "y/a.mp3", "w/y/a.wav", "v/y/a.wav")
    songs, _ = find_songs(["a.mp3", "a.wav", "x", "./a.mp3", "*.wav", "y", "w", "v"])
    names = {
        "a": "a.mp3",
        "a (wav)": "a.wav",
        "A (x)": "x/A.flac",
        "a (y)": "y/a.WAV",
        "a (y, mp3)": "y/a.mp3",
        "a (y, wav)": "w/y/a.wav",
        "a (2)": "v/y/a.wav",
    }
    named = name_apart(songs, lambda name: tmp_path / name / "record")
    assert {song.name: song.file.path.as_posix() for song in named} == names


def test_a_long_name_stays_short_and_unique_with_its_label():
    for letter in "aé\U0001f3b5":
        title = (200 // len(letter.encode()) - 1) * letter
        names = [labelled(title, label) for label in (5 * letter, 180 * letter, 181 * letter, f"{5 * letter}, wav")]
        assert len({*names}) == 4 and all(len(name.encode()) <= 230 for name in names)
    assert labelled("song", "mp3") == "song (mp3)"


def test_the_mixture_in_a_folder_of_stems_goes_by_the_name_of_the_folder(tmp_path, monkeypatch):
    touch(tmp_path, "one/mixture.ogg", "two/Mixture.wav")
    songs, _ = find_songs(["one/mixture.ogg", "two"])
    assert names_of(songs) == {"one": "mixture.ogg", "two": "Mixture.wav"}
    monkeypatch.chdir(tmp_path / "one")
    assert names_of(find_songs(["mixture.ogg"])[0]) == {"one": "mixture.ogg"}


def test_inputs_without_songs_are_refused(tmp_path):
    touch(tmp_path, "empty/readme.txt")
    for name, complaint in (("empty", "no songs in the folder"), ("*.wav", "matches no files"), ("custom", "custom")):
        (tmp_path / "input").mkdir(exist_ok=True)
        with pytest.raises(UserError, match="input" if name == "custom" else complaint):
            find_songs([name])
    with pytest.raises(UserError, match="DSD100"):
        find_songs(["DSD100"])


@pytest.mark.parametrize("inputs", [["DSD100"], []])
def test_a_dataset_gives_its_test_songs(tmp_path, inputs):
    for folder, name in (("Dev", "001 - A - B"), ("Test", "002 - C - D")):
        write(tmp_path / "data/DSD100/Mixtures" / folder / name / "mixture.wav", torch.rand(2, 1000), 44100)
        for stem in STEMS:
            write(tmp_path / "data/DSD100/Sources" / folder / name / f"{stem}.wav", torch.rand(2, 1000), 44100)
    assert names_of(find_songs(inputs)[0]) == {"002 - C - D": "mixture.wav"}


def test_without_anything_there_is_the_song_of_stempeg():
    if not importlib.util.find_spec("stempeg"):
        pytest.skip("stempeg is not installed")
    (song,) = find_songs([])[0]
    assert song.file.path.name == f"{song.name}.stem.mp4"
    assert read(song.file.path)[0].std() > 0.01
