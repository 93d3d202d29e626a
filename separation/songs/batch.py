"""Many songs are separated, one by one or side by side, and one that fails does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from separation.allocator import keep_freed_memory
from separation.audio.decoders import check_readable
from separation.errors import UserError
from separation.inference.separator import Separator
from separation.inference.stream import StreamSeparator
from separation.inference.weights import HEARINGS
from separation.jobs import run_jobs
from separation.runtime import prepare_torch
from separation.songs.find import Song
from separation.songs.memory import digest, find_place, remembering
from separation.songs.naming import Naming
from separation.songs.outputs import StemFormat
from separation.songs.render import RenderReport, render
from separation.songs.segment import Segment


@dataclass(frozen=True)
class Job:
    """A song to separate: the path of each of its stems, by name, and that of all, with `*` for the name."""

    song: Song
    paths: Mapping[str, Path]
    files: Path
    memory: Path
    """The file that remembers what the stems are of."""
    is_done: bool
    """Whether the stems are there already."""


@dataclass(frozen=True)
class Settings:
    """What songs are separated with: the weights, the device, the stems, how these are written, and how well."""

    weights: tuple[Path, ...]
    device: str
    stems: tuple[str, ...]
    form: StemFormat
    best: bool = False
    segment: Segment | None = None

    def separator(self) -> StreamSeparator:
        """The separator, loaded once a process. Raises `UserError` as `Separator.load` does."""
        return load_separator(self.weights, self.device, self.stems, self.best)

    @property
    def made_with(self) -> dict[str, Any]:
        """What makes stems of one song differ, as it is remembered beside them."""
        weights = [digest(path, path.stat().st_size, path.stat().st_mtime_ns) for path in self.weights]
        segment = self.segment and self.segment.name
        return {"weights": weights, "stems": [*self.stems], "best": self.best, "segment": segment, **asdict(self.form)}


def plan(
    songs: Sequence[Song], naming: Naming, settings: Settings, overwrite: bool = False
) -> tuple[list[Job], list[tuple[Song, UserError]]]:
    """A job for each song, and the songs that can have none, each with the reason.

    A segment is part of the name of its song. Raises `UserError` when stems would overwrite each other or a song.
    """
    stems, segment = settings.separator().stems, settings.segment
    if segment:
        songs = [replace(song, name=f"{song.name} ({segment.name})") for song in songs]
    naming.check(songs, stems)
    jobs, failures, made_with, names = [], [], settings.made_with, {song.name.casefold() for song in songs}
    for song in songs:
        try:
            place = find_place(song, naming, stems, made_with, overwrite, names)
        except UserError as error:
            failures.append((song, error))
            continue
        names.add(place.name.casefold())
        files = naming.path(place.name, "*")
        jobs.append(Job(replace(song, name=place.name), place.paths, files, place.memory, place.is_done))
    return jobs, failures


def separate_songs(
    jobs: Sequence[Job],
    settings: Settings,
    workers: int = 1,
    threads: int | None = None,
    cluster: str | None = None,
    folders: Sequence[Path] = (),
    progress: Callable[[float], None] = lambda share: None,
) -> Iterator[tuple[Job, RenderReport | UserError]]:
    """Separate songs, yielding each with its report, or with the reason why it failed, in the order they end.

    One worker is this process, and tells `progress` which share of the running song is done. Several are processes,
    each with weights of its own and a share of the `threads`. With the address of a `cluster`, the workers there do it,
    which must see `folders`, and all paths are absolute.
    """
    if cluster:
        make_folders(folders)  # each worker looks whether it sees them
    alone = min(workers, len(jobs)) <= 1 and not cluster
    work = partial(separate, settings=settings, progress=progress) if alone else partial(separate, settings=settings)
    return run_jobs(work, jobs, workers, threads, cluster, folders)


def separate(job: Job, settings: Settings, progress: Callable[[float], None] = lambda share: None) -> RenderReport:
    """Separate one song. Raises `UserError` as `render` does."""

    def tell(done: int, samples: int) -> None:
        if samples:
            progress(done / samples)

    check_readable(job.song.file.path)
    with remembering(job.song.file, job.paths, job.memory, settings.made_with):
        return render(settings.separator(), job.song.file, job.paths, settings.form, tell, settings.segment)


def make_folders(folders: Sequence[Path]) -> None:
    """Make these folders, if they are not there. Raises `UserError` when they cannot be made."""
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder} can't be made: {error.strerror}.") from error


@cache
def load_separator(
    weights: tuple[Path, ...], device: str, stems: tuple[str, ...], best: bool = False
) -> StreamSeparator:
    """The separator of these weights, loaded once a process; that of an ONNX file needs no torch.

    Raises `UserError` as `Separator.load` does.
    """
    keep_freed_memory()
    if not all(path.suffix == ".onnx" for path in weights):
        prepare_torch()
    return Separator.load(weights * HEARINGS if best and len(weights) == 1 else weights, device, stems)
