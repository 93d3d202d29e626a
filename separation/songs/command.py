"""The command `separate`: its options, its work, and its messages."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from separation.errors import UserError, writing
from separation.files import user_path
from separation.inference.device import ENGINE_HELP, ENGINES, NETWORK_HELP
from separation.inference.weights import PRETRAINED, find_weights, stems_of
from separation.jobs import CLUSTER_HELP, run_jobs
from separation.runtime import DEVICE_HELP, Progress, clock, count, use_threads
from separation.songs.batch import Job, Manifest, Settings, load_separator, plan, separate
from separation.songs.find import Song, find_songs
from separation.songs.live import live
from separation.songs.outputs import (
    CLIPS,
    EXTENSIONS,
    PATTERN,
    STEM_FILE_PATTERN,
    STEM_FORMATS,
    VIDEO,
    Naming,
    StemFormat,
    check_stem_file,
)
from separation.songs.render import RenderReport, Segment
from separation.stems import ACCOMPANIMENT, FOUR, KNOWN_AS, PARTS, with_aliases

if TYPE_CHECKING:
    from separation.songs.page import Page

LIVE = ("live", "rate", "channels")
"""The options of `--live` alone; it also uses `COMMON`, and no others."""

COMMON = ("songs", "input", "stems", "weights", "quality", "device", "engine", "network", "threads")
"""Options that are used with `--live` and without it, or refused with it in other words."""

STEM_SETS = {"two": ("vocals", ACCOMPANIMENT), "all": FOUR}

ABOUT = """\
Take songs apart: vocals, drums, bass, other, or everything but one of them.
Stems are as long as the song, at its own sample rate, and sum to it.
"""

EXAMPLES = """\
examples:
  vocals and accompaniment, into outputs/song/
    %(prog)s song.mp3
  vocals, drums, bass and other
    %(prog)s song.mp3 --stems all
  an album to sing to
    %(prog)s album/ --stems karaoke --format mp3 --name '{song} ({stem})'
  all songs below a folder, and a page to listen to them
    %(prog)s 'music/**/*.flac' --output stems --page
  a radio station without its singers, 1.4 s late (0.2 s with --weights live)
    ffmpeg -i URL -f f32le -ar 44100 -ac 2 - | %(prog)s --live karaoke | ffplay -f f32le -ar 44100 -ch_layout stereo -
