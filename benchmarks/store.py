"""Time for dataset.py to build a store, relative to the time for musdb to read the same songs.

    python -m benchmarks.store --root data/MUSDB18 --runs 3

Both are timed as whole processes, in turn, on the songs that musdb finds under --root.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks import REPOSITORY

READ = """
import sys
from separation.dataset.layouts import provide_ffmpeg
provide_ffmpeg()
import musdb
for track in musdb.DB(root=sys.argv[1], is_wav=sys.argv[2] == "wav"):
    track.audio, track.stems
"""
"""What musdb reads: the mixture, then all five streams."""


def seconds(*command: str | Path) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *map(str, command)], cwd=REPOSITORY, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of MUSDB18")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    root = arguments.root.resolve()
    layout = "mp4" if any(root.glob("*/*.stem.mp4")) else "wav"

    ratios = []
    for _ in range(arguments.runs):
        with TemporaryDirectory() as folder:
            build = seconds("dataset.py", "--dataset", "MUSDB18", "--root", root, "--vocals", "--output", folder)
        read = seconds("-c", READ, root, layout)
        ratios.append(build / read)
        print(f"dataset.py --vocals {build:6.1f} s   musdb {read:6.1f} s   ratio {build / read:.2f}", flush=True)
    print(f"median ratio {median(ratios):.2f}")


if __name__ == "__main__":
    main()
