from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
import torch
from music import TINY, add_track, make_song

from separation.audio.stft import Spectral, SpectralSettings
from separation.dataset import store as store_module
from separation.dataset.store import (
    Store,
    create_store,
    frames_of,
    level,
    read_settings,
    stored_bytes,
    write_track,
)
from separation.errors import UserError

SECONDS = 1.0


@pytest.fixture
def waveforms():
    song = make_song(0, SECONDS, TINY.sample_rate)
    return {"mixture": song["mixture"], "vocals": song["vocals"][:1]}


@pytest.fixture
def store(tmp_path, waveforms):
    add_track(tmp_path / "store", TINY, "song", waveforms, subset="valid", bandwidth=3000.0)
    return Store(tmp_path / "store")


def test_a_track_is_read_as_it_was_written(store, waveforms):
    (track,) = store.tracks()
    assert (track.name, track.song, track.subset, track.bandwidth) == ("song", "song", "valid", 3000.0)
    assert track.parts == ("mixture", "vocals")
    assert track.samples == waveforms["mixture"].shape[1]
    expected = Spectral(TINY)(waveforms["mixture"])
    found = track.crop("mixture")
    assert found.shape == expected.shape == (2, TINY.bins, track.frames)
    assert (found - expected).abs().max() < 2**-10 * expected.abs().max()  # half precision


def test_a_track_has_the_level_of_its_mixture_or_of_its_lone_part(tmp_path):
    """Of a full-scale square wave 0 dB, of a full-scale sine 3 dB less."""
    time = torch.arange(TINY.sample_rate) / TINY.sample_rate
    sine = torch.sin(2 * math.pi * 100 * time).expand(2, -1)
    square = sine.sign() + (sine == 0)
    add_track(tmp_path, TINY, "square", {"accompaniment": 0.1 * sine, "mixture": square, "vocals": 0 * sine})
    add_track(tmp_path, TINY, "lone sine", {"vocals": sine})
    add_track(tmp_path, TINY, "lone mono sine", {"drums": 0.1 * sine[:1]})
    add_track(tmp_path, TINY, "one side", {"accompaniment": sine * torch.tensor([[1], [0]])})
    add_track(tmp_path, TINY, "silence", {"mixture": 0 * sine})
    levels = {"square": 0, "lone sine": -3.01, "lone mono sine": -23.01, "one side": -6.02, "silence": -100}
    assert {track.name: track.level for track in Store(tmp_path).tracks()} == pytest.approx(levels)
    assert level(0.5 * square) == pytest.approx(-6.02, abs=0.01)


def test_the_stored_spectrogram_becomes_the_waveform_again(store, waveforms):
    (track,) = store.tracks()
    recovered = Spectral(TINY).inverse(track.crop("mixture"), track.samples)
    error = recovered - waveforms["mixture"]
    assert error.square().sum() < 1e-6 * waveforms["mixture"].square().sum()


def test_a_crop_is_a_piece_of_the_whole(store):
    (track,) = store.tracks()
    whole = track.crop("mixture")
    assert torch.equal(track.crop("mixture", 5, 10), whole[..., 5:15])
    assert torch.equal(track.crop("mixture", 5, 10, bins=20), whole[:, :20, 5:15])


def test_mono_takes_one_channel_on_disk_and_gives_two(store):
    (track,) = store.tracks()
    vocals = track.crop("vocals")
    assert vocals.shape[0] == 2
    assert torch.equal(vocals[0], vocals[1])
    header = 128
    for part, channels in (("vocals", 1), ("mixture", 2)):
        size = (track.folder / f"{part}.npy").stat().st_size
        assert size == stored_bytes(TINY, track.samples, channels) + header


