"""What dataset.py can be asked for."""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path

from separation.dataset.build import UNCHANGED
from separation.dataset.label import DEPTH
from separation.dataset.tracks import DATASETS
from separation.jobs import CLUSTER_HELP, default_workers
from separation.stems import STEMS


def parse_arguments(description: str) -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--dataset", choices=DATASETS, required=True, help="how songs lie; FOLDER: one folder a song")
    for stem in STEMS:
        parser.add_argument(f"--{stem}", action="store_true", help=f"store the {stem} of each song")
    parser.add_argument("--root", type=Path, help="folder of the dataset (default: data/<DATASET>)")
    parser.add_argument("--output", type=Path, help="folder of the store (default: store/<DATASET>)")
    parser.add_argument("--compact", action="store_true", help="store 16-bit waveforms: a quarter of the disk")
    workers = default_workers()
    parser.add_argument("--workers", type=int, default=workers, help="songs built at a time (default: %(default)s)")
    parser.add_argument("--cluster", metavar="ADDRESS", help=CLUSTER_HELP)
    parser.add_argument("--download", action="store_true", help="first download the 7-second sample of MUSDB18")
    help_pack = "pack the songs there as Ogg Vorbis, for a machine that has nothing else, and build no store"
    parser.add_argument("--pack", type=Path, metavar="FOLDER", help=help_pack)
    help_seconds = "with --pack: of longer songs take the middle"
    parser.add_argument("--pack-seconds", type=float, metavar="SECONDS", help=help_seconds)
    help_label = "networks whose mean labels the songs that are a mixture alone"
    parser.add_argument("--label", nargs="+", default=[], metavar="WEIGHTS", help=help_label)
    parser.add_argument(
        "--silence",
        type=depth,
        default=DEPTH,
        metavar="DECIBELS",
        help="with --label: how far below the song a stem is silent (default: %(default)g)",
    )
    parser.add_argument(
        "--speeds",
        type=speed_factor,
        nargs="+",
        default=[],
        metavar="FACTOR",
        help="also store the training songs played faster or slower, pitch and tempo together: more to train on",
    )
    return parser.parse_args()


def depth(text: str) -> float:
    """Decibels as they are typed. Raises `argparse.ArgumentTypeError` for what is none, or makes no sense."""
    try:
        decibels = float(text)
    except ValueError:
        decibels = 0.0
    if not 3 <= decibels <= 90:
        raise argparse.ArgumentTypeError(f"{text} is no number of decibels between 3 and 90")
    return decibels


def speed_factor(text: str) -> Fraction:
    """A factor as it is typed. Raises `argparse.ArgumentTypeError` for what is none."""
    try:
        factor = Fraction(text)
    except (ValueError, ArithmeticError):
        factor = UNCHANGED
    if not Fraction(1, 2) <= factor <= 2 or factor.denominator > 100 or factor == UNCHANGED:
        raise argparse.ArgumentTypeError(f"{text} is no factor between 0.5 and 2 with two decimals")
    return factor
