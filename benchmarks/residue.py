"""What is left of a stem where it does not play: its energy in decibels below the song's.

    python -m benchmarks.residue --stem vocals --root instrumentals
    python -m benchmarks.residue --stem drums --dataset MUSDB18 --root data/MUSDB18 --subset valid

A stem is known to be silent all through a song that comes with its rest alone (an `accompaniment`), and in those
seconds of a song with stems in which its own file is 60 dB or more below the song.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from statistics import median

from torch import Tensor
from tqdm import tqdm

from separation import Separator
from separation.stems import ACCOMPANIMENT, MIXTURE, STEMS
from separation.tracks import DATASETS, SUBSETS, Track, find_tracks

SILENT = 1e-6
"""Energy of silence, against the song's: -60 dB."""


def energies(waveform: Tensor, sample_rate: int) -> Tensor:
    """Mean square of each second of `[channels, samples]`."""
    return waveform.square().mean(dim=0).unfold(0, sample_rate, sample_rate).mean(dim=-1)


def residue(track: Track, separator: Separator, stem: str) -> tuple[int, float] | None:
    """Seconds of a track without the stem, and the energy of its estimate there in dB of the song, or else None.

    Seconds in which the song itself is silent do not count.
    """
    if stem in track.stems and MIXTURE in track.parts:
        parts, rate = track.read((MIXTURE, stem))
        song, truth = parts[MIXTURE], energies(parts[stem], rate)
    elif stem == "vocals" and set(track.files) == {ACCOMPANIMENT}:
        parts, rate = track.read((ACCOMPANIMENT,))
        song, truth = parts[ACCOMPANIMENT], 0
    else:
        return None
    loudness = energies(song, rate)
    silent = (truth < SILENT * loudness.mean()) & (loudness > SILENT * loudness.mean())
    if not silent.any():
        return None
    left = energies(separator(song, rate)[stem], rate)[silent].mean() / loudness[silent].mean()
    return int(silent.sum()), 10 * math.log10(float(left) + 1e-12)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stem", choices=STEMS, default="vocals")
    parser.add_argument("--dataset", choices=DATASETS, default="FOLDER")
    parser.add_argument("--root", type=Path, required=True, help="folder of the dataset")
    parser.add_argument("--subset", choices=SUBSETS, default="train")
    parser.add_argument("--weights", type=Path, help="weights of train.py (default: the shipped ones)")
    arguments = parser.parse_args()

    separator = Separator.load(arguments.weights, stems=[arguments.stem])
    tracks = [track for track in find_tracks(arguments.dataset, arguments.root) if track.subset == arguments.subset]
    found = {track.name: residue(track, separator, arguments.stem) for track in tqdm(tracks, unit="song")}
    found = {name: result for name, result in found.items() if result}
    for name, (seconds, level) in sorted(found.items(), key=lambda item: item[1][1]):
        print(f"{level:7.1f} dB in {seconds:4} s of {name}")
    levels = [level for _, level in found.values()]
    print(f"{median(levels):7.1f} dB, median of {len(levels)} songs" if levels else f"no song lacks {arguments.stem}")


if __name__ == "__main__":
    main()
