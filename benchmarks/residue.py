"""Residue of a stem where it does not play: its energy in dB relative to the song's.

    python -m benchmarks.residue --stem vocals --root instrumentals
    python -m benchmarks.residue --stem drums --dataset MUSDB18 --root data/MUSDB18 --subset valid

Measured on songs without the stem (an `accompaniment` has no vocals), or on the sum of the other stems.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from statistics import median

from tqdm import tqdm

from separation import Separator
from separation.dataset.layouts import DATASETS, SUBSETS, Track, find_tracks
from separation.errors import UserError
from separation.runtime import run_script
from separation.stems import ACCOMPANIMENT, FOUR


def parts_without(track: Track, stem: str) -> tuple[str, ...]:
    """The parts that sum to the song without the stem; empty if they are unknown."""
    if stem == "vocals" and ACCOMPANIMENT in track.parts:
        return (ACCOMPANIMENT,)
    return tuple(other for other in FOUR if other != stem) if {*FOUR} <= {*track.stems} else ()


def residue(track: Track, separator: Separator, stem: str) -> float | None:
    """Energy of a stem's estimate in a track without it, in dB relative to the input; None if the input is silent."""
    parts, rate = track.read(parts_without(track, stem))
    song = sum(parts.values())
    energy = song.square().mean()
    return 10 * math.log10(separator(song, rate)[stem].square().mean() / energy + 1e-12) if energy else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stem", choices=FOUR, default="vocals")
    parser.add_argument("--dataset", choices=DATASETS, default="FOLDER")
    parser.add_argument("--root", type=Path, required=True, help="folder of the dataset")
    parser.add_argument("--subset", choices=SUBSETS, default="train")
    parser.add_argument("--weights", help="`best`, or weights of train.py (default: `fast`)")
    arguments = parser.parse_args()

    separator = Separator.load(arguments.weights, stems=[arguments.stem])
    tracks = [track for track in find_tracks(arguments.dataset, arguments.root) if track.subset == arguments.subset]
    tracks = [track for track in tracks if parts_without(track, arguments.stem)]
    found = {track.name: residue(track, separator, arguments.stem) for track in tqdm(tracks, unit="song")}
    levels = {name: level for name, level in found.items() if level is not None}
    for name, level in sorted(levels.items(), key=lambda item: item[1]):
        print(f"{level:7.1f} dB in {name}")
    if not levels:
        raise UserError(f"{arguments.root} has no song without {arguments.stem}, nor one with all of its stems apart.")
    print(f"{median(levels.values()):7.1f} dB, median of {len(levels)} songs")


if __name__ == "__main__":
    run_script(main)
