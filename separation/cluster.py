"""The workers of a running Dask cluster do the jobs, however they were started: by Slurm, Kubernetes or hand.

Every folder must lie where all of them see it under the same name, and this program be installed there.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from separation.errors import UserError
from separation.workers import attempt

Job = TypeVar("Job")
Result = TypeVar("Result")

WINDOW = 4000
"""Jobs that the scheduler is given at a time: more than the threads of a hundred machines."""

PATIENCE = 10, 60
"""Seconds to wait for the scheduler, and for a first worker."""

DESERTED = 600
"""Seconds to wait for another worker when all have left: a cluster that grows by need takes minutes."""

_alone = threading.Lock()


class Cluster:
    """The workers of the cluster at `address`, as a `separation.workers.Pool`; they must see `folders`.

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
            socket.create_connection(get_address_host_port(address), PATIENCE[0]).close()
            self.client = Client(address, timeout=PATIENCE[0], set_as_default=False)
            self.client.wait_for_workers(1, timeout=PATIENCE[1])
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
            self.client.wait_for_workers(1, timeout=DESERTED)
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
