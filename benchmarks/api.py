"""The app's HTTP API under load, with many clients and a kill in between, and under fuzzed requests.

    python -m benchmarks.api load --jobs 200 --clients 8
    python -m benchmarks.api fuzz --schemathesis PROGRAM --examples 100

`load` sends one-second songs from several threads and kills the app (SIGKILL) when a third of them are done. The app
is restarted on the same port and folder. Requests without an answer are retried, as a client would. In the end every
job must be done and every song listed with its stems. `fuzz` needs schemathesis, in its own environment.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPException
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlencode

from benchmarks.made_up import write_mixture
from benchmarks.memory import peak_megabytes_of
from separation.runtime import run_script

PATIENCE = 300
"""Seconds after which a client gives up."""


class Client:
    """Calls the API of an app that may be down for a while, and records how long each answer took."""

    def __init__(self, address: str):
        self.address, self.seconds, self.retries = address, [], 0

    def call(self, path: str, method: str = "GET", body: bytes | None = None) -> Any:
        end = time.monotonic() + PATIENCE
        while True:
            start = time.monotonic()
            try:
                request = urllib.request.Request(f"{self.address}{path}", body, method=method)
                with urllib.request.urlopen(request, timeout=60) as answer:
                    content = json.load(answer)
                self.seconds.append(time.monotonic() - start)
                return content
            except (urllib.error.HTTPError, json.JSONDecodeError):
                raise
            except (OSError, HTTPException):
                if time.monotonic() > end:
                    raise
                self.retries += 1
                time.sleep(0.5)

    def send(self, number: int) -> dict[str, Any]:
        """Send a song that no other client sends, and return its job."""
        content = BytesIO()
        write_mixture(content, number)
        query = urlencode({"name": f"song {number}.wav", "stems": "two", "format": "mp3"})
        return self.call(f"api/jobs?{query}", "POST", content.getvalue())

    def follow(self, job: dict[str, Any]) -> dict[str, Any]:
        """Wait for a job to end, and return it."""
        while job["state"] not in ("done", "failed"):
            time.sleep(0.5)
            job = self.call(f"api/jobs/{job['id']}")
        return job


class App:
    """The app, reachable from this machine only."""

    def __init__(self, folder: Path, options: list[str], port: int = 0):
        command = [sys.executable, "app.py", "--no-browser", "--port", str(port), "--output", str(folder), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.address = re.search(r"http://\S+", self.process.stdout.readline())[0]
        self.port = int(re.search(r":(\d+)/", self.address)[1])
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    def stop(self, number: int) -> float:
        """Send a signal, wait for the app to end, and return its peak memory in megabytes. Linux only."""
        peak = peak_megabytes_of(self.process.pid)
        self.process.send_signal(number)
        self.process.wait()
        return peak


@contextmanager
def app_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "stems"


def load(jobs: int, clients: int, options: list[str]) -> int:
    with app_folder() as folder:
        app = App(folder, options)
        port, start = app.port, time.monotonic()
        users = [Client(app.address) for _ in range(clients)]

        def work(number: int) -> list[dict[str, Any]]:
            user = users[number]
            sent = [user.send(song) for song in range(number, jobs, clients)]
            return [user.follow(job) for job in sent]

        with ThreadPoolExecutor(clients) as pool:
            ended = [pool.submit(work, number) for number in range(clients)]
            watcher = Client(app.address)
            while len(watcher.call("api/songs")) < jobs // 3:
                time.sleep(0.5)
            before = app.stop(signal.SIGKILL)
            killed = time.monotonic() - start
            app = App(folder, options, port)
            away = time.monotonic() - start - killed
            results = [job for future in ended for job in future.result()]
        seconds = time.monotonic() - start
        songs = watcher.call("api/songs")
        whole = [
            song["name"]
            for song in songs
            if all((folder / song["name"] / f"{s['name']}.mp3").is_file() for s in song["stems"])
        ]
        left = len(list((folder / ".jobs").glob("*/*/*.wav")))
        after = app.stop(signal.SIGINT)
    answers = sorted(second for user in users for second in user.seconds)
    done = sum(job["state"] == "done" for job in results)
    lost = {f"song {number}" for number in range(jobs)} - {*whole}
    failed, retries = len(results) - done, sum(user.retries for user in users)
    print(f"{jobs} jobs of {clients} clients: {done} done, {failed} failed, {len(lost)} songs lost, {left} left over")
    print(
        f"{len(answers)} answers: median {1e3 * median(answers):.0f} ms, longest {answers[-1]:.1f} s; {retries} retries"
    )
    print(f"killed after {killed:.0f} s, away for {away:.0f} s; {seconds:.0f} s in all")
    print(f"memory: {before:.0f} MB at the kill, {after:.0f} MB at the end")
    return 0 if done == jobs and not lost and not left else 1


def fuzz(program: str, examples: int, options: list[str]) -> int:
    with app_folder() as folder:
        app = App(folder, options)
        client = Client(app.address)
        client.follow(client.send(0))
        command = [program, "run", f"{app.address}openapi.json", "--url", app.address, "--checks", "all"]
        done = subprocess.run([*command, "--max-examples", str(examples), "--seed", "1"], check=False)
        print(f"the app took {app.stop(signal.SIGINT):.0f} MB")
    return done.returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("load", "fuzz"))
    parser.add_argument("--jobs", type=int, default=200, help="default: %(default)s")
    parser.add_argument("--clients", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--schemathesis", default="schemathesis", metavar="PROGRAM")
    parser.add_argument("--engine", default="auto", help="of the app (default: %(default)s)")
    parser.add_argument("--examples", type=int, default=100, help="of each call (default: %(default)s)")
    options = parser.parse_args()
    if options.what == "load":
        return load(options.jobs, options.clients, ["--engine", options.engine])
    return fuzz(options.schemathesis, options.examples, ["--engine", options.engine])


if __name__ == "__main__":
    run_script(main)
