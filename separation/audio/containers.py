"""Containers around audio data: wav chunks with wrong sizes, chained Ogg streams, and the boxes of mp4.

An mp4 is a tree of boxes (ISO 14496-12). They reveal encryption and stems, and one can be added to the user data.
"""

from __future__ import annotations

import io
import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from separation.audio.formats import STEM_SUFFIXES

HEADER_BYTES = 1 << 20
"""Bytes at the start of a wav in which its format and samples are located."""


class Section(io.RawIOBase):
    """A byte range of a file as a file of its own, optionally behind a synthetic header."""

    def __init__(self, path: Path, start: int, end: int, header: bytes = b""):
        self.file = path.open("rb")
        self.start, self.size, self.header, self.place = start, len(header) + end - start, header, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self.place, os.SEEK_END: self.size}[whence]
        self.place = max(0, origin + offset)
        return self.place

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), max(0, self.size - self.place))
        made_up = self.header[self.place : self.place + count]
        self.file.seek(self.start + max(0, self.place - len(self.header)))
        content = made_up + self.file.read(count - len(made_up))
        buffer[: len(content)] = content
        self.place += len(content)
        return len(content)

    def close(self) -> None:
        self.file.close()
        super().close()


def repaired_wav(path: Path) -> Section | None:
    """A wav with inconsistent chunk sizes, behind a consistent header; None if none can be made.

    Some programs omit the pad byte after a chunk of odd size, which shifts everything after it.
    """
    with path.open("rb") as file:
        start = file.read(HEADER_BYTES)
    if not start.startswith(b"RIFF") or start[8:12] != b"WAVE":
        return None
    form, data = start.find(b"fmt "), start.find(b"data")
    if form < 0 or data < form or len(start) < data + 8:
        return None
    (size,) = struct.unpack_from("<I", start, form + 4)
    chunk = start[form : form + 8 + size]
    (stated,) = struct.unpack_from("<I", start, data + 4)
    begin, there = data + 8, path.stat().st_size - data - 8
    length = min(stated, there) if stated else there
    riff = struct.pack("<4sI4s", b"RIFF", min(4 + len(chunk) + 8 + length, 0xFFFFFFFF), b"WAVE")
    return Section(path, begin, begin + length, riff + chunk + struct.pack("<4sI", b"data", min(length, 0xFFFFFFFF)))


@dataclass(frozen=True)
class Chain:
    """The consecutive streams of an Ogg file, as byte ranges, and whether its last page is complete."""

    links: tuple[tuple[int, int], ...]
    is_whole: bool


def ogg_chain(path: Path) -> Chain | None:
    """Find the consecutive streams of an Ogg file (RFC 3533); None if it is not an Ogg file.

    Radio recordings and concatenated files hold several.
    """
    with path.open("rb") as file:
        if file.read(4) != b"OggS":
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as pages:
            starts, place, begins, end = [], 0, False, 0
            while 0 <= place <= len(pages) - 27:
                flags, segments = pages[place + 5], pages[place + 26]
                is_first = bool(flags & 2)
                if is_first and not begins:
                    starts.append(place)
                begins = is_first
                lacing = pages[place + 27 : place + 27 + segments]
                end = place + 27 + segments + sum(lacing)
                place = end if pages[end : end + 4] == b"OggS" else pages.find(b"OggS", place + 4)
            is_whole = end <= len(pages) and not pages[end : end + 4].startswith(b"O")
            ends = [*starts[1:], len(pages)]
            return Chain(tuple(zip(starts, ends, strict=True)), is_whole)


ENCRYPTED = (b"enca", b"drms", b"aavd")
"""Sample entries of encrypted audio: common encryption, iTunes, Audible."""

SAMPLE_ENTRIES = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")
"""Path in an mp4 to the boxes that name the codec of each track."""


def boxes(file: BinaryIO, position: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the boxes from `position` to `end` of a file: the type of each, and where its content begins and ends."""
    while position + 8 <= end:
        file.seek(position)
        size, kind = struct.unpack(">I4s", file.read(8))
        header = 8
        if size == 1:  # the size follows, in 64 bits
            size, header = int.from_bytes(file.read(8), "big"), 16
        stop = position + size if size else end
        if stop < position + header:
            return
        yield kind, position + header, stop
        position = stop


def find_boxes(path: Path, names: tuple[bytes, ...], skip: int = 0) -> list[bytes]:
    """Types of all boxes in the mp4 `path` that are nested in boxes of these names, in this order; empty if not an mp4.

    `skip` is the number of bytes that precede them in the innermost box.
    """
    with path.open("rb") as file:
        if file.read(8)[4:] not in (b"ftyp", b"moov", b"free", b"wide", b"mdat", b"skip"):
            return []
        places = [(0, file.seek(0, 2))]
        for name in names:
            places = [(start, stop) for place in places for kind, start, stop in boxes(file, *place) if kind == name]
        return [kind for begin, end in places for kind, _, _ in boxes(file, begin + skip, end)]


def is_encrypted(path: Path) -> bool:
    """Whether a file is an mp4 with encrypted audio. FFmpeg 8.1 opens it, but then reports invalid packets."""
    return bool(set(find_boxes(path, SAMPLE_ENTRIES, skip=8)).intersection(ENCRYPTED))


def is_stem_file(path: Path) -> bool:
    """Whether a file holds a song as its first track and its stems as the others."""
    return path.name.lower().endswith(STEM_SUFFIXES) or b"stem" in find_boxes(path, (b"moov", b"udta"))


def make_box(kind: bytes, content: bytes) -> bytes:
    """Serialise a box."""
    return struct.pack(">I4s", 8 + len(content), kind) + content


def add_user_data(path: Path, kind: bytes, content: bytes) -> None:
    """Add a box to `moov/udta` of the file `path`. `moov` must come last, as FFmpeg writes it, so no other data moves.

    Raises `ValueError` if another box is last.
    """
    with path.open("r+b") as file:
        *_, (last, begin, end) = boxes(file, 0, file.seek(0, 2))
        if last != b"moov":
            raise ValueError(f"{path} ends in {last!r}, not in moov")
        user_data, others = b"", b""
        for name, start, stop in boxes(file, begin, end):
            file.seek(start)
            inside = file.read(stop - start)
            if name == b"udta":
                user_data += inside
            else:
                others += make_box(name, inside)
        file.seek(begin - 8)
        file.write(make_box(b"moov", others + make_box(b"udta", user_data + make_box(kind, content))))
