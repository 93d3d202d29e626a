"""Separate many songs, one by one or in parallel; a song that fails does not stop the others.

A small file beside the stems, `.separation.json`, records their song, weights and settings. It is written before the
first stem and completed after the last one, so that finished songs are skipped, a killed run can resume, and no file of
the user's is replaced unasked.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from functools import lru_cache, partial
from importlib.util import find_spec
from itertools import chain, count, islice, takewhile
from pathlib import Path
from typing import Any

from separation.audio.decoders import check_readable
from separation.errors import UserError, writing
from separation.files import sweep_partials, write_file
from separation.inference.separator import Separator
from separation.inference.weights import PASSES, PRETRAINED
from separation.jobs import report_share
from separation.runtime import prepare_torch
from separation.songs.find import Song, labelled
from separation.songs.outputs import Naming, StemFormat
from separation.songs.render import RenderReport, Segment, making_folders, render
from separation.stems import FOUR, KNOWN_AS

RECORD = ".separation"

encode = partial(json.dumps, indent=1, ensure_ascii=False)
"""The text of a record."""


@dataclass(frozen=True)
class Settings:
    """How songs are separated: weights, device, stems, output format and quality.

    Stems may be given by the aliases in `KNOWN_AS`; their files are then named after the aliases.
    """

    weights: tuple[Path, ...]
    device: str
    stems: tuple[str, ...]
    form: StemFormat
    best: bool = False
    segment: Segment | None = None
    network: str | None = None
    """The class of a network from another package, as named on the command line."""

    def separator(self) -> Separator:
        """The separator, loaded once per process. Raises `UserError` as `Separator.load` does."""
        stems = tuple(KNOWN_AS.get(stem, stem) for stem in self.stems)
        return load_separator(self.weights, self.device, stems, self.best, self.network)

    @property
    def names(self) -> tuple[str, ...]:
        """The names that the stems go by, in the separator's order."""
        return self.stems or self.separator().stems

    @property
    def made_with(self) -> dict[str, Any]:
        """Everything that affects the stems of a given song."""
        weights = [digest(path, path.stat().st_size, path.stat().st_mtime_ns) for path in self.weights]
        segment = self.segment and self.segment.name
        form = {name: value for name, value in asdict(self.form).items() if name != "keep_original" or value}
        return {"weights": weights, "stems": [*self.names], "best": self.best, "segment": segment, **form}

    @property
    def label(self) -> str:
        """The settings as part of a folder name, used if the song's own name is taken: `karaoke, mp3`."""
        own = dict.fromkeys(path.stem for path in self.weights if path.parent != PRETRAINED)
        bits = {None: "", "32f": "32-bit float"}.get(self.form.bits, f"{self.form.bits} bit")
        default = StemFormat(self.form.format, self.form.bits)
        words = (self.form.format, bits, self.form.clip)
        form = [word for word in words if word and word not in ("wav", default.clip)]
        stems = ["all"] if set(self.names) == set(FOUR) else self.names
        return ", ".join([*stems, *form, *["best"] * self.best, *own])


@dataclass(frozen=True)
class Job:
    """A song to separate: the path of each of its stems, by name, and the file that records how they were made."""

    song: Song
    paths: Mapping[str, Path]
    record: Path
    kept: tuple[str, ...] = ()
    """Stems that already exist."""

    @property
    def is_done(self) -> bool:
        return len(self.kept) == len(self.paths)


def plan(
    songs: Sequence[Song], naming: Naming, settings: Settings, overwrite: bool = False
) -> tuple[list[Job], list[tuple[Song, UserError]]]:
    """A job for each song, and the songs that cannot have one, each with the reason.

    A segment becomes part of the song's name. Raises `UserError` if stems would overwrite each other or a song.
    """

    def named(name: str) -> str:
        return labelled(name, settings.segment.name) if settings.segment else name

    songs = name_apart(songs, lambda name: record_path(naming, named(name), settings.names))
    songs = [replace(song, name=named(song.name)) for song in songs]
    naming.check(songs, settings.names)
    jobs, failures = [], []
    for song in songs:
        try:
            jobs.append(find_place(song, naming, settings, overwrite))
        except UserError as error:
            failures.append((song, error))
    return jobs, failures


