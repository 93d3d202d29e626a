"""Files are written all or nothing: beside their place, under a name of the run's own, then renamed."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from separation.errors import UserError

PARTIAL = ".partial"
"""What the name of a file or folder ends with until it is whole. The process that writes it stands before it."""

HOST = re.sub(r"[^\w-]", "-", socket.gethostname(), flags=re.ASCII)[:40]
"""This machine: others may write to the same folder."""

OWN = re.compile(rf"\.[0-9a-f]{{8}}\.(?:([\w-]+)@)?(\d+){re.escape(PARTIAL)}", re.ASCII)

DAY = 24 * 60 * 60
"""Seconds without a change, after which what another machine has half-written is given up."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write to, which takes the place of `path` when it is whole. Raises `UserError` when that fails."""
    partial = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = make_partial(path.parent)
        yield partial
        partial.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error}): make room there, or name another --output.") from error
    finally:
        with suppress(OSError):
            partial and partial.unlink(missing_ok=True)


def make_partial(folder: Path) -> Path:
    """A new, empty file in `folder` for this run alone: two runs never share one, and no planted link is followed."""
    path = folder / partial_name()
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    return path


def partial_name() -> str:
    """A name that no other file has, and that says which process it belongs to."""
    return f".{secrets.token_hex(4)}.{HOST}@{os.getpid()}{PARTIAL}"


def sweep_partials(folder: Path, own: bool = False) -> None:
    """Remove what runs that are over have left half-written in `folder`, and with `own` what this one has."""
    with suppress(OSError):
        for path in folder.glob(f".*{PARTIAL}"):
            name = OWN.fullmatch(path.name)
            if not name:
                continue
            if (name[1] or HOST) != HOST:
                if time.time() - path.lstat().st_mtime < DAY:
                    continue
            elif is_running(name[2]) and not (own and name[2] == str(os.getpid())):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def is_running(process: str) -> bool:
    """Whether a process of this number runs on this machine."""
    if not process.isdecimal() or os.name != "posix":
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    return True
