"""Separation time in a browser. Build the folder first with `python -m separation web FOLDER`.

    python -m benchmarks.browser FOLDER --song SONG.wav

Seconds for the song in Chromium, with one thread and with two in turn, and the size of the download before that.
"""

from __future__ import annotations

import argparse
import threading
from pathlib import Path
from statistics import median

from playwright.sync_api import Browser

from benchmarks.chromium import launched
from separation.apps.browser import make_server
from separation.audio.io import probe
from separation.runtime import run_script

NETWORKS = {"vocals": "two stems", "all": "four stems"}


def seconds_in(browser: Browser, address: str, song: Path, network: str, threads: int) -> tuple[float, float]:
    """Seconds from opening the page to the first chunk, and seconds for the whole song."""
    page = browser.new_page()
    page.set_default_timeout(600_000)
    page.goto(f"{address}?threads={threads}")
    page.select_option("#network", network)
    page.set_input_files("#pick", song)
    page.wait_for_function("document.querySelector('.queue .state')?.textContent.includes('%')")
    first = page.evaluate("performance.now()") / 1000
    page.wait_for_selector(".song")
    card = page.locator(".song")
    assert int(card.get_attribute("data-threads")) == threads
    took = float(card.get_attribute("data-took"))
    page.close()
    return first, took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--song", type=Path, required=True, help="what Chromium can play")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    options = parser.parse_args()
    info = probe(options.song)
    minutes = info.samples / info.sample_rate / 60
    server = make_server(options.folder, 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    shared = [*options.folder.glob("*.js"), *options.folder.glob("vendor/*"), options.folder / "index.html"]
    size = sum(path.stat().st_size for path in shared) / 1e6
    print(f"{minutes:.1f} minutes of music; the page takes {size:.1f} MB")
    with launched() as browser:
        for network, stems in NETWORKS.items():
            taken: dict[int, list[float]] = {1: [], 2: []}
            firsts = []
            for _ in range(options.rounds):
                for threads, seconds in taken.items():
                    address = f"http://127.0.0.1:{server.server_port}/"
                    first, took = seconds_in(browser, address, options.song, network, threads)
                    seconds.append(took / minutes)
                    firsts.append(first)
            one, two = (median(seconds) for seconds in taken.values())
            print(
                f"{stems}: {(options.folder / f'{network}.onnx').stat().st_size / 1e6:.1f} MB more; "
                f"{one:.1f} s a minute with one thread, {two:.1f} s with two ({one / two:.2f}); "
                f"{median(firsts):.1f} s from opening to the first chunk"
            )
    server.shutdown()


if __name__ == "__main__":
    run_script(main)
