"""Where the time of separating a song goes, and how close the network comes to the processor's peak.

    python -m benchmarks.parts --stems two all --seconds 60 --runs 3

Processor time of this process, in milliseconds per second of music: medians over the runs, in which the choices of
stems take turns. The limit is the network's multiplications at the speed of the fastest of some large products.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any
from unittest.mock import patch

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.separation import write_song
from separation.audio.formats import AudioFile
from separation.audio.io import AudioReader, AudioWriter
from separation.audio.stft import Spectral
from separation.inference import masking
from separation.inference.device import choose_precision
from separation.inference.separator import Separator
from separation.models import unet_stream
from separation.songs import render
from separation.songs.outputs import StemFormat
from separation.stems import STEMS

PARTS = {
    "decode": [(AudioReader, "__iter__")],
    "STFT": [(Spectral, "analyse"), (unet_stream, "compress")],
    "network": [(unet_stream.UNetStream, "logits")],
    "masks": [(masking.TorchStep, "__call__")],
    "inverse": [(Spectral, "synthesise")],
    "write": [(AudioWriter, "write"), (render, "round_together"), (render.Tally, "add")],
}
"""The functions of each part, without time spent in other parts that they call. The remainder is "joints"."""

CHOICES = {"two": ("vocals", "accompaniment"), "all": STEMS}

STARTS = {
    "Python": "",
    "NumPy": "import numpy",
    "torch": "import torch",
    "the command": "import separation.songs.command, separation.inference.passes",
}
"""Programs that cover the command's start-up, each including the previous one."""


class Stopwatch:
    """Processor time by part. The time of a nested part is not counted for the outer one."""

    def __init__(self, clock: Callable[[], float] = process_time):
        self.clock, self.times, self.running, self.since = clock, Counter(), ["joints"], clock()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self._switch()
        self.running.append(name)
        try:
            yield
        finally:
            self._switch()
            self.running.pop()

    def _switch(self) -> None:
        now = self.clock()
        self.times[self.running[-1]] += now - self.since
        self.since = now

    def watch(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function so that its time is measured; if it returns an iterator, the steps are too."""

        def watched(*args: Any, **options: Any) -> Any:
            with self.part(name):
                result = function(*args, **options)
            return self._steps(name, result) if isinstance(result, Iterator) else result

        return watched

    def _steps(self, name: str, steps: Iterator[Any]) -> Iterator[Any]:
        while True:
            with self.part(name):
                try:
                    step = next(steps)
                except StopIteration:
                    return
            yield step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--song", type=Path, help="a wav, flac or mp3 of at least --seconds (default: one is made up)")
    parser.add_argument("--stems", nargs="+", choices=CHOICES, default=["two"])
    parser.add_argument("--seconds", type=int, default=60, help="of music (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    separators = {stems: Separator.load(stems=CHOICES[stems], engine="torch") for stems in arguments.stems}
    with TemporaryDirectory() as folder:
        song = write_song(Path(folder, "song.wav"), arguments.seconds, arguments.song)
        runs = {stems: [] for stems in separators}
        for _ in range(arguments.runs):
            for stems, separator in separators.items():
                runs[stems].append(measure(separator, song, Path(folder)))
                print(f"{stems}: {sum(runs[stems][-1].values()):.1f} ms", file=sys.stderr, flush=True)
    names = [*PARTS, "joints"]
    medians = {stems: {name: median(run[name] for run in times) for name in names} for stems, times in runs.items()}
    print(f"| ms a second of music, {arguments.threads} threads |", " | ".join(medians), "|")
    print("|---|" + "---|" * len(medians))
    for name in names:
        print(f"| {name} |", " | ".join(f"{parts[name]:.1f}" for parts in medians.values()), "|")
    print("| all |", " | ".join(f"{sum(parts.values()):.1f}" for parts in medians.values()), "|")

    peak = max(peaks(precision_of(separator)) for separator in separators.values())
    products = {stems: multiplications(separator) for stems, separator in separators.items()}
    print("| multiplications, in thousand millions |", " | ".join(f"{n / 1e9:.2f}" for n in products.values()), "|")
    print("| the network at the peak |", " | ".join(f"{n / peak * 1e3:.1f}" for n in products.values()), "|")
    cells = (f"{n / peak * 1e3 / medians[stems]['network']:.2f}" for stems, n in products.items())
    print("| share of the peak |", " | ".join(cells), "|")
    kind = str(precision_of(separator)).removeprefix("torch.")
    print(f"\nPeak: {peak / 1e9:.0f} thousand million multiplications in {kind} a second of processor time.\n")

    print("| start-up | s |\n|---|---|")
    for name, program in STARTS.items():
        print(f"| {name} | {median(start(program) for _ in range(arguments.runs)):.2f} |")


def start(program: str) -> float:
    """Seconds that Python takes to run a program in a new process."""
    begin = perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True)
    return perf_counter() - begin


def measure(separator: Separator, song: Path, folder: Path) -> Counter[str]:
    """Processor time of each part, in milliseconds per second of music."""
    stopwatch = Stopwatch()
    with ExitStack() as stack:
        for name, functions in PARTS.items():
            for owner, attribute in functions:
                watched = stopwatch.watch(name, getattr(owner, attribute))
                stack.enter_context(patch.object(owner, attribute, watched))
        paths = {stem: folder / f"{stem}.wav" for stem in separator.stems}
        with stopwatch.part("joints"):
            report = render.render(separator, AudioFile(song), paths, StemFormat())
    return Counter({name: 1e3 * time / report.seconds for name, time in stopwatch.times.items()})


def multiplications(separator: Separator) -> float:
    """Multiplications in the network's convolutions and matrix products, per second of music."""
    network, settings = separator.network, separator.settings
    chunk = network.chunk(separator.chunk_frames)
    masks = network.masks(precision_of(separator))
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        masks(torch.zeros(2, settings.bins, chunk, dtype=torch.complex64))
    return counter.get_total_flops() / 2 * settings.sample_rate / settings.hop / chunk


def precision_of(separator: Separator) -> torch.dtype:
    return choose_precision(separator.precision, separator.network.device)


def peaks(dtype: torch.dtype, seconds: float = 2.0) -> float:
    """Multiplications per second of processor time, in the fastest of many large matrix products and convolutions."""
    matrix, image = torch.rand(1536, 1536).to(dtype), torch.rand(1, 128, 128, 256).to(dtype)
    weight = torch.rand(128, 128, 3, 3).to(dtype, memory_format=torch.channels_last)
    image = image.to(memory_format=torch.channels_last)
    ways = {
        1536**3: lambda: matrix @ matrix,
        128 * 128 * 9 * 128 * 256: lambda: torch.nn.functional.conv2d(image, weight, padding=1),
    }
    best, end = 0.0, perf_counter() + seconds
    with torch.inference_mode():
        while perf_counter() < end:
            for count, multiply in ways.items():
                start = process_time()
                multiply()
                best = max(best, count / (process_time() - start))
    return best


if __name__ == "__main__":
    main()
