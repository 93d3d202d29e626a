"""Step 3: separate the test songs of a dataset with trained weights, and score them by plain SDR and museval."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from separation.dataset.layouts import DATASETS, SUBSETS, Track, find_tracks, is_named
from separation.errors import UserError
from separation.files import user_path
from separation.inference.device import ENGINE_HELP, ENGINES, NETWORK_HELP
from separation.inference.weights import absolute
from separation.jobs import CLUSTER_HELP, default_workers, run_jobs
from separation.runtime import DEVICE_HELP, Progress, count
from separation.scoring import comparison
from separation.scoring.evaluation import (
    TARGETS,
    SongScores,
    WeightsChoice,
    can_be_scored,
    evaluate,
    load_json,
    load_separator,
    prepare,
    save_csv,
    save_json,
    table,
)


def main() -> int:
    options = parse_arguments()
    root = options.root or Path("data") / options.dataset
    root = root.absolute() if options.cluster else root
    output = options.output or Path("scores") / options.dataset
    tracks = choose_tracks(root, options)
    choices = [[name] for name in options.compare or ()] or [options.weights or ["fast"]]
    given = [absolute(names) if options.cluster else tuple(map(str, names)) for names in choices]
    weights = [WeightsChoice(names, options.device, options.engine, options.network) for names in given]
    for one in weights:
        load_separator(one, options.target)  # report faulty weights before the first song

    scores: list[list[SongScores]] = []
    failures: list[str] = []
    for one in weights:
        songs, failed = score(one, tracks, root, output, options)
        scores.append(songs)
        failures += failed
    if options.compare and all(scores):
        first, second = (one.label(options.target) for one in weights)
        place = output / f"{first} against {second}" / f"{options.target} {options.subset}"
        print(comparison.report(scores[0], scores[1], options.target, [*map(str, options.compare)], place))
    print(*failures, sep="\n", end="\n" if failures else "")
    return 1 if failures else 0


def choose_tracks(root: Path, options: argparse.Namespace) -> list[Track]:
    """Choose the songs to score. Raises `UserError` when there are none, or none of a requested name."""
    found = [track for track in find_tracks(options.dataset, root) if track.subset == options.subset]
    where = f"{root} has no song%s in the subset {options.subset!r}"
    for name in options.songs or ():
        if not any(is_named(track.name, name) for track in found):
            raise UserError(f"--songs: {where % f' or artist called {name!r}'}.", code="no_songs")
    if options.songs:
        found = [track for track in found if any(is_named(track.name, name) for name in options.songs)]
    tracks = [track for track in found if can_be_scored(track, options.target)]
    if not tracks:
        what = f" with stems to score {options.target!r}" if found else ""
        raise UserError(f"{where % what}: choose another with --subset, or another --target.", code="no_songs")
    if len(tracks) < len(found):
        print(f"skipped, without reference stems: {count(len(found) - len(tracks), 'song')}")
    return tracks


def score(
    weights: WeightsChoice, tracks: Sequence[Track], root: Path, output: Path, options: argparse.Namespace
) -> tuple[list[SongScores], list[str]]:
    """Score the songs not yet scored with these weights. Returns the scores of all songs, and what failed."""
    folder = output / weights.label(options.target) / options.target
    prepare(folder / options.subset)
    files = {track.name: track.signature(track.parts, root) for track in tracks}
    songs: list[SongScores] = []
    waiting: list[Track] = []
    failures = []
    for track in tracks:
        try:
            if known := load_json(folder, track, files[track.name]):
                songs.append(known)
            else:
                waiting.append(track)
        except UserError as error:
            failures.append(f"not scored: {track.name}: {error}")
    if songs:
        print(f"{count(len(songs), 'song')} scored before: {folder}")
    work = partial(evaluate, weights, options.target)
    with Progress(len(waiting), abreast=options.workers) as progress:
        for track, result in run_jobs(work, waiting, options.workers, cluster=options.cluster):
            progress.done()
            if isinstance(result, UserError):
                failures.append(f"not scored: {track.name}: {result}")
                continue
            songs.append(result)
            try:
                save_json(folder, result, files[track.name])
            except UserError as error:
                failures.append(f"scored, but not kept: {track.name}: {error}")
    if songs:
        songs.sort(key=lambda song: song.name)
        print(table(songs, options.target))
        save_csv(folder / f"{options.subset}.csv", songs, options.target, folder.parent.name)
        print(f"{options.subset}.csv and museval's files are in {folder}")
    return songs, failures


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--target", choices=TARGETS, required=True, help="the stem to score, and the rest; all: every stem")
    add("--dataset", choices=DATASETS, default="MUSDB18", help="the layout of --root (default: %(default)s)")
    add("--root", type=user_path, help="folder of the dataset (default: data/<DATASET>)")
    add("--subset", choices=SUBSETS, default="test", help="which songs (default: %(default)s)")
    add("--songs", nargs="+", metavar="NAME", help="only these songs or artists, named as in `data.valid`")
    help_weights = "`fast`, `best`, `free`, `live` or a file from train.py; several are averaged (default: fast)"
    add("--weights", action="append", type=user_path, help=help_weights)
    help_compare = "score two sets of weights on the same songs and compare them song by song"
    add("--compare", nargs=2, metavar=("A", "B"), type=user_path, help=help_compare)
    add("--network", metavar="PACKAGE.MODULE:CLASS", help=NETWORK_HELP)
    help_output = "folder for the scores; each set of weights gets its own (default: scores/<DATASET>)"
    add("--output", type=user_path, help=help_output)
    add("--workers", type=int, default=min(4, default_workers()), help="songs at a time (default: %(default)s)")
    add("--cluster", metavar="ADDRESS", help=CLUSTER_HELP)
    add("--device", default="auto", help=DEVICE_HELP)
    add("--engine", choices=("auto", *ENGINES), default="auto", help=ENGINE_HELP)
    options = parser.parse_args()
    if options.compare and options.weights:
        parser.error("--compare names both weights: omit --weights")
    return options