"""

FORMAT_HELP = (
    "file format (default: %(default)s); `stem` or `stem.mp4`: one .stem.m4a or .stem.mp4 per song, with the song, "
    "drums, bass, other and vocals, for Traktor, Mixxx and other DJ programs; `mka`: the same in Matroska, lossless; "
    "`video`: the whole video, untouched, with the stem as its sound; not with --segment or --page"
)


def main() -> int:
    options = parse_arguments()
    if options.threads is not None:
        use_threads(options.threads)
    if options.live is not None:
        weights, stems = choose_weights(options)
        return live(
            load_separator(weights, options.device, stems, network=options.network), options.rate, options.channels
        )
    naming = Naming(options.output, options.format, options.name)
    songs, others = find_songs(options.songs, options.track)
    for path in others:
        print(f"{path} is skipped: its suffix is not that of an audio file.", file=sys.stderr)
    if not any(os.path.lexists(song.file.path) for song in songs):  # fail at once, before torch is loaded
        path = songs[0].file.path
        raise UserError(f"{path} does not exist: check how it is spelled, and in which folder it is.", "no_such_file")
    settings = choose_settings(options)
    if options.cluster:
        songs = [replace(song, file=replace(song.file, path=song.file.path.absolute())) for song in songs]
    jobs, failures = plan(songs, naming, settings, options.overwrite)
    page = None
    if options.page:
        from separation.songs.page import Page  # which imports pillow

        page = Page(options.output)
    done, waiting = ([job for job in jobs if job.is_done == there] for there in (True, False))
    if done:
        what = place(done[0].paths) if len(done) == 1 else count(len(done), "song")
        print(f"{what}: the stems are there already. Use --overwrite to separate again.")
    failures += run_batch(done, waiting, settings, page, options)
    if page and page.path.exists():
        print(f"To listen, open {page.path.resolve().as_uri()}")
    if failures:
        head = f"{len(failures)} of {count(len(songs), 'song')} failed:\n  " if len(songs) > 1 else "failed: "
        print(head + "\n  ".join(reason(song.file.path, error) for song, error in failures), file=sys.stderr)
    return bool(failures)


def choose_settings(options: argparse.Namespace) -> Settings:
    """How songs are separated. Raises `UserError` if there are no such weights, stems or formats."""
    form = StemFormat(options.format, options.bits, options.clip, options.keep_original)
    best = options.quality == "best"
    weights, stems = choose_weights(options)
    if options.cluster:
        weights = tuple(path.absolute() for path in weights)
    return Settings(
        weights, options.device, tuple(options.stems) or stems, form, best, options.segment, options.network
    )


def choose_weights(options: argparse.Namespace) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """The weights files, and the stems under the names that networks use, if any are named or implied."""
    chosen, stems = options.weights or [options.quality], [KNOWN_AS.get(stem, stem) for stem in options.stems]
    return find_weights(chosen, stems, options.engine, options.device), stems_of(chosen, stems)


def run_batch(
    done: Sequence[Job], waiting: Sequence[Job], settings: Settings, page: Page | None, options: argparse.Namespace
) -> list[tuple[Song, UserError]]:
    """Separate the waiting songs, report on each, list them on the page with the done ones, and return the failures."""
    failures, music, start = [], 0.0, perf_counter()
    if waiting:
        separator = settings.separator()
        print(opening(settings.weights, separator.place, len(waiting), options.jobs, options.cluster))
        print(f"licence of the weights: {separator.licence}", flush=True)
    with ExitStack() as stack:
        lengths = [length(job.song) for job in waiting] if len(waiting) > 1 else [1.0] * len(waiting)
        sizes = {id(job): size for job, size in zip(waiting, lengths, strict=True)}
        progress = stack.enter_context(Progress(lengths, abreast=8 if options.cluster else options.jobs))
        manifest = stack.enter_context(closing(Manifest(options.manifest, settings))) if options.manifest else None
        work = (options.jobs, options.threads, options.cluster, [options.output], lengths, progress.within)
        if options.cluster:  # each worker checks that it sees the folder
            with writing(options.output):
                options.output.mkdir(parents=True, exist_ok=True)
        reports = run_jobs(partial(separate, settings=settings), waiting, *work)
        for job, report in chain(((job, None) for job in done), stack.enter_context(closing(reports))):
            if report:
                progress.done(sizes[id(job)])
                if manifest:
                    manifest.add(job, report)
            try:
                if isinstance(report, UserError):
                    raise report
                if report:
                    music += report.seconds
                    progress.say(result(report, job.paths, settings.form.clip))
                if report and options.verbose:
                    progress.say(f"    {levels(report)}")
                if page:
                    page.add(job.song.name, job.paths, report is not None, job.song.file.path)
            except UserError as error:
                failures.append((job.song, error))
                if len(done) + len(waiting) > 1:
                    progress.say(f"{place(job.paths)}: failed.", file=sys.stderr)
    if len(waiting) > 1:
        print(f"{clock(music)} of music in {spell(perf_counter() - start)}, from {count(len(waiting), 'song')}")
    return failures


def length(song: Song) -> float:
    """Length of a song in seconds, by its header; 0 if it cannot be read or does not state it."""
    from separation.audio.io import probe

    try:
        info = probe(song.file.path, song.file.track)
    except UserError:
        return 0.0
    return info.samples / info.sample_rate


def spell(seconds: float) -> str:
    """Format how long something took.

    >>> spell(0.42), spell(6.4), spell(150)
    ('0.4 s', '6 s', '2:30 min')
    """
    if seconds >= 100:
        return f"{clock(seconds)} min" if seconds < 3600 else f"{clock(seconds)} h"
    return f"{seconds:.1f} s" if seconds < 5 else f"{seconds:.0f} s"


def opening(weights: Sequence[Path], place: str, songs: int, jobs: int = 1, cluster: str | None = None) -> str:
    """The first line of output: the songs, the weights, and where they are computed, here or by a cluster."""
    abreast = f", {min(jobs, songs)} at a time" if min(jobs, songs) > 1 else ""
    times = {1: "", 2: ", twice,"}
    passes = Counter(f"{path.name} (shipped)" if path.parent == PRETRAINED else str(path) for path in weights)
    named = " and ".join(name + times.get(often, f", {often} times,") for name, often in passes.items()).rstrip(",")
    if cluster:
        place, abreast = f"the workers of {cluster}", ""
    return f"{count(songs, 'song')}{abreast}; weights {named}; {place}"


def place(paths: Mapping[str, Path]) -> str:
    """Where the stems of a song are: their folder and names, or their files if the folder may hold others.

    >>> place({"vocals": Path("outputs/lithium/vocals.wav"), "bass": Path("outputs/lithium/bass.wav")})
    'outputs/lithium/ (vocals, bass)'
    """
    files = dict.fromkeys(path.as_posix() for path in paths.values())
    folders = {path.parent.as_posix() for path in paths.values()}
    if len(folders) == 1 and all(path.stem == stem for stem, path in paths.items()):
        return f"{folders.pop()}/ ({', '.join(paths)})"
    return ", ".join(files) + (f" ({', '.join(paths)})" if len(files) < len(paths) else "")


def result(report: RenderReport, paths: Mapping[str, Path], clip: str | None = None) -> str:
    """The line of a finished song: its length, the time it took, where its stems are, clipping, and remarks."""
    line = f"{clock(report.seconds)} of music in {spell(report.elapsed)} -> {place(paths)}"
    if report.gain < 1:
        line += f"; all stems {report.gain:.3f} times as loud as in the song, so that they do not clip"
    beyond = sum(tally.beyond for tally in report.stems.values())
    if beyond:
        done = "kept" if clip == "none" else "cut off: --clip rescale, or --format wav --bits 32f, keeps them"
        line += f"; beyond full scale: {count(beyond, 'sample')}, {done}"
    return "; ".join([line, *report.remarks])


def levels(report: RenderReport) -> str:
    """The level of each stem: its root mean square, where a full-scale square wave has 0 dBFS."""
    return ", ".join(f"{stem} {tally.level:.1f} dBFS" for stem, tally in report.stems.items())


def reason(song: Path, error: UserError) -> str:
    """Why a song failed, with its path."""
    return str(error) if str(song) in str(error) else f"{song}: {error}"


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options, by default from the command line. Raises `UserError` if they contradict each other."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    given = {name for name, value in vars(options).items() if value != parser.get_default(name)} - {*COMMON}
    options.stems, strays = sort_out(options.stems)
    options.songs += strays + options.input
    for name, least in (("threads", 1), ("jobs", 1), ("track", 0)):
        if (number := getattr(options, name)) is not None and number < least:
            raise UserError(f"--{name} must be {least} or more, not {number}.")
    if options.live is not None:
        stems, strays = sort_out([options.live])
        if options.songs or options.stems or strays or len(stems) != 1:
            raise UserError("--live takes one stem, such as vocals, and reads standard input: give no other arguments.")
        options.stems = stems
    if idle := given - {*LIVE} if options.live is not None else given & {*LIVE}:
        names = ", ".join(sorted(f"--{name.replace('_', '-')}" for name in idle))
        said = f"--live takes no {names}" if options.live else f"only --live takes {names}"
        raise UserError(f"{said}: leave that out.", "no_effect")
    if options.live is not None:
        return options
    if options.cluster:
        options.output = options.output.absolute()
    if options.manifest is None and (options.jobs > 1 or options.cluster):
        options.manifest = options.output / "manifest.jsonl"
    if os.path.exists(options.output) and not os.path.isdir(options.output):  # noqa: PTH110, PTH112
        raise UserError(f"--output {options.output} is a file: name a folder.")
    options.segment = Segment.parse(options.segment) if options.segment is not None else None
    if options.format in STEM_FORMATS:
        options.stems = options.stems or list(FOUR)
        check_stem_file(options.stems)
    if options.page and options.format in (*STEM_FORMATS, VIDEO):
        raise UserError(f"--page needs one sound file per stem: omit it, or --format {options.format}.")
    if options.segment and options.format == VIDEO:
        raise UserError("--format video needs the whole song: omit --segment.")
    return options


def sort_out(words: Iterable[str]) -> tuple[list[str], list[str]]:
    """Split the words after `--stems` into stems, without duplicates, and the songs that followed them.

    Names are not case-sensitive, and may be separated by commas.

    >>> sort_out(["Karaoke", "vocals,drums", "song.mp3"])
    (['karaoke', 'vocals', 'drums'], ['song.mp3'])
    """
    stems: dict[str, str] = {}
    songs = []
    for word in words:
        names = word.lower().split(",")
        if not all(map(is_stem, names)):
            if {".", "/", os.sep} & set(word) or os.path.exists(word):  # noqa: PTH110 (Path's may raise)
                songs.append(word)
                continue
            names = word.split(",")
        for name in chain.from_iterable(STEM_SETS.get(name, (name,)) for name in names):
            stems.setdefault(KNOWN_AS.get(name, name), name)
    return list(stems.values()), songs


def is_stem(name: str) -> bool:
    """Whether this is the name of a stem, of a set of stems, or of the rest without some stems."""
    if name in STEM_SETS or name in KNOWN_AS or name in PARTS:
        return True
    return name.startswith("no_") and all(target in PARTS for target in name.removeprefix("no_").split("_"))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        usage="%(prog)s [SONG ...] [--stems STEM ...] [--output FOLDER] [more options]",
        description=ABOUT,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    songs = parser.add_argument_group("songs")
    songs.add_argument(
        "songs",
        nargs="*",
        metavar="SONG",
        help="files, folders, globs; `custom`: every song in ./input; `MUSDB18` or `DSD100`: the test songs in ./data "
        "(default: an existing dataset, otherwise the short song that ships with the stempeg package)",
    )
    songs.add_argument("--input", nargs="+", default=[], metavar="SONG", help="the same as an option")
    songs.add_argument("--segment", metavar="FROM-TO", help="only this part: 0:30-1:10, or 0:30- to the end")
    help_track = "audio track to use, counted from 0, if there are several (default: the one that players choose)"
    songs.add_argument("--track", type=int, metavar="N", help=help_track)
    stems = parser.add_argument_group("stems")
    known = with_aliases(("vocals", "drums", "bass", "other", ACCOMPANIMENT))
    help_stems = f"`two` (vocals, accompaniment), `all` ({', '.join(FOUR)}), or names: {known}, `no_drums` and the like"
    help_stems += " (default: what the weights give)"
    stems.add_argument("--stems", nargs="+", default=[], metavar="STEM", help=help_stems)
    stems.add_argument("--format", type=str.lower, choices=EXTENSIONS, default="wav", help=FORMAT_HELP)
    stems.add_argument(
        "--bits",
        type=str.lower,
        choices=("16", "24", "32f"),
        help="bits per sample in wav and flac (default: 16); in m4a selects lossless ALAC instead of AAC",
    )
    stems.add_argument(
        "--keep-original", action="store_true", help="with --format video: keep the song's own sound as a second track"
    )
    stems.add_argument(
        "--clip",
        choices=CLIPS,
        help="samples beyond full scale: lower the gain of all stems of the song, clip them, or keep them "
        "(default: clip and report them; with --bits 32f keep them)",
    )
    files = parser.add_argument_group("output")
    help_output = "folder of the stems (default: outputs)"
    files.add_argument("--output", type=user_path, default=Path("outputs"), metavar="FOLDER", help=help_output)
    files.add_argument(
        "--name",
        metavar="PATTERN",
        help="path of a stem in that folder, with {song}, {stem} and {ext} "
        f"(default: {PATTERN}, and for --format stem {STEM_FILE_PATTERN})",
    )
    files.add_argument("--page", action="store_true", help="also write OUTPUT/index.html, a page for listening")
    files.add_argument("--overwrite", action="store_true", help="replace existing stems")
    work = parser.add_argument_group("processing")
    work.add_argument(
        "--weights",
        action="append",
        metavar="FILE",
        help="shipped weights `fast`, `best` (mean of three passes), `free` or `live` (vocals and accompaniment, 0.2 s "
        "latency), or a file written by train.py; averaged if given several times (default: fast)",
    )
    work.add_argument(
        "--quality",
        choices=("fast", "best"),
        default="fast",
        help="best: average three passes at different speeds, with both shipped networks where both help, or with "
        "the one file named by --weights; takes 2 to 4 times as long (default: fast)",
    )
    work.add_argument("--device", default="auto", help=DEVICE_HELP)
    work.add_argument("--engine", choices=("auto", *ENGINES), default="auto", help=ENGINE_HELP)
    work.add_argument("--network", metavar="PACKAGE.MODULE:CLASS", help=NETWORK_HELP)
    work.add_argument("--threads", type=int, metavar="N", help="processor threads to use (default: all)")
    help_jobs = "songs at a time, each in a process with its share of the threads"
    work.add_argument("--jobs", type=int, default=1, metavar="N", help=help_jobs)
    work.add_argument("--cluster", metavar="ADDRESS", help=CLUSTER_HELP)
    work.add_argument(
        "--manifest",
        type=user_path,
        metavar="FILE",
        help="append one JSON line per song, done or failed (with --jobs and --cluster: OUTPUT/manifest.jsonl)",
    )
    work.add_argument("--verbose", action="store_true", help="print the level of each stem")
    live = parser.add_argument_group("live")
    live.add_argument("--live", metavar="STEM", help="separate standard input to standard output, both f32le")
    live.add_argument("--rate", type=int, default=44100, metavar="HZ", help="of both (default: %(default)s)")
    live.add_argument("--channels", type=int, choices=(1, 2), default=2, help="of both (default: %(default)s)")
    return parser
