"""A stem file as other programs read it: stempeg, musdb, ffprobe."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import warnings
from pathlib import Path

import pytest
import torch
from music import cover_art
from networks import random_network
from PIL import Image
from torch import Tensor

from separation.audio.containers import boxes
from separation.audio.ffmpeg import provide_ffmpeg
from separation.audio.formats import AudioFile
from separation.audio.io import AudioWriter, read
from separation.audio.tags import read_cover
from separation.errors import UserError
from separation.inference.separator import Separator
from separation.songs.outputs import StemFormat
from separation.songs.render import render
from separation.stems import STEMS

ORDER = ("drums", "bass", "other", "vocals")
SAMPLES = 50_000


def make_song(channels: int = 2) -> Tensor:
    noise = torch.randn(channels, SAMPLES, generator=torch.Generator().manual_seed(0))
    return (0.1 * noise).clamp(-0.4, 0.4)


def separate(folder: Path, form: StemFormat, channels: int = 2) -> tuple[Path, dict[str, Tensor]]:
    """A stem file of a song, and the stems that belong into it."""
    tags, song = {"title": "Lithium 歌", "artist": "Nobody"}, make_song(channels)
    with AudioWriter(folder / "song.flac", 44100, channels, bits="24", tags=tags, cover=cover_art()) as writer:
        writer.write(song)
    path, separator = folder / "song.stem.m4a", Separator(random_network(STEMS))
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
