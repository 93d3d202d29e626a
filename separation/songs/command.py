"""Songs become stems: `outputs/<song>/<stem>.wav`, as long as the song, at its own sample rate, and summing to it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import chain
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from separation.errors import UserError
from separation.inference.weights import find_weights, stems_of
from separation.runtime import Progress, clock, use_threads
from separation.songs.arguments import parse_arguments
from separation.songs.batch import Job, Settings, load_separator, plan, separate_songs
from separation.songs.find import Song, find_songs
from separation.songs.live import live
from separation.songs.manifest import Manifest
from separation.songs.naming import Naming
from separation.songs.outputs import StemFormat
from separation.songs.words import count, levels, opening, place, reason, result, spell

if TYPE_CHECKING:
    from separation.songs.page import Page


def main() -> int:
    options = parse_arguments()
    if options.threads is not None:
        use_threads(options.threads)
    if options.live is not None:
        weights, stems = choose_weights(options)
        separator = load_separator(weights, options.device, stems)
        return live(separator, options.rate, options.channels)
    naming = Naming(options.output, options.format, options.name)
    settings = choose_settings(options)
    songs, others = find_songs(options.songs)
    for path in others:
        print(f"{path} is passed over: it is no audio by its name.", file=sys.stderr)
    if options.cluster:
        songs = [replace(song, file=replace(song.file, path=song.file.path.absolute())) for song in songs]
    jobs, failures = plan(songs, naming, settings, options.overwrite)
    page = open_page(options.output) if options.page else None
    done, waiting = ([job for job in jobs if job.is_done == there] for there in (True, False))
    if done:
        what = place(done[0].files) if len(done) == 1 else count(len(done), "song")
        print(f"{what}: the stems are there already. --overwrite separates again.")
    failures += run_batch(done, waiting, settings, page, options)
    if page and page.path.exists():
        print(f"To listen, open {page.path.resolve().as_uri()}")
    if failures:
        reasons = (reason(song.file.path, error) for song, error in failures)
        print(f"{len(failures)} of {count(len(songs), 'song')} failed:", *reasons, sep="\n  ", file=sys.stderr)
    return bool(failures)


def choose_settings(options: argparse.Namespace) -> Settings:
    """What songs are separated with. Raises `UserError` when there are no such weights, stems or formats."""
    form, best = StemFormat(options.format, options.bits, options.clip), options.quality == "best"
    weights, stems = choose_weights(options)
    if options.cluster:
        weights = tuple(path.absolute() for path in weights)
    return Settings(weights, options.device, stems, form, best, options.segment)


def choose_weights(options: argparse.Namespace) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """The weights files, and the stems if any are named or meant."""
    chosen = options.weights or [options.quality]
    return find_weights(chosen, options.stems), stems_of(chosen, options.stems)


def run_batch(
    done: Sequence[Job], waiting: Sequence[Job], settings: Settings, page: Page | None, options: argparse.Namespace
) -> list[tuple[Song, UserError]]:
    """Separate the songs that wait, say so of each, and list them on the page with those that are done; what failed."""
    failures, music, start = [], 0.0, perf_counter()
    if waiting:
        where = settings.separator().place
        print(opening(settings.weights, where, len(waiting), options.jobs, options.cluster), flush=True)
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(len(waiting), abreast=8 if options.cluster else options.jobs))
        manifest = stack.enter_context(closing(Manifest(options.manifest, settings))) if options.manifest else None
        reports = separate_songs(
            waiting, settings, options.jobs, options.threads, options.cluster, [options.output], progress.within
        )
        for job, report in chain(((job, None) for job in done), stack.enter_context(closing(reports))):
            if report:
                progress.done()
                if manifest:
                    manifest.add(job, report)
            try:
                if isinstance(report, UserError):
                    raise report
                if report:
                    music += report.seconds
                    progress.say(result(report, job.files, tuple(job.paths)))
                if report and options.verbose:
                    progress.say(f"    {levels(report)}")
                if page:
                    page.add(job.song.name, job.paths, report is not None, job.song.file.path)
            except UserError as error:
                failures.append((job.song, error))
                progress.say(f"{place(job.files)}: failed.", file=sys.stderr)
    if len(waiting) > 1:
        print(f"{clock(music)} of music in {spell(perf_counter() - start)}, from {count(len(waiting), 'song')}")
    return failures


def open_page(folder: Path) -> Page:
    """The page of a folder. Raises `UserError` where torch is not installed, which draws its pictures."""
    try:
        from separation.songs.page import Page
    except ModuleNotFoundError as error:
        raise UserError("--page needs torch for its pictures: leave it away, or pip install torch.") from error
    return Page(folder)
