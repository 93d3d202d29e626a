"""Step 2: a store of spectrograms and a config become weights."""

from separation.runtime import run_script

if __name__ == "__main__":
    run_script("separation.training.command")
