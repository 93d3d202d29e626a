"""Compare stores: bytes per minute of music, and batches per second that one process makes from them.

    python dataset.py --dataset MUSDB18 --root MUSDB18-7 --vocals --output store/whole
    python dataset.py --dataset MUSDB18 --root MUSDB18-7 --vocals --output store/compact --compact
    python -m benchmarks.batches store/whole store/compact --config configs/vocals_new.yaml

The stores take turns, so that other load affects all of them alike. Medians; ratios are to the first store.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

from separation.dataset.store import Store
from separation.runtime import run_script
from separation.training.batches import Batches
from separation.training.config import load_config
from separation.training.sources import open_pools


def bytes_a_minute(store: Store) -> float:
    """Bytes per minute of music, with all its parts."""
    tracks = store.tracks()
    size = sum(file.stat().st_size for track in tracks for file in track.folder.glob("*.npy"))
    return size / sum(track.samples for track in tracks) * store.settings.sample_rate * 60


def batches_of(folder: Path, config: Path, overrides: list[str]) -> Batches:
    config = load_config(config, [*overrides, f"data.stores={{{folder}: 1.0}}"])
    pools = open_pools(config.targets, config.data, config.spectral, 16_000)
    return Batches(config, pools)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stores", type=Path, nargs="+", metavar="STORE")
    parser.add_argument("--config", type=Path, required=True, help="how batches are drawn")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="as for train.py")
    parser.add_argument("--batches", type=int, default=100, help="of each store (default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    batches = {folder: batches_of(folder, options.config, options.set) for folder in options.stores}
    seconds: dict[Path, list[float]] = {folder: [] for folder in options.stores}
    for number in range(options.batches):
        for folder, made in batches.items():
            begin = perf_counter()
            made[number]
            seconds[folder].append(perf_counter() - begin)
    first = None
    for folder in options.stores:
        size, rate = bytes_a_minute(Store(folder)), 1 / median(seconds[folder])
        first = first or (size, rate)
        print(
            f"{folder}: {size / 1e6:.1f} MB a minute ({size / first[0]:.2f}), "
            f"{rate:.1f} batches a second ({rate / first[1]:.2f})"
        )


if __name__ == "__main__":
    run_script(main)
