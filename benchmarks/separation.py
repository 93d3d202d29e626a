"""Separation speed and memory of this project and its peers, measured as whole processes in turn.

    python -m benchmarks.separation --seconds 180 --runs 3 --peer-python peers/bin/python

Start-up is the time for one second of sound. The real-time factor is the time that each further second adds, processor
time the same over all cores, and memory the peak of the largest process. All are medians over the runs. Other load on
the machine affects processor time far less than elapsed time. Ratios are relative to this project's two stems. Peers
(`benchmarks.peers`) are included if they are installed for the interpreter --peer-python.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory, TemporaryFile

import numpy as np
import soundfile

from benchmarks import REPOSITORY
from benchmarks.memory import peak_megabytes
from benchmarks.peers import PEERS

OURS = ["create_songs.py", "--input", "SONG", "--output", "OUTPUT", "--overwrite", "--stems"]

UNTRAINED = """
import sys
from separation.inference.weights import build_network, save_weights
from separation.training.config import Config
from separation.stems import STEMS
config = Config(targets=STEMS)
save_weights(sys.argv[1], build_network(config), config)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--song", type=Path, help="a wav, flac or mp3 of at least --seconds (default: one is made up)")
    parser.add_argument("--seconds", type=int, default=180, help="how much of it to separate (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter of the peers (default: this one)")
    packages = [peer.package for peer in PEERS.values()]
    parser.add_argument("--peers", nargs="*", choices=packages, default=packages, help="packages (default: all)")
    parser.add_argument("--untrained", action="store_true", help="time four stems with untrained weights")
    arguments = parser.parse_args()
    if arguments.song:
        try:
            duration = soundfile.info(arguments.song).duration
        except (OSError, soundfile.SoundFileError):
            parser.error(f"--song {arguments.song} cannot be read: name a wav, flac or mp3 that is there.")
        if duration < arguments.seconds:
            parser.error(f"--song {arguments.song} lasts {duration:.0f} s: give one of --seconds {arguments.seconds}.")

    with TemporaryDirectory() as folder:
        songs = [write_song(Path(folder, f"{s}.wav"), s, arguments.song) for s in (1, arguments.seconds)]
        commands = our_commands(Path(folder), arguments.untrained)
        for name, peer in PEERS.items():
            if peer.package not in arguments.peers:
                continue
            if missing := first_missing(arguments.peer_python, peer.modules):
                print(f"{name} is skipped ({missing}): {arguments.peer_python} -m pip install {peer.package}")
            else:
                commands[f"{name} ({peer.weights})"] = [arguments.peer_python, "-c", peer.program, "SONG", "OUTPUT"]

        runs = {name: [] for name in commands}
        for _ in range(arguments.runs):
            for name, command in commands.items():
                (first, first_cpu, _), (whole, cpu, memory) = (measure(command, song, folder) for song in songs)
                runs[name].append((first, whole - first, cpu - first_cpu, memory))
                print(f"{name}: {first:.1f} s for 1 s, {whole:.1f} s for all, {memory:.0f} MB", flush=True)

    medians = {}
    for name, figures in runs.items():
        start_up, *further, memory = (median(column) for column in zip(*figures, strict=True))
        medians[name] = start_up, *(time / (arguments.seconds - 1) for time in further), memory
    titles = "start-up in s | real-time factor | processor time a second | peak memory in MB"
    print(f"\n| {arguments.seconds} s | {titles} |\n|---|---|---|---|---|")
    for name, figures in medians.items():
        ratios = [figure / ours for figure, ours in zip(figures, medians["two stems"], strict=True)]
        cells = zip(("{:.1f}", "{:.4f}", "{:.4f}", "{:.0f}"), figures, ratios, strict=True)
        print(f"| {name} |", " | ".join(f"{form.format(figure)} ({ratio:.1f}x)" for form, figure, ratio in cells), "|")


def our_commands(folder: Path, untrained: bool) -> dict[str, list[str]]:
    """This project's commands by name: both engines, two and four stems, both qualities of the shipped weights."""
    command = [sys.executable, *OURS]
    names = {"two": "two stems", "all": "four stems"}
    if untrained:
        weights = folder / "all.safetensors"
        run_python("-c", UNTRAINED, str(weights))
        return {"two stems": [*command, "two"], "four stems, untrained": [*command, "all", "--weights", str(weights)]}
    commands = {}
    for engine, title in (("torch", ""), ("onnx", ", ONNX Runtime")):
        for quality, better in (("fast", ""), ("best", ", best")):
            for stems, name in names.items():
                choice = [stems, "--engine", engine, "--weights", quality]
                commands[f"{name}{better}{title}"] = [*command, *choice]
    return commands


def run_python(*words: str) -> None:
    subprocess.run([sys.executable, *words], cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)


def first_missing(python: str, modules: Sequence[str]) -> str:
    """The interpreter's error for the first of these modules that it cannot import; empty if it can import all."""
    program = "import " + ", ".join(modules)
    done = subprocess.run([python, "-c", program], capture_output=True, text=True)
    return done.stderr.strip().rpartition("\n")[2] if done.returncode else ""


def write_song(path: Path, seconds: int, source: Path | None) -> Path:
    """Write the first seconds of a song, or of chords under noise, as a stereo wav.

    Works second by second, because memory of this process counts for the processes that it starts.
    """
    rate = soundfile.info(source).samplerate if source else 44100
    seconds_of_it = soundfile.blocks(source, rate, frames=seconds * rate, always_2d=True) if source else chords(rate)
    with soundfile.SoundFile(path, "w", rate, 2) as file:
        for block in islice(seconds_of_it, seconds):
            file.write(np.broadcast_to(block, (len(block), 2)))
    return path


def chords(rate: int) -> Iterator[np.ndarray]:
    """Yield chords under noise, `[rate, 2 channels]` for each second."""
    random = np.random.default_rng(0)
    phase = 2 * np.pi * np.arange(rate)[:, None] / rate  # in whole hertz: each second starts at phase 0
    notes = sum(np.sin(phase * pitch) for pitch in ([220, 221], [277, 276], [330, 331]))
    while True:
        yield 0.1 * notes + 0.05 * random.standard_normal(notes.shape)


def measure(command: Sequence[str], song: Path, folder: str) -> tuple[float, float, float]:
    """Run a command on a song. Returns elapsed seconds, processor seconds, and megabytes of its largest process."""
    output = Path(folder, "stems")
    output.mkdir(exist_ok=True)
    words = {"SONG": str(song), "OUTPUT": str(output)}
    with TemporaryFile() as log:
        start = time.perf_counter()
        process = subprocess.Popen([words.get(word, word) for word in command], cwd=REPOSITORY, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        if status:
            log.seek(0)
            sys.exit(f"{command[0]} failed on {song}:\n{log.read().decode(errors='replace')}")
    return seconds, usage.ru_utime + usage.ru_stime, peak_megabytes(usage)


if __name__ == "__main__":
    main()
