"""Train a separation network: store + configs/*.yaml -> checkpoints."""

from __future__ import annotations

import separation.start  # noqa: F401 (first: see there)

# isort: split
import argparse
import os
from pathlib import Path

import torch

from separation.inference.device import choose_device, memory_is_told
from separation.runtime import DEVICE_HELP, run_script
from separation.training.config import load_config
from separation.training.trainer import Trainer, processes


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/vocals_new.yaml"), help="the settings of the run")
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="override settings, such as schedule.steps=1000",
    )
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in the output folder")
    parser.add_argument("--device", default="auto", help=DEVICE_HELP)
    parser.add_argument(
        "--output", type=Path, help="folder for checkpoints and TensorBoard (default: runs/NAME OF THE CONFIG)"
    )
    return parser.parse_args()


def training_device(name: str) -> torch.device:
    """The device of this process: under torchrun each one takes a CUDA device of its own."""
    device = choose_device(name)
    if device.type != "cuda":
        return device
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", device.index or 0)))
    torch.cuda.set_device(device)  # or every process would also open the first one
    torch.backends.cudnn.benchmark = True  # batches are all of one shape
    return device


def main() -> None:
    arguments = parse_arguments()
    config = load_config(arguments.config, arguments.set)
    device = training_device(arguments.device)
    rank, count = processes()
    if count > 1:
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    output = arguments.output or Path("runs") / arguments.config.stem
    with memory_is_told("lower data.batch_size, data.crop_frames or generator.widths"):
        trainer = Trainer(config, output, device, arguments.resume)
        if rank == 0:
            print(trainer.opening(), flush=True)
        trainer.run()
    if rank == 0:
        print(trainer.closing())
    if count > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    run_script(main)
