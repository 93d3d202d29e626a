"""What became of every song of a batch, in JSON lines, as it goes."""

from __future__ import annotations

import json
import os
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from separation.errors import UserError
from separation.songs.batch import Job, Settings
from separation.songs.render import RenderReport


class Manifest:
    """A file that gets a line for each song; several runs, on several machines, may write to one.

    A line has the `song`, its `stems` with their files, the `weights` and other `settings`, how many `seconds` the song
    has and how many the work `took`, the `result`, which is `done` or `failed`, and of a song that failed the `reason`.
    Raises `UserError` when there can be no such file.
    """

    def __init__(self, path: Path, settings: Settings):
        self.path, self.settings = path, settings
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # A line that is appended in one go is not torn apart by those of other processes.
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        except OSError as error:
            raise UserError(f"the manifest {path} can't be written: {error.strerror}.") from error

    def add(self, job: Job, report: RenderReport | UserError) -> None:
        """Write the line of a song."""
        line = json.dumps(self._facts(job, report), ensure_ascii=False) + "\n"
        try:
            os.write(self._file, line.encode(errors="surrogateescape"))
        except OSError as error:  # this must not cost the songs that follow
            print(f"{job.song.file.path} is missing in {self.path}: {error.strerror}.", file=sys.stderr)

    def close(self) -> None:
        os.close(self._file)

    def _facts(self, job: Job, report: RenderReport | UserError) -> dict[str, Any]:
        form, segment = self.settings.form, self.settings.segment
        settings = {"format": form.format, "bits": form.bits, "clip": form.clip, "device": self.settings.device}
        settings |= {"quality": "best" if self.settings.best else "normal", "segment": segment and segment.name}
        facts = {
            "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "song": str(job.song.file.path),
            "weights": [str(path) for path in self.settings.weights],
            "settings": settings,
            "stems": {stem: str(path) for stem, path in job.paths.items()},
        }
        if isinstance(report, UserError):
            return {**facts, "result": "failed", "reason": str(report)}
        return {**facts, "seconds": round(report.seconds, 3), "took": round(report.elapsed, 3), "result": "done"}
