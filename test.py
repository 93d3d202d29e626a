"""Step 3: separate the test songs of a dataset with trained weights, and score them by plain SDR and museval."""

from separation.runtime import run_script

if __name__ == "__main__":
    run_script("separation.scoring.command")
