from __future__ import annotations

from pathlib import Path

import pytest

from separation.errors import UserError
from separation.inference.weights import pretrained
from separation.songs.command import levels, opening, parse_arguments, place, result, sort_out, spell
from separation.songs.render import RenderReport, Tally


@pytest.mark.parametrize(
    ("words", "stems", "songs"),
    [
        (["two"], ["vocals", "accompaniment"], []),
        (["all", "vocals"], ["vocals", "drums", "bass", "other"], []),
        (["karaoke", "instrumental", "acapella"], ["karaoke", "acapella"], []),
        (["Karaoke", "VOCALS"], ["karaoke", "vocals"], []),
        (["vocals,drums", "no_vocals_drums"], ["vocals", "drums", "no_vocals_drums"], []),
        (["no_drums", "song.mp3", "album/"], ["no_drums"], ["song.mp3", "album/"]),
        (["all", "no_scrubs.mp3"], ["vocals", "drums", "bass", "other"], ["no_scrubs.mp3"]),
        (["drums", "vocals,drums.mp3"], ["drums"], ["vocals,drums.mp3"]),
        (["bass", "here", "no_scrubs", "guitar"], ["bass", "guitar"], ["here", "no_scrubs"]),
    ],
)
def test_stems_are_told_from_the_songs_that_follow_them(tmp_path, monkeypatch, words, stems, songs):
    monkeypatch.chdir(tmp_path)
    for name in ("here", "bass", "no_scrubs"):  # a stem's name is that of a stem, whatever lies here
        (tmp_path / name).mkdir()
    assert sort_out(words) == (stems, songs)


@pytest.mark.parametrize(
    "arguments",
    [["a.mp3", "b/"], ["--input", "a.mp3", "b/"], ["a.mp3", "--input", "b/"], ["--stems", "drums", "a.mp3", "b/"]],
)
def test_songs_are_plain_arguments_or_an_option(arguments):
    assert set(parse_arguments(arguments).songs) == {"a.mp3", "b/"}


def test_formats_are_taken_in_any_case_and_homes_are_expanded_everywhere(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    options = parse_arguments(["a.mp3", "--format", "MP3", "--output=~/stems", "--manifest=~/songs.jsonl"])
    assert (options.format, options.output, options.manifest) == ("mp3", tmp_path / "stems", tmp_path / "songs.jsonl")


def test_a_song_is_one_line():
    paths = {stem: Path(f"outputs/lithium/{stem}.wav") for stem in ("vocals", "bass")}
    loud, silent = Tally(8, 2.0, 3), Tally(8)
    report = RenderReport(seconds=210.2, elapsed=6.3, gain=1.0, stems={"vocals": Tally(8, 2.0), "bass": silent})
    line = "3:30 of music in 6 s -> outputs/lithium/ (vocals, bass)"
    assert result(report, paths) == line
    assert levels(report) == "vocals -6.0 dBFS, bass -inf dBFS"
    report = RenderReport(seconds=210.2, elapsed=6.3, gain=0.5, stems={"vocals": loud, "bass": silent})
    said = result(report, paths)
    assert said.startswith(line) and "0.500 times as loud" in said and "3 samples" in said


@pytest.mark.parametrize(
    ("files", "right"),
    [
        (("a/b/x.wav", "a/b/y.wav"), "a/b/ (x, y)"),
        (("a/b (x).mp3", "a/b (y).mp3"), "a/b (x).mp3, a/b (y).mp3"),
        (("a/x/b.wav", "a/y/b.wav"), "a/x/b.wav, a/y/b.wav"),
        (("a/b.stem.m4a", "a/b.stem.m4a"), "a/b.stem.m4a (x, y)"),
    ],
)
def test_what_is_shown_of_the_stems_are_paths_that_exist(files, right):
    assert place(dict(zip("xy", map(Path, files), strict=True))) == right


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.04, "0.0 s"), (6.4, "6 s"), (99.4, "99 s"), (125, "2:05 min"), (3723, "1:02:03 h")]
)
def test_times_are_told_as_people_tell_them(seconds, said):
    assert spell(seconds) == said


def test_weights_and_device_are_said_at_the_start():
    assert opening([pretrained("all")], "CPU, 2 threads", 1) == (
        "1 song; weights all.safetensors (shipped); CPU, 2 threads"
    )
    assert "weights my/best.safetensors; CPU" in opening([Path("my/best.safetensors")], "CPU, 1 thread", 3)
    twice = opening([pretrained("vocals"), pretrained("all"), pretrained("vocals")], "CPU, 1 thread", 1)
    assert "weights vocals.safetensors (shipped), twice, and all.safetensors (shipped); CPU" in twice
    assert "weights all.safetensors (shipped), 3 times; CPU" in opening([pretrained("all")] * 3, "CPU, 1 thread", 1)


def test_a_track_is_counted_from_0_and_videos_keep_their_whole_sound(tmp_path):
    options = parse_arguments(["a.mkv", "--track", "0", "--format", "video", "--keep-original"])
    assert (options.track, options.format, options.keep_original) == (0, "video", True)
    for arguments in (["--track", "-1"], ["--format", "video", "--segment", "1-2"], ["--format", "mka", "--page"]):
        with pytest.raises(UserError):
            parse_arguments(["a.mkv", *arguments])
    assert parse_arguments(["a.mkv", "--format", "mka"]).stems == ["vocals", "drums", "bass", "other"]
