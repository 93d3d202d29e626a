"""Step 4: separate songs into stems, `outputs/<song>/<stem>.wav`, as long as the song and summing to it."""

from separation.runtime import run_script

if __name__ == "__main__":
    run_script("separation.songs.command")
