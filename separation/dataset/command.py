"""Step 1: build a spectrogram store from a dataset of songs, for train.py to read."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path

from separation.audio.stft import SpectralSettings
from separation.dataset.layouts import DATASETS, Track, download_sample, find_tracks
from separation.errors import UserError, writing
from separation.files import user_path
from separation.inference.device import NETWORK_HELP
from separation.jobs import CLUSTER_HELP, default_workers, run_jobs
from separation.runtime import Progress, count
from separation.stems import STEMS


def main() -> int:
    options = parse_arguments()
    stems = [stem for stem in STEMS if getattr(options, stem)]
    if not (stems or options.pack):
        raise UserError(f"no stem was chosen: give one or several of --{' --'.join(STEMS)}.", code="no_stems")
    root = options.root or Path("data") / options.dataset
    folder = options.output or Path("store") / options.dataset
    try:
        settings = SpectralSettings(n_fft=options.n_fft, hop=options.hop or options.n_fft // 4)
    except ValueError as error:
        raise UserError(f"--n-fft {options.n_fft}, --hop {options.hop}: {error}.", code="bad_settings") from error
    if options.download:
        if options.dataset != "MUSDB18":
            raise UserError("--download fetches the 7-second sample of MUSDB18 only: give --dataset MUSDB18 with it.")
        download_sample(root)
    if options.cluster:
        root, folder = root.absolute(), folder.absolute()
        options.pack = options.pack and options.pack.absolute()
    tracks = find_tracks(options.dataset, root)
    return pack_songs(root, tracks, options) if options.pack else build(root, tracks, folder, settings, stems, options)


def build(
    root: Path,
    tracks: Sequence[Track],
    folder: Path,
    settings: SpectralSettings,
    stems: Sequence[str],
    options: argparse.Namespace,
) -> int:
    """Build what the store `folder` lacks, report the outcome, and return the script's exit code."""
    # torch takes seconds to import: a mistyped path is reported before that.
    from separation.dataset.build import build_song, bytes_needed, check_disk, in_units, plan_store, skipped
    from separation.dataset.pseudo_labels import DEPTH, Teacher, label
    from separation.dataset.store import remove_track
    from separation.inference.weights import absolute

    if options.label:
        weights = absolute(options.label) if options.cluster else tuple(map(str, options.label))
        tracks = label(tracks, Teacher(weights, tuple(stems), options.silence or DEPTH, options.network))
    plan = plan_store(folder, settings, tracks, stems, options.speeds, root, options.compact)
    say_list("skipped, not named after a stem or a mixture:", skipped(root, tracks))
    say_list("skipped, with none of the stems asked for:", [track.name for track in plan.unused])
    sizes = {job.track.name: bytes_needed(job, settings) for job in plan.jobs}
    needed = sum(sizes.values())
    print(f"{root}: {count(len(tracks), 'song')}, {len(plan.jobs)} to build in {folder}, taking {in_units(needed)}")
    check_disk(folder, needed)
    say_list(f"removed from the store, no longer in {root}:", [track.name for track in plan.gone])
    with writing(folder):
        for track in plan.gone:
            remove_track(track.folder)

    start, failures = time.monotonic(), []
    amounts = [*sizes.values()]
    with Progress(amounts, abreast=options.workers) as progress:
        work = (options.workers, None, options.cluster, [folder], amounts, progress.within)
        for job, result in run_jobs(partial(build_song, folder, settings), plan.jobs, *work):
            progress.done(sizes[job.track.name])
            if isinstance(result, UserError):
                failures.append(f"not built: {job.track.name}: {result}")
            elif result:
                progress.say(f"{job.track.name}: {'; '.join(result)}")
    built = count(len(plan.jobs) - len(failures), "song")
    print(f"{built} built in {time.monotonic() - start:.0f} s", *failures, sep="\n")
    return 1 if failures else 0


