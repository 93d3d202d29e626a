"""Jobs run side by side, in processes here or on a Dask cluster; one that fails does not stop the others.

On a cluster every folder must be where all its machines see it under the same name, and this program be installed.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import queue
import signal
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError, Future, InvalidStateError, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, TypeVar, cast

from separation.errors import UserError
from separation.runtime import STOP_SIGNALS, postponed, processors

CLUSTER_HELP = (
    "let the workers of a Dask cluster do it, tcp://host:port; all folders must lie on storage that they share"
)

POLL_SECONDS = 0.5
"""Seconds between two looks at how far running jobs are."""

CHECK_SECONDS = 5
"""Seconds without a finished job after which a cluster is checked."""

WINDOW = 4000
"""Jobs that the scheduler is given at a time: more than the threads of a hundred machines."""

CONNECT_TIMEOUT, FIRST_WORKER_TIMEOUT = 10, 60
"""Seconds to wait for the scheduler, and for a first worker."""

FETCH_TIMEOUT = 10
"""Seconds to fetch a result; without an end, one that was lost with the last worker would be waited for for ever."""

NO_WORKERS_TIMEOUT = 600
"""Seconds to wait for another worker when all have left: a cluster that grows on demand takes minutes."""

Job = TypeVar("Job")
Result = TypeVar("Result")

_stopping: Any = None
"""In a worker process: the event that no more jobs are wanted."""

_report: Callable[[float], object] = float
"""What `report_share` calls: here nothing that matters, in a job what passes the share on."""

_alone = threading.Lock()


class InterruptedJobError(Exception):
    """A worker was told to stop in the middle of a job."""


class Workers(Protocol):
    """Workers, here or elsewhere, that are given jobs as `concurrent.futures` has it."""

    deaths: tuple[type[Exception], ...]
    """What a future raises when its worker has died."""
    strikes: int
    """How often a job may do so before it is given up."""

    def has_room(self) -> bool:
        """Whether another job can be taken."""

    def submit(self, work: Callable[[Job], Result], job: Job) -> Future[Any]:
        """Begin a job; its result is that of `attempt`."""

    def share(self, future: Future[Any]) -> float:
        """Which share of a running job is done, from 0 to 1."""

    def check(self) -> None:
        """No job has ended for a while. Raises `UserError` when none ever will."""

    def release(self, future: Future[Any]) -> None:
        """This job has ended."""

    def stop(self) -> None:
        """No more jobs; those that run are waited for only until they have removed what they began."""


def default_workers() -> int:
    """As many workers as there are processors, up to 8."""
    return min(8, processors())


def report_share(share: float) -> None:
    """To be called within a job: which share of it is done, from 0 to 1."""
    _report(share)


def _report_to(progress: Callable[[float], None], size: float, share: float) -> None:
    progress(share * size)


def run_jobs(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    workers: int = 1,
    threads: int | None = None,
    cluster: str | None = None,
    folders: Sequence[Path] = (),
    sizes: Sequence[float] | None = None,
    progress: Callable[[float], None] | None = None,
) -> Generator[tuple[Job, Result | UserError], None, None]:
    """Yield `(job, work(job))` for every job, in the order they end; what a `UserError` stopped yields that error.

    One worker is this process itself; several are processes that share `threads`, by default those of the processors.
    With the address of a `cluster`, the workers there do it, which must see `folders`. A job whose worker dies is run
    again, and given up with an error after three deaths. Any other error stops everything.

    `progress` gets the sum of what running jobs, with `sizes` of 1 each by default, have reported by `report_share`.
    """
    global _report
    sizes, progress = sizes or [1.0] * len(jobs), progress or (lambda running: None)
    if workers < 1:
        raise UserError(f"--workers must be 1 or more, not {workers}.")
    if cluster and jobs:
        with closing(Cluster(cluster, folders)) as there:
            yield from run_in(there, work, jobs, sizes, progress)
    elif min(workers, len(jobs)) > 1:
        with closing(Processes(min(workers, len(jobs)), threads)) as here:
            yield from run_in(here, work, jobs, sizes, progress)
    else:
        for job, size in zip(jobs, sizes, strict=True):
            _report = partial(_report_to, progress, size)
            yield job, attempt(work, job)


def run_in(
    workers: Workers,
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    sizes: Sequence[float],
    progress: Callable[[float], None],
) -> Iterator[tuple[Job, Result | UserError]]:
    """The same, in workers that are there.

    A job whose worker died is run again alone, when all others are done. So it has the most memory, and no job is
    blamed for the one beside it.
    """
    waiting, suspects = deque(range(len(jobs))), deque[int]()
    strikes: Counter[int] = Counter()
    running: dict[Future[Any], int] = {}
    ended: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
    idle = 0.0
    while waiting or suspects or running:
        while (waiting and workers.has_room()) or (suspects and not running):
            number = (waiting or suspects).popleft()
            future = workers.submit(work, jobs[number])
            running[future] = number
            future.add_done_callback(ended.put)
        try:
            future = ended.get(timeout=POLL_SECONDS)
        except queue.Empty:
            progress(sum(workers.share(future) * sizes[number] for future, number in running.items()))
            if (idle := idle + POLL_SECONDS) >= CHECK_SECONDS:
                workers.check()
            continue
        idle = 0.0
        number = running.pop(future)
        workers.release(future)
        if isinstance(future.exception(), workers.deaths):
            strikes[number] += 1
            if strikes[number] < workers.strikes:
                suspects.append(number)
                continue
            message = "it killed its worker three times or more, perhaps for lack of memory."
            yield jobs[number], UserError(message, "worker_died")
        else:
            yield jobs[number], future.result()


@contextmanager
def closing(workers: Any) -> Iterator[Any]:
    """The workers, which are stopped when the block ends."""
    try:
        yield workers
    finally:
        workers.stop()


def attempt(work: Callable[[Job], Result], job: Job) -> Result | UserError:
    """The result of a job, or the reason why it has none."""
    try:
        return work(job)
    except UserError as error:
        return error


class Processes:
    """Processes of this machine. Each has one job at a time, so when it dies it is known what has killed it."""

    deaths = (BrokenProcessPool, InterruptedJobError)
    strikes = 3

    def __init__(self, workers: int, threads: int | None):
        self.workers, self.threads = workers, threads
        self.context = multiprocessing.get_context("spawn")
        with _signals_blocked():  # Python's resource tracker, which starts in here, would die of SIGHUP (3.10 to 3.13)
            self.stopping = self.context.Event()
            self.shares = self.context.Array("d", workers, lock=False)
        self.idle: list[tuple[int, ProcessPoolExecutor | None]] = [(slot, None) for slot in range(workers)]
        self.busy: dict[Future[Any], tuple[int, ProcessPoolExecutor]] = {}

    def has_room(self) -> bool:
        return bool(self.idle)

    def submit(self, work: Callable[[Job], Result], job: Job) -> Future[Any]:
        slot, executor = self.idle.pop()
        if executor is None:
            executor = ProcessPoolExecutor(1, self.context, _begin, (self.stopping, self.shares, slot))
        self.shares[slot] = 0.0
        with _threads_shared(self.workers, self.threads), _signals_blocked():  # the process is started in here
            future = executor.submit(_attempt_in_process, work, job)
        self.busy[future] = slot, executor
        return future

    def share(self, future: Future[Any]) -> float:
        return self.shares[self.busy[future][0]]

    def check(self) -> None:
        """A process that dies is noticed at once."""

    def release(self, future: Future[Any]) -> None:
        slot, executor = self.busy.pop(future)
        if isinstance(future.exception(), self.deaths):
            executor.shutdown()
            self.idle.append((slot, None))
        else:
            self.idle.append((slot, executor))

    def stop(self) -> None:
        """End all processes; jobs that are running are interrupted, so that they can remove what they began."""
        self.stopping.set()
        executors = [executor for _, executor in self.busy.values()]
        for executor in executors:
            for process in list((executor._processes or {}).values()):  # Python has no other name for them yet
                if process.is_alive() and process.pid:
                    os.kill(process.pid, signal.SIGINT)
        for executor in [*executors, *(executor for _, executor in self.idle if executor)]:
            executor.shutdown(cancel_futures=True)


@contextmanager
def _threads_shared(workers: int, threads: int | None) -> Iterator[None]:
    """Processes started in here have a share of the threads each, unless the environment sets a number."""
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


def _stop_signals() -> set[signal.Signals]:
    return {getattr(signal, name) for name in STOP_SIGNALS if hasattr(signal, name)}


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Signals to stop wait for the end of the block, and in processes started in here until they handle them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _stop_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(stopping: Any, shares: Any, slot: int) -> None:
    """What a process does first. It exits when its parent dies, instead of waiting for it for ever.

    A signal to the whole group (a terminal that closes, Slurm, systemd) reaches the parent as well, which stops us.
    """
    global _stopping, _report
    _stopping = stopping

    def report(share: float) -> None:
        shares[slot] = share

    _report = report
    for number in _stop_signals():
        signal.signal(number, _ignore)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _stop_signals())
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent:
            parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _attempt_in_process(work: Callable[[Job], Result], job: Job) -> Result | UserError | None:
    """As `attempt`. A job that a signal interrupts removes what it has begun."""
    try:
        for number in _stop_signals():
            signal.signal(number, _interrupt)
        return None if _stopping.is_set() else attempt(work, job)
    except KeyboardInterrupt:
        raise InterruptedJobError from None
    finally:
        for number in _stop_signals():
            signal.signal(number, _ignore)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if postponed(number, frame):
        return
    for each in _stop_signals():
        signal.signal(each, _ignore)  # a second one would interrupt the removal
    raise KeyboardInterrupt


def _ignore(number: int, frame: FrameType | None) -> None:
    """In place of SIG_IGN, which makes Python complain about a signal that has arrived already."""


class Cluster:
    """The workers of the Dask cluster at `address`; they must see `folders`.

    Raises `UserError` when there are none, when they lack this program, and when the connection is lost.
    """

    strikes = 2
    """The scheduler runs a job again itself, by default three times, but blames all jobs that its worker had."""

    def __init__(self, address: str, folders: Sequence[Path] = ()):
        try:
            import distributed
        except ImportError:
            message = "--cluster needs Dask's distributed: `pip install .[cluster]`."
            raise UserError(message, "missing_package") from None
        for name in ("distributed", "distributed.client", "tornado.application"):  # their traces become sentences below
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self.deaths, self.folders = (distributed.KilledWorker,), tuple(map(os.path.abspath, folders))
        self.running, self.client = 0, cast(Any, None)
        self.tasks: dict[Future[Any], Any] = {}  # Dask's own futures, some of which never tell that they are done
        try:
            greet(address)  # a client that fails to connect would hang for a long time when it is collected
            self.client = distributed.Client(address, timeout=CONNECT_TIMEOUT, set_as_default=False)
            self.client.wait_for_workers(1, timeout=FIRST_WORKER_TIMEOUT)
            if missing := self.client.run_on_scheduler(eval, MISSING):
                raise ValueError(f"this program is not installed where the scheduler runs, on {missing}")
        except (OSError, ValueError, asyncio.TimeoutError) as error:  # the latter is an OSError from Python 3.11 on
            self.stop()
            reason = f"{error}" if isinstance(error, ValueError) else f"there is no scheduler with workers ({error})"
            raise UserError(f"--cluster {address}: {reason}.", "no_cluster") from error

    def has_room(self) -> bool:
        return self.running < WINDOW

    def submit(self, work: Callable[[Job], Result], job: Job) -> Future[Any]:
        self.running += 1
        future: Future[Any] = Future()
        self.tasks[future] = task = self.client.submit(attempt_there, work, job, self.folders, pure=False)
        task.add_done_callback(lambda _: self.settle(future))
        return future

    def share(self, future: Future[Any]) -> float:
        return 0.0  # a cluster tells only when a job has ended

    def settle(self, future: Future[Any]) -> None:
        """Pass on a job's result or error; not yet when the result is lost with its worker while it is fetched."""
        task = self.tasks.get(future)
        if task is None or future.done():
            return
        with suppress(InvalidStateError):  # another thread was faster
            try:
                future.set_result(task.result(timeout=FETCH_TIMEOUT))
            except CancelledError:
                future.cancel()
            except InvalidStateError:
                raise
            except Exception as error:
                if task.status == "error" or not isinstance(error, asyncio.TimeoutError):
                    future.set_exception(error)

    def release(self, future: Future[Any]) -> None:
        self.running -= 1
        self.tasks.pop(future, None)
        if future.cancelled() or isinstance(future.exception(), ImportError):
            lost = "the connection to the scheduler is lost" if future.cancelled() else future.exception()
            message = f"the cluster cannot go on ({lost}); run it again: what is done is kept."
            raise UserError(message, "cluster_lost")

    def check(self) -> None:
        """Raises `UserError` when all workers left long ago, or the scheduler did."""
        for future, task in list(self.tasks.items()):
            if task.done():  # its result was lost with a worker, and computed again without notice
                self.settle(future)
        try:
            self.client.wait_for_workers(1, timeout=NO_WORKERS_TIMEOUT)
        except (OSError, ValueError, asyncio.TimeoutError) as error:  # the latter is an OSError from Python 3.11 on
            message = f"the cluster has no workers any more ({error}); run it again: what is done is kept."
            raise UserError(message, "cluster_lost") from None

    def stop(self) -> None:
        tasks = list(self.tasks.values())
        self.tasks.clear()  # nobody waits for these any more
        with suppress(Exception):  # the scheduler may be gone
            if self.client:
                self.client.cancel(tasks, force=True)
                self.client.close(timeout=5)


