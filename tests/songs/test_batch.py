"""Folders of stems that remember what they are of: by the command, as a user meets it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from networks import random_weights
from sounds import read

from separation.audio.io import write
from separation.songs import command
from separation.stems import STEMS


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    return {
        "vocals": random_weights(folder / "vocals.safetensors"),
        "all": random_weights(folder / "all.safetensors", STEMS),
    }


@pytest.fixture
def separate(tmp_path, monkeypatch, weights):
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, using: str = "vocals") -> int:
        monkeypatch.setattr(sys, "argv", ["separate", "--weights", str(weights[using]), *arguments])
        return command.main()

    return run


def song(path: Path, seed: int, samples: int = 20000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, 0.1 * torch.randn(2, samples, generator=torch.Generator().manual_seed(seed)), 44100)


def adds_up(folder: Path, original: Path) -> bool:
    stems = [read(path)[0] for path in folder.glob("*.wav")]
    return len(stems) > 1 and torch.allclose(sum(stems), read(original)[0], atol=1e-3)


def folders(output: Path) -> set[str]:
    return {path.name for path in output.iterdir()}


def test_a_song_that_is_done_is_not_done_again_wherever_it_lies(tmp_path, separate, capsys):
    song(tmp_path / "a/song.wav", 1)
    assert separate("a/song.wav") == 0
    before = (tmp_path / "outputs/song/vocals.wav").stat().st_mtime_ns
    shutil.copy(tmp_path / "a/song.wav", tmp_path / "song.wav")
    assert separate("song.wav") == 0
    assert "there already" in capsys.readouterr().out
    assert (tmp_path / "outputs/song/vocals.wav").stat().st_mtime_ns == before and folders(tmp_path / "outputs") == {
        "song"
    }


@pytest.mark.parametrize("segment", [(), ("--segment", "0-0.2")])
def test_songs_of_one_title_keep_their_names_whichever_commands_separate_them(tmp_path, separate, capsys, segment):
    output, end = tmp_path / "outputs", " (0.00-0.00_2)" if segment else ""
    for number, name in enumerate(("a/song.wav", "b/song.wav", "b/song.flac", "c/b/song.wav", "d/b/song.wav")):
        song(tmp_path / name, number)
    for songs, names in (
        (["b/song.wav"], [""]),
        (["a", "b/song.wav"], ["", " (a)"]),
        (["b"], ["", " (a)", " (flac)"]),
        (["c/b", "d/b"], ["", " (a)", " (flac)", " (b)", " (b, wav)"]),
    ):
        for _ in range(2):
            assert separate(*songs, *segment) == 0
            assert folders(output) == {f"song{name}{end}" for name in names}
        assert "there already" in capsys.readouterr().out
    shutil.rmtree(output / f"song{end}")
    assert separate("d/b/song.wav", "a", *segment) == 0 and len(folders(output)) == 4


def test_copies_keep_their_names_in_any_order(tmp_path, separate):
    song(tmp_path / "a/song.wav", 1)
    (tmp_path / "b").mkdir()
    shutil.copy(tmp_path / "a/song.wav", tmp_path / "b/song.wav")
    for songs in (["a", "b"], ["b", "a"], ["b"]):
        assert separate(*songs) == 0
        assert folders(tmp_path / "outputs") == {"song", "song (b)"}


def test_songs_of_one_long_title_in_folders_of_long_names_are_told_apart(tmp_path, separate):
    places = [tmp_path / (150 * letter) / f"{120 * 't'}.wav" for letter in "abc"]
    for number, place in enumerate(places):
        song(place, number)
    for _ in range(2):
        assert separate(*map(str, places), "--segment", "0-0.2") == 0
    made = folders(tmp_path / "outputs")
    assert len(made) == 3 and all(len(name) <= 230 for name in made)


def test_a_song_that_has_changed_is_refused_unless_it_replaces_its_stems(tmp_path, separate, capsys):
    second = "a/song.wav"
    song(tmp_path / second, 1)
    assert separate(second) == 0
    shutil.copytree(tmp_path / "outputs/song", tmp_path / "before")
    song(tmp_path / second, 2)
    assert separate(second) == 1
    assert "exists and was not made from this song: --overwrite" in capsys.readouterr().err
    assert folders(tmp_path / "outputs") == {"song"}
    for path in (tmp_path / "before").iterdir():
        assert path.read_bytes() == (tmp_path / "outputs/song" / path.name).read_bytes()
    assert separate(second, "--overwrite") == 0 and adds_up(tmp_path / "outputs/song", tmp_path / second)


def test_stems_of_other_settings_get_a_folder_that_says_so(tmp_path, separate, capsys):
    song(tmp_path / "song.wav", 1)
    runs = (
        ((), "vocals"),
        ((), "all"),
        (("--stems", "karaoke", "--format", "mp3"), "vocals"),
        (("--stems", "drums"), "all"),
        (("--bits", "24", "--clip", "rescale", "--quality", "best"), "vocals"),
    )
    for options, using in runs * 2:
        assert separate("song.wav", *options, using=using) == 0
    names = ("all, all", "karaoke, mp3, vocals", "drums, all", "vocals, accompaniment, 24 bit, rescale, best, vocals")
    assert folders(tmp_path / "outputs") == {"song", *(f"song ({name})" for name in names)}
    assert adds_up(tmp_path / "outputs/song", tmp_path / "song.wav")
    assert {path.name for path in (tmp_path / "outputs/song (karaoke, mp3, vocals)").glob("*.mp3")} == {"karaoke.mp3"}
    assert adds_up(tmp_path / "outputs/song (all, all)", tmp_path / "song.wav")


def test_a_song_without_stems_is_separated_whatever_the_record_says(tmp_path, separate):
    song(tmp_path / "a.wav", 1)
    assert separate("a.wav", "--name", "{stem}") == 0
    for path in (tmp_path / "outputs").glob("*.wav"):
        path.unlink()
    assert separate("a.wav", "--name", "{stem}", "--bits", "24") == 0
    assert adds_up(tmp_path / "outputs", tmp_path / "a.wav")


def test_overwriting_takes_the_songs_place_and_leaves_no_stem_of_before(tmp_path, separate):
    song(tmp_path / "song.wav", 1)
    assert separate("song.wav") == 0
    (tmp_path / "outputs/song/notes.txt").write_text("mine")
    assert separate("song.wav", "--overwrite", using="all") == 0
    assert folders(tmp_path / "outputs") == {"song"}
    names = {path.stem for path in (tmp_path / "outputs/song").glob("*.wav")}
    assert names == set(STEMS) and adds_up(tmp_path / "outputs/song", tmp_path / "song.wav")
    assert (tmp_path / "outputs/song/notes.txt").read_text() == "mine"


@pytest.mark.parametrize("mine", [["vocals.wav"], ["vocals.wav", "accompaniment.wav"]])
def test_a_users_files_are_never_overwritten_unasked(tmp_path, separate, mine):
    song(tmp_path / "song.wav", 1)
    for name in mine:
        (tmp_path / "outputs/song").mkdir(parents=True, exist_ok=True)
        (tmp_path / "outputs/song" / name).write_bytes(b"mine")
    assert separate("song.wav") == 1
    assert all((tmp_path / "outputs/song" / name).read_bytes() == b"mine" for name in mine)
    assert {path.name for path in (tmp_path / "outputs/song").iterdir()} == set(mine)


def test_stems_that_a_user_changed_stay_and_missing_ones_come_back(tmp_path, separate):
    song(tmp_path / "song.wav", 1)
    assert separate("song.wav") == 0
    (tmp_path / "outputs/song/vocals.wav").unlink()
    assert separate("song.wav") == 0
    assert adds_up(tmp_path / "outputs/song", tmp_path / "song.wav")
    (tmp_path / "outputs/song/vocals.wav").write_bytes(b"edited")
    before = (tmp_path / "outputs/song/accompaniment.wav").read_bytes()
    (tmp_path / "outputs/song/accompaniment.wav").unlink()
    assert separate("song.wav") == 0
    assert (tmp_path / "outputs/song/vocals.wav").read_bytes() == b"edited"
    assert (tmp_path / "outputs/song/accompaniment.wav").read_bytes() == before


def test_a_run_that_was_killed_is_taken_up_in_its_place(tmp_path, separate):
    song(tmp_path / "song.wav", 1)
    assert separate("song.wav") == 0
    memory = tmp_path / "outputs/song/.separation.json"
    record = json.loads(memory.read_text(encoding="utf-8"))
    del record["done"]
    memory.write_text(json.dumps(record), encoding="utf-8")
    (tmp_path / "outputs/song/vocals.wav").unlink()
    assert separate("song.wav") == 0
    assert folders(tmp_path / "outputs") == {"song"} and adds_up(tmp_path / "outputs/song", tmp_path / "song.wav")


def test_a_song_that_fails_leaves_nothing(tmp_path, separate):
    (tmp_path / "song.wav").write_bytes(b"RIFF no song at all")
    assert separate("song.wav") == 1
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"song": 3, "files": [], "made_with": null}', b"[" * 100_000])
def test_a_memory_that_is_damaged_costs_nothing(tmp_path, separate, content):
    song(tmp_path / "song.wav", 1)
    assert separate("song.wav") == 0
    (tmp_path / "outputs/song/.separation.json").write_bytes(content)
    before = (tmp_path / "outputs/song/vocals.wav").read_bytes()
    assert separate("song.wav") == 1
    assert (tmp_path / "outputs/song/vocals.wav").read_bytes() == before
    assert separate("song.wav", "--overwrite") == separate("song.wav") == 0


def test_a_pattern_that_leads_to_no_other_place_is_refused_in_words(tmp_path, separate, capsys):
    song(tmp_path / "a.wav", 1)
    song(tmp_path / "b.wav", 2)
    assert separate("a.wav", "--name", "{stem}") == 0
    assert separate("b.wav", "--name", "{stem}") == 1
    assert "exists and was not made from this song" in capsys.readouterr().err
    assert adds_up(tmp_path / "outputs", tmp_path / "a.wav")


@pytest.mark.skipif(os.name != "posix", reason="names are shorter elsewhere")
def test_names_as_long_as_the_system_takes(tmp_path, separate):
    name = "ö" * 125 + ".wav"
    song(tmp_path / name, 1)
    assert separate(name) == 0
    (folder,) = (tmp_path / "outputs").iterdir()
    assert adds_up(folder, tmp_path / name)


def test_folders_are_searched_and_brackets_may_be_of_a_name(tmp_path, separate):
    song(tmp_path / "music [live]/album/song.wav", 1)
    song(tmp_path / "music [live]/other.wav", 2)
    assert separate("music [live]/*.wav") == 0
    assert folders(tmp_path / "outputs") == {"other"}
    (tmp_path / "music [live]/other.wav").unlink()
    assert separate("music [live]") == 0
    assert folders(tmp_path / "outputs") == {"other", "song"}


def test_a_home_that_nobody_has_is_one_sentence(separate):
    from separation.errors import UserError

    with pytest.raises(UserError, match="no such user"):
        separate("~nosuchuser/song.wav")


def test_the_output_may_lie_at_home(tmp_path, separate, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    song(tmp_path / "song.wav", 1)
    assert separate("song.wav", "--output", "~/stems") == 0
    assert (tmp_path / "home/stems/song/vocals.wav").exists() and not (tmp_path / "~").exists()
