"""Step 4: songs become stems, and a page to listen to them."""

import separation.start  # noqa: F401 (first: see there)

# isort: split
from separation.errors import run_script


def run() -> None:
    """The command `separate`."""
    run_script("separation.songs.command")
