"""Errors that the user can fix."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class UserError(Exception):
    """An error that the user can fix.

    Args:
        message: one sentence that says what is wrong and what to do.
        code: a name for the kind of error that stays the same when the wording changes, such as `no_weights`.
    """

    def __init__(self, message: str, code: str = "invalid_input"):
        super().__init__(message)
        self.code = code


WRITE_ERRORS = {
    errno.ENOSPC: ("disk_full", "the disk is full: make room there, or choose another folder"),
    errno.EDQUOT: ("disk_full", "your quota on that disk is used up: make room there, or choose another folder"),
    errno.EFBIG: ("file_too_large", "the disk takes no file of that size: choose another folder, or a smaller format"),
    errno.EACCES: ("no_permission", "you may not write there: choose another folder"),
    errno.EPERM: ("no_permission", "you may not write there: choose another folder"),
    errno.EROFS: ("no_permission", "that disk is read-only: choose another folder"),
    errno.ENAMETOOLONG: ("invalid_name", "the name is too long for that disk: choose a shorter one"),
    errno.EINVAL: ("invalid_name", "that disk does not take such a name: choose another name or folder"),
    errno.EILSEQ: ("invalid_name", "that disk does not take such a name: choose another name or folder"),
    errno.ENOTDIR: ("not_a_folder", "a file is in the place of one of its folders: choose another folder"),
    errno.EEXIST: ("not_a_folder", "a file is in the place of one of its folders: choose another folder"),
    errno.EISDIR: ("is_a_folder", "a folder is in its place: choose another name"),
}
"""Code and message for each `errno` of a failed write: the reason, and what to do about it."""


def cannot_write(path: Path, error: OSError) -> UserError:
    """The `UserError` for a file or folder that cannot be written."""
    code, reason = WRITE_ERRORS.get(error.errno or 0, ("cannot_write", f"{error.strerror or error}"))
    return UserError(f"{path} cannot be written: {reason}.", code)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise an `OSError` of the block as the `UserError` that says why `path` cannot be written."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error
