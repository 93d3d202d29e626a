"""How audio files are decoded: wav, flac, ogg and the like by libsndfile; mp3, m4a, mp4 and the rest by PyAV's FFmpeg.

A decoder has `info`, `tags`, `stated_samples` (the length that the header vouches for, else 0), `blocks()` (float32
arrays `[channels, n]`), `remarks` (what was passed over in them, in words) and `close()`. What can be played is played:
a few damaged frames become silence, and sound whose rate or channels change is made like its beginning.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from separation.audio.containers import Section, ogg_chain, repaired_wav
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


def open_container(source: Path | Section) -> Any:
    """PyAV's container of a file, by path or as an object. Tags that are no UTF-8 are no reason to refuse it."""
    import av

    try:
        return av.open(source, metadata_errors="replace")
    except TypeError:  # newer ones have no such choice
        return av.open(source)


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
    chain = ogg_chain(path)
    if chain and not chain.is_whole:
        raise UserError(f"{path} is cut short: its last page is not whole; copy it anew.")
    if chain and len(chain.links) > 1:
        return FFmpegDecoder(path, stream, [Section(path, *link) for link in chain.links])
    # libsndfile cuts an mp3 off where it guesses its end, and fails at a flac without one (written into a pipe).
    if path.suffix.lower() != ".mp3" and stream == 0:
        for source in (path, repaired_wav(path)):
            with suppress(soundfile.LibsndfileError, TypeError):
                file = soundfile.SoundFile(source)
                if file.format not in ("MP3", "MPEG") and 0 < file.frames < 1 << 62:
                    return SoundFileDecoder(path, file)
                file.close()
                break
    return FFmpegDecoder(path, stream)


def check_readable(path: Path) -> None:
    """Raise `UserError` unless `path` is a file that may be read and has something in it."""
    with suppress(OSError):
        if path.is_dir():
            raise UserError(f"{path} is a folder, not an audio file.")
    try:
        str(path).encode()
        if not stat.S_ISREG(path.stat().st_mode):
            raise UserError(f"{path} is no file but a pipe or a device: save it to a file first.")
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
    """A file that libsndfile has opened; where it meets damage, FFmpeg goes on."""

    def __init__(self, path: Path, file: soundfile.SoundFile):
        self.path, self.file, self.remarks = path, file, []
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
        samples = 0
        try:
            while len(block := self.file.read(BLOCK, dtype="float32", always_2d=True)):
                samples += len(block)
                yield np.ascontiguousarray(block.T)
            return
        except soundfile.LibsndfileError:
            pass
        other = FFmpegDecoder(self.path, 0)
        try:
            for block in other.blocks():
                skipped = min(samples, block.shape[1])
                samples -= skipped
                if skipped < block.shape[1]:
                    yield block[:, skipped:]
            self.remarks += other.remarks
        finally:
            other.close()

    def close(self) -> None:
        self.file.close()


class FFmpegDecoder:
    """One audio stream of a file, through PyAV: delay and padding of the codec are removed as FFmpeg removes them.

    `sections` are the files that follow each other in one. Raises `UserError` when the file is no audio, has no such
    stream, or is damaged beyond a few frames.
    """

    def __init__(self, path: Path, stream: int, sections: list[Section] | None = None):
        import av

        self.path, self.number, self.remarks = path, stream, []
        self.sections = sections or []
        try:
            self.container = open_container(self.sections[0] if sections else path)
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
        if codec is None or not codec.sample_rate or not codec.channels:
            self.container.close()
            raise UserError(f"{path} is damaged, or in a format that cannot be decoded: export it anew.")
        samples = round(duration * self.stream.time_base * codec.sample_rate) if duration else 0
        # The length of the first section says nothing about the others.
        self.info = AudioInfo(codec.sample_rate, codec.channels, 0 if len(self.sections) > 1 else samples)
        self.layout = codec.layout.name
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
        """The decoded frames, all at the rate and with the channels of the first, float32 `[channels, n]`."""
        samples, good, lost, missing, first = 0, 0, 0, 0, None
        like = Conformer(self.layout, self.info.sample_rate)
        for frame in self._frames():
            if isinstance(frame, Damage):
                missing += frame.samples
                lost, first = lost + 1, samples if first is None else first
                continue
            good += 1
            if missing:  # only what is followed by sound has been skipped: after the end, bytes are often no frame
                place, frames = f"{first / self.info.sample_rate:.1f} s on", "frame" if lost == 1 else "frames"
                self.remarks[:] = [f"{lost} damaged {frames} from {place} passed over"]
                yield np.zeros((self.info.channels, missing), np.float32)
                samples, missing = samples + missing, 0
                if lost > max(FEW, good // FEW):
                    raise UserError(f"{self.path} is damaged from {place}: copy it anew.")
            for piece in like(frame):
                samples += piece.shape[1]
                yield piece
        for piece in like(None):
            samples += piece.shape[1]
            yield piece
        if not samples and first is not None:
            raise UserError(f"{self.path} is damaged: there is nothing in it that can be decoded; copy it anew.")

    def _frames(self) -> Iterator[object]:
        """FFmpeg's frames of one section after the other, and `Damage` where a packet holds none."""

        yield from self._frames_of(self.container, self.stream)
        for section in self.sections[1:]:
            with open_container(section) as container:
                if container.streams.audio:
                    yield from self._frames_of(container, container.streams.audio[0])

    def _frames_of(self, container: object, stream: object) -> Iterator[object]:
        import av

        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.FFmpegError as error:
                raise UserError(f"{self.path} is damaged or cut short ({error.strerror}): copy it anew.") from error
            try:
                yield from packet.decode()
            except av.DecoderNotFoundError as error:
                raise UserError(f"{self.path} is in a format that cannot be decoded: export it as wav.") from error
            except (av.FFmpegError, ValueError):
                duration = (packet.duration or 0) * (packet.time_base or 0)
                yield Damage(max(1, round(duration * self.info.sample_rate)))

    def close(self) -> None:
        self.container.close()
        for section in self.sections:
            section.close()


FEW = 10
"""Damaged frames that are passed over in any file; in long ones it is one in so many."""


@dataclass(frozen=True)
class Damage:
    """A packet that could not be decoded, and the samples that are missing for it."""

    samples: int


class Conformer:
    """Frames of any rate and layout become float32 arrays of one; sound is mixed and resampled as FFmpeg does."""

    def __init__(self, layout: str, sample_rate: int):
        self.layout, self.rate = layout, sample_rate
        self.kind, self.resampler = None, None

    def __call__(self, frame: object | None) -> Iterator[np.ndarray]:
        """What comes out for a frame, or for the end (None)."""
        import av

        kind = frame and (frame.format.name, frame.layout.name, frame.sample_rate)
        if kind != self.kind:
            if self.resampler:
                yield from (part.to_ndarray() for part in self.resampler.resample(None))
            self.kind = kind
            self.resampler = kind and av.AudioResampler(format="fltp", layout=self.layout, rate=self.rate)
        if frame:
            frame.pts = None  # its place in time is that in the file
            yield from (part.to_ndarray() for part in self.resampler.resample(frame))
