"""Read and write tags and covers in every format, under one name each.

mutagen reads and writes them. FFmpeg 8.1 alone would lose a second artist in ID3v2.4, MP4, ASF and APE, and the tempo
in MP4; mutagen 1.48 reads neither Matroska nor RIFF's INFO, so FFmpeg reads these. Loudness, gapless data, identifiers
and the encoder describe the song's own file and are not kept.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

TAGS = {
    "title": ("TIT2", "©nam"),
    "artist": ("TPE1", "©ART", "Author"),
    "album": ("TALB", "©alb", "WM/AlbumTitle"),
    "albumartist": ("TPE2", "aART", "Album Artist", "album_artist", "WM/AlbumArtist"),
    "genre": ("TCON", "©gen", "WM/Genre"),
    "date": ("TDRC", "©day", "Year", "WM/Year"),
    "tracknumber": ("TRCK", "trkn", "track", "WM/TrackNumber"),
    "copyright": ("TCOP", "cprt"),
    "comment": ("COMM", "©cmt", "Description"),
    "bpm": ("TBPM", "tmpo", "WM/BeatsPerMinute"),
    "initialkey": ("TKEY", "----:com.apple.iTunes:initialkey", "initial_key", "key", "WM/InitialKey"),
}
"""Tags that are kept, by their names in Vorbis comments: the ID3 frame, the MP4 atom, and other names that are read."""

NAMES = {name.casefold(): tag for tag, names in TAGS.items() for name in (tag, *names)}

FRONT_COVER = 3
"""Picture type of the front cover in ID3 and FLAC."""


def read_tags(path: Path) -> dict[str, str]:
    """The tags of a file, named as in `TAGS`; several values, such as two artists, are joined by semicolons."""
    import mutagen
    from mutagen.apev2 import APEv2

    from separation.audio.decoders import open_container

    found: dict[str, str] = {}
    pairs: list[tuple[str, Any]] = []
    with suppress(Exception):  # bad tags must not prevent separation
        pairs += mutagen.File(path).tags.items()
    with suppress(Exception):
        pairs += APEv2(path).items()
    with suppress(Exception), open_container(path) as container:
        pairs += container.metadata.items()
    for key, value in pairs:
        key = "COMM" if key.startswith("COMM::") else key  # other comments hold technical data, such as iTunNORM
        if (tag := NAMES.get(key.casefold())) and (text := _text(value)):
            found.setdefault(tag, text)
    return found


def _text(value: Any) -> str:
    """The text of a tag value, which mutagen gives as a frame, list, number, pair or bytes."""
    values = getattr(value, "genres", None) or getattr(value, "text", value)
    texts = []
    for part in values if isinstance(values, list) else [values]:
        if isinstance(part, tuple):  # number and count
            part = "/".join(str(number) for number in part if number)
        texts += (part.decode(errors="replace") if isinstance(part, bytes) else str(part)).split("\0")
    return "; ".join(filter(None, texts))


def read_cover(path: Path) -> bytes | None:
    """The front cover of an audio file, else its first picture, as the bytes of a JPEG or PNG; None if it has none."""
    import av

    from separation.audio.decoders import has_flag, open_container

    with suppress(av.FFmpegError, OSError, ValueError), open_container(path) as container:
        pictures = [
            stream
            for stream in container.streams.video
            if has_flag(stream, "attached_pic") and stream.codec_context.name in ("mjpeg", "png")
        ]
        pictures.sort(key=lambda stream: "front" not in " ".join(stream.metadata.values()).casefold())
        for stream in pictures[:1]:
            return next((bytes(packet) for packet in container.demux(stream) if packet.size), None)
    return None


def write_tags(path: Path, format: str, tags: Mapping[str, str], cover: bytes | None = None) -> None:
    """Write tags, named as in `TAGS`, and a JPEG or PNG cover to a file of this format, if mutagen supports it.

    Raises `mutagen.MutagenError` if the file cannot be written.
    """
    from mutagen.flac import FLAC, Picture
    from mutagen.id3 import APIC, Frames
    from mutagen.mp3 import MP3
    from mutagen.mp4 import MP4, MP4Cover
    from mutagen.oggvorbis import OggVorbis
    from mutagen.wave import WAVE

    kinds: dict[str, Any] = {"wav": WAVE, "flac": FLAC, "ogg": OggVorbis, "mp3": MP3, "m4a": MP4, "mp4": MP4}
    if format not in kinds or not (tags or cover):
        return
    song = kinds[format](path)
    if song.tags is None:
        song.add_tags()
    mime = "image/png" if cover and cover.startswith(b"\x89PNG") else "image/jpeg"
    if format in ("wav", "mp3"):
        for tag, text in tags.items():
            song.tags.add(Frames[TAGS[tag][0]](encoding=3, text=[text]))
        if cover:
            song.tags.add(APIC(encoding=3, mime=mime, type=FRONT_COVER, data=cover))
    elif format in ("m4a", "mp4"):
        for tag, text in tags.items():
            with suppress(ValueError):  # such an atom cannot hold an invalid number
                song.tags[TAGS[tag][1]] = [_atom(TAGS[tag][1], text)]
        if cover:
            kind = MP4Cover.FORMAT_PNG if mime == "image/png" else MP4Cover.FORMAT_JPEG
            song.tags["covr"] = [MP4Cover(cover, imageformat=kind)]
    else:
        song.tags.update({tag: [text] for tag, text in tags.items()})
        if cover:
            picture = Picture()
            picture.type, picture.mime, picture.data = FRONT_COVER, mime, cover
            if format == "flac":
                song.add_picture(picture)
            else:
                song.tags["metadata_block_picture"] = [base64.b64encode(picture.write()).decode("ascii")]
    song.save()


def _atom(name: str, text: str) -> Any:
    """Convert a tag's text to the value of the MP4 atom `name`. Raises `ValueError` if it is not a valid number."""
    if name == "tmpo":
        return round(float(text))
    if name == "trkn":
        number, _, count = text.partition("/")
        return int(number), int(count or 0)
    return text.encode() if name.startswith("----") else text
