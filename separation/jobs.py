"""Run jobs in parallel, in local processes or on a Dask cluster; a job that fails does not stop the others.

Every machine of a cluster must have this program installed and see every folder under the same path.
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
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar, cast

from separation.errors import UserError
from separation.runtime import STOP_SIGNALS, postponed, processors, signals_blocked, stops_deferred

CLUSTER_HELP = "use the workers of a Dask cluster, tcp://host:port; all folders must be on storage that they share"

POLL_SECONDS = 0.5
"""Seconds between two progress updates of running jobs."""

CHECK_SECONDS = 5
"""Seconds without a finished job after which a cluster is checked."""

WINDOW = 4000
"""Jobs submitted to the scheduler at a time: more than the threads of a hundred machines."""

CONNECT_TIMEOUT, FIRST_WORKER_TIMEOUT = 10, 60
"""Seconds to wait for the scheduler, and for the first worker."""

FETCH_TIMEOUT = 10
"""Seconds to wait for a result; without a limit, a result lost with the last worker would block forever."""

NO_WORKERS_TIMEOUT = 600
"""Seconds to wait for a new worker when all have left: a cluster that scales on demand takes minutes."""

Job = TypeVar("Job")
Result = TypeVar("Result")

_stopping: Any = None
"""In a worker process: the event that is set when no more jobs are wanted."""

_report: Callable[[float], object] = float
"""Called by `report_share`: does nothing by default; within a job, passes the fraction on."""

_alone = threading.Lock()


class InterruptedJobError(Exception):
    """A worker was stopped in the middle of a job."""


def default_workers() -> int:
    """One worker per processor, up to 8."""
    return min(8, processors())


def report_share(share: float) -> None:
    """Report, from within a job, the fraction that is done, from 0 to 1."""
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
    """Yield `(job, work(job))` for every job, as jobs end; a job that raises `UserError` yields that error instead.

    A single worker is this process; several are processes that share `threads`, by default one per processor. With the
    address of a `cluster`, its workers run the jobs and must see `folders`. A job whose worker dies is retried, and
    given up with an error after three deaths or more. Any other error stops everything.

    `progress` receives the sum of what running jobs have reported by `report_share`, times their `sizes`, 1 by default.
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
    workers: Processes | Cluster,
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    sizes: Sequence[float],
    progress: Callable[[float], None],
) -> Iterator[tuple[Job, Result | UserError]]:
    """`run_jobs` for existing workers.

    A job whose worker died is retried alone, after all others are done: it then has the most memory, and no job is
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


def attempt(work: Callable[[Job], Result], job: Job) -> Result | UserError:
    """The result of a job, or the `UserError` that stopped it."""
    try:
        return work(job)
    except UserError as error:
        return error


class Processes:
    """Local processes. Each runs one job at a time, so if it dies, the job that killed it is known."""

    deaths = (BrokenProcessPool, InterruptedJobError)
    """What a future raises when its worker has died."""
    strikes = 3
    """Number of dead workers after which a job is given up."""

    def __init__(self, workers: int, threads: int | None):
        self.workers, self.threads = workers, threads
        self.context = multiprocessing.get_context("spawn")
        with signals_blocked():  # the resource tracker starts here; SIGHUP would kill it (Python 3.10 to 3.13)
            self.stopping = self.context.Event()
            self.shares = self.context.Array("d", workers, lock=False)
        self.idle: list[tuple[int, ProcessPoolExecutor | None]] = [(slot, None) for slot in range(workers)]
        self.busy: dict[Future[Any], tuple[int, ProcessPoolExecutor]] = {}

    def has_room(self) -> bool:
        """Whether another job can be submitted."""
        return bool(self.idle)

    def submit(self, work: Callable[[Job], Result], job: Job) -> Future[Any]:
        """Start a job; the result is that of `attempt`."""
        slot, executor = self.idle.pop()
        if executor is None:
            executor = ProcessPoolExecutor(1, self.context, _begin, (self.stopping, self.shares, slot))
        self.shares[slot] = 0.0
        with _threads_shared(self.workers, self.threads), signals_blocked():  # this starts the process
            future = executor.submit(_attempt_in_process, work, job)
        self.busy[future] = slot, executor
        return future

    def share(self, future: Future[Any]) -> float:
        """Fraction of a running job that is done, from 0 to 1."""
        return self.shares[self.busy[future][0]]

    def check(self) -> None:
        """Nothing to check: the death of a process is noticed at once."""

    def release(self, future: Future[Any]) -> None:
        """Called when this job has ended."""
        slot, executor = self.busy.pop(future)
        if isinstance(future.exception(), self.deaths):
            executor.shutdown()
            self.idle.append((slot, None))
        else:
            self.idle.append((slot, executor))

    def close(self) -> None:
        """End all processes; running jobs are interrupted, so that they can clean up."""
        with stops_deferred():  # a second Ctrl-C would leave workers without their semaphores
            self.stopping.set()
            executors = [executor for _, executor in self.busy.values()]
            for executor in executors:
                for process in list((executor._processes or {}).values()):  # there is no public name yet
                    if process.is_alive() and process.pid:
                        os.kill(process.pid, signal.SIGINT)
            for executor in [*executors, *(executor for _, executor in self.idle if executor)]:
                executor.shutdown(cancel_futures=True)


@contextmanager
def _threads_shared(workers: int, threads: int | None) -> Iterator[None]:
    """Give processes started in the block equal shares of `threads`; None leaves OMP_NUM_THREADS as is, if set."""
    if threads is None and "OMP_NUM_THREADS" in os.environ:
        yield
        return
    # torch and numpy read it when they are imported
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(max(1, (threads or processors()) // workers))
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def _begin(stopping: Any, shares: Any, slot: int) -> None:
    """Initialise a worker process, which exits when its parent dies instead of blocking forever.

    A signal to the whole group, from a closing terminal, Slurm or systemd, also reaches the parent, which stops us.
    """
    global _stopping, _report
    _stopping = stopping

    def report(share: float) -> None:
        shares[slot] = share

    _report = report
    for number in STOP_SIGNALS:
        signal.signal(number, _ignore)
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent:
            parent.join()
        os._exit(1)

    # This thread keeps the signals blocked: one that it took would not wake the main thread from a system call.
    threading.Thread(target=wait, daemon=True).start()
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def _attempt_in_process(work: Callable[[Job], Result], job: Job) -> Result | UserError | None:
    """`attempt` in a worker process, where a stop signal interrupts the job so that it can clean up."""
    try:
        for number in STOP_SIGNALS:
            signal.signal(number, _interrupt)
        return None if _stopping.is_set() else attempt(work, job)
    except KeyboardInterrupt:
        raise InterruptedJobError from None
    finally:
        for number in STOP_SIGNALS:
            signal.signal(number, _ignore)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if postponed(number, frame):
        return
    for each in STOP_SIGNALS:
        signal.signal(each, _ignore)  # a second one would interrupt the clean-up
    raise KeyboardInterrupt


def _ignore(number: int, frame: FrameType | None) -> None:
    """Used instead of SIG_IGN, which makes Python complain about a signal that has already arrived."""


class Cluster:
    """The workers of the Dask cluster at `address`; they must see `folders`.

    Raises `UserError` if there are none, if they lack this program, or if the connection is lost.
    """

    strikes = 2
    """The scheduler itself retries a job, by default three times, but blames every job that the dead worker held."""

    def __init__(self, address: str, folders: Sequence[Path] = ()):
        try:
            import distributed
        except ImportError:
            message = "--cluster needs Dask's distributed: `pip install .[cluster]`."
            raise UserError(message, "missing_package") from None
        for name in ("distributed", "distributed.client", "tornado.application"):  # replaced by the messages below
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self.deaths, self.folders = (distributed.KilledWorker,), tuple(map(os.path.abspath, folders))
        self.running, self.client = 0, cast(Any, None)
        self.tasks: dict[Future[Any], Any] = {}  # Dask's futures, some of which never signal completion
        try:
            greet(address)  # a client that fails to connect hangs for a long time when garbage-collected
            self.client = distributed.Client(address, timeout=CONNECT_TIMEOUT, set_as_default=False)
            self.client.wait_for_workers(1, timeout=FIRST_WORKER_TIMEOUT)
            if missing := self.client.run_on_scheduler(eval, MISSING):
                raise ValueError(f"this program is not installed where the scheduler runs, on {missing}")
        except (OSError, ValueError, asyncio.TimeoutError) as error:  # the latter is an OSError from Python 3.11 on
            self.close()
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
        return 0.0  # a cluster only reports completion

    def settle(self, future: Future[Any]) -> None:
        """Pass on a job's result or error, unless the result is lost with its worker while being fetched."""
        task = self.tasks.get(future)
        if task is None or future.done():
            return
        with suppress(InvalidStateError):  # another thread settled it first
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
            message = f"the cluster cannot continue ({lost}); run it again: finished work is kept."
            raise UserError(message, "cluster_lost")

    def check(self) -> None:
        """Raise `UserError` if no worker appears within `NO_WORKERS_TIMEOUT`, or the scheduler is gone."""
        for future, task in list(self.tasks.items()):
            if task.done():  # its result was lost with a worker and silently recomputed
                self.settle(future)
        try:
            self.client.wait_for_workers(1, timeout=NO_WORKERS_TIMEOUT)
        except (OSError, ValueError, asyncio.TimeoutError) as error:  # the latter is an OSError from Python 3.11 on
            message = f"the cluster has no workers any more ({error}); run it again: finished work is kept."
            raise UserError(message, "cluster_lost") from None

    def close(self) -> None:
        """Cancel all jobs."""
        tasks = list(self.tasks.values())
        self.tasks.clear()  # so that `settle` ignores them
        with suppress(Exception):  # the scheduler may be gone
            if self.client:
                self.client.cancel(tasks, force=True)
                self.client.close(timeout=5)


