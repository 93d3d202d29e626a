"""How a script tells its user what went wrong: one sentence and a non-zero exit, never a stack trace."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from types import FrameType

from separation.streams import steady_streams


class UserError(Exception):
    """Something the user can put right.

    Args:
        message: one sentence: what is wrong with what, and what to do.
        code: a name for the kind of error that stays the same when the wording changes, such as `no_weights`.
    """

    def __init__(self, message: str, code: str = "invalid_input"):
        super().__init__(message)
        self.code = code


class Stopped(BaseException):
    """The system or the terminal asks the program to end: what is half-written is taken away first."""


STOPS = ("SIGINT", "SIGTERM", "SIGHUP")
"""The signals that stop a program: Ctrl-C, the system, and a terminal that is closed."""

LOOK = 0.05
"""Seconds after which a program that was to stop while it imports a module is asked again."""


def run_script(main: Callable[[], int | None] | str) -> None:
    """Run a script's `main` and exit with its code; a `UserError` is printed as one sentence and exits with 1.

    A `main` that is named as "module" is its function of that name, imported here: Ctrl-C is heeded from the start.
    """
    steady_streams()
    for name in STOPS:
        number = getattr(signal, name, None)
        if number and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):  # not where ignored
            signal.signal(number, _stop)
    try:
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


def _stop(number: int, frame: FrameType | None) -> None:
    """End by an exception, but not while a module is imported: torch's native code aborts when one goes through it."""
    if put_off(number, frame):
        return
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Stopped(number)


def put_off(number: int, frame: FrameType | None) -> bool:
    """Whether a module is being imported, which an exception must not go through; then the signal comes again soon."""
    if not _importing(frame):
        return False
    again = threading.Timer(LOOK, _interrupt, [number])
    again.daemon = True
    again.start()
    return True


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib."):
            return True
        frame = frame.f_back
    return False


def _interrupt(number: int) -> None:
    if hasattr(signal, "pthread_kill"):  # wakes the main thread where it waits for the system, too
        signal.pthread_kill(threading.main_thread().ident, number)
    else:
        signal.raise_signal(number)
