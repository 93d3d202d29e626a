"""Files whose container says the wrong thing, or more than one thing: wav chunks that do not add up, chained Ogg."""

from __future__ import annotations

import io
import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path

HEADER_BYTES = 1 << 20
"""Where the format and the samples of a wav are looked for."""


class Section(io.RawIOBase):
    """A stretch of a file as a file of its own, behind a header that may be made up."""

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

    def readinto(self, buffer) -> int:
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
    """A wav whose chunks do not add up, behind a header that does; None where there is none to be made.

    Some programs forget the byte that follows a chunk of odd size, and everything after it is shifted.
    """
    with path.open("rb") as file:
        start = file.read(HEADER_BYTES)
    if not start.startswith(b"RIFF") or start[8:12] != b"WAVE":
        return None
    form, data = start.find(b"fmt "), start.find(b"data")
    if form < 0 or data < form:
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
    """The streams that follow each other in an Ogg file, as byte ranges, and whether its last page is whole."""

    links: tuple[tuple[int, int], ...]
    is_whole: bool


def ogg_chain(path: Path) -> Chain | None:
    """How an Ogg file is put together (RFC 3533); None when it is no Ogg file.

    A radio recording, or files that were joined, hold one stream after the other.
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
