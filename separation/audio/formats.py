"""File formats: which suffixes are audio, and how each format is encoded. Requires no third-party package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from separation.errors import UserError

AUDIO_SUFFIXES = (
    ".wav", ".flac", ".aiff", ".aif", ".ogg", ".opus", ".m4a", ".aac", ".mp3", ".wma", ".wv", ".tta", ".ape", ".mac",
    ".tak", ".shn", ".caf", ".aifc", ".au", ".snd", ".w64", ".rf64", ".bwf", ".dsf", ".dff", ".mka", ".weba", ".oga",
    ".spx", ".m4b", ".m4r", ".3ga", ".adts", ".mp2", ".mpa", ".mp+", ".mpc", ".ac3", ".eac3", ".ec3", ".dts", ".dtshd",
    ".mlp", ".thd", ".amr", ".ra", ".oma", ".aa3", ".xwma", ".voc", ".qoa",
)  # fmt: skip
"""Suffixes of audio files that FFmpeg or libsndfile can decode; earlier ones take precedence."""

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".qt", ".mkv", ".mk3d", ".webm", ".avi", ".divx", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg",
    ".vob", ".3gp", ".3g2", ".flv", ".f4v", ".wmv", ".asf", ".wtv", ".ogv", ".ogm", ".rm", ".rmvb", ".mxf", ".nut",
    ".dv",
)  # fmt: skip
"""Suffixes of videos."""

SONG_SUFFIXES = (*AUDIO_SUFFIXES, *VIDEO_SUFFIXES)
"""Suffixes of the files in a folder that count as songs."""

STEM_SUFFIXES = (".stem.mp4", ".stem.m4a")
"""Suffixes of files that hold a song and its stems, the song first."""


@dataclass(frozen=True)
class AudioFile:
    """Location of a signal: a file, and its audio track, counted from 0; None selects the one that players choose."""

    path: Path
    track: int | None = None


@dataclass(frozen=True)
class Coding:
    """A sample encoding: libsndfile's subtype or FFmpeg's codec, and its steps from silence to full scale."""

    codec: str
    full_scale: int | None = None


FORMATS = {
    "wav": {"16": Coding("PCM_16", 1 << 15), "24": Coding("PCM_24", 1 << 23), "32f": Coding("FLOAT")},
    "flac": {"16": Coding("flac", 1 << 15), "24": Coding("flac", 1 << 23)},
    "ogg": {"": Coding("VORBIS")},
    "mp3": {"": Coding("libmp3lame")},
    "m4a": {"": Coding("aac"), "16": Coding("alac", 1 << 15), "24": Coding("alac", 1 << 23)},
}
"""Formats of files that hold one stem each, with the codings by bits per sample: the first is the default."""

SHARED = {
    "mka": FORMATS["flac"],
    "mkv": FORMATS["flac"],
    "mp4": FORMATS["m4a"],
    "mov": FORMATS["m4a"],
    "webm": {"": Coding("libopus")},
}
"""Formats of files that hold several tracks, or a picture as well, in the same form."""


def find_format(path: Path, bits: str | None = None) -> tuple[str, Coding]:
    """The format and the coding for a file name and bits per sample. Raises `UserError` if there is none."""
    format, known = path.suffix[1:].lower(), FORMATS | SHARED
    if format not in known:
        message = f"{path} can't be written: its name should end with one of .{', .'.join(known)}."
        raise UserError(message, code="unknown_format")
    choices = known[format]
    bits = next(iter(choices)) if bits is None else bits
    if bits not in choices:
        allowed = " or ".join(filter(None, choices))
        if not allowed:
            raise UserError(f"{format} has no choice of bits: omit --bits.", code="unknown_bits")
        raise UserError(f"{format} is written with {allowed} bits, not with {bits}.", code="unknown_bits")
    return format, choices[bits]


def video_suffix(path: Path) -> str:
    """Suffix of a video that takes its picture from the video `path`: the same format if supported, else Matroska."""
    suffix = {".m4v": ".mp4", ".qt": ".mov"}.get(path.suffix.lower(), path.suffix.lower())
    return suffix if suffix[1:] in SHARED and suffix != ".mka" else ".mkv"
