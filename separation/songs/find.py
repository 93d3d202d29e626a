"""Which songs a user means: files, folders, globs, datasets, or nothing at all; and the name that each one goes by."""

from __future__ import annotations

import glob
import importlib.util
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from separation.audio.formats import AUDIO_SUFFIXES, AudioFile
from separation.errors import UserError
from separation.stems import MIXTURE

CUSTOM = Path("input")
DATASETS = {
    "MUSDB18": ("test/*.stem.mp4", "test/*/mixture.wav"),
    "DSD100": ("Mixtures/Test/*/mixture.wav",),
}
"""Where the test songs of a dataset lie in `data/<DATASET>`."""

SONG_SUFFIXES = (*AUDIO_SUFFIXES, ".aifc", ".au", ".caf", ".m4b", ".mka", ".mkv", ".mov", ".mp4", ".w64", ".webm")
SONG_SUFFIXES += (".ac3", ".avi", ".mp2", ".oga", ".wv")
"""What a file in a folder ends with, if it is to count as a song."""

LONGEST = 200
"""Bytes that the name of a song may have: file systems take 255, and something is added."""

STEM_MP4 = ".stem.mp4"
STEM_FILES = (STEM_MP4, ".stem.m4a")
"""The ends of files that hold a song and its stems, the song first."""


@dataclass(frozen=True)
class Song:
    """A song to separate: the name of its folder of stems, and where it lies."""

    name: str
    file: AudioFile


def find_songs(inputs: Sequence[str]) -> tuple[list[Song], list[Path]]:
    """The songs that `inputs` name, each once and with a name of its own; and the files in their folders that are none.

    An input is a file, a folder, a glob, `custom` (the folder `input`), or a dataset (its test songs). Without any, it
    is the first dataset that is there, or else the short song that the stempeg package ships. Raises `UserError` when
    an input has no songs.
    """
    found, others = [], []
    for name in inputs or [default_input()]:
        if name in DATASETS:
            found += _test_songs(name)
            continue
        for path in _expand(name):
            if os.path.isdir(path):  # noqa: PTH112 (raises nothing where one may not look)
                files = _files_in(path)
                songs = [file for file in files if file.suffix.lower() in SONG_SUFFIXES]
                if not songs:
                    raise UserError(f"there are no songs in the folder {path}: put wav, flac, mp3, ogg or m4a there.")
                others += sorted({*files}.difference(songs))
                found += [Song(_title(file), AudioFile(file)) for file in songs]
            else:
                found.append(Song(_title(path), AudioFile(path)))
    return list(_name_apart(found)), others


def default_input() -> str:
    """What is separated when the user names nothing."""
    for dataset, patterns in DATASETS.items():
        if any(any((Path("data") / dataset).glob(pattern)) for pattern in patterns):
            return dataset
    package = importlib.util.find_spec("stempeg")
    songs = sorted(Path(package.origin).parent.glob(f"data/*{STEM_MP4}")) if package else []
    if not songs:
        raise UserError("there is nothing to separate: name songs, or a folder of them.")
    return str(songs[0])


def _test_songs(dataset: str) -> list[Song]:
    root = Path("data") / dataset
    paths = sorted(path for pattern in DATASETS[dataset] for path in root.glob(pattern))
    if not paths:
        raise UserError(f"{root} has no test songs: put the dataset there, or name songs.")
    return [Song(_title(path), AudioFile(path)) for path in paths]


def _expand(name: str) -> list[Path]:
    if name == "custom":
        return [CUSTOM]
    path = at_home(name)
    if os.path.lexists(path) or not glob.has_magic(name):
        return [path]
    # Brackets may be of the pattern, or of a folder's name.
    patterns = (str(path), str(Path(glob.escape(str(path.parent))) / path.name))
    found = next(filter(None, (glob.glob(pattern, recursive=True) for pattern in patterns)), [])  # noqa: PTH207
    files = [match for match in map(Path, sorted(found)) if not os.path.isdir(match)]  # noqa: PTH112
    if not files:
        raise UserError(f"{name} matches no files.")
    return files


def at_home(name: str) -> Path:
    """A path with `~` as the shell has it. Raises `UserError` when there is no such user."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise UserError(f"{name}: there is no such user here; write the folder out.") from None


def _files_in(folder: Path) -> list[Path]:
    """The files of a folder, and where it has none but folders, those below it."""
    try:
        entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise UserError(f"the folder {folder} can't be read: {error.strerror}.") from error
    files = [path for path in entries if os.path.isfile(path)]  # noqa: PTH113 (raises nothing)
    if any(file.suffix.lower() in SONG_SUFFIXES for file in files):
        return files
    below = (Path(place) / name for place, _, names in os.walk(folder) for name in names)
    return sorted(path for path in below if not path.name.startswith(".") and os.path.isfile(path))  # noqa: PTH113


def _title(path: Path) -> str:
    """What a file is called or, where it is the `mixture` in a folder of stems, that folder."""
    if path.stem.lower() == MIXTURE and (folder := Path(os.path.abspath(path)).parent.name):  # noqa: PTH100 (no links)
        return shortened(folder)
    title = path.name[: -len(STEM_MP4)] if path.name.lower().endswith(STEM_FILES) else path.stem
    title = title if title.strip(".") else path.name  # ".." would be another folder
    return shortened(title)


def shortened(title: str) -> str:
    """A title that is no longer than the name of a song may be."""
    return title if len(title.encode(errors="replace")) <= LONGEST else title[: LONGEST // 4].rstrip()


def _name_apart(songs: Iterable[Song]) -> Iterator[Song]:
    """Each file once; of songs with the same name, the second is called "name (wma)" after its kind, or "name (2)"."""
    files, names, counts = set(), set(), {}
    for song in songs:
        place = (os.path.realpath(song.file.path), song.file.stream)
        if place in files:
            continue
        name, kind = song.name, song.file.path.suffix[1:].lower()
        if name.casefold() in names and kind:
            name = f"{song.name} ({kind})"
        while name.casefold() in names:
            count = counts[song.name.casefold()] = counts.get(song.name.casefold(), 1) + 1
            name = f"{song.name} ({count})"
        files.add(place)
        names.add(name.casefold())
        yield Song(name, song.file)
