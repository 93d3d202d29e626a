"""What the command understands, and what it says of that with --help."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from separation.errors import UserError
from separation.jobs import CLUSTER_HELP
from separation.runtime import DEVICE_HELP
from separation.songs.find import at_home
from separation.songs.naming import PATTERN, STEM_FILE_PATTERN
from separation.songs.outputs import CLIPS, EXTENSIONS, STEM_FILE, check_stem_file
from separation.songs.segment import Segment
from separation.stems import ACCOMPANIMENT, KNOWN_AS, PARTS, STEMS

STEM_SETS = {"two": ("vocals", ACCOMPANIMENT), "all": STEMS}

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
    %(prog)s album/ --stems karaoke --format mp3
  all songs below a folder, and a page to listen to them
    %(prog)s 'music/**/*.flac' --output stems --page
  a radio station without its singers, 1.6 s late (0.2 s with --weights live)
    ffmpeg -i URL -f f32le -ar 44100 -ac 2 - | %(prog)s --live karaoke | ffplay -f f32le -ar 44100 -ch_layout stereo -
"""


FORMAT_HELP = (
    "of the files (default: %(default)s); `stem`: one .stem.m4a a song, with the song, drums, bass, other and vocals, "
    "for Traktor, Mixxx and other DJ programs"
)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of the command, by default of the command line."""
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
        "(default: a dataset that is there, else the short song that the stempeg package ships)",
    )
    songs.add_argument("--input", nargs="+", default=[], metavar="SONG", help="the same, as an option")
    songs.add_argument("--segment", metavar="FROM-TO", help="only this part: 0:30-1:10, or 0:30- to the end")
    stems = parser.add_argument_group("stems")
    stems.add_argument(
        "--stems",
        nargs="+",
        default=[],
        metavar="STEM",
        help=f"`two` (vocals, accompaniment), `all` ({', '.join(STEMS)}), or names: of these, `no_drums` and the like, "
        f"{known_as()} (default: what the weights give)",
    )
    stems.add_argument("--format", choices=EXTENSIONS, default="wav", help=FORMAT_HELP)
    stems.add_argument(
        "--bits",
        choices=("16", "24", "32f"),
        help="a sample, in wav and flac (default: 16), and in m4a where nothing is to be lost (ALAC; without: AAC)",
    )
    stems.add_argument(
        "--clip",
        choices=CLIPS,
        help="samples beyond full scale: make all stems of the song quieter alike, cut them off, or leave them "
        "(default: cut them off and say so; with --bits 32f leave them)",
    )
    files = parser.add_argument_group("where they go")
    files.add_argument("--output", default="outputs", metavar="FOLDER", help="folder of the stems (default: outputs)")
    files.add_argument(
        "--name",
        metavar="PATTERN",
        help="what stems are called in that folder, with {song}, {stem} and {ext} "
        f"(default: {PATTERN}, and for --format stem {STEM_FILE_PATTERN})",
    )
    files.add_argument("--page", action="store_true", help="write OUTPUT/index.html as well: a page to listen to them")
    files.add_argument("--overwrite", action="store_true", help="separate songs again whose stems are there already")
    work = parser.add_argument_group("how")
    work.add_argument(
        "--weights",
        action="append",
        metavar="FILE",
        help="shipped ones: `fast`, `best` (the mean of three hearings) or `live` (vocals and accompaniment, 0.2 s "
        "late); or a file that train.py wrote; given several times, the mean of all (default: fast)",
    )
    work.add_argument(
        "--quality",
        choices=("fast", "best"),
        default="fast",
        help="best: the mean of three hearings at different speeds, by both shipped networks where both help, or by "
        "the one file that --weights names; three times the time (default: fast)",
    )
    work.add_argument("--device", default="auto", help=DEVICE_HELP)
    work.add_argument("--threads", type=int, metavar="N", help="processor threads to use (default: all)")
    work.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="songs at a time, each in a process with its share of the threads",
    )
    work.add_argument("--cluster", metavar="ADDRESS", help=CLUSTER_HELP)
    work.add_argument(
        "--manifest",
        type=Path,
        metavar="FILE",
        help="append a line of JSON for every song that ends (with --jobs and --cluster: OUTPUT/manifest.jsonl)",
    )
    add_live(parser)
    work.add_argument("--verbose", action="store_true", help="say how loud each stem is")
    options = parser.parse_args(arguments)
    options.stems, strays = sort_out(options.stems)
    options.songs += strays + options.input
    options.output = at_home(options.output)
    for name in ("threads", "jobs"):
        if (number := getattr(options, name)) is not None and number < 1:
            raise UserError(f"--{name} must be 1 or more, not {number}.")
    if options.live is not None:
        return check_live(options)
    if options.cluster:
        options.output = options.output.absolute()
    if options.manifest is None and (options.jobs > 1 or options.cluster):
        options.manifest = options.output / "manifest.jsonl"
    if os.path.exists(options.output) and not os.path.isdir(options.output):  # noqa: PTH110, PTH112
        raise UserError(f"--output {options.output} is a file: name a folder.")
    options.segment = Segment.parse(options.segment) if options.segment is not None else None
    if options.format == STEM_FILE:
        options.stems = options.stems or list(STEMS)
        check_stem_file(options.stems)
        if options.page:
            raise UserError("--page plays files of one stem each: choose another --format.")
    return options


def add_live(parser: argparse.ArgumentParser) -> None:
    live = parser.add_argument_group("live")
    live.add_argument("--live", metavar="STEM", help="separate standard input into standard output, both f32le")
    live.add_argument("--rate", type=int, default=44100, metavar="HZ", help="of both (default: %(default)s)")
    live.add_argument("--channels", type=int, choices=(1, 2), default=2, help="of both (default: %(default)s)")


def check_live(options: argparse.Namespace) -> argparse.Namespace:
    """The options of `--live`, with its stem in `stems`. Raises `UserError` when there are songs or more stems."""
    stems, strays = sort_out([options.live])
    if options.songs or options.stems or strays or len(stems) != 1:
        raise UserError("--live takes one stem, such as vocals, and its song from standard input: name nothing else.")
    options.stems = stems
    return options


def sort_out(words: Iterable[str]) -> tuple[list[str], list[str]]:
    """The names of stems in `--stems`, each once and by the name that the weights know, and songs that followed them.

    >>> sort_out(["karaoke", "drums", "song.mp3"])
    (['accompaniment', 'drums'], ['song.mp3'])
    """
    stems, songs = [], []
    for word in words:
        if word in STEM_SETS or word in KNOWN_AS or word in PARTS or word.startswith("no_"):
            stems += STEM_SETS.get(word, (KNOWN_AS.get(word, word),))
        elif {".", "/", os.sep} & set(word) or os.path.exists(word):  # noqa: PTH110 (Path's raises where one may not look)
            songs.append(word)
        else:
            stems.append(word)
    return list(dict.fromkeys(stems)), songs


def known_as() -> str:
    """Other names of stems, as a phrase.

    >>> known_as()
    '`karaoke` or `instrumental` for accompaniment, `acapella` for vocals'
    """
    stems = dict.fromkeys(KNOWN_AS.values())
    names = {stem: [f"`{name}`" for name, other in KNOWN_AS.items() if other == stem] for stem in stems}
    return ", ".join(f"{' or '.join(names[stem])} for {stem}" for stem in stems)
