"""Files that any player plays although something about them is odd, and those that nobody can play."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch
from conftest import refused
from torch import Tensor

from separation.audio.containers import ogg_chain
from separation.audio.io import AudioReader, AudioWriter
from separation.errors import UserError

RATE = 44100


def tone(seconds: float = 2.0, channels: int = 2, rate: int = RATE, pitch: float = 440.0) -> Tensor:
    wave = 0.3 * torch.sin(2 * torch.pi * pitch * torch.arange(int(seconds * rate)) / rate)
    return wave.expand(channels, -1).contiguous()


def encode(path: Path, waveform: Tensor, rate: int = RATE) -> bytes:
    with AudioWriter(path, rate, *waveform.shape) as writer:
        writer.write(waveform)
    return path.read_bytes()


@pytest.mark.parametrize(("channels", "lfe"), [(3, 3), (4, 0), (5, 0), (6, 4), (8, 4)])
def test_a_channel_that_is_left_out_of_the_downmix_is_named(tmp_path, channels, lfe):
    for channel in range(1, channels + 1):
        waveform = torch.zeros(channels, RATE)
        waveform[channel - 1] = 0.5
        encode(tmp_path / "song.wav", waveform)
        mixed, (remark,) = decode(tmp_path / "song.wav")
        assert bool(mixed.any()) != (channel == lfe)
        assert ("LFE" in remark) == (lfe > 0) and (not lfe or f"channel {lfe}," in remark)


def test_channels_that_cannot_be_mixed_down_are_one_sentence(tmp_path):
    encode(tmp_path / "song.wav", torch.zeros(9, RATE))
    with refused("channels"):
        decode(tmp_path / "song.wav")


def decode(path: Path) -> tuple[Tensor, list[str]]:
    with AudioReader(path) as reader:
        waveform = torch.from_numpy(np.concatenate(list(reader), axis=-1))
        return waveform, reader.remarks


def sounds_all_along(waveform: Tensor, seconds: float, rate: int = RATE) -> bool:
    """Whether there is a tone in every tenth of a second, for that long."""
    pieces = waveform.unfold(-1, rate // 10, rate // 10)[..., 1:-1, :]
    return bool((pieces.square().mean(-1) > 0.002).all()) and abs(waveform.shape[-1] / rate - seconds) < 0.2


@pytest.mark.parametrize("suffix", ["mp3", "ogg", "aac"])
@pytest.mark.parametrize("second", [(1, RATE), (2, RATE), (2, 22050), (1, 48000)])
def test_files_that_were_joined_are_heard_to_their_end(tmp_path, suffix, second):
    """The second half may have other channels and another rate: it is made like the first."""
    channels, rate = second
    kind = "m4a" if suffix == "aac" else suffix
    halves = [encode(tmp_path / f"1.{kind}", tone()), encode(tmp_path / f"2.{kind}", tone(2, channels, rate), rate)]
    if suffix == "aac":
        halves = [adts(tmp_path / f"{number}.m4a") for number in (1, 2)]
    joined = tmp_path / f"joined.{suffix}"
    joined.write_bytes(b"".join(halves))
    waveform, _ = decode(joined)
    assert len(waveform) == 2
    assert sounds_all_along(waveform, 4)


def adts(path: Path) -> bytes:
    """The packets of an m4a as a stream without a container."""
    import av

    target = path.with_suffix(".adts")
    with av.open(path) as source, av.open(target, "w", format="adts") as stream:
        audio = stream.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(audio=0):
            if packet.dts is not None:
                packet.stream = audio
                stream.mux(packet)
    return target.read_bytes()


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_a_wav_whose_recorder_died_is_read_to_its_end(tmp_path, size):
    path = tmp_path / "a.wav"
    content = bytearray(encode(path, tone()))
    data = content.find(b"data")
    content[4:8] = content[data + 4 : data + 8] = struct.pack("<I", size)
    path.write_bytes(content)
    assert decode(path)[0].shape == (2, 2 * RATE)


def test_a_wav_with_a_chunk_of_odd_size_and_no_byte_after_it(tmp_path):
    path = tmp_path / "a.wav"
    content = encode(path, tone())
    path.write_bytes(content[:12] + b"LIST" + struct.pack("<I", 5) + b"abcde" + content[12:])
    encode(tmp_path / "plain.wav", tone())
    expected = torch.from_numpy(soundfile.read(tmp_path / "plain.wav", dtype="float32")[0]).T
    assert torch.equal(decode(path)[0], expected)


def test_a_wav_that_ends_in_its_header_is_no_audio(tmp_path):
    path = tmp_path / "a.wav"
    content = encode(path, tone())
    path.write_bytes(content[: content.find(b"data") + 6])
    with refused("no_audio"):
        decode(path)


def test_a_sound_wav_is_not_repaired(tmp_path, monkeypatch):
    encode(tmp_path / "a.wav", tone())
    monkeypatch.setattr("separation.audio.decoders.repaired_wav", lambda path: pytest.fail("it is read once more"))
    assert decode(tmp_path / "a.wav")[0].shape == (2, 2 * RATE)


def test_tags_in_latin_1_are_no_reason_to_refuse(tmp_path):
    path = tmp_path / "a.mp3"
    tag = b"TAG" + "Café".encode("latin-1").ljust(124, b"\0") + b"\x0c"
    path.write_bytes(encode(path, tone()) + tag)
    assert sounds_all_along(decode(path)[0], 2)


@pytest.mark.parametrize("junk", [b"\0" * 5000, b"LYRICSBEGIN" + b"la " * 900 + b"LYRICS200", os.urandom(700)])
def test_bytes_after_the_end_of_an_mp3_are_passed_over(tmp_path, junk):
    path = tmp_path / "a.mp3"
    content = encode(path, tone())
    start = content.find(b"\xff\xfb")
    path.write_bytes(content[start:] + junk)
    assert sounds_all_along(decode(path)[0][:, : 2 * RATE], 2)


def test_a_damaged_frame_is_silent_and_what_follows_is_in_its_place(tmp_path):
    path = tmp_path / "a.mp3"
    content = bytearray(encode(path, torch.cat([tone(3), tone(3, pitch=880)], dim=-1)))
    middle = len(content) // 4
    content[middle : middle + 1500] = bytes(1500)
    path.write_bytes(content)
    waveform, remarks = decode(path)
    assert abs(waveform.shape[-1] - 6 * RATE) < 3000
    late = waveform[0, 4 * RATE : 5 * RATE]
    assert int(torch.fft.rfft(late).abs().argmax()) == 880
    assert remarks and "damaged" in remarks[0]


@pytest.mark.skipif(int(av.__version__.split(".")[0]) < 18, reason="older FFmpegs give up")
def test_a_damaged_flac_plays_on(tmp_path):
    path = tmp_path / "a.flac"
    content = bytearray(encode(path, tone(6) + 0.05 * torch.randn(2, 6 * RATE)))
    middle = len(content) // 2
    content[middle : middle + 40] = bytes(range(40))
    path.write_bytes(content)
    waveform, _ = decode(path)
    assert abs(waveform.shape[-1] - 6 * RATE) < 5000


def test_an_ogg_that_was_cut_is_refused(tmp_path):
    path = tmp_path / "a.ogg"
    content = encode(path, tone(20) + 0.1 * torch.randn(2, 20 * RATE))
    for share in (0.3, 0.6, 0.95):
        path.write_bytes(content[: int(len(content) * share)])
        with refused("cut_short"):
            decode(path)
    path.write_bytes(content)
    assert len(ogg_chain(path).links) == 1 and decode(path)[0].shape[-1] == 20 * RATE


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("codec.wav", lambda wav: wav[:20] + b"\x34\x12" + wav[22:]),
        ("channels.wav", lambda wav: wav[:22] + b"\xff\xff" + wav[24:]),
        ("rate.wav", lambda wav: wav[:24] + b"\0\0\0\0" + wav[28:]),
        ("noise.mp3", lambda wav: np.random.default_rng(0).bytes(50_000)),
        ("header.ogg", lambda wav: b"OggS" + bytes(200)),
        ("header.flac", lambda wav: b"fLaC" + b"\xff" * 200),
    ],
)
def test_what_nobody_can_play_is_one_sentence(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content(encode(tmp_path / "a.wav", tone())))
    with pytest.raises(UserError, match=name) as error:
        decode(path)
    assert str(error.value).count("\n") == 0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    with refused("not_a_file"):
        decode(tmp_path / "pipe.wav")


@pytest.mark.skipif(os.name != "posix", reason="links need rights elsewhere")
def test_a_link_that_leads_to_itself_is_refused(tmp_path):
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    with refused("not_readable"):
        decode(tmp_path / "loop.wav")
