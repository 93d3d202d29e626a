from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import refused
from sounds import decoded_by_ffmpeg, delay, ffmpeg, read
from torch import Tensor

from separation.audio.containers import add_user_data, boxes
from separation.audio.io import AudioReader, AudioWriter, probe, write


def make_song(samples: int = 44100, channels: int = 2) -> Tensor:
    """Noise under a slow swell, so that no delay goes unnoticed."""
    noise = torch.randn(channels, samples, generator=torch.Generator().manual_seed(0))
    return 0.2 * noise * torch.sin(torch.linspace(0, 3.1, samples))


@pytest.fixture
def encoded(tmp_path):
    """Encode a song with FFmpeg: `encoded("song.m4a", song, *options)`."""

    def encode(name: str, song: Tensor, *options: str) -> Path:
        write(tmp_path / "plain.wav", song, 44100, bits="32f")
        ffmpeg("-i", tmp_path / "plain.wav", *options, tmp_path / name)
        return tmp_path / name

    return encode


@pytest.mark.parametrize(("bits", "step"), [("16", 2**-15), ("24", 2**-23)])
@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.m4a"])
@pytest.mark.parametrize("channels", [1, 2])
def test_round_trip_is_exact_to_half_a_step(tmp_path, name, bits, step, channels):
    song = make_song(channels=channels)
    write(tmp_path / name, song, 48000, bits)
    copy, rate = read(tmp_path / name)
    assert rate == 48000
    torch.testing.assert_close(copy, song, atol=0.5001 * step, rtol=0)
    write(tmp_path / "again.wav", copy, 48000, bits)
    assert torch.equal(read(tmp_path / "again.wav")[0], copy)


@pytest.mark.parametrize("rate", [44100, 22000])  # the second is resampled by some formats
@pytest.mark.parametrize("kind", [np.float16, np.float64, np.int16, np.int32])
@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.m4a", "a.mka"])
def test_arrays_of_any_kind_are_written_at_their_level(tmp_path, name, kind, rate):
    song = make_song().numpy()
    full_scale = 1 if np.dtype(kind).kind == "f" else np.iinfo(kind).max
    write(tmp_path / f"kind-{name}", (song * full_scale).astype(kind), rate)
    write(tmp_path / name, song, rate)
    (copy, _), (expected, _) = (read(tmp_path / path) for path in (f"kind-{name}", name))
    assert copy.shape == expected.shape and float(copy.std() / expected.std()) == pytest.approx(1, abs=0.01)


def test_unsigned_samples_have_their_silence_in_the_middle(tmp_path):
    write(tmp_path / "a.wav", np.array([[128, 0, 192]], np.uint8), 44100)
    assert read(tmp_path / "a.wav")[0].tolist() == [[0, -1, 0.5]]


@pytest.mark.parametrize("kind", [bool, np.int64, np.complex64])
def test_samples_without_a_full_scale_are_refused_and_leave_nothing(tmp_path, kind):
    with refused("invalid_input"):
        write(tmp_path / "a.wav", np.ones((1, 1000), kind), 44100)
    assert not list(tmp_path.iterdir())


def test_tensors_of_any_kind_are_written(tmp_path):
    song = make_song().requires_grad_()
    for kind in (torch.float64, torch.float32, torch.bfloat16):
        write(tmp_path / "a.wav", song.to(kind), 44100, "32f")
        assert torch.equal(read(tmp_path / "a.wav")[0], song.to(kind).float())


def test_samples_finer_than_float32_are_rounded_to_24_bits_once(tmp_path):
    steps = np.random.default_rng(0).integers(-(2**31), 2**31 - 2**8, (1, 10_000), np.int32)
    song = steps / 2**31
    for given in (steps, song, torch.from_numpy(song)):
        write(tmp_path / "a.wav", given, 44100, "24")
        assert np.abs(read(tmp_path / "a.wav")[0].numpy() - song).max() <= 0.5 * 2**-23


def test_mono_may_have_one_axis_and_what_is_no_song_is_refused(tmp_path):
    song = make_song(1000, 1)
    write(tmp_path / "a.wav", song[0], 44100, "32f")
    assert torch.equal(read(tmp_path / "a.wav")[0], song)
    for code, wrong, rate in (
        ("invalid_input", song[None], 44100),
        ("invalid_input", 0.5, 44100),
        ("not_finite", song / 0, 44100),
        ("format", song, 0),
    ):
        for name in ("b.wav", "b.ogg", "b.mp3"):
            with refused(code):
                write(tmp_path / name, wrong, rate)
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_floating_point_keeps_every_sample_even_beyond_full_scale(tmp_path):
    song = 9 * make_song()
    write(tmp_path / "a.wav", song, 44100, "32f")
    assert torch.equal(read(tmp_path / "a.wav")[0], song)


