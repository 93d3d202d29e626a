from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import REPOSITORY, environment, hear_signals, make_stems, write_files

from separation.dataset.command import main
from separation.dataset.store import Store, is_partial
from separation.errors import UserError
from separation.stems import STEMS

FLAGS = tuple(f"--{stem}" for stem in STEMS)


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    for seed, name in enumerate(("first", "sëcond", "third")):
        write_files(tmp_path / "songs" / name, make_stems(seed, seconds=1.0))
    return tmp_path / "songs"


def test_builds_a_store_as_a_user_does_and_names_what_failed(run, songs, tmp_path):
    (songs / "sëcond" / "drums.wav").write_bytes(b"RIFF, but no sound")
    command = ("dataset.py", "--dataset", "FOLDER", "--root", songs, "--output", tmp_path / "store", *FLAGS)
    result = run(*command, "--workers", "2", "--speeds", "0.9")
    assert result.returncode == 1
    assert "3 songs, 3 to build in" in result.stdout
    assert "GB" in result.stdout
    assert "not built: sëcond:" in result.stdout.splitlines()[-1]
    assert "drums.wav" in result.stdout.splitlines()[-1]
    assert "|" not in result.stderr  # in a log file there are no bars
    assert "Traceback" not in result.stderr
    names = [track.name for track in Store(tmp_path / "store").tracks("train")]
    assert names == ["first", "first@0.9", "third", "third@0.9"]

    write_files(songs / "sëcond", make_stems(1, seconds=1.0))
    write_files(songs / "third" / "stems", {"vocals": make_stems()["vocals"]})
    write_files(songs / "first", {"guitar": make_stems()["other"]})
    (songs / "empty").mkdir()
    again = run(*command, "--workers", "1", "--speeds", "0.9")
    assert again.returncode == 0, again.stderr
    assert "3 songs, 1 to build in" in again.stdout
    for path in ("first/guitar.wav", "third/stems/vocals.wav", "empty"):
        assert f"\n  {songs / path}\n" in again.stdout
    assert len(Store(tmp_path / "store").tracks()) == 6


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("FOLDER",), "no stem was chosen: give one or several of --vocals"),
        (("DSD100", "--vocals", "--root", "no/such/folder"), "there is no folder no/such/folder"),
        (("DSD100", "--vocals", "--download"), "--download fetches the 7-second sample of MUSDB18 only"),
        (("FOLDER", "--vocals", "--silence", "nan"), "--silence: nan is not a number of decibels between 3 and 90"),
        (("FOLDER", "--vocals", "--silence", "loud"), "--silence: loud is not a number of decibels between 3 and 90"),
        (("FOLDER", "--vocals", "--speeds", "3"), "--speeds: 3 is not a factor between"),
        (("FOLDER", "--vocals", "--speeds", "0.999"), "--speeds: 0.999 is not a factor between"),
        (("FOLDER", "--vocals", "--speeds", "1/0"), "--speeds: 1/0 is not a factor between"),
        (("FOLDER", "--vocals", "--n-fft", "1000", "--hop", "300"), "--n-fft 1000, --hop 300: hop must divide n_fft"),
        (("FOLDER", "--vocals", "--speeds", "inf"), "--speeds: inf is not a factor between"),
    ],
)
def test_bad_input_is_said(arguments, sentence, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["dataset.py", "--dataset", *arguments])
    with pytest.raises((UserError, SystemExit)) as error:
        main()
    assert sentence in str(error.value) + capsys.readouterr().err


def test_the_stft_can_be_chosen(songs, tmp_path, monkeypatch):
    options = ["--dataset", "FOLDER", "--root", str(songs), "--output", str(tmp_path / "store"), "--workers", "1"]
    monkeypatch.setattr(sys, "argv", ["dataset.py", *options, "--vocals", "--n-fft", "512"])
    assert main() == 0
    store = Store(tmp_path / "store")
    assert (store.settings.n_fft, store.settings.hop) == (512, 128)  # a quarter
    assert all(track.crop("vocals").shape[1] == 257 for track in store.tracks())
    monkeypatch.setattr(sys, "argv", ["dataset.py", *options, "--vocals"])
    with pytest.raises(UserError) as error:
        main()
    assert error.value.code == "other_stft" and "--n-fft 4096 --hop 1024" in str(error.value)


def test_the_class_of_a_network_of_ones_own_is_passed_on(songs, tmp_path, monkeypatch):
    asked = {}

    def load(weights, **options):
        asked.update(options, weights=weights)
        raise UserError("enough")

    monkeypatch.setattr("separation.dataset.pseudo_labels.Separator.load", load)
    options = ["--dataset", "FOLDER", "--root", str(songs), "--output", str(tmp_path / "store"), "--vocals"]
    label = ["--label", "mine.safetensors", "--network", "package.module:Class"]
    monkeypatch.setattr(sys, "argv", ["dataset.py", *options, *label])
    with pytest.raises(UserError, match="enough"):
        main()
    assert asked == {"weights": ("mine.safetensors",), "stems": ("vocals",), "network": "package.module:Class"}


