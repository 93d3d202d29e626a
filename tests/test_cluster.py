from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import Counter
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread

import pytest
from conftest import make_stems, write_files
from networks import random_weights

from separation.dataset import command as dataset
from separation.errors import UserError
from separation.jobs import MISSING, Cluster, run_jobs
from separation.songs import command
from separation.stems import STEMS

dask, distributed = pytest.importorskip("dask"), pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def cluster():
    """A scheduler and two workers on this machine, each a process with a nanny that replaces it when it dies."""
    settings = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0", "scheduler_port": 0}
    here = {
        "distributed.scheduler.allowed-failures": 1,  # for brevity: three by default
        "distributed.comm.timeouts.connect": "2 minutes",  # a busy machine is slow to start a worker again
    }
    with dask.config.set(here), distributed.LocalCluster(**settings, silence_logs="CRITICAL") as running:
        yield running


def note(folder: Path, job: int) -> int:
    """Note that a job was begun; job 3 cannot be done, 5 kills its worker each time, and 7 the first time."""
    with (folder / f"{job}").open("a") as file:
        file.write(f"{os.getpid()}\n")
    if job == 3:
        raise UserError("3 cannot be done.")
    if job == 5 or (job == 7 and len((folder / "7").read_text().split()) == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * job


def test_the_workers_of_a_cluster_do_every_job_once_and_pass_over_what_kills_them(cluster, tmp_path):
    jobs = list(range(12))
    found = list(run_jobs(partial(note, tmp_path), jobs, cluster=cluster.scheduler_address, folders=[tmp_path]))
    assert Counter(job for job, _ in found) == dict.fromkeys(jobs, 1)
    results = dict(found)
    assert all(results[job] == 2 * job for job in jobs if job not in (3, 5))
    assert str(results[3]).startswith("3 cannot be done. (on ")
    assert "killed its worker" in str(results[5])
    begun = {job: (tmp_path / f"{job}").read_text().split() for job in jobs}
    assert len(begun[5]) >= 3 and 2 <= len(begun[7]) <= len(begun[5])
    assert str(os.getpid()) not in {process for processes in begun.values() for process in processes}


def test_a_folder_that_a_worker_cannot_see_is_named(cluster, tmp_path):
    (result,) = run_jobs(partial(note, tmp_path), [1], cluster=cluster.scheduler_address, folders=[tmp_path / "there"])
    assert f"cannot see {tmp_path / 'there'}" in str(result[1])


def test_a_cluster_that_all_workers_have_left_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("separation.jobs.CHECK_SECONDS", 0.1)
    monkeypatch.setattr("separation.jobs.NO_WORKERS_TIMEOUT", 1)
    settings = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": ":0", "scheduler_port": 0}
    with distributed.LocalCluster(**settings, processes=False, protocol="tcp", silence_logs="CRITICAL") as deserted:
        results = run_jobs(partial(slow, tmp_path), list(range(8, 40)), cluster=deserted.scheduler_address)
        assert next(results) == (8, 16)
        deserted.scale(0)
        with pytest.raises(UserError, match="no workers any more"):
            list(results)


@pytest.mark.parametrize(("status", "settled"), [("finished", False), ("error", True)])
def test_a_result_lost_while_it_is_fetched_is_not_waited_for_for_ever(status, settled):
    """Dask's `result` without a timeout waits on even when no worker is left to compute it again."""

    class Task:
        def result(self, timeout=None):
            assert timeout is not None
            raise asyncio.TimeoutError

    task, future, there = Task(), Future(), object.__new__(Cluster)
    task.status, there.tasks = status, {future: task}
    there.settle(future)
    assert future.done() == settled
    assert not settled or isinstance(future.exception(), asyncio.TimeoutError)


def slow(folder: Path, job: int) -> int:
    time.sleep(0.2)
    return note(folder, job)


def test_workers_may_come_and_go_while_it_runs(cluster, tmp_path):
    jobs = [job for job in range(40) if job not in (3, 5, 7)]
    results = run_jobs(partial(slow, tmp_path), jobs, cluster=cluster.scheduler_address)
    found = [next(results)]
    cluster.scale(3)
    for number, result in enumerate(results):
        found.append(result)
        if number in (5, 15):
            worker = next(iter(cluster.workers.values()))
            os.kill(worker.pid, signal.SIGKILL)
    assert sorted(found) == [(job, 2 * job) for job in jobs]
    cluster.scale(2)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nowhere", "tcp://"])
def test_a_cluster_that_is_not_there_is_a_sentence(address):
    with pytest.raises(UserError, match="--cluster"):
        list(run_jobs(str, [1], cluster=address))


class Silent(BaseRequestHandler):
    def handle(self):
        self.request.recv(1000)  # a web server waits for a request


def test_a_port_that_is_no_schedulers_is_named_instead_of_hanging(monkeypatch):
    """As the dashboard's, at which a client of distributed 2026.8 waits for ever."""
    monkeypatch.setattr("separation.jobs.CONNECT_TIMEOUT", 0.5)
    with ThreadingTCPServer(("127.0.0.1", 0), Silent) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(UserError, match="8786 by default, the dashboard's is 8787") as caught:
            list(run_jobs(str, [1], cluster=f"tcp://127.0.0.1:{server.server_address[1]}"))
        server.shutdown()
    assert caught.value.code == "no_cluster"


def test_a_scheduler_of_another_version_is_named_with_ours(cluster, monkeypatch):
    theirs = distributed.__version__
    monkeypatch.setattr(distributed, "__version__", "2020.1.0")
    with pytest.raises(UserError, match=f"runs Dask {theirs}, and this program 2020.1.0") as caught:
        list(run_jobs(str, [1], cluster=cluster.scheduler_address))
    assert caught.value.code == "no_cluster"


def test_a_scheduler_without_this_program_is_one_sentence(cluster, monkeypatch):
    monkeypatch.setattr("separation.jobs.MISSING", MISSING.replace("'separation'", "'no_such_program'"))
    with pytest.raises(UserError, match="not installed where the scheduler runs") as caught:
        list(run_jobs(str, [1], cluster=cluster.scheduler_address))
    assert caught.value.code == "no_cluster"


def test_songs_and_datasets_come_out_as_in_one_process(cluster, tmp_path, monkeypatch):
    """Relative paths are those of where the command is called; the workers were started elsewhere."""
    monkeypatch.chdir(tmp_path)
    address = cluster.scheduler_address
    weights = random_weights(tmp_path / "vocals.safetensors")
    for number in range(3):
        write_files(tmp_path / "songs" / f"{number}", make_stems(number, 1.0))
    (tmp_path / "songs" / "2" / "vocals.wav").write_text("no music")

    def files(folder: str) -> dict[str, bytes]:
        found = sorted((tmp_path / folder).rglob("*.wav")) + sorted((tmp_path / folder).rglob("*.npy"))
        return {str(path.relative_to(tmp_path / folder)): path.read_bytes() for path in found}

    for folder, options in (("one", []), ("there", ["--cluster", address])):
        arguments = ["songs", "--weights", weights, "--output", folder, *options]
        monkeypatch.setattr("sys.argv", ["create_songs.py", *map(str, arguments)])
        assert command.main() == 1  # the one that is no music
        arguments = ["--dataset", "FOLDER", "--root", "songs", "--output", f"{folder} store", *options]
        monkeypatch.setattr("sys.argv", ["dataset.py", "--vocals", *arguments])
        assert dataset.main() == 1
        pack = ["--dataset", "FOLDER", "--root", "songs", "--pack", f"{folder} packed", *options]
        monkeypatch.setattr("sys.argv", ["dataset.py", *pack])
        assert dataset.main() == 1
    assert len(files("one")) == 2 * 11 and files("there") == files("one")
    assert len(files("one store")) >= 4 and files("there store") == files("one store")
    packed = [sorted((tmp_path / f"{folder} packed").rglob("*.ogg")) for folder in ("one", "there")]
    assert len(packed[0]) == len(packed[1]) == 2 * len(STEMS)
    lines = [json.loads(line) for line in (tmp_path / "there" / "manifest.jsonl").read_text().splitlines()]
    assert sorted(line["result"] for line in lines) == ["done"] * 11 + ["failed"]
