from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Thread

import pytest
from conftest import REPOSITORY, hear_signals
from workloads import clears_away, dangerous, double, half_done, process_and_threads, stops_itself

from separation.errors import UserError
from separation.jobs import run_jobs

needs_signals = pytest.mark.skipif(os.name != "posix", reason="elsewhere there are no such signals")


def test_one_worker_is_this_process():
    assert dict(run_jobs(process_and_threads, [1, 2], 1))[1][0] == os.getpid()


def test_several_workers_share_the_processors(monkeypatch):
    monkeypatch.setattr("separation.jobs.processors", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    found = dict(run_jobs(process_and_threads, [1, 2], 2)).values()
    assert {threads for _, threads in found} == {"3"}
    assert os.getpid() not in {process for process, _ in found}
    assert "OMP_NUM_THREADS" not in os.environ
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert {threads for _, threads in dict(run_jobs(process_and_threads, [1, 2], 2)).values()} == {"1"}
    assert {threads for _, threads in dict(run_jobs(process_and_threads, [1, 2], 2, threads=8)).values()} == {"4"}
    assert os.environ["OMP_NUM_THREADS"] == "1"


def test_several_workers_do_every_job_and_one_failure_stops_no_other():
    results = dict(run_jobs(double, [1, 2, 3, 4], 2))
    assert {job: result for job, result in results.items() if job != 3} == {1: 2, 2: 4, 4: 8}
    assert str(results[3]) == "3 cannot be doubled."


def test_a_job_that_kills_its_workers_is_begun_three_times_and_passed_over(tmp_path):
    results = dict(run_jobs(partial(dangerous, tmp_path), list(range(12)), 3))
    assert {job: results[job] for job in range(12) if job not in (3, 7)} == {
        job: job for job in range(12) if job not in (3, 7)
    }
    assert "killed its worker three times" in str(results[3])
    assert results[7] == 7  # the second time it lives
    assert [len((tmp_path / f"{job}").read_text()) for job in (3, 7, 8)] == [3, 2, 1]


@pytest.fixture
def heed_ctrl_c():
    """Whatever another test, or who runs them, has made of Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_stopping_interrupts_the_jobs_which_clear_away_what_they_began(tmp_path, heed_ctrl_c):
    results = run_jobs(partial(clears_away, tmp_path), [1, 2, 3], 2)
    watch = Thread(target=interrupt_when, args=(lambda: {"1", "2"} <= {path.name for path in tmp_path.iterdir()},))
    watch.start()
    with pytest.raises(KeyboardInterrupt):
        next(results)
    watch.join()
    assert {path.name for path in tmp_path.iterdir()} == {"1 cleared", "2 cleared"}


def interrupt_when(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.skipif(sys.platform != "linux", reason="the children of a process are read from /proc")
def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    code = """
import sys; sys.path[:0] = sys.argv[2:]
from functools import partial; from pathlib import Path
from workloads import clears_away; from separation.jobs import run_jobs
if __name__ == "__main__":
    list(run_jobs(partial(clears_away, Path(sys.argv[1])), [1, 2], 2))
"""
    (tmp_path / "main.py").write_text(code)
    (tmp_path / "jobs").mkdir()
    paths = [REPOSITORY, REPOSITORY / "tests"]
    parent = subprocess.Popen([sys.executable, *map(str, (tmp_path / "main.py", tmp_path / "jobs", *paths))])
    while len(list((tmp_path / "jobs").iterdir())) < 2:
        assert parent.poll() is None
        time.sleep(0.02)
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    parent.kill()
    parent.wait()
    while any(is_running(child) for child in children):
        time.sleep(0.02)


def is_running(process: str) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@needs_signals
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_to_the_whole_group_is_one_word_and_leaves_nothing(tmp_path, name, code):
    """As of a terminal that is closed, of Slurm and of systemd: workers get it beside their parent."""
    program = """
import sys; sys.path[:0] = sys.argv[2:]
from functools import partial; from pathlib import Path
from workloads import clears_away; from separation.jobs import run_jobs; from separation.runtime import run_script
if __name__ == "__main__":
    run_script(lambda: list(run_jobs(partial(clears_away, Path(sys.argv[1])), [1, 2], 2)) and 0)
"""
    (tmp_path / "main.py").write_text(program)
    (tmp_path / "jobs").mkdir()
    command = [sys.executable, *map(str, (tmp_path / "main.py", tmp_path / "jobs", REPOSITORY, REPOSITORY / "tests"))]
    options = {"stderr": subprocess.PIPE, "text": True, "start_new_session": True, "preexec_fn": hear_signals}
    process = subprocess.Popen(command, **options)
    while len(list((tmp_path / "jobs").iterdir())) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, getattr(signal, name))
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors.strip()) == (code, "stopped")
    assert {path.name for path in (tmp_path / "jobs").iterdir()} == {"1 cleared", "2 cleared"}


@needs_signals
def test_a_worker_that_alone_is_told_to_stop_has_its_job_run_again(tmp_path):
    results = run_jobs(partial(stops_itself, tmp_path), [1, 2], 2)
    assert dict(results) == {1: 1, 2: 2}
    assert (tmp_path / "1").read_text() == "xx"


def test_progress_is_the_sum_of_what_running_jobs_report(tmp_path):
    told = []

    def progress(running: float) -> None:
        told.append(running)
        if running == pytest.approx(0.5 * 60 + 0.5 * 600):
            (tmp_path / "seen").touch()

    results = run_jobs(partial(half_done, tmp_path), [1, 2], 2, sizes=[60, 600], progress=progress)
    assert dict(results) == {1: 1, 2: 2}
    assert max(told) == pytest.approx(330)
    (tmp_path / "seen").touch()
    alone = run_jobs(partial(half_done, tmp_path), [1, 2], 1, sizes=[60, 600], progress=told.append)
    assert dict(alone) == {1: 1, 2: 2} and told[-2:] == [30, 300]


def test_no_workers_are_refused():
    with pytest.raises(UserError, match="--workers"):
        list(run_jobs(double, [1], 0))