MISSING = "'' if __import__('importlib.util').util.find_spec('separation') else __import__('socket').gethostname()"
"""For a scheduler that may lack this program: the name of its machine if it does."""


def greet(address: str) -> None:
    """Check who listens at an address. Raises `OSError` or `ValueError` unless it is a scheduler that understands us.

    A scheduler speaks first. A dashboard, or another web server, waits for a request, as a client would for ever.
    """
    import distributed
    from distributed.comm import get_address_host_port

    if address.partition("://")[0] not in ("tcp", address):
        return  # over TLS the client speaks first
    greeted = b""
    with socket.create_connection(get_address_host_port(address), CONNECT_TIMEOUT) as connection:
        connection.settimeout(CONNECT_TIMEOUT)
        with suppress(TimeoutError):
            greeted = connection.recv(1)
    if not greeted:
        raise ValueError("what listens there is no scheduler: its port is 8786 by default, the dashboard's is 8787")

    async def ask() -> dict[str, Any]:
        comm = await distributed.comm.connect(address, timeout=CONNECT_TIMEOUT)
        try:
            await comm.write({"op": "versions", "reply": True})
            return (await comm.read())["packages"]
        finally:
            await comm.close()

    # A client of 2026.8 asks what a scheduler of 2024.1 does not know, and ends in a TypeError.
    theirs, ours = asyncio.run(ask())["distributed"], distributed.__version__
    if theirs.split(".")[:2] != ours.split(".")[:2]:
        raise ValueError(f"its scheduler runs Dask {theirs}, and this program {ours}: install the same version")


def attempt_there(work: Callable[[Job], Result], job: Job, folders: Sequence[str]) -> Result | UserError:
    """The result of a job, or the reason why it has none, and the machine where that is so.

    A worker does one job at a time, however many threads it has: what a job removes after an error is its process's.
    """
    here = socket.gethostname()
    for folder in folders:
        if not os.path.isdir(folder):  # noqa: PTH112 (raises nothing where one may not look)
            return UserError(f"{here} cannot see {folder}: put it on storage that all machines share.", "no_folder")
    with _alone:
        result = attempt(work, job)
    return UserError(f"{result} (on {here})", result.code) if isinstance(result, UserError) else result
