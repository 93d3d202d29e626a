"""Runtime support for every script: signals, output streams, progress, and the processors it may use."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import TextIO

from separation.errors import UserError

DEVICE_HELP = "where to compute: auto (the GPU if there is one), cpu, cuda, cuda:1 (the second GPU), mps"

STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Ctrl-C, the system's request to terminate, and a closed terminal, which Windows does not signal."""

RETRY_SECONDS = 0.05
"""Seconds after which a signal that arrives during an import is raised again."""

CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
"""Where Linux keeps the limits of control groups, and which groups this process belongs to."""

LOG_SECONDS = 30.0
"""Seconds between two lines of progress in a log file; the first comes after a third of that."""

REFRESH_SECONDS = 0.1
"""Seconds between two updates of the progress bar."""

SETTLING_SECONDS = 1.0
"""Seconds before an estimate of the time left is shown: the start is slow and predicts little."""

EXTRAS = {
    "separation.dataset.command": "data",
    "separation.training.command": "train",
    "separation.scoring.command": "eval",
    "separation.apps.commands": "onnx",
}
"""The extra in pyproject.toml with the packages that a script needs beyond those for separation."""


class Stopped(BaseException):
    """The system or the terminal asked the program to end; partial files are removed on the way out."""


def run_script(main: Callable[[], int | None] | str) -> None:
    """Run a script's `main` and exit with its code; a `UserError` prints one sentence and exits with 1.

    A module name stands for its function `main`. The module is imported here, after signal handlers and environment
    are set up, so torch must not be imported before this call.
    """
    # Idle threads of GNU's OpenMP spin for a long time, which slows every other process on a busy machine.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    steady_streams()
    handled = [one for one in STOP_SIGNALS if signal.getsignal(one) in (signal.SIG_DFL, signal.default_int_handler)]
    for number in handled:  # leaves ignored signals ignored
        signal.signal(number, _stop)
    message = ""
    try:
        code = (import_module(main).main if isinstance(main, str) else main)() or 0
    except UserError as error:
        code, message = 1, f"error: {error}"
    except ModuleNotFoundError as error:
        extra = EXTRAS.get(main) if isinstance(main, str) else None
        if extra is None:
            raise
        code, message = 1, f"error: this needs {error.name}: run `pip install '.[{extra}]'`."
    except KeyboardInterrupt:
        code, message = 130, "\nstopped"
    except Stopped as stop:
        code, message = 128 + stop.args[0], "\nstopped"
    except MemoryError:
        code, message = 1, "error: not enough memory: close other programs, or work on less at a time."
    for number in handled:  # an exception while writing the message or exiting would print a traceback
        signal.signal(number, signal.SIG_DFL)
    if message:
        print(message, file=sys.stderr)
    sys.exit(code)


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Defer stop signals to the end of the block; processes started in it defer them until they install handlers."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def stops_deferred() -> Iterator[list[int]]:
    """Defer stop signals in this process to the end of the block; yield those received so far."""
    received: list[int] = []
    numbers = STOP_SIGNALS if threading.current_thread() is threading.main_thread() else ()  # no other can handle them
    handlers = {number: handler for number in numbers if callable(handler := signal.getsignal(number))}
    for number in handlers:
        signal.signal(number, lambda number, _: received.append(number))
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if received:
        signal.raise_signal(received[0])


def _stop(number: int, frame: FrameType | None) -> None:
    """Raise an exception, except during an import: torch's native code aborts when one passes through it."""
    if postponed(number, frame):
        return
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Stopped(number)


def postponed(number: int, frame: FrameType | None) -> bool:
    """Whether a module is being imported, which an exception must not interrupt; the signal is then raised again."""
    if not _is_importing(frame):
        return False
    again = threading.Timer(RETRY_SECONDS, _raise_again, [number])
    again.daemon = True
    again.start()
    return True


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib."):
            return True
        frame = frame.f_back
    return False


def _raise_again(number: int) -> None:
    if hasattr(signal, "pthread_kill"):  # also wakes the main thread from a system call
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:
        signal.raise_signal(number)


class SteadyStream:
    """A text stream whose writes never fail: after the first error, all output is discarded."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except (OSError, ValueError):
            self._discard()
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._discard()

    def _discard(self) -> None:
        # The interpreter flushes the file again at exit, which would fail.
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def steady_streams() -> None:
    """Make standard output and error accept any character and never fail: a closed pipe must not cost work."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed before the program started
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 (open until the end)
        with suppress(AttributeError, ValueError):
            stream.reconfigure(errors="replace")
        setattr(sys, name, SteadyStream(stream))