def pack_songs(root: Path, tracks: Sequence[Track], options: argparse.Namespace) -> int:
    """Pack what the folder lacks, report the outcome, and return the script's exit code."""
    from separation.dataset.build import in_units
    from separation.dataset.pack import pack_song, plan_packing

    jobs = plan_packing(options.pack, tracks, options.pack_seconds)
    print(f"{root}: {count(len(tracks), 'song')}, {len(jobs)} to pack in {options.pack}")
    failures = []
    with Progress(len(jobs), abreast=options.workers) as progress:
        work = (options.workers, None, options.cluster, [options.pack])
        for job, error in run_jobs(partial(pack_song, options.pack, options.pack_seconds), jobs, *work):
            progress.done()
            failures += [f"not packed: {job.name}: {error}"] if error else []
    size = sum(path.stat().st_size for path in options.pack.rglob("*.ogg"))
    print(*failures, f"{options.pack} takes {in_units(size)}; build its store with --dataset FOLDER", sep="\n")
    return 1 if failures else 0


def say_list(title: str, items: Sequence[object], most: int = 20) -> None:
    """Print a title and at most `most` items below it; nothing if there are no items."""
    if items:
        more = [f"and {len(items) - most} more"] if len(items) > most else []
        print(title, *items[:most], *more, sep="\n  ")


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--dataset", choices=DATASETS, required=True, help="the layout of --root; FOLDER: one folder per song")
    for stem in STEMS:
        what = "what is neither vocals, drums nor bass" if stem == "other" else f"the {stem} of each song"
        add(f"--{stem}", action="store_true", help=f"store {what}")
    add("--root", type=user_path, help="folder of the dataset (default: data/<DATASET>)")
    add("--output", type=user_path, help="folder of the store (default: store/<DATASET>)")
    add("--compact", action="store_true", help="store 16-bit waveforms: a quarter of the size, for any STFT")
    add("--n-fft", type=int, default=SpectralSettings.n_fft, help="samples per STFT frame (default: %(default)s)")
    add("--hop", type=int, help="samples from one STFT frame to the next (default: a quarter of --n-fft)")
    add("--workers", type=int, default=default_workers(), help="songs built at a time (default: %(default)s)")
    add("--cluster", metavar="ADDRESS", help=CLUSTER_HELP)
    add("--download", action="store_true", help="first download the 7-second sample of MUSDB18")
    help_pack = "pack the songs as Ogg Vorbis to move them to another machine; builds no store"
    add("--pack", type=user_path, metavar="FOLDER", help=help_pack)
    add("--pack-seconds", type=float, metavar="SECONDS", help="with --pack: take only the middle of longer songs")
    help_label = "add pseudo-labels to songs that have only a mixture: the mean estimate of these weights"
    add("--label", nargs="+", type=user_path, default=[], metavar="WEIGHTS", help=help_label)
    add("--network", metavar="PACKAGE.MODULE:CLASS", help=NETWORK_HELP)
    help_silence = "with --label: level below the song at which a stem counts as silent (default: 27)"
    add("--silence", type=decibels, metavar="DECIBELS", help=help_silence)
    help_speeds = "also store the training songs at other speeds, changing pitch and tempo together, as augmentation"
    add("--speeds", type=speed_factor, nargs="+", default=[], metavar="FACTOR", help=help_speeds)
    return parser.parse_args()


def decibels(text: str) -> float:
    """Parse decibels. Raises `argparse.ArgumentTypeError` unless they are a number between 3 and 90."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 3 <= number <= 90:
        raise argparse.ArgumentTypeError(f"{text} is not a number of decibels between 3 and 90")
    return number


def speed_factor(text: str) -> Fraction:
    """Parse a speed from 0.5 to 2, not 1, of two decimals. Raises `argparse.ArgumentTypeError` for anything else."""
    try:
        factor = Fraction(text)
    except (ValueError, ArithmeticError):
        factor = Fraction(1)
    if not Fraction(1, 2) <= factor <= 2 or factor.denominator > 100 or factor == 1:
        raise argparse.ArgumentTypeError(f"{text} is not a factor between 0.5 and 2 with two decimals")
    return factor
