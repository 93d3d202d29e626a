"""Songs that wait to be separated, one after the other, in a thread of their own."""

from __future__ import annotations

import secrets
import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from separation.audio.formats import AudioFile
from separation.errors import UserError
from separation.songs.batch import Settings, plan, separate
from separation.songs.find import Song, shortened
from separation.songs.outputs import Naming
from separation.songs.page import Page

UPLOADS = ".uploads"
"""The folder of songs that have come and are not separated yet, in that of the stems."""


class CancelledError(Exception):
    """The listener does not want this song any more."""


@dataclass
class Entry:
    """A song in the queue: its title, what became of it so far, and the share that is done."""

    name: str
    path: Path
    key: str = field(default_factory=lambda: secrets.token_hex(8))
    state: str = "uploading"
    """`uploading`, `waiting`, `running`, `done`, `failed` or `cancelled`."""
    progress: float = 0.0
    reason: str = ""

    def discard(self) -> None:
        """Let go of the file that came."""
        shutil.rmtree(self.path.parent, ignore_errors=True)

    def facts(self) -> dict[str, Any]:
        """What the page shows of it."""
        return {name: getattr(self, name) for name in ("key", "name", "state", "progress", "reason")}


class Queue:
    """Separates songs into a folder and lists them on its page; what earlier runs listed is there again.

    Raises `UserError` when the folder cannot be written, or has a page of another kind.
    """

    def __init__(self, folder: Path, settings: Settings):
        self.folder, self.settings = folder, settings
        self.naming, self.page = Naming(folder, settings.form.format), Page(folder)
        self.uploads = folder / UPLOADS
        shutil.rmtree(self.uploads, ignore_errors=True)  # of a run that is over
        try:
            self.uploads.mkdir(parents=True)
        except OSError as error:
            raise UserError(f"--output {folder} cannot be written: {error.strerror}.") from error
        self.entries: dict[str, Entry] = {}
        self.changed = threading.Condition()
        threading.Thread(target=self._work, daemon=True).start()

    def begin(self, name: str) -> Entry:
        """An entry for a song of this name that is about to come; its file is to be written at `entry.path`.

        The name is a title alone. Without tags it is what the stems are called after, so the file has it too, in a
        folder of its own.
        """
        title, suffix = Path(name.replace("\\", "/")).stem, Path(name).suffix.lower()
        title = "".join(letter if letter.isprintable() and letter not in '/:*?"<>|' else " " for letter in title)
        title = shortened(title.strip(" .")) or "song"
        suffix = suffix if suffix[1:].isalnum() and len(suffix) <= 6 else ""
        entry = Entry(title, self.uploads / secrets.token_hex(8) / f"{title}{suffix}")
        with self.changed:
            self.entries[entry.key] = entry
        return entry

    def finish(self, entry: Entry) -> None:
        """The song has come whole, and may be separated."""
        self._set(entry, "waiting")

    def cancel(self, key: str) -> None:
        """Take a song out of the queue, or its line off the page when it is over."""
        with self.changed:
            entry = self.entries.get(key)
            if entry is None:
                return
            if entry.state in ("done", "failed", "cancelled"):
                del self.entries[key]
            else:
                entry.state = "cancelled"
        entry.discard()

    def fail(self, entry: Entry, reason: str) -> None:
        """The song cannot be had."""
        entry.discard()
        self._set(entry, "failed", reason)

    def songs(self) -> list[Mapping[str, Any]]:
        """The songs on the page."""
        return self.page.songs()

    def queue(self) -> list[dict[str, Any]]:
        """The songs that are under way, and those that failed."""
        with self.changed:
            return [entry.facts() for entry in self.entries.values()]

    def _set(self, entry: Entry, state: str, reason: str = "") -> None:
        with self.changed:
            if entry.state != "cancelled":
                entry.state, entry.reason = state, reason
            self.changed.notify_all()

    def _work(self) -> None:
        while True:
            with self.changed:
                entry = next((entry for entry in self.entries.values() if entry.state == "waiting"), None)
                if entry is None:
                    self.changed.wait()
                    continue
                entry.state = "running"
            try:
                name = self._separate(entry)
                with self.changed:
                    entry.state, entry.name, entry.progress = "done", name, 1.0
            except CancelledError:
                pass
            except UserError as error:
                self.fail(entry, str(error).replace(str(entry.path), f"“{entry.name}”"))
            except Exception as error:  # a song must not end the queue
                self.fail(entry, f"“{entry.name}” cannot be separated ({error}).")
            entry.discard()

    def _separate(self, entry: Entry) -> str:
        """Separate a song and list it; the name that it goes by on the page."""
        jobs, failures = plan([Song(entry.name, AudioFile(entry.path))], self.naming, self.settings)
        if failures:
            raise failures[0][1]
        job = jobs[0]

        def tell(share: float) -> None:
            if entry.state == "cancelled":
                raise CancelledError
            entry.progress = share

        if not job.is_done:
            separate(job, self.settings, tell)
        self.page.add(job.song.name, job.paths, fresh=True, source=entry.path)
        return job.song.name
