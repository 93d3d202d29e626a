"""Kill scripts at random moments and between any two writes, restart them, and check that nothing is lost.

    python -m benchmarks.kills dataset train --kills 100 --seed 0

Half of the kills come after a random time, the others right before a random file operation of the script (open for
writing, rename, remove, make or remove a folder). After a few kills in a row the work is finished and compared with an
undisturbed run: bit-identical, no files left behind, and the user's files unchanged. `train_stops` instead sends
Ctrl-C, SIGTERM and SIGHUP to a run without intermediate checkpoints: each must leave a state to resume from, no earlier
than the previous one. Needs `fork`, so Linux or macOS.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import runpy
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import REPOSITORY
from benchmarks.made_up import SMALL, make_store, write_config, write_mixture, write_songs
from benchmarks.mutations.weights import Weights
from separation.audio.io import read
from separation.dataset.store import Store
from separation.inference.weights import load_weights
from separation.runtime import STOP_SIGNALS, signals_blocked
from separation.training.checkpoints import load_state

IN_A_ROW = 5
STOPPED = {128 + number for number in STOP_SIGNALS}
WRITES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}


class Dataset:
    """dataset.py builds a store of a few songs, some of them also at another speed."""

    def __init__(self, folder: Path):
        self.inputs = write_songs(folder / "songs", 4)

    def command(self, output: Path) -> list[str]:
        folders = ["--root", str(self.inputs), "--output", str(output)]
        return ["dataset.py", "--dataset", "FOLDER", *folders, "--vocals", "--speeds", "0.9", "--workers", "1"]

    def made(self, output: Path) -> dict[str, str]:
        return digests(output)

    def check(self, output: Path) -> None:
        """Whatever is marked as finished must be complete."""
        if (output / "settings.json").exists():
            for track in Store(output).tracks():
                track.check(Store(output).settings.bins)


class Train:
    """train.py trains for a few steps, validates, keeps the best weights, and fits their temperature at the end."""

    checkpoint_every = 2

    def __init__(self, folder: Path):
        self.inputs = make_store(folder / "store")
        every = {"steps": 9, "validate_every": 4, "checkpoint_every": self.checkpoint_every}
        self.config = write_config(folder / "config.yaml", self.inputs, **every)

    def command(self, output: Path) -> list[str]:
        resume = ["--resume"] if (output / "last.pt").exists() else []
        return ["train.py", "--config", str(self.config), "--device", "cpu", "--output", str(output), *resume]

    def made(self, output: Path) -> dict[str, str]:
        weights = load_weights(output / "best.safetensors")
        parts = {
            "last": load_state(output / "last.pt"),
            "best": weights.network.state_dict(),
            "about": weights.provenance,
        }
        names = {"files": sorted(path.name for path in output.iterdir())}
        return {name: digest(flat(part)) for name, part in (parts | names).items()}

    def check(self, output: Path) -> None:
        if (output / "last.pt").exists():
            load_state(output / "last.pt")
        if (output / "best.safetensors").exists():
            load_weights(output / "best.safetensors")


class TrainStops(Train):
    """The same without intermediate checkpoints, and stopped by signals instead of killed."""

    checkpoint_every = 1000
    signals = STOP_SIGNALS

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.steps: dict[Path, int] = {}

    def check(self, output: Path) -> None:
        super().check(output)
        step = load_state(output / "last.pt")["step"] if (output / "last.pt").exists() else 0
        begun = (output / "history.jsonl").exists() and "losses" in (output / "history.jsonl").read_text(
            encoding="utf-8"
        )
        if step < self.steps.get(output, 0) or (begun and not step):
            raise SystemExit(f"train_stops: {output} has lost the steps that it had taken")
        self.steps[output] = step


class Songs:
    """create_songs.py separates a few songs, and lowers the level of stems that would clip."""

    def __init__(self, folder: Path):
        self.inputs, self.weights = folder / "songs", Weights(folder).file
        self.inputs.mkdir()
        for seed in range(4):
            write_mixture(self.inputs / f"{seed}.wav", seed, sample_rate=SMALL.sample_rate)

    def command(self, output: Path) -> list[str]:
        options = ["--weights", str(self.weights), "--output", str(output), "--threads", "1", "--clip", "rescale"]
        return ["create_songs.py", str(self.inputs), *options]

    def made(self, output: Path) -> dict[str, str]:
        return {name: content for name, content in digests(output).items() if ".separation" not in name}

    def check(self, output: Path) -> None:
        """Every stem that exists must be complete."""
        for path in output.glob("*/*.wav"):
            read(path)


SCRIPTS: dict[str, Callable[[Path], Any]] = {
    "dataset": Dataset,
    "train": Train,
    "train_stops": TrainStops,
    "create_songs": Songs,
}


def flat(value: object) -> bytes:
    """Nested state as bytes, with every bit of its tensors."""
    if isinstance(value, torch.Tensor):
        return value.contiguous().numpy().tobytes()
    if isinstance(value, dict):
        return b"{%s}" % b",".join(repr(key).encode() + b":" + flat(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return b"[%s]" % b",".join(map(flat, value))
    return repr(value).encode()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def digests(folder: Path) -> dict[str, str]:
    """A digest of every file below a folder, by relative path."""
    return {str(path.relative_to(folder)): digest(path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def start(command: list[str], output: Path, log: Path, at_write: int | None = None) -> int:
    """Fork, run a script in the child as `python SCRIPT ...` would, and return the child's process id."""
    with signals_blocked():
        process = os.fork()
        if process:
            return process
        for number in STOP_SIGNALS:  # one that arrives before the script handles it ends this process alone
            signal.signal(number, signal.SIG_DFL)
    with log.open("wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    if at_write is not None:
        kill_at_write(output, at_write)
    sys.argv = command
    try:
        runpy.run_path(str(REPOSITORY / command[0]), run_name="__main__")
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:  # must not go on as a second tormentor
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    os._exit(code)


def kill_at_write(output: Path, number: int) -> None:
    """Kill this process just before its n-th file operation below `output`, counting from 0."""
    count = 0

    def watch(event: str, arguments: tuple) -> None:
        nonlocal count
        writes = event in WRITES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        if writes and str(output) in os.fsdecode(arguments[0] if not isinstance(arguments[0], int) else b""):
            count += 1
            if count > number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def wait(process: int, seconds: float | None = None, number: int = signal.SIGKILL) -> bool:
    """Let a process run for at most `seconds`, then send it a signal. Returns whether a signal ended it."""
    if seconds is not None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                return judge(status)
            time.sleep(0.001)
        os.kill(process, number)
    return judge(os.waitpid(process, 0)[1])


def judge(status: int) -> bool:
    if os.WIFSIGNALED(status) or os.WEXITSTATUS(status) in STOPPED:
        return True
    if os.WEXITSTATUS(status):
        raise SystemExit("a script failed after a kill: see its log")
    return False


def torment(name: str, kills: int, rng: random.Random, folder: Path) -> str:
    """Kill a script `kills` times and check the outcome. Returns a summary."""
    script, log = SCRIPTS[name](folder), folder / "log"
    before, begun = digests(script.inputs), time.monotonic()
    wait(start(script.command(folder / "whole"), folder / "whole", log))
    took, expected = time.monotonic() - begun, script.made(folder / "whole")
    killed = finished = 0
    while killed < kills:
        output = folder / f"run {finished}"
        for _ in range(min(IN_A_ROW, kills - killed)):
            if stops := getattr(script, "signals", ()):
                number = rng.choice(stops)
                killed += wait(start(script.command(output), output, log), rng.uniform(0, took), number)
            elif rng.random() < 0.5:
                killed += wait(start(script.command(output), output, log, at_write=rng.randrange(60)))
            else:
                killed += wait(start(script.command(output), output, log), rng.uniform(0, took))
            script.check(output)
        wait(start(script.command(output), output, log))
        if script.made(output) != expected:
            raise SystemExit(f"{name}: what {output} holds is not what an undisturbed run makes")
        if left := [path.name for path in output.rglob("*.partial")]:
            raise SystemExit(f"{name}: left behind: {left}")
        finished += 1
        shutil.rmtree(output)
    if digests(script.inputs) != before:
        raise SystemExit(f"{name}: the user's files have changed")
    return f"{name}: {killed} kills; {finished} works finished after them, all equal bit for bit, nothing left behind"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scripts", nargs="*", choices=[[], *SCRIPTS], help="which scripts (default: all)")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)  # threads do not outlive a fork
    for name in options.scripts or SCRIPTS:
        with tempfile.TemporaryDirectory() as folder:
            print(torment(name, options.kills, random.Random(options.seed), Path(folder)), flush=True)


if __name__ == "__main__":
    main()
