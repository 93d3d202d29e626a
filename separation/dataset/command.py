"""Step 1: a dataset of songs becomes a store of spectrograms, which train.py reads."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from separation.audio.stft import SpectralSettings
from separation.dataset.build import UNCHANGED, build_store, bytes_needed, check_disk, in_units, plan_store, skipped
from separation.dataset.layouts import DATASETS, Track, download_sample, find_tracks
from separation.dataset.pack import pack, plan_packing
from separation.dataset.pseudo_labels import DEPTH, Teacher, label
from separation.dataset.store import remove_track
from separation.errors import UserError
from separation.inference.weights import absolute
from separation.jobs import CLUSTER_HELP, default_workers
from separation.runtime import Progress
from separation.stems import STEMS


def main() -> int:
    options = parse_arguments()
    stems = [stem for stem in STEMS if getattr(options, stem)]
    if not (stems or options.pack):
        raise UserError("no stem was chosen: give one or several of --vocals --drums --bass --other.")
    root = options.root or Path("data") / options.dataset
    folder = options.output or Path("store") / options.dataset
    if options.cluster:
        root, folder, options.label = root.absolute(), folder.absolute(), absolute(options.label)
        options.pack = options.pack and options.pack.absolute()
    if options.download:
        if options.dataset != "MUSDB18":
            raise UserError("--download fetches the 7-second sample of MUSDB18 only: give --dataset MUSDB18 with it.")
        download_sample(root)

    settings = SpectralSettings()
    tracks = find_tracks(options.dataset, root)
    if options.pack:
        return pack_songs(root, tracks, options)
    if options.label:
        tracks = label(tracks, Teacher(tuple(options.label), tuple(stems), options.silence))
    plan = plan_store(folder, settings, tracks, stems, options.speeds, root, options.compact)
    say_list("passed over, for nothing there is called by a part of a song:", skipped(root, tracks))
    say_list("passed over, for they have none of the stems asked for:", [track.name for track in plan.unused])
    jobs = plan.jobs
    needed = sum(bytes_needed(job, settings) for job in jobs)
    print(f"{root}: {len(tracks)} songs, {len(jobs)} of them to be built in {folder}, taking {in_units(needed)}")
    check_disk(folder, needed)
    say_list(f"taken out of the store, for {root} no longer has them:", [track.name for track in plan.gone])
    for track in plan.gone:
        remove_track(track.folder)

    start = time.monotonic()
    built = build_store(folder, settings, jobs, options.workers, options.cluster)
    results = []
    with Progress(len(jobs), abreast=options.workers) as progress:
        for result in built:
            progress.done()
            results.append(result)
    failures = [(job, error) for job, error in results if isinstance(error, UserError)]
    print(f"{len(jobs) - len(failures)} songs built in {time.monotonic() - start:.0f} s")
    for job, notes in results:
        if notes and not isinstance(notes, UserError):
            print(f"{job.track.name}: {'; '.join(notes)}")
    for job, error in failures:
        print(f"not built: {job.track.name}: {error}")
    return 1 if failures else 0


def pack_songs(root: Path, tracks: Sequence[Track], options: argparse.Namespace) -> int:
    jobs = plan_packing(options.pack, tracks, options.pack_seconds)
    print(f"{root}: {len(tracks)} songs, {len(jobs)} of them to be packed in {options.pack}")
    failures = []
    with Progress(len(jobs), abreast=options.workers) as progress:
        for job, error in pack(options.pack, jobs, options.workers, options.cluster):
            progress.done()
            failures += [f"not packed: {job.track.name}: {error}"] if error else []
    size = sum(path.stat().st_size for path in options.pack.rglob("*.ogg"))
    print(*failures, f"{options.pack} takes {in_units(size)}; build its store with --dataset FOLDER", sep="\n")
    return 1 if failures else 0


def say_list(title: str, items: Sequence[object], most: int = 20) -> None:
    """Print a title and the items below it, if there are any; no more than `most`."""
    if items:
        more = [f"and {len(items) - most} more"] if len(items) > most else []
        print(title, *items[:most], *more, sep="\n  ")


def parse_arguments() -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
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
