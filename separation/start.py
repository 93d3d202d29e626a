"""To be imported first by every script: what must be settled before torch is loaded."""

from __future__ import annotations

import os
import signal

# Ctrl-C while torch is imported ends the program at once, without a stack trace; `run_script` listens from then on.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

# GNU's OpenMP lets idle threads spin for a long time, which stands in everyone's way on a machine that is busy.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
