"""How well a network knows where it is wrong: the errors that its masks expect and those it makes, second by second.

    python -m benchmarks.doubts --dataset MUSDB18 --root data/MUSDB18 --subset valid --stem vocals --weights best

Errors are in dB of the mixture. The seconds of all songs are sorted by what is expected, and shown in quarters.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from tqdm import tqdm

from separation import Separator
from separation.audio.spectral import Spectral
from separation.dataset.label import LEAST_DOUBT, doubts, levels_of
from separation.dataset.tracks import DATASETS, SUBSETS, Track, find_tracks, is_named
from separation.errors import UserError
from separation.runtime import run_script
from separation.stems import MIXTURE, STEMS


def expected_and_made(track: Track, separator: Separator, stem: str) -> np.ndarray:
    """The errors in dB of the mixture of each stretch of a song that is no silence, `[2, stretches]`."""
    settings = separator.network.settings
    spectral = Spectral(settings)
    parts, _ = track.read((MIXTURE, stem), settings.sample_rate)
    song = spectral(parts[MIXTURE])
    estimate = spectral(separator(parts[MIXTURE], settings.sample_rate)[stem])
    made = (spectral(parts[stem]) - estimate).abs().square()
    levels = np.array([doubts(estimate, song), levels_of(made, song)])
    return levels[:, levels.min(axis=0) > LEAST_DOUBT]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stem", choices=STEMS, default="vocals")
    parser.add_argument("--dataset", choices=DATASETS, default="MUSDB18")
    parser.add_argument("--root", type=Path, required=True, help="folder of the dataset")
    parser.add_argument("--subset", choices=SUBSETS, default="valid")
    parser.add_argument("--songs", nargs="+", default=[], help="only these, or these artists")
    parser.add_argument("--weights", help="fast or best of the shipped weights, or a file (default: fast)")
    arguments = parser.parse_args()

    separator = Separator.load(arguments.weights, stems=[arguments.stem])
    tracks = [track for track in find_tracks(arguments.dataset, arguments.root) if track.subset == arguments.subset]
    tracks = [track for track in tracks if {MIXTURE, arguments.stem} <= {*track.parts}]
    if arguments.songs:
        tracks = [track for track in tracks if any(is_named(track.name, name) for name in arguments.songs)]
    if not tracks:
        raise UserError(f"{arguments.root} has no such song with its mixture and {arguments.stem}.")
    songs = [expected_and_made(track, separator, arguments.stem) for track in tqdm(tracks, unit="song")]
    expected, made = np.concatenate(songs, axis=1)
    print(f"{len(expected)} seconds of {len(tracks)} songs: correlation {np.corrcoef(expected, made)[0, 1]:.2f}")
    print("| seconds | expected | made |\n|---|---|---|")
    order = np.argsort(expected)
    for name, quarter in zip(("surest quarter", "second", "third", "last"), np.array_split(order, 4), strict=True):
        print(f"| {name} | {expected[quarter].mean():.1f} | {made[quarter].mean():.1f} |")


if __name__ == "__main__":
    run_script(main)