@pytest.mark.parametrize("gain", [1e-3, 1.0, 50.0])
def test_a_compact_track_is_read_as_its_spectrogram_in_a_quarter_of_the_bytes(tmp_path, waveforms, gain):
    waveforms = {part: gain * waveform for part, waveform in waveforms.items()}
    about = {"song": "song", "subset": "train", "bandwidth": 3000.0}
    create_store(tmp_path, TINY)
    write_track(tmp_path, Spectral(TINY), waveforms, name="compact", compact=True, **about)
    write_track(tmp_path, Spectral(TINY), waveforms, name="whole", **about)
    compact, whole = Store(tmp_path).tracks()
    compact.check(TINY.bins)
    for part in compact.parts:
        expected = Spectral(TINY)(waveforms[part]).expand(2, -1, -1)
        assert (compact.crop(part) - expected).abs().max() < 1e-4 * expected.abs().max()
        for start, frames, bins in [(0, 5, None), (7, 20, 30), (whole.frames - 4, 4, None), (whole.frames - 2, 9, 8)]:
            piece = compact.crop(part, start, frames, bins)
            assert piece.shape == whole.crop(part, start, frames, bins).shape
            assert (piece - expected[:, :bins, start : start + frames]).abs().max() < 1e-4 * expected.abs().max()
    sizes = {track.name: sum(file.stat().st_size for file in track.folder.glob("*.npy")) for track in (compact, whole)}
    assert sizes["compact"] < 0.27 * sizes["whole"]
    assert stored_bytes(TINY, compact.samples, 2, compact=True) + 128 == (compact.folder / "mixture.npy").stat().st_size


def test_tracks_of_one_subset(store, waveforms):
    add_track(store.folder, TINY, "another", waveforms, subset="train")
    assert [track.name for track in store.tracks()] == ["another", "song"]
    assert [track.name for track in store.tracks("train")] == ["another"]


def test_half_written_tracks_are_not_there(store):
    shutil.copytree(store.folder / "song", store.folder / "copied.partial")
    (store.folder / "begun").mkdir()
    assert [track.name for track in store.tracks()] == ["song"]


def test_a_failed_write_keeps_what_was_there(store, waveforms):
    before = store.tracks()[0].crop("vocals")
    broken = {"vocals": waveforms["vocals"] * 0, "mixture": torch.zeros(2, 3, 4)}
    with pytest.raises(Exception):  # noqa: B017 (whatever it was that failed)
        write_track(store.folder, Spectral(TINY), broken, name="song", song="song", subset="valid", bandwidth=1.0)
    (track,) = store.tracks()
    assert torch.equal(track.crop("vocals"), before)


def test_a_track_written_again_is_replaced(store, waveforms):
    add_track(store.folder, TINY, "song", {"vocals": waveforms["vocals"]})
    (track,) = store.tracks()
    assert track.parts == ("vocals",)
    assert not (track.folder / "mixture.npy").exists()


def test_other_settings_are_refused(store):
    other = SpectralSettings(sample_rate=8000, n_fft=512, hop=128)
    create_store(store.folder, TINY)
    assert read_settings(store.folder) == TINY
    for open_store in (lambda: create_store(store.folder, other), lambda: Store(store.folder, other).tracks()):
        with pytest.raises(UserError, match=r"n_fft 256, hop 64 .* --n-fft 512 --hop 128") as error:
            open_store()
        assert error.value.code == "other_stft"


@pytest.mark.parametrize(("n_fft", "hop"), [(512, 128), (128, 32), (256, 32)])
def test_a_compact_track_serves_any_stft(tmp_path, n_fft, hop):
    song, other = make_song(0, 2.0, TINY.sample_rate)["mixture"], SpectralSettings(TINY.sample_rate, n_fft, hop)
    silent = {"vocals": frames_of([(4000, 12000)], TINY, TINY.frames(song.shape[1]))}
    add_track(tmp_path, TINY, "song", {"mixture": song, "vocals": song}, compact=True, teacher=["x"], silent=silent)
    (track,) = Store(tmp_path, other).tracks()
    expected = Spectral(other)(song)
    found = track.crop("mixture")
    assert found.shape == expected.shape == (2, other.bins, track.frames)
    assert (found - expected).abs().max() < 1e-3 * expected.abs().max()
    ((first, end),) = track.silent["vocals"]
    middle = other.n_fft // 2 - other.padding  # of frame 0
    assert abs(first * hop + middle - 4000) <= TINY.hop + hop and abs(end * hop + middle - 12000) <= TINY.hop + hop
    with pytest.raises(UserError, match="44100 Hz") as error:
        Store(tmp_path, SpectralSettings()).tracks()
    assert error.value.code == "other_stft"


def test_stores_with_the_doubts_of_a_teacher_are_read(store):
    path = store.folder / "song" / "track.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"teacher": ["fast"], "doubt": {"vocals": [-3.0]}}))
    assert Store(store.folder).track("song").teacher == ("fast",)


