"""Step 1: build a spectrogram store from a dataset of songs, for train.py to read."""

from separation.runtime import run_script

if __name__ == "__main__":
    run_script("separation.dataset.command")
