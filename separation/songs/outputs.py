"""Output files for the stems of a song: their names and formats.

Each stem has its own file, or one file holds all of them, as DJ programs expect.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from string import Formatter

import numpy as np

from separation.audio.encoders import held_rate
from separation.audio.formats import FORMATS, find_format, video_suffix
from separation.audio.io import AudioInfo, AudioReader, AudioWriter
from separation.audio.tags import read_cover
from separation.errors import UserError
from separation.songs.find import Song
from separation.stems import FOUR

STEM_FILE = "stem"
STEM_FORMATS = {STEM_FILE: "stem.m4a", "stem.mp4": "stem.mp4", "mka": "mka"}
"""Formats that hold a song's mixture and its four stems in one file, with their suffixes.

The first two are by Native Instruments. Matroska, which is lossless, has the mixture as its first track, the only one
flagged default, and tracks of equal length and rate that are named after the stems: a profile of its own, following the
Internet-Draft draft-swhited-mka-stems-13 (20 August 2026), which may still change.
"""

VIDEO = "video"
"""The format of a video whose audio is the stem."""

EXTENSIONS = {format: format for format in FORMATS} | STEM_FORMATS | {VIDEO: "mkv"}
"""Formats of stems with their suffixes; a video keeps the suffix of the song if possible."""

COLOURS = {"drums": "#009E73", "bass": "#D55E00", "other": "#CC79A7", "vocals": "#56B4E9"}
"""The stems of a stem file, in order, with the colours in which programs show them."""

PICTURED = ("flac", "mp3", "m4a", *STEM_FORMATS)
"""Formats that hold a cover."""

CLIPS = ("rescale", "clamp", "none")

PATTERN = "{song}/{stem}.{ext}"
"""Default path of a stem."""

STEM_FILE_PATTERN = "{song}.{ext}"
"""Default path of a file that holds all stems of a song."""

FIELDS = ("song", "stem", "ext")

Stems = dict[str, np.ndarray]
"""A piece of a song: `[channels, n]` for each stem, by name."""


@dataclass(frozen=True)
class StemFormat:
    """How stems are written: `format` and `bits` as in `EXTENSIONS` and `FORMATS`, and the handling of clipping.

    If samples exceed full scale, `clip` attenuates all stems of the song equally (`rescale`), clamps the samples
    (`clamp`) or leaves them (`none`); the default is `none` for floating-point wav and `clamp` otherwise.
    `keep_original` adds the song's own audio to a video, as its second track. `full_scale` is in quantisation steps,
    None for formats without one. Raises `UserError` if these do not go together.
    """

    format: str = "wav"
    bits: str | None = None
    clip: str | None = None
    keep_original: bool = False
    full_scale: int | None = field(init=False)

    def __post_init__(self):
        _, coding = find_format(Path(f"song.{EXTENSIONS.get(self.format, self.format)}"), self.bits)
        object.__setattr__(self, "full_scale", coding.full_scale)
        if self.clip is None:
            object.__setattr__(self, "clip", "none" if coding.codec == "FLOAT" else "clamp")
        if self.clip == "none" and self.full_scale:
            raise UserError("--clip none needs --format wav --bits 32f: all other formats clip at full scale.")
        if self.keep_original and self.format != VIDEO:
            raise UserError(f"--keep-original keeps the sound of a video: add --format {VIDEO}.", "no_video")

    def limit(self, waveform: np.ndarray) -> np.ndarray:
        """A stem, clamped to full scale if `clip` says so."""
        return waveform.clip(-1, 1) if self.clip == "clamp" else waveform


class Naming:
    """Paths of stems: in `folder`, the pattern with its fields filled in; `.{ext}` is optional.

    Raises `UserError` if the pattern has unknown fields, leads out of the folder, or names no file of the format.
    """

    def __init__(self, folder: Path, format: str = "wav", pattern: str | None = None):
        if pattern is None:
            pattern = STEM_FILE_PATTERN if format in STEM_FORMATS else PATTERN
        self.folder, self.format, self.pattern = folder, format, complete(pattern, format)
        self.extension = EXTENSIONS[format]

    def path(self, song: str, stem: str, source: Path | None = None) -> Path:
        """The path of a stem of a song; a video keeps the suffix of the song's file `source` if possible."""
        extension = video_suffix(source)[1:] if source and self.format == VIDEO else self.extension
        return self.folder / self.pattern.format(song=song, stem=stem, ext=extension)

    def paths(self, song: str, stems: Iterable[str], source: Path | None = None) -> dict[str, Path]:
        """The path of each stem of a song, by name."""
        return {stem: self.path(song, stem, source) for stem in stems}

    def check(self, songs: Iterable[Song], stems: Sequence[str]) -> None:
        """Raise `UserError` if two stems would go to one file, or a stem would replace a song."""
        songs = list(songs)
        originals, taken = {os.path.realpath(song.file.path) for song in songs}, set()
        one = stems[:1] if self.format in STEM_FORMATS else stems
        for path in (path for song in songs for path in self.paths(song.name, one, song.file.path).values()):
            if os.path.realpath(path) in originals:
                raise UserError(f"{path} is a song, and one of the stems would overwrite it: name another --output.")
            if (key := str(path).casefold()) in taken:  # on some systems a.wav and A.wav are one file
                raise UserError(
                    f"--name {self.pattern} calls several stems {path}: tell them apart by {{song}} and {{stem}}."
                )
            taken.add(key)