def test_a_folder_that_is_no_store_is_a_sentence(tmp_path):
    with pytest.raises(UserError) as error:
        Store(tmp_path)
    assert error.value.code == "no_store"


@pytest.mark.parametrize(
    "damage", ["", "{}", '{"n_fft": 256, "unknown": 1}', '{"n_fft": 256.0}', "[1, 2", "[]", "null", "[" * 100_000]
)
def test_damaged_files_are_named(store, damage):
    description = store.folder / "song" / "track.json"
    description.write_text(damage, encoding="utf-8")
    with pytest.raises(UserError, match=r"track\.json"):
        store.tracks()
    if damage != "{}":  # nothing but defaults
        (store.folder / "settings.json").write_text(damage, encoding="utf-8")
        with pytest.raises(UserError, match=r"settings\.json"):
            Store(store.folder)


def test_names_beyond_ascii_are_kept(store, waveforms):
    add_track(store.folder, TINY, "Sigur Rós - ágætis", waveforms)
    track = store.tracks()[0]
    assert track.name == "Sigur Rós - ágætis"
    assert json.loads((track.folder / "track.json").read_text(encoding="utf-8"))["name"] == track.name


@pytest.mark.parametrize(
    "change",
    [
        {"name": None},
        {"song": 3},
        {"subset": None},
        {"parts": []},
        {"parts": ["piano"]},
        {"parts": None},
        {"samples": "8000"},
        {"frames": None},
        {"frames": True},
        {"frames": -1},
        {"frames": 10**9},
        {"samples": 1},
        {"bandwidth": "high"},
        {"bandwidth": float("nan")},
        {"level": None},
        {"silent": None},
        {"silent": {"vocals": [[1, 2, 3]]}},
        {"teacher": [1]},
        {"step": -1.0},
    ],
    ids=str,
)
def test_a_description_that_says_what_cannot_be_is_named(store, change):
    path = store.folder / "song" / "track.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=r"track\.json is damaged \(.+\): run dataset\.py again"):
        store.tracks()


DAMAGES = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-500]),
    "a header alone": lambda path: path.write_bytes(path.read_bytes()[:60]),
    "another shape": lambda path: np.save(path, np.load(path)[..., 0]),
    "another type": lambda path: np.save(path, np.load(path).astype(np.float32)),
    "fewer frames": lambda path: np.save(path, np.load(path)[:-1]),
    "fewer bins": lambda path: np.save(path, np.load(path)[:, :, :-1]),
    "objects": lambda path: np.save(path, np.array([{}]), allow_pickle=True),
    "a torn header": lambda path: path.write_bytes(path.read_bytes()[:64] + path.read_bytes()[3064:]),
    "several arrays": lambda path: path.write_bytes(b"PK\x05\x06" + bytes(18)),  # as a zip file without any
    "no numbers": lambda path: np.save(path, np.load(path) * np.float16("nan")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_spectrogram_is_named_before_training_and_when_it_is_read(store, damage):
    (track,) = store.tracks()
    DAMAGES[damage](track.folder / "vocals.npy")
    sentence = r"vocals\.npy is missing or damaged \(.+\): run dataset\.py again"
    if damage != "no numbers":
        with pytest.raises(UserError, match=sentence):
            track.check(TINY.bins)
    if damage != "fewer bins":
        with pytest.raises(UserError, match=sentence):
            track.crop("vocals")


def test_the_order_in_memory_does_not_matter(store):
    (track,) = store.tracks()
    path, before = track.folder / "vocals.npy", track.crop("vocals")
    np.save(path, np.asfortranarray(np.load(path)))
    assert torch.equal(track.crop("vocals"), before)


def test_of_two_runs_that_write_the_same_track_the_last_one_has_its_way(store, waveforms, monkeypatch):
    """Here the other one is through between taking the old track away and putting the new one in its place."""
    remove, others = store_module.remove_track, [{"vocals": waveforms["vocals"]}]

    def remove_and_be_overtaken(folder):
        remove(folder)
        if others and folder.name == "song":
            add_track(store.folder, TINY, "song", others.pop())

    monkeypatch.setattr(store_module, "remove_track", remove_and_be_overtaken)
    add_track(store.folder, TINY, "song", waveforms)
    assert [track.parts for track in store.tracks()] == [("mixture", "vocals")]
    assert sorted(path.name for path in store.folder.iterdir()) == ["settings.json", "song"]
