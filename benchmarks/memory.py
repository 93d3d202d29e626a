"""The most memory that a process held."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from resource import struct_rusage


def peak_megabytes(usage: struct_rusage) -> float:
    """In units of 1,000,000 bytes; systems give it in different ones. A child has its parent's at the fork as well."""
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def peak_megabytes_of(process: int) -> float:
    """The same of a process that runs, without its parent's share and what its end touches; on Linux only."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024 / 1e6
