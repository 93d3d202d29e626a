from __future__ import annotations

from pathlib import Path

import pytest

from separation.audio.formats import AudioFile
from separation.errors import UserError
from separation.songs.find import Song
from separation.songs.outputs import Naming

TWO = ("vocals", "accompaniment")


def songs(*names: str) -> list[Song]:
    return [Song(name, AudioFile(Path("input") / f"{name}.mp3")) for name in names]


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("{song}/{stem}.{ext}", "out/A {b}/vocals.flac"),
        ("{song} - {stem}", "out/A {b} - vocals.flac"),
        ("{stem}/{song}.flac", "out/vocals/A {b}.flac"),
        ("{stem}.{song}", "out/vocals.A {b}.flac"),
        ("2026/{ext}/{song}/{stem}.FLAC", "out/2026/flac/A {b}/vocals.FLAC"),
        ("{{{stem}}}", "out/{vocals}.flac"),
    ],
)
def test_fields_are_filled_in(pattern, path):
    assert Naming(Path("out"), "flac", pattern).path("A {b}", "vocals") == Path(path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [(None, "out/a.b.stem.m4a"), ("{song}.stem.m4a", "out/a.b.stem.m4a"), ("{song}/all", "out/a.b/all.stem.m4a")],
)
def test_a_stem_file_is_one_for_all_stems(pattern, path):
    naming = Naming(Path("out"), "stem", pattern)
    assert set(naming.paths("a.b", TWO).values()) == {Path(path)}
    naming.check(songs("a.b"), TWO)
    with pytest.raises(UserError, match=r"ends in \.m4a, but stems are written as stem\.m4a"):
        Naming(Path("out"), "stem", "{song}.m4a")
    with pytest.raises(UserError, match=r"there are only \{song\}, \{ext\}"):
        Naming(Path("out"), "stem", "{song}/{stem}")
    with pytest.raises(UserError, match="several stems"):
        Naming(Path("out"), "stem", "all").check(songs("a", "b"), TWO)


def test_stems_lie_in_the_songs_folder_by_default():
    assert Naming(Path("out")).paths("a", TWO) == {stem: Path(f"out/a/{stem}.wav") for stem in TWO}


@pytest.mark.parametrize(
    ("pattern", "complaint"),
    [
        ("{track}/{stem}", r"\{track\}: there are only \{song\}, \{stem\}, \{ext\}"),
        ("{}/{stem}", "there are only"),
        ("{song.__class__}/{stem}", "there are only"),
        ("{song:>9}/{stem}", "there are only"),
        ("{song!r}/{stem}", "there are only"),
        ("{song/{stem}", "cannot be understood"),
        ("{song}/{stem}}", "cannot be understood"),
        ("../{song}/{stem}", "leads out"),
        ("{song}/../../{stem}.{ext}", "leads out"),
        ("/tmp/{song}/{stem}", "leads out"),
        ("{song}/{stem}/", "names no file"),
        ("", "names no file"),
        ("{song}/{stem}.mp3", "ends in .mp3"),
    ],
)
def test_patterns_that_cannot_be_used_are_refused(pattern, complaint):
    with pytest.raises(UserError, match=complaint):
        Naming(Path("out"), "wav", pattern)


@pytest.mark.parametrize(
    ("pattern", "names", "stems"),
    [("{song}", "a", TWO), ("{stem}", "ab", TWO), ("all", "ab", ("vocals",)), ("{song}/x", "a", TWO)],
)
def test_stems_that_would_overwrite_each_other_are_refused(pattern, names, stems):
    with pytest.raises(UserError, match=r"calls several stems .* by \{song\} and \{stem\}"):
        Naming(Path("out"), "wav", pattern).check(songs(*names), stems)


def test_names_that_some_systems_take_for_one_are_refused():
    with pytest.raises(UserError, match="several stems"):
        Naming(Path("out"), "wav", "{song}{stem}").check(songs("a", "A"), ("vocals",))


@pytest.mark.parametrize(
    ("pattern", "names", "stems"), [("{song}", "ab", ("vocals",)), ("{stem}", "a", TWO), ("{song}/{stem}", "ab", TWO)]
)
def test_a_field_that_is_not_needed_may_be_missing(pattern, names, stems):
    Naming(Path("out"), "wav", pattern).check(songs(*names), stems)


def test_no_stem_takes_the_place_of_a_song():
    with pytest.raises(UserError, match=r"a\.mp3 is a song"):
        Naming(Path("input"), "mp3", "{song}").check(songs("a", "b"), ("vocals",))
