"""A video whose sound is a stem: everything else is as it was, and in step."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from conftest import refused
from sounds import RATE, decode, delay, ffmpeg, ffprobe, noise

from separation.audio.formats import video_suffix
from separation.audio.io import AudioReader, AudioWriter, probe, write
from separation.audio.resample import resample

SUBTITLES = "1\n00:00:01,000 --> 00:00:02,000\nHello\n\n2\n00:00:02,500 --> 00:00:03,500\nWorld\n"

CHAPTERS = """;FFMETADATA1
title=Concert
[CHAPTER]
TIMEBASE=1/1000
START=0
END=2000
title=One
[CHAPTER]
TIMEBASE=1/1000
START=2000
END=4000
title=Two
"""

CODECS = {
    "mkv": ("-c:v", "libx264", "-bf", "3", "-c:a", "aac", "-c:s", "srt"),
    "mp4": ("-c:v", "libx264", "-bf", "3", "-c:a", "aac", "-c:s", "mov_text"),
    "webm": ("-c:v", "libvpx", "-c:a", "libopus", "-c:s", "webvtt"),
}


def film(folder: Path, suffix: str, late: str = "0", offset: str = "0") -> Path:
    """A film of 4 seconds with B-frames, subtitles in English and chapters; its sound starts `late`, its clock too."""
    write(folder / "song.wav", noise(4), RATE)
    (folder / "words.srt").write_text(SUBTITLES)
    (folder / "chapters.txt").write_text(CHAPTERS)
    inputs = ("-f", "lavfi", "-i", "testsrc=d=4:s=64x48:r=25", "-itsoffset", late, "-i", folder / "song.wav")
    inputs += ("-i", folder / "words.srt", "-i", folder / "chapters.txt")
    mapped = ("-map", "0:v", "-map", "1:a", "-map", "2:s", "-map_metadata", "3", "-metadata:s:s", "language=eng")
    path = folder / f"film.{suffix}"
    ffmpeg(*inputs, *mapped, *CODECS[suffix], "-output_ts_offset", offset, path)
    return path


def karaoke(source: Path, target: Path, keep_original: bool = False, bits: str | None = None) -> None:
    """Write `source` with its own sound, turned over, as its only one."""
    with AudioReader(source) as reader:
        rate = reader.info.sample_rate
        with AudioWriter(
            target, rate, 2, names=["karaoke"], video=reader, keep_original=keep_original, bits=bits
        ) as writer:  # fmt: skip
            for block in reader:
                writer.write(-block)


def packets(path: Path, kind: str) -> list[tuple[float, bytes]]:
    """When each packet of a track is shown, from the first of the picture on, and what it holds."""
    with av.open(path) as container:
        start = container.streams.video[0].start_time * container.streams.video[0].time_base
        (stream,) = getattr(container.streams, kind)
        found = [packet for packet in container.demux(stream) if packet.size]
        return [(float(packet.pts * packet.time_base - start), bytes(packet)) for packet in found]


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "webm"])
def test_picture_subtitles_and_chapters_are_those_of_the_film(tmp_path, suffix):
    source, target = film(tmp_path, suffix), tmp_path / f"karaoke.{suffix}"
    karaoke(source, target)
    for kind in ("video", "subtitles"):
        before, after = packets(source, kind), packets(target, kind)
        assert [content for _, content in before] == [content for _, content in after]
        assert np.allclose([time for time, _ in before], [time for time, _ in after], atol=0.0011)
    before, after = ffprobe(source), ffprobe(target)
    # Matroska tells the end of its last track alone, and FFmpeg 5.1 begins a picture with B-frames a frame late.
    assert probe(target).samples / probe(target).sample_rate == pytest.approx(4, abs=0.05)
    assert [chapter["tags"]["title"] for chapter in after["chapters"]] == ["One", "Two"]
    assert [float(chapter["start_time"]) for chapter in after["chapters"]] == pytest.approx([0, 2], abs=0.03)
    assert after["format"]["tags"]["title"] == "Concert"
    (words,) = [stream for stream in after["streams"] if stream["codec_type"] == "subtitle"]
    assert words["tags"]["language"] == "eng"
    (sound,) = [stream for stream in after["streams"] if stream["codec_type"] == "audio"]
    assert sound["disposition"]["default"] == 1


def sound_against_picture(path: Path, track: int = 0) -> float:
    """Seconds by which the sound comes after the picture, by the time stamps of both, measured against the song."""
    with av.open(path) as container:
        picture = container.streams.video[0]
        stream, blocks, start = container.streams.audio[track], [], None
        for frame in container.decode(stream):
            start = frame.time if start is None else start
            blocks.append(frame.to_ndarray())
        song = np.concatenate(blocks, axis=1)
        if stream.format.name in ("s16", "s32"):
            song = song.reshape(-1, 2).T / 2.0**31
        waveform = torch.from_numpy(resample(song.astype(np.float32), stream.rate, RATE))
        picture_start = float(picture.start_time * picture.time_base)
        return start - picture_start + delay(abs(waveform), abs(noise(4))) / RATE


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "webm"])
@pytest.mark.parametrize("late", ["0", "1"])
def test_the_sound_is_in_step_with_the_picture(tmp_path, suffix, late):
    """To the sample in mp4, and to the millisecond that Matroska counts in."""
    source, target = film(tmp_path, suffix, late), tmp_path / f"karaoke.{suffix}"
    karaoke(source, target)
    slack = 1.5 / RATE if suffix == "mp4" else 0.0011
    assert abs(sound_against_picture(target) - sound_against_picture(source)) <= slack


def test_lossless_sound_is_the_same_to_the_bit(tmp_path):
    source, target = film(tmp_path, "mkv"), tmp_path / "karaoke.mkv"
    karaoke(source, target, bits="24")
    torch.testing.assert_close(decode(target)[0], -decode(source)[0], atol=2**-23, rtol=0)


def test_a_film_whose_clock_starts_late_starts_at_once(tmp_path):
    source, target = film(tmp_path, "mkv", late="0.5", offset="100"), tmp_path / "karaoke.mkv"
    karaoke(source, target)
    assert float(ffprobe(target)["format"]["start_time"]) < 0.1
    assert abs(sound_against_picture(target) - sound_against_picture(source)) < 0.0011


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "webm"])
def test_the_original_sound_is_kept_as_the_second_track(tmp_path, suffix):
    source, target = film(tmp_path, suffix), tmp_path / f"both.{suffix}"
    karaoke(source, target, keep_original=True)
    streams = [stream for stream in ffprobe(target)["streams"] if stream["codec_type"] == "audio"]
    assert [stream["disposition"]["default"] for stream in streams] == [1, 0]
    assert abs(sound_against_picture(target, 1) - sound_against_picture(target, 0)) < 0.0011
    original, before = decode(target, track=1)[0], decode(source)[0]
    assert delay(original, before) in (0, 1024)  # Matroska notes no delay of AAC that is copied


def test_attachments_and_a_cover_are_kept(tmp_path):
    source = film(tmp_path, "mkv")
    ffmpeg("-i", source, "-map", "0", "-c", "copy", "-attach", tmp_path / "words.srt",
           "-metadata:s:t", "mimetype=application/x-truetype-font", tmp_path / "font.mkv")  # fmt: skip
    karaoke(tmp_path / "font.mkv", tmp_path / "karaoke.mkv")
    (found,) = [
        stream for stream in ffprobe(tmp_path / "karaoke.mkv")["streams"] if stream["codec_type"] == "attachment"
    ]
    assert found["tags"]["filename"] == "words.srt"


def test_the_timecode_and_the_kind_of_a_picture_are_kept(tmp_path):
    """Apple's players go by the tag: hvc1 plays, hev1 does not, and only ap4h is ProRes 4444."""
    ffmpeg("-f", "lavfi", "-i", "testsrc=d=1:s=64x48", "-f", "lavfi", "-i", "sine=d=1", "-ac", "2", "-c:v", "prores_ks",
           "-profile:v", "4444", "-timecode", "01:00:00:00", tmp_path / "film.mov")  # fmt: skip
    karaoke(tmp_path / "film.mov", tmp_path / "karaoke.mov")
    picture = ffprobe(tmp_path / "karaoke.mov")["streams"][0]
    assert (picture["codec_tag_string"], picture["tags"].get("timecode")) == ("ap4h", "01:00:00:00")


