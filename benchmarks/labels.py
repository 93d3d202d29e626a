"""What unlabelled music is worth: the same network trained on few and many labelled songs, with it and without it.

    python -m benchmarks.labels --root data/MUSDB18 --output runs/labels
    python -m benchmarks.labels --root data/MUSDB18 --output runs/labels --variants configs/labels_variants.yaml --at 5

Trains a grid of runs, scores each on the validation songs, and writes scores.csv, table.md and plot.png; with
--variants also variants.md, for which other settings are tried with the same songs. It may be stopped at any time: the
same command goes on where it was, and what is finished is not trained again.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from statistics import median
from typing import Any

import torch
import yaml
from tqdm import tqdm

from benchmarks.label_table import Run, Scores, write_tables
from separation.checkpoint import read_facts
from separation.config import Config, LossWeights, load_config
from separation.errors import UserError, run_script
from separation.evaluation import MIXTURE_SDR, can_be_scored
from separation.files import PARTIAL
from separation.pools import training_tracks
from separation.tracks import DATASETS, find_tracks
from separation.trainer import BEST, LAST, decisive_differences

REPOSITORY = Path(__file__).resolve().parents[1]

SUBSET = "valid"
SCORES = Path("scores", f"{SUBSET}.csv")
MINUTES = "minutes.txt"


def grid(labels: Iterable[int], repeated: Iterable[int], seeds: int) -> list[Run]:
    """The runs of the table, all of the first seed before those of the next; no labels and no music is no training."""
    return [
        Run(count, unlabelled, seed)
        for seed in range(seeds)
        for count in sorted(set(labels))
        for unlabelled in (False, True)
        if (seed == 0 or count in repeated) and (count or unlabelled)
    ]


def overrides(run: Run, config: Config, labelled_stores: Iterable[str]) -> dict[str, Any]:
    """What a run changes in the config, by key: the network, the steps and all else are the same in every run."""
    every = {
        "seed": run.seed,
        "data.labelled": run.labels,
        "data.labelled_seed": run.seed,
        "schedule.validate_every": config.schedule.steps,  # no step is chosen on the songs that are scored,
        "schedule.softness": [],  # and no softness
    }
    without_music = {
        "data.stores": {store: config.data.stores[store] for store in labelled_stores},
        "data.remaining": "drop",
        **{f"losses.{loss.name}": 0 for loss in fields(LossWeights) if not loss.name.startswith("supervised_")},
    }
    without_labels = {"schedule.unlabelled_every": 1}  # there is nothing to learn from at other steps
    return every | (without_music if not run.unlabelled else {}) | (without_labels if not run.labels else {})


def as_options(overrides: Mapping[str, Any]) -> list[str]:
    """Values by dotted key, as `--set` takes them: JSON is YAML."""
    return [f"{key}={json.dumps(value)}" for key, value in overrides.items()]


def read_variants(path: Path, config: Path) -> dict[str, dict[str, Any]]:
    """What each variant changes in the config, by its name and by key. Raises `UserError` when that cannot be."""
    try:
        variants = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"cannot read the variants {path}: {' '.join(str(error).split())}.") from error
    if not (isinstance(variants, dict) and variants and all(isinstance(v, dict) and v for v in variants.values())):
        raise UserError(f"{path} must hold variants with their settings, as in 'no teacher: {{losses.teacher: 0}}'.")
    for name, changes in variants.items():
        try:
            load_config(config, as_options(changes))
        except UserError as error:
            raise UserError(f"{path}, {name!r}, on top of {error}") from error
    return {str(name): changes for name, changes in variants.items()}


def find_labelled(config: Config) -> dict[str, set[str]]:
    """The stores of labelled music, each with its songs. Raises `UserError` when a store has music of both kinds."""
    isolated, others = {}, {}
    for store, track in training_tracks(config.data, config.spectral):
        songs = isolated if set(config.targets) & set(track.parts) else others
        songs.setdefault(store, set()).add(track.song)
    if both := [store for store in isolated if store in others]:
        raise UserError(
            f"the store {both[0]} has songs with isolated {' or '.join(config.targets)} and songs without: "
            "give each kind a store of its own, so that unlabelled music can be left out."
        )
    return isolated


def check_songs(labels: int, labelled: Mapping[str, set[str]], target: str, dataset: str, root: Path) -> None:
    """Raise `UserError`, before anything is trained, when there are fewer labelled songs, or none to score."""
    songs = len(set().union(*labelled.values()))
    if labels > songs:
        raise UserError(f"data.stores hold {songs} songs with isolated {target} to train on, not {labels}.")
    if not any(track.subset == SUBSET and can_be_scored(track, target) for track in find_tracks(dataset, root)):
        raise UserError(f"{root} has no song in the subset {SUBSET!r} to score {target} with: give another --root.")


def is_finished(folder: Path, config: Config) -> bool:
    """Whether a run has its scores. Raises `UserError` when it was trained with other settings than `config`."""
    finished = (folder / SCORES).exists()
    if finished and decisive_differences(read_facts(folder / BEST)[0], config):
        raise UserError(f"{folder} was trained with other settings: move it away, or name another --output.")
    return finished


async def carry_out(folder: Path, train: Sequence[str | Path], test: Sequence[str | Path]) -> None:
    """Train and score one run, given what it takes beside the folder; a run that was stopped goes on."""
    folder.mkdir(parents=True, exist_ok=True)
    resume = ["--resume"] if (folder / LAST).exists() else []
    minutes, start = read_minutes(folder), time.perf_counter()
    try:
        await call(folder / "log.txt", REPOSITORY / "train.py", "--output", folder, *train, *resume)
    finally:
        (folder / MINUTES).write_text(str(minutes + (time.perf_counter() - start) / 60), encoding="utf-8")
    partial = folder / (SCORES.parent.name + PARTIAL)
    await call(folder / "log.txt", REPOSITORY / "test.py", "--weights", folder / BEST, "--output", partial, *test)
    partial.rename(folder / SCORES.parent)


async def call(log: Path, script: Path, *arguments: str | Path) -> None:
    """Run a script on one thread; it ends with this process. Raises `UserError` when it fails."""
    command = [sys.executable, str(script), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("ab") as file:
        process = await asyncio.create_subprocess_exec(
            *command, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
        try:
            code = await process.wait()
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()
    if code:
        raise UserError(f"the run {log.parent.name} failed: {log} tells why.")


def read_scores(folder: Path, column: str = "SDR") -> dict[str, dict[str, float]]:
    """What test.py measured in a run, in dB by source and song."""
    scores: dict[str, dict[str, float]] = {}
    with (folder / SCORES).open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row[column]:
                scores.setdefault(row["source"], {})[row["song"]] = float(row[column])
    return scores


def read_minutes(folder: Path) -> float:
    """How long a run has been trained so far."""
    path = folder / MINUTES
    return float(path.read_text(encoding="utf-8")) if path.exists() else 0.0


def duration(output: Path, runs: Iterable[Run], jobs: int) -> str:
    """How long the runs took, and on what, in a sentence."""
    kinds: dict[str, list[float]] = {}
    for run in runs:
        kinds.setdefault(run.variant or run.kind, []).append(read_minutes(output / run.name))
    took = ", ".join(f"{median(minutes):.1f} minutes ({kind})" for kind, minutes in kinds.items())
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} processors"
    return f"Training took {took}, medians over runs, {jobs} at a time with one thread each, on {where}."


def main() -> None:
    options = parse_arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends this ends what it started
    config, output = load_config(options.config), options.output
    root = options.root or Path("data") / options.dataset
    target, *others = config.targets
    if others:
        raise UserError(f"{options.config} has several targets: name the one to compare by.")
    runs = grid(options.labels, options.repeat, options.seeds)
    variants = read_variants(options.variants, options.config) if options.variants else {}
    if variants:
        compared = grid([options.at], [options.at], options.variant_seeds)
        varied = [Run(options.at, True, seed, name) for seed in range(options.variant_seeds) for name in variants]
        runs = list(dict.fromkeys([*runs, *compared, *varied]))
    if len({run.name for run in runs}) < len(runs):
        raise UserError(f"{options.variants} has two names that differ in nothing but case and punctuation.")
    labelled = find_labelled(config)
    check_songs(max(run.labels for run in runs), labelled, target, options.dataset, root)
    sets = {run: as_options(overrides(run, config, labelled) | variants.get(run.variant, {})) for run in runs}
    finished = [run for run in runs if is_finished(output / run.name, load_config(options.config, sets[run]))]
    waiting = deque(run for run in runs if run not in finished)
    test = ["--target", target, "--dataset", options.dataset, "--root", root, "--subset", SUBSET, "--workers", "1"]

    def report() -> None:
        scores: Scores = {run: read_scores(output / run.name) for run in runs if run in finished}
        doing_nothing = {Run(0, unlabelled=False): read_scores(output / finished[0].name, MIXTURE_SDR)}
        write_tables(output, doing_nothing | scores, duration(output, finished, options.jobs))

    async def work() -> None:
        while waiting:
            run = waiting.popleft()
            await carry_out(output / run.name, ["--config", options.config, "--set", *sets[run]], test)
            finished.append(run)
            report()
            bar.update()

    async def work_side_by_side() -> None:
        await asyncio.gather(*(work() for _ in range(options.jobs)))

    with tqdm(total=len(runs), initial=len(finished), unit="run") as bar:
        asyncio.run(work_side_by_side())
    report()
    print((output / "table.md").read_text(encoding="utf-8"))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/labels.yaml"), help="the semi-supervised settings")
    parser.add_argument("--dataset", choices=DATASETS, default="MUSDB18", help="the songs to score (default: MUSDB18)")
    parser.add_argument("--root", type=Path, help="folder of the dataset (default: data/<DATASET>)")
    parser.add_argument("--output", type=Path, default=Path("runs/labels"), help="folder for the runs and the tables")
    parser.add_argument("--labels", type=int, nargs="+", default=[0, 5, 20, 80], help="counts of labelled songs")
    parser.add_argument("--repeat", type=int, nargs="*", default=[5, 20], help="those to train with several seeds")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds that is (default: %(default)s)")
    parser.add_argument("--variants", type=Path, help="file of the settings to try, by the name of each variant")
    parser.add_argument("--at", type=int, default=5, help="count of labelled songs to try them with (default: 5)")
    parser.add_argument("--variant-seeds", type=int, default=1, help="and how many seeds (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time (default: %(default)s)")
    options = parser.parse_args()
    for name in ("seeds", "variant_seeds", "jobs"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be 1 or more, not {getattr(options, name)}.")
    return options


if __name__ == "__main__":
    run_script(main)
