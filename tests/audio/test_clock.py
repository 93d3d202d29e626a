"""Sound lies where the time stamps of its file say: late starts, holes, other clocks, and the right track."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch
from conftest import refused
from sounds import PICTURE, RATE, decode, decoded_by_ffmpeg, delay, encode, ffmpeg, noise, read
from torch import Tensor

from separation.audio.decoders import open_decoder
from separation.audio.io import AudioReader, AudioWriter, probe, write

FRAGMENTS = ("-c:a", "aac", "-movflags", "frag_keyframe+empty_moov+default_base_moof", "-frag_duration", "1000000")


def boxes_of(data: bytes) -> list[tuple[bytes, bytes]]:
    """The outermost boxes of an mp4, by kind."""
    found, place = [], 0
    while place < len(data):
        size, kind = struct.unpack_from(">I4s", data, place)
        found.append((kind, data[place : place + size]))
        place += size
    return found


def fragmented(path: Path, song: Tensor, starts: float = 0.0, lost: int | None = None) -> Path:
    """A fragmented mp4 as a live recorder leaves it: its clock starts late, or a fragment of a second is missing."""
    boxes = [box for box in boxes_of(encode(path, song, *FRAGMENTS).read_bytes()) if box[0] != b"mfra"]
    if lost is not None:
        place = [number for number, (kind, _) in enumerate(boxes) if kind == b"moof"][lost]
        del boxes[place : place + 2]
    data = bytearray(b"".join(box for _, box in boxes))
    place = data.find(b"tfdt")
    while place >= 0:
        assert data[place + 4] == 1  # 64 bits
        (time,) = struct.unpack_from(">Q", data, place + 8)
        struct.pack_into(">Q", data, place + 8, time + round(starts * RATE))
        place = data.find(b"tfdt", place + 4)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("starts", [0.5, 5.0, 3600.0])
def test_a_live_recording_whose_clock_starts_late_is_read_whole(tmp_path, starts):
    song = noise(4)
    copy, remarks = decode(fragmented(tmp_path / "live.mp4", song, starts))
    assert delay(copy, song) == 1024 and copy.shape[1] >= song.shape[1] + 1024  # as FFmpeg: no edit list, no trimming
    assert not remarks


def test_a_lost_fragment_is_silent_and_the_rest_in_step(tmp_path):
    song = noise(6)
    whole, _ = decode(fragmented(tmp_path / "whole.mp4", song))
    copy, remarks = decode(fragmented(tmp_path / "hole.mp4", song, lost=2))
    assert copy.shape == whole.shape
    assert delay(copy[:, 4 * RATE :], whole[:, 4 * RATE :]) == 0
    silent = (copy == 0).all(0)
    assert 0.9 < silent.sum() / RATE < 1.1
    assert len(remarks) == 1 and "without sound" in remarks[0]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mkv", ["-c:a", "aac"]),
        ("a.webm", ["-c:a", "libopus"]),
        ("a.mka", ["-c:a", "flac"]),
        ("a.ts", ["-c:a", "aac"]),
    ],
)
@pytest.mark.parametrize("lost", [1, 15])
def test_packets_that_are_missing_in_the_middle_are_silent(tmp_path, name, options, lost):
    song = noise(6)
    whole, _ = decode(encode(tmp_path / name, song, *options))
    path = tmp_path / f"hole-{name}"
    with av.open(tmp_path / name) as source, av.open(path, "w") as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        packets = [packet for packet in source.demux(audio=0) if packet.size]
        for number, packet in enumerate(packets):
            if not 30 <= number < 30 + lost:
                packet.stream = stream
                target.mux(packet)
    copy, remarks = decode(path)
    assert "without sound" in remarks[0]
    assert abs(copy.shape[1] - whole.shape[1]) <= 1
    assert delay(copy[:, 3 * RATE :], whole[:, 3 * RATE :]) == 0


@pytest.mark.parametrize(
    ("name", "options", "slack"),
    [
        ("a.mp4", ["-c:v", "mpeg4", "-c:a", "aac"], 0.001),
        ("a.mkv", ["-c:v", "mpeg4", "-c:a", "flac"], 0.001),
        ("a.webm", ["-c:v", "libvpx", "-c:a", "libopus"], 0.008),  # FFmpeg 5.1 writes CodecDelay where time starts
        ("a.ts", ["-c:v", "mpeg2video", "-c:a", "mp2"], 0.001),
    ],
)
def test_sound_that_starts_after_the_picture_has_silence_before_it(tmp_path, name, options, slack):
    song = noise(4)
    write(tmp_path / "song.wav", song, RATE)
    path, codec = tmp_path / name, options
    ffmpeg(*PICTURE, "-itsoffset", "1", "-i", tmp_path / "song.wav", "-map", "0:v", "-map", "1:a", *codec, path)
    copy, remarks = decode(path)
    with AudioReader(path) as reader:
        rate = reader.info.sample_rate
    expected = noise(4) if rate == RATE else read(tmp_path / "song.wav", rate)[0]
    assert abs(delay(copy, expected) - rate) <= slack * rate
    assert (copy[:, : rate // 2] == 0).all()
    assert any("after the picture" in remark for remark in remarks)
    assert abs(probe(path).samples - copy.shape[1]) < 0.1 * rate or not probe(path).samples


def test_a_late_start_without_a_picture_is_left_out_as_by_ffmpeg(tmp_path):
    song = noise(3)
    write(tmp_path / "song.wav", song, RATE)
    ffmpeg(
        "-itsoffset", "1", "-i", tmp_path / "song.wav", "-c:a", "flac", tmp_path / "a.mka"
    )  # of AAC, FFmpeg 6.0 keeps the priming
    assert delay(decode(tmp_path / "a.mka")[0], decoded_by_ffmpeg(tmp_path / "a.mka")) == 0


def test_a_clock_that_starts_again_or_jumps_by_hours_is_no_hole(tmp_path):
    """Transport streams are joined by appending them."""
    song = noise(3)
    for name, offset in (("first.ts", "0"), ("second.ts", "20000")):
        encode(tmp_path / name, song, "-c:a", "mp2", "-output_ts_offset", offset)
    for names in (("first.ts", "first.ts"), ("first.ts", "second.ts")):
        (tmp_path / "joined.ts").write_bytes(b"".join((tmp_path / name).read_bytes() for name in names))
        copy, _ = decode(tmp_path / "joined.ts")
        assert abs(copy.shape[1] - 6 * RATE) < 5000


def test_pages_of_vorbis_that_begin_between_long_and_short_frames_have_no_holes(tmp_path):
    song = 0.02 * noise(3)
    song[:, RATE : RATE + 40] = song[:, 2 * RATE : 2 * RATE + 40] = 0.5
    path = encode(tmp_path / "a.ogg", song, "-af", "pan=3.0|FL=c0|FR=c1|FC=0*c0", "-c:a", "libvorbis")
    copy, remarks = decode(path)
    assert remarks == ["mixed down from 3.0 to stereo"]
    assert copy.shape == song.shape and delay(copy, song) == 0


def test_aac_in_matroska_that_states_its_delay_is_in_step_with_m4a(tmp_path):
    """FFmpeg 8.1 writes CodecDelay and reads it (PyAV 17.1 on); FFmpeg 8.0 read 1,024 samples too many."""
    song, copies = noise(3), []
    for name in ("a.m4a", "a.mka"):
        with av.open(tmp_path / name, "w") as container:
            stream = container.add_stream("aac", rate=RATE, layout="stereo")
            frame = av.AudioFrame.from_ndarray(song.numpy(), "fltp", "stereo")
            frame.sample_rate, frame.pts = RATE, 0
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        copies.append(decode(tmp_path / name)[0])
    assert torch.equal(*copies) and delay(copies[1], song) == 0


@pytest.fixture
def two_tracks(tmp_path) -> Path:
    """A film whose first track is a commentary, and whose second is the music, which is flagged default."""
    for number in (0, 1):
        write(tmp_path / f"{number}.wav", noise(3, seed=number), RATE)
    titles = ("-metadata:s:a:0", "title=Commentary", "-metadata:s:a:1", "title=Music")
    default = ("-disposition:a:0", "0", "-disposition:a:1", "default")
    inputs = ("-i", tmp_path / "0.wav", "-i", tmp_path / "1.wav", "-map", "0", "-map", "1", "-c:a", "flac")
    ffmpeg(*inputs, *titles, *default, tmp_path / "a.mkv")
    return tmp_path / "a.mkv"


def test_the_track_flagged_default_is_read_and_named(two_tracks):
    copy, remarks = decode(two_tracks)
    assert torch.equal(copy, decode(two_tracks, track=1)[0])
    assert delay(copy, noise(3, seed=1)) == 0
    assert len(remarks) == 1 and "1 (Music)" in remarks[0]


def test_a_track_that_is_named_is_read_without_a_remark(two_tracks):
    copy, remarks = decode(two_tracks, track=0)
    assert delay(copy, noise(3)) == 0 and not remarks
    with refused("no_track"):
        open_decoder(two_tracks, 2)


def test_a_stem_file_is_read_from_its_first_track_whichever_is_flagged(tmp_path, two_tracks):
    path = tmp_path / "a.stem.mp4"
    ffmpeg("-i", two_tracks, "-map", "0", "-c:a", "alac", "-disposition:a:0", "0", "-disposition:a:1", "default", path)
    copy, remarks = decode(path)
    assert delay(copy, noise(3)) == 0 and not remarks
    boxed = tmp_path / "boxed.m4a"
    with AudioWriter(boxed, RATE, 2, names=["", ""], user_data={b"stem": b"{}"}) as writer:
        writer.write(noise(2), noise(2, seed=1))
    assert not decode(boxed)[1]


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ac3", "a.mka"])
def test_surround_sound_is_mixed_down_with_ffmpegs_coefficients(tmp_path, name):
    channels = torch.stack([noise(1, 1, seed)[0] for seed in range(6)]) / 4
    left, right, centre, _, back_left, back_right = channels
    soundfile.write(tmp_path / "six.wav", channels.T.numpy(), RATE, "FLOAT")
    if name == "a.wav":
        (tmp_path / "six.wav").rename(tmp_path / name)
    else:
        ffmpeg("-i", tmp_path / "six.wav", *(["-c:a", "flac"] if name == "a.mka" else []), tmp_path / name)
    copy, remarks = decode(tmp_path / name)
    half = 0.5**0.5
    expected = torch.stack([left + half * (centre + back_left), right + half * (centre + back_right)])
    if name == "a.ac3":
        assert delay(copy, expected) in (0, 256)
    else:
        torch.testing.assert_close(copy, expected, atol=1e-3, rtol=0)
    assert len(remarks) == 1 and "mixed down" in remarks[0]
    assert probe(tmp_path / name).channels == 2


@pytest.mark.parametrize("name", ["a.wav", "a.mka"])
def test_7_1_sound_is_mixed_down_with_ffmpegs_coefficients(tmp_path, name):
    channels = torch.stack([noise(1, 1, seed)[0] for seed in range(8)]) / 4
    left, right, centre, _, back_left, back_right, side_left, side_right = channels
    soundfile.write(tmp_path / "eight.wav", channels.T.numpy(), RATE, "FLOAT")
    ffmpeg("-channel_layout", "7.1", "-i", tmp_path / "eight.wav", "-sample_fmt", "s32" if name == "a.mka" else "flt",
           "-c:a", "flac" if name == "a.mka" else "pcm_f32le", tmp_path / name)  # fmt: skip
    copy, remarks = decode(tmp_path / name)
    half = 0.5**0.5
    expected = torch.stack(
        [left + half * (centre + back_left + side_left), right + half * (centre + back_right + side_right)]
    )
    torch.testing.assert_close(copy, expected, atol=1e-3, rtol=0)
    assert len(remarks) == 1 and "7.1" in remarks[0]


def test_alac_in_caf_is_read_to_its_end(tmp_path):
    """FFmpeg 8.1 (PyAV 18.1) cuts the padding of the last frame off twice: 31 ms were missing here."""
    samples = 4096 * 20 + 2729
    song = (noise(3)[:, :samples] * 32767).round().to(torch.int16)
    with av.open(tmp_path / "a.caf", "w") as container:
        stream = container.add_stream("alac", rate=RATE, layout="stereo", format="s16p")
        for start in range(0, samples, 4096):
            block = np.ascontiguousarray(song[:, start : start + 4096].numpy())
            frame = av.AudioFrame.from_ndarray(block, "s16p", "stereo")
            frame.sample_rate, frame.pts = RATE, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    torch.testing.assert_close(decode(tmp_path / "a.caf")[0], song / 32768, atol=1e-6, rtol=0)


@pytest.mark.parametrize("codec", ["aac", "flac"])
def test_an_encrypted_file_is_called_encrypted(tmp_path, codec):
    key = ("-encryption_scheme", "cenc-aes-ctr", "-encryption_key", "0" * 32, "-encryption_kid", "1" * 32)
    encode(tmp_path / "a.m4a", noise(1), "-c:a", codec, "-strict", "-2", *key, "-f", "mp4")
    with refused("encrypted"):
        decode(tmp_path / "a.m4a")


def test_an_mp3_cut_out_of_a_longer_one_is_read_with_a_remark(tmp_path):
    """Its Xing header still states the length of the whole."""
    song = noise(6)
    content = encode(tmp_path / "a.mp3", song, "-b:a", "128k").read_bytes()
    (tmp_path / "a.mp3").write_bytes(content[: len(content) // 2])
    copy, remarks = decode(tmp_path / "a.mp3")
    assert abs(copy.shape[1] - 3 * RATE) < 0.2 * RATE and delay(copy, song) == 0
    assert len(remarks) == 1 and "its header says 6.0 s" in remarks[0]


def test_a_matroska_file_that_was_cut_says_so(tmp_path):
    content = encode(tmp_path / "a.mka", noise(6), "-c:a", "flac").read_bytes()
    (tmp_path / "a.mka").write_bytes(content[: len(content) // 2])
    copy, remarks = decode(tmp_path / "a.mka")
    assert 2 * RATE < copy.shape[1] < 4 * RATE
    assert "its header says 6.0 s" in remarks[-1]


def test_an_mp4_that_was_cut_is_refused(tmp_path):
    content = encode(tmp_path / "a.m4a", noise(6), "-movflags", "+faststart").read_bytes()
    (tmp_path / "a.m4a").write_bytes(content[: len(content) // 2])
    with refused("cut_short"):
        decode(tmp_path / "a.m4a")
