"""Audio encoding: libsndfile writes wav and ogg; PyAV's FFmpeg writes mp3, flac, m4a and the like.

An encoder's `write` takes one block per track, a numpy array `[channels, n]`; `close` completes the file. Samples are
integers if the coding has a full scale, else float32 with full scale at 1.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing, suppress
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from separation.audio.decoders import CLOCK_RESET, LONGEST_HOLE, check_readable, open_container, require_picture
from separation.audio.formats import Coding

WAV_LIMIT = (1 << 32) - (1 << 16)
"""Bytes that a plain wav can hold; a longer file is written as RF64, its successor, with the same suffix."""

SAMPLES = {"flac": ("s16", "s32"), "alac": ("s16p", "s32p"), "libopus": ("flt", "flt")}
"""FFmpeg's sample formats for 16 and 24 bits; 24 bits are the upper ones of 32. Other codecs take planar floats."""

BIT_RATE = {"libmp3lame": 160_000, "aac": 128_000, "libopus": 96_000}
"""Bits per second and channel: the maximum of mp3, and what aac and opus need to be transparent.

The bit rate of mp3 is constant because browsers seek in it by file position: stems then stay in sync.
"""

CONTAINERS = {"m4a": "mp4", "mka": "matroska", "mkv": "matroska"}
"""FFmpeg's name of a format, if it differs."""

RATES: dict[str, Collection[int]] = {
    "VORBIS": range(1, 192_001),  # the highest rate in use
    "libmp3lame": (8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000),
    "aac": (7350, 8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 64_000, 88_200, 96_000),
    "libopus": (48_000,),
}
"""The sample rates that codecs hold, in hertz; the other codecs hold any."""

SYSTEM_ERROR = 2
"""libsndfile's error number for any system error; it does not pass on `errno`."""


def held_rate(codec: str, sample_rate: int) -> int:
    """The rate at which a codec holds audio of `sample_rate`, both in hertz: the same, else the next higher one.

    Above the codec's highest rate, it is the highest multiple of 44.1 kHz for such a multiple, else the highest.
    """
    rates = RATES.get(codec, (sample_rate,))
    if sample_rate in rates:
        return sample_rate
    highest = max(rates, key=lambda rate: (bool(rate % 44_100) == bool(sample_rate % 44_100), rate))
    return min((rate for rate in rates if rate > sample_rate), default=highest)


class EncodingError(Exception):
    """The file cannot be written any further; the cause says why, as far as the library reports it."""


