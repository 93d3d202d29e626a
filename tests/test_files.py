"""Files of a run's own, and what becomes of those that a dead run left."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from separation.errors import UserError
from separation.files import make_partial, partial_name, replacing, sweep_partials


def test_two_writers_of_one_file_never_mix_and_the_last_whole_one_wins(tmp_path):
    path = tmp_path / "x.txt"
    with replacing(path) as first, replacing(path) as second:
        first.write_text("first" * 1000)
        second.write_text("second")
        assert first != second and not path.exists()
    assert path.read_text() == "first" * 1000
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.txt"]


def test_after_an_error_the_file_that_was_there_is_still_there(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("before")
    with pytest.raises(UserError, match=r"x.txt cannot be written \(no room\)"), replacing(path) as partial:
        partial.write_text("half")
        raise OSError("no room")
    assert path.read_text() == "before" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(os.name != "posix", reason="links need rights elsewhere")
def test_a_planted_link_is_not_followed(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    name = partial_name()
    (tmp_path / name).symlink_to(victim)
    monkeypatch.setattr("separation.files.partial_name", lambda: name)
    with pytest.raises(FileExistsError):
        make_partial(tmp_path)
    assert victim.read_text() == "precious"


@pytest.mark.skipif(os.name != "posix", reason="elsewhere nobody can tell which process runs")
def test_what_a_dead_run_left_is_swept_and_what_is_anyone_elses_stays(tmp_path):
    command = "from pathlib import Path; from separation.files import *; print(make_partial(Path('.')))"
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}  # noqa: PTH109
    dead = subprocess.run(
        [sys.executable, "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (tmp_path / dead.stdout.strip()).exists()
    kept = {make_partial(tmp_path).name, "song.partial", ".my own.partial", ".01234567.elsewhere@1.partial"}
    for name in kept | {".76543210.elsewhere@1.partial"}:
        (tmp_path / name).touch()
    os.utime(tmp_path / ".76543210.elsewhere@1.partial", (0, 0))  # another machine has not touched it for years
    sweep_partials(tmp_path)
    assert {entry.name for entry in tmp_path.iterdir()} == kept
