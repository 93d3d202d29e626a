"""Step 2: train a network on a spectrogram store, with the settings of a YAML config."""

from separation.runtime import run_script

if __name__ == "__main__":
    run_script("separation.training.command")
