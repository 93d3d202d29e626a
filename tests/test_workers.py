from __future__ import annotations

import os
import signal

import pytest

from separation.errors import UserError
from separation.workers import run_jobs


def double(number: int) -> int:
    if number == 3:
        raise UserError("3 cannot be doubled.")
    if number == 99:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number


def process_and_threads(_: int) -> tuple[int, str | None]:
    return os.getpid(), os.environ.get("OMP_NUM_THREADS")


def test_one_worker_is_this_process():
    assert dict(run_jobs(process_and_threads, [1, 2], 1))[1][0] == os.getpid()


def test_several_workers_share_the_processors(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    found = dict(run_jobs(process_and_threads, [1, 2], 2)).values()
    assert {threads for _, threads in found} == {"3"}
    assert os.getpid() not in {process for process, _ in found}
    assert "OMP_NUM_THREADS" not in os.environ
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert {threads for _, threads in dict(run_jobs(process_and_threads, [1, 2], 2)).values()} == {"1"}


def test_several_workers_do_every_job_and_one_failure_stops_no_other():
    results = dict(run_jobs(double, [1, 2, 3, 4], 2))
    assert {job: result for job, result in results.items() if job != 3} == {1: 2, 2: 4, 4: 8}
    assert str(results[3]) == "3 cannot be doubled."


def test_a_worker_that_is_killed_is_a_sentence():
    with pytest.raises(UserError, match="fewer --workers"):
        list(run_jobs(double, [1, 99], 2))


def test_no_workers_are_refused():
    with pytest.raises(UserError, match="--workers"):
        list(run_jobs(double, [1], 0))
