"""An audio file is read, resampled, written: always float32 `[channels, samples]`, full scale at 1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from separation.audio.boxes import add_user_data
from separation.audio.decoders import BLOCK, AudioInfo, open_decoder
from separation.audio.encoders import FORMATS, Coding, EncodingError, FFmpegEncoder, SoundFileEncoder
from separation.audio.resample import resample
from separation.errors import UserError, cannot_write
from separation.files import drop_partial, finish_partial, make_partial

if TYPE_CHECKING:
    from torch import Tensor

LIBSNDFILE = ("wav", "ogg")
"""The formats that libsndfile writes; FFmpeg writes the others."""

TOLERANCE = 0.25
"""Seconds by which a file may be shorter than it says: encoders do not agree on how to count their padding."""


def probe(path: str | Path, track: int | None = None) -> AudioInfo:
    """Sample rate, channels and length of an audio file, from its header. Raises `UserError` as `AudioReader` does."""
    with AudioReader(path, track) as reader:
        return reader.info


def read(path: str | Path, sample_rate: int | None = None, track: int | None = None) -> tuple[Tensor, int]:
    """A whole file as `[channels, samples]` and its sample rate; resampled to `sample_rate` if that is given.

    Raises `UserError` as `AudioReader` does.
    """
    import torch

    with AudioReader(path, track) as reader:
        waveform, rate = torch.cat(list(reader), dim=-1), reader.info.sample_rate
    return (waveform, rate) if sample_rate is None else (resample(waveform, rate, sample_rate), sample_rate)


def write(path: str | Path, waveform: Tensor | np.ndarray, sample_rate: int, bits: str | None = None) -> None:
    """Write `[channels, samples]` to `path`, all of it or nothing. Raises `UserError` as `AudioWriter` does."""
    with AudioWriter(path, sample_rate, *waveform.shape, bits=bits) as writer:
        writer.write(waveform)


class AudioReader:
    """An audio file, opened: iterate over it, inside `with`, for float32 blocks `[channels, n]` at the file's own rate.

    `track` counts the audio tracks of a file with several from 0 (MUSDB18's stem.mp4: mixture, drums, bass, other,
    vocals); None stands for the one that players choose.
    `info` is what the header says; `tags` holds the title, the artist and the like; `remarks` what was passed over.

    Raises `UserError` when the file is missing, unreadable, empty, no audio, damaged or cut short, or has samples that
    are not numbers: when it is opened if its header tells, else when it is read.
    """

    def __init__(self, path: str | Path, track: int | None = None):
        self.path = Path(path)
        with self._blamed():
            self._decoder = open_decoder(self.path, track)
        self.info: AudioInfo = self._decoder.info
        self.tags: dict[str, str] = self._decoder.tags

    @property
    def remarks(self) -> list[str]:
        """What was passed over so far, in words."""
        return self._decoder.remarks

    @contextmanager
    def _blamed(self) -> Iterator[None]:
        """Whatever a decoder raises concerns this file alone, and is one sentence about it."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(
                f"{self.path} cannot be decoded ({reason}): it is damaged; copy or export it anew."
            ) from error

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self._decoder.close()

    def __iter__(self) -> Iterator[Tensor]:
        import torch

        return map(torch.from_numpy, self.arrays())

    def arrays(self) -> Iterator[np.ndarray]:
        """The same blocks as arrays, for which torch need not be there."""
        samples, rate, stated = 0, self.info.sample_rate, self._decoder.stated_samples
        blocks = self._decoder.blocks()
        while True:
            with self._blamed():
                block = next(blocks, None)
            if block is None:
                break
            if not np.isfinite(block).all():
                raise UserError(
                    f"{self.path} has samples that are no numbers near {samples / rate:.1f} s: export it anew."
                )
            samples += block.shape[1]
            yield block
        if samples + TOLERANCE * rate < stated:
            raise UserError(
                f"{self.path} is cut short: {samples / rate:.1f} s of {stated / rate:.1f} s are there; copy it anew."
            )
        if not samples:
            raise UserError(f"{self.path} has no samples: there is nothing to hear in it.")


