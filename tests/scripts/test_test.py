from __future__ import annotations

import csv
import json

import pytest
import torch
from conftest import make_stems, write_files

from separation.audio.stft import SpectralSettings
from separation.errors import UserError
from separation.inference.weights import build_network, save_weights
from separation.scoring.command import main
from separation.stems import STEMS
from separation.training.config import Config

RATE = 8000


def write_weights(path, targets):
    torch.manual_seed(0)
    spectral = SpectralSettings(RATE, n_fft=256, hop=64)
    generator = {"band_layout": ((96, 6),), "widths": (8, 8)}
    config = Config(targets=targets, spectral=spectral, generator=generator)
    save_weights(path, build_network(config), config)
    return path


@pytest.fixture
def songs(tmp_path):
    def mono(seed):  # museval scores it much faster
        return {stem: signal[:1] for stem, signal in make_stems(seed, 2.0, RATE).items()}

    for seed, name in enumerate(("eins", "zwei", "drei")):
        write_files(tmp_path / "songs" / "test" / name, mono(seed), RATE)
    write_files(tmp_path / "songs" / "test" / "no vocals", {"mixture": mono(3)["other"]}, RATE)
    write_files(tmp_path / "songs" / "train" / "seen", mono(4), RATE)
    return tmp_path / "songs"


def test_scores_vocals_as_a_user_does(run, songs, tmp_path):
    (songs / "test" / "zwei" / "bass.wav").write_bytes(b"no sound")
    weights = write_weights(tmp_path / "vocals.safetensors", ("vocals",))
    options = ("--dataset", "FOLDER", "--root", songs, "--weights", weights, "--output", tmp_path / "scores")
    result = run("test.py", "--target", "vocals", *options, "--workers", "2")
    assert "Traceback" not in result.stderr, result.stderr
    assert result.returncode == 1
    assert "songs left out, for want of stems to compare with: 1" in result.stdout
    assert "median of 2 songs" in result.stdout
    last = result.stdout.splitlines()[-1]
    assert last.startswith("not scored: zwei: ")
    assert "bass.wav" in last
    assert "|" not in result.stderr  # in a log file there are no bars

    with (tmp_path / "scores" / "test.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    sources = ("vocals", "accompaniment")
    assert [(row["song"], row["source"]) for row in rows] == [
        (song, source) for song in ("drei", "eins") for source in sources
    ]
    assert f"{float(rows[0]['SDR']):.2f}" in result.stdout
    stored = json.loads((tmp_path / "scores" / "test" / "eins.json").read_text(encoding="utf-8"))
    assert {target["name"] for target in stored["targets"]} == set(sources)
    assert len(stored["targets"][0]["frames"]) == 2


def test_only_the_named_songs_are_scored(songs, tmp_path, monkeypatch, capsys):
    weights = write_weights(tmp_path / "vocals.safetensors", ("vocals",))
    options = ("--target", "vocals", "--dataset", "FOLDER", "--root", songs, "--weights", weights, "--workers", "1")
    (songs / "test" / "eins").rename(songs / "test" / "Somebody - eins")
    for names, expected in {("Somebody", "zwei"): {"Somebody - eins", "zwei"}, ("drei",): {"drei"}}.items():
        assert call(monkeypatch, *options, "--output", tmp_path / "scores", "--songs", *names) == 0
        with (tmp_path / "scores" / "test.csv").open(encoding="utf-8") as file:
            assert {row["song"] for row in csv.DictReader(file)} == expected
    with pytest.raises(UserError, match="no song or artist called 'vier'"):
        call(monkeypatch, *options, "--output", tmp_path / "scores", "--songs", "drei", "vier")


def call(monkeypatch, *arguments):
    """Run test.py in this process."""
    monkeypatch.setattr("sys.argv", ["test.py", *map(str, arguments)])
    return main()


def test_scores_all_four_stems(songs, tmp_path, monkeypatch, capsys):
    weights = write_weights(tmp_path / "all.safetensors", STEMS)
    options = ("--dataset", "FOLDER", "--root", songs, "--subset", "train", "--weights", weights, "--workers", "1")
    assert call(monkeypatch, "--target", "all", *options, "--output", tmp_path / "scores") == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[1] for row in rows[2:7]] == [*STEMS, "accompaniment"]
    assert (tmp_path / "scores" / "train" / "seen.json").is_file()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--target", "vocals", "--subset", "valid"), "no songs in the subset 'valid'"),
        (("--target", "drums"), "these weights do not separate"),
        (("--target", "vocals", "--root", "no/such/folder"), "there is no folder no/such/folder"),
        (("--target", "vocals", "--workers", "0"), "--workers must be 1 or more"),
        (("--target", "vocals", "--weights", "none.safetensors"), "there are no weights at none.safetensors"),
    ],
)
def test_bad_options_are_said(options, sentence, songs, tmp_path, monkeypatch):
    weights = write_weights(tmp_path / "vocals.safetensors", ("vocals",))
    arguments = ("--dataset", "FOLDER", "--root", songs, "--weights", weights, "--output", tmp_path / "scores")
    with pytest.raises(UserError, match=sentence):
        call(monkeypatch, *arguments, *options)


@pytest.mark.parametrize("place", ["scores", "scores/test"])
def test_an_output_that_cannot_be_written_is_said_before_the_first_song(songs, tmp_path, monkeypatch, place):
    weights = write_weights(tmp_path / "vocals.safetensors", ("vocals",))
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("in the way")
    monkeypatch.setattr("separation.scoring.evaluation.evaluate_track", None)
    with pytest.raises(UserError, match=r"--output \S+ cannot be written to: (File exists|Not a directory)"):
        call(
            monkeypatch, "--target", "vocals", "--dataset", "FOLDER", "--root", songs, "--weights", weights,
            "--output", tmp_path / "scores", "--workers", "1",
        )  # fmt: skip
    assert (tmp_path / place).read_text() == "in the way"


def test_scores_that_a_full_disk_refuses_are_still_shown(songs, tmp_path, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    weights = write_weights(tmp_path / "vocals.safetensors", ("vocals",))
    monkeypatch.setattr("pathlib.Path.write_text", full)
    options = ("--dataset", "FOLDER", "--root", songs, "--subset", "train", "--weights", weights, "--workers", "1")
    assert call(monkeypatch, "--target", "vocals", *options, "--output", tmp_path / "scores") == 1
    said = capsys.readouterr().out
    assert "median of 1 songs" in said and "scored, but not kept: seen: " in said and "No space left" in said
