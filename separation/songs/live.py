"""Separate endless audio: samples are read from standard input, and those of one stem written to standard output."""

from __future__ import annotations

import re
import sys
from io import BufferedReader
from itertools import chain
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from separation.errors import UserError, cannot_write
from separation.inference.separator import Separator
from separation.inference.stream import is_finite

READ = 1 << 14
"""Maximum number of bytes read at a time: about 50 ms of stereo."""

SAMPLE = np.dtype("<f4")

CONTAINER = re.compile(rb"RIFF|RF64|FORM|ID3[\2-\4]|fLaC|OggS|\x1aE\xdf\xa3|....ftyp", re.DOTALL)
"""How wav, aiff, mp3, flac, ogg, Matroska and mp4 files begin, unlike any audio as samples."""


def live(separator: Separator, sample_rate: int, channels: int) -> int:
    """Separate standard input, interleaved f32le, and write the separator's only stem to standard output.

    Output is written as soon as it is ready. Ends with the input, or when the output is no longer read. Raises
    `UserError` if the input is a terminal or a file with a header, has samples that are not finite, or ends inside a
    sample, and if the output cannot be written.
    """
    pipe = f"`ffmpeg -i SONG -f f32le -ar {sample_rate} -ac {channels} - | separate --live ...`"
    if sys.stdin is None or sys.stdin.isatty():
        raise UserError(f"--live reads samples from standard input: {pipe}.")
    (stem,), song = separator.stems, separator.live(sample_rate)
    said = f"live: {stem}, f32le, {sample_rate} Hz, channels: {channels}, {song.latency:.2f} s latency"
    print(said, file=sys.stderr, flush=True)
    source = cast(BufferedReader, sys.stdin.buffer)
    size, rest = channels * SAMPLE.itemsize, b""
    try:
        if CONTAINER.match(first := source.read(8)):
            raise UserError(f"--live takes raw samples, and standard input is a file with a header: {pipe}.", "not_raw")
        for heard in chain([first], iter(lambda: source.read1(READ), b"")):
            heard = rest + heard
            whole = len(heard) - len(heard) % size
            heard, rest = heard[:whole], heard[whole:]
            block = np.frombuffer(heard, SAMPLE).astype(np.float32).reshape(-1, channels)
            if not is_finite(block):
                message = f"standard input has samples that are NaN or infinite, so it is not f32le: {pipe}."
                raise UserError(message, "not_finite")
            emit(sys.stdout.buffer, np.asarray(song.push(block.T)[stem]).T)
        emit(sys.stdout.buffer, np.asarray(song.flush()[stem]).T)
    except BrokenPipeError:
        return 0
    if rest:
        raise UserError(f"standard input ends inside a sample: is it f32le with --channels {channels}?")
    return 0


def emit(output: BinaryIO, samples: np.ndarray) -> None:
    """Write `[n, channels]` as f32le, and flush. Raises `UserError` for any failure but a closed pipe."""
    try:
        output.write(np.ascontiguousarray(samples, SAMPLE).tobytes())
        output.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        code = cannot_write(Path(), error).code
        raise UserError(f"standard output cannot be written: {error.strerror or error}.", code) from error
