"""Step 1: a dataset of songs becomes a store of spectrograms, which train.py reads."""

from separation.runtime import run_script

if __name__ == "__main__":
    run_script("separation.dataset.command")
