"""Step 2: train a network on a spectrogram store, with the settings of a YAML config."""

from __future__ import annotations

import argparse
import math
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from separation.errors import UserError
from separation.inference.device import choose_device, report_out_of_memory
from separation.inference.separator import Separator
from separation.runtime import DEVICE_HELP, Stopped, clock, prepare_torch
from separation.training.checkpoints import LAST
from separation.training.config import load_config
from separation.training.logging import describe_music, describe_network, shared_artists
from separation.training.trainer import Trainer, processes
from separation.training.validation import validate

MEMORY_HINT = "lower data.batch_size, data.crop_frames or generator.widths"


def main() -> int:
    arguments = parse_arguments()
    prepare_torch()
    output = arguments.output or Path("runs") / arguments.config.stem
    rank, count = processes()
    if arguments.check:
        if count > 1:
            raise UserError("--check tries a run in one process: start it without torchrun.", "no_effect")
        return check(arguments, output)
    config = load_config(arguments.config, arguments.set)
    device = training_device(arguments.device)
    if count > 1:
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    with report_out_of_memory(MEMORY_HINT):
        trainer = Trainer(config, output, device, arguments.resume)
        if rank == 0:
            print(trainer.describe(), flush=True)
        try:
            trainer.run()
        except (KeyboardInterrupt, Stopped):
            if rank == 0 and (output / LAST).exists():
                print(f"\nstopped after step {trainer.step}; to continue: {resume_command(count)}", file=sys.stderr)
            raise
    if rank == 0:
        print(trainer.describe_result())
    if count > 1:
        torch.distributed.destroy_process_group()
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    help_config = "the settings of the run (default: %(default)s)"
    parser.add_argument("--config", type=Path, default=Path("configs/vocals_new.yaml"), help=help_config)
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="override settings, such as schedule.steps=1000",
    )
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint in the output folder")
    parser.add_argument(
        "--check",
        action="store_true",
        help="try the config, the stores, one step and one validation, and estimate the time; writes nothing",
    )
    parser.add_argument("--device", default="auto", help=DEVICE_HELP)
    parser.add_argument(
        "--output", type=Path, help="folder for checkpoints and TensorBoard (default: runs/NAME OF THE CONFIG)"
    )
    return parser.parse_args()


def training_device(name: str) -> torch.device:
    """Device of this process: under torchrun each process gets its own CUDA device."""
    device = choose_device(name)
    if device.type != "cuda":
        return device
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", device.index or 0)))
    torch.cuda.set_device(device)  # otherwise every process would also open the first GPU
    torch.backends.cudnn.benchmark = True  # all batches have the same shape
    return device


def resume_command(count: int) -> str:
    """The command that continues this run."""
    if count > 1:
        return "the same torchrun command with --resume"
    script, *arguments = sys.argv
    program = [script] if shutil.which(script) else ["python", script]
    return shlex.join([*program, *arguments, *([] if "--resume" in arguments else ["--resume"])])


def check(arguments: argparse.Namespace, output: Path) -> int:
    """Try every part of a run, printing a row for each. Returns 1 if the run would fail, otherwise 0."""

    def show(status: str, subject: str, finding: str) -> None:
        print(f"{status:7}  {subject:15}  {finding}", flush=True)

    try:
        with report_out_of_memory(MEMORY_HINT):
            for row in findings(arguments, output):
                show(*row)
    except UserError as error:
        show("error", error.code.replace("_", " "), str(error))
        return 1
    return 0


def findings(arguments: argparse.Namespace, output: Path) -> Iterator[tuple[str, str, str]]:
    """Yield status, subject and finding for each part of a run. Raises `UserError` where the run would."""
    config = load_config(arguments.config, arguments.set)
    yield "ok", "config", f"{arguments.config} is valid"
    trainer = Trainer(config, output, training_device(arguments.device), arguments.resume)
    yield "ok", "songs", describe_music(trainer.batches, trainer.songs)
    yield "ok", "network", describe_network(config, trainer.network, trainer.dtype)
    for warning in trainer.warnings():
        yield "warning", "settings", warning
    if artists := shared_artists(trainer.batches, trainer.songs):
        some = ", ".join(artists[:3]) + (f" and {len(artists) - 3} more" if len(artists) > 3 else "")
        yield "warning", "artists", f"training and validation share {some}: data.valid holds songs out by artist"
    batch_seconds, step_seconds = time_step(trainer)
    waits = batch_seconds > step_seconds * max(1, config.data.workers)
    yield "ok", "one batch", f"{batch_seconds:.2f} s{', so the network waits: raise data.workers' if waits else ''}"
    yield "ok", "one step", f"{step_seconds:.2f} s"
    yield "ok", "memory", memory_used(trainer.device)
    seconds = (config.schedule.steps - trainer.step) * step_seconds
    if trainer.songs:
        start, first = time.perf_counter(), trainer.songs[0]
        validate(Separator(trainer.averaged.eval()), [first])
        one = (time.perf_counter() - start) * sum(song.frames for song in trainer.songs) / first.frames
        yield "ok", "one validation", f"{one:.0f} s, estimated from its first song"
        seconds += one * ((config.schedule.steps - trainer.step) / config.schedule.validate_every + 1)
        seconds += one * len(config.schedule.temperatures)
    yield "ok", "time to the end", clock(min(seconds, 60 * (config.schedule.minutes or math.inf)))


def time_step(trainer: Trainer) -> tuple[float, float]:
    """Seconds to make a batch and to train on it, each measured on the second try, since the first also warms up."""
    for step in (trainer.step, trainer.step + trainer.schedule.unlabelled_every):
        start = time.perf_counter()
        batch = trainer.batches[step]
        if trainer.resident:
            batch = trainer.resident.finish(batch)
        made = time.perf_counter()
        trainer.train_step({name: value.to(trainer.device) for name, value in batch.items()})
        ended = time.perf_counter()
    return made - start, ended - made


def memory_used(device: torch.device) -> str:
    """Peak memory so far, in words."""
    if device.type == "cuda":
        used, total = torch.cuda.max_memory_allocated(device), torch.cuda.get_device_properties(device).total_memory
        return f"{used / 1e9:.1f} of {total / 1e9:.1f} GB on {device}"
    try:
        import resource
    except ImportError:  # Windows
        return "not measured on this system"
    unit = 1 if sys.platform == "darwin" else 1024
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9:.1f} GB at most"
