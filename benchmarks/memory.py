"""Peak memory of a process."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from resource import struct_rusage


def peak_megabytes(usage: struct_rusage) -> float:
    """Peak in units of 1,000,000 bytes, on any system. A child's includes its parent's memory at the fork."""
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def peak_megabytes_of(process: int) -> float:
    """The same for a running process, without its parent's share and memory touched on exit. Linux only."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024 / 1e6
