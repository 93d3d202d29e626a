"""The app's queue of jobs: uploaded songs, one after the other. Jobs are kept on disk and survive a restart."""

from __future__ import annotations

import hashlib
import itertools
import json
import secrets
import shutil
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from separation.audio.decoders import check_picture
from separation.audio.formats import FORMATS, STEM_SUFFIXES, AudioFile
from separation.errors import UserError, writing
from separation.files import portable_name, write_file
from separation.inference.config import parse
from separation.inference.separator import available_stems
from separation.songs.batch import Job, Settings, plan, separate
from separation.songs.command import STEM_SETS, choose_settings, make_parser, sort_out
from separation.songs.find import STEM_MP4, Song, shortened
from separation.songs.outputs import EXTENSIONS, STEM_FILE, VIDEO, Naming, join
from separation.songs.page import Page
from separation.stems import KNOWN_AS, STEMS, source_names

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

JOBS, RECORD, LOCK = ".jobs", "job.json", "lock"
"""The folder of all jobs, the record in the folder of each job, and the file that a running app holds locked."""

CLOSING_SECONDS = 5.0
"""How long the app, when it closes, waits for the current block of a song."""

PENDING, PENDING_BYTES = 500, 64 << 30
"""Maximum number of pending jobs, and total size of their songs in bytes."""

ENDED, KEPT_FILES = 1000, 4
"""Number of ended jobs that are remembered, and how many of them may hold a stem file."""

QUALITIES = ("fast", "best")
KINDS = ("stems", "stem_file")
STATES = ("uploading", "waiting", "running", "done", "failed")
OPEN_STATES = STATES[:3]


class CancelledError(Exception):
    """A client has deleted the job, or the app is closing."""


@dataclass
class StoredJob:
    """A song to separate, of `kind` "stems", or a stem file to write from a separated song, of `kind` "stem_file"."""

    folder: Path
    name: str
    kind: str = "stems"
    options: dict[str, str] = field(default_factory=dict)
    """The requested `stems`, `format` and `quality`."""
    file: str = ""
    """Name of the song or the stem file in `folder`."""
    state: str = "uploading"
    """One of `STATES`, or `cancelled`."""
    progress: float | None = 0.0
    """Fraction that is done; None if the length of the song is unknown."""
    size: int = 0
    """Bytes received."""
    song: str = ""
    """Name of the song on the page, once it is listed."""
    already_there: bool = False
    """Whether the stems existed before."""
    remarks: tuple[str, ...] = ()
    """What is odd about the song's file."""
    error: dict[str, str] | None = None
    """`code` and `message` of what went wrong."""

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def path(self) -> Path:
        return self.folder / self.file

    @classmethod
    def load(cls, record: Path, folder: Path) -> StoredJob:
        """Load the job of a record; it waits again if it had not ended. Raises ValueError or TypeError if invalid.

        The folder may come from someone else, so its records must not lead out of it.
        """
        job = parse(cls, {**json.loads(record.read_text(encoding="utf-8")), "folder": folder}, "")
        plain = all(name and name == Path(name).name != ".." for name in (job.name, job.file))
        if not plain or record.parent.is_symlink() or job.kind not in KINDS or job.state not in STATES:
            raise ValueError
        if job.state in OPEN_STATES:
            job.state, job.progress = "waiting", 0.0
        return job

    def save(self) -> None:
        record = {**asdict(self), "folder": None}
        with suppress(UserError):  # a full disk must not stop the queue
            write_file(self.folder / RECORD, json.dumps(record))


@dataclass(frozen=True)
class Choices:
    """What a client may choose: the values of `stems`, `format` and `quality`, defaults first."""

    command: Mapping[str, Any]
    """What the command line decides: `weights`, `device`, `engine` and `network`, as in `separate`."""
    values: Mapping[str, tuple[str, ...]]
    licence: str = ""
    """Of the weights, in words."""

    @classmethod
    def find(cls, command: Mapping[str, Any], default: Mapping[str, str]) -> Choices:
        """All choices that the weights allow. Raises `UserError` if `default` is not one of them.

        If its `stems` are empty, they become those that the weights give.
        """
        separator = load_settings(command, **default).separator()
        whole = [name for name, stems in STEM_SETS.items() if {*stems} == {*separator.stems}]
        default = {**default, "stems": default["stems"] or ",".join(whole or separator.stems)}
        shipped = [name for target in STEMS for name in source_names([target])]
        names = dict.fromkeys(available_stems(separator.network) if command["weights"] else shipped)
        sets = [name for name, stems in STEM_SETS.items() if set(stems) <= set(names)]
        aliases = [alias for alias, stem in KNOWN_AS.items() if stem in names]
        values = {"stems": (*sets, *aliases, *names), "format": (*FORMATS, VIDEO), "quality": QUALITIES}
        found = {key: tuple(dict.fromkeys((default[key], *values[key]))) for key in values}
        return cls(command, found, separator.licence)

    def settings(self, options: Mapping[str, str]) -> Settings:
        """How a song is separated, with defaults for missing `options`. Raises `UserError` for unknown values."""
        chosen = {key: options.get(key) or values[0] for key, values in self.values.items()}
        for key, known in self.values.items():
            if chosen[key] not in known:
                raise UserError(f"{key} cannot be {chosen[key]}: choose among {', '.join(known)}.", f"unknown_{key}")
        return load_settings(self.command, **chosen)


