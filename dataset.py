"""Step 1: a dataset of songs becomes a store of spectrograms, which train.py reads."""

from __future__ import annotations

import separation.start  # noqa: F401 (first: see there)

# isort: split
import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from separation.audio.spectral import SpectralSettings
from separation.dataset.arguments import parse_arguments
from separation.dataset.build import build_store, bytes_needed, check_disk, in_units, plan_store
from separation.dataset.label import Teacher, label
from separation.dataset.pack import pack, plan_packing
from separation.dataset.store import remove_track
from separation.dataset.tracks import Track, download_sample, find_tracks
from separation.dataset.unused import passed_over
from separation.errors import UserError
from separation.inference.pretrained import absolute
from separation.runtime import Progress, run_script
from separation.stems import STEMS


def main() -> int:
    options = parse_arguments(__doc__)
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
    say_list("passed over, for nothing there is called by a part of a song:", passed_over(root, tracks))
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


if __name__ == "__main__":
    run_script(main)
