"""How audio files are decoded: wav, flac, ogg and the like by libsndfile; mp3, m4a, mp4 and the rest by PyAV's FFmpeg.

A decoder has `info`, `tags`, `stated_samples` (the length that the header vouches for, else 0), `blocks()` (float32
arrays `[channels, n]`) and `close()`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from separation.errors import UserError

BLOCK = 1 << 16
"""Samples that are decoded or encoded at a time."""

TAGS = {
    "title": "title",
    "artist": "artist",
    "album": "album",
    "genre": "genre",
    "date": "date",
    "track": "tracknumber",
    "copyright": "copyright",
    "comment": "comment",
}
"""The tags that are read: FFmpeg's name of each, and libsndfile's."""


@dataclass(frozen=True)
class AudioInfo:
    """What the header of an audio file says.

    `samples` is the length per channel: a lossy file may hold a codec frame more, one that does not say its length is
    estimated, and 0 stands for no idea.
    """

    sample_rate: int
    channels: int
    samples: int


def open_decoder(path: Path, stream: int) -> SoundFileDecoder | FFmpegDecoder:
    """The decoder for a file. Raises `UserError` when it is missing, empty or no audio, or has no such stream."""
    check_readable(path)
    # libsndfile cuts an mp3 off where it guesses its end, and fails at a flac without one (written into a pipe).
    if path.suffix.lower() != ".mp3" and stream == 0:
        try:
            file = soundfile.SoundFile(path)
            if file.format not in ("MP3", "MPEG") and file.frames < 1 << 62:
                return SoundFileDecoder(path, file)
            file.close()
        except soundfile.LibsndfileError:
            pass
    return FFmpegDecoder(path, stream)


def check_readable(path: Path) -> None:
    """Raise `UserError` unless `path` is a file that may be read and has something in it."""
    if path.is_dir():
        raise UserError(f"{path} is a folder, not an audio file.")
    try:
        str(path).encode()
        with path.open("rb") as file:
            content = file.read(1)
    except UnicodeEncodeError:
        raise UserError(f"{path} has a name that is no text (of an older system?): rename it.") from None
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: check the path.") from None
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}.") from error
    if not content:
        raise UserError(f"{path} is empty (0 bytes): copy it anew.")


class SoundFileDecoder:
    """A file that libsndfile has opened. Raises `UserError` where it is damaged."""

    def __init__(self, path: Path, file: soundfile.SoundFile):
        self.path, self.file = path, file
        self.info = AudioInfo(file.samplerate, file.channels, file.frames)
        self.tags = file.copy_metadata()
        self.stated_samples = max(file.frames, self._missing_samples())

    def _missing_samples(self) -> int:
        """The samples that the header of a wav or aiff claims where the file ends before them, else 0.

        libsndfile notes both numbers of bytes in its log. A wav that was written into a pipe claims 2 GB or more.
        """
        found = re.search(r"(?:data|SSND) *: (\d+) \(should be (\d+)\)", self.file.extra_info)
        if not found or int(found[1]) >= 0x7FFFF000:
            return 0
        return self.file.frames * int(found[1]) // max(1, int(found[2]))

    def blocks(self) -> Iterator[np.ndarray]:
        try:
            while len(block := self.file.read(BLOCK, dtype="float32", always_2d=True)):
                yield np.ascontiguousarray(block.T)
        except soundfile.LibsndfileError as error:
            raise UserError(f"{self.path} is damaged or cut short ({error.error_string}): copy it anew.") from error

    def close(self) -> None:
        self.file.close()


class FFmpegDecoder:
    """One audio stream of a file, through PyAV: delay and padding of the codec are removed as FFmpeg removes them.

    Raises `UserError` when the file is no audio, has no such stream, or is damaged.
    """

    def __init__(self, path: Path, stream: int):
        import av

        self.path = path
        try:
            self.container = av.open(path)
        except (av.FFmpegError, ValueError) as error:
            raise UserError(
                f"{path} is no audio that can be decoded: give wav, flac, mp3, ogg, m4a or the like."
            ) from error
        streams = self.container.streams.audio
        if stream >= len(streams):
            self.container.close()
            raise UserError(f"{path} has {len(streams)} audio streams: there is no stream {stream}, counted from 0.")
        self.stream = streams[stream]
        codec, duration = self.stream.codec_context, self.stream.duration
        samples = round(duration * self.stream.time_base * codec.sample_rate) if duration else 0
        self.info = AudioInfo(codec.sample_rate, codec.channels, samples)
        metadata = {**self.stream.metadata, **self.container.metadata}
        self.tags = {tag: metadata[key] for key, tag in TAGS.items() if key in metadata}
        # Other durations may be guesses from the bit rate. An mp3 that says how long it is has its delay noted too.
        name = self.container.format.name
        self.stated_samples = samples if "mp4" in name or (name == "mp3" and self.stream.start_time) else 0

    def blocks(self) -> Iterator[np.ndarray]:
        pieces, samples = [], 0
        for piece in self._pieces():
            pieces.append(piece)
            samples += piece.shape[1]
            if samples >= BLOCK:
                yield np.concatenate(pieces, axis=1)
                pieces, samples = [], 0
        if pieces:
            yield np.concatenate(pieces, axis=1)

    def _pieces(self) -> Iterator[np.ndarray]:
        import av

        planar, samples, damage = av.AudioResampler(format="fltp"), 0, None
        for packet in self.container.demux(self.stream):
            try:
                for frame in packet.decode():
                    for part in planar.resample(frame):
                        samples += part.samples
                        yield part.to_ndarray()
            except (av.FFmpegError, ValueError) as error:
                damage = damage or (samples / self.info.sample_rate, error)
        # Padding after the last frame of an mp3 looks like a damaged frame.
        if damage and not 0 < self.stated_samples <= samples:
            raise UserError(f"{self.path} is damaged or cut short at {damage[0]:.1f} s: copy it anew.") from damage[1]

    def close(self) -> None:
        self.container.close()
