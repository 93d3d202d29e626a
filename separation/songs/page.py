"""A page to listen to: `index.html` beside the stems, which plays every song with its stems in step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from separation.audio.io import AudioReader
from separation.errors import UserError
from separation.files import replacing
from separation.songs.picture import paint, sketch

PLAYER = Path(__file__).with_name("player")
"""The page without its songs: HTML, and the CSS and JavaScript that go into it."""

OPENING, CLOSING = '<script type="application/json" id="songs">', "</script>"
"""What stands around the list of songs in the page: the page itself is the memory of the songs of earlier runs."""


class Page:
    """The page of a folder of stems. It is whole at any time, and lists each song as soon as that is added.

    Raises `UserError` when the folder has an `index.html` of another kind.
    """

    def __init__(self, folder: Path):
        self.folder, self.path = folder, folder / "index.html"
        self.songs()

    def add(self, name: str, stems: Mapping[str, Path]) -> None:
        """List a song with its stems, files below the folder; a song of that name that is listed makes way.

        Each stem has its picture beside it, which is made if it is not there or older than the stem. Songs whose stems
        are gone are listed no longer. Raises `UserError` when a stem cannot be read or the page not written.
        """
        pictures = {stem: path.with_suffix(".png") for stem, path in stems.items()}
        if not all(_is_newer(pictures[stem], path) for stem, path in stems.items()):
            sketches = {}
            for stem, path in stems.items():
                with AudioReader(path) as reader:
                    sketches[stem] = sketch(reader, reader.info)
            for stem, picture in paint(sketches).items():
                with replacing(pictures[stem]) as partial:
                    partial.write_bytes(picture)
        with AudioReader(next(iter(stems.values()))) as reader:
            seconds = reader.info.samples / reader.info.sample_rate
        parts = [
            {"name": stem, "audio": self._link(path), "picture": self._link(pictures[stem])}
            for stem, path in stems.items()
        ]
        song = {"name": name, "seconds": round(seconds, 3), "stems": parts}
        others = [other for other in self.songs() if other["name"] != name and self._is_there(other)]
        songs = sorted([*others, song], key=lambda song: song["name"].casefold())
        with replacing(self.path) as partial:
            partial.write_text(fill_page(songs), encoding="utf-8", newline="")

    def songs(self) -> list[dict[str, Any]]:
        """The songs that the page lists now."""
        try:
            _, opening, rest = self.path.read_text(encoding="utf-8").partition(OPENING)
            if opening:
                return json.loads(rest.partition(CLOSING)[0])
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path} cannot be read ({error}): move it away.") from error
        raise UserError(f"{self.path} is a page of something else: move it away, or name another --output.")

    def _link(self, path: Path) -> str:
        return quote(path.relative_to(self.folder).as_posix())

    def _is_there(self, song: Mapping[str, Any]) -> bool:
        return all((self.folder / unquote(stem["audio"])).exists() for stem in song["stems"])


def fill_page(songs: list[dict[str, Any]], more: Path | None = None) -> str:
    """The HTML of the page for these songs, each with its `name`, its `seconds`, and for each of its `stems` the `name`
    and the links `audio` and `picture`. The folder `more` may have a `more.html`, `more.css` and `more.js` to go in."""
    page = (PLAYER / "page.html").read_text(encoding="utf-8")
    for name in ("page.css", "ensemble.js", "page.js"):
        page = page.replace(f"{{{{ {name} }}}}", (PLAYER / name).read_text(encoding="utf-8"))
    for name in ("more.html", "more.css", "more.js"):
        page = page.replace(f"{{{{ {name} }}}}", (more / name).read_text(encoding="utf-8") if more else "")
    return page.replace("{{ songs }}", json.dumps(songs).replace("<", "\\u003c"))


def _is_newer(path: Path, than: Path) -> bool:
    return path.exists() and path.stat().st_mtime_ns >= than.stat().st_mtime_ns
