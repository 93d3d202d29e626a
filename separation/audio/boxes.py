"""MP4 files are boxes within boxes (ISO 14496-12): one is put into the user data of a file that FFmpeg has written."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


def boxes(file: BinaryIO, position: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The boxes from `position` to `end` of a file: the type of each, and where its content begins and ends."""
    while position + 8 <= end:
        file.seek(position)
        size, kind = struct.unpack(">I4s", file.read(8))
        header = 8
        if size == 1:  # the size follows, in 64 bits
            (size,), header = struct.unpack(">Q", file.read(8)), 16
        stop = position + max(size, header) if size else end
        yield kind, position + header, stop
        position = stop


def make_box(kind: bytes, content: bytes) -> bytes:
    """A box of that type."""
    return struct.pack(">I4s", 8 + len(content), kind) + content


def add_user_data(path: Path, kind: bytes, content: bytes) -> None:
    """Put a box into `moov/udta` of the file `path`, in which `moov` comes last, as FFmpeg writes it: nothing moves.

    Raises `ValueError` when another box is the last.
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
