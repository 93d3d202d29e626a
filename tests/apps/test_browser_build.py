"""What the folder for browsers is made of, and what is refused."""

from __future__ import annotations

import base64
import http.client
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import REPOSITORY, refused

from separation.apps import browser as build_module
from separation.apps.browser import PACKAGES, check, make_server, take
from separation.errors import UserError


def test_a_package_that_is_not_the_chosen_one_is_refused():
    with pytest.raises(UserError, match="another file"):
        check(b"something else", PACKAGES[0])


def test_a_package_is_taken_as_it_was_chosen(tmp_path, monkeypatch):
    """npm is stood in for; the file that it brings is the wrong one, and nothing of it is kept."""

    def pack(command, **_):
        (Path(command[-1]) / "x.tgz").write_bytes(b"wrong")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(build_module.shutil, "which", str)
    monkeypatch.setattr(build_module.subprocess, "run", pack)
    with pytest.raises(UserError, match="another file"):
        take(PACKAGES[0], tmp_path)
    assert not list(tmp_path.iterdir())


def test_packages_are_taken_once_and_anew_when_others_are_pinned(tmp_path, monkeypatch):
    taken = []

    def take_nothing(package, vendor):
        taken.append(package["version"])
        for name in package["files"]:
            (vendor / name).write_text(package["version"])

    monkeypatch.setattr(build_module, "take", take_nothing)
    vendor = tmp_path / "vendor"
    for _ in range(2):
        build_module.fill_vendor(vendor)
    assert taken == [package["version"] for package in PACKAGES]
    newer = [{**package, "version": "99.0.0"} for package in PACKAGES]
    monkeypatch.setattr(build_module, "PACKAGES", newer)
    build_module.fill_vendor(vendor)
    assert {path.read_text() for path in vendor.iterdir() if path.name != "packages.json"} == {"99.0.0"}


def test_without_npm_that_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"install Node\.js"):
        take(PACKAGES[0], tmp_path)


def test_a_folder_with_other_things_is_refused(tmp_path):
    (tmp_path / "letter.txt").write_text("keep me")
    with pytest.raises(UserError, match="holds something else"):
        build_module.build(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
    for place in ("letter.txt", "letter.txt/below"):
        with refused("not_a_folder"):
            build_module.build(tmp_path / place)


def test_the_server_isolates_its_pages(tmp_path):
    (tmp_path / "a.mjs").write_text("1")
    server = make_server(tmp_path, 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
    connection.request("GET", "/a.mjs")
    answer = connection.getresponse()
    assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert answer.headers["Content-Type"] == "text/javascript"
    with pytest.raises(UserError, match="cannot be used"):
        make_server(tmp_path, server.server_port)
    server.shutdown()
    server.server_close()


@pytest.mark.skipif(not shutil.which("node"), reason="there is no Node.js here")
def test_every_script_is_sound_javascript(tmp_path):
    for script in build_module.STATIC.glob("*.js"):
        copy = tmp_path / f"{script.stem}.mjs"
        shutil.copyfile(script, copy)
        done = subprocess.run(["node", "--check", copy], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_packages_are_pinned():
    assert all(re.fullmatch(r"\d+(\.\d+)+", package["version"]) for package in PACKAGES)  # no range
    assert all(len(base64.b64decode(package["integrity"].removeprefix("sha512-"))) == 64 for package in PACKAGES)


def test_the_command_says_what_is_missing(tmp_path):
    command = [sys.executable, "-m", "separation", "web", tmp_path / "web"]
    environment = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=REPOSITORY)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: npm") and not (tmp_path / "web/index.html").exists()
