from __future__ import annotations

import pytest

from separation.songs.arguments import parse_arguments, sort_out


@pytest.mark.parametrize(
    ("words", "stems", "songs"),
    [
        (["two"], ["vocals", "accompaniment"], []),
        (["all", "vocals"], ["vocals", "drums", "bass", "other"], []),
        (["karaoke", "instrumental", "acapella"], ["accompaniment", "vocals"], []),
        (["no_drums", "song.mp3", "album/"], ["no_drums"], ["song.mp3", "album/"]),
        (["bass", "here", "guitar"], ["bass", "guitar"], ["here"]),
    ],
)
def test_stems_are_told_from_the_songs_that_follow_them(tmp_path, monkeypatch, words, stems, songs):
    monkeypatch.chdir(tmp_path)
    for name in ("here", "bass"):  # a stem's name is that of a stem, whatever lies here
        (tmp_path / name).mkdir()
    assert sort_out(words) == (stems, songs)


@pytest.mark.parametrize(
    "arguments",
    [["a.mp3", "b/"], ["--input", "a.mp3", "b/"], ["a.mp3", "--input", "b/"], ["--stems", "drums", "a.mp3", "b/"]],
)
def test_songs_are_plain_arguments_or_an_option(arguments):
    assert set(parse_arguments(arguments).songs) == {"a.mp3", "b/"}
