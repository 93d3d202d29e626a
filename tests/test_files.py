"""How files are named, found, written and locked."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import REPOSITORY

from separation.errors import UserError
from separation.files import (
    drop_partial,
    finish_partial,
    is_hidden,
    make_partial,
    partial_name,
    portable_name,
    replacing,
    sweep_partials,
    user_path,
    visible_files,
)

needs_locks = pytest.mark.skipif(os.name != "posix", reason="an open file is its own lock on Windows")


def test_two_writers_of_one_file_never_mix_and_the_last_whole_one_wins(tmp_path):
    path = tmp_path / "x.txt"
    with replacing(path) as first, replacing(path) as second:
        first.write_text("first" * 1000)
        second.write_text("second")
        assert first != second and not path.exists()
    assert path.read_text() == "first" * 1000
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.txt"]


@pytest.mark.parametrize(
    ("number", "code", "advice"),
    [
        (errno.ENOSPC, "disk_full", "make room"),
        (errno.EACCES, "no_permission", "another folder"),
        (errno.EROFS, "no_permission", "read-only"),
        (errno.EINVAL, "invalid_name", "such a name"),
        (errno.ENAMETOOLONG, "invalid_name", "shorter"),
        (errno.EIO, "cannot_write", os.strerror(errno.EIO)),
    ],
)
def test_after_an_error_the_file_is_as_before_and_the_advice_fits_the_error(tmp_path, number, code, advice):
    path = tmp_path / "x.txt"
    path.write_text("before")
    with pytest.raises(UserError) as caught, replacing(path) as partial:
        partial.write_text("half")
        raise OSError(number, os.strerror(number))
    assert caught.value.code == code and advice in str(caught.value) and str(path) in str(caught.value)
    assert ("make room" in str(caught.value)) == (code == "disk_full")
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
    sweep_partials(tmp_path)
    assert victim.read_text() == "precious"


OTHER_RUN = """
import socket, sys
from pathlib import Path
socket.gethostname = lambda: "container"
from separation.files import make_partial
print(make_partial(Path("."), as_folder="folder" in sys.argv).name, flush=True)
sys.stdin.read()
"""


@needs_locks
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_partial_of_a_living_run_stays_even_if_its_process_number_means_nothing_here(tmp_path, monkeypatch, kind):
    """As of two containers with one hostname, where a process number of the one is no process of the other."""
    monkeypatch.setattr("separation.files.HOST", "container")
    command = [sys.executable, "-c", OTHER_RUN, kind]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    run = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, **pipes)
    partial = tmp_path / run.stdout.readline().strip()
    sweep_partials(tmp_path)
    assert partial.exists()
    run.kill()
    run.wait()
    sweep_partials(tmp_path)
    assert not partial.exists()


@needs_locks
@pytest.mark.parametrize("as_folder", [False, True])
@pytest.mark.parametrize("is_late", [False, True])
def test_a_partial_that_another_run_sweeps_before_it_is_locked_is_made_anew(tmp_path, monkeypatch, as_folder, is_late):
    import fcntl

    def swept(*arguments):
        monkeypatch.undo()
        if not is_late:  # the other run holds the lock, and has yet to remove it
            raise BlockingIOError
        sweep_partials(tmp_path)
        return fcntl.flock(*arguments)

    monkeypatch.setattr(fcntl, "flock", swept)
    partial = make_partial(tmp_path, as_folder)
    sweep_partials(tmp_path)
    assert [*tmp_path.iterdir()] == [partial]
    finish_partial(partial, tmp_path / "song")


@needs_locks
def test_only_abandoned_partials_are_swept(tmp_path):
    own, dropped, finished = (make_partial(tmp_path) for _ in range(3))
    drop_partial(dropped)
    finish_partial(finished, tmp_path / "song.wav")
    kept = {own.name, "song.wav", "song.partial", ".my own.partial", ".01234567.elsewhere.partial"}
    old = ".76543210.elsewhere.partial"  # another machine has not touched it for years
    for name in (kept | {old, partial_name()}) - {own.name, "song.wav"}:
        (tmp_path / name).touch()
    os.utime(tmp_path / old, (0, 0))
    sweep_partials(tmp_path)
    assert {entry.name for entry in tmp_path.iterdir()} == kept
    sweep_partials(tmp_path, own=True)
    assert {entry.name for entry in tmp_path.iterdir()} == kept - {own.name}


@needs_locks
def test_where_there_are_no_locks_a_partial_is_abandoned_after_a_day(tmp_path, monkeypatch):
    import fcntl

    def no_locks(*arguments):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    young, old = (tmp_path / partial_name() for _ in range(2))
    for path in (young, old):
        path.touch()
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    sweep_partials(tmp_path)
    assert list(tmp_path.iterdir()) == [young]


def test_hidden_files_and_the_systems_own_folders_are_not_seen(tmp_path):
    hidden = (
        *(
            ".AppleDouble/a.wav",
            ".@__thumb/s800a.mp3",
            ".Trash-1000/files/a.wav",
            "#recycle/a.wav",
            "@eaDir/a.mp3/x.jpg",
        ),
        *("@eaDir/a.mp3/x.jpg", "._a.stem.mp4", ".DS_Store", "$RECYCLE.BIN/a.wav", "b/__MACOSX/a.wav"),
    )
    seen = ("#1 hit/a.wav", "@home/b.wav", "b/a.wav", "c.wav")
    for name in (*hidden, *seen):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in visible_files(tmp_path)]
    assert sorted(found) == sorted(seen)
    assert is_hidden("@EADIR") and not is_hidden("recycle")


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("What? - a", "What_ - a"),
        ("A:B", "A_B"),
        ("R.E.M.", "R.E.M"),
        ('a/b\\c|d<e>f*g"h\x00\x1f', "a_b_c_d_e_f_g_h__"),
        ("CON", "CON_"),
        ("com1.live", "com1_.live"),
        ("Connie", "Connie"),
        (". .", "_"),
        ("Füße 歌", "Füße 歌"),
    ],
)
def test_names_become_such_as_windows_takes(name, right):
    assert portable_name(name) == right == portable_name(right)


def test_a_home_folder_is_expanded_wherever_a_path_is_typed(monkeypatch):
    monkeypatch.setenv("HOME" if os.name == "posix" else "USERPROFILE", str(Path("/home/me")))
    assert user_path("~/x") == Path("/home/me/x") and user_path("a~/x") == Path("a~/x")
    with pytest.raises(UserError) as caught:
        user_path("~nosuchuser/x")
    assert caught.value.code == "no_such_user"
