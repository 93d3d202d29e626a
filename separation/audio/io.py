"""Read, resample and write audio files: always float32 `[channels, samples]`, full scale at 1."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from mutagen import MutagenError

from separation.audio.containers import add_user_data
from separation.audio.decoders import BLOCK, AudioInfo, open_decoder
from separation.audio.encoders import (
    SYSTEM_ERROR,
    EncodingError,
    FFmpegEncoder,
    SoundFileEncoder,
    VideoEncoder,
    held_rate,
)
from separation.audio.formats import find_format
from separation.audio.resample import Resampler, as_waveform, resample
from separation.audio.tags import TAGS, read_tags, write_tags
from separation.errors import UserError, cannot_write, writing
from separation.files import drop_partial, finish_partial, make_partial

if TYPE_CHECKING:
    from torch import Tensor

LIBSNDFILE = ("wav", "ogg")
"""Formats written by libsndfile; FFmpeg writes the others."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers of a file that has become too large for its disk."""


def probe(path: str | Path, track: int | None = None) -> AudioInfo:
    """Sample rate, channels and length of an audio file, from its header. Raises `UserError` as `AudioReader` does."""
    with AudioReader(path, track) as reader:
        return reader.info


def read(path: str | Path, sample_rate: int | None = None, track: int | None = None) -> tuple[np.ndarray, int]:
    """Read a whole file as float32 `[channels, samples]`, with its sample rate; resampled to `sample_rate`, if given.

    Raises `UserError` as `AudioReader` does.
    """
    with AudioReader(path, track) as reader:
        waveform, rate = np.concatenate(list(reader), axis=-1), reader.info.sample_rate
    return (waveform, rate) if sample_rate is None else (resample(waveform, rate, sample_rate), sample_rate)


def write(path: str | Path, waveform: Tensor | np.ndarray, sample_rate: int, bits: str | None = None) -> None:
    """Write `[channels, samples]`, or `[samples]` for mono, to `path` atomically.

    Raises `UserError` for any other shape, for samples that are not finite, and as `AudioWriter` does.
    """
    signal = as_waveform(waveform, exact=True)
    if signal.ndim not in (1, 2):
        raise UserError(f"{path} cannot hold an array of {signal.ndim} axes: write [channels, samples].")
    if not np.isfinite(signal).all():
        raise UserError(f"{path} cannot hold samples that are NaN or infinite.", "not_finite")
    signal = np.atleast_2d(signal)
    channels, samples = signal.shape
    with AudioWriter(path, sample_rate, channels, samples, bits) as writer:
        writer.write(signal)