def test_a_picture_that_nothing_here_encodes_is_copied(tmp_path):
    ffmpeg(
        "-f", "lavfi", "-i", "testsrc=d=1:s=64x48", "-f", "lavfi", "-i", "sine=d=1", "-ac", "2", tmp_path / "film.ogv"
    )
    karaoke(tmp_path / "film.ogv", tmp_path / "karaoke.mkv")
    assert ffprobe(tmp_path / "karaoke.mkv")["streams"][0]["codec_name"] == "theora"


def broadcast(folder: Path) -> Path:
    """A film of 2 seconds as a transport stream, with teletext, which no other format holds."""
    path, source = folder / "film.ts", folder / "plain.ts"
    ffmpeg(
        "-f", "lavfi", "-i", "testsrc=d=2:s=64x48:r=25", "-f", "lavfi", "-i", "sine=d=2", "-ac", "2", "-bf", "2", source
    )
    with av.open(source) as film, av.open(path, "w") as target:
        copies = {stream.index: target.add_stream_from_template(stream) for stream in film.streams}
        teletext = target.add_mux_stream("dvb_teletext")
        for packet in film.demux():
            if packet.size:
                words = av.Packet(b"\x10\x02\x2c" + bytes(44))
                words.pts, words.dts, words.time_base, words.stream = packet.dts, packet.dts, packet.time_base, teletext
                others = [words] if packet.stream.type == "video" else []
                packet.stream = copies[packet.stream.index]
                target.mux([packet, *others])
    return path