class SoundFileEncoder:
    """A wav or ogg file with one track. Raises `ValueError` if the format does not support such audio."""

    is_broken = False

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
        self.format = "rf64" if format == "wav" and samples * channels * 4 > WAV_LIMIT else format
        try:
            self._file = soundfile.SoundFile(
                path, "w", sample_rate, channels, coding.codec, format=self.format, compression_level=compression
            )
        except soundfile.LibsndfileError as error:
            raise (EncodingError if error.code == SYSTEM_ERROR else ValueError)(error.error_string) from error
        if format == "wav":  # as INFO, which Windows shows; mutagen adds ID3, which can hold all of them
            for tag, text in tags.items():
                with suppress(soundfile.LibsndfileError):
                    setattr(self._file, tag, text)

    def write(self, block: np.ndarray) -> None:
        samples = np.empty(block.shape[::-1], block.dtype)
        for number, channel in enumerate(block):  # many times faster than copying the transpose
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
    """An mp3, flac, m4a or mka file. The last two may have several tracks, the first of which is the default.

    `names` are the titles of the tracks; `tags` and `cover` go into Matroska, which mutagen does not support. Raises
    `ValueError` if the format does not support such audio.
    """

    def __init__(
        self,
        path: Path,
        format: str,
        coding: Coding,
        sample_rate: int,
        channels: int,
        names: Sequence[str] = ("",),
        tags: Mapping[str, str] | None = None,
        cover: bytes | None = None,
    ):
        import av

        self.errors, self.format, self.is_broken = (av.FFmpegError, OSError), format, False
        self.rate, self.layout = sample_rate, {1: "mono", 2: "stereo"}.get(channels, f"{channels}c")
        kinds = SAMPLES.get(coding.codec, ("fltp", "fltp"))
        self.samples = kinds[(coding.full_scale or 0) > 1 << 15]
        # An mp4 stores lengths in ticks of this clock, by default of a millisecond.
        options = {"movie_timescale": str(sample_rate)} if format in ("m4a", "mp4", "mov") else {}
        try:
            self.container = av.open(path, "w", format=CONTAINERS.get(format, format), options=options)
            self._add_others()
            self.tracks = [self._add_track(coding.codec, channels, name) for name in names]
            for track in self.tracks:
                track.codec_context.open(strict=False)
        except (av.FFmpegError, ValueError) as error:
            raise ValueError(str(error)) from error
        if format == "mka":
            self.container.metadata.update({tag.upper(): text for tag, text in (tags or {}).items()})
            if cover:
                kind = "png" if cover.startswith(b"\x89PNG") else "jpeg"
                self.container.add_attachment(f"cover.{kind.replace('e', '')}", f"image/{kind}", cover)
        self.written = [0] * len(self.tracks)

    def _add_others(self) -> None:
        """Add the streams that precede the audio."""

    def _add_track(self, codec: str, channels: int, name: str) -> Any:
        from av.stream import Disposition

        is_first = not self.container.streams.audio
        track: Any = self.container.add_stream(codec, rate=self.rate, layout=self.layout, format=self.samples)
        if codec in BIT_RATE:
            track.bit_rate = BIT_RATE[codec] * channels
        if name:
            track.metadata["title"] = name
        # PyAV 18.1 does not flag tracks in Matroska by itself. Players start with the default track.
        track.disposition = Disposition.default if is_first else Disposition(0)
        return track

    def write(self, *blocks: np.ndarray) -> None:
        import av

        for number, (track, block) in enumerate(zip(self.tracks, blocks, strict=True)):
            if not self.samples.endswith("p"):
                block = block.T.reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), self.samples, self.layout)
            frame.sample_rate, frame.pts = self.rate, self.written[number]
            self.written[number] += frame.samples
            self._mux(track.encode(frame))

    def close(self) -> None:
        try:
            with closing(self.container):  # also after an error: an open file keeps its disk space
                for track in self.tracks:
                    self._mux(track.encode(None))
        except self.errors as error:
            raise EncodingError from error

    def _mux(self, packets: Sequence[Any]) -> None:
        if self.is_broken:  # after an error nothing more may be written
            return
        try:
            self.container.mux(packets)
        except self.errors as error:
            self.is_broken = True
            raise EncodingError from error


KEPT = ("video", "subtitle", "attachment")
"""Kinds of tracks copied from a video."""

BRAND = ("major_brand", "minor_version", "compatible_brands", "encoder", "duration")
"""Metadata that describes only the file itself."""

TRACK_TAGS = ("title", "language", "filename", "mimetype", "handler_name", "timecode")
"""Tags kept on a copied track: others state its former length and bit rate."""