def test_whole_numbers_are_cut_off_at_full_scale_and_never_wrap(tmp_path):
    write(tmp_path / "a.wav", torch.tensor([[1.0, 1.5, -1.0, -1.5]]), 44100)
    assert read(tmp_path / "a.wav")[0].tolist() == [[1 - 2**-15, 1 - 2**-15, -1, -1]]


@pytest.mark.parametrize("name", ["a.ogg", "a.mp3", "a.m4a"])
@pytest.mark.parametrize(("channels", "rate"), [(1, 44100), (2, 44100), (2, 48000), (2, 22050), (1, 8000)])
def test_lossy_files_have_the_songs_length_and_no_delay(tmp_path, name, channels, rate):
    song = make_song(50001, channels)
    write(tmp_path / name, song, rate)
    copy, found = read(tmp_path / name)
    assert found == rate and copy.shape[0] == channels
    assert probe(tmp_path / name).samples == 50001
    # Decoders play the last frame of aac to its end.
    assert copy.shape[1] == 50001 or (name == "a.m4a" and 50001 < copy.shape[1] < 50001 + 1024)
    assert delay(copy[:, :50001], song) == 0


def test_a_long_ogg_is_written(tmp_path):
    song = make_song(44100 * 40)
    write(tmp_path / "a.ogg", song, 44100)
    assert read(tmp_path / "a.ogg")[0].shape == song.shape


@pytest.mark.parametrize("name", ["a.m4a", "a.mp3", "a.aac", "a.opus", "a.wma", "a.mka"])
def test_decodes_as_ffmpeg_does(encoded, name):
    path = encoded(name, make_song(50001))
    song, reference = read(path)[0], decoded_by_ffmpeg(path)
    assert song.shape == reference.shape
    assert (song - reference).square().mean() < 1e-6 * reference.square().mean()


def test_an_m4a_has_no_delay(encoded):
    song = make_song(50001)
    assert delay(read(encoded("a.m4a", song))[0], song) == 0


def test_streams_of_a_stem_file_are_chosen_by_number(tmp_path):
    songs = [make_song(30000), make_song(30000).flip(0).neg()]
    for number, song in enumerate(songs):
        write(tmp_path / f"{number}.wav", song, 44100)
    path = tmp_path / "a.stem.mp4"
    ffmpeg("-i", tmp_path / "0.wav", "-i", tmp_path / "1.wav", "-map", "0", "-map", "1", path)
    for number, song in enumerate(songs):
        copy, _ = read(path, track=number)
        assert delay(copy, song) == 0
        torch.testing.assert_close(copy, decoded_by_ffmpeg(path, number), atol=1e-4, rtol=0)
    with refused("no_track"):
        read(path, track=2)


def test_an_mp3_that_does_not_say_its_length_is_read_to_its_end(encoded):
    # Seconds of silence in front make every guess from the bit rate of the start wrong.
    song = torch.cat([torch.zeros(2, 44100 * 3), make_song(44100 * 3)], dim=-1)
    path = encoded("a.mp3", song, "-q:a", "2", "-write_xing", "0")
    assert abs(read(path)[0].shape[-1] - song.shape[-1]) < 4000
    loud = torch.cat([make_song(44100 * 3), torch.zeros(2, 44100 * 3)], dim=-1)
    assert read(encoded("b.mp3", loud, "-q:a", "2", "-write_xing", "0"))[0].shape[-1] > loud.shape[-1] - 4000


def test_padding_after_the_end_of_an_mp3_is_no_damage(encoded):
    song = make_song(200_000)
    path = encoded("a.mp3", song)
    path.write_bytes(path.read_bytes() + bytes(1000))
    assert read(path)[0].shape == song.shape


def test_a_flac_and_a_wav_that_were_written_into_a_pipe_are_read(tmp_path):
    song = make_song(30000)
    write(tmp_path / "a.wav", song, 44100)
    for name in ("pipe.flac", "pipe.wav"):
        (tmp_path / name).write_bytes(ffmpeg("-i", tmp_path / "a.wav", "-f", name[5:], "-"))
        assert torch.equal(read(tmp_path / name)[0], read(tmp_path / "a.wav")[0])


def test_the_suffix_does_not_decide_what_a_file_is(encoded, tmp_path):
    song = make_song(30000)
    path = encoded("a.mp3", song).rename(tmp_path / "a.wav")
    assert read(path)[0].shape == song.shape