def processors() -> int:
    """Number of processors that this process may use: its CPU affinity, limited by its container's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *map(math.ceil, _cpu_quotas())]))


def _cpu_quotas() -> list[float]:
    """CPU time per second that control groups grant this process, as set by Docker's --cpus, Kubernetes or systemd."""
    quotas = []
    with suppress(OSError, ValueError, IndexError):
        for line in OWN_CGROUPS.read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            root = CGROUPS / controllers if controllers else CGROUPS  # cgroup v1 has one tree per controller
            place = root / group.lstrip("/")
            for folder in (place, *place.parents):
                with suppress(OSError, ValueError):
                    if controllers:
                        quota, period = (int((folder / f"cpu.cfs_{key}_us").read_text()) for key in ("quota", "period"))
                    else:
                        quota, period = map(int, (folder / "cpu.max").read_text().split())  # "max" raises ValueError
                    if quota > 0:
                        quotas.append(quota / period)
                if folder == root:
                    break
    return quotas


_chosen_threads: list[int] = []


def use_threads(number: int) -> None:
    """Compute with this many threads from now on, but at most one per processor."""
    _chosen_threads[:] = [min(number, processors())]  # more would only compete


def threads() -> int:
    """Number of threads to compute with: by `use_threads`, else by OMP_NUM_THREADS, else one per processor."""
    configured = os.environ.get("OMP_NUM_THREADS", "")
    return _chosen_threads[0] if _chosen_threads else int(configured) if configured.isdigit() else processors()


def prepare_torch() -> None:
    """Set up torch's threads. Call this where torch is first used: importing it takes seconds."""
    import torch

    # A fade-out into denormals, below 1e-38, is slower to process than music. torch 2.14 sets the flag in this thread
    # only; worker threads inherit it when they start, so after the first parallel operation it is too late.
    torch.set_flush_denormal(True)
    if _chosen_threads:
        torch.set_num_threads(_chosen_threads[0])


def count(number: int, thing: str) -> str:
    """Format a number of things.

    >>> count(1, "song"), count(3, "song")
    ('1 song', '3 songs')
    """
    return f"{number} {thing}{'' if number == 1 else 's'}"


def clock(seconds: float) -> str:
    """Format a duration as players show it.

    >>> clock(65.4), clock(3723)
    ('1:05', '1:02:03')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class Progress:
    """The progress of a batch of items, for use in a `with` block.

    Call `done` with the size of each item that has ended and, if known, `within` with the amount of the running items
    that is done, in the same unit. The time left is estimated from the first `within` on, or else from the start.

    Args:
        items: number of items of size 1, or the sizes of all items, such as the lengths of songs in seconds.
        abreast: items processed at a time.
        file: where the bar or the lines go, by default standard error.
        now: a clock, in seconds.
    """

    def __init__(
        self,
        items: int | Sequence[float],
        abreast: int = 1,
        file: TextIO | None = None,
        now: Callable[[], float] = time.monotonic,
    ):
        from tqdm import tqdm  # takes 0.1 s to import, which a script that fails at once need not spend

        self.total: int = items if isinstance(items, int) else len(items)
        self.size: float = items if isinstance(items, int) else sum(items)
        self.abreast, self.finished, self.ended, self.running = abreast, 0, 0.0, 0.0
        self._now, self._file = now, file or sys.stderr
        self._start = self._shown = now()
        self._first: tuple[float, float] | None = None
        layout = "{percentage:3.0f}%|{bar}| {desc}"
        live = bool(self.total) and self._file.isatty()
        self._bar = tqdm(total=1.0, bar_format=layout, leave=False, file=self._file, disable=not live)
        self._wait = REFRESH_SECONDS if live else LOG_SECONDS / 3

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    @property
    def share(self) -> float:
        """Fraction of the batch that is done, from 0 to 1."""
        return min(1.0, (self.ended + self.running) / self.size) if self.size else 0.0

    def within(self, amount: float) -> None:
        """Report how much of the running items is done."""
        self.running = amount
        if self._first is None:
            self._first = self._now(), self.share
        self._show()

    def done(self, size: float = 1.0) -> None:
        """Report that one more item has ended."""
        self.finished, self.ended, self.running = self.finished + 1, self.ended + size, max(0.0, self.running - size)
        self._show()

    def say(self, line: str, file: TextIO | None = None) -> None:
        """Print a line, above the bar if there is one."""
        self._bar.write(line, file=file or sys.stdout)

    def left(self) -> float | None:
        """Estimated seconds until the batch ends; None while there is too little to go by."""
        begun, share = self._first or (self._start, 0.0)
        known = self._first or self.finished > 2 * self.abreast or self.finished == self.total
        took = self._now() - begun
        if not known or took < SETTLING_SECONDS or self.share <= share:
            return None
        return took / (self.share - share) * (1 - self.share)

    def _show(self) -> None:
        now = self._now()
        if now - self._shown < self._wait:
            return
        seconds = self.left()
        left = "" if seconds is None else f", {clock(seconds)} left"
        count = f"{self.finished} of {self.total} songs" if self.total > 1 else ""
        if not self._bar.disable:
            self._bar.n = self.share
            self._bar.set_description_str((count + left).removeprefix(", "))
        elif self._wait < LOG_SECONDS or now - self._shown >= LOG_SECONDS:
            print(f"{count or f'{self.share:.0%}'} after {clock(now - self._start)}{left}", file=self._file, flush=True)
            self._wait = LOG_SECONDS
        self._shown = now
