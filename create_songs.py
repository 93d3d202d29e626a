"""Songs become stems: `outputs/<song>/<stem>.wav`, as long as the song, at its own sample rate, and summing to it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from separation.audio import FORMATS
from separation.errors import UserError, run_script
from separation.render import CLIPS, Report, StemFormat, render
from separation.separator import Separator
from separation.songs import Song, find_songs
from separation.stems import ACCOMPANIMENT, STEMS

STEM_SETS = {"two": ("vocals", ACCOMPANIMENT), "all": STEMS}


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
        "--stems",
        nargs="+",
        default=[],
        metavar="STEM",
        help=f"`two` (vocals, accompaniment), `all` ({', '.join(STEMS)}), or names (default: what the weights give)",
    )
    parser.add_argument("--weights", type=Path, help="a file that train.py wrote (default: the shipped ones)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to separate")
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

    failures = []
    with tqdm(songs, unit="song", disable=None if len(songs) > 1 else True) as batch:
        for song in batch:
            folder = arguments.output / song.name
            if not arguments.overwrite and all(path.exists() for path in form.paths(folder, separator.stems).values()):
                tqdm.write(f"{folder}: is there already; --overwrite separates it again.")
                continue
            try:
                tqdm.write(describe(folder, separate(separator, song, folder, form)))
            except UserError as error:
                failures.append(str(error) if str(song.file.path) in str(error) else f"{song.file.path}: {error}")
                tqdm.write(f"{folder}: failed.", file=sys.stderr)
    if failures:
        print(f"{len(failures)} of {len(songs)} songs failed:", *failures, sep="\n  ", file=sys.stderr)
    return bool(failures)


def separate(separator: Separator, song: Song, folder: Path, form: StemFormat) -> Report:
    layout = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left"
    with tqdm(desc=song.name, bar_format=layout, leave=False, disable=None) as bar:

        def progress(done: int, samples: int) -> None:
            bar.total = samples or None
            bar.update(done - bar.n)

        return render(separator, song.file, folder, form, progress)


def describe(folder: Path, report: Report) -> str:
    """One line: the length, the time taken as a share of it, and the level of each stem."""
    minutes, seconds = divmod(round(report.seconds), 60)
    levels = ", ".join(f"{stem} {tally.level:.1f} dBFS" for stem, tally in report.stems.items())
    line = f"{folder}: {minutes}:{seconds:02} in {report.elapsed / report.seconds:.3f} of its length: {levels}"
    if report.gain < 1:
        line += f"; all stems {report.gain:.3f} times as loud as in the song, lest they clip"
    beyond = sum(tally.beyond for tally in report.stems.values())
    return line + (f"; beyond full scale: {beyond} samples" if beyond else "")


if __name__ == "__main__":
    run_script(main)
