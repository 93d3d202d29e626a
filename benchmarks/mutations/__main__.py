"""Tries damaged and nonsensical files of every kind, and tells what came of them.

    python -m benchmarks.mutations                      # every kind, as often as the table in this file says
    python -m benchmarks.mutations weights last --count 50 --seed 3

A file may be refused in one sentence (a `UserError`), or work. Anything else is a fault, as is a file that has changed,
one that takes longer than a minute, or more than 2 GB of memory; a fault is printed with its number, which repeats it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Protocol

import torch

from benchmarks.memory import peak_megabytes
from benchmarks.mutations.audio import Audio
from benchmarks.mutations.configs import Configs
from benchmarks.mutations.last import Last
from benchmarks.mutations.stores import Stores
from benchmarks.mutations.weights import Weights
from separation.errors import UserError

SECONDS, MEGABYTES = 60, 2000


class Kind(Protocol):
    """A kind of file."""

    def __init__(self, folder: Path):
        """Make what all cases begin with."""

    def mutate(self, rng: random.Random, case: Path) -> str:
        """Make a case in an empty folder; what was done to it, in words."""

    def attempt(self, case: Path) -> None:
        """Use it. Raises `UserError` when it is refused."""


KINDS: dict[str, tuple[type[Kind], int]] = {
    "audio": (Audio, 500),
    "weights": (Weights, 200),
    "configs": (Configs, 200),
    "stores": (Stores, 100),
    "last": (Last, 100),
}


def try_case(kind: Kind, rng: random.Random, case: Path) -> tuple[str, str]:
    """`refused`, `worked` or `fault`, and what was done, with what came of it."""
    shutil.rmtree(case, ignore_errors=True)
    case.mkdir()
    what = kind.mutate(rng, case)
    before = {path: path.read_bytes() for path in case.rglob("*") if path.is_file()}
    memory = peak_megabytes(resource.getrusage(resource.RUSAGE_SELF))
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            kind.attempt(case)
        outcome, said = "worked", ""
    except UserError as error:
        sentence = str(error)
        outcome, said = ("fault" if "\n" in sentence or not sentence or len(sentence) > 1500 else "refused"), sentence
    except Exception:
        outcome, said = "fault", traceback.format_exc()
    finally:
        signal.alarm(0)
    grown = peak_megabytes(resource.getrusage(resource.RUSAGE_SELF)) - memory
    if grown > MEGABYTES:
        outcome, said = "fault", f"it took {grown / 1e3:.1f} GB"
    if any(not path.is_file() or path.read_bytes() != content for path, content in before.items()):
        outcome, said = "fault", f"a file has changed; {said}"
    return outcome, f"{what}: {said}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", choices=[[], *KINDS], help="kinds of files (default: all)")
    parser.add_argument("--count", type=int, help="how many of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="try this case alone")
    parser.add_argument("--verbose", action="store_true", help="print every case")
    options = parser.parse_args()

    def late(*_: object) -> None:
        raise TimeoutError(f"it took longer than {SECONDS} s")

    signal.signal(signal.SIGALRM, late)
    torch.set_num_threads(1)
    faults = 0
    print("| kind | tried | refused in a sentence | worked | faults |\n|---|---|---|---|---|", flush=True)
    for name in options.kinds or KINDS:
        make, count = KINDS[name]
        found = dict.fromkeys(("refused", "worked", "fault"), 0)
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            kind = make(Path(folder))
            numbers = range(options.count or count) if options.only is None else [options.only]
            for number in numbers:
                outcome, said = try_case(kind, random.Random(f"{options.seed} {name} {number}"), Path(folder) / "case")
                found[outcome] += 1
                if options.verbose or outcome == "fault":
                    print(f"{name} {number}, {outcome}: {said}", flush=True)
        faults += found["fault"]
        print(f"| {name} | {len(numbers)} | {found['refused']} | {found['worked']} | {found['fault']} |", flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
