"""Audio decoding: libsndfile reads wav, flac, ogg and the like; PyAV's FFmpeg reads mp3, m4a, mp4 and the rest.

A decoder has `info`; `blocks()`, which yields float32 arrays `[1 or 2 channels, n]`; `remarks`, which describe anything
odd about the file; `starts`, the times in seconds of the first sample on each clock of the file so far; and `close()`.
Any file that plays is decoded. One rule keeps audio in sync: frames are placed at their time stamps, and gaps between
them are filled with silence.
"""

from __future__ import annotations

import math
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from separation.audio.containers import Section, is_encrypted, is_stem_file, ogg_chain, repaired_wav
from separation.errors import UserError

BLOCK = 1 << 16
"""Samples decoded or encoded at a time."""

TOLERANCE = 0.25
"""Seconds by which a file may be shorter than stated: encoders disagree on how to count their padding."""

LEAST_HOLE = 0.008
"""Seconds by which a frame must be late to be preceded by silence: Matroska and flv round times to milliseconds."""

LONGEST_HOLE = 3600.0
"""Seconds beyond which a jump of the clock is not a gap but a new clock, as in concatenated transport streams."""

CLOCK_RESET = 0.5
"""Seconds by which the clock must go back to count as a new clock; smaller steps are imprecise time stamps."""

FEW = 10
"""Damaged frames tolerated in any file; longer files may have one for every `FEW` good frames."""


@dataclass(frozen=True)
class AudioInfo:
    """Properties of an audio file according to its header, after downmixing to at most two channels.

    `samples` is the length per channel. A lossy file may hold one codec frame more; if the file does not state its
    length, this is an estimate, or 0 if unknown.
    """

    sample_rate: int
    channels: int
    samples: int


def open_container(source: Path | Section) -> Any:
    """Open a file, by path or as an object, as a PyAV container. Tags that are not UTF-8 are tolerated."""
    import av

    return av.open(source, metadata_errors="replace")


def open_decoder(path: Path, track: int | None = None) -> SoundFileDecoder | FFmpegDecoder:
    """The decoder for a track of a file, counted from 0; None selects the track that players choose.

    Raises `UserError` if the file is missing, empty, encrypted, cut short or not audio, or has no such track.
    """
    check_readable(path)
    chain = ogg_chain(path)
    if chain and not chain.is_whole:
        raise UserError(f"{path} is cut short: its last page is incomplete; copy it again.", code="cut_short")
    if chain and len(chain.links) > 1:
        return FFmpegDecoder(path, track, [Section(path, *link) for link in chain.links])
    # libsndfile 1.2 cuts an mp3 off at an estimated end, and fails on a flac without a length, as written to a pipe.
    if path.suffix.lower() != ".mp3" and not track:
        for source in (Path, repaired_wav):
            with suppress(soundfile.LibsndfileError, TypeError):  # the latter if there is nothing to repair
                file = soundfile.SoundFile(source(path))
                if file.format not in ("MP3", "MPEG") and 0 < file.frames < 1 << 62 and file.channels <= 2:
                    return SoundFileDecoder(path, file)
                file.close()
                break
    return FFmpegDecoder(path, track)


def check_readable(path: Path) -> None:
    """Raise `UserError` unless `path` is a readable, non-empty file."""
    with suppress(OSError):
        if path.is_dir():
            raise UserError(f"{path} is a folder, not an audio file.", code="not_a_file")
    try:
        str(path).encode()
        if not stat.S_ISREG(path.stat().st_mode):
            raise UserError(f"{path} is a pipe or a device: save it to a file first.", code="not_a_file")
        with path.open("rb") as file:
            content = file.read(1)
    except UnicodeEncodeError:
        raise UserError(f"{path} has a name that is not text (from an old system?): rename it.", code="name") from None
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: check the path.", code="not_found") from None
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}.", code="not_readable") from error
    if not content:
        raise UserError(f"{path} is empty (0 bytes): copy it again.", code="empty")