class AudioWriter:
    """An audio file that is being written: inside `with`, `write` it block by block.

    What is written goes to a temporary file beside `path`, which takes its place when the block ends without an error;
    after an error there is no file. In 16 and 24 bits, samples are rounded, and those beyond full scale are cut off
    there. Tags that the format cannot hold are left out, and so is the picture.

    Args:
        path: the file; its suffix is one of `FORMATS`.
        sample_rate: in hertz.
        channels: of each stream.
        samples: the expected length.
        bits: a sample; one of the choices of the format.
        tags: title, artist and the like, as `AudioReader` has them.
        cover: a picture, as the bytes of a jpeg or png.
        streams: how many signals the file holds; several in m4a only.
        user_data: boxes that go into `moov/udta` of an m4a, by their type.
        compression: of an ogg, from 0 (largest) to 1 (smallest); libsndfile's own by default.

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
        cover: bytes | None = None,
        streams: int = 1,
        user_data: Mapping[bytes, bytes] | None = None,
        compression: float | None = None,
    ):
        self.path, self.user_data = Path(path), user_data or {}
        format, self.coding = find_format(self.path, bits)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.partial = make_partial(self.path.parent)
            kind = (self.partial, format, self.coding, sample_rate, channels)
            if format in LIBSNDFILE:
                self._encoder = SoundFileEncoder(*kind, samples, tags or {}, compression)
            else:
                self._encoder = FFmpegEncoder(*kind, tags or {}, cover, streams)
        except OSError as error:
            raise cannot_write(self.path, error) from error
        except ValueError as error:
            drop_partial(self.partial)
            raise UserError(f"{self.path} can't hold {channels} channels at {sample_rate} Hz: choose wav.") from error

    def write(self, *waveforms: Tensor | np.ndarray) -> None:
        """Append `[channels, n]` to each stream."""
        signals = [np.asarray(waveform) for waveform in waveforms]
        for start in range(0, signals[0].shape[1], BLOCK):
            try:
                self._encoder.write(*(self._encode(signal[:, start : start + BLOCK]) for signal in signals))
            except EncodingError as error:
                raise UserError(f"{self.path} can't be written to its end: is the disk full?") from error

    def _encode(self, block: np.ndarray) -> np.ndarray:
        # libsndfile would scale by one step less than it reads with, and a copy would not be the same.
        full_scale = self.coding.full_scale
        if full_scale is None:
            return block
        # A power of two costs no bit, so float32 stays as it is.
        steps = np.multiply(block, full_scale, dtype=np.result_type(block, np.float32))
        np.clip(np.rint(steps, out=steps), -full_scale, full_scale - 1, out=steps)
        if full_scale == 1 << 15:
            return steps.astype(np.int16)
        return steps.astype(np.int32) << 8  # 24 bits are the upper ones of 32

    def __enter__(self) -> AudioWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            self._encoder.close()
            if kind is None:
                for box, content in self.user_data.items():
                    add_user_data(self.partial, box, content)
                finish_partial(self.partial, self.path)
        except (EncodingError, OSError) as error:
            if kind is None:
                raise UserError(
                    f"{self.path} can't be written to its end: is the disk full, or is it a folder?"
                ) from error
        finally:
            drop_partial(self.partial)


def find_format(path: Path, bits: str | None = None) -> tuple[str, Coding]:
    """The format and the coding for a file name and a number of bits. Raises `UserError` when there is none."""
    format = path.suffix[1:].lower()
    if format not in FORMATS:
        raise UserError(f"{path} can't be written: its name should end with one of .{', .'.join(FORMATS)}.")
    choices = FORMATS[format]
    bits = next(iter(choices)) if bits is None else bits
    if bits not in choices:
        allowed = " or ".join(filter(None, choices)) or "no number of"
        raise UserError(f"{format} is written with {allowed} bits, not with {bits}.")
    return format, choices[bits]


def read_cover(path: Path) -> bytes | None:
    """The picture in an audio file, as the bytes of a jpeg or png; None where there is none that can be read."""
    import av

    with suppress(av.FFmpegError, OSError, ValueError, IndexError, StopIteration), av.open(path) as container:
        stream = next(stream for stream in container.streams.video if stream.codec_context.name in ("mjpeg", "png"))
        return bytes(next(packet for packet in container.demux(stream) if packet.size))
    return None
