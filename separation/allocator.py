"""Memory that is freed and soon wanted again."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""The numbers of glibc's settings, in its malloc.h."""


def keep_freed_memory() -> None:
    """Let malloc keep up to 256 MB that were freed, where it is glibc's and the environment does not settle it.

    A song passes in pieces of a few megabytes each. Given back every time, they would have to be cleared page by page
    by the system every time, which takes a tenth of the time that a song does.
    """
    if any(name in os.environ for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")):
        return
    with suppress(OSError, TypeError, AttributeError):  # other systems have other functions
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, 32 << 20)  # the most that it takes
        mallopt(M_TRIM_THRESHOLD, 256 << 20)
