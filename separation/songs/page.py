"""The listening page: `index.html` beside the stems, which plays every song with its stems in sync."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from PIL import Image

from separation.audio.formats import FORMATS, SHARED
from separation.audio.io import AudioReader
from separation.audio.tags import read_cover
from separation.errors import UserError, writing
from separation.files import locking, write_file
from separation.songs.outputs import song_title
from separation.songs.picture import paint, sketch

PLAYER = Path(__file__).with_name("player")
"""The page without its songs: HTML, CSS and JavaScript."""

COVER = 256
"""Longest side of a cover, in pixels."""

OPENING, CLOSING = '<script type="application/json" id="songs">', "</script>"
"""What encloses the list of songs. The page itself is the record of songs from earlier runs."""

AUDIO, PICTURE, COVERS = tuple(f".{suffix}" for suffix in FORMATS | SHARED), (".png",), (".jpg",)
"""Suffixes allowed in the links of a page."""


class Page:
    """The page of a folder of stems. It is valid at any time and lists each song as soon as it is added.

    Raises `UserError` if the folder has an `index.html` that this program did not write.
    """

    def __init__(self, folder: Path):
        self.folder, self.path = folder, folder / "index.html"
        self._read: tuple[tuple[int, ...], list[dict[str, Any]]] = (), []
        self._looked_for_gone = False
        self.songs()

    def add(self, name: str, stems: Mapping[str, Path], fresh: bool = False, source: Path | None = None) -> None:
        """List a song with its stems; see `describe` and `put`."""
        self.put(self.describe(name, stems, fresh, source))

    def describe(
        self, name: str, stems: Mapping[str, Path], fresh: bool = False, source: Path | None = None
    ) -> dict[str, Any]:
        """The page's entry for a song whose stems are files below the folder. Draws their pictures beside them.

        Pictures are drawn if the stems are `fresh`, or if a picture is missing or out of date. Title and artist come
        from the stems' tags. If the stems are `fresh`, the cover in `source`, the song, is stored beside the first
        stem. Raises `UserError` if a stem cannot be read or a picture cannot be written.
        """
        pictures = {stem: path.with_suffix(".png") for stem, path in stems.items()}
        if fresh or not all(_is_newer(pictures[stem], path) for stem, path in stems.items()):
            sketches = {}
            for stem, path in stems.items():
                with AudioReader(path) as reader:
                    sketches[stem] = sketch(reader, reader.info)
            for stem, picture in paint(sketches).items():
                write_file(pictures[stem], picture)
        first, path = next(iter(stems.items()))
        with AudioReader(path) as reader:
            rate, tags = reader.info.sample_rate, reader.tags
            seconds = reader.info.samples / rate
        cover = path.with_suffix(".cover.jpg")
        if fresh and source:
            _write_cover(cover, read_cover(source))
        parts = [
            {"name": stem, "audio": self._link(path), "picture": self._link(pictures[stem])}
            for stem, path in stems.items()
        ]
        song: dict[str, Any] = {"name": name, "seconds": round(seconds, 3), "rate": rate, "stems": parts}
        title = song_title(tags, first)
        if title and not name.startswith(title):  # the name distinguishes songs of the same title
            song["title"] = title
        if tags.get("artist"):
            song["artist"] = tags["artist"]
        if cover.exists():
            song["cover"] = self._link(cover)
        return song

    def put(self, song: dict[str, Any]) -> None:
        """List a song, replacing any other of its name. A page that is up to date is not rewritten.

        Several processes may list songs on one page concurrently. The first call removes songs whose stems are gone.
        Raises `UserError` if the page cannot be written.
        """
        with locking(self.folder):
            listed = self.songs()
            there = listed if self._looked_for_gone else [other for other in listed if self._is_there(other)]
            self._looked_for_gone = True
            if song in there and len(there) == len(listed):
                return
            others = [other for other in there if other["name"] != song["name"]]
            songs = sorted([*others, song], key=lambda song: song["name"].casefold())
            write_file(self.path, fill_page(songs))

    def songs(self) -> list[dict[str, Any]]:
        """The songs that the page currently lists."""
        try:
            state = self.path.stat()
            found = state.st_mtime_ns, state.st_size, state.st_ino
            if found != self._read[0]:
                self._read = found, self._listed(self.path.read_text(encoding="utf-8"))
            return list(self._read[1])
        except FileNotFoundError:
            return []
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{self.path} cannot be read ({error}): move it away.", "bad_page") from error

    def _listed(self, text: str) -> list[dict[str, Any]]:
        """Parse the list in the text of a page. Raises `UserError` or ValueError if this program did not write it."""
        _, opening, rest = text.partition(OPENING)
        if not opening:
            raise UserError(f"{self.path} is not a page of this program: move it away.", "foreign_page")
        songs = json.loads(rest.partition(CLOSING)[0])
        if not (isinstance(songs, list) and all(map(_is_song, songs))):
            raise ValueError("another program has changed its list of songs")
        return songs

    def file(self, link: str) -> Path:
        """The file that a link of an entry points to. Raises `UserError` if it is missing or outside the folder."""
        path = self.folder / _path(link)
        if not (path.resolve().is_relative_to(self.folder.resolve()) and path.is_file()):
            raise UserError(f"{path.name} is gone.", "file_gone")
        return path

    def _link(self, path: Path) -> str:
        return quote(os.fsencode(path.relative_to(self.folder).as_posix()))

    def _is_there(self, song: Mapping[str, Any]) -> bool:
        return all((self.folder / _path(stem["audio"])).exists() for stem in song["stems"])


def fill_page(songs: list[dict[str, Any]], more: Path | None = None) -> str:
    """The HTML of the page for these songs, which are entries from `Page.describe`.

    The folder `more` holds `more.html`, `more.css` and `more.js`, which turn it into a page that accepts songs.
    """
    page = (PLAYER / "page.html").read_text(encoding="utf-8")
    for name in ("page.css", "ensemble.js", "channel.js", "wave.js", "deck.js", "page.js"):
        page = page.replace(f"{{{{ {name} }}}}", (PLAYER / name).read_text(encoding="utf-8"))
    for name in ("drop.css", "drop.js", "more.html", "more.css", "more.js"):
        text = ((PLAYER if name.startswith("drop") else more) / name).read_text(encoding="utf-8") if more else ""
        page = page.replace(f"{{{{ {name} }}}}", text)
    return page.replace("{{ songs }}", json.dumps(songs).replace("<", "\\u003c"))


def _is_song(value: Any) -> bool:
    """Whether a value is a page's entry for a song, with links only to audio and pictures below its folder."""
    try:
        stems = value["stems"]
        texts = [value["name"], value.get("title", ""), value.get("artist", ""), *(stem["name"] for stem in stems)]
        links = [(stem["audio"], AUDIO) for stem in stems] + [(stem["picture"], PICTURE) for stem in stems]
        links += [(value["cover"], COVERS)] if "cover" in value else []
        numbers = 0 <= value["seconds"] < 1e9 and 0 <= int(value.get("rate", 0)) < 1e9  # rejects NaN
        return numbers and all(isinstance(text, str) for text in texts) and all(_is_inside(*link) for link in links)
    except (AttributeError, KeyError, TypeError, ValueError):
        return False


def _path(link: str) -> str:
    return os.fsdecode(unquote_to_bytes(link))


def _is_inside(link: str, suffixes: tuple[str, ...]) -> bool:
    """Whether a link names a file with one of these suffixes below the page's folder: no scheme, host or `..%2F..`."""
    if not re.fullmatch(r"[\w.~%/-]+", link, re.ASCII):
        return False
    path = _path(link)
    return not (Path(path).anchor or ".." in Path(path).parts or "\0" in path) and path.lower().endswith(suffixes)


def _write_cover(path: Path, cover: bytes | None) -> None:
    """Write a picture as a small JPEG; if it cannot be read, remove any existing file."""
    try:
        content = io.BytesIO()
        with Image.open(io.BytesIO(cover or b"")) as picture:
            picture.thumbnail((COVER, COVER))
            picture.convert("RGB").save(content, "JPEG", quality=85)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        with writing(path):
            path.unlink(missing_ok=True)
    else:
        write_file(path, content.getvalue())


def _is_newer(path: Path, than: Path) -> bool:
    return path.exists() and path.stat().st_mtime_ns >= than.stat().st_mtime_ns
