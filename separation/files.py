"""Files are written all or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from separation.errors import UserError

PARTIAL = ".partial"
"""What the name of a file or folder ends with until it is whole."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write to, which takes the place of `path` when it is whole. Raises `UserError` when that fails."""
    partial = path.with_name(path.name + PARTIAL)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # torch has its own for a full disk
        raise UserError(f"{path} cannot be written ({error}): make room there, or name another --output.") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
