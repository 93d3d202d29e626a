"""Tags and covers come along, whichever format and decoder they come from, and no more than that."""

from __future__ import annotations

import io
from pathlib import Path

import mutagen
import pytest
from mutagen.apev2 import APEv2
from mutagen.flac import FLAC, Picture
from mutagen.id3 import APIC, COMM, ID3, TBPM, TIT2, TKEY, TPE1, TPE2, TXXX
from PIL import Image
from sounds import RATE, encode, ffmpeg, ffprobe, noise

from separation.audio.io import AudioReader, AudioWriter, write
from separation.audio.tags import TAGS, read_cover, read_tags

FULL = {
    "title": "Wax Moon 歌",
    "artist": "First Singer; Second Singer",
    "album": "Bench",
    "albumartist": "The Testers",
    "genre": "Rock",
    "date": "2001",
    "tracknumber": "3/12",
    "copyright": "free",
    "comment": "hello",
    "bpm": "128",
    "initialkey": "Am",
}


def picture(colour: str, kind: str = "JPEG") -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (32, 32), colour).save(content, kind)
    return content.getvalue()


def colour_of(cover: bytes | None) -> tuple[int, ...]:
    with Image.open(io.BytesIO(cover or b"")) as image:
        return tuple(round(value / 255) for value in image.convert("RGB").getpixel((0, 0)))


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "m4a", "mp4", "mka"])
def test_every_tag_is_kept_in_every_format(tmp_path, suffix):
    """FFmpeg 8.1 would lose tempo and key in MP4, libsndfile 1.2 all but its ten names."""
    path = tmp_path / f"a.{suffix}"
    assert set(FULL) == set(TAGS)
    with AudioWriter(path, RATE, 1, tags={**FULL, "isrc": "QZ", "replaygain_track_gain": "-6 dB"}) as writer:
        writer.write(noise(1, 1))
    with AudioReader(path) as reader:
        assert reader.tags == FULL
        assert len(b"".join(block.tobytes() for block in reader)) >= 4 * RATE
    assert "QZ" not in str(ffprobe(path)) and "-6 dB" not in str(ffprobe(path))


