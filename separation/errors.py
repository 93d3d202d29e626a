"""How a script tells its user what went wrong: one sentence and a non-zero exit, never a stack trace."""

from __future__ import annotations

import sys
from collections.abc import Callable


class UserError(Exception):
    """Something the user can put right. The message is one sentence: what is wrong with what, and what to do."""


def run_script(main: Callable[[], int | None]) -> None:
    """Run a script's `main` and exit with its code; a `UserError` is printed as one sentence and exits with 1."""
    try:
        code = main() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        code = 130
    sys.exit(code)
