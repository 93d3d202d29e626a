"""Step 4: songs become stems: `outputs/<song>/<stem>.wav`, as long as the song, and summing to it."""

from separation.errors import run_script
from separation.songs.command import main

if __name__ == "__main__":
    run_script(main)