def pictures(container: Any) -> list[Any]:
    """The video tracks of a PyAV container, without covers."""
    return [stream for stream in container.streams.video if not has_flag(stream, "attached_pic")]


def check_picture(path: Path, name: str = "") -> None:
    """Raise `UserError`, which calls the file `name`, if FFmpeg opens the file and finds no video track in it."""
    import av

    with suppress(av.FFmpegError, OSError), open_container(path) as container:
        require_picture(container, name or path)


def require_picture(container: Any, name: str | Path) -> None:
    """Raise `UserError`, which calls the file `name`, if a PyAV container has no video track."""
    if not pictures(container):
        raise UserError(f"{name} has no picture: choose a format other than video.", code="no_picture")


class SoundFileDecoder:
    """A file opened by libsndfile; from the first damage on, FFmpeg takes over."""

    def __init__(self, path: Path, file: soundfile.SoundFile):
        self.path, self.file, self.starts = path, file, [0.0]
        self.remarks: list[str] = []
        self.info = AudioInfo(file.samplerate, file.channels, file.frames)

    def _stated_samples(self) -> int:
        """Number of samples per channel that the header of a wav or aiff states.

        If the file ends early, libsndfile logs both the stated and the actual number of bytes. A wav that was written
        to a pipe states 2 GB or more.
        """
        found = re.search(r"(?:data|SSND) *: (\d+) \(should be (\d+)\)", self.file.extra_info)
        if not found or int(found[1]) >= 0x7FFFF000:
            return self.file.frames
        return max(self.file.frames, self.file.frames * int(found[1]) // max(1, int(found[2])))

    def blocks(self) -> Iterator[np.ndarray]:
        samples = 0
        try:
            while len(block := self.file.read(BLOCK, dtype="float32", always_2d=True)):
                samples += len(block)
                yield np.ascontiguousarray(block.T)
        except soundfile.LibsndfileError:
            other, skipped = FFmpegDecoder(self.path), samples
            try:
                for block in other.blocks():
                    skip = min(skipped, block.shape[1])
                    skipped -= skip
                    samples += block.shape[1] - skip
                    if skip < block.shape[1]:
                        yield block[:, skip:]
                self.remarks += other.remarks
            finally:
                other.close()
        stated, rate = self._stated_samples(), self.info.sample_rate
        if samples + TOLERANCE * rate < stated:
            raise cut_short(self.path, samples / rate, stated / rate)

    def close(self) -> None:
        self.file.close()


class FFmpegDecoder:
    """One audio track of a file, through PyAV; FFmpeg removes codec delay and padding.

    `sections` are the files that are concatenated in this one. More than two channels are downmixed to stereo. Raises
    `UserError` as `open_decoder` does, and if the file is damaged beyond a few frames or cut short.
    """

    def __init__(self, path: Path, track: int | None = None, sections: Sequence[Section] = ()):
        import av

        self.path, self.sections = path, sections
        self.starts: list[float] = []
        self.remarks: list[str] = []
        if is_encrypted(path):
            raise UserError(f"{path} is encrypted (DRM): export it without copy protection.", code="encrypted")
        try:
            self.container = open_container(sections[0] if sections else path)
        except (av.FFmpegError, ValueError) as error:
            raise UserError(
                f"{path} cannot be decoded as audio: use wav, flac, mp3, ogg, m4a or similar.", code="no_audio"
            ) from error
        try:
            self.track = self._choose(track)
            self._open(self.container.streams.audio[self.track])
        except UserError:
            self.container.close()
            raise

    def _choose(self, track: int | None) -> int:
        """Index of the track to decode: by default, as in players, the first one flagged default."""
        streams = self.container.streams.audio
        if not streams:
            raise UserError(f"{self.path} has no audio track.", code="no_audio")
        if track is None:
            flagged = (number for number, stream in enumerate(streams) if has_flag(stream, "default"))
            track = 0 if is_stem_file(self.path) else next(flagged, 0)
            if len(streams) > 1 and not is_stem_file(self.path):
                title = streams[track].metadata.get("title")
                name = f"{track} ({title})" if title else str(track)
                self.remarks.append(f"using track {name} of {len(streams)} audio tracks, counted from 0")
        if track >= len(streams):
            last = f"counted from 0, the last one is {len(streams) - 1}"
            message = f"{self.path} has no audio track {track}: {last}."
            raise UserError(message, code="no_track")
        return track

    def _open(self, stream: Any) -> None:
        codec, container, format = stream.codec_context, self.container, self.container.format.name
        if codec is None or not codec.sample_rate or not codec.channels:
            message = f"{self.path} is damaged, or in a format that cannot be decoded: export it again."
            raise UserError(message, code="damaged")
        if format == "caf" and codec.name == "alac":
            # FFmpeg 8.1 (PyAV 18.1) trims padding from the last frame although ALAC decodes without padding.
            codec.flags2 |= SKIP_MANUAL
        self.layout = codec.layout.name if codec.channels <= 2 else "stereo"
        if codec.channels > 2:
            try:
                unheard = left_out(codec.layout.name, codec.channels)
            except ValueError as error:
                message = f"{self.path} has {codec.layout.name}, which cannot be mixed down: export it in stereo."
                raise UserError(message, code="channels") from error
            without = f", without channel {unheard[0]}, taken as LFE" if unheard else ""
            if len(unheard) > 1:
                without = f", without channels {', '.join(map(str, unheard))}"
            self.remarks.append(f"mixed down from {codec.layout.name} to stereo{without}")
        first, length = (float((ticks or 0) * stream.time_base) for ticks in (stream.start_time, stream.duration))
        times = [(other.start_time, other.time_base) for other in pictures(container)]
        begins = [float(start * base) for start, base in times if start is not None]
        self.picture_start = min(begins, default=None)
        if "mp4" in format and not stream.frames:
            length -= first  # FFmpeg 5 to 8 give the end of a fragmented mp4, and a live recording's clock starts late
        # An mp4 is as long as it states. An mp3 that states its length also states its delay, but may be an excerpt of
        # a longer one. Matroska states where each track ends. Other durations may be estimates from the bit rate.
        self.is_exact, self.stated_end = "mp4" in format, 0.0
        if self.is_exact or (format == "mp3" and first):
            self.stated_end = first + length
        elif "matroska" in format and (time := re.match(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", ""))):
            self.stated_end = 3600 * int(time[1]) + 60 * int(time[2]) + float(time[3])
        if not stream.duration:  # as in Matroska and flv; a container's duration is in microseconds
            length = (self.stated_end or (container.duration or 0) / 1e6) - first
        lead = max(0.0, first - min(begins, default=first))
        samples = round((lead + length) * codec.sample_rate) if length > 0 else 0
        # The length of the first section says nothing about the others.
        self.info = AudioInfo(codec.sample_rate, min(codec.channels, 2), 0 if len(self.sections) > 1 else samples)
        self.stream = stream

    def blocks(self) -> Iterator[np.ndarray]:
        pieces: list[np.ndarray] = []
        samples = 0
        for piece in self._pieces():
            pieces.append(piece)
            samples += piece.shape[1]
            if samples >= BLOCK:
                yield np.concatenate(pieces, axis=1)
                pieces, samples = [], 0
        if pieces:
            yield np.concatenate(pieces, axis=1)

    def _pieces(self) -> Iterator[np.ndarray]:
        """The decoded frames, float32 `[channels, n]`, placed in time, with silence in the gaps."""
        clock, conform = Clock(self.info.sample_rate, float(self.stream.time_base)), FrameConverter(self)
        good = lost = holes = 0
        missing, first_lost, first_hole, remarks = 0, 0.0, 0.0, list(self.remarks)
        for frame in self._frames():
            if frame is None:
                lost, first_lost = lost + 1, first_lost if lost else clock.samples / clock.rate
                continue
            good += 1
            if lost > max(FEW, good // FEW):  # counts only before a good frame: bytes after the end are not a frame
                raise UserError(f"{self.path} is damaged from {first_lost:.1f} s on: copy it again.", code="damaged")
            is_first = clock.origin is None
            if is_first:
                clock.begin(frame, self.picture_start)
            is_late = clock.is_late(frame)
            if clock.origin is not None and clock.origin not in self.starts[-1:]:
                self.starts.append(clock.origin)
            if is_late:
                for piece in conform(None):
                    clock.samples += piece.shape[1]
                    yield piece
                silence = clock.silence(frame)
                if is_first:
                    if silence > LEAST_HOLE * clock.rate:
                        remarks.append(f"the sound starts {silence / clock.rate:.2f} s after the picture")
                elif not lost:
                    first_hole = first_hole if holes else clock.samples / clock.rate
                    holes, missing = holes + 1, missing + silence
                for start in range(0, silence, BLOCK):
                    yield np.zeros((self.info.channels, min(BLOCK, silence - start)), np.float32)
                clock.samples += silence
            self.remarks[:] = remarks
            if lost:
                frames = "frame" if lost == 1 else "frames"
                self.remarks.append(f"{lost} damaged {frames} from {first_lost:.1f} s on, silent")
            if holes:
                self.remarks.append(f"{missing / clock.rate:.2f} s without sound from {first_hole:.1f} s on, silent")
            clock.advance(frame)
            for piece in conform(frame):
                clock.samples += piece.shape[1]
                yield piece
        for piece in conform(None):
            clock.samples += piece.shape[1]
            yield piece
        if not good and lost:
            raise UserError(f"{self.path} is damaged: nothing in it can be decoded; copy it again.", code="damaged")
        if clock.end + TOLERANCE < self.stated_end and len(self.sections) < 2 and good:
            if self.is_exact:
                raise cut_short(self.path, clock.end, self.stated_end)
            self.remarks.append(f"it ends at {clock.end:.1f} s; its header says {self.stated_end:.1f} s")

    def _frames(self) -> Iterator[Any]:
        """FFmpeg's frames of all sections in order, and None for each packet that cannot be decoded."""
        yield from self._frames_of(self.container, self.stream)
        for section in self.sections[1:]:
            with open_container(section) as container:
                if container.streams.audio:
                    yield from self._frames_of(container, container.streams.audio[0])

    def _frames_of(self, container: Any, stream: Any) -> Iterator[Any]:
        import av

        packets = container.demux(stream)
        is_paged = (container.format.name, stream.codec_context.name) == ("ogg", "vorbis")
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.FFmpegError as error:
                message = f"{self.path} is damaged or cut short ({error.strerror}): copy it again."
                raise UserError(message, code="cut_short") from error
            try:
                for frame in packet.decode():
                    if is_paged and frame.pts is not None and packet.duration:
                        # FFmpeg 8.1 may treat the first frame of a page as a short one: only its end is right.
                        frame.pts += min(0, packet.duration - frame.samples)
                    yield frame
            except av.DecoderNotFoundError as error:
                message = f"{self.path} is in a format that cannot be decoded: export it as wav."
                raise UserError(message, code="no_audio") from error
            except (av.FFmpegError, ValueError):
                yield None

    def close(self) -> None:
        self.container.close()
        for section in self.sections:
            section.close()


SKIP_MANUAL = 1 << 29
"""FFmpeg's AV_CODEC_FLAG2_SKIP_MANUAL: trimming is left to the application."""


def has_flag(stream: Any, name: str) -> bool:
    """Whether a stream has an FFmpeg disposition, such as `default`."""
    from av.stream import Disposition

    return bool(stream.disposition & getattr(Disposition, name))


def cut_short(path: Path, end: float, stated: float) -> UserError:
    """The error for a file that ends at `end` instead of `stated`, both in seconds."""
    return UserError(f"{path} is cut short: {end:.1f} s of {stated:.1f} s exist; copy it again.", code="cut_short")


class Clock:
    """Places frames in time: compares time stamps, in seconds, with the samples output so far, at `rate` hertz.

    `tick` is the unit of the time stamps, in seconds. A codec's frames are contiguous, so a gap precedes only a frame
    that is late relative both to the frame before it and to all samples so far.
    """

    def __init__(self, rate: int, tick: float):
        self.rate, self.tick, self.samples, self.end = rate, tick, 0, 0.0
        self.origin: float | None = None

    def begin(self, frame: Any, picture_start: float | None) -> None:
        """Start at the first frame, or at the picture if that is earlier."""
        self.origin = self.end = min(frame.time or 0.0, math.inf if picture_start is None else picture_start)

    def is_late(self, frame: Any) -> bool:
        """Whether a gap precedes a frame. If a new clock starts with this frame, switch to it."""
        if frame.time is None:
            return False
        late, jump = frame.time - self.origin - self.samples / self.rate, frame.time - self.end
        if late < -CLOCK_RESET or late > LONGEST_HOLE:
            self.origin += late
            return False
        return min(late, jump) > (LEAST_HOLE if self.samples else 0)

    def silence(self, frame: Any) -> int:
        """Samples of silence to insert before a frame; whole frames if time stamps are too coarse to tell."""
        samples = round((frame.time - self.origin) * self.rate) - self.samples
        whole = round(samples / frame.samples) * frame.samples
        return whole if self.samples and abs(whole - samples) <= 1.5 * self.tick * self.rate else samples

    def advance(self, frame: Any) -> None:
        """Advance to the end of a frame."""
        self.end = (self.end if frame.time is None else frame.time) + frame.samples / frame.sample_rate


def left_out(layout: str, channels: int) -> list[int]:
    """The channels, counted from 1, that FFmpeg leaves out when it mixes a layout down to stereo.

    It guesses the layout of a file that states none by the number of channels, and thus also which one is the LFE.
    Raises `ValueError` if it cannot mix this layout down.
    """
    import av

    frame = av.AudioFrame.from_ndarray(np.eye(channels, dtype=np.float32).reshape(1, -1), "flt", layout)
    frame.sample_rate, resampler = 48_000, av.AudioResampler("fltp", "stereo", 48_000)
    mixed = [part.to_ndarray() for part in (*resampler.resample(frame), *resampler.resample(None))]
    return [int(number) for number in 1 + np.flatnonzero(~np.concatenate(mixed, axis=1).any(axis=0))]


class FrameConverter:
    """Converts frames of any rate and layout to float32 arrays in those of the decoder; FFmpeg mixes and resamples.

    Downmixing keeps FFmpeg's coefficients, which are not normalised for floats: left and right keep their level,
    centre and surround are 3 dB quieter, and the low-frequency channel is omitted.
    """

    def __init__(self, decoder: FFmpegDecoder):
        self.layout, self.rate = decoder.layout, decoder.info.sample_rate
        self.kind: tuple[str, str, int] | None = None
        self.resampler: Any = None

    def __call__(self, frame: Any) -> Iterator[np.ndarray]:
        """The output for a frame, or for the end of the stream (None)."""
        import av

        kind = frame and (frame.format.name, frame.layout.name, frame.sample_rate)
        if kind != self.kind:
            if self.resampler:
                yield from (part.to_ndarray() for part in self.resampler.resample(None))
            self.kind = kind
            self.resampler = kind and av.AudioResampler(format="fltp", layout=self.layout, rate=self.rate)
        if frame:
            frame.pts = None  # timing is left to `Clock`
            yield from (part.to_ndarray() for part in self.resampler.resample(frame))