class AudioReader:
    """An open audio file: iterate over it, inside `with`, for float32 blocks `[1 or 2 channels, n]` at its own rate.

    `track` selects an audio track, counted from 0; in MUSDB18's stem.mp4 these are mixture, drums, bass, other and
    vocals. None selects the one that players choose. More than two channels are downmixed to stereo. Audio stays in
    sync: silence fills gaps, and the start if the audio begins after the picture.

    `info` is what the header states; `remarks` describe anything odd found in the file so far.

    Raises `UserError` if the file is missing, unreadable, empty, not audio, encrypted, damaged or cut short, or has
    samples that are not finite: on opening if the header shows it, else while reading.
    """

    def __init__(self, path: str | Path, track: int | None = None):
        self.path = Path(path)
        with self._blamed():
            self._decoder = open_decoder(self.path, track)
        self.info: AudioInfo = self._decoder.info

    @property
    def remarks(self) -> list[str]:
        return self._decoder.remarks

    @property
    def track(self) -> int:
        """Index of the track that is read."""
        return getattr(self._decoder, "track", 0)

    @property
    def starts(self) -> Sequence[float]:
        """Time of the first sample on each clock of the file read so far, in seconds.

        Concatenated files have one clock after the other.
        """
        return self._decoder.starts

    @cached_property
    def tags(self) -> dict[str, str]:
        """Title, artist and the like, under the names in `separation.audio.tags.TAGS`."""
        return read_tags(self.path)

    @contextmanager
    def _blamed(self) -> Iterator[None]:
        """Turn anything that a decoder raises into a `UserError` of one sentence about this file."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            message = f"{self.path} cannot be decoded ({reason}): it is damaged; copy or export it again."
            raise UserError(message, code="damaged") from error

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self._decoder.close()

    def __iter__(self) -> Iterator[np.ndarray]:
        samples, blocks = 0, self._decoder.blocks()
        while True:
            with self._blamed():
                block = next(blocks, None)
            if block is None:
                break
            if not np.isfinite(block).all():
                second = samples / self.info.sample_rate
                message = f"{self.path} has samples that are NaN or infinite near {second:.1f} s: export it again."
                raise UserError(message, code="not_finite")
            samples += block.shape[1]
            yield block
        if not samples:
            raise UserError(f"{self.path} contains no audio samples.", code="no_samples")


class AudioWriter:
    """An audio file being written: inside `with`, `write` it block by block.

    Output goes to a temporary file beside `path`, which replaces `path` when the block ends without an error; after an
    error it is discarded. In 16 and 24 bits, samples are rounded, and those beyond full scale are clipped. Tags and
    covers that the format cannot hold are omitted.

    Args:
        path: the file; its suffix is one of `FORMATS` or `SHARED` in `separation.audio.formats`.
        sample_rate: in hertz; audio is resampled to the attribute `sample_rate` if the format cannot hold it.
        channels: of each track.
        samples: the expected length per channel.
        bits: per sample; one of the choices of the format.
        tags: title, artist and the like, as in `AudioReader.tags`.
        cover: a picture, as the bytes of a JPEG or PNG.
        names: titles of the tracks, one for each; several in m4a, mp4 and mka only. The first is the default track.
        user_data: boxes to add to `moov/udta` of an m4a, by type.
        compression: of an ogg, from 0 (largest) to 1 (smallest); libsndfile's default if None.
        video: the song being read, a video: its picture, subtitles and chapters are copied, in sync with the audio.
        keep_original: also copy the song's own audio into the video, as its second track.

    Raises `UserError` if the folder, the disk or the format cannot take the file, or `video` has no picture.
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
        names: Sequence[str] = ("",),
        user_data: Mapping[bytes, bytes] | None = None,
        compression: float | None = None,
        video: AudioReader | None = None,
        keep_original: bool = False,
    ):
        self.path, self.user_data = Path(path), user_data or {}
        self.tags = {tag: text for tag, text in (tags or {}).items() if tag in TAGS}
        self.cover = cover
        self.format, self.coding = find_format(self.path, bits)
        if sample_rate < 1:
            raise UserError(f"{self.path} cannot have a sample rate of {sample_rate} Hz.", "format")
        self.sample_rate = held_rate(self.coding.codec, sample_rate)
        self._resamplers = [Resampler(sample_rate, self.sample_rate, channels) for _ in names]
        self._encoder: SoundFileEncoder | FFmpegEncoder
        with ExitStack() as undo, writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.partial = make_partial(self.path.parent)
            undo.callback(drop_partial, self.partial)
            kind = (self.partial, self.format, self.coding, self.sample_rate, channels)
            try:
                if video:
                    self._encoder = VideoEncoder(*kind, video, names[0], keep_original)
                elif self.format in LIBSNDFILE:
                    self._encoder = SoundFileEncoder(*kind, samples, self.tags, compression)
                else:
                    self._encoder = FFmpegEncoder(*kind, names, self.tags, cover)
            except EncodingError as error:
                raise self._cut_off(error) from error
            except ValueError as error:
                if video:
                    message = f"{self.path} can't be written as a video ({error}): choose another format."
                else:
                    message = f"{self.path} can't hold {channels} channels at {self.sample_rate} Hz: choose wav."
                raise UserError(message, code="format") from error
            undo.pop_all()

    def write(self, *waveforms: Tensor | np.ndarray) -> None:
        """Append `[channels, n]` to each track, of any type that `as_waveform` takes. Raises `UserError` as it does."""
        pairs = zip(self._resamplers, waveforms, strict=True)
        self._append([resampler.push(as_waveform(waveform, exact=True)) for resampler, waveform in pairs])

    def _append(self, signals: Sequence[np.ndarray]) -> None:
        for start in range(0, signals[0].shape[1], BLOCK):
            try:
                self._encoder.write(*(self._encode(signal[:, start : start + BLOCK]) for signal in signals))
            except EncodingError as error:
                raise self._cut_off(error) from error

    def _cut_off(self, error: Exception) -> UserError:
        """The error for a file that could not be completed, with the reason that the library gave."""
        cause = error.__context__ or error
        if isinstance(cause, OSError) and cause.errno in FULL:
            return cannot_write(self.path, cause)
        if isinstance(cause, AssertionError) or getattr(cause, "code", None) == SYSTEM_ERROR:  # or a short write
            return UserError(f"{self.path} could not be written completely: is the disk full?", code="disk_full")
        reason = getattr(cause, "strerror", None) or cause
        return UserError(f"{self.path} could not be written completely ({reason}).", code="cannot_write")

    def _encode(self, block: np.ndarray) -> np.ndarray:
        # libsndfile scales by one step less in writing than in reading, so a copy would not be identical.
        full_scale = self.coding.full_scale
        if full_scale is None:
            return block.astype(np.float32, copy=False)
        # Scaling by a power of two is exact, so float32 is enough.
        steps = np.multiply(block, full_scale)
        np.clip(np.rint(steps, out=steps), -full_scale, full_scale - 1, out=steps)
        if full_scale == 1 << 15:
            return steps.astype(np.int16)
        return steps.astype(np.int32) << 8  # 24 bits are the upper ones of 32

    def __enter__(self) -> AudioWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            with closing(self._encoder):
                self._encoder.is_broken |= kind is not None  # do not copy the rest of a film only to discard it
                if kind is None:
                    self._append([resampler.flush() for resampler in self._resamplers])
            if kind is None:
                if self._encoder.format != "rf64":  # mutagen 1.48 does not support RF64
                    write_tags(self.partial, self.format, self.tags, self.cover)
                for box, content in self.user_data.items():
                    add_user_data(self.partial, box, content)
                finish_partial(self.partial, self.path)
        except (EncodingError, OSError, MutagenError) as error:
            if isinstance(error, OSError) and kind is None:
                raise cannot_write(self.path, error) from error
            if kind is None:
                raise self._cut_off(error) from error
        finally:
            drop_partial(self.partial)
