"""Step 3: trained weights separate the test songs of a dataset, and are scored by plain SDR and museval."""

from separation.runtime import run_script

if __name__ == "__main__":
    run_script("separation.scoring.command")