@pytest.mark.parametrize("suffix", ["flac", "mp3", "m4a", "mka", "ogg"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_cover_is_kept(tmp_path, suffix, kind):
    with AudioWriter(tmp_path / f"a.{suffix}", RATE, 2, cover=picture("red", kind)) as writer:
        writer.write(noise(1))
    assert read_cover(tmp_path / f"a.{suffix}") == picture("red", kind)


def test_tags_do_not_move_the_sound(tmp_path):
    """An m4a points into itself, and an mp3 has its tags in front."""
    for suffix in ("wav", "flac", "mp3", "m4a", "ogg"):
        contents = []
        for tags in ({}, {**FULL, "comment": "long " * 20_000}):
            with AudioWriter(
                tmp_path / f"a.{suffix}", RATE, 2, tags=tags, cover=picture("red") if tags else None
            ) as file:
                file.write(noise(2))
            with AudioReader(tmp_path / f"a.{suffix}") as reader:
                contents.append(b"".join(block.tobytes() for block in reader))
        assert contents[0] == contents[1]


def tagged(folder: Path, name: str) -> Path:
    """A song of two artists, tagged by mutagen as its format wants it."""
    path = encode(folder / name, noise(1), *(["-c:a", "libopus"] if name.endswith("opus") else []))
    if name == "a.tta" or name == "a.wv":
        tags = APEv2()
        tags.update({"Title": "Wax Moon", "Artist": ["A", "B"], "Album Artist": "C", "BPM": "128", "InitialKey": "Am"})
        tags["REPLAYGAIN_TRACK_GAIN"] = "-6 dB"
        tags.save(path)
        return path
    song = mutagen.File(path)
    if name.endswith(("mp3", "wav", "aiff")):
        if song.tags is None:
            song.add_tags()
        frames = [TIT2(3, ["Wax Moon"]), TPE1(3, ["A", "B"]), TPE2(3, ["C"]), TBPM(3, ["128"]), TKEY(3, ["Am"])]
        for frame in (*frames, COMM(3, "eng", "iTunNORM", ["0000"]), TXXX(3, "replaygain_track_gain", ["-6 dB"])):
            song.tags.add(frame)
    elif name.endswith("m4a"):
        key = "----:com.apple.iTunes:initialkey"
        song.tags.update({"©nam": ["Wax Moon"], "©ART": ["A", "B"], "aART": ["C"], "tmpo": [128], key: [b"Am"]})
    elif name.endswith("wma"):
        song.tags.update({"Title": ["Wax Moon"], "Author": ["A", "B"], "WM/AlbumArtist": ["C"]})
        song.tags.update({"WM/BeatsPerMinute": ["128"], "WM/InitialKey": ["Am"]})
    else:
        song.tags.update({"title": ["Wax Moon"], "ARTIST": ["A", "B"], "albumartist": ["C"], "bpm": ["128"]})
        song.tags.update({"initialkey": ["Am"], "R128_TRACK_GAIN": ["1"], "isrc": ["QZ"]})
    song.save()
    return path


@pytest.mark.parametrize(
    "name", ["a.mp3", "a.m4a", "a.wma", "a.flac", "a.ogg", "a.opus", "a.wv", "a.tta", "a.wav", "a.aiff"]
)
def test_tags_are_read_from_every_format(tmp_path, name):
    """FFmpeg 8.1 reads one artist of two in mp3, m4a, wma, wv and tta, and no tempo in m4a."""
    expected = {"title": "Wax Moon", "artist": "A; B", "albumartist": "C", "bpm": "128", "initialkey": "Am"}
    assert read_tags(tagged(tmp_path, name)) == expected


def test_tags_in_capitals_of_matroska_are_read_and_those_of_its_tracks_are_not(tmp_path):
    options = ("-metadata", "title=Wax Moon", "-metadata", "ARTIST=The Testers", "-metadata:s:a:0", "title=Music")
    for name in ("a.mka", "a.webm"):
        path = encode(tmp_path / name, noise(1), "-c:a", "libopus", *options)
        assert read_tags(path) == {"title": "Wax Moon", "artist": "The Testers"}


def test_info_in_a_wav_is_read_beside_id3(tmp_path):
    encode(tmp_path / "a.wav", noise(1), "-metadata", "title=Info", "-metadata", "artist=Someone")
    song = mutagen.File(tmp_path / "a.wav")
    song.add_tags()
    song.tags.add(TIT2(3, ["ID3"]))
    song.save()
    assert read_tags(tmp_path / "a.wav") == {"title": "ID3", "artist": "Someone"}


def test_a_song_that_is_read_by_the_other_decoder_keeps_its_tags(tmp_path):
    """A flac without a length and chained ogg: libsndfile reads the tags of others alone."""
    write(tmp_path / "a.wav", noise(1), RATE)
    (tmp_path / "pipe.flac").write_bytes(ffmpeg("-i", tmp_path / "a.wav", "-metadata", "TITLE=Wax", "-f", "flac", "-"))
    encode(tmp_path / "part.ogg", noise(1), "-metadata", "title=Wax")
    (tmp_path / "chained.ogg").write_bytes((tmp_path / "part.ogg").read_bytes() * 2)
    for name in ("pipe.flac", "chained.ogg"):
        assert read_tags(tmp_path / name) == {"title": "Wax"}


@pytest.mark.parametrize("name", ["a.flac", "a.mp3"])
def test_the_front_cover_is_taken_wherever_it_is_stored(tmp_path, name):
    path = encode(tmp_path / name, noise(1))
    if name == "a.flac":
        song = FLAC(path)
        for kind, colour in ((4, "blue"), (3, "red")):
            item = Picture()
            item.type, item.mime, item.data = kind, "image/jpeg", picture(colour)
            song.add_picture(item)
        song.save()
    else:
        tags = ID3(path)
        for kind, colour in ((4, "blue"), (3, "red")):
            tags.add(APIC(encoding=3, mime="image/jpeg", type=kind, desc=colour, data=picture(colour)))
        tags.save()
    assert colour_of(read_cover(path)) == (1, 0, 0)


def test_the_picture_of_a_film_is_no_cover(tmp_path):
    ffmpeg("-f", "lavfi", "-i", "testsrc=d=1:s=64x48", "-c:v", "mjpeg", tmp_path / "a.avi")
    assert read_cover(tmp_path / "a.avi") is None


def test_damaged_tags_are_no_tags(tmp_path):
    path = tagged(tmp_path, "a.mp3")
    content = bytearray(path.read_bytes())
    content[10:60] = b"\xff" * 50
    path.write_bytes(content)
    assert isinstance(read_tags(path), dict)
