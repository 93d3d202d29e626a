"""The installed commands, and `python -m separation` for those that have none of their own."""

from functools import partial

from separation.runtime import run_script

separate = partial(run_script, "separation.songs.command")
"""The command `separate`; the packages of the other commands are imported in the same way, once signals are handled."""

app = partial(run_script, "separation.apps.app")
"""The command `separate-app`."""

if __name__ == "__main__":
    run_script("separation.apps.commands")
