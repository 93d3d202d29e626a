from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import refused
from music import cover_art
from networks import BandSplit, random_network
from sounds import read
from torch import Tensor

from separation.audio.formats import AudioFile
from separation.audio.io import AudioReader, AudioWriter, probe, write
from separation.audio.resample import resample
from separation.audio.tags import read_cover
from separation.errors import UserError
from separation.inference.separator import Separator
from separation.songs.outputs import StemFormat
from separation.songs.render import render, round_together
from separation.stems import STEMS


def in_folder(folder: Path, stems: Iterable[str] = ("vocals", "accompaniment"), format: str = "wav") -> dict[str, Path]:
    return {stem: folder / f"{stem}.{format}" for stem in stems}


def noise(samples: int, channels: int = 2, level: float = 0.2) -> Tensor:
    return level * torch.randn(channels, samples, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def separate(tmp_path):
    """Write a song, separate it into a folder, and give the report and the stems that are found there."""

    def run(song: Tensor, form: StemFormat, separator: Separator | None = None, sample_rate: int = 44100):
        write(tmp_path / "song.wav", song, sample_rate, "32f")
        separator = separator or Separator(BandSplit(2000))
        files = in_folder(tmp_path / "stems", separator.stems, form.format)
        report = render(separator, AudioFile(tmp_path / "song.wav"), files, form)
        assert set((tmp_path / "stems").iterdir()) == set(files.values())
        assert all(probe(path).sample_rate == sample_rate for path in files.values())
        return report, {stem: read(path)[0] for stem, path in files.items()}

    return run


@pytest.mark.parametrize("sample_rate", [44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_stems_of_16_bits_sum_to_a_song_of_16_bits_exactly(separate, sample_rate, channels):
    song = (noise(50001, channels, 0.1).clamp(-0.4, 0.4) * 2**15).round() / 2**15
    _, stems = separate(song, StemFormat(), Separator(random_network(STEMS)), sample_rate)
    assert len(stems) == 4
    assert torch.equal(sum(stems.values()), song)


@pytest.mark.parametrize(
    ("form", "step"),
    [(StemFormat("flac", "24"), 2**-23), (StemFormat("wav", "16"), 2**-15), (StemFormat("wav", "32f"), 0)],
)
def test_stems_sum_to_any_song_within_one_step(separate, form, step):
    song = noise(50001, level=0.1)
    _, stems = separate(song, form, Separator(random_network(STEMS)))
    torch.testing.assert_close(sum(stems.values()), song, atol=step + 3e-7, rtol=0)


@pytest.mark.parametrize("format", ["ogg", "mp3"])
def test_lossy_stems_have_the_songs_length(separate, format):
    _, stems = separate(noise(50001), StemFormat(format))
    assert all(stem.shape == (2, 50001) for stem in stems.values())


@pytest.mark.parametrize(
    ("format", "rate", "held"),
    [("mp3", 96_000, 48_000), ("mp3", 88_200, 44_100), ("m4a", 192_000, 96_000), ("ogg", 352_800, 176_400)],
)
def test_stems_at_a_rate_that_the_format_does_not_hold_sum_to_the_resampled_song(tmp_path, format, rate, held):
    song = resample(noise(12_501).numpy(), 11_025, rate)
    write(tmp_path / "song.wav", song, rate, "32f")
    paths = in_folder(tmp_path, format=format)
    report = render(Separator(BandSplit(2000)), AudioFile(tmp_path / "song.wav"), paths, StemFormat(format))
    stems = [read(path) for path in paths.values()]
    assert {found for _, found in stems} == {held} and any(str(held) in remark for remark in report.remarks)
    wanted = torch.from_numpy(resample(song, rate, held))
    samples = wanted.shape[1]
    assert all(0 <= stem.shape[1] - samples <= 1024 * (format == "m4a") for stem, _ in stems)  # aac comes in frames
    error = sum(stem[:, :samples] for stem, _ in stems) - wanted
    assert error.square().mean() < 0.1 * wanted.square().mean()


def test_rounding_together_rounds_the_sum_once():
    stems = {name: noise(10000).numpy() for name in STEMS}
    rounded = round_together(stems, 128)
    assert all(np.array_equal((stem * 128).round(), stem * 128) for stem in rounded.values())
    assert abs(sum(rounded.values()) - sum(stem.astype(float) for stem in stems.values())).max() <= 0.5001 / 128


def test_stems_of_16_bits_sum_to_the_very_song():
    random = np.random.default_rng(0)
    song = (random.integers(-(1 << 15), 1 << 15, (2, 50_000)) / (1 << 15)).astype(np.float32)
    stems = {stem: song * random.random(song.shape, np.float32) / 4 for stem in STEMS[1:]}
    stems[STEMS[0]] = song - sum(stems.values())
    assert np.array_equal(sum(round_together(stems, 1 << 15).values()), song)


def loud_song() -> Tensor:
    time = torch.arange(44100) / 44100
    return torch.stack([1.6 * torch.sin(2 * torch.pi * 440 * time), 0.5 * torch.sin(2 * torch.pi * 6000 * time)])


def test_clipping_is_cut_off_and_counted(separate):
    report, stems = separate(loud_song(), StemFormat())
    assert stems["accompaniment"].abs().max() <= 1
    assert 10_000 < report.stems["accompaniment"].beyond < 44_100 and report.stems["vocals"].beyond == 0
    assert report.gain == 1


def test_rescaling_makes_all_stems_quieter_alike(separate):
    song = loud_song()
    report, stems = separate(song, StemFormat(clip="rescale"))
    assert report.gain == pytest.approx(1 / 1.6, rel=0.05)
    torch.testing.assert_close(sum(stems.values()), report.gain * song, atol=2**-14, rtol=0)
    assert stems["accompaniment"].abs().max() == pytest.approx(1, abs=2**-14)


def test_rescaling_leaves_a_song_that_does_not_clip(separate):
    plain = separate(noise(30000), StemFormat(clip="clamp"))[1]
    report, stems = separate(noise(30000), StemFormat(clip="rescale"))
    assert report.gain == 1
    assert all(torch.equal(stems[stem], plain[stem]) for stem in plain)


def test_floating_point_leaves_what_is_beyond_full_scale(separate):
    report, stems = separate(loud_song(), StemFormat("wav", "32f"))
    torch.testing.assert_close(sum(stems.values()), loud_song(), atol=1e-6, rtol=0)
    assert report.stems["accompaniment"].beyond > 10_000
    assert separate(loud_song(), StemFormat("wav", "32f", "clamp"))[1]["accompaniment"].abs().max() == 1


def test_whole_numbers_cannot_go_beyond_full_scale():
    with pytest.raises(UserError, match="--clip none"):
        StemFormat("wav", "24", "none")


def test_the_report_tells_length_and_levels(separate):
    time = torch.arange(48000) / 48000
    report, _ = separate(0.1 * torch.sin(2 * torch.pi * 500 * time)[None], StemFormat(), sample_rate=48000)
    assert report.seconds == 1
    assert report.stems["accompaniment"].level == pytest.approx(20 * math.log10(0.1 / math.sqrt(2)), abs=0.1)
    assert report.stems["vocals"].level < -50
    assert separate(torch.zeros(1, 48000), StemFormat())[0].stems["vocals"].level == -math.inf


def test_progress_is_told_up_to_the_end(tmp_path):
    write(tmp_path / "song.wav", noise(300_000), 44100)
    told = []
    separator = Separator(BandSplit(2000), chunk_frames=64)
    paths = in_folder(tmp_path)
    render(separator, AudioFile(tmp_path / "song.wav"), paths, StemFormat(), lambda *numbers: told.append(numbers))
    assert len(told) > 5 and told == sorted(told)
    assert told[-1] == (300_000, 300_000)


@pytest.mark.parametrize("source", ["mp3", "flac", "m4a"])
@pytest.mark.parametrize("format", ["mp3", "flac", "m4a"])
def test_tags_and_cover_are_carried_over(tmp_path, source, format):
    path, tags = tmp_path / f"song.{source}", {"title": "Hören 歌", "artist": "Ä", "tracknumber": "5"}
    cover = cover_art("PNG" if source == "flac" else "JPEG")
    with AudioWriter(path, 44100, 2, tags=tags, cover=cover) as writer:
        writer.write(noise(50_000))
    render(Separator(BandSplit(2000)), AudioFile(path), in_folder(tmp_path, format=format), StemFormat(format))
    for stem in ("vocals", "accompaniment"):
        with AudioReader(tmp_path / f"{stem}.{format}") as reader:
            assert reader.info.samples == pytest.approx(50_000, abs=1023)  # aac comes in frames
            found = {tag: reader.tags[tag] for tag in tags}
        assert found == tags | {"title": f"Hören 歌 ({stem})"}
        assert read_cover(tmp_path / f"{stem}.{format}") == cover


def test_a_song_without_a_title_goes_by_its_name_and_a_damaged_cover_is_left_out(tmp_path):
    with AudioWriter(tmp_path / "song.mp3", 44100, 2, cover=cover_art()) as writer:
        writer.write(noise(50_000))
    content = (tmp_path / "song.mp3").read_bytes()
    begin = content.index(b"\xff\xd8")
    (tmp_path / "song.mp3").write_bytes(content[:begin] + bytes(200) + content[begin + 200 :])
    paths = in_folder(tmp_path, format="mp3")
    render(Separator(BandSplit(2000)), AudioFile(tmp_path / "song.mp3"), paths, StemFormat("mp3"))
    with AudioReader(paths["vocals"]) as reader:
        assert reader.tags["title"] == "song (vocals)"
        assert torch.from_numpy(np.concatenate(list(reader), axis=-1)).shape == (2, 50_000)


@pytest.mark.parametrize("clip", ["clamp", "rescale"])
def test_a_song_that_fails_half_way_leaves_nothing(tmp_path, clip):
    write(tmp_path / "song.wav", noise(200_000), 44100)
    content = (tmp_path / "song.wav").read_bytes()
    (tmp_path / "song.wav").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="cut short"):
        paths = {"vocals": tmp_path / "stems/a/vocals.wav", "accompaniment": tmp_path / "stems/b/c/rest.wav"}
        render(Separator(BandSplit(2000)), AudioFile(tmp_path / "song.wav"), paths, StemFormat(clip=clip))
    assert not (tmp_path / "stems").exists()


def test_folders_that_were_there_stay_when_a_song_fails(tmp_path):
    (tmp_path / "song.wav").write_bytes(b"no music")
    (tmp_path / "stems").mkdir()
    paths = in_folder(tmp_path / "stems")
    with refused("no_audio"):
        render(Separator(BandSplit(2000)), AudioFile(tmp_path / "song.wav"), paths, StemFormat())
    assert (tmp_path / "stems").exists()


def test_surround_sound_becomes_stereo_stems_that_sum_to_its_mix(tmp_path):
    write(tmp_path / "song.wav", noise(20_000, channels=6), 44100)
    paths = in_folder(tmp_path / "stems")
    report = render(Separator(BandSplit(2000)), AudioFile(tmp_path / "song.wav"), paths, StemFormat("wav", "32f"))
    stems = [read(path)[0] for path in paths.values()]
    torch.testing.assert_close(sum(stems), read(tmp_path / "song.wav")[0], atol=1e-5, rtol=0)
    assert any("mixed down" in remark for remark in report.remarks)