def complete(pattern: str, format: str) -> str:
    """The pattern, with the suffix of the format appended if it lacks one. Raises `UserError` if it is invalid."""
    try:
        fields = [part[1:] for part in Formatter().parse(pattern) if part[1] is not None]
    except ValueError as error:
        raise UserError(f"--name {pattern} cannot be understood ({error}): write it like {PATTERN}.") from error
    allowed = FIELDS if format not in STEM_FORMATS else ("song", "ext")
    for name, spec, conversion in fields:
        if name not in allowed or spec or conversion:
            known = ", ".join(f"{{{one}}}" for one in allowed)
            raise UserError(f"--name {pattern} has a field {{{name}}}: there are only {known}.")
    end, extension = PurePath(pattern).suffix.lower(), EXTENSIONS[format]
    if not pattern.lower().endswith((".{ext}", f".{extension}")):
        if end[1:] in EXTENSIONS.values():
            raise UserError(
                f"--name {pattern} ends in {end}, but stems are written as {extension}: choose it with --format."
            )
        pattern += ".{ext}"
    example = PurePath(pattern.format(song="song", stem="stem", ext=extension))
    if example.anchor or ".." in example.parts:
        raise UserError(f"--name {pattern} leads out of the output folder: choose that folder with --output.")
    if not example.suffix:
        raise UserError(f"--name {pattern} names no file: write it like {PATTERN}.")
    return pattern


@contextmanager
def open_outputs(paths: Mapping[str, Path], form: StemFormat, reader: AudioReader) -> Iterator[Callable[[Stems], None]]:
    """Yield a function that writes the stems of the song that `reader` reads, piece by piece.

    Each file is complete when the block ends; after an error, none is written. Raises `UserError` as `AudioWriter`
    does, and if a stem file is to hold other stems than its four.
    """
    info, tags = reader.info, reader.tags
    title = tags.get("title") or reader.path.stem
    cover = read_cover(reader.path) if form.format in PICTURED else None
    format, coding = find_format(next(iter(paths.values())), form.bits)
    if (rate := held_rate(coding.codec, info.sample_rate)) != info.sample_rate:
        reader.remarks.append(f"resampled to {rate} Hz, as {format} does not hold {info.sample_rate} Hz")
    with ExitStack() as files:
        if form.format in STEM_FORMATS:
            check_stem_file(paths)
            path, named = next(iter(paths.values())), {**tags, "title": title}
            write = files.enter_context(open_stem_file(path, form, info, named, cover))
        else:
            writers = {}
            for stem, path in paths.items():
                named = {**tags, "title": stem_title(title, stem)}
                writer = AudioWriter(
                    path, info.sample_rate, info.channels, info.samples, form.bits, named, cover, [stem],
                    video=reader if form.format == VIDEO else None, keep_original=form.keep_original,
                )  # fmt: skip
                writers[stem] = files.enter_context(writer)

            def write(stems: Stems) -> None:
                for stem, writer in writers.items():
                    writer.write(form.limit(stems[stem]))

        yield write