def load_settings(command: Mapping[str, Any], stems: str, format: str, quality: str) -> Settings:
    """Settings as of the command `separate`; `stems` is one string. Raises `UserError` as `choose_settings` does."""
    names, others = sort_out(stems.split())
    if others:
        raise UserError(f"there is no stem called {others[0]}.", "unknown_stems")
    options = make_parser().parse_args([])  # the command's defaults
    vars(options).update(command, stems=names, format=format, quality=quality)
    return choose_settings(options)


class JobStore:
    """Processes jobs, one of each kind at a time, and lists the separated songs on the page of a folder.

    Takes over jobs that a stopped app left behind. Raises `UserError` if the folder cannot be written, or if its page
    was not written by this program.
    """

    def __init__(self, folder: Path, choices: Choices):
        self.folder, self.choices = folder, choices
        self.jobs: dict[str, StoredJob] = {}
        self.changed = threading.Condition()
        with writing(folder):
            self.own = folder / JOBS / secrets.token_hex(8)
            self.own.mkdir(parents=True)
            self._lock = lock(self.own / LOCK)
            self.page = Page(folder)
            for other in (folder / JOBS).iterdir():
                self._take_over(other)
        self.closing = False
        work = (("stems", self._separate), ("stem_file", self._join))
        self.threads = [threading.Thread(target=self._work, args=kind, daemon=True) for kind in work]
        for thread in self.threads:
            thread.start()

    def close(self) -> None:
        """End the threads at their next block; the next app to start takes over their jobs.

        A thread inside native code at interpreter exit would abort the process.
        """
        with self.changed:
            self.closing = True
            self.changed.notify_all()
        for thread in self.threads:
            thread.join(CLOSING_SECONDS)

    def _take_over(self, other: Path) -> None:
        """Take over the jobs of an app that has ended, whose lock the system has released."""
        is_other = other != self.own and not other.is_symlink() and (other / LOCK).is_file()
        held = lock(other / LOCK) if is_other else None
        if held is None:
            return
        with held:
            for record in sorted(other.glob(f"*/{RECORD}"), key=lambda path: path.stat().st_mtime_ns):
                with suppress(OSError, ValueError, TypeError, RecursionError):
                    job = StoredJob.load(record, self.own / record.parent.name)
                    record.parent.rename(job.folder)
                    self.jobs[job.id] = job
        shutil.rmtree(other, ignore_errors=True)

    def receive(self, name: str, options: Mapping[str, str], size: int = 0) -> StoredJob:
        """Create a job for an upload with this file name; the caller writes its content to `job.path`.

        Raises `UserError` if an option is invalid, or too many jobs are pending.
        """
        path = PurePosixPath(name.replace("\\", "/"))
        title = path.name[: -len(STEM_MP4)] if path.name.lower().endswith(STEM_SUFFIXES) else path.stem
        title, suffix = shortened(portable_name(title.strip(" ._") or "song")), path.suffix.lower()
        suffix = suffix if suffix[1:].isalnum() and len(suffix) <= 6 else ""
        self.choices.settings(options)
        return self._add(
            StoredJob(self.own / secrets.token_hex(8), title, "stems", dict(options), f"{title}{suffix}"), size
        )

    def write_stem_file(self, song: str) -> StoredJob:
        """Create a job for the stem file of a song on the page. Raises `UserError` if too many jobs are pending."""
        file = f"{shortened(portable_name(song))}.{EXTENSIONS[STEM_FILE]}"
        job = self._add(StoredJob(self.own / secrets.token_hex(8), song, "stem_file", {}, file, song=song))
        self.start(job)
        return job

    def _add(self, job: StoredJob, size: int = 0) -> StoredJob:
        with self.changed:
            pending = [other for other in self.jobs.values() if other.state in OPEN_STATES]
            if len(pending) >= PENDING or sum(other.size for other in pending) + size > PENDING_BYTES:
                raise UserError(f"{len(pending)} songs are waiting: try again later.", "queue_full")
            with writing(job.folder):
                job.folder.mkdir()
            self.jobs[job.id] = job
        return job

    def check(self, job: StoredJob) -> None:
        """Raise `UserError` if the uploaded song is to become a video but has no picture."""
        if self.choices.settings(job.options).form.format == VIDEO:
            check_picture(job.path, f"“{job.name}”")

    def start(self, job: StoredJob) -> None:
        """Queue a job that has everything it needs."""
        with self.changed:
            if job.state == "uploading":
                job.state, job.progress = "waiting", 0.0
                job.save()
                self.changed.notify_all()

    def fail(self, job: StoredJob, error: UserError) -> None:
        """End a job with an error."""
        message = str(error).replace(str(job.path), f"“{job.name}”")
        self._end(job, state="failed", error={"code": error.code, "message": message})

    def delete(self, id: str) -> None:
        """Cancel a job, or forget it if it has ended. Raises `KeyError` if there is no such job."""
        with self.changed:
            job = self.jobs.pop(id)
            running, job.state = job.state == "running", "cancelled"
        if not running:  # else its thread does this
            shutil.rmtree(job.folder, ignore_errors=True)

    def _end(self, job: StoredJob, **facts: Any) -> None:
        with self.changed:
            if job.state == "cancelled":
                return
            for name, value in facts.items():
                setattr(job, name, value)
            if job.kind == "stems":
                with suppress(OSError):
                    job.path.unlink(missing_ok=True)
            job.save()
            ended = [other for other in self.jobs.values() if other.state not in OPEN_STATES]
            files = [other for other in ended if other.kind == "stem_file"]
            for other in {old.id: old for old in (*ended[:-ENDED], *files[:-KEPT_FILES])}:
                self.delete(other)

    def _work(self, kind: str, work: Callable[[StoredJob], None]) -> None:
        while not self.closing:
            with self.changed:
                waiting = (job for job in self.jobs.values() if (job.kind, job.state) == (kind, "waiting"))
                if (job := next(waiting, None)) is None:
                    if not self.closing:
                        self.changed.wait()
                    continue
                job.state = "running"
            try:
                work(job)
            except CancelledError:
                pass
            except UserError as error:
                self.fail(job, error)
            except Exception as error:  # one song must not stop the queue
                self.fail(job, UserError(f"“{job.name}” cannot be separated ({error}).", "internal"))
            if job.state == "cancelled":
                shutil.rmtree(job.folder, ignore_errors=True)

    def _separate(self, job: StoredJob) -> None:
        settings = self.choices.settings(job.options)
        work = self._plan(job, settings)
        remarks = () if work.is_done else separate(work, settings, lambda share: self._report(job, share)).remarks
        entry = self.page.describe(work.song.name, work.paths, not work.is_done, job.path)
        with self.changed:  # a job deleted before this point is not listed; one deleted later is
            if job.state == "cancelled":
                if not work.kept:
                    remove_stems(work, self.folder)
                raise CancelledError
            self.page.put(entry)
            facts = {"song": work.song.name, "already_there": work.is_done, "remarks": remarks}
            self._end(job, state="done", progress=1.0, **facts)

    def _plan(self, job: StoredJob, settings: Settings) -> Job:
        """Plan where the stems go: another song of the same name gets a number."""
        naming = Naming(self.folder, settings.form.format)
        for number in itertools.count(1):
            name = job.name if number == 1 else f"{job.name} ({number})"
            planned, failures = plan([Song(name, AudioFile(job.path))], naming, settings)
            if planned:
                return planned[0]
            if failures[0][1].code != "already_there":
                break
        raise failures[0][1]

    def _join(self, job: StoredJob) -> None:
        song = next((song for song in self.page.songs() if song["name"] == job.song), None)
        if song is None:
            raise UserError(f"“{job.song}” is no longer listed.", "unknown_song")
        stems = {stem["name"]: self.page.file(stem["audio"]) for stem in song["stems"]}
        cover = self.page.file(song["cover"]).read_bytes() if "cover" in song else None
        join(stems, job.path, cover, lambda share: self._report(job, share))
        self._end(job, state="done", progress=1.0)

    def _report(self, job: StoredJob, share: float) -> None:
        """Record the fraction of a job that is done, 0 if unknown. Raises `CancelledError` if it or the app ends."""
        if job.state == "cancelled" or self.closing:
            raise CancelledError
        job.progress = share or None


def remove_stems(work: Job, folder: Path) -> None:
    """Remove the stems of a song, their pictures, and their record."""
    for path in work.paths.values():
        for file in (path, path.with_suffix(".png"), path.with_suffix(".cover.jpg"), work.record):
            file.unlink(missing_ok=True)
        with suppress(OSError):  # the folder holds something else
            if path.parent != folder:
                path.parent.rmdir()


def song_id(name: str) -> str:
    """The identifier of a song in URLs."""
    return hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=8).hexdigest()


def lock(path: Path) -> BinaryIO | None:
    """The file, locked as long as it is open in this process, or None if another process holds the lock."""
    file = path.open("ab")
    try:
        if sys.platform == "win32":
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file
