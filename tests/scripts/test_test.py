from __future__ import annotations

import csv
import json
import re
import sys
from statistics import fmean, stdev

import pytest
import torch
from conftest import make_stems, write_files

from separation.audio.stft import SpectralSettings
from separation.errors import UserError
from separation.inference.weights import build_network, save_weights
from separation.scoring.command import main
from separation.scoring.evaluation import WeightsChoice
from separation.stems import STEMS
from separation.training.config import Config

RATE = 8000


def write_weights(path, targets, seed=0):
    torch.manual_seed(seed)
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
    assert "skipped, without reference stems: 1 song" in result.stdout
    assert "2 songs: medians, mean usdr" in result.stdout
    last = result.stdout.splitlines()[-1]
    assert last.startswith("not scored: zwei: ")
    assert "bass.wav" in last
    assert "|" not in result.stderr  # in a log file there are no bars

    (folder,) = (tmp_path / "scores").glob("vocals-*/vocals")
    with (folder / "test.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["weights"] for row in rows} == {folder.parent.name}
    sources = ("vocals", "accompaniment")
    assert [(row["song"], row["source"]) for row in rows] == [
        (song, source) for song in ("drei", "eins") for source in sources
    ]
    assert f"{float(rows[0]['SDR']):.2f}" in result.stdout
    stored = json.loads((folder / "test" / "eins.json").read_text(encoding="utf-8"))
    assert {target["name"] for target in stored["targets"]} == set(sources)
    assert len(stored["targets"][0]["frames"]) == 2


def test_only_the_named_songs_are_scored(songs, tmp_path, monkeypatch, capsys):
    weights = write_weights(tmp_path / "vocals.safetensors", ("vocals",))
    options = ("--target", "vocals", "--dataset", "FOLDER", "--root", songs, "--weights", weights, "--workers", "1")
    (songs / "test" / "eins").rename(songs / "test" / "Somebody - eins")
    kept: set[str] = set()
    for names, expected in {("Somebody", "zwei"): {"Somebody - eins", "zwei"}, ("drei",): {"drei"}}.items():
        assert call(monkeypatch, *options, "--output", tmp_path / "scores", "--songs", *names) == 0
        kept |= expected
        (table,) = (tmp_path / "scores").glob("*/vocals/test.csv")
        with table.open(encoding="utf-8") as file:
            assert {row["song"] for row in csv.DictReader(file)} == kept
        assert {path.stem for path in table.parent.glob("test/*.json")} == kept
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
    assert len([*(tmp_path / "scores").glob("all-*/all/train/seen.json")]) == 1


def test_scores_of_other_weights_are_never_replaced(songs, tmp_path, monkeypatch, capsys):
    """Two weights of one name, one after the other; then the first ones again, which are not scored twice."""
    options = ("--target", "vocals", "--dataset", "FOLDER", "--root", songs, "--subset", "train", "--workers", "1")
    files = {}
    for folder, seed in (("a", 0), ("b", 1)):
        (tmp_path / folder).mkdir()
        weights = write_weights(tmp_path / folder / "best.safetensors", ("vocals",), seed)
        assert call(monkeypatch, *options, "--weights", weights, "--output", tmp_path / "scores") == 0
        files[folder] = {path: path.read_bytes() for path in (tmp_path / "scores").rglob("*.json")}
    assert len(files["a"]) == 1 and len(files["b"]) == 2 and files["b"].items() >= files["a"].items()
    capsys.readouterr()
    monkeypatch.setattr("separation.scoring.evaluation.evaluate_track", None)
    first = tmp_path / "a" / "best.safetensors"
    assert call(monkeypatch, *options, "--weights", first, "--output", tmp_path / "scores") == 0
    assert "1 song scored before" in (said := capsys.readouterr().out) and "1 songs: medians" in said
    write_files(songs / "train" / "seen", {"bass": make_stems(5, 2.0, RATE)["bass"][:1]}, RATE)
    assert call(monkeypatch, *options, "--weights", first, "--output", tmp_path / "scores") == 1
    assert "not scored: seen: " in capsys.readouterr().out
    assert {path: path.read_bytes() for path in files["b"]} == files["b"]


def test_two_weights_are_compared_song_by_song(songs, tmp_path, monkeypatch, capsys):
    first, second = (write_weights(tmp_path / f"{seed}.safetensors", ("vocals",), seed) for seed in (0, 1))
    options = ("--target", "vocals", "--dataset", "FOLDER", "--root", songs, "--workers", "1")
    assert call(monkeypatch, *options, "--compare", first, second, "--output", tmp_path / "scores") == 0
    said = capsys.readouterr().out
    (table,) = (tmp_path / "scores").glob("* against */vocals test.csv")
    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 2 * 2  # songs, sources, scores
    assert {tuple(row) for row in rows} == {("song", "source", "score", str(first), str(second))}
    for score, column in (("usdr", "usdr"), ("csdr", "SDR")):
        values = {}
        for weights in (first, second):
            (own,) = (tmp_path / "scores").glob(f"{weights.stem}-*/vocals/test.csv")
            with own.open(encoding="utf-8") as file:
                values[weights] = {
                    row["song"]: float(row[column]) for row in csv.DictReader(file) if row["source"] == "vocals"
                }
        gains = [values[second][song] - values[first][song] for song in values[first]]
        expected = f"{fmean(gains):+.2f} ± {stdev(gains) / 3**0.5:.2f}"
        assert re.search(rf"^vocals +{score} .*{re.escape(expected)}$", said, re.MULTILINE)
    assert table.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_one_song_has_no_standard_error_and_matplotlib_is_optional(songs, tmp_path, monkeypatch, capsys):
    weights = [write_weights(tmp_path / f"{seed}.safetensors", ("vocals",), seed) for seed in (0, 1)]
    options = ("--target", "vocals", "--dataset", "FOLDER", "--root", songs, "--subset", "train", "--workers", "1")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert call(monkeypatch, *options, "--compare", *weights, "--output", tmp_path / "scores") == 0
    said = capsys.readouterr().out
    assert "±" not in said and "pip install matplotlib" in said
    assert [path.suffix for path in (tmp_path / "scores").glob("* against */*")] == [".csv"]


def test_a_network_of_ones_own_is_scored_where_the_command_names_it(songs, tmp_path, monkeypatch, capsys):
    (tmp_path / "own_network.py").write_text(
        "import torch\n"
        "class Half(torch.nn.Module):\n"
        "    context, stride = 0, 1\n"
        "    def __init__(self, targets, bins, complete):\n"
        "        super().__init__()\n"
        "        self.targets, self.share = targets, torch.nn.Parameter(torch.tensor(0.5))\n"
        "    def forward(self, mixture):\n"
        "        return self.share.expand(len(mixture), self.targets, *mixture.shape[1:])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    spectral = SpectralSettings(RATE, n_fft=256, hop=64)
    settings = Config(targets=("vocals",), spectral=spectral, network="own_network:Half", generator={})
    save_weights(tmp_path / "half.safetensors", build_network(settings), settings)
    options = ("--target", "vocals", "--dataset", "FOLDER", "--root", songs, "--subset", "train", "--workers", "1")
    options = (*options, "--weights", tmp_path / "half.safetensors", "--output", tmp_path / "scores")
    with pytest.raises(UserError):
        call(monkeypatch, *options)
    assert call(monkeypatch, *options, "--network", "own_network:Half") == 0
    (table,) = (tmp_path / "scores").glob("half-*/vocals/train.csv")
    with table.open(encoding="utf-8") as file:
        assert [float(row["usdr"]) > -10 for row in csv.DictReader(file)] == [True, True]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--target", "vocals", "--subset", "valid"), "no song in the subset 'valid'"),
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


@pytest.mark.parametrize("place", ["scores", "scores/LABEL/vocals/test"])
def test_an_output_that_cannot_be_written_is_said_before_the_first_song(songs, tmp_path, monkeypatch, place):
    weights = write_weights(tmp_path / "vocals.safetensors", ("vocals",))
    place = tmp_path / place.replace("LABEL", WeightsChoice((str(weights),)).label("vocals"))
    place.parent.mkdir(exist_ok=True, parents=True)
    place.write_text("in the way")
    monkeypatch.setattr("separation.scoring.evaluation.evaluate_track", None)
    with pytest.raises(UserError) as error:
        call(
            monkeypatch, "--target", "vocals", "--dataset", "FOLDER", "--root", songs, "--weights", weights,
            "--output", tmp_path / "scores", "--workers", "1",
        )  # fmt: skip
    assert error.value.code == "not_a_folder"
    assert place.read_text() == "in the way"


def test_scores_that_a_full_disk_refuses_are_still_shown(songs, tmp_path, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    weights = write_weights(tmp_path / "vocals.safetensors", ("vocals",))
    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    options = ("--dataset", "FOLDER", "--root", songs, "--subset", "train", "--weights", weights, "--workers", "1")
    assert call(monkeypatch, "--target", "vocals", *options, "--output", tmp_path / "scores") == 1
    said = capsys.readouterr().out
    assert "1 songs: medians" in said and "scored, but not kept: seen: " in said and "the disk is full" in said
