"""Where the stems of songs go: a pattern of names becomes a path for each stem, and no two of them the same."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath
from string import Formatter

from separation.errors import UserError
from separation.songs.find import Song
from separation.songs.outputs import EXTENSIONS, STEM_FILE

PATTERN = "{song}/{stem}.{ext}"
"""What stems are called by default."""

STEM_FILE_PATTERN = "{song}.{ext}"
"""What a file that holds all stems of a song is called by default."""

FIELDS = ("song", "stem", "ext")


class Naming:
    """The paths of stems: `folder`, and below it the pattern with its fields filled in; it may leave out its `.{ext}`.

    Raises `UserError` when the pattern has unknown fields, leads out of the folder, or names no file of the format.
    """

    def __init__(self, folder: Path, format: str = "wav", pattern: str | None = None):
        if pattern is None:
            pattern = STEM_FILE_PATTERN if format == STEM_FILE else PATTERN
        self.folder, self.format, self.pattern = folder, format, complete(pattern, format)
        self.extension = EXTENSIONS[format]

    def path(self, song: str, stem: str) -> Path:
        """Where a stem of a song goes. That of the stem "*" stands for all stems of the song."""
        return self.folder / self.pattern.format(song=song, stem=stem, ext=self.extension)

    def paths(self, song: str, stems: Iterable[str]) -> dict[str, Path]:
        """Where each stem of a song goes, by its name."""
        return {stem: self.path(song, stem) for stem in stems}

    def _files(self, song: str, stems: Iterable[str]) -> Iterable[Path]:
        paths = self.paths(song, stems).values()
        return set(paths) if self.format == STEM_FILE else paths

    def check(self, songs: Iterable[Song], stems: Sequence[str]) -> None:
        """Raise `UserError` when two stems would go to one file, or one to where a song lies."""
        songs = list(songs)
        originals, taken = {os.path.realpath(song.file.path) for song in songs}, set()
        for path in (path for song in songs for path in self._files(song.name, stems)):
            if os.path.realpath(path) in originals:
                raise UserError(f"{path} is a song, and one of the stems would take its place: name another --output.")
            if (key := str(path).casefold()) in taken:  # some systems take a.wav and A.wav for one file
                raise UserError(
                    f"--name {self.pattern} calls several stems {path}: tell them apart by {{song}} and {{stem}}."
                )
            taken.add(key)


def complete(pattern: str, format: str) -> str:
    """The pattern, with the end for the format if it has none. Raises `UserError` when it cannot be used."""
    try:
        fields = [part[1:] for part in Formatter().parse(pattern) if part[1] is not None]
    except ValueError as error:
        raise UserError(f"--name {pattern} cannot be understood ({error}): write it like {PATTERN}.") from error
    for field, spec, conversion in fields:
        if field not in FIELDS or spec or conversion:
            known = ", ".join(f"{{{name}}}" for name in FIELDS)
            raise UserError(f"--name {pattern} has a field {{{field}}}: there are only {known}.")
    end, extension = PurePath(pattern).suffix.lower(), EXTENSIONS[format]
    if not pattern.lower().endswith((".{ext}", f".{extension}")):
        if end[1:] in EXTENSIONS.values():
            raise UserError(
                f"--name {pattern} ends in {end}, but stems are written as {extension}: choose it by --format."
            )
        pattern += ".{ext}"
    example = PurePath(pattern.format(song="song", stem="stem", ext=extension))
    if example.anchor or ".." in example.parts:
        raise UserError(f"--name {pattern} leads out of the folder of the stems: choose that folder by --output.")
    if not example.suffix:
        raise UserError(f"--name {pattern} names no file: write it like {PATTERN}.")
    return pattern