class VideoEncoder(FFmpegEncoder):
    """A video whose audio is `name`: picture, subtitles, chapters and attachments are copied from a song, bit for bit.

    Args:
        source: the song, as an `AudioReader` whose reading has started by the first `write`: its first sample is at
            `source.starts` on the song's clocks, which is time 0 of the new file.
        keep_original: also copy the song's own audio, as the second track.

    Raises `ValueError` if the format cannot hold these streams, `UserError` if the song has no picture or has gone.
    """

    def __init__(
        self,
        path: Path,
        format: str,
        coding: Coding,
        sample_rate: int,
        channels: int,
        source: Any,
        name: str = "",
        keep_original: bool = False,
    ):
        from av.stream import Disposition

        check_readable(source.path)
        self.source, self.video = source, open_container(source.path)
        self.copies: dict[int, Any] = {}
        self.clocks: dict[int, tuple[int, float]] = {}
        self.waiting: list[Any] = []
        try:
            require_picture(self.video, source.path)
            super().__init__(path, format, coding, sample_rate, channels, (name,))
            if keep_original:
                self._copy(self.video.streams.audio[source.track]).disposition = Disposition(0)
            self.packets = self.video.demux([self.video.streams[index] for index in self.copies])
        except BaseException:
            self.video.close()
            raise

    def _add_others(self) -> None:
        """Add the copied streams, the picture first, before the audio."""
        for stream in sorted(self.video.streams, key=lambda stream: stream.type != "video"):
            try:
                if stream.type in KEPT:
                    self._copy(stream).disposition = stream.disposition
            except ValueError:
                remark = "subtitles of a kind that cannot be copied are left out"
                if stream.type != "subtitle":
                    raise
                if remark not in self.source.remarks:  # added by the video of another stem
                    self.source.remarks.append(remark)
        names = {name: text for name, text in self.video.metadata.items() if name.lower() not in BRAND}
        self.container.metadata.update(names)

    def _copy(self, stream: Any) -> Any:
        # Without `opaque`, PyAV 18.1 refuses video codecs that it has no encoder for, such as Theora.
        copy = self.copies[stream.index] = self.container.add_stream_from_template(stream, opaque=True)
        if stream.type == "video" and "mp4" in self.video.format.name and self.format in ("mp4", "mov"):
            # PyAV 18.1 drops the tag: Apple's players require hvc1, not hev1, and only the tag identifies ProRes 4444.
            copy.codec_context.codec_tag = stream.codec_context.codec_tag
            copy.rate = stream.average_rate or 0  # the timecode requires it
        copy.metadata.update({key: stream.metadata[key] for key in TRACK_TAGS if key in stream.metadata})
        return copy

    def write(self, *blocks: np.ndarray) -> None:
        if not self.written[0]:  # the header has not been written yet
            chapters = self.video.chapters()
            for chapter in chapters:
                shift = round(self.source.starts[0] / chapter["time_base"])
                chapter["start"], chapter["end"] = max(0, chapter["start"] - shift), chapter["end"] - shift
            self.container.set_chapters([chapter for chapter in chapters if chapter["end"] > 0])
        super().write(*blocks)
        self._copy_packets(self.written[0] / self.rate)

    def _copy_packets(self, until: float) -> None:
        """Copy packets up to a time in seconds: a muxer buffers one track until the others catch up."""
        for packet in chain(self.waiting, self.packets):
            self.waiting = []
            if self.is_broken:
                return
            # The last packet of a track is empty. Key frames in Matroska may have no dts (PyAV 18.1).
            if not packet.size:
                continue
            number = self._clock(packet)
            shift = round(self.source.starts[min(number, len(self.source.starts) - 1)] / packet.time_base)
            stamp = packet.pts if packet.dts is None else packet.dts
            is_ahead = number >= len(self.source.starts) and until < math.inf
            if is_ahead or (stamp is not None and (stamp - shift) * packet.time_base > until):
                self.waiting = [packet]
                return
            packet.pts = None if packet.pts is None else packet.pts - shift
            packet.dts = None if packet.dts is None else packet.dts - shift
            packet.stream = self.copies[packet.stream.index]
            self._mux([packet])

    def _clock(self, packet: Any) -> int:
        """Index of the song's clock that a packet's time refers to, counted from 0. Subtitles follow the picture's."""
        index = next(iter(self.copies)) if packet.stream.type == "subtitle" else packet.stream.index
        number, last = self.clocks.get(index, (0, None))
        if index == packet.stream.index and packet.dts is not None:
            time = float(packet.dts * packet.time_base)
            number += last is not None and not -CLOCK_RESET <= time - last <= LONGEST_HOLE
            self.clocks[index] = number, time
        return number

    def close(self) -> None:
        try:
            self._copy_packets(math.inf)
        finally:
            super().close()
            self.video.close()
