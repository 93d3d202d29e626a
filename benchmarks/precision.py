"""Cost of each network precision in processor time and in decibels.

    python -m benchmarks.precision --store store/MUSDB18 --weights pretrained/all.safetensors --runs 3

Time: one thread, in milliseconds per second of noise, medians over the runs, in which the precisions take turns.
Quality: SDR as an energy ratio on the validation songs of the store, paired with float32 by song and source.
"""

from __future__ import annotations

import argparse
from math import sqrt
from pathlib import Path
from statistics import fmean, median, stdev
from time import process_time

import torch

from separation.inference.separator import Separator
from separation.inference.weights import load_network
from separation.runtime import run_script
from separation.training.validation import validate, validation_tracks

PRECISIONS = ("fp32", "bf16")
SECONDS = 30


def spent(separator: Separator) -> float:
    """Processor time in milliseconds per second of noise."""
    rate = separator.settings.sample_rate
    song = 0.1 * torch.randn(2, SECONDS * rate, generator=torch.Generator().manual_seed(0))
    begun = process_time()
    separator(song, rate)
    return 1000 * (process_time() - begun) / SECONDS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True, help="a store that dataset.py built")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    network, tracks = load_network(options.weights), validation_tracks([options.store])
    separators = {precision: Separator(network, precision=precision) for precision in PRECISIONS}
    turns = [{name: spent(separator) for name, separator in separators.items()} for _ in range(options.runs)]
    scores = {name: validate(separator, tracks) for name, separator in separators.items()}
    print("| precision | processor time in ms a second | gain in dB | the worst song's |\n|---|---|---|---|")
    for name, found in scores.items():
        exact = scores["fp32"]
        gains = [sdr - exact[song][stem] for song, stems in found.items() for stem, sdr in stems.items()]
        error = stdev(gains) / sqrt(len(gains))
        time = median(turn[name] for turn in turns)
        print(f"| {name} | {time:.1f} | {fmean(gains):+.3f} ± {error:.3f} | {min(gains):+.3f} |")


if __name__ == "__main__":
    run_script(main)
