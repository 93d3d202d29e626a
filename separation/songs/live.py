"""Sound that never ends: samples come in on standard input, and those of one stem go out on standard output."""

from __future__ import annotations

import sys
from io import BufferedReader
from typing import BinaryIO, cast

import numpy as np

from separation.errors import UserError
from separation.inference.separator import Separator

READ = 1 << 14
"""Bytes that are read at most at a time: 50 ms of stereo."""

SAMPLE = np.dtype("<f4")


def live(separator: Separator, sample_rate: int, channels: int) -> int:
    """Separate standard input, interleaved f32le, into standard output, which gets the separator's only stem.

    Whatever is ready goes out at once. Ends with the input, or when nobody reads the output any more. Raises
    `UserError` when the input is a terminal, has samples that are not numbers, or ends inside a sample.
    """
    if sys.stdin is None or sys.stdin.isatty():
        raise UserError("--live reads samples from standard input: `ffmpeg -i ... -f f32le - | separate --live ...`.")
    (stem,), song = separator.stems, separator.live(sample_rate)
    said = f"live: {stem}, f32le, {sample_rate} Hz, channels: {channels}, {song.latency:.2f} s late"
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
    """Write `[n, channels]` as f32le, at once."""
    output.write(np.ascontiguousarray(samples, SAMPLE).tobytes())
    output.flush()
