"""How audio files are encoded: wav and ogg by libsndfile; mp3, flac and m4a by PyAV's FFmpeg, with a picture.

An encoder takes blocks by `write`, a numpy array `[channels, n]` for each of its streams, and is closed by `close`.
Samples are whole numbers where the coding has a full scale, else float32 with full scale at 1.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from separation.audio.decoders import TAGS


@dataclass(frozen=True)
class Coding:
    """One way to encode samples: libsndfile's subtype or FFmpeg's codec, and its steps from silence to full scale."""

    codec: str
    full_scale: int | None = None


FORMATS = {
    "wav": {"16": Coding("PCM_16", 1 << 15), "24": Coding("PCM_24", 1 << 23), "32f": Coding("FLOAT")},
    "flac": {"16": Coding("flac", 1 << 15), "24": Coding("flac", 1 << 23)},
    "ogg": {"": Coding("VORBIS")},
    "mp3": {"": Coding("libmp3lame")},
    "m4a": {"": Coding("aac"), "16": Coding("alac", 1 << 15), "24": Coding("alac", 1 << 23)},
}
"""The formats that are written, and the bits of a sample in each: the first by default, and none where it is lossy."""

WAV_LIMIT = (1 << 32) - (1 << 16)
"""Bytes that a plain wav can hold; a longer one is written as RF64, its successor under the same name."""

SAMPLES = {"flac": ("s16", "s32"), "alac": ("s16p", "s32p")}
"""FFmpeg's name of 16 and of 24 bits in a codec; 24 bits are the upper ones of 32. Other codecs take floats."""

BIT_RATE = {"libmp3lame": 160_000, "aac": 128_000}
"""Bits a second and channel: the most that mp3 has, and what aac needs not to be told from the song.

It is constant for mp3, because browsers jump to a moment of it by its place in the file: stems then stay in step.
"""

CONTAINERS = {"m4a": "mp4"}
"""FFmpeg's name of a format, where it is another."""


class EncodingError(Exception):
    """The file cannot be written on: the disk is full, or gone."""


class SoundFileEncoder:
    """A wav or ogg, of one stream. Raises `ValueError` when the format cannot hold such audio."""

    def __init__(
        self,
        path: Path,
        format: str,
        coding: Coding,
        sample_rate: int,
        channels: int,
        samples: int,
        tags: Mapping[str, str],
        compression: float | None = None,
    ):
        if format == "wav" and samples * channels * 4 > WAV_LIMIT:
            format = "rf64"
        try:
            self._file = soundfile.SoundFile(
                path, "w", sample_rate, channels, coding.codec, format=format, compression_level=compression
            )
        except soundfile.LibsndfileError as error:
            raise ValueError(error.error_string) from error
        for tag, text in tags.items():
            with suppress(soundfile.LibsndfileError):
                setattr(self._file, tag, text)

    def write(self, block: np.ndarray) -> None:
        samples = np.empty(block.shape[::-1], block.dtype)
        for number, channel in enumerate(block):  # many times faster than a copy of the transpose
            samples[:, number] = channel
        try:
            self._file.write(samples)
        except (soundfile.LibsndfileError, AssertionError) as error:
            raise EncodingError from error

    def close(self) -> None:
        try:
            self._file.close()
        except soundfile.LibsndfileError as error:
            raise EncodingError from error


class FFmpegEncoder:
    """An mp3, flac or m4a, of one stream or, for m4a, of several, with a picture if there is one.

    Raises `ValueError` when the format cannot hold such audio.
    """

    def __init__(
        self,
        path: Path,
        format: str,
        coding: Coding,
        sample_rate: int,
        channels: int,
        tags: Mapping[str, str],
        cover: bytes | None = None,
        streams: int = 1,
    ):
        import av

        self.errors = (av.FFmpegError, OSError)
        self.rate, self.layout = sample_rate, {1: "mono", 2: "stereo"}.get(channels, f"{channels}c")
        self.samples = SAMPLES[coding.codec][coding.full_scale > 1 << 15] if coding.full_scale else "fltp"
        # Lengths in an mp4 are told in ticks of this clock, by default of a millisecond.
        options = {"movie_timescale": str(sample_rate)} if format == "m4a" else {}
        try:
            self.container = av.open(path, "w", format=CONTAINERS.get(format, format), options=options)
            self.streams = [self._add_stream(coding.codec, channels) for _ in range(streams)]
            for stream in self.streams:
                stream.codec_context.open(strict=False)
        except (av.FFmpegError, ValueError) as error:
            raise ValueError(str(error)) from error
        names = {name: key for key, name in TAGS.items()}
        self.container.metadata.update({names[tag]: text for tag, text in tags.items() if tag in names})
        self.written = [0] * streams
        self._add_cover(cover)

    def _add_stream(self, codec: str, channels: int):
        stream = self.container.add_stream(codec, rate=self.rate, layout=self.layout, format=self.samples)
        if codec in BIT_RATE:
            stream.bit_rate = BIT_RATE[codec] * channels
        return stream

    def _add_cover(self, cover: bytes | None) -> None:
        import av
        from av.stream import Disposition

        if cover is None:
            return
        with suppress(*self.errors, ValueError, IndexError), av.open(io.BytesIO(cover)) as picture:
            packet = next(packet for packet in picture.demux(video=0) if packet.size)
            stream = self.container.add_stream_from_template(picture.streams.video[0])
            stream.disposition = Disposition.attached_pic
            packet.stream, packet.pts, packet.dts = stream, 0, 0
            self._mux([packet])

    def write(self, *blocks: np.ndarray) -> None:
        import av

        for number, (stream, block) in enumerate(zip(self.streams, blocks, strict=True)):
            if not self.samples.endswith("p"):
                block = block.T.reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), self.samples, self.layout)
            frame.sample_rate, frame.pts = self.rate, self.written[number]
            self.written[number] += frame.samples
            self._mux(stream.encode(frame))

    def close(self) -> None:
        try:
            for stream in self.streams:
                self._mux(stream.encode(None))
            self.container.close()
        except self.errors as error:
            raise EncodingError from error

    def _mux(self, packets) -> None:
        try:
            self.container.mux(packets)
        except self.errors as error:
            raise EncodingError from error
