"""Overhead of large batches: restarting with nothing left to do, and distributing jobs.

python -m benchmarks.scale --songs 10000 --jobs 2000
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distributed import LocalCluster

from benchmarks import REPOSITORY
from benchmarks.cluster import separating
from benchmarks.made_up import write_mixture
from separation.inference.weights import find_weights
from separation.jobs import run_jobs
from separation.songs.batch import Settings, plan, recording
from separation.songs.find import find_songs
from separation.songs.outputs import Naming, StemFormat


def write_songs(folder: Path, count: int, seconds: float) -> Path:
    """Write `count` songs that are all links to one. Returns that one."""
    folder.mkdir()
    first = folder / "0.wav"
    write_mixture(first, 0, seconds)
    for number in range(1, count):
        os.link(first, folder / f"{number}.wav")
    return first


def pretend(songs: Path, output: Path, count: int) -> None:
    """Write `count` songs, with links to one file in place of the stems that create_songs.py would have made."""
    first = write_songs(songs, count, 1.0)
    settings = Settings(find_weights("fast", ()), "auto", (), StemFormat())
    jobs, _ = plan(find_songs([str(songs)])[0], Naming(output), settings)
    for job in jobs:
        with recording(job, settings.made_with):
            for path in job.paths.values():
                os.link(first, path)


def seconds_to_start_again(count: int) -> float:
    """Seconds that create_songs.py takes to find that there is nothing to do."""
    with tempfile.TemporaryDirectory() as folder:
        songs, output = Path(folder) / "songs", Path(folder) / "outputs"
        pretend(songs, output, count)
        command = [sys.executable, "create_songs.py", str(songs), "--output", str(output), "--jobs", "2"]
        start = time.monotonic()
        result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
        assert result.stdout.startswith(f"{count} songs: the stems are there already")
        return time.monotonic() - start


def nothing(job: int) -> int:
    return job


@contextmanager
def local_cluster(workers: int) -> Iterator[str]:
    settings = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**settings) as cluster:
        yield cluster.scheduler_address


def seconds_a_job(jobs: int, **options: object) -> float:
    """Seconds per empty job, measured in the second half, when all workers have started."""
    for number, _ in enumerate(run_jobs(nothing, range(2 * jobs), **options), start=1):
        if number == jobs:
            start = time.monotonic()
    return (time.monotonic() - start) / jobs


def songs_an_hour(songs: Path, *options: str) -> float:
    """Songs per hour that create_songs.py separates with these options, including start-up."""
    with tempfile.TemporaryDirectory() as output:
        start = time.monotonic()
        assert separating(songs, Path(output), "--device", "cpu", *options).wait() == 0
        return 3600 * len(list(songs.iterdir())) / (time.monotonic() - start)


def compare(count: int, rounds: int = 3) -> None:
    """Print 30-second songs per hour for one and two processes and for clusters of one and two workers, in turn."""
    with tempfile.TemporaryDirectory() as folder, local_cluster(1) as single, local_cluster(2) as double:
        write_songs(songs := Path(folder) / "songs", count, 30.0)
        ways = {
            "one process": ["--threads", "1"],
            "two processes": ["--threads", "2", "--jobs", "2"],
            "one worker": ["--cluster", single],
            "two workers": ["--cluster", double],
        }
        for address in (single, double):
            songs_an_hour(songs, "--cluster", address)  # warm-up: loads the weights
        for _ in range(rounds):
            print(
                ", ".join(f"{name} {songs_an_hour(songs, *options):.0f}" for name, options in ways.items()), flush=True
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--songs", type=int, default=10_000, help="that are done already (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2_000, help="empty ones to hand out (default: %(default)s)")
    parser.add_argument("--separate", type=int, default=24, help="songs to separate each way (default: %(default)s)")
    arguments = parser.parse_args()
    print(f"two processes: {1000 * seconds_a_job(arguments.jobs, workers=2):.2f} ms a job")
    with local_cluster(2) as address:
        print(f"two workers of a cluster: {1000 * seconds_a_job(arguments.jobs, cluster=address):.2f} ms a job")
    print(f"{arguments.songs} songs that are done: {seconds_to_start_again(arguments.songs):.1f} s to start again")
    print("songs of 30 seconds an hour:")
    compare(arguments.separate)


if __name__ == "__main__":
    main()
