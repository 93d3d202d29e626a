"""What audio files are called, and where one signal of theirs lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

AUDIO_SUFFIXES = (".wav", ".flac", ".aiff", ".aif", ".ogg", ".opus", ".m4a", ".aac", ".mp3", ".wma")
"""What a file of a plain folder may end with; of two files for the same part the earlier suffix here is taken."""


@dataclass(frozen=True)
class AudioFile:
    """Where one signal lies: a file, and which of its audio tracks, counted from 0; None: the one that players choose."""

    path: Path
    track: int | None = None
