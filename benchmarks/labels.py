"""What unlabelled music is worth: the same network trained on few and many labelled songs, without it and with it.

    python -m benchmarks.labels --root data/MUSDB18 --output runs/labels --labels 0 5 20 80 --seeds 3

Every run trains by --config, is scored on the validation songs, and keeps its folder: stopped and started again, what
is finished is not done again. The other stores than the first hold the unlabelled music. Prints a table: vocals SDR in
dB, the median over songs by run, then the gain of unlabelled music, paired by song.
"""

from __future__ import annotations

import argparse
import csv
import math
import subprocess
import sys
from pathlib import Path
from statistics import fmean, median, stdev

from separation.dataset.tracks import DATASETS
from separation.errors import UserError, run_script
from separation.training.config import load_config

REPOSITORY = Path(__file__).resolve().parents[1]


def settings(labels: int, unlabelled: bool, seed: int, store: str) -> list[str]:
    """What a run changes in the config. No step is chosen on the songs that are scored, and no mask is softened."""
    changed = [f"seed={seed}", f"data.labelled={labels}", f"data.labelled_seed={seed}", "schedule.soften=[]"]
    if not unlabelled:
        changed += [f"data.stores={{{store}: 1}}", "data.remaining=drop", "losses.exchange=0"]
    return [*changed, *(["losses.supervised_target=0"] if not labels else [])]


def run(options: argparse.Namespace, labels: int, unlabelled: bool, seed: int) -> dict[str, float]:
    """Train and score one run, unless that is done: vocals SDR in dB by song."""
    folder = options.output / f"{labels}{'+' if unlabelled else ''}_{seed}"
    scores = folder / "scores" / "valid.csv"
    config = load_config(options.config)
    if not scores.exists():
        changed = settings(labels, unlabelled, seed, next(iter(config.data.stores)))
        changed.append(f"schedule.validate_every={config.schedule.steps}")
        resume = ["--resume"] if (folder / "last.pt").exists() else []
        _call("train.py", "--config", options.config, "--output", folder, *resume, "--set", *changed)
        music = ("--dataset", options.dataset, "--root", options.root, "--subset", "valid")
        weights = ("--weights", folder / "best.safetensors", "--output", scores.parent)
        _call("test.py", "--target", "vocals", *music, *weights)
    with scores.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["source"] == "vocals" and row["SDR"]]
    return {row["song"]: float(row["SDR"]) for row in rows}


def gain(without: list[dict[str, float]], with_music: list[dict[str, float]]) -> tuple[float, float]:
    """Mean and standard error over songs, in dB, of what the second runs have over the first; means over seeds first.

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
    options = parser.parse_args()
    print("| labelled songs | without | with unlabelled music | gain |\n|---|---|---|---|", flush=True)
    for labels in options.labels:
        columns = [
            [run(options, labels, unlabelled, seed) for seed in range(options.seeds)] if labels or unlabelled else []
            for unlabelled in (False, True)
        ]
        cells = [" / ".join(f"{median(songs.values()):.2f}" for songs in runs) or "-" for runs in columns]
        paired = "{:+.2f} ± {:.2f}".format(*gain(*columns)) if all(columns) else "-"
        print(f"| {labels} | {cells[0]} | {cells[1]} | {paired} |", flush=True)


def _call(script: str, *arguments: object) -> None:
    command = [sys.executable, REPOSITORY / script, *map(str, arguments)]
    if subprocess.run(command, cwd=REPOSITORY).returncode:
        raise UserError(f"{script} failed: what it said stands above; the same command goes on from there.")


if __name__ == "__main__":
    run_script(main)