def test_subtitles_that_cannot_be_copied_are_left_out_with_a_remark(tmp_path):
    source, target = broadcast(tmp_path), tmp_path / "karaoke.mkv"
    with AudioReader(source) as reader, AudioWriter(target, RATE, 2, video=reader) as writer:
        for block in reader:
            writer.write(block)
        assert reader.remarks == ["subtitles of a kind that cannot be copied are left out"]
    assert [stream["codec_type"] for stream in ffprobe(target)["streams"]] == ["video", "audio"]


@pytest.mark.parametrize("keep_original", [False, True])
def test_the_picture_follows_the_clocks_of_films_that_were_joined(tmp_path, keep_original):
    part, source, target = broadcast(tmp_path), tmp_path / "joined.ts", tmp_path / "karaoke.mkv"
    source.write_bytes(part.read_bytes() * 2)
    karaoke(source, target, keep_original)
    times = [time for time, _ in packets(target, "video")]
    assert np.diff(times[:50]) == pytest.approx(np.diff(times[50:]), abs=0.0011)
    assert times[50] == pytest.approx(decode(part)[0].shape[-1] / RATE, abs=0.0011)


def test_a_song_without_a_picture_is_refused_as_a_video_and_leaves_nothing(tmp_path):
    write(tmp_path / "song.wav", noise(1), RATE)
    with refused("no_picture"):
        karaoke(tmp_path / "song.wav", tmp_path / "karaoke.mkv")
    assert [path.name for path in tmp_path.iterdir()] == ["song.wav"]


@pytest.mark.skipif(os.name != "posix", reason="an open file stays on Windows")
def test_a_film_that_vanishes_is_named_and_leaves_nothing(tmp_path):
    source = film(tmp_path, "mp4")
    before = {*tmp_path.iterdir()} - {source}
    with AudioReader(source) as reader, refused("not_found"):
        source.unlink()
        AudioWriter(tmp_path / "karaoke.mp4", RATE, 2, video=reader)
    assert set(tmp_path.iterdir()) == before


def test_an_error_of_the_disk_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    source = film(tmp_path, "mp4")
    before = set(tmp_path.iterdir())
    monkeypatch.setattr("separation.audio.encoders.open_container", fail)
    with AudioReader(source) as reader, refused("disk_full"):
        AudioWriter(tmp_path / "karaoke.mp4", RATE, 2, video=reader)
    assert set(tmp_path.iterdir()) == before


def test_an_interrupted_video_leaves_nothing(tmp_path):
    source = film(tmp_path, "mp4")
    before = set(tmp_path.iterdir())
    target = tmp_path / "karaoke.mp4"
    with (
        pytest.raises(KeyboardInterrupt),
        AudioReader(source) as reader,
        AudioWriter(target, RATE, 2, video=reader) as writer,
    ):
        writer.write(next(iter(reader)))
        writer._encoder.packets = (pytest.fail("the rest of the film is copied") for _ in range(1))
        raise KeyboardInterrupt
    assert set(tmp_path.iterdir()) == before


def test_the_kind_of_a_video_is_kept_where_it_can_be():
    cases = {"a.mkv": ".mkv", "a.MP4": ".mp4", "a.m4v": ".mp4", "a.mov": ".mov", "a.webm": ".webm", "a.ts": ".mkv"}
    assert {name: video_suffix(Path(name)) for name in cases} == cases
