"""Jobs that worker processes do in tests; without torch, which takes each of them seconds to import."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from separation.errors import UserError
from separation.jobs import report_share


def double(number: int) -> int:
    if number == 3:
        raise UserError("3 cannot be doubled.")
    return 2 * number


def process_and_threads(_: int) -> tuple[int, str | None]:
    return os.getpid(), os.environ.get("OMP_NUM_THREADS")


def dangerous(folder: Path, job: int) -> int:
    """Job 3 kills its process each time, and 7 the first time; each notes that it was begun."""
    with (folder / f"{job}").open("a") as file:
        file.write("x")
    if job == 3 or (job == 7 and (folder / "7").read_text() == "x"):
        os.kill(os.getpid(), signal.SIGKILL)
    return job


def clears_away(folder: Path, job: int) -> None:
    path = folder / f"{job}"
    try:
        path.touch()
        time.sleep(60)
    finally:
        path.unlink()
        (folder / f"{job} cleared").touch()


def stops_itself(folder: Path, job: int) -> int:
    with (folder / f"{job}").open("a") as file:
        file.write("x")
    if job == 1 and (folder / "1").read_text() == "x":
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    return job


def half_done(folder: Path, job: int) -> int:
    report_share(0.5)
    while not (folder / "seen").exists():
        time.sleep(0.02)
    return job
