"""Separate songs on a cluster whose workers are killed and added at random.

    python -m benchmarks.cluster --songs 200 --kills 8

In the end every song must be in the manifest once, and its files bit-identical to those of a single process.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from distributed import LocalCluster

from benchmarks import REPOSITORY
from benchmarks.made_up import write_mixture


def separating(songs: Path, output: Path, *options: str) -> subprocess.Popen:
    """Start create_songs.py."""
    command = [sys.executable, "create_songs.py", str(songs), "--output", str(output), *options]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL)


def disturb(cluster: LocalCluster, process: subprocess.Popen, kills: int, rng: random.Random) -> int:
    """Kill workers at random while the process runs, and add one halfway. Returns how many were killed."""
    killed = 0
    while process.poll() is None:
        time.sleep(rng.uniform(2, 8))
        running = [nanny.pid for nanny in cluster.workers.values() if nanny.pid]
        if killed < kills and running and process.poll() is None:
            os.kill(rng.choice(running), signal.SIGKILL)
            killed += 1
            if killed == (kills + 1) // 2:
                cluster.scale(len(cluster.workers) + 1)
    return killed


def stems(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.wav"))}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--songs", type=int, default=200, help="how many (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=2.5, help="how long each (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="at the start (default: %(default)s)")
    parser.add_argument("--kills", type=int, default=8, help="workers to kill (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        songs, one, there = (Path(folder) / name for name in ("songs", "one", "there"))
        songs.mkdir()
        for seed in range(arguments.songs):
            write_mixture(songs / f"{seed}.wav", seed, arguments.seconds)
        start = time.monotonic()
        assert separating(songs, one).wait() == 0
        print(f"one process: {time.monotonic() - start:.0f} s")
        start = time.monotonic()
        with LocalCluster(n_workers=arguments.workers, threads_per_worker=1, dashboard_address=None) as cluster:
            process = separating(songs, there, "--cluster", cluster.scheduler_address)
            killed = disturb(cluster, process, arguments.kills, random.Random(arguments.seed))
            code, workers = process.returncode, len(cluster.workers)
        print(f"cluster: {time.monotonic() - start:.0f} s, {killed} workers killed, {workers} at the end")

        lines = [json.loads(line) for line in (there / "manifest.jsonl").read_text().splitlines()]
        counts = Counter(line["song"] for line in lines if line["result"] == "done")
        expected, found = stems(one), stems(there)
        left = [path.name for path in there.rglob("*.partial")]
        print(
            f"exit code {code}; {len(lines)} lines, {len(counts)} songs done, each once: {set(counts.values()) == {1}}"
        )
        print(f"{len(found)} files, bit-equal to those of one process: {found == expected}; half-written: {len(left)}")
        return int(code != 0 or len(counts) != arguments.songs or len(lines) != arguments.songs or found != expected)


if __name__ == "__main__":
    sys.exit(main())
