"""How a script tells its user what went wrong: one sentence and a non-zero exit, never a stack trace."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable


class UserError(Exception):
    """Something the user can put right. The message is one sentence: what is wrong with what, and what to do."""


def run_script(main: Callable[[], int | None], leave_at_once: bool = False) -> None:
    """Run a script's `main` and exit with its code; a `UserError` is printed as one sentence and exits with 1.

    A script that has closed all its files and processes may `leave_at_once`, without the half second in which torch's
    libraries are read in again only to be torn down.
    """
    try:
        code = main() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        code = 130
    if leave_at_once:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
