"""Entry points of the installed commands, and `python -m separation` for the commands that are not installed."""

from functools import partial

from separation.runtime import run_script

separate = partial(run_script, "separation.songs.command")
dataset = partial(run_script, "separation.dataset.command")
train = partial(run_script, "separation.training.command")
test = partial(run_script, "separation.scoring.command")
app = partial(run_script, "separation.apps.app")

if __name__ == "__main__":
    run_script("separation.apps.commands")
