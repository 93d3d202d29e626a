"""Find the songs that a user means, by files, folders, globs, datasets or nothing at all, and name each of them."""

from __future__ import annotations

import glob
import hashlib
import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from separation.audio.formats import SONG_SUFFIXES, STEM_SUFFIXES, AudioFile
from separation.errors import UserError
from separation.files import is_hidden, portable_name, user_path, visible_files
from separation.stems import MIXTURE

CUSTOM = Path("input")
DATASETS = {
    "MUSDB18": ("test/*.stem.mp4", "test/*/mixture.wav"),
    "DSD100": ("Mixtures/Test/*/mixture.wav",),
}
"""Where the test songs of a dataset are in `data/<DATASET>`."""

LONGEST, LONGEST_LABELLED = 200, 230
"""Maximum bytes in the name of a song, without and with a label: file systems allow 255, and stems append to names."""

STEM_MP4 = ".stem.mp4"


@dataclass(frozen=True)
class Song:
    """A song to separate: the name of its folder of stems, and its file.

    `labels` tell it apart from songs of the same name: the folder of its file and the kind of its file, if a user knows
    them.
    """

    name: str
    file: AudioFile
    labels: tuple[str, ...] = ()


def find_songs(inputs: Sequence[str], track: int | None = None) -> tuple[list[Song], list[Path]]:
    """The songs that `inputs` name, each once, and the files in their folders that are not songs.

    An input is a file, a folder, a glob, `custom` for the folder `input`, or a dataset, which stands for its test
    songs. Without inputs, it is the first dataset found, else the short song that the stempeg package ships. `track` is
    the audio track of every file, counted from 0; by default the one that players choose. Hidden files and folders are
    skipped. Named files may be missing. Raises `UserError` if a folder has no songs or a glob matches no files.
    """
    found: list[Path] = []
    others: list[Path] = []
    for name in inputs or [default_input()]:
        if name in DATASETS:
            found += _test_songs(name)
            continue
        for path in _expand(name):
            if os.path.isdir(path):  # noqa: PTH112 (does not raise without permission)
                files = _files_in(path)
                songs = [file for file in files if is_song(file)]
                if not songs:
                    message = f"there are no songs in the folder {path}: put wav, flac, mp3, ogg or m4a there."
                    raise UserError(message, "no_songs")
                others += [file for file in files if not is_song(file)]
                found += songs
            else:
                found.append(path)
    places: dict[str, Path] = {}
    for path in found:
        places.setdefault(os.path.realpath(path), path)
    return [_named(path, Path(place), track) for place, path in places.items()], others


def default_input() -> str:
    """The input if the user names none."""
    for dataset, patterns in DATASETS.items():
        if any(any((Path("data") / dataset).glob(pattern)) for pattern in patterns):
            return dataset
    package = importlib.util.find_spec("stempeg")
    folder = Path(package.origin or "").parent if package else Path("data")
    songs = sorted(folder.glob(f"data/*{STEM_MP4}"))
    if not songs:
        raise UserError("there is nothing to separate: name songs, or a folder of songs.", "no_songs")
    return str(songs[0])


def _test_songs(dataset: str) -> list[Path]:
    root = Path("data") / dataset
    paths = sorted(path for pattern in DATASETS[dataset] for path in root.glob(pattern) if not is_hidden(path.name))
    if not paths:
        raise UserError(f"{root} has no test songs: put the dataset there, or name songs.", "no_songs")
    return paths


def _expand(name: str) -> list[Path]:
    """The paths that a name or a glob stands for."""
    if name == "custom":
        return [CUSTOM]
    path = user_path(name)
    if os.path.lexists(path) or not glob.has_magic(name):
        return [path]
    # Brackets may belong to the pattern or to a folder's name.
    patterns = (str(path), str(Path(glob.escape(str(path.parent))) / path.name))
    found = next(filter(None, (glob.glob(pattern, recursive=True) for pattern in patterns)), [])  # noqa: PTH207
    named = {*path.parts, ".."}
    visible = [match for match in map(Path, sorted(found)) if not any(map(is_hidden, {*match.parts} - named))]
    if not (files := [match for match in visible if not os.path.isdir(match)]):  # noqa: PTH112
        raise UserError(f"{name} matches no files.", "no_such_file")
    return files


def is_song(path: Path) -> bool:
    """Whether a file counts as a song, by its suffix."""
    return path.suffix.lower() in SONG_SUFFIXES


def _files_in(folder: Path) -> list[Path]:
    """The files in a folder or, if none of them is a song, also those in its subfolders."""
    try:
        entries = sorted(path for path in folder.iterdir() if not is_hidden(path.name))
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be read: {error.strerror}.", "cannot_read") from error
    files = [path for path in entries if os.path.isfile(path)]  # noqa: PTH113 (raises nothing)
    return files if any(map(is_song, files)) else [path for path in visible_files(folder) if os.path.isfile(path)]  # noqa: PTH113


def _title(path: Path) -> str:
    """The name of a file or, if it is the `mixture` in a folder of stems, of that folder."""
    if path.stem.lower() == MIXTURE and (folder := Path(os.path.abspath(path)).parent.name):  # noqa: PTH100 (no links)
        return shortened(folder)
    title = path.name[: -len(STEM_MP4)] if path.name.lower().endswith(STEM_SUFFIXES) else path.stem
    return shortened(title if title.strip(".") else path.name)  # ".." would be another folder


def shortened(title: str) -> str:
    """A title as a folder name that every system accepts, with room for more to be appended."""
    title = portable_name(title)
    return title if _fits(title) else title[: LONGEST // 4].rstrip()


def labelled(title: str, label: object) -> str:
    """`title (label)`; if that would be too long, both are shortened, and a hash of the whole keeps it unique."""
    name = f"{title} ({label})"
    if _fits(name, LONGEST_LABELLED):
        return name
    mark = hashlib.blake2b(name.encode(errors="replace"), digest_size=4).hexdigest()
    title, label = (_cut(text, LONGEST // 2 - len(mark)) for text in (title, str(label)))
    return f"{title} ({label}) {mark}"


def _cut(text: str, size: int) -> str:
    """The beginning of a text, at most `size` bytes of it."""
    while not _fits(text, size):
        text = text[:-1]
    return text.rstrip()


def _fits(name: str, size: int = LONGEST) -> bool:
    return len(name.encode(errors="replace")) <= size


def _named(path: Path, place: Path, track: int | None) -> Song:
    """A file under its title; `place` is its path without links."""
    title = _title(path)
    folder = next((folder for folder in (shortened(above.name) for above in place.parents) if folder != title), "")
    labels = tuple(filter(None, (folder, path.suffix[1:].lower())))
    return Song(title if track is None else labelled(title, f"track {track}"), AudioFile(path, track), labels)
