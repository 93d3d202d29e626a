"""The command `separate-app`."""

import separation.start  # noqa: F401 (first: see there)

# isort: split
from separation.runtime import run_script


def run() -> None:
    run_script("separation.apps.server.command")