def test_reading_resamples(tmp_path):
    time = torch.arange(48000) / 48000
    write(tmp_path / "a.wav", torch.sin(2 * torch.pi * 440 * time)[None], 48000, "32f")
    song, rate = read(tmp_path / "a.wav", 44100)
    assert (rate, song.shape) == (44100, (1, 44100))
    expected = torch.sin(2 * torch.pi * 440 * torch.arange(44100) / 44100)[None]
    torch.testing.assert_close(song[:, 2000:-2000], expected[:, 2000:-2000], atol=1e-3, rtol=0)


def test_probe_tells_rate_channels_and_length(tmp_path, encoded):
    write(tmp_path / "a.wav", make_song(12345, channels=1), 22050)
    info = probe(tmp_path / "a.wav")
    assert (info.sample_rate, info.channels, info.samples) == (22050, 1, 12345)
    info = probe(encoded("a.m4a", make_song(30000)))
    assert (info.sample_rate, info.channels) == (44100, 2)
    assert abs(info.samples - 30000) < 100


def test_blocks_are_bounded_and_join_to_the_whole(tmp_path, encoded):
    song = make_song(200_000)
    write(tmp_path / "a.flac", song, 44100)
    for path in (tmp_path / "a.flac", encoded("a.m4a", song)):
        with AudioReader(path) as reader:
            blocks = list(reader)
        assert len(blocks) > 1 and all(block.shape[-1] <= 100_000 for block in blocks)
        assert np.array_equal(np.concatenate(blocks, axis=-1), read(path)[0].numpy())


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "m4a"])
def test_tags_are_kept_and_names_may_be_non_ascii(tmp_path, suffix):
    path = tmp_path / f"Füße 歌.{suffix}"
    title = "Ein Tïtel 歌"
    with AudioWriter(path, 44100, 1, tags={"title": title, "artist": "Someone", "comment": ""}) as writer:
        writer.write(make_song(channels=1))
    with AudioReader(path) as reader:
        assert (reader.tags["title"], reader.tags["artist"]) == (title, "Someone")
        assert next(iter(reader)).shape[0] == 1


def damaged_files(folder: Path) -> dict[str, str]:
    """Files that cannot be read, and the code of the error of each."""
    song = make_song(100_000)
    for name in ("cut.wav", "cut.flac", "cut.mp3"):
        write(folder / name, song, 44100)
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
    song[1, 70_000] = float("nan")
    soundfile.write(folder / "nan.wav", song.T.numpy(), 44100, "FLOAT")
    song[1, 70_000] = float("inf")
    soundfile.write(folder / "infinite.wav", song.T.numpy(), 44100, "FLOAT")
    write(folder / "silent.wav", song[:, :0], 44100)
    (folder / "empty.wav").touch()
    (folder / "text.mp3").write_text("this is no music\n" * 100)
    (folder / "noise.m4a").write_bytes(bytes(range(256)) * 50)
    (folder / "folder.wav").mkdir()
    return {
        "cut.wav": "cut_short",
        "cut.flac": "cut_short",
        "nan.wav": "not_finite",
        "infinite.wav": "not_finite",
        "silent.wav": "no_samples",
        "empty.wav": "empty",
        "text.mp3": "no_audio",
        "noise.m4a": "no_audio",
        "folder.wav": "not_a_file",
        "missing.wav": "not_found",
    }


def test_what_cannot_be_read_is_named_in_one_sentence(tmp_path):
    for name, complaint in damaged_files(tmp_path).items():
        with refused(complaint) as caught:
            read(tmp_path / name)
        assert name in str(caught.value)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_interrupted_file_leaves_the_old_one_or_none(tmp_path, error):
    def interrupted(path: Path) -> None:
        with pytest.raises(error), AudioWriter(path, 44100, 2) as writer:
            writer.write(make_song())
            raise error

    interrupted(tmp_path / "new.wav")
    assert not list(tmp_path.iterdir())
    write(tmp_path / "old.wav", make_song(100), 44100)
    interrupted(tmp_path / "old.wav")
    assert [path.name for path in tmp_path.iterdir()] == ["old.wav"]
    assert probe(tmp_path / "old.wav").samples == 100