@contextmanager
def open_stem_file(
    path: Path, form: StemFormat, info: AudioInfo, tags: Mapping[str, str], cover: bytes | None
) -> Iterator[Callable[[Stems], None]]:
    """Yield a function that writes the four stems of a song to one stem file, piece by piece; the song is their sum."""
    with AudioWriter(
        path, info.sample_rate, 2, info.samples, form.bits, tags, cover,
        names=["mixture", *COLOURS], user_data={} if path.suffix == ".mka" else {b"stem": manifest()},
    ) as writer:  # fmt: skip

        def write(stems: Stems) -> None:
            streams = [np.sum([*stems.values()], axis=0), *(stems[stem] for stem in COLOURS)]
            writer.write(*(np.broadcast_to(form.limit(stream), (2, stream.shape[1])) for stream in streams))

        yield write


def join(
    stems: Mapping[str, Path],
    path: Path,
    cover: bytes | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> None:
    """Write a stem file at `path` from four stems in separate files, with their tags.

    `progress` receives the fraction that is done, and may raise to stop. Raises `UserError` if these are other stems,
    if a file cannot be read, or if the stem file cannot be written.
    """
    check_stem_file(stems)
    with ExitStack() as files:
        readers = {stem: files.enter_context(AudioReader(file)) for stem, file in stems.items()}
        first, reader = next(iter(readers.items()))
        tags = {**reader.tags, "title": song_title(reader.tags, first)}
        write, done = files.enter_context(open_stem_file(path, StemFormat(STEM_FILE), reader.info, tags, cover)), 0
        for pieces in zip(*readers.values(), strict=True):
            write(dict(zip(readers, pieces, strict=True)))
            done += pieces[0].shape[1]
            progress(min(1.0, done / max(1, reader.info.samples)))


def stem_title(title: str, stem: str) -> str:
    """The title of a stem of a song."""
    return f"{title} ({stem})"


def song_title(tags: Mapping[str, str], stem: str) -> str:
    """The title of the song, from the tags of one of its stems; empty if it has none. The inverse of `stem_title`."""
    return tags.get("title", "").removesuffix(stem_title("", stem))


def check_stem_file(stems: Mapping[str, object] | tuple[str, ...]) -> None:
    """Raise `UserError` unless these are the four stems of a stem file."""
    if set(stems) != set(FOUR):
        message = f"a stem file holds {', '.join(COLOURS)} and the song: omit --stems, or choose another --format."
        raise UserError(message, "stem_file")


def manifest() -> bytes:
    """Content of the box `stem`: names and colours of the stems, with compressor and limiter disabled."""
    compressor = {"enabled": False, "ratio": 3, "attack": 0.003, "release": 0.3, "threshold": 0, "hp_cutoff": 300}
    compressor |= {"input_gain": 0.5, "output_gain": 0.5, "dry_wet": 50}
    limiter = {"enabled": False, "release": 0.05, "threshold": 0, "ceiling": -0.35}
    stems = [{"name": stem.capitalize(), "color": colour} for stem, colour in COLOURS.items()]
    return json.dumps(
        {"version": 1, "mastering_dsp": {"compressor": compressor, "limiter": limiter}, "stems": stems}
    ).encode()
