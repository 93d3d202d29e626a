"""How files are named, found and written.

A file is written under a temporary name in its target folder and renamed when complete. Its writer holds a lock on it,
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

from separation.errors import UserError, writing

if sys.platform != "win32":
    import fcntl

PARTIAL = ".partial"
"""Suffix of a file or folder until it is complete."""

HOST = re.sub(r"[^\w-]", "-", socket.gethostname(), flags=re.ASCII)[:40]
"""Name of this machine. On some network drives, locks are not visible to other machines."""

PARTIAL_NAME = re.compile(rf"\.[0-9a-f]{{8}}\.([\w-]+){re.escape(PARTIAL)}", re.ASCII)

ABANDONED_SECONDS = 24 * 60 * 60
"""Where locks cannot tell, a partial file that has not changed for this long counts as abandoned."""

SYSTEM_FOLDERS = frozenset(
    ("#recycle", "#snapshot", "$recycle.bin", "@eadir", "@recently-snapshot", "@recycle", "__macosx", "lost+found",
     "network trash folder", "system volume information", "temporary items", "~snapshot")
)  # fmt: skip
"""Folders that file servers, macOS and Windows keep among a user's files, in lower case."""

FORBIDDEN = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]')
RESERVED = re.compile(r"^(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(?=\.|$)", re.IGNORECASE)
"""Characters and names that Windows and its file systems do not allow."""

_locks: dict[Path, int] = {}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file that replaces `path` if the block succeeds. Raises `UserError` if it cannot be written."""
    partial = None
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = make_partial(path.parent)
            yield partial
            finish_partial(partial, path)
    finally:
        if partial:
            drop_partial(partial)


def write_file(path: Path, content: str | bytes) -> None:
    """Write a whole file, text as UTF-8. Raises `UserError` if it cannot be written."""
    with replacing(path) as partial:
        partial.write_bytes(content.encode(errors="replace") if isinstance(content, str) else content)


@contextmanager
def locking(folder: Path) -> Iterator[None]:
    """Wait until no other process or thread holds the lock of `folder`, then hold it; where locks are supported."""
    lock = _lock(folder, wait=True)
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


def make_partial(folder: Path, as_folder: bool = False) -> Path:
    """Create an empty file or folder with a unique name in `folder`, locked until it is finished or dropped."""
    while True:
        path = folder / partial_name()
        if as_folder:
            path.mkdir()
        else:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # does not follow a planted link
        with suppress(BlockingIOError):  # another run took it for abandoned, and removes it
            if (lock := _lock(path)) is not None:
                _locks[path] = lock
            if path.exists():  # else it has been removed already
                return path
            _unlock(path)


def finish_partial(partial: Path, path: Path) -> None:
    """Give a partial file or folder its final name."""
    if sys.platform == "win32":
        _unlock(partial)  # Windows cannot rename an open file
    partial.replace(path)
    _unlock(partial)


def drop_partial(partial: Path) -> None:
    """Remove a partial file or folder, if it still exists."""
    with suppress(OSError):
        if partial.is_dir() and not partial.is_symlink():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)
    _unlock(partial)


def partial_name() -> str:
    """A unique name for a partial file or folder."""
    return f".{secrets.token_hex(4)}.{HOST}{PARTIAL}"


def sweep_partials(folder: Path, own: bool = False) -> None:
    """Remove the partial files that killed runs left in `folder`; with `own`, those of this process as well."""
    with suppress(OSError):
        for path in folder.glob(f".*{PARTIAL}"):
            name = PARTIAL_NAME.fullmatch(path.name)
            if name and own and path in _locks:
                drop_partial(path)
            elif name:
                _drop_abandoned(path, name[1])


def _drop_abandoned(path: Path, host: str) -> None:
    """Remove a partial file or folder of `host` unless its writer may still be at work."""
    lock = None
    if host == HOST and path not in _locks:
        if sys.platform == "win32" and path.is_file():
            drop_partial(path)  # Windows removes no open file
            return
        try:
            lock = _lock(path)  # held until the file is gone: a writer that has just created it takes another name
        except BlockingIOError:
            return
    if lock is not None or time.time() - path.lstat().st_mtime > ABANDONED_SECONDS:
        drop_partial(path)
    if lock is not None:
        os.close(lock)


def _lock(path: Path, wait: bool = False) -> int | None:
    """A file descriptor that holds the lock of `path`; None if `path` cannot be locked.

    Raises `BlockingIOError` if the lock is taken, unless `wait` is set.
    """
    if sys.platform == "win32":
        return os.open(path, os.O_RDWR) if path.is_file() else None
    access = os.O_RDONLY if path.is_dir() else os.O_RDWR  # NFS only locks files that are open for writing
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


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is hidden or belongs to the system: trash, thumbnails, resource forks."""
    return name.startswith(".") or name.casefold() in SYSTEM_FOLDERS


def visible_files(folder: Path) -> Iterator[Path]:
    """The files in a folder and its subfolders, sorted, without hidden ones."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        yield from (Path(place) / name for name in sorted(names) if not is_hidden(name))


def portable_name(name: str) -> str:
    """Make a name valid on every file system by replacing the characters and endings that Windows refuses.

    >>> portable_name("What? - a"), portable_name("R.E.M."), portable_name("aux")
    ('What_ - a', 'R.E.M', 'aux_')
    """
    return RESERVED.sub(r"\1_", FORBIDDEN.sub("_", name).rstrip(" .") or "_")


def user_path(text: str) -> Path:
    """A path as typed, with `~` expanded, also in `--root=~/x`. Raises `UserError` for an unknown user."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UserError(f"{text}: there is no such user here; write out the full path.", "no_such_user") from None
