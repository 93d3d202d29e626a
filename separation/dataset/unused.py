"""What lies under the root of a dataset and is passed over: nobody should look for it in the store in vain."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from separation.audio.formats import AUDIO_SUFFIXES
from separation.dataset.store import SETTINGS_FILE, TRACK_FILE
from separation.dataset.tracks import Track


def passed_over(root: Path, tracks: Iterable[Track]) -> list[Path]:
    """The audio files under `root` that none of `tracks` uses, and the folders in which there is no audio at all.

    Hidden folders and stores of spectrograms are left out.
    """
    used = {file.path for track in tracks for file in track.files.values()}
    found: list[Path] = []
    with_audio: set[Path] = {folder for path in used for folder in path.parents}
    folders: list[Path] = []
    for place, below, files in os.walk(root):
        folder = Path(place)
        if {SETTINGS_FILE, TRACK_FILE} & {*files}:
            below.clear()
            continue
        below[:] = sorted(name for name in below if not name.startswith("."))
        folders.append(folder)
        for name in sorted(files):
            path = folder / name
            if path.suffix.lower() in AUDIO_SUFFIXES and not name.startswith(".") and path not in used:
                found.append(path)
                with_audio |= {*path.parents}
    empty = [folder for folder in folders if folder not in with_audio]
    return found + [folder for folder in empty if folder.parent not in empty]
