"""Write as many made-up songs as wanted, their drums, bass and other apart, as a plain folder dataset.

    python -m recipes.synthesise --songs 60 --seconds 45 --output data/synthetic

recipes/README.md says what must be installed and what the songs are like.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
import torch

from separation.audio import write
from separation.errors import UserError, run_script

INSTALL = (
    "run `apt-get install mma fluidsynth fluid-soundfont-gm timgm6mb-soundfont musescore-general-soundfont-lossless "
    "opl3-soundfont avldrums.lv2-soundfont hydrogen-drumkits` and `pip install pedalboard pretty_midi scipy`"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--songs", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=45.0, help="length of each")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other songs")
    parser.add_argument("--output", type=Path, default=Path("data/synthetic"))
    arguments = parser.parse_args()
    check_installed()
    from recipes.mix import make_song
    from recipes.sound import RATE

    for number in range(arguments.songs):
        folder = arguments.output / f"synthetic-{arguments.seed:03d}-{number:04d}"
        if folder.exists():
            continue
        rng = np.random.default_rng([arguments.seed, number])
        said, stems = make_song(rng, arguments.seconds)
        partial = folder.with_name(folder.name + ".partial")
        for stem, waveform in stems.items():
            write(partial / f"{stem}.flac", torch.from_numpy(waveform), RATE)
        partial.rename(folder)
        print(f"{folder.name}: {said}", flush=True)


def check_installed() -> None:
    """Raises `UserError` when a program or a package is missing."""
    from importlib.util import find_spec

    missing = [program for program in ("mma", "fluidsynth") if not shutil.which(program)]
    missing += [package for package in ("pedalboard", "pretty_midi", "scipy") if not find_spec(package)]
    if missing:
        raise UserError(f"{' and '.join(missing)} must be installed to synthesise songs: {INSTALL}.")


if __name__ == "__main__":
    run_script(main)
