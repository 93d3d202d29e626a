"""Stem files and videos as other programs read them: stempeg, musdb, ffprobe, mkvmerge, Mixxx."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import warnings
from pathlib import Path

import pytest
import torch
from conftest import refused
from music import cover_art
from networks import random_network
from PIL import Image
from sounds import ffmpeg, ffprobe, read
from torch import Tensor

from separation.audio.containers import boxes
from separation.audio.formats import AudioFile
from separation.audio.io import AudioReader, AudioWriter
from separation.audio.tags import read_cover
from separation.dataset.layouts import provide_ffmpeg
from separation.errors import UserError
from separation.inference.separator import Separator
from separation.songs.outputs import COLOURS, EXTENSIONS, Naming, StemFormat
from separation.songs.render import render
from separation.stems import STEMS

ORDER = ("drums", "bass", "other", "vocals")
SAMPLES = 50_000


def make_song(channels: int = 2) -> Tensor:
    noise = torch.randn(channels, SAMPLES, generator=torch.Generator().manual_seed(0))
    return (0.1 * noise).clamp(-0.4, 0.4)


def separate(folder: Path, form: StemFormat, channels: int = 2) -> tuple[Path, dict[str, Tensor]]:
    """A stem file of a song, and the stems that belong into it."""
    tags, song = {"title": "Lithium 歌", "artist": "Nobody", "bpm": "128", "initialkey": "Am"}, make_song(channels)
    with AudioWriter(folder / "song.flac", 44100, channels, bits="24", tags=tags, cover=cover_art()) as writer:
        writer.write(song)
    path, separator = folder / f"song.{EXTENSIONS[form.format]}", Separator(random_network(STEMS))
    render(separator, AudioFile(folder / "song.flac"), dict.fromkeys(STEMS, path), form)
    return path, separator(read(folder / "song.flac")[0], 44100)


@pytest.fixture(scope="module")
def lossy(tmp_path_factory) -> tuple[Path, dict[str, Tensor]]:
    return separate(tmp_path_factory.mktemp("stem"), StemFormat("stem"))


LOSSY = 0.4
"""The error of AAC on noise, against its energy, at most: it differs between processors. Of another stem: 1."""


@pytest.mark.parametrize(("bits", "step"), [("16", 2**-15), ("24", 2**-23)])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_lossless_stem_file_holds_the_song_and_stems_that_sum_to_it(tmp_path, bits, step, channels):
    path, stems = separate(tmp_path, StemFormat("stem", bits), channels)
    streams = [read(path, track=stream)[0] for stream in range(5)]
    assert all(stream.shape == (2, SAMPLES) for stream in streams)
    assert torch.equal(streams[0], sum(streams[1:]))
    torch.testing.assert_close(streams[0], make_song(channels).expand(2, -1), atol=step, rtol=0)
    for stem, stream in zip(ORDER, streams[1:], strict=True):
        torch.testing.assert_close(stream, stems[stem].expand(2, -1), atol=1.01 * step, rtol=0)


def test_stempeg_reads_the_mixture_and_the_stems_in_their_order(lossy):
    provide_ffmpeg()
    import stempeg

    path, stems = lossy
    signals, rate = stempeg.read_stems(str(path))
    assert rate == 44100 and signals.shape[0] == 5
    for signal, true in zip(signals, (make_song(), *(stems[stem] for stem in ORDER)), strict=True):
        found = torch.from_numpy(signal[:SAMPLES].T).float()
        assert (found - true).square().mean() < LOSSY * true.square().mean()


def test_musdb_reads_the_sources_by_name(lossy, tmp_path):
    provide_ffmpeg()
    import musdb

    (tmp_path / "test").mkdir()
    shutil.copy(lossy[0], tmp_path / "test" / "Nobody - Lithium.stem.mp4")  # what musdb calls them
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (track,) = musdb.DB(root=str(tmp_path), subsets="test")
    assert (track.artist, track.title) == ("Nobody", "Lithium")
    for stem, true in lossy[1].items():
        found = torch.from_numpy(track.targets[stem].audio[:SAMPLES].T).float()
        assert (found - true).square().mean() < LOSSY * true.square().mean()


def test_ffprobe_sees_five_streams_of_which_the_first_is_the_default(lossy):
    provide_ffmpeg()
    command = ["ffprobe", "-v", "error", "-show_streams", "-show_format", "-of", "json", str(lossy[0])]
    found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    sound = [stream for stream in found["streams"] if stream["codec_type"] == "audio"]
    assert [(stream["codec_name"], stream["channels"]) for stream in sound] == [("aac", 2)] * 5
    assert [stream["disposition"]["default"] for stream in sound] == [1, 0, 0, 0, 0]
    assert {stream["duration"] for stream in sound} == {f"{SAMPLES / 44100:.6f}"}
    assert found["format"]["tags"]["title"] == "Lithium 歌"


def test_the_stem_box_says_names_and_colours_and_the_cover_came_along(lossy):
    with lossy[0].open("rb") as file:
        place = (0, file.seek(0, 2))
        for name in (b"moov", b"udta", b"stem"):
            place = next((begin, end) for kind, begin, end in boxes(file, *place) if kind == name)
        file.seek(place[0])
        said = json.loads(file.read(place[1] - place[0]))
    assert said["version"] == 1 and not said["mastering_dsp"]["limiter"]["enabled"]
    assert [stem["name"] for stem in said["stems"]] == ["Drums", "Bass", "Other", "Vocals"]
    assert len({stem["color"] for stem in said["stems"]}) == 4
    with Image.open(io.BytesIO(read_cover(lossy[0]))) as cover:
        assert cover.size == (60, 40)


def test_a_stem_file_holds_all_four_stems_or_is_refused(tmp_path):
    with AudioWriter(tmp_path / "song.wav", 44100, 2) as writer:
        writer.write(make_song())
    paths = dict.fromkeys(("vocals", "accompaniment"), tmp_path / "song.stem.m4a")
    with pytest.raises(UserError, match="omit --stems"):
        render(Separator(random_network()), AudioFile(tmp_path / "song.wav"), paths, StemFormat("stem"))
    assert not (tmp_path / "song.stem.m4a").exists()
    with pytest.raises(UserError, match="16 or 24 bits"):
        StemFormat("stem", "32f")


@pytest.mark.parametrize("form", [StemFormat("stem"), StemFormat("stem.mp4"), StemFormat("stem.mp4", "24")])
def test_mixxx_finds_four_stems_and_their_names(tmp_path, form):
    """As Mixxx 2.6 walks the file: four stereo streams after the first, of one codec, rate and length."""
    path, _ = separate(tmp_path, form)
    streams = [stream for stream in ffprobe(path)["streams"] if stream["codec_type"] == "audio"]
    assert len(streams) == 5
    kinds = {(stream["codec_name"], stream["channels"], stream["sample_rate"]) for stream in streams[1:]}
    assert kinds == {("alac" if form.bits else "aac", 2, "44100")}
    assert {stream["duration"] for stream in streams} == {f"{SAMPLES / 44100:.6f}"}
    with path.open("rb") as file:
        place = (0, file.seek(0, 2))
        for name in (b"moov", b"udta", b"stem"):
            (place,) = [(begin, end) for kind, begin, end in boxes(file, *place) if kind == name]
        file.seek(place[0])
        box = json.loads(file.read(place[1] - place[0]))
    assert box["version"] == 1
    assert [stem["name"] for stem in box["stems"]] == ["Drums", "Bass", "Other", "Vocals"]
    assert all(stem["color"].startswith("#") for stem in box["stems"])
    with AudioReader(path) as reader:
        assert (reader.tags["bpm"], reader.tags["initialkey"], reader.remarks) == ("128", "Am", [])


def test_stems_in_matroska_are_lossless_named_and_the_mixture_is_the_default(tmp_path):
    path, stems = separate(tmp_path, StemFormat("mka", "24"))
    tracks = [read(path, track=track)[0] for track in range(5)]
    assert {track.shape for track in tracks} == {(2, SAMPLES)}
    assert torch.equal(tracks[0], sum(tracks[1:]))
    torch.testing.assert_close(tracks[0], make_song(), atol=2**-23, rtol=0)
    for stem, track in zip(ORDER, tracks[1:], strict=True):
        torch.testing.assert_close(track, stems[stem], atol=1.01 * 2**-23, rtol=0)
    streams = [stream for stream in ffprobe(path)["streams"] if stream["codec_type"] == "audio"]
    assert [stream["tags"]["title"] for stream in streams] == ["mixture", *COLOURS]
    assert [stream["disposition"]["default"] for stream in streams] == [1, 0, 0, 0, 0]
    assert {stream["codec_name"] for stream in streams} == {"flac"}
    assert read_cover(path) == cover_art()
    with AudioReader(path) as reader:  # players choose the mixture, and so does this program
        assert reader.track == 0 and reader.tags["bpm"] == "128"


@pytest.mark.skipif(shutil.which("mkvmerge") is None, reason="mkvtoolnix is not installed")
def test_mkvtoolnix_reads_stems_in_matroska(tmp_path):
    path, _ = separate(tmp_path, StemFormat("mka"))
    found = json.loads(subprocess.run(["mkvmerge", "-J", str(path)], check=True, capture_output=True).stdout)
    assert not found["errors"] and not found["warnings"]
    properties = [track["properties"] for track in found["tracks"] if track["type"] == "audio"]
    assert [track["track_name"] for track in properties] == ["mixture", *COLOURS]
    assert [track["default_track"] for track in properties] == [True, False, False, False, False]
    assert {track["audio_sampling_frequency"] for track in properties} == {44100}
    subprocess.run(["mkvmerge", "-q", "-o", str(tmp_path / "copy.mka"), str(path)], check=True)
    assert torch.equal(read(tmp_path / "copy.mka", track=4)[0], read(path, track=4)[0])


@pytest.mark.parametrize("format", ["stem", "mka"])
def test_the_mixture_of_a_stem_file_is_not_clipped_by_rescaling(tmp_path, format):
    """Stems below full scale can sum to a song beyond it."""
    song, path = 6 * make_song(), tmp_path / f"song.{EXTENSIONS[format]}"
    with AudioWriter(tmp_path / "song.wav", 44100, 2, bits="32f") as writer:
        writer.write(song)
    assert song.abs().max() > 2
    form = StemFormat(format, "16", "rescale")
    report = render(
        Separator(random_network(STEMS)), AudioFile(tmp_path / "song.wav"), dict.fromkeys(STEMS, path), form
    )
    mixture, *stems = (read(path, track=track)[0] for track in range(5))
    torch.testing.assert_close(mixture, sum(stems), atol=1.01 * 2**-15, rtol=0)  # full scale is a step short of 1
    torch.testing.assert_close(mixture, report.gain * song, atol=2**-14, rtol=0)


def test_a_video_is_named_after_the_songs_kind_and_holds_its_stem(tmp_path):
    naming, source = Naming(tmp_path, "video"), tmp_path / "film.mp4"
    with AudioWriter(tmp_path / "song.wav", 44100, 2) as writer:
        writer.write(make_song())
    picture = ("-f", "lavfi", "-i", "testsrc=d=1:s=64x48:r=25")
    ffmpeg(*picture, "-i", tmp_path / "song.wav", "-c:v", "mpeg4", "-c:a", "aac", source)
    paths = naming.paths("film", ("vocals", "accompaniment"), source)
    assert [path.name for path in paths.values()] == ["vocals.mp4", "accompaniment.mp4"]
    render(Separator(random_network()), AudioFile(source), paths, StemFormat("video", keep_original=True))
    for stem, path in paths.items():
        kinds = [stream["codec_type"] for stream in ffprobe(path)["streams"]]
        assert kinds == ["video", "audio", "audio"]
        assert read(path, track=1)[0].shape == read(source)[0].shape
        assert ffprobe(path)["streams"][1]["tags"].get("title", stem) == stem
    with refused("no_video"):
        StemFormat("mp3", keep_original=True)
