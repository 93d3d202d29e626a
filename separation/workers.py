"""Songs are worked on side by side, each in a process of its own, and one that fails does not stop the others."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from separation.errors import UserError

Job = TypeVar("Job")
Result = TypeVar("Result")


def default_workers() -> int:
    """As many workers as there are processors, up to 8."""
    return min(8, os.cpu_count() or 1)


def run_jobs(
    work: Callable[[Job], Result], jobs: Sequence[Job], workers: int
) -> Iterator[tuple[Job, Result | UserError]]:
    """Yield `(job, work(job))` for every job, in the order they end; what a `UserError` stopped yields that error.

    One worker is this process itself; several share the processors' threads. Any other error stops everything.
    """
    if workers < 1:
        raise UserError(f"--workers must be 1 or more, not {workers}.")
    workers = min(workers, len(jobs))
    if workers <= 1:
        yield from ((job, _attempt(work, job)) for job in jobs)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _listen_to_interrupts)
    try:
        with _threads_shared(workers), _interrupts_ignored():
            futures = {pool.submit(_attempt, work, job): job for job in jobs}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise UserError("a worker process was killed, perhaps for want of memory: give fewer --workers.") from error
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _threads_shared(workers: int) -> Iterator[None]:
    """Processes started in here have a share of the processors' threads each; who has set a number knows better."""
    if "OMP_NUM_THREADS" in os.environ:
        yield
        return
    # torch and numpy alike read it when they are loaded
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // workers))
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Processes started in here are deaf to Ctrl-C until they ask for it: else each would print a stack trace."""
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _listen_to_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _attempt(work: Callable[[Job], Result], job: Job) -> Result | UserError:
    try:
        return work(job)
    except UserError as error:
        return error