def name_apart(songs: Sequence[Song], record: Callable[[str], Path]) -> list[Song]:
    """The songs under unique names; `record` gives the file that records the song of a name.

    Songs that have stems keep their names. If a name is taken, a song in another folder is "name (folder)", one in the
    same folder "name (wav)", and any further one "name (2)".
    """
    names: dict[Song, str] = {}
    taken: dict[str, Path] = {}

    def is_free(name: str) -> bool:
        return name.casefold() not in taken and not any(map(os.path.lexists, recorded(record(name))))

    def variants(song: Song, labels: Iterable[object]) -> Iterator[str]:
        return (labelled(song.name, label) for label in labels if label)

    def take(song: Song, free: Iterator[str]) -> None:
        for name in islice(free, 1):
            names[song], taken[name.casefold()] = name, real(song)

    for is_record_of in (is_of_path, is_of):  # of two copies, each keeps its own stems
        for song in (song for song in songs if song not in names):
            numbered = takewhile(lambda name: not is_free(name), variants(song, count(2)))
            known = chain([song.name], variants(song, [*song.labels, ", ".join(song.labels)]), numbered)
            own = (name for name in known if is_record_of(read_record(record(name)), song))
            take(song, (name for name in own if name.casefold() not in taken))
    for song in songs:
        if song not in names:
            first = taken.get(song.name.casefold()) or song_of(read_record(record(song.name))).get("path", "")
            is_beside = Path(str(first)).parent == real(song).parent
            labels = song.labels[1:] if is_beside else (*song.labels[:1], ", ".join(song.labels))
            take(song, filter(is_free, chain([song.name], variants(song, labels), variants(song, count(2)))))
    return [replace(song, name=names[song]) for song in songs]


def find_place(song: Song, naming: Naming, settings: Settings, overwrite: bool = False) -> Job:
    """The job of a song, under its name or, if stems with other settings exist there, under "name (karaoke, mp3)".

    Stems of the same song and settings are kept, and missing ones are written again. Raises `UserError` if other files
    are in the way, unless `overwrite` is set.
    """
    names, is_own_song = (song.name, labelled(song.name, settings.label)), False
    for name in names:
        paths = naming.paths(name, settings.names, song.file.path)
        job = Job(replace(song, name=name), paths, record_path(naming, name, settings.names))
        if overwrite:
            return job
        record = read_record(job.record)
        there = [stem for stem, path in paths.items() if os.path.lexists(path)]
        is_own_song = is_of(record, song)
        if is_own_song and record.get("made_with") == settings.made_with:
            return replace(job, kept=tuple(there if record.get("done", isinstance(record.get("files"), dict)) else ()))
        former = [*(paths[stem] for stem in there), *(path for path in recorded(job.record) if os.path.lexists(path))]
        if not former:
            return job
        if not is_own_song or paths == naming.paths(names[1], settings.names, song.file.path):
            break
    what = "with these settings" if is_own_song else "from this song"
    message = f"{former[0]} exists and was not made {what}: --overwrite replaces it, another --output keeps it."
    raise UserError(message, "already_there")


def record_path(naming: Naming, name: str, stems: Sequence[str]) -> Path:
    """The file that records how a song's stems were made; one for each song if songs share a folder."""
    folder, other = (naming.path(song, stems[0]).parent for song in (name, f"{name}-"))
    own = "" if folder != other else "-" + hashlib.blake2b(name.encode(errors="replace"), digest_size=6).hexdigest()
    return folder / f"{RECORD}{own}.json"


def read_record(path: Path) -> dict[str, Any]:
    """The content of a record; empty if it cannot be read."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def recorded(path: Path) -> list[Path]:
    """The files that a record names, which lie beside it; up to version 0.2, records also hold their sizes."""
    files = read_record(path).get("files")
    names = [name for name in files if isinstance(name, str)] if isinstance(files, list | dict) else []
    return [path.parent / name for name in names if Path(name).name == name]


def song_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a record says of its song; empty if nothing."""
    return known if isinstance(known := record.get("song"), dict) else {}


def real(song: Song) -> Path:
    """The path of a song without links; unlike `Path.resolve`, this never raises."""
    return Path(os.path.realpath(song.file.path))


def is_of_path(record: Mapping[str, Any], song: Song) -> bool:
    """Whether a record is of this song's file, whatever that held then."""
    return song_of(record).get("path") == str(real(song))


def is_of(record: Mapping[str, Any], song: Song) -> bool:
    """Whether a record is of this song: the same file, or one with the same content."""
    known, path = song_of(record), song.file.path
    try:
        size, changed = path.stat().st_size, path.stat().st_mtime_ns
    except OSError:
        return False
    if (known.get("size"), known.get("track")) != (size, song.file.track):
        return False
    is_same_file = (known.get("path"), known.get("changed")) == (str(real(song)), changed)
    return is_same_file or known.get("digest") == digest(path, size, changed)


