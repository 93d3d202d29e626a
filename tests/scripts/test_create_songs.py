from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, hear_signals
from networks import random_network, random_weights, tiny_config
from sounds import read

from separation.audio.io import AudioReader, AudioWriter, probe, write
from separation.errors import UserError
from separation.inference.weights import UNKNOWN_LICENCE, save_weights
from separation.songs import command as command_of_songs
from separation.songs.page import Page
from separation.stems import STEMS

SCRIPT = REPOSITORY / "create_songs.py"


def noise(samples: int, channels: int = 2) -> torch.Tensor:
    return 0.1 * torch.randn(channels, samples, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return random_weights(tmp_path_factory.mktemp("weights") / "vocals.safetensors")


@pytest.fixture
def create(tmp_path, monkeypatch, weights):
    """Run the script in this process, in a folder of its own; give its exit code."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> int:
        chosen = [] if "--weights" in arguments else ["--weights", str(weights)]
        monkeypatch.setattr(sys, "argv", ["create_songs.py", *chosen, *map(str, arguments)])
        return command_of_songs.main()

    return run


def command(weights: Path, *arguments: str | Path) -> list[str]:
    return [sys.executable, str(SCRIPT), "--weights", str(weights), "--threads", "1", *map(str, arguments)]


def written(folder: Path) -> set[str]:
    """The files below a folder, but for those that remember what the stems are of."""
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".separation"))
    return {str(path.relative_to(folder)) for path in paths}


def test_songs_of_a_folder_as_a_user_separates_them(tmp_path, weights):
    """Good songs of many kinds beside bad ones: the good are done, the bad are named, and the exit code says so."""
    songs = tmp_path / "input"
    write(songs / "Füße 歌.wav", noise(30000), 44100)
    write(songs / "mono.flac", noise(48000, 1), 48000)
    write(songs / "short.wav", noise(441), 44100)
    (songs / "text.mp3").write_text("this is no music\n" * 100)
    (songs / "empty.wav").touch()
    (songs / "notes.txt").write_text("not a song by its name")
    run = command(weights, "custom")
    result = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "2 of 5 songs failed" in result.stderr
    for name in ("text.mp3", "empty.wav", "notes.txt"):
        assert result.stderr.count(f"input/{name}") == 1
    first, licence, *lines = result.stdout.splitlines()
    assert first == f"5 songs; weights {weights}; torch, CPU, 1 thread"
    assert licence == f"licence of the weights: {UNKNOWN_LICENCE}"
    pattern = r"0:0\d of music in \S+ s -> outputs/[^/]+/ \(vocals, accompaniment\)"
    *lines, last = lines
    assert len(lines) == 3 and all(re.fullmatch(pattern, line) for line in lines)
    assert re.fullmatch(r"0:02 of music in \S+ s, from 5 songs", last)
    assert "|" not in result.stderr  # in a log file there are no bars
    names = ("Füße 歌", "mono", "short")
    assert written(tmp_path / "outputs") == {
        f"{name}/{stem}.wav" for name in names for stem in ("vocals", "accompaniment")
    }
    for name, file in zip(names, ("Füße 歌.wav", "mono.flac", "short.wav"), strict=True):
        song, rate = read(songs / file)
        stems = [read(tmp_path / "outputs" / name / f"{stem}.wav") for stem in ("vocals", "accompaniment")]
        assert all(found == rate for _, found in stems)
        assert torch.equal(stems[0][0] + stems[1][0], song)
        assert stems[0][0].std() > 0.01 and stems[1][0].std() > 0.01


def test_without_options_it_separates_something_real(tmp_path, weights):
    result = subprocess.run(command(weights), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    (folder,) = (tmp_path / "outputs").iterdir()
    assert written(folder) == {"vocals.wav", "accompaniment.wav"}
    assert read(folder / "accompaniment.wav")[0].std() > 0.01


def test_ctrl_c_leaves_no_half_written_stem_and_a_page_of_what_is_done(tmp_path, weights):
    pytest.importorskip("resource")
    write(tmp_path / "done.wav", noise(20000), 44100)
    write(tmp_path / "long.flac", torch.zeros(2, 44100 * 300), 44100)
    process = subprocess.Popen(
        command(weights, "--input", "done.wav", "long.flac", "--page", "--name", "{stem}/{song}"),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hear_signals,
    )
    folder = tmp_path / "outputs"
    try:
        while process.poll() is None and not (
            (folder / "index.html").exists() and list(folder.glob("vocals/.*.partial"))
        ):
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in errors and "stopped" in errors
    files = written(tmp_path / "outputs")
    assert len(files) == 5 and not [file for file in files if "long" in file or file.endswith(".partial")]
    assert [song["name"] for song in Page(tmp_path / "outputs").songs()] == ["done"]


def test_songs_that_are_done_are_skipped_unless_overwritten(tmp_path, create, capsys):
    write(tmp_path / "song.wav", noise(30000), 44100)
    assert create("--input", "song.wav") == 0
    (tmp_path / "outputs/song/vocals.wav").write_bytes(b"mine")
    assert create("--input", "song.wav") == 0
    assert "--overwrite" in capsys.readouterr().out
    assert (tmp_path / "outputs/song/vocals.wav").read_bytes() == b"mine"
    assert create("--input", "song.wav", "--overwrite") == 0
    assert probe(tmp_path / "outputs/song/vocals.wav").samples == 30000
    (tmp_path / "outputs/song/vocals.wav").unlink()
    assert create("--input", "song.wav") == 0
    assert (tmp_path / "outputs/song/vocals.wav").exists()


def test_songs_of_one_name_do_not_overwrite_each_other(tmp_path, create):
    write(tmp_path / "a.wav", noise(20000), 44100)
    write(tmp_path / "a.flac", noise(30000), 44100)
    assert create("--input", "a.wav", "a.flac") == 0
    assert probe(tmp_path / "outputs/a/vocals.wav").samples == 20000
    assert probe(tmp_path / "outputs/a (flac)/vocals.wav").samples == 30000


def test_names_follow_the_pattern_and_are_recognised_by_it(tmp_path, create, capsys):
    write(tmp_path / "a {stem}.wav", noise(20000), 44100)
    arguments = ("--input", "a {stem}.wav", "--format", "flac", "--name", "{stem}/{song} ({stem}).{ext}")
    assert create(*arguments) == 0
    names = {f"{stem}/a {{stem}} ({stem}).flac" for stem in ("vocals", "accompaniment")}
    assert written(tmp_path / "outputs") == names
    assert create(*arguments) == 0
    assert "stems are there already" in capsys.readouterr().out
    assert create(*arguments, "--clip", "rescale", "--overwrite") == 0
    assert written(tmp_path / "outputs") == names


def test_the_page_lists_what_is_done_now_and_what_was_done_before(tmp_path, create, capsys):
    for name in ("a.wav", "b.wav"):
        write(tmp_path / name, noise(20000), 44100)
    (tmp_path / "c.wav").write_text("no music")
    assert create("--input", "a.wav") == 0
    assert not (tmp_path / "outputs/index.html").exists()
    assert create("--input", "a.wav", "c.wav", "b.wav", "--page") == 1
    assert (tmp_path / "outputs/index.html").as_uri() in capsys.readouterr().out
    songs = Page(tmp_path / "outputs").songs()
    assert [song["name"] for song in songs] == ["a", "b"]
    assert all(len(song["stems"]) == 2 for song in songs)
    write(tmp_path / "d.wav", noise(20000), 44100)
    assert create("--input", "d.wav", "--page", "--name", "{song} - {stem}") == 0
    assert [song["name"] for song in Page(tmp_path / "outputs").songs()] == ["a", "b", "d"]


def test_a_damaged_stem_fails_its_song_and_the_page_has_the_others(tmp_path, create, capsys):
    for name in ("a.wav", "b.wav"):
        write(tmp_path / name, noise(20000), 44100)
    assert create("--input", "a.wav", "b.wav") == 0
    (tmp_path / "outputs/a/vocals.wav").write_text("no music")
    assert create("--input", "a.wav", "b.wav", "--page") == 1
    assert "a/vocals.wav cannot be decoded" in capsys.readouterr().err
    assert [song["name"] for song in Page(tmp_path / "outputs").songs()] == ["b"]


@pytest.mark.parametrize(
    ("format", "bits"),
    [("flac", ["--bits", "24"]), ("mp3", []), ("ogg", []), ("m4a", ["--bits", "16"]), ("wav", ["--bits", "32f"])],
)
def test_formats(tmp_path, create, format, bits):
    write(tmp_path / "song.wav", noise(30000), 44100)
    assert create("--input", "song.wav", "--output", "elsewhere", "--format", format, *bits) == 0
    assert written(tmp_path / "elsewhere") == {f"song/vocals.{format}", f"song/accompaniment.{format}"}
    assert probe(tmp_path / f"elsewhere/song/vocals.{format}").samples == 30000


def test_stems_are_chosen(tmp_path, create):
    save_weights(tmp_path / "all.safetensors", random_network(STEMS), tiny_config(STEMS))
    write(tmp_path / "song.wav", noise(20000), 44100)
    for stems, names in (
        (["all"], STEMS),
        (["two"], ("vocals", "accompaniment")),
        (["bass", "no_drums"], ("bass", "no_drums")),
        (["Karaoke", "acapella", "instrumental"], ("karaoke", "acapella")),
        (["vocals,drums"], ("vocals", "drums")),
    ):
        arguments = ("--output", stems[0], "--weights", "all.safetensors")
        assert create(*arguments, "--stems", *stems, "song.wav") == 0
        assert written(tmp_path / stems[0]) == {f"song/{name}.wav" for name in names}


def test_karaoke_is_called_so_in_files_and_tags(tmp_path, create):
    with AudioWriter(tmp_path / "song.flac", 44100, 2, tags={"title": "Song"}) as writer:
        writer.write(noise(20000))
    assert create("song.flac", "--stems", "karaoke", "--format", "FLAC", "--name", "{song} ({stem})") == 0
    with AudioReader(tmp_path / "outputs/song (karaoke).flac") as reader:
        assert reader.tags["title"] == "Song (karaoke)"


def test_a_path_that_does_not_exist_is_said_before_torch_is_loaded(tmp_path, weights):
    run = [sys.executable, "-X", "importtime", str(SCRIPT), str(tmp_path / "missing.wav"), "--weights", str(weights)]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and f"error: {tmp_path / 'missing.wav'} does not exist" in done.stderr
    assert " torch\n" not in done.stderr and "separation.songs.batch" in done.stderr


def test_a_missing_song_costs_no_other(tmp_path, create, capsys):
    write(tmp_path / "song.wav", noise(20000), 44100)
    assert create("missing.wav", "song.wav") == 1
    assert "missing.wav" in capsys.readouterr().err and (tmp_path / "outputs/song/vocals.wav").exists()


def test_a_track_is_chosen_and_named(tmp_path, create, capsys):
    tracks = noise(20000), 0.5 * noise(20000)
    with AudioWriter(tmp_path / "film.mka", 44100, 2, names=["Commentary", "Music"]) as writer:
        writer.write(*tracks)
    assert create("film.mka") == create("film.mka", "--track", "1") == 0
    assert "using track 0 (Commentary)" in capsys.readouterr().out
    for name, track in zip(("film", "film (track 1)"), tracks, strict=True):
        stems = [read(path)[0] for path in (tmp_path / "outputs" / name).glob("*.wav")]
        torch.testing.assert_close(sum(stems), track, atol=2**-14, rtol=0)
    assert create("film.mka", "--track", "2") == 1
    assert "no audio track 2" in capsys.readouterr().err


def test_a_stem_file_is_written_and_recognised(tmp_path, create, capsys):
    save_weights(tmp_path / "all.safetensors", random_network(STEMS), tiny_config(STEMS))
    write(tmp_path / "song.wav", noise(20000), 44100)
    arguments = ("song.wav", "--format", "stem", "--weights", "all.safetensors")
    assert create(*arguments) == 0
    assert "-> outputs/song.stem.m4a (" in capsys.readouterr().out
    assert written(tmp_path / "outputs") == {"song.stem.m4a"}
    assert create(*arguments) == 0
    assert "already" in capsys.readouterr().out
    assert create("outputs/song.stem.m4a", "--output", "again") == 0
    assert written(tmp_path / "again") == {"song/vocals.wav", "song/accompaniment.wav"}


def test_jobs_side_by_side_do_what_one_process_does_and_say_so_in_the_manifest(tmp_path, weights):
    songs = [tmp_path / "songs" / f"{number}.wav" for number in range(5)]
    for number, path in enumerate(songs):
        write(path, (number + 1) / 5 * noise(20000 + 1000 * number), 44100)
    songs[2].write_text("no music")
    results = {}
    for folder, options in (("one", ()), ("two", ("--jobs", "2"))):
        run = command(weights, "songs/", "--output", folder, *options)
        results[folder] = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert results[folder].returncode == 1
        assert "Traceback" not in results[folder].stderr
        assert "1 of 5 songs failed:\n  songs/2.wav" in results[folder].stderr
    assert "5 songs, 2 at a time;" in results["two"].stdout
    stems = written(tmp_path / "one")
    assert len(stems) == 8 and written(tmp_path / "two") == stems | {"manifest.jsonl"}
    assert all((tmp_path / "one" / stem).read_bytes() == (tmp_path / "two" / stem).read_bytes() for stem in stems)

    lines = (tmp_path / "two" / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    facts = {Path(line["song"]).stem: line for line in map(json.loads, lines)}
    assert len(lines) == 5 and {name: line["result"] for name, line in facts.items()} == {
        "0": "done", "1": "done", "2": "failed", "3": "done", "4": "done"
    }  # fmt: skip
    assert facts["2"]["code"] == "no_audio"
    assert facts["4"]["seconds"] == pytest.approx(24000 / 44100, abs=1e-3) and facts["4"]["took"] > 0
    assert facts["4"]["weights"] == [str(weights)] and facts["4"]["settings"]["format"] == "wav"
    assert facts["4"]["stems"] == {stem: f"two/4/{stem}.wav" for stem in ("vocals", "accompaniment")}


def test_a_segment_and_the_best_quality(tmp_path, create, capsys):
    write(tmp_path / "song.wav", noise(44100 * 4), 44100)
    assert create("song.wav", "--segment", "0:01-0:03.5", "--quality", "best") == 0
    assert "0:02 of music" in capsys.readouterr().out
    stems = tmp_path / "outputs/song (0.01-0.03_5)"
    assert probe(stems / "vocals.wav").samples == 2.5 * 44100
    assert {path.name for path in stems.glob("*.wav")} == {"vocals.wav", "accompaniment.wav"}  # as without it
    assert create("song.wav", "--segment", "0:05-") == 1
    assert capsys.readouterr().err == "failed: song.wav: the song ends before --segment 0:05- begins.\n"


def test_levels_are_told_to_who_asks(tmp_path, create, capsys):
    write(tmp_path / "song.wav", noise(30000), 44100)
    create("song.wav")
    assert "dBFS" not in capsys.readouterr().out
    create("song.wav", "--overwrite", "--verbose")
    assert re.search(r"vocals -\d+\.\d dBFS, accompaniment -\d+\.\d dBFS", capsys.readouterr().out)


def test_help_is_of_the_command_that_was_called(monkeypatch, capsys):
    for name in ("separate", "create_songs.py"):
        monkeypatch.setattr(sys, "argv", [f"/usr/local/bin/{name}", "--help"])
        with pytest.raises(SystemExit):
            command_of_songs.main()
        printed = capsys.readouterr().out
        assert f"usage: {name} [SONG ...]" in printed and f"  {name} song.mp3 --stems all" in printed


def test_clipping_is_said(tmp_path, create, capsys):
    write(tmp_path / "song.wav", 20 * noise(30000), 44100, "32f")
    create("--input", "song.wav")
    assert re.search(r"beyond full scale: \d+ samples, cut off: .*--bits 32f", capsys.readouterr().out)
    create("--input", "song.wav", "--bits", "32f")
    assert re.search(r"beyond full scale: \d+ samples, kept", capsys.readouterr().out)
    assert (tmp_path / "outputs/song (vocals, accompaniment, 32-bit float, vocals)").is_dir()
    create("--input", "song.wav", "--overwrite", "--clip", "rescale")
    assert "times as loud" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--stems", "all"], "do not separate drums, bass or other"),
        (["--output", "song.wav"], "song.wav is a file"),
        (["--threads", "0"], "--threads"),
        (["--jobs", "0"], "--jobs"),
        (["--segment", "1:10-0:30"], "--segment"),
        (["--manifest", "song.wav/manifest"], "song.wav/manifest cannot be written"),
        (["--bits", "24", "--clip", "none"], "--clip none"),
        (["--format", "mp3", "--bits", "16"], "mp3"),
        (["--weights", "song.wav"], "song.wav"),
        (["--weights", "missing.safetensors"], "missing.safetensors"),
        (["--input", "nothing/*.wav"], "nothing/"),
        (["--name", "{stem}", "--input", "song.wav", "other.wav"], "several stems"),
        (["--name", "../{song}/{stem}"], "leads out"),
        (["--name", "{instrument}"], "instrument"),
        (["--output", ".", "--name", "{song}", "--stems", "vocals", "--overwrite"], "song.wav is a song"),
        (["--page", "--output", "site"], "index.html"),
        (["--input", "custom"], "input"),
        (["--format", "stem", "--stems", "two"], "omit --stems"),
        (["--format", "stem", "--page"], "--page"),
        (["--format", "stem"], "do not separate drums"),
        (["--stems", "guitar"], "do not separate guitar"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(tmp_path, create, arguments, complaint):
    write(tmp_path / "song.wav", noise(1000), 44100)
    (tmp_path / "input").mkdir()
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("<h1>Home</h1>")
    before = written(tmp_path)
    with pytest.raises(UserError, match=complaint):
        create("--input", "song.wav", *arguments)
    assert written(tmp_path) == before


def test_a_file_in_the_place_of_a_songs_folder_fails_that_song_alone(tmp_path, create, capsys):
    for name in ("a.wav", "b.wav"):
        write(tmp_path / name, noise(20000), 44100)
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "a").touch()
    assert create("--input", "a.wav", "b.wav") == 1
    assert "1 of 2 songs failed" in capsys.readouterr().err
    assert (tmp_path / "outputs/b/vocals.wav").exists()