MISSING = "'' if __import__('importlib.util').util.find_spec('separation') else __import__('socket').gethostname()"
"""Evaluated by the scheduler: its host name if this program is not installed there, else an empty string."""


def greet(address: str) -> None:
    """Raise `OSError` or `ValueError` unless a compatible scheduler listens at `address`.

    A scheduler speaks first. A dashboard or another web server waits for a request, and a client would wait forever.
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
        raise ValueError("no scheduler is listening there: its port is 8786 by default, the dashboard's is 8787")

    async def ask() -> dict[str, Any]:
        comm = await distributed.comm.connect(address, timeout=CONNECT_TIMEOUT)
        try:
            await comm.write({"op": "versions", "reply": True})
            return (await comm.read())["packages"]
        finally:
            await comm.close()

    # A 2026.8 client sends requests that a 2024.1 scheduler does not know, and fails with a TypeError.
    theirs, ours = asyncio.run(ask())["distributed"], distributed.__version__
    if theirs.split(".")[:2] != ours.split(".")[:2]:
        raise ValueError(f"its scheduler runs Dask {theirs}, and this program {ours}: install the same version")


def attempt_there(work: Callable[[Job], Result], job: Job, folders: Sequence[str]) -> Result | UserError:
    """The result of a job, or the `UserError` that stopped it, naming this machine.

    A worker runs one job at a time, however many threads it has: a job's clean-up after an error affects the process.
    """
    here = socket.gethostname()
    for folder in folders:
        if not os.path.isdir(folder):  # noqa: PTH112 (does not raise without permission)
            return UserError(f"{here} cannot see {folder}: put it on storage that all machines share.", "no_folder")
    with _alone:
        result = attempt(work, job)
    return UserError(f"{result} (on {here})", result.code) if isinstance(result, UserError) else result
