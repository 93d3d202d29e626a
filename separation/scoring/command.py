"""Step 3: trained weights separate the test songs of a dataset, and museval scores what they hear."""

from __future__ import annotations

import argparse
from pathlib import Path

from separation.dataset.layouts import DATASETS, SUBSETS, find_tracks, is_named
from separation.errors import UserError
from separation.inference.device import NETWORK_HELP
from separation.inference.weights import absolute
from separation.jobs import CLUSTER_HELP, default_workers
from separation.runtime import DEVICE_HELP, Progress
from separation.scoring.evaluation import (
    TARGETS,
    can_be_scored,
    evaluate_tracks,
    load_separator,
    prepare,
    save_csv,
    save_json,
    table,
)


def main() -> int:
    options = parse_arguments()
    root = options.root or Path("data") / options.dataset
    output = options.output or Path("scores") / options.dataset / options.target
    weights = tuple(options.weights or ["fast"])
    if options.cluster:
        root, weights = root.absolute(), absolute(weights)
    load_separator(weights, options.device, options.target, options.network)

    found = [track for track in find_tracks(options.dataset, root) if track.subset == options.subset]
    if not found:
        raise UserError(f"{root} has no songs in the subset {options.subset!r}: choose another with --subset.")
    for name in options.songs or ():
        if not any(is_named(track.name, name) for track in found):
            raise UserError(f"--songs: {root} has no song or artist called {name!r} in the subset {options.subset!r}.")
    if options.songs:
        found = [track for track in found if any(is_named(track.name, name) for name in options.songs)]
    tracks = [track for track in found if can_be_scored(track, options.target)]
    if not tracks:
        raise UserError(f"{root}: no song has stems to score {options.target!r} with: choose another --target.")
    if len(tracks) < len(found):
        print(f"songs left out, for want of stems to compare with: {len(found) - len(tracks)}")

    prepare(output, options.subset)
    songs, failures = [], []
    work = (options.workers, options.cluster, options.network)
    scored = evaluate_tracks(tracks, weights, options.device, options.target, *work)
    with Progress(len(tracks), abreast=options.workers) as progress:
        for track, result in scored:
            progress.done()
            if isinstance(result, UserError):
                failures.append(f"not scored: {track.name}: {result}")
                continue
            songs.append(result)
            try:
                save_json(output, result)
            except UserError as error:
                failures.append(f"scored, but not kept: {track.name}: {error}")
    if songs:
        songs.sort(key=lambda song: song.name)
        print(table(songs, options.target))
        save_csv(output / f"{options.subset}.csv", songs, options.target)
        print(f"{options.subset}.csv and museval's files are in {output}")
    for failure in failures:
        print(failure)
    return 1 if failures else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--target", choices=TARGETS, required=True, help="the stem to score, with its rest; all: every stem"
    )
    parser.add_argument(
        "--dataset", choices=DATASETS, default="MUSDB18", help="how the songs lie on disk (default: MUSDB18)"
    )
    parser.add_argument("--root", type=Path, help="folder of the dataset (default: data/<DATASET>)")
    parser.add_argument("--subset", choices=SUBSETS, default="test", help="which of its songs (default: test)")
    parser.add_argument(
        "--songs", nargs="+", metavar="NAME", help="only these of them: songs or artists, as `data.valid` names them"
    )
    parser.add_argument(
        "--weights",
        action="append",
        help="`fast` or `best` (shipped), or a file of train.py; given several times, the mean of all (default: fast)",
    )
    parser.add_argument("--output", type=Path, help="folder for the scores (default: scores/<DATASET>/<target>)")
    parser.add_argument(
        "--workers", type=int, default=min(4, default_workers()), help="songs at a time (default: %(default)s)"
    )
    parser.add_argument("--cluster", metavar="ADDRESS", help=CLUSTER_HELP)
    parser.add_argument("--device", default="auto", help=DEVICE_HELP)
    parser.add_argument("--network", metavar="PACKAGE.MODULE:CLASS", help=NETWORK_HELP)
    return parser.parse_args()
