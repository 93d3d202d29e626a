"""Songs are worked on side by side, and one that fails, or kills its worker, does not stop the others."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path
from types import FrameType
from typing import Protocol, TypeVar

from separation.errors import UserError, put_off

CLUSTER_HELP = (
    "let the workers of a Dask cluster do it, tcp://host:port; all folders must lie on storage that they share"
)

LOOK = 5
"""Seconds without a job that ends, after which the workers are looked after."""

Job = TypeVar("Job")
Result = TypeVar("Result")


class Pool(Protocol):
    """Workers, here or elsewhere, that are given jobs as `concurrent.futures` has it."""

    deaths: tuple[type[Exception], ...]
    """What a future raises when its worker has died."""
    strikes: int
    """How often a job may do so before it is passed over."""

    def has_room(self) -> bool:
        """Whether another job can be taken."""

    def submit(self, work: Callable[[Job], Result], job: Job) -> Future:
        """Begin a job; its result is that of `attempt`."""

    def check(self) -> None:
        """No job has ended for a while. Raises `UserError` when none ever will."""

    def release(self, future: Future) -> None:
        """This job has ended."""

    def stop(self) -> None:
        """No more jobs; those that run are not waited for longer than they need to clear away what they began."""


def default_workers() -> int:
    """As many workers as there are processors, up to 8."""
    return min(8, os.cpu_count() or 1)


def run_jobs(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    workers: int = 1,
    threads: int | None = None,
    cluster: str | None = None,
    folders: Sequence[Path] = (),
) -> Iterator[tuple[Job, Result | UserError]]:
    """Yield `(job, work(job))` for every job, in the order they end; what a `UserError` stopped yields that error.

    One worker is this process itself; several are processes that share `threads`, by default those of the processors.
    With the address of a `cluster`, the workers there do it, which must see `folders`. A job whose worker dies is begun
    again, and passed over with an error when it has killed three of them. Any other error stops everything.
    """
    if cluster and jobs:
        from separation.cluster import Cluster

        with closing_pool(Cluster(cluster, folders)) as pool:
            yield from run_in(pool, work, jobs)
        return
    if workers < 1:
        raise UserError(f"--workers must be 1 or more, not {workers}.")
    workers = min(workers, len(jobs))
    if workers <= 1:
        yield from ((job, attempt(work, job)) for job in jobs)
        return
    with closing_pool(Processes(workers, threads)) as pool:
        yield from run_in(pool, work, jobs)


def run_in(pool: Pool, work: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[tuple[Job, Result | UserError]]:
    """The same, in workers that are there.

    A job whose worker died is begun again alone, when all others are done. So it has the most memory, and no job is
    blamed for the one beside it.
    """
    waiting, suspects, strikes = deque(range(len(jobs))), deque(), Counter()
    running: dict[Future, int] = {}
    ended: queue.SimpleQueue[Future] = queue.SimpleQueue()
    while waiting or suspects or running:
        while (waiting and pool.has_room()) or (suspects and not running):
            number = (waiting or suspects).popleft()
            future = pool.submit(work, jobs[number])
            running[future] = number
            future.add_done_callback(ended.put)
        try:
            future = ended.get(timeout=LOOK)
        except queue.Empty:
            pool.check()
            continue
        number = running.pop(future)
        pool.release(future)
        if isinstance(future.exception(), pool.deaths):
            strikes[number] += 1
            if strikes[number] < pool.strikes:
                suspects.append(number)
                continue
            yield jobs[number], UserError("it killed its worker three times or more, perhaps for want of memory.")
        else:
            yield jobs[number], future.result()


@contextmanager
def closing_pool(pool: Pool) -> Iterator[Pool]:
    """The workers, which are stopped when the block ends."""
    try:
        yield pool
    finally:
        pool.stop()


def attempt(work: Callable[[Job], Result], job: Job) -> Result | UserError:
    """The result of a job, or the reason why it has none."""
    try:
        return work(job)
    except UserError as error:
        return error


class Processes:
    """Processes of this machine. Each has one job at a time, so when it dies it is known what has killed it."""

    deaths = (BrokenProcessPool,)
    strikes = 3

    def __init__(self, workers: int, threads: int | None):
        self.workers, self.threads = workers, threads
        self.context = multiprocessing.get_context("spawn")
        self.stopped = self.context.Event()
        self.idle: list[ProcessPoolExecutor | None] = [None] * workers
        self.busy: dict[Future, ProcessPoolExecutor] = {}

    def has_room(self) -> bool:
        return bool(self.idle)

    def submit(self, work: Callable[[Job], Result], job: Job) -> Future:
        executor = self.idle.pop()
        if executor is None:
            executor = ProcessPoolExecutor(1, self.context, _begin, (self.stopped,))
        with _threads_shared(self.workers, self.threads), _interrupts_held_back():  # the process is started in here
            future = executor.submit(_attempt_in_process, work, job)
        self.busy[future] = executor
        return future

    def check(self) -> None:
        """A process that dies is noticed at once."""

    def release(self, future: Future) -> None:
        executor = self.busy.pop(future)
        if isinstance(future.exception(), self.deaths):
            executor.shutdown()
            executor = None
        self.idle.append(executor)

    def stop(self) -> None:
        """End all processes; jobs that are running are interrupted, so that they can clear away what they began."""
        self.stopped.set()
        for executor in self.busy.values():
            for process in list((executor._processes or {}).values()):  # Python has no other name for them yet
                if process.is_alive():
                    os.kill(process.pid, signal.SIGINT)
        for executor in [*filter(None, self.idle), *self.busy.values()]:
            executor.shutdown(cancel_futures=True)


@contextmanager
def _threads_shared(workers: int, threads: int | None) -> Iterator[None]:
    """Processes started in here have a share of the threads each; who has set a number knows better."""
    if threads is None and "OMP_NUM_THREADS" in os.environ:
        yield
        return
    # torch and numpy alike read it when they are loaded
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(max(1, (threads or os.cpu_count() or 1) // workers))
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Ctrl-C waits for the end of the block, and for ever in processes started in here but within a job: else each
    would print a stack trace."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(stopped: Event) -> None:
    """What a process does first: it is to end with its parent, for which it would wait for ever if that were killed."""
    global _stopped
    _stopped = stopped
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _attempt_in_process(work: Callable[[Job], Result], job: Job) -> Result | UserError | None:
    """A job that Ctrl-C interrupts clears away what it has begun; nobody waits for its result then."""
    try:
        signal.signal(signal.SIGINT, _interrupt)
        return None if _stopped.is_set() else attempt(work, job)
    except KeyboardInterrupt:
        return None
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if put_off(number, frame):
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would interrupt the clearing away
    raise KeyboardInterrupt
