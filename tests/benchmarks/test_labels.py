"""benchmarks/labels.py: a grid of one cell, trained and scored for real on made-up songs, and taken up again."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml
from conftest import REPOSITORY, environment, make_stems, write_files
from music import TINY, make_store
from PIL import Image

from benchmarks.labels import gain, plot, settings
from separation.training.config import load_config


def test_gains_are_paired_by_song_after_the_mean_over_seeds():
    without = [{"a": 1.0, "b": 5.0}, {"a": 3.0, "b": 5.0}]
    with_music = [{"a": 4.0, "b": 6.0}, {"a": 4.0, "b": 6.0}]
    assert gain(without, with_music) == pytest.approx((1.5, 0.5))


@pytest.mark.parametrize(("labels", "unlabelled"), [(5, False), (5, True), (0, True)])
def test_a_run_leaves_out_what_its_column_says(labels, unlabelled):
    config = load_config(
        REPOSITORY / "configs" / "labels.yaml", settings(labels, unlabelled, 2, "store/MUSDB18", ["a", "b"])
    )
    assert (config.data.labelled, config.data.labelled_seed, config.seed) == (labels, 2, 2)
    assert config.losses.unlabelled == unlabelled and bool(config.losses.supervised_target) == bool(labels)
    assert config.data.valid == ("a", "b")
    assert len(config.data.stores) == (3 if unlabelled else 1) and not config.schedule.temperatures


def test_a_cell_is_trained_scored_and_not_done_twice(tmp_path):
    store = make_store(tmp_path / "store", valid=0)
    for seed in (8, 9):
        write_files(tmp_path / "songs" / "valid" / str(seed), make_stems(seed, 2, sample_rate=8000), 8000)
    for number in range(3):  # as the store calls them: one of them is heard by no run
        write_files(tmp_path / "songs" / "train" / f"train-{number}", make_stems(number, 2, sample_rate=8000), 8000)
    values = {
        "data": {"stores": {str(store): 1}, "crop_frames": 16, "batch_size": 2},
        "spectral": {"sample_rate": TINY.sample_rate, "n_fft": TINY.n_fft, "hop": TINY.hop},
        "generator": {"band_layout": [[32, 2], [96, 8]], "widths": [6, 8]},
        "losses": {"supervised_rest": 0},
        "schedule": {"steps": 2, "warmup": 0, "precision": "fp32"},
    }
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.labels", "--dataset", "FOLDER", "--root", tmp_path / "songs"]
    command += ["--config", tmp_path / "grid.yaml", "--output", tmp_path / "runs", "--labels", "2", "--kept-out", "1"]
    first = subprocess.run(command, cwd=REPOSITORY, env=environment(), capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines()[-1].startswith("| 2 | ")
    heard_by_none = [path.name for path in (tmp_path / "runs").glob("2*/scores/*/vocals/train/*.json")]
    assert len({*heard_by_none}) == 1
    again = subprocess.run(command, cwd=REPOSITORY, env=environment(), capture_output=True, text=True)
    assert again.stdout.splitlines()[-1] == first.stdout.splitlines()[-1] and "step" not in again.stderr


def test_the_table_is_drawn_with_and_without_labelled_songs(tmp_path):
    plot({0: [[], [3.0]], 5: [[2.0, 2.5], [4.0, 4.1]]}, tmp_path / "labels.png")
    with Image.open(tmp_path / "labels.png") as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(10**6)}
    assert {(0x6B, 0x72, 0x80), (0xC2, 0x41, 0x0C)} <= colours
