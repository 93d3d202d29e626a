"""The listening page, alive: songs are dropped on it in a browser, and come apart on this machine."""

import separation.start  # noqa: F401 (first: see there)

# isort: split
from separation.errors import run_script


def run() -> None:
    """The command `separate-app`."""
    run_script("separation.app.command")
