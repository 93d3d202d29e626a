"""Time from dropping a song on the app to hearing its stems, compared with the command on the same song.

    python -m benchmarks.app --song SONG.mp3 --stems all two --rounds 3

Seconds in Chromium, alternating with the command, and the app's peak memory. Linux only.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

from playwright.sync_api import Browser

from benchmarks.api import App
from benchmarks.chromium import launched
from separation.runtime import run_script


def with_app(browser: Browser, song: Path, stems: str) -> tuple[float, float, float]:
    """Seconds until the song is listed, seconds until all stems play, and peak megabytes."""
    with tempfile.TemporaryDirectory() as folder:
        app = App(Path(folder), ["--stems", stems])
        try:
            page = browser.new_page()
            page.set_default_timeout(600_000)
            page.goto(app.address)
            start = perf_counter()
            page.set_input_files("#pick", song)
            page.wait_for_selector(".song")
            listed = perf_counter() - start
            page.click(".play")
            while not page.evaluate("Song.current.at > 0.05"):
                page.wait_for_timeout(20)
            sounding = perf_counter() - start
            page.close()
        finally:
            memory = app.stop(signal.SIGTERM)
        return listed, sounding, memory


def by_command(song: Path, stems: str) -> float:
    """Seconds that the command takes, including start-up and loading the weights."""
    with tempfile.TemporaryDirectory() as folder:
        start = perf_counter()
        command = [sys.executable, "create_songs.py", str(song), "--stems", stems, "--output", folder, "--page"]
        subprocess.run(command, check=True, capture_output=True)
        return perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--song", type=Path, required=True)
    parser.add_argument("--stems", nargs="+", default=["all", "two"], help="default: all two")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    options = parser.parse_args()
    with launched() as browser:
        for stems in options.stems:
            rounds = [
                (*with_app(browser, options.song, stems), by_command(options.song, stems))
                for _ in range(options.rounds)
            ]
            listed, sounding, memory, command = map(median, zip(*rounds, strict=True))
            print(
                f"{stems}: listed after {listed:.1f} s, all stems sound after {sounding:.1f} s, the command "
                f"takes {command:.1f} s ({sounding / command:.2f}); the app takes {memory:.0f} MB"
            )


if __name__ == "__main__":
    run_script(main)