def test_songs_are_not_replaced_by_their_spectrograms(run, songs):
    before = {path: path.read_bytes() for path in songs.rglob("*") if path.is_file()}
    for output in (songs, songs / "first"):
        result = run("dataset.py", "--dataset", "FOLDER", "--root", songs, "--output", output, "--vocals")
        assert result.returncode == 1 and result.stderr.count("\n") == 1
        assert f"error: {output} is not empty" in result.stderr
    assert {path: path.read_bytes() for path in songs.rglob("*") if path.is_file()} == before


def test_what_is_gone_or_short_is_said(run, songs, tmp_path):
    command = ("dataset.py", "--dataset", "FOLDER", "--root", songs, "--output", tmp_path / "store", "--vocals")
    write_files(songs / "third", {"bass": make_stems(2, seconds=0.5)["bass"]})
    assert "third: bass ends 0.5 s early, and is silent there" in run(*command).stdout
    shutil.rmtree(songs / "first")
    again = run(*command)
    assert f"removed from the store, no longer in {songs}:\n  first\n" in again.stdout
    assert {track.name for track in Store(tmp_path / "store").tracks()} == {"sëcond", "third"}


def begin_building(songs: Path, store: Path, workers: int) -> subprocess.Popen:
    """Start dataset.py on many songs, and wait until the first is finished."""
    for number in range(20):
        shutil.copytree(songs / "first", songs / f"copy {number}")
    command = [sys.executable, "dataset.py", "--dataset", "FOLDER", "--root", songs, "--output", store, *FLAGS]
    process = subprocess.Popen(
        [*map(str, command), "--workers", str(workers)],
        cwd=REPOSITORY,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hear_signals,
    )
    while all(is_partial(path.parent) for path in store.glob("*/track.json")) and process.poll() is None:
        time.sleep(0.01)
    return process


def test_killed_and_started_again_it_keeps_what_was_finished(run, songs, tmp_path):
    process = begin_building(songs, tmp_path / "store", workers=1)
    process.kill()
    process.communicate()
    finished = {track.name: track.folder.stat().st_mtime_ns for track in Store(tmp_path / "store").tracks()}
    assert 0 < len(finished) < 23

    result = run("dataset.py", "--dataset", "FOLDER", "--root", songs, "--output", tmp_path / "store", *FLAGS)
    assert result.returncode == 0, result.stderr
    assert f"23 songs, {23 - len(finished)} to build in" in result.stdout
    tracks = Store(tmp_path / "store").tracks()
    assert len(tracks) == 23
    assert not list((tmp_path / "store").glob("*.partial"))
    for track in tracks:
        assert all(track.crop(part).isfinite().all() for part in track.parts)
        assert track.folder.stat().st_mtime_ns == finished.get(track.name, track.folder.stat().st_mtime_ns)


@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C is sent to a process group")
def test_ctrl_c_ends_it_quietly(songs, tmp_path):
    process = begin_building(songs, tmp_path / "store", workers=2)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "stopped"
    assert "Traceback" not in errors
    assert all(track.parts == ("mixture", *STEMS) for track in Store(tmp_path / "store").tracks())


def test_musdb18_of_real_music(run, real_musdb, tmp_path):
    root = tmp_path / "musdb" / "train"
    root.mkdir(parents=True)
    for name in ("Actions - One Minute Smile", "ANiMAL - Easy Tiger"):
        shutil.copy(real_musdb / "train" / f"{name}.stem.mp4", root)
    (root / "Damaged - Song.stem.mp4").write_bytes(b"no music")
    command = ("--dataset", "MUSDB18", "--root", root.parent, "--output", tmp_path / "store", "--vocals")
    result = run("dataset.py", *command, "--workers", "1")
    assert result.returncode == 1
    assert "not built: Damaged - Song" in result.stdout
    tracks = {track.name: track for track in Store(tmp_path / "store").tracks()}
    assert {name: track.subset for name, track in tracks.items()} == {
        "Actions - One Minute Smile": "valid",
        "ANiMAL - Easy Tiger": "train",
    }
    for track in tracks.values():
        mixture, vocals, rest = (track.crop(part) for part in ("mixture", "vocals", "accompaniment"))
        difference = (mixture - vocals - rest).abs().square().sum()
        assert difference < 0.1 * mixture.abs().square().sum()  # the mixture was coded on its own