@lru_cache(maxsize=1000)
def digest(path: Path, size: int, changed: int) -> str:
    """A hash of the content of a file; `size` and `changed` make the cache notice changes."""
    content = hashlib.blake2b()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            content.update(block)
    return content.hexdigest()[:32]


@contextmanager
def recording(job: Job, made_with: Mapping[str, Any]) -> Iterator[None]:
    """Record how a song's stems were made while they are written; an error restores the previous state."""
    path, status = job.song.file.path, job.song.file.path.stat()
    song = {"path": str(real(job.song)), "size": status.st_size, "changed": status.st_mtime_ns}
    song |= {"track": job.song.file.track, "digest": digest(path, status.st_size, status.st_mtime_ns)}
    files = [stem.name for stem in job.paths.values() if stem.parent == job.record.parent]
    record = {"song": song, "made_with": dict(made_with), "files": files}
    before, former = read_record(job.record), recorded(job.record)
    folders = {path.parent for path in job.paths.values()}
    with making_folders(job.paths.values()):
        try:
            write_file(job.record, encode(record))
            for folder in folders:
                sweep_partials(folder)
            yield
            write_file(job.record, encode({**record, "done": True}))
        except BaseException:
            with suppress(OSError, UserError):
                write_file(job.record, encode(before)) if before else job.record.unlink(missing_ok=True)
            for folder in folders:
                sweep_partials(folder, own=True)  # an interrupt may arrive at any moment
            raise
    for path in {*former} - {*job.paths.values()}:  # stems of earlier settings do not sum to the song with new ones
        with suppress(OSError):
            path.unlink()


def separate(job: Job, settings: Settings, progress: Callable[[float], None] = report_share) -> RenderReport:
    """Separate one song; `progress` receives the fraction that is done. Raises `UserError` as `render` does."""

    def tell(done: int, samples: int) -> None:
        progress(done / samples if samples else 0.0)  # also if the length is unknown: `progress` may raise to stop

    check_readable(job.song.file.path)
    with recording(job, settings.made_with):
        return render(
            settings.separator(), job.song.file, job.paths, settings.form, tell, settings.segment, kept=job.kept
        )


@lru_cache(maxsize=2)  # the app may alternate between two
def load_separator(
    weights: tuple[Path, ...], device: str, stems: tuple[str, ...], best: bool = False, network: str | None = None
) -> Separator:
    """The separator of these weights, loaded once per process; ONNX files do not require torch.

    Raises `UserError` as `Separator.load` does.
    """
    if find_spec("torch") and not all(path.suffix == ".onnx" for path in weights):
        prepare_torch()
    files = weights * PASSES if best and len(weights) == 1 else weights
    return Separator.load(files, device, stems, network=network)


class Manifest:
    """A file with one line of JSON per song; several runs, on several machines, may append to the same file.

    A line has the `time`, the `song`, its `stems` with their files, the `weights` and other `settings`, and the
    `result`: `done` with the length of the song in `seconds` and the seconds that it `took`, or `failed` with the
    `reason` and its `code`. Raises `UserError` if the file cannot be written.
    """

    def __init__(self, path: Path, settings: Settings):
        self.path, self.settings = path, settings
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # A line that is appended in a single write is not interleaved with those of other processes.
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def add(self, job: Job, report: RenderReport | UserError) -> None:
        """Append the line of a song."""
        line = json.dumps(self._facts(job, report), ensure_ascii=False) + "\n"
        try:
            os.write(self._file, line.encode(errors="surrogateescape"))
        except OSError as error:  # this must not stop the songs that follow
            print(f"{job.song.file.path} could not be recorded in {self.path}: {error.strerror}.", file=sys.stderr)

    def close(self) -> None:
        os.close(self._file)

    def _facts(self, job: Job, report: RenderReport | UserError) -> dict[str, Any]:
        form, segment = self.settings.form, self.settings.segment
        settings: dict[str, Any] = {"format": form.format, "bits": form.bits, "clip": form.clip}
        settings |= {"device": self.settings.device, "track": job.song.file.track}
        settings |= {"quality": "best" if self.settings.best else "fast", "segment": segment and segment.name}
        facts = {
            "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "song": str(job.song.file.path),
            "weights": [str(path) for path in self.settings.weights],
            "settings": settings,
            "stems": {stem: str(path) for stem, path in job.paths.items()},
        }
        if isinstance(report, UserError):
            return {**facts, "result": "failed", "reason": str(report), "code": report.code}
        return {**facts, "seconds": round(report.seconds, 3), "took": round(report.elapsed, 3), "result": "done"}
