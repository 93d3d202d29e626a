"""Songs become stems: `outputs/<song>/<stem>.wav`, as long as the song, at its own sample rate, and summing to it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from tqdm import tqdm

from separation.audio.io import FORMATS
from separation.errors import UserError, run_script
from separation.network.device import DEVICE_HELP
from separation.network.separator import Separator
from separation.songs.find import Song, find_songs
from separation.songs.naming import PATTERN, Naming
from separation.songs.page import Page
from separation.songs.render import CLIPS, RenderReport, StemFormat, render
from separation.stems import ACCOMPANIMENT, STEMS

STEM_SETS = {"two": ("vocals", ACCOMPANIMENT), "all": STEMS}
BAR = "{percentage:3.0f}%|{bar}| {elapsed}, {remaining} left"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--input",
        nargs="+",
        default=[],
        metavar="SONG",
        help="files, folders, globs; `custom`: every song in ./input; `MUSDB18` or `DSD100`: the test songs in ./data "
        "(default: a dataset that is there, else the short song that the stempeg package ships)",
    )
    parser.add_argument("--output", type=Path, default=Path("outputs"), help="folder of the stems (default: outputs)")
    parser.add_argument(
        "--name",
        default=PATTERN,
        metavar="PATTERN",
        help="what stems are called in that folder, with {song}, {stem} and {ext} (default: %(default)s)",
    )
    parser.add_argument("--page", action="store_true", help="write OUTPUT/index.html as well: a page to listen to them")
    parser.add_argument(
        "--stems",
        nargs="+",
        default=[],
        metavar="STEM",
        help=f"`two` (vocals, accompaniment), `all` ({', '.join(STEMS)}), or names (default: what the weights give)",
    )
    parser.add_argument("--weights", type=Path, help="a file that train.py wrote (default: the shipped ones)")
    parser.add_argument("--device", default="auto", help=DEVICE_HELP)
    parser.add_argument("--threads", type=int, help="processor threads to use (default: all)")
    parser.add_argument("--format", choices=FORMATS, default="wav", help="of the stems (default: %(default)s)")
    parser.add_argument("--bits", choices=("16", "24", "32f"), help="a sample, in wav and flac (default: 16)")
    parser.add_argument(
        "--clip",
        choices=CLIPS,
        help="samples beyond full scale: make all stems of the song quieter alike, cut them off, or leave them "
        "(default: cut them off and say so; with --bits 32f leave them)",
    )
    parser.add_argument("--overwrite", action="store_true", help="separate songs again whose stems are there already")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    form = StemFormat(arguments.format, arguments.bits, arguments.clip)
    naming = Naming(arguments.output, arguments.format, arguments.name)
    if arguments.output.exists() and not arguments.output.is_dir():
        raise UserError(f"--output {arguments.output} is a file: name a folder.")
    if arguments.threads is not None:
        if arguments.threads < 1:
            raise UserError(f"--threads must be 1 or more, not {arguments.threads}.")
        torch.set_num_threads(arguments.threads)
    songs, others = find_songs(arguments.input)
    for path in others:
        print(f"{path} is passed over: it is no audio by its name.", file=sys.stderr)
    stems = [name for stem in arguments.stems for name in STEM_SETS.get(stem, (stem,))]
    separator = Separator.load(arguments.weights, arguments.device, stems)
    naming.check(songs, separator.stems)
    page = Page(arguments.output) if arguments.page else None

    failures = []
    layout = "{n_fmt} of {total_fmt} songs: " + BAR
    with tqdm(songs, bar_format=layout, disable=None if len(songs) > 1 else True) as batch:
        for song in batch:
            paths, files = naming.paths(song.name, separator.stems), naming.path(song.name, "*")
            try:
                # os.path, because Path.exists raises for a folder that may not be entered
                if not arguments.overwrite and all(map(os.path.exists, paths.values())):
                    tqdm.write(f"{files} are there already: --overwrite separates the song again.")
                else:
                    tqdm.write(f"{files}: {separate(separator, song, paths, form)}")
                if page:
                    page.add(song.name, paths)
            except UserError as error:
                failures.append(str(error) if str(song.file.path) in str(error) else f"{song.file.path}: {error}")
                tqdm.write(f"{files}: failed.", file=sys.stderr)
    if page and page.path.exists():
        print(f"To listen, open {page.path.resolve().as_uri()}")
    if failures:
        print(f"{len(failures)} of {len(songs)} songs failed:", *failures, sep="\n  ", file=sys.stderr)
    return bool(failures)


def separate(separator: Separator, song: Song, paths: Mapping[str, Path], form: StemFormat) -> RenderReport:
    with tqdm(desc=song.name, bar_format="{desc}: " + BAR, leave=False, disable=None) as bar:

        def progress(done: int, samples: int) -> None:
            bar.total = samples or None
            bar.update(done - bar.n)

        return render(separator, song.file, paths, form, progress)


def run() -> None:
    """The command `separate`."""
    run_script(main)
