"""Gain of test-time augmentation: SDR of passes at other speeds, and of the mean over more and more of them.

    python -m benchmarks.passes --store store/MUSDB18 --weights pretrained/all.safetensors --speeds 1 1.12 1.06

Energy ratios on the validation songs of the store, in dB. Gains are paired by song with the first speed.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from statistics import fmean, stdev

from separation import Separator
from separation.errors import UserError
from separation.inference.passes import SPEEDS
from separation.runtime import run_script
from separation.training.validation import Scores, validate, validation_tracks


def line(*cells: str) -> str:
    """A table row."""
    return f"| {' | '.join(cells)} |"


def row(name: str, scores: Scores, first: Scores) -> str:
    """The mean SDR of each source, and its gain over the first speed."""
    cells = []
    for source in next(iter(scores.values())):
        songs = [song for song in scores if source in scores[song]]
        gains = [scores[song][source] - first[song][source] for song in songs]
        error = stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else math.nan
        cells.append(f"{fmean(scores[song][source] for song in songs):.2f} ({fmean(gains):+.2f} ± {error:.2f})")
    return line(name, *cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True, help="a store with validation songs")
    parser.add_argument("--weights", help="fast, or a file of train.py (default: fast)")
    parser.add_argument("--speeds", type=float, nargs="+", default=list(SPEEDS))
    options = parser.parse_args()
    separator, tracks = Separator.load(options.weights), validation_tracks([str(options.store)])
    if not tracks:
        raise UserError(f"{options.store} has no song to validate on.")

    def scored(speeds: list[float]) -> Scores:
        return validate(Separator([separator.network] * len(speeds), speeds=speeds), tracks)

    alone = {speed: scored([speed]) for speed in options.speeds}
    first = alone[options.speeds[0]]
    sources = list(next(iter(first.values())))
    print(line("speeds", *sources), line("---", *("---" for _ in sources)), sep="\n")
    for speed, scores in alone.items():
        print(row(f"{speed:g}", scores, first))
    for count in range(2, len(options.speeds) + 1):
        speeds = options.speeds[:count]
        print(row("mean of " + ", ".join(f"{speed:g}" for speed in speeds), scored(speeds), first), flush=True)


if __name__ == "__main__":
    run_script(main)
