"""How files are named, found and written.

A file is written under a temporary name beside its place and renamed when it is whole. Its writer holds a lock on it,
so another run can tell a partial file in use from one that a killed run left behind.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from separation.errors import UserError, cannot_write

if sys.platform != "win32":
    import fcntl

PARTIAL = ".partial"
"""Suffix of a file or folder until it is whole."""

HOST = re.sub(r"[^\w-]", "-", socket.gethostname(), flags=re.ASCII)[:40]
"""This machine. Locks do not reach other machines on every network disk."""

PARTIAL_NAME = re.compile(rf"\.[0-9a-f]{{8}}\.([\w-]+){re.escape(PARTIAL)}", re.ASCII)

ABANDONED_SECONDS = 24 * 60 * 60
"""Where a lock tells nothing, a partial file that has not changed for this long is abandoned."""

SYSTEM_FOLDERS = frozenset(
    ("#recycle", "#snapshot", "$recycle.bin", "@eadir", "@recently-snapshot", "@recycle", "__macosx", "lost+found",
     "network trash folder", "system volume information", "temporary items", "~snapshot")
)  # fmt: skip
"""Folders that file servers, macOS and Windows keep among a user's files, in lower case."""

FORBIDDEN = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]')
RESERVED = re.compile(r"^(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(?=\.|$)", re.IGNORECASE)
"""Characters and names that Windows and its file systems do not take."""

_locks: dict[Path, int] = {}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file that replaces `path` when the block ends without an error. Raises `UserError` when it cannot."""
    partial = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = make_partial(path.parent)
        yield partial
        finish_partial(partial, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        if partial:
            drop_partial(partial)


@contextmanager
def locking(folder: Path) -> Iterator[None]:
    """Wait until no other process or thread is in a block that locks `folder`, where folders can be locked."""
    lock = _lock(folder, wait=True)
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


def make_partial(folder: Path, as_folder: bool = False) -> Path:
    """A new, empty file or folder in `folder` under a name of its own, locked until it is finished or dropped."""
    path = folder / partial_name()
    if as_folder:
        path.mkdir()
    else:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # follows no planted link
    if (lock := _lock(path)) is not None:
        _locks[path] = lock
    return path


def finish_partial(partial: Path, path: Path) -> None:
    """Give a partial file or folder its final name."""
    if sys.platform == "win32":
        _unlock(partial)  # an open file cannot be renamed there
    partial.replace(path)
    _unlock(partial)


def drop_partial(partial: Path) -> None:
    """Remove a partial file or folder, if it is still there."""
    with suppress(OSError):
        _remove(partial)
    _unlock(partial)


def partial_name() -> str:
    """A name that no other file has."""
    return f".{secrets.token_hex(4)}.{HOST}{PARTIAL}"


def sweep_partials(folder: Path, own: bool = False) -> None:
    """Remove what killed runs have left half-written in `folder`; with `own`, what this process has there as well."""
    with suppress(OSError):
        for path in folder.glob(f".*{PARTIAL}"):
            name = PARTIAL_NAME.fullmatch(path.name)
            if name and ((own and path in _locks) or _is_abandoned(path, name[1])):
                drop_partial(path)


def _is_abandoned(path: Path, host: str) -> bool:
    if host == HOST and path not in _locks:
        if sys.platform == "win32" and path.is_file():
            return True  # a file that is open cannot be removed there
        try:
            lock = _lock(path)
        except BlockingIOError:
            return False
        if lock is not None:
            os.close(lock)
            return True
    return time.time() - path.lstat().st_mtime > ABANDONED_SECONDS


def _lock(path: Path, wait: bool = False) -> int | None:
    """An open file that holds the lock of `path`; None where there are no locks.

    Raises `BlockingIOError` if it is taken, unless it is to `wait`.
    """
    if sys.platform == "win32":
        return os.open(path, os.O_RDWR) if path.is_file() else None
    access = os.O_RDONLY if path.is_dir() else os.O_RDWR  # NFS wants a file that is open for writing
    try:
        descriptor = os.open(path, access | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise
        return None
    return descriptor


def _unlock(path: Path) -> None:
    if (descriptor := _locks.pop(path, None)) is not None:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or the system's own: trash, thumbnails, resource forks."""
    return name.startswith(".") or name.casefold() in SYSTEM_FOLDERS


def visible_files(folder: Path) -> Iterator[Path]:
    """The files in a folder and below it, sorted, without what is hidden."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        yield from (Path(place) / name for name in sorted(names) if not is_hidden(name))


def portable_name(name: str) -> str:
    """A name as one that every file system takes: the characters and endings that Windows refuses are replaced.

    >>> portable_name("What? - a"), portable_name("R.E.M."), portable_name("aux")
    ('What_ - a', 'R.E.M', 'aux_')
    """
    return RESERVED.sub(r"\1_", FORBIDDEN.sub("_", name).rstrip(" .") or "_")


def user_path(text: str) -> Path:
    """A path as typed, with `~` for the home folder, also in `--root=~/x`. Raises `UserError` for an unknown user."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UserError(f"{text}: there is no such user here; write the folder out.", "no_such_user") from None
