"""How a script tells its user what went wrong: one sentence and a non-zero exit, never a stack trace."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from importlib import import_module
from types import FrameType

from separation.streams import steady_streams


class UserError(Exception):
    """Something the user can put right. The message is one sentence: what is wrong with what, and what to do."""


class Stopped(BaseException):
    """The system or the terminal asks the program to end: what is half-written is taken away first."""


STOPS = ("SIGTERM", "SIGHUP")
"""The signals that stop a program as Ctrl-C does."""


def run_script(main: Callable[[], int | None] | str) -> None:
    """Run a script's `main` and exit with its code; a `UserError` is printed as one sentence and exits with 1.

    A `main` that is named as "module" is its function of that name, imported here: Ctrl-C is heeded from the start.
    """
    steady_streams()
    for name in STOPS:
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) == signal.SIG_DFL:
            signal.signal(getattr(signal, name), _stop)
    try:
        if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:  # and not where Ctrl-C is to be ignored
            signal.signal(signal.SIGINT, signal.default_int_handler)
        code = (import_module(main).main if isinstance(main, str) else main)() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        code = 130
    except Stopped as stop:
        print("\nstopped", file=sys.stderr)
        code = 128 + stop.args[0]
    except MemoryError:
        print("error: there is not enough memory: close other programs, or give less at a time.", file=sys.stderr)
        code = 1
    sys.exit(code)


def _stop(number: int, _: FrameType | None) -> None:
    raise Stopped(number)
