"""A page to listen to: `index.html` beside the stems, which plays every song with its stems in step."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from PIL import Image

from separation.audio.io import AudioReader
from separation.audio.tags import read_cover
from separation.errors import UserError
from separation.files import replacing
from separation.songs.outputs import song_title
from separation.songs.picture import paint, sketch

PLAYER = Path(__file__).with_name("player")
"""The page without its songs: HTML, and the CSS and JavaScript that go into it."""

COVER = 256
"""Pixels that a side of a cover has at most."""

OPENING, CLOSING = '<script type="application/json" id="songs">', "</script>"
"""What stands around the list of songs in the page: the page itself is the memory of the songs of earlier runs."""


class Page:
    """The page of a folder of stems. It is whole at any time, and lists each song as soon as that is added.

    Raises `UserError` when the folder has an `index.html` of another kind.
    """

    def __init__(self, folder: Path):
        self.folder, self.path = folder, folder / "index.html"
        self._read: tuple[tuple[int, int] | None, list[dict[str, Any]]] = None, []
        self._looked_for_gone = False
        self.songs()

    def add(self, name: str, stems: Mapping[str, Path], anew: bool = False, source: Path | None = None) -> None:
        """List a song with its stems, files below the folder; a song of that name that is listed makes way.

        Each stem has its picture beside it, which is made if the stem was made `anew`, or if there is none or an older
        one. Title and artist are those of the stems' tags. When the stems were made anew, the cover in `source`, the
        song, goes beside the first of them. Songs whose stems were gone at the first addition are listed no longer. A
        page that is right already is not written again. Raises `UserError` when a stem cannot be read or the page not
        written.
        """
        pictures = {stem: path.with_suffix(".png") for stem, path in stems.items()}
        if anew or not all(_is_newer(pictures[stem], path) for stem, path in stems.items()):
            sketches = {}
            for stem, path in stems.items():
                with AudioReader(path) as reader:
                    sketches[stem] = sketch(reader, reader.info)
            for stem, picture in paint(sketches).items():
                with replacing(pictures[stem]) as partial:
                    partial.write_bytes(picture)
        first, path = next(iter(stems.items()))
        with AudioReader(path) as reader:
            rate, tags = reader.info.sample_rate, reader.tags
            seconds = reader.info.samples / rate
        cover = path.with_suffix(".cover.jpg")
        if anew and source:
            _write_cover(cover, read_cover(source))
        parts = [
            {"name": stem, "audio": self._link(path), "picture": self._link(pictures[stem])}
            for stem, path in stems.items()
        ]
        song = {"name": name, "seconds": round(seconds, 3), "rate": rate, "stems": parts}
        title = song_title(tags, first)
        if title and not name.startswith(title):  # the name tells apart what has the same title
            song["title"] = title
        if tags.get("artist"):
            song["artist"] = tags["artist"]
        if cover.exists():
            song["cover"] = self._link(cover)
        listed = self.songs()
        there = listed if self._looked_for_gone else [other for other in listed if self._is_there(other)]
        self._looked_for_gone = True
        if song in there and len(there) == len(listed):
            return
        others = [other for other in there if other["name"] != name]
        songs = sorted([*others, song], key=lambda song: song["name"].casefold())
        with replacing(self.path) as partial:
            partial.write_text(fill_page(songs), encoding="utf-8", newline="")

    def songs(self) -> list[dict[str, Any]]:
        """The songs that the page lists now."""
        try:
            state = self.path.stat()
            found = state.st_mtime_ns, state.st_size
            if found != self._read[0]:
                self._read = found, self._listed(self.path.read_text(encoding="utf-8"))
            return list(self._read[1])
        except FileNotFoundError:
            return []
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{self.path} cannot be read ({error}): move it away.") from error

    def _listed(self, text: str) -> list[dict[str, Any]]:
        """The list in the text of a page. Raises `UserError` or ValueError when there is none of this program."""
        _, opening, rest = text.partition(OPENING)
        if not opening:
            raise UserError(f"{self.path} is a page of something else: move it away, or name another --output.")
        songs = json.loads(rest.partition(CLOSING)[0])
        if not (isinstance(songs, list) and all(map(_is_song, songs))):
            raise ValueError("its list of songs was changed by something else")
        return songs

    def _link(self, path: Path) -> str:
        return quote(path.relative_to(self.folder).as_posix())

    def _is_there(self, song: Mapping[str, Any]) -> bool:
        return all((self.folder / unquote(stem["audio"])).exists() for stem in song["stems"])


def fill_page(songs: list[dict[str, Any]], more: Path | None = None) -> str:
    """The HTML of the page for these songs.

    Of each there are its `name`, its `seconds`, and for each of its `stems` the `name` and the links `audio` and
    `picture`; perhaps the sample `rate` of the stems, a `title`, an `artist` and the link to a `cover`. The folder
    `more`, of a page that songs are dropped on, has a `more.html`, `more.css` and `more.js` to go in.
    """
    page = (PLAYER / "page.html").read_text(encoding="utf-8")
    for name in ("page.css", "ensemble.js", "channel.js", "wave.js", "deck.js", "page.js"):
        page = page.replace(f"{{{{ {name} }}}}", (PLAYER / name).read_text(encoding="utf-8"))
    for name in ("drop.css", "drop.js", "more.html", "more.css", "more.js"):
        text = ((PLAYER if name.startswith("drop") else more) / name).read_text(encoding="utf-8") if more else ""
        page = page.replace(f"{{{{ {name} }}}}", text)
    return page.replace("{{ songs }}", json.dumps(songs).replace("<", "\\u003c"))


def _is_song(value: Any) -> bool:
    """Whether a value is what the page knows of a song."""
    if not (isinstance(value, dict) and isinstance(value.get("name"), str) and isinstance(value.get("stems"), list)):
        return False
    if not all(isinstance(value.get(key, ""), str) for key in ("title", "artist", "cover")):
        return False
    texts = [stem.get(key) for stem in value["stems"] if isinstance(stem, dict) for key in ("name", "audio", "picture")]
    is_whole = len(texts) == 3 * len(value["stems"]) and all(isinstance(text, str) for text in texts)
    return is_whole and isinstance(value.get("seconds"), int | float) and isinstance(value.get("rate", 0), int)


def _write_cover(path: Path, cover: bytes | None) -> None:
    """Write a picture as a small jpeg; without one that can be read, none is left there."""
    try:
        content = io.BytesIO()
        with Image.open(io.BytesIO(cover or b"")) as picture:
            picture.thumbnail((COVER, COVER))
            picture.convert("RGB").save(content, "JPEG", quality=85)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        path.unlink(missing_ok=True)
    else:
        with replacing(path) as partial:
            partial.write_bytes(content.getvalue())


def _is_newer(path: Path, than: Path) -> bool:
    return path.exists() and path.stat().st_mtime_ns >= than.stat().st_mtime_ns
