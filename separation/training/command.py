"""Step 2: a store of spectrograms and a config become weights."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
import time
from pathlib import Path

import torch

from separation.errors import UserError
from separation.inference.device import choose_device, report_out_of_memory
from separation.runtime import DEVICE_HELP, Stopped, clock
from separation.training.checkpoints import LAST
from separation.training.config import Config, load_config
from separation.training.logging import describe_music, describe_network, shared_artists, warnings_about
from separation.training.trainer import Trainer, processes
from separation.training.validation import validate

MEMORY_HINT = "lower data.batch_size, data.crop_frames or generator.widths"


def main() -> int:
    arguments = parse_arguments()
    output = arguments.output or Path("runs") / arguments.config.stem
    if arguments.check:
        return check(arguments, output)
    config = load_config(arguments.config, arguments.set)
    device = training_device(arguments.device)
    rank, count = processes()
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
    """The device of this process: under torchrun each one takes a CUDA device of its own."""
    device = choose_device(name)
    if device.type != "cuda":
        return device
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", device.index or 0)))
    torch.cuda.set_device(device)  # or every process would also open the first one
    torch.backends.cudnn.benchmark = True  # batches are all of one shape
    return device


def resume_command(count: int) -> str:
    """What a user types to continue this run."""
    if count > 1:
        return "the same torchrun command with --resume"
    script, *arguments = sys.argv
    program = [script] if shutil.which(script) else ["python", script]
    return shlex.join([*program, *arguments, *([] if "--resume" in arguments else ["--resume"])])


def check(arguments: argparse.Namespace, output: Path) -> int:
    """Try all parts of a run and print what was found, a row each; 1 where the run would fail, 0 otherwise."""
    rows: list[tuple[str, str, str]] = []
    try:
        with report_out_of_memory(MEMORY_HINT):
            _check(arguments, output, rows)
    except UserError as error:
        rows.append(("error", error.code.replace("_", " "), str(error)))
    width = max(len(subject) for _, subject, _ in rows)
    for status, subject, finding in rows:
        print(f"{status:7}  {subject:{width}}  {finding}")
    return int(rows[-1][0] == "error")


def _check(arguments: argparse.Namespace, output: Path, rows: list[tuple[str, str, str]]) -> None:
    def passed(subject: str, finding: str) -> None:
        rows.append(("ok", subject, finding))

    config = load_config(arguments.config, arguments.set)
    passed("config", f"{arguments.config} is valid")
    trainer = Trainer(config, output, training_device(arguments.device), arguments.resume)
    passed("songs", describe_music(trainer.batches, trainer.songs))
    passed("network", describe_network(config, trainer.network, trainer.dtype))
    for warning in warnings_about(config, trainer.batches, trainer.songs):
        rows.append(("warning", "settings", warning))
    if artists := shared_artists(trainer.batches, trainer.songs):
        some = ", ".join(artists[:3]) + (f" and {len(artists) - 3} more" if len(artists) > 3 else "")
        finding = f"{some} are in both: validation rewards knowing the singer. data.valid draws by artist"
        rows.append(("warning", "artists", finding))
    batch_seconds, step_seconds = time_step(trainer)
    workers = max(1, config.data.workers)
    waiting = "" if batch_seconds < step_seconds * workers else ", so the network waits: raise data.workers"
    passed("one batch", f"{batch_seconds:.2f} s in one process{waiting}")
    passed("one step", f"{step_seconds:.2f} s")
    passed("memory", memory_used(trainer.device))
    validation_seconds = 0.0
    if trainer.songs:
        network, start = trainer.average.module.eval(), time.perf_counter()
        validate(network, trainer.songs[:1])
        frames = sum(song.frames for song in trainer.songs) / trainer.songs[0].frames
        validation_seconds = (time.perf_counter() - start) * frames
        passed("one validation", f"{validation_seconds:.0f} s, estimated from its first song")
    passed("time to the end", clock(run_seconds(config, trainer.step, step_seconds, validation_seconds)))


def time_step(trainer: Trainer) -> tuple[float, float]:
    """Seconds that making a batch and training on it take: the second of each, since the first also warms up."""
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
    """The most memory used so far, in words."""
    if device.type == "cuda":
        used, total = torch.cuda.max_memory_allocated(device), torch.cuda.get_device_properties(device).total_memory
        return f"{used / 1e9:.1f} of {total / 1e9:.1f} GB on {device}"
    try:
        import resource
    except ImportError:  # Windows
        return "not measured on this system"
    unit = 1 if sys.platform == "darwin" else 1024
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9:.1f} GB at most"


def run_seconds(config: Config, step: int, step_seconds: float, validation_seconds: float) -> float:
    """The time that is left of a run."""
    schedule = config.schedule
    validations = -(-(schedule.steps - step) // schedule.validate_every) + len(schedule.temperatures)
    seconds = (schedule.steps - step) * step_seconds + validations * validation_seconds
    return min(seconds, 60 * schedule.minutes) if schedule.minutes else seconds
