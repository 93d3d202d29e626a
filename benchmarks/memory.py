"""The most memory that a process held."""

from __future__ import annotations

import sys
from resource import struct_rusage


def peak_megabytes(usage: struct_rusage) -> float:
    """In units of 1,000,000 bytes; systems give it in different ones."""
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
