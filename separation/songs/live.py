"""Separate endless audio: samples are read from standard input, and those of one stem written to standard output."""

from __future__ import annotations

import sys
from io import BufferedReader
from typing import BinaryIO, cast

import numpy as np

from separation.errors import UserError
from separation.inference.separator import Separator

READ = 1 << 14
"""Maximum number of bytes read at a time: about 50 ms of stereo."""

SAMPLE = np.dtype("<f4")


def live(separator: Separator, sample_rate: int, channels: int) -> int:
    """Separate standard input, interleaved f32le, and write the separator's only stem to standard output.

    Output is written as soon as it is ready. Ends with the input, or when the output is no longer read. Raises
    `UserError` if the input is a terminal, has samples that are not finite, or ends inside a sample.
    """
    if sys.stdin is None or sys.stdin.isatty():
        raise UserError("--live reads samples from standard input: `ffmpeg -i ... -f f32le - | separate --live ...`.")
    (stem,), song = separator.stems, separator.live(sample_rate)
    said = f"live: {stem}, f32le, {sample_rate} Hz, channels: {channels}, {song.latency:.2f} s latency"
    print(said, file=sys.stderr, flush=True)
    source = cast(BufferedReader, sys.stdin.buffer)
    size, rest = channels * SAMPLE.itemsize, b""
    try:
        while heard := source.read1(READ):
            heard = rest + heard
            whole = len(heard) - len(heard) % size
            heard, rest = heard[:whole], heard[whole:]
            block = np.frombuffer(heard, SAMPLE).astype(np.float32).reshape(-1, channels)
            emit(sys.stdout.buffer, np.asarray(song.push(block.T)[stem]).T)
        emit(sys.stdout.buffer, np.asarray(song.flush()[stem]).T)
    except BrokenPipeError:
        return 0
    if rest:
        raise UserError(f"standard input ends inside a sample: is it f32le with --channels {channels}?")
    return 0


def emit(output: BinaryIO, samples: np.ndarray) -> None:
    """Write `[n, channels]` as f32le, and flush."""
    output.write(np.ascontiguousarray(samples, SAMPLE).tobytes())
    output.flush()
