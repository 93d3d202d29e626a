"""An audio file is read, resampled, written: always float32 `[channels, samples]`, full scale at 1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from separation.audio.decoders import BLOCK, AudioInfo, open_decoder
from separation.audio.resample import resample
from separation.errors import UserError
from separation.files import PARTIAL

FORMATS = {
    "wav": {"16": "PCM_16", "24": "PCM_24", "32f": "FLOAT"},
    "flac": {"16": "PCM_16", "24": "PCM_24"},
    "ogg": {"": "VORBIS"},
    "mp3": {"": "MPEG_LAYER_III"},
}
"""The formats that are written, the bits of a sample in each (the first by default), and libsndfile's names."""

FULL_SCALE = {"PCM_16": 1 << 15, "PCM_24": 1 << 23}
"""Quantisation steps from silence to full scale."""

ENCODING = {"mp3": {"bitrate_mode": "CONSTANT", "compression_level": 0}}
"""How formats are encoded, beside libsndfile's defaults: mp3 at its highest bit rate, 320 kbit/s at 44.1 kHz.

A constant one, because browsers jump to a moment of an mp3 by its place in the file: stems then stay in step.
"""

WAV_LIMIT = (1 << 32) - (1 << 16)
"""Bytes that a plain wav can hold; a longer one is written as RF64, its successor under the same name."""

TOLERANCE = 0.25
"""Seconds by which a file may be shorter than it says: encoders do not agree on how to count their padding."""


def probe(path: str | Path, stream: int = 0) -> AudioInfo:
    """Sample rate, channels and length of an audio file, from its header. Raises `UserError` as `AudioReader` does."""
    with AudioReader(path, stream) as reader:
        return reader.info


def read(path: str | Path, sample_rate: int | None = None, stream: int = 0) -> tuple[Tensor, int]:
    """A whole file as `[channels, samples]` and its sample rate; resampled to `sample_rate` if that is given.

    Raises `UserError` as `AudioReader` does.
    """
    with AudioReader(path, stream) as reader:
        waveform, rate = torch.cat(list(reader), dim=-1), reader.info.sample_rate
    return (waveform, rate) if sample_rate is None else (resample(waveform, rate, sample_rate), sample_rate)


def write(path: str | Path, waveform: Tensor, sample_rate: int, bits: str | None = None) -> None:
    """Write `[channels, samples]` to `path`, all of it or nothing. Raises `UserError` as `AudioWriter` does."""
    with AudioWriter(path, sample_rate, *waveform.shape, bits=bits) as writer:
        writer.write(waveform)


class AudioReader:
    """An audio file, opened: iterate over it, inside `with`, for float32 blocks `[channels, n]` at the file's own rate.

    `stream` counts the audio streams of a file with several (MUSDB18's stem.mp4: mixture, drums, bass, other, vocals).
    `info` is what the header says; `tags` holds the title, the artist and the like.

    Raises `UserError` when the file is missing, unreadable, empty, no audio, damaged or cut short, or has samples that
    are not numbers: when it is opened if its header tells, else when it is read.
    """

    def __init__(self, path: str | Path, stream: int = 0):
        self.path = Path(path)
        self._decoder = open_decoder(self.path, stream)
        self.info: AudioInfo = self._decoder.info
        self.tags: dict[str, str] = self._decoder.tags

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self._decoder.close()

    def __iter__(self) -> Iterator[Tensor]:
        samples, rate, stated = 0, self.info.sample_rate, self._decoder.stated_samples
        for block in self._decoder.blocks():
            if not np.isfinite(block).all():
                raise UserError(
                    f"{self.path} has samples that are no numbers near {samples / rate:.1f} s: export it anew."
                )
            samples += block.shape[1]
            yield torch.from_numpy(block)
        if samples + TOLERANCE * rate < stated:
            raise UserError(
                f"{self.path} is cut short: {samples / rate:.1f} s of {stated / rate:.1f} s are there; copy it anew."
            )
        if not samples:
            raise UserError(f"{self.path} has no samples: there is nothing to hear in it.")


class AudioWriter:
    """An audio file that is being written: inside `with`, `write` it block by block.

    What is written goes to a temporary file beside `path`, which takes its place when the block ends without an error;
    after an error there is no file. The suffix of `path` is one of `FORMATS`, `bits` one of its choices, `samples` the
    expected length. In 16 and 24 bits, samples are rounded, and those beyond full scale are cut off there. Tags that
    the format cannot hold are left out.

    Raises `UserError` when the folder, the disk or the format cannot take the file.
    """

    def __init__(
        self,
        path: str | Path,
        sample_rate: int,
        channels: int,
        samples: int = 0,
        bits: str | None = None,
        tags: Mapping[str, str] | None = None,
    ):
        self.path = Path(path)
        self.partial = self.path.with_name(self.path.name + PARTIAL)
        format, subtype = find_format(self.path, bits)
        self.full_scale = FULL_SCALE.get(subtype)
        if format == "wav" and samples * channels * 4 > WAV_LIMIT:
            format = "rf64"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.partial.touch()
            options = {"format": format, **ENCODING.get(format, {})}
            self._file = soundfile.SoundFile(self.partial, "w", sample_rate, channels, subtype, **options)
        except OSError as error:
            raise UserError(f"{self.path} can't be written: {error.strerror} ({error.filename}).") from error
        except soundfile.LibsndfileError as error:
            self.partial.unlink()
            raise UserError(f"{self.path} can't hold {channels} channels at {sample_rate} Hz: choose wav.") from error
        for tag, text in (tags or {}).items():
            if format != "mp3" or text.isascii():  # libsndfile garbles the others there
                with suppress(soundfile.LibsndfileError):
                    setattr(self._file, tag, text)

    def write(self, waveform: Tensor) -> None:
        """Append `[channels, n]`."""
        for block in waveform.split(BLOCK, dim=-1):
            try:
                self._file.write(self._encode(block).T.numpy())
            except (soundfile.LibsndfileError, AssertionError) as error:
                raise UserError(f"{self.path} can't be written to its end: is the disk full?") from error

    def _encode(self, block: Tensor) -> Tensor:
        # libsndfile would scale by one step less than it reads with, and a copy would not be the same.
        if self.full_scale is None:
            return block
        steps = (block.double() * self.full_scale).round_().clamp_(-self.full_scale, self.full_scale - 1)
        if self.full_scale == FULL_SCALE["PCM_16"]:
            return steps.to(torch.int16)
        return steps.to(torch.int32) << 8  # 24 bits are the upper ones of 32

    def __enter__(self) -> AudioWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            self._file.close()
            if kind is None:
                self.partial.replace(self.path)
        except (soundfile.LibsndfileError, OSError) as error:
            if kind is None:
                raise UserError(
                    f"{self.path} can't be written to its end: is the disk full, or is it a folder?"
                ) from error
        finally:
            self.partial.unlink(missing_ok=True)


def find_format(path: Path, bits: str | None = None) -> tuple[str, str]:
    """libsndfile's format and subtype for a file name and a number of bits. Raises `UserError` when there is none."""
    format = path.suffix[1:].lower()
    if format not in FORMATS:
        raise UserError(f"{path} can't be written: its name should end with one of .{', .'.join(FORMATS)}.")
    choices = FORMATS[format]
    bits = next(iter(choices)) if bits is None else bits
    if bits not in choices:
        allowed = " or ".join(choices) or "no number of"
        raise UserError(f"{format} is written with {allowed} bits, not with {bits}.")
    return format, choices[bits]
