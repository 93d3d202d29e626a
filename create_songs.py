"""Step 4: songs become stems: `outputs/<song>/<stem>.wav`, as long as the song, and summing to it."""

from separation.songs.run import run

if __name__ == "__main__":
    run()
