"""What each folder of stems was made of, so that no song goes by another's stems and no file of the user's is lost.

A small file beside the stems, `.separation.json`, says which song, weights and settings they are of. It is there before
the first stem is, and is complete when the last one is.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

from separation.audio.formats import AudioFile
from separation.errors import UserError
from separation.files import replacing, sweep_partials
from separation.songs.find import Song
from separation.songs.naming import Naming

NAME = ".separation"


@dataclass(frozen=True)
class Place:
    """Where the stems of a song go, by stem, the file that remembers what they are of, and whether they are there."""

    name: str
    paths: Mapping[str, Path]
    memory: Path
    is_done: bool


def find_place(
    song: Song, naming: Naming, stems: Sequence[str], made_with: Mapping[str, Any], overwrite: bool, names: set[str]
) -> Place:
    """The place of a song's stems: where they are already, or the first that is free: "name", "name (2)" and so on.

    `made_with` says what the stems are made with, beside the song. A place with files that this program did not write,
    or with stems of another song or other settings, is left alone; with `overwrite` the song's own place is taken
    again. `names` are those that other songs of the run have, in lower case. Raises `UserError` when the pattern of
    names leads to no other place.
    """
    for number in count(1):
        name = song.name if number == 1 else f"{song.name} ({number})"
        if number > 1 and name.casefold() in names:
            continue
        paths = naming.paths(name, stems)
        memory = memory_path(naming, name, stems)
        if number > 1 and paths == naming.paths(song.name, stems):
            first = next(path for path in paths.values() if os.path.lexists(path))
            raise UserError(f"{first} is there already, and not of these settings: --overwrite replaces it.")
        place = Place(name, paths, memory, is_done=False)
        there = [path for path in paths.values() if os.path.lexists(path)]
        record = read_memory(memory)
        if record is None:
            if not there or overwrite:
                return place
        elif is_of(record, song.file):
            if overwrite:
                return place
            if record.get("made_with") == dict(made_with):
                if len(there) == len(paths) and record.get("files"):
                    return Place(name, paths, memory, is_done=True)
                if all(is_own(path, record) for path in there):
                    return place
    raise AssertionError("numbers end nowhere")


def memory_path(naming: Naming, name: str, stems: Sequence[str]) -> Path:
    """The file that remembers what a song's stems are of; one for each song where they share a folder."""
    folder, other = (naming.path(song, next(iter(stems))).parent for song in (name, f"{name}-"))
    own = "" if folder != other else "-" + hashlib.blake2b(name.encode(errors="replace"), digest_size=6).hexdigest()
    return folder / f"{NAME}{own}.json"


@contextmanager
def remembering(
    song: AudioFile, paths: Mapping[str, Path], memory: Path, made_with: Mapping[str, Any]
) -> Iterator[None]:
    """Claim the place of a song's stems while they are written, and remember them; after an error, leave no trace."""
    folders = [folder for folder in (memory.parent, *memory.parent.parents) if not os.path.exists(folder)]  # noqa: PTH110
    before = read_memory(memory)
    record = {"song": describe(song), "made_with": dict(made_with)}
    try:
        _write(memory, record)
        for folder in {path.parent for path in paths.values()}:
            sweep_partials(folder)
        yield
        files = {path.name: [*_stamp(path)] for path in paths.values()}
        _write(memory, {**record, "files": files})
    except BaseException:
        with suppress(OSError, UserError):
            if before is None:
                memory.unlink(missing_ok=True)
            else:
                _write(memory, before)
        for folder in {path.parent for path in paths.values()}:
            sweep_partials(folder, own=True)  # an interruption may come at any moment
        for folder in folders:
            with suppress(OSError):
                folder.rmdir()  # does nothing where there is something in it
        raise
    _remove_former(before, memory.parent, files)


def describe(song: AudioFile) -> dict[str, Any]:
    """What tells a song from any other: its content; and what tells quickly that it is still the same file."""
    size, changed = _stamp(song.path)
    return {
        "path": str(song.path.resolve()),
        "stream": song.stream,
        "size": size,
        "changed": changed,
        "digest": digest(song.path, size, changed),
    }


def is_of(record: Mapping[str, Any], song: AudioFile) -> bool:
    """Whether a record is of this song: the same file, or one with the same content."""
    known = record.get("song")
    if not isinstance(known, dict) or known.get("stream") != song.stream:
        return False
    try:
        size, changed = _stamp(song.path)
    except OSError:
        return False
    if known.get("size") != size:
        return False
    same_file = (known.get("path"), known.get("changed")) == (str(song.path.resolve()), changed)
    return same_file or known.get("digest") == digest(song.path, size, changed)


def is_own(path: Path, record: Mapping[str, Any]) -> bool:
    """Whether this program wrote a file as it is now; of a place whose stems were never finished, it wrote all."""
    files = record.get("files")
    return files is None or (isinstance(files, dict) and files.get(path.name) == [*_stamp(path)])


def read_memory(path: Path) -> dict[str, Any] | None:
    """What a place remembers; None where it remembers nothing that can be understood."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


@cache
def digest(path: Path, size: int, changed: int) -> str:
    """A number for the content of a file; `size` and `changed` say which content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:32] if hasattr(hashlib, "file_digest") else _slow(file)


def _slow(file) -> str:  # Python 3.10
    content = hashlib.blake2b()
    while block := file.read(1 << 20):
        content.update(block)
    return content.hexdigest()[:32]


def _remove_former(before: Mapping[str, Any] | None, folder: Path, files: Mapping[str, Any]) -> None:
    """Take away the stems of former settings that lie among the new ones: together they would not be the song."""
    former = (before or {}).get("files")
    for name in set(former if isinstance(former, dict) else {}) - set(files):
        with suppress(OSError):
            if Path(name).name == name and [*_stamp(folder / name)] == former[name]:
                (folder / name).unlink()


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _write(path: Path, record: Mapping[str, Any]) -> None:
    with replacing(path) as partial:
        partial.write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8", errors="replace")
