"""Many songs are separated, one by one or side by side, and one that fails does not stop the others."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from separation.errors import UserError
from separation.network.separator import Separator
from separation.songs.find import Song
from separation.songs.naming import Naming
from separation.songs.outputs import StemFormat
from separation.songs.render import RenderReport, render
from separation.workers import run_jobs


@dataclass(frozen=True)
class Job:
    """A song to separate: the path of each of its stems, by name, and that of all, with `*` for the name."""

    song: Song
    paths: Mapping[str, Path]
    files: Path

    @property
    def is_done(self) -> bool:
        """Whether all its stems are there."""
        # os.path, because Path.exists raises for a folder that may not be entered
        return all(map(os.path.exists, self.paths.values()))


@dataclass(frozen=True)
class Settings:
    """What songs are separated with: the weights, the device, the stems, and how these are written."""

    weights: Path
    device: str
    stems: tuple[str, ...]
    form: StemFormat


def plan(songs: Sequence[Song], naming: Naming, stems: Sequence[str]) -> list[Job]:
    """A job for each song. Raises `UserError` when stems would overwrite each other or a song."""
    naming.check(songs, stems)
    return [Job(song, naming.paths(song.name, stems), naming.path(song.name, "*")) for song in songs]


def separate_songs(
    jobs: Sequence[Job],
    settings: Settings,
    workers: int = 1,
    threads: int | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> Iterator[tuple[Job, RenderReport | UserError]]:
    """Separate songs, yielding each with its report, or with the reason why it failed, in the order they end.

    One worker is this process, and tells `progress` which share of the running song is done. Several are processes,
    each with weights of its own and a share of the `threads`.
    """
    alone = min(workers, len(jobs)) <= 1
    work = partial(separate, settings=settings, progress=progress) if alone else partial(separate, settings=settings)
    return run_jobs(work, jobs, workers, threads)


def separate(job: Job, settings: Settings, progress: Callable[[float], None] = lambda share: None) -> RenderReport:
    """Separate one song. Raises `UserError` as `render` does."""

    def tell(done: int, samples: int) -> None:
        if samples:
            progress(done / samples)

    separator = load_separator(settings.weights, settings.device, settings.stems)
    return render(separator, job.song.file, job.paths, settings.form, tell)


@cache
def load_separator(weights: Path, device: str, stems: tuple[str, ...]) -> Separator:
    """The separator of these weights, loaded once a process. Raises `UserError` as `Separator.load` does."""
    return Separator.load(weights, device, stems)
