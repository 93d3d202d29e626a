"""Jobs run side by side, in processes here or on a Dask cluster; one that fails does not stop the others."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import queue
import signal
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, InvalidStateError, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing.synchronize import Event
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, TypeVar

from separation.errors import UserError
from separation.runtime import postponed, processors

CLUSTER_HELP = (
    "let the workers of a Dask cluster do it, tcp://host:port; all folders must lie on storage that they share"
)

POLL_SECONDS = 5
"""Seconds without a finished job after which the workers are checked."""

WINDOW = 4000
"""Jobs that the scheduler is given at a time: more than the threads of a hundred machines."""

CONNECT_TIMEOUT, FIRST_WORKER_TIMEOUT = 10, 60
"""Seconds to wait for the scheduler, and for a first worker."""

NO_WORKERS_TIMEOUT = 600
"""Seconds to wait for another worker when all have left: a cluster that grows by need takes minutes."""

_alone = threading.Lock()

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
    return min(8, processors())


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
            future = ended.get(timeout=POLL_SECONDS)
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
    os.environ["OMP_NUM_THREADS"] = str(max(1, (threads or processors()) // workers))
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
    if postponed(number, frame):
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would interrupt the clearing away
    raise KeyboardInterrupt


class Cluster:
    """The workers of the cluster at `address`, as a `Pool`; they must see `folders`.

    Raises `UserError` when there are none, and when the connection is lost.
    """

    strikes = 2
    """The scheduler begins a job again itself, by default three times, but blames all jobs that its worker had."""

    def __init__(self, address: str, folders: Sequence[Path] = ()):
        try:
            from distributed import Client, KilledWorker
            from distributed.comm import get_address_host_port
        except ImportError:
            raise UserError("--cluster needs Dask's distributed: `pip install .[cluster]`.") from None
        self.deaths, self.folders, self.running = (KilledWorker,), tuple(map(os.path.abspath, folders)), 0
        try:
            # A client that fails to connect may hang the next one when it is collected.
            socket.create_connection(get_address_host_port(address), CONNECT_TIMEOUT).close()
            self.client = Client(address, timeout=CONNECT_TIMEOUT, set_as_default=False)
            self.client.wait_for_workers(1, timeout=FIRST_WORKER_TIMEOUT)
        except (OSError, ValueError) as error:
            if hasattr(self, "client"):
                self.client.close(timeout=5)
            raise UserError(f"--cluster {address}: there is no scheduler with workers ({error}).") from error
        self.tasks: dict[Future, Any] = {}  # Dask's own futures, of which some never tell that they are done

    def has_room(self) -> bool:
        return self.running < WINDOW

    def submit(self, work: Callable[[Job], Result], job: Job) -> Future:
        self.running += 1
        task, future = self.client.submit(attempt_there, work, job, self.folders, pure=False), Future()
        self.tasks[future] = task
        task.add_done_callback(lambda _: self.settle(future))
        return future

    def settle(self, future: Future) -> None:
        """Give a job's result or error to who waits for it."""
        task = self.tasks.get(future)
        if task is None or future.done():
            return
        try:
            settle, value = future.set_result, task.result()
        except CancelledError:
            future.cancel()
            return
        except Exception as error:
            settle, value = future.set_exception, error
        with suppress(InvalidStateError):  # another thread was faster
            settle(value)

    def release(self, future: Future) -> None:
        self.running -= 1
        self.tasks.pop(future, None)
        if future.cancelled() or isinstance(future.exception(), ImportError):
            lost = "the connection to the scheduler is lost" if future.cancelled() else future.exception()
            raise UserError(f"the cluster cannot go on ({lost}); run it again: what is done is kept.")

    def check(self) -> None:
        """Raises `UserError` when all workers left long ago, or the scheduler did."""
        for future, task in list(self.tasks.items()):
            if task.done():  # its result was lost with a worker, and computed again without a word
                self.settle(future)
        try:
            self.client.wait_for_workers(1, timeout=NO_WORKERS_TIMEOUT)
        except (OSError, ValueError, asyncio.TimeoutError) as error:  # the latter is an OSError from Python 3.11 on
            raise UserError(
                f"the cluster has no workers any more ({error}); run it again: what is done is kept."
            ) from None

    def stop(self) -> None:
        tasks = list(self.tasks.values())
        self.tasks.clear()  # nobody waits for these any more
        self.client.cancel(tasks, force=True)
        self.client.close(timeout=5)


def attempt_there(work: Callable[[Job], Result], job: Job, folders: Sequence[str]) -> Result | UserError:
    """The result of a job, or the reason why it has none, and the machine where that is so.

    A worker does one job at a time, however many threads it has: what a job cleans up after an error is its process's.
    """
    here = socket.gethostname()
    for folder in folders:
        if not os.path.isdir(folder):  # noqa: PTH112 (raises nothing where one may not look)
            return UserError(f"{here} cannot see {folder}: put it on storage that all machines share.")
    with _alone:
        result = attempt(work, job)
    return UserError(f"{result} (on {here})") if isinstance(result, UserError) else result
