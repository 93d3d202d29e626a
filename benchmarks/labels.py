"""Gain of unlabelled music: the same network trained on few and many labelled songs, without it and with it.

    python -m benchmarks.labels --root data/MUSDB18 --output runs/labels --labels 0 5 20 80 --seeds 3

Every run is trained with --config and scored, and keeps its folder: after an interruption, finished runs are not
repeated. All stores but the first hold unlabelled music. Scores are on the validation songs and, unless all songs are
labelled, on --kept-out training songs by artists held out from every run. Prints a table: vocals SDR in dB, the median
over songs by run, then the gain of unlabelled music, paired by song.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median, stdev

from benchmarks import REPOSITORY
from separation.dataset.layouts import DATASETS
from separation.errors import UserError
from separation.runtime import run_script
from separation.training.config import Config, load_config
from separation.training.sources import training_tracks
from separation.training.validation import hold_out


def settings(labels: int, unlabelled: bool, seed: int, store: str, songs: list[str]) -> list[str]:
    """Overrides of the config for a run. No step or temperature is chosen on the songs that are scored."""
    changed = [f"seed={seed}", f"data.labelled={labels}", f"data.labelled_seed={seed}", "schedule.temperatures=[]"]
    changed.append(f"data.valid={json.dumps(songs)}")  # or the official ones, if all others are labelled
    if not unlabelled:
        changed += [f"data.stores={{{store}: 1}}", "data.remaining=drop", "losses.exchange=0"]
    return [*changed, *(["losses.supervised_target=0"] if not labels else [])]


def kept_out(config: Config, labels: int, wanted: int) -> list[str]:
    """About `wanted` training songs of the first store to hold out, with all songs by their artists. The same for all
    runs; empty if fewer than `labels` songs would remain."""
    data = replace(config.data, stores=dict([next(iter(config.data.stores.items()))]), valid=wanted, labelled_seed=0)
    tracks = [track for _, track in training_tracks(data, config.spectral)]
    songs = sorted(hold_out(tracks, config.targets, data)[0])
    return songs if labels + len(songs) <= len({track.song for track in tracks}) else []


def run(options: argparse.Namespace, labels: int, unlabelled: bool, seed: int) -> dict[str, float]:
    """Train and score one run, unless it is finished. Returns vocals SDR in dB by song."""
    folder = options.output / f"{labels}{'+' if unlabelled else ''}_{seed}"
    config = load_config(options.config, options.set)
    songs = kept_out(config, labels, options.kept_out)
    changed = [*options.set, *settings(labels, unlabelled, seed, next(iter(config.data.stores)), songs)]
    changed.append(f"schedule.validate_every={config.schedule.steps}")
    scored = {}
    for subset, only in {"valid": (), **({"train": ("--songs", *songs)} if songs else {})}.items():
        scores = folder / "scores"
        written = f"*/vocals/{subset}.csv"  # test.py files scores by weights and target
        if not any(scores.glob(written)):
            if not (folder / "best.safetensors").exists():
                resume = ["--resume"] if (folder / "last.pt").exists() else []
                _call("train.py", "--config", options.config, "--output", folder, *resume, "--set", *changed)
            music = ("--dataset", options.dataset, "--root", options.root, "--subset", subset, *only)
            weights = ("--weights", folder / "best.safetensors", "--output", scores)
            _call("test.py", "--target", "vocals", *music, *weights)
        with next(scores.glob(written)).open(encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["source"] == "vocals" and row["SDR"]]
        scored |= {row["song"]: float(row["SDR"]) for row in rows}
    return scored


def gain(without: list[dict[str, float]], with_music: list[dict[str, float]]) -> tuple[float, float]:
    """Mean and standard error over songs, in dB, of the gain of the second runs; seeds are averaged first.

    >>> gain([{"a": 1.0, "b": 2.0}], [{"a": 2.0, "b": 2.0}])
    (0.5, 0.5)
    """
    means = [{song: fmean(run[song] for run in runs) for song in runs[0]} for runs in (without, with_music)]
    gains = [means[1][song] - means[0][song] for song in means[0]]
    return fmean(gains), stdev(gains) / math.sqrt(len(gains))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=DATASETS, default="MUSDB18")
    parser.add_argument(
        "--root", type=Path, required=True, help="folder of the dataset: its validation songs are scored"
    )
    parser.add_argument("--config", type=Path, default=REPOSITORY / "configs" / "labels.yaml")
    parser.add_argument("--output", type=Path, default=Path("runs/labels"))
    parser.add_argument("--labels", type=int, nargs="+", default=[0, 5, 20, 80], help="how many songs keep their stems")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--kept-out", type=int, default=20, help="training songs that are scored and never heard")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="change settings of the config")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the table, as png or svg")
    options = parser.parse_args()
    table = {}
    print("| labelled songs | without | with unlabelled music | gain |\n|---|---|---|---|", flush=True)
    for labels in options.labels:
        columns = [
            [run(options, labels, unlabelled, seed) for seed in range(options.seeds)] if labels or unlabelled else []
            for unlabelled in (False, True)
        ]
        table[labels] = [[median(songs.values()) for songs in runs] for runs in columns]
        cells = [" / ".join(f"{value:.2f}" for value in medians) or "-" for medians in table[labels]]
        paired = "{:+.2f} ± {:.2f}".format(*gain(*columns)) if all(columns) else "-"
        print(f"| {labels} | {cells[0]} | {cells[1]} | {paired} |", flush=True)
    if options.plot:
        plot(table, options.plot)


def plot(table: dict[int, list[list[float]]], path: Path) -> None:
    """Plot the median in dB of each run, and their means over seeds with standard errors, by labels and column."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    columns = (("labelled songs alone", "#6b7280"), ("with unlabelled music", "#c2410c"))
    for column, (name, colour) in enumerate(columns):
        runs = [(place, cells[column]) for place, cells in enumerate(table.values()) if cells[column]]
        means = [fmean(cell) for _, cell in runs]
        errors = [stdev(cell) / math.sqrt(len(cell)) if len(cell) > 1 else math.nan for _, cell in runs]
        places = [place + (column - 0.5) / 20 for place, _ in runs]  # side by side, so that no bar hides another
        axes.errorbar(places, means, errors, color=colour, label=name, capsize=4)
        points = [(place, value) for place, (_, cell) in zip(places, runs, strict=True) for value in cell]
        axes.scatter(*zip(*points, strict=True), color=colour, s=18, alpha=0.5)
    axes.set_xticks(range(len(table)), [str(labels) for labels in table])
    axes.set_xlabel("labelled songs (points: one seed each; lines: means with standard errors)")
    axes.set_ylabel("SDR of vocals in dB, median over songs")
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path)


def _call(script: str, *arguments: object) -> None:
    command = [sys.executable, REPOSITORY / script, *map(str, arguments)]
    if subprocess.run(command, cwd=REPOSITORY).returncode:
        raise UserError(f"{script} failed: what it said stands above; the same command goes on from there.")


if __name__ == "__main__":
    run_script(main)