def test_what_cannot_be_written_is_named_in_one_sentence(tmp_path):
    song = make_song(1000)
    (tmp_path / "file").touch()
    (tmp_path / "folder.wav").mkdir()
    cases = [
        ("file/a.wav", 44100, None, "not_a_folder"),
        ("folder.wav", 44100, None, "is_a_folder"),
        ("a.xyz", 44100, None, "unknown_format"),
        ("a.ogg", 44100, "16", "unknown_bits"),
        ("a.flac", 44100, "32f", "unknown_bits"),
    ]
    for name, rate, bits, complaint in cases:
        with refused(complaint):
            write(tmp_path / name, song, rate, bits)
    with refused("format"):
        write(tmp_path / "a.mp3", make_song(1000, 3), 44100)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.wav"]


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path):
    pytest.importorskip("resource")
    code = f"""
import resource, torch
from separation.audio.io import write
from separation.errors import UserError
for limit in (50_000, 0):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    for suffix in ("wav", "flac", "ogg", "mp3", "m4a"):
        try:
            write({str(tmp_path / "a")!r} + "." + suffix, torch.rand(2, 44100 * 10) - 0.5, 44100)
        except UserError as error:
            print(error.code)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    codes = result.stdout.split()  # libsndfile, which writes wav and ogg, does not tell the system's number
    assert codes == 2 * ["disk_full", "file_too_large", "disk_full", "file_too_large", "file_too_large"]
    assert not list(tmp_path.iterdir())


def test_another_error_of_a_library_is_not_called_a_full_disk(tmp_path):
    with refused("cannot_write") as caught, AudioWriter(tmp_path / "a.mka", 44100, 2) as writer:
        writer.write(make_song())
        writer._encoder.written = [0]  # FFmpeg takes no packet of an earlier time
        writer.write(make_song())
    assert "disk" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_file_beyond_4_gb_is_not_a_plain_wav(tmp_path):
    with AudioWriter(tmp_path / "a.wav", 44100, 2, samples=1 << 31, bits="32f") as writer:
        writer.write(make_song())
    assert soundfile.info(tmp_path / "a.wav").format == "RF64"
    assert torch.equal(read(tmp_path / "a.wav")[0], make_song())


def test_real_stems_add_up_to_their_mixture(real_musdb):
    path = sorted((real_musdb / "train").glob("*.stem.mp4"))[0]
    mixture, *stems = (read(path, track=stream)[0] for stream in range(5))
    # The mixture is coded separately; a delay of any stream would leave far more than this.
    assert (mixture - sum(stems)).square().mean() < 0.01 * mixture.square().mean()


def test_mp3_stems_have_one_bit_rate_so_that_a_place_in_the_file_is_a_moment(tmp_path):
    """Browsers jump in an mp3 by the place in the file: stems of other bit rates would come out of step there."""
    silence, loud = torch.zeros(2, 44100 * 4), 0.3 * torch.randn(2, 44100 * 4)
    for name, waveform in (("silence", silence), ("loud", loud)):
        write(tmp_path / f"{name}.mp3", waveform, 44100)
    sizes = [(tmp_path / f"{name}.mp3").stat().st_size for name in ("silence", "loud")]
    assert sizes[0] == sizes[1]
    assert sizes[0] == pytest.approx(4 * 320_000 / 8, rel=0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="names are text there")
def test_a_name_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.flac")
    path.write_bytes(b"anything")
    with refused("name"):
        probe(path)


def test_user_data_and_several_streams_go_into_an_m4a(tmp_path):
    """As FFmpeg, which does not know the box, reads the file: the streams and the tags are as they would be without."""
    songs = [make_song(30001), make_song(30001).flip(0).neg()]
    for name, user_data in (("plain", None), ("boxed", {b"stem": b"{}", b"abcd": bytes(100_000)})):
        tags = {"title": "Füße"} if name == "boxed" else None
        path = tmp_path / f"{name}.m4a"
        with AudioWriter(path, 48000, 2, bits="16", tags=tags, names=["", ""], user_data=user_data) as writer:
            writer.write(*songs)
        for stream, song in enumerate(songs):
            copy, rate = read(path, track=stream)
            assert rate == 48000
            torch.testing.assert_close(copy, song, atol=0.5001 * 2**-15, rtol=0)
    with AudioReader(tmp_path / "boxed.m4a") as reader:
        assert reader.tags["title"] == "Füße"
    with (tmp_path / "boxed.m4a").open("rb") as file:
        found = {name: (begin, end) for name, begin, end in boxes(file, 0, file.seek(0, 2))}
        assert list(found)[-1] == b"moov"
        user_data = {name: (begin, end) for name, begin, end in boxes(file, *found[b"moov"])}[b"udta"]
        inside = {name: file.seek(begin) and file.read(end - begin) for name, begin, end in boxes(file, *user_data)}
    assert inside[b"stem"] == b"{}" and inside[b"abcd"] == bytes(100_000) and b"meta" in inside


def test_user_data_needs_the_index_at_the_end(encoded):
    path = encoded("a.m4a", make_song(), "-movflags", "+faststart")
    with pytest.raises(ValueError, match="mdat"):
        add_user_data(path, b"stem", b"{}")
