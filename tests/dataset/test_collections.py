"""Datasets of instruments, laid out as their own loaders read them. Loaders that are installed read the same trees."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from conftest import make_stems, write_files
from torch import Tensor
from torch.nn.functional import pad

from separation.dataset.layouts import find_tracks
from separation.errors import UserError

RATE = 8000


@pytest.fixture
def stems() -> dict[str, Tensor]:
    return make_stems(0, 1.0, RATE)


def read(track, *parts: str) -> dict[str, Tensor]:
    return track.read(parts or tuple(track.parts))[0]


def same(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and bool((first - second).abs().max() < 1e-4)


def dump(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content) if path.suffix == ".json" else yaml.safe_dump(content))


def moisesdb(folder: Path, recordings: list[tuple[str, str, Tensor, bool]], artist="A", song="B") -> None:
    """A song of MoisesDB: stems by name, each of takes; `recordings` are (stem, type, waveform, bleeds)."""
    described: dict[str, list] = {}
    for number, (stem, kind, waveform, bleeds) in enumerate(recordings):
        write_files(folder / stem, {f"take-{number}": waveform}, RATE)
        take = {"id": f"take-{number}", "trackType": kind, "extension": "wav", "has_bleed": bleeds}
        described.setdefault(stem, []).append(take)
    listed = [{"id": stem, "stemName": stem, "tracks": takes} for stem, takes in described.items()]
    dump(folder / "data.json", {"song": song, "artist": artist, "genre": "pop", "stems": listed})


def test_moisesdb_sums_its_takes_to_our_stems(tmp_path, stems):
    half = stems["other"][:, : RATE // 2]
    recordings = [
        ("vocals", "lead female singer", stems["vocals"], False),
        ("vocals", "background vocals", stems["vocals"].flip(1), False),
        ("drums", "kick drum", stems["drums"], False),
        ("percussion", "pitched percussion", stems["bass"], False),
        ("other keys", "synth pad", half, False),  # a space, which the official loader does not look for
    ]
    moisesdb(tmp_path / "moisesdb_v0.1" / "0a1b2c3d-1", recordings)
    moisesdb(tmp_path / "moisesdb_v0.1" / "4e5f6a7b-2", recordings[:1])
    for root in (tmp_path, tmp_path / "moisesdb_v0.1"):
        first, second = find_tracks("MoisesDB", root)
        assert (first.name, second.name) == ("A - B", "A - B (4e5f6a7b)") and first.subset == "train"
        assert first.stems == ("vocals", "drums", "other") and second.stems == ("vocals",)
    waveforms = read(first)
    assert same(waveforms["vocals"], stems["vocals"] + stems["vocals"].flip(1))
    assert same(waveforms["other"], stems["bass"] + pad(half, (0, RATE - RATE // 2)))  # padded, not cut
    assert same(waveforms["accompaniment"], waveforms["drums"] + waveforms["other"])
    assert same(waveforms["mixture"], waveforms["accompaniment"] + waveforms["vocals"])
    assert set(read(second)) == {"mixture", "vocals"}


def test_a_take_that_bleeds_spoils_its_own_stem_alone(tmp_path, stems):
    takes = [(stem, "any", stems[stem], stem == "drums") for stem in stems]
    moisesdb(tmp_path / "provider" / "song", takes)
    (track,) = find_tracks("MoisesDB", tmp_path)
    assert track.stems == ("vocals", "bass", "other")
    assert same(read(track)["mixture"], sum(stems.values()))


def test_moisesdbs_own_loader_reads_the_same_song(tmp_path, stems, monkeypatch):
    dataset = pytest.importorskip(
        "moisesdb.dataset"
    )  # not on PyPI: pip install git+https://github.com/moises-ai/moises-db
    monkeypatch.delenv("MOISESDB_PATH", raising=False)
    names = {"vocals": "vocals", "drums": "drums", "bass": "bass", "guitar": "other"}
    moisesdb(tmp_path / "provider" / "song", [(name, "any", stems[ours], False) for name, ours in names.items()])
    (theirs,) = dataset.MoisesDB(data_path=str(tmp_path), sample_rate=RATE)
    (track,) = find_tracks("MoisesDB", tmp_path)
    waveforms = read(track)
    assert same(waveforms["mixture"], torch.from_numpy(theirs.audio).float())
    for name, ours in names.items():
        assert same(waveforms[ours], torch.from_numpy(theirs.stems[name]).float())


def medleydb(root: Path, name: str, recordings: list[tuple[object, Tensor]], mix: Tensor, bleeds="no") -> None:
    """A song of MedleyDB, with its metadata apart from the audio."""
    described = {}
    for number, (instrument, waveform) in enumerate(recordings, 1):
        file = f"{name}_STEM_{number:02}"
        write_files(root / "Audio" / name / f"{name}_STEMS", {file: waveform}, RATE)
        described[f"S{number:02}"] = {"component": "", "filename": f"{file}.wav", "instrument": instrument, "raw": {}}
    write_files(root / "Audio" / name, {f"{name}_MIX": mix}, RATE)
    about = {"artist": name.split("_")[0], "title": name.split("_")[1], "has_bleed": bleeds, "stems": described}
    more = {"mix_filename": f"{name}_MIX.wav", "excerpt": "no", "instrumental": "no", "genre": "", "origin": ""}
    dump(root / "Metadata" / f"{name}_METADATA.yaml", about | more)


def test_medleydb_maps_instruments_to_stems(tmp_path, stems):
    recordings = [
        ("male singer", stems["vocals"]),
        (["female singer", "vocalists"], stems["vocals"].flip(1)),
        ("drum set", stems["drums"]),
        ("tabla", stems["drums"].flip(1)),
        ("double bass", stems["bass"]),
        ("distorted electric guitar", stems["other"]),
    ]
    medleydb(tmp_path, "Artist_Song", recordings, 0.5 * stems["other"])
    dump(
        tmp_path / "Metadata" / "Not_Bought_METADATA.yaml", {"artist": "", "title": "", "has_bleed": "no", "stems": {}}
    )
    (track,) = find_tracks("MedleyDB", tmp_path)
    assert (track.name, track.subset, track.stems) == ("Artist - Song", "train", ("vocals", "drums", "bass", "other"))
    waveforms = read(track)
    assert same(waveforms["vocals"], stems["vocals"] + stems["vocals"].flip(1))
    assert same(waveforms["drums"], stems["drums"] + stems["drums"].flip(1))
    # The mix is a weighted sum: the sum of the stems is what their masks can be learned from.
    assert same(waveforms["mixture"], sum(waveforms[stem] for stem in track.stems))


@pytest.mark.parametrize(
    ("instruments", "bleeds", "left"),
    [
        (("male singer", "drum set", "electric bass", "piano"), "yes", ()),
        (("male singer", "drum set", "electric bass", "Unlabeled"), "no", ()),
        (("male singer", "drum set", ["electric bass", "synthesizer"], "piano"), "no", ("vocals", "drums")),
        (("drum set", "drum machine", "tambourine", "claps"), "no", ("drums",)),
    ],
)
def test_medleydb_uses_no_stem_that_holds_something_else(tmp_path, stems, instruments, bleeds, left):
    waveforms = [stems[stem] for stem in ("vocals", "drums", "bass", "other")]
    medleydb(tmp_path, "A_B", list(zip(instruments, waveforms, strict=True)), mix := 0.5 * waveforms[0], bleeds)
    (track,) = find_tracks("MedleyDB", tmp_path)
    assert track.stems == left
    assert same(read(track)["mixture"], sum(waveforms) if left else mix)
    assert ("accompaniment" in track.parts) == (left == ("drums",))  # nobody sings there


def test_medleydbs_metadata_is_that_of_the_package(tmp_path, stems):
    """Every song of MedleyDB has a place in the table: its real metadata, with short files for its stems."""
    package = pytest.importorskip("medleydb_instruments")
    folder = Path(package.__file__).parent / "resources" / "metadata"
    for path in sorted(folder.glob("MusicDelta_*_METADATA.yaml")):
        about, name = yaml.safe_load(path.read_text()), path.name.removesuffix("_METADATA.yaml")
        files = [stem["filename"].removesuffix(".wav") for stem in about["stems"].values()]
        write_files(tmp_path / "Audio" / name / f"{name}_STEMS", dict.fromkeys(files, stems["bass"][:, :80]), RATE)
        write_files(tmp_path / "Audio" / name, {f"{name}_MIX": stems["bass"][:, :80]}, RATE)
        dump(tmp_path / "Metadata" / path.name, about)
    tracks = {track.name: track for track in find_tracks("MedleyDB", tmp_path)}
    assert len(tracks) == len([*(tmp_path / "Audio").iterdir()])
    for name in (path.name for path in (tmp_path / "Audio").iterdir()):
        theirs = package.MultiTrack(name)
        (track,) = (t for t in tracks.values() if name in next(iter(t.files.values()))[0].path.parts)
        if not theirs.has_bleed and any("singer" in instrument for instrument in theirs.instruments):
            assert "vocals" in track.stems


def slakh(folder: Path, recordings: list[tuple[str, bool, Tensor | None]], rendered=True, suffix=".flac") -> None:
    """A song of Slakh2100: recordings are (class, drums or not, waveform, which some rare stems lack)."""
    described, audible = {}, [waveform for *_, waveform in recordings if waveform is not None]
    for number, (kind, drums, waveform) in enumerate(recordings):
        described[f"S{number:02}"] = {
            "audio_rendered": rendered and waveform is not None, "inst_class": kind, "is_drum": drums, "program_num": 0,
        }  # fmt: skip
        if waveform is not None:
            write_files(folder / "stems", {f"S{number:02}": waveform}, RATE, suffix)
    write_files(folder, {"mix": sum(audible)}, RATE, suffix)
    dump(folder / "metadata.yaml", {"UUID": "1", "audio_dir": f"{folder.name}/stems", "stems": described})


def mono(stems: dict[str, Tensor]) -> dict[str, Tensor]:
    return {stem: 0.2 * waveform[:1] for stem, waveform in stems.items()}


def test_slakh_maps_classes_to_stems(tmp_path, stems):
    parts = mono(stems)
    recordings = [
        ("Piano", False, parts["vocals"]),
        ("Guitar", False, parts["other"]),
        ("Drums", True, parts["drums"]),
        ("Bass", False, parts["bass"]),
        ("Strings", False, None),  # never rendered, and in no mix
    ]
    for split in ("train", "validation", "test", "omitted"):
        slakh(tmp_path / split / f"Track{split}", recordings)
    write_files(tmp_path / "train" / "Tracktrain" / "stems" / "band", {"residuals": parts["bass"]}, RATE)  # a submix
    tracks = find_tracks("Slakh2100", tmp_path)
    assert {track.name: track.subset for track in tracks} == {
        "Tracktrain": "train", "Trackvalidation": "valid", "Tracktest": "test",
    }  # fmt: skip
    for track in tracks:
        waveforms = read(track)
        assert track.stems == ("drums", "bass", "other")
        assert same(waveforms["other"], parts["vocals"] + parts["other"])
        assert same(waveforms["mixture"], sum(parts.values()))
        assert same(waveforms["accompaniment"], waveforms["mixture"])


def test_babyslakh_says_that_nothing_was_rendered(tmp_path, stems):
    parts = mono(stems)
    slakh(tmp_path / "Track00001", [("Bass", False, parts["bass"]), ("Organ", False, parts["other"])], False, ".wav")
    (track,) = find_tracks("Slakh2100", tmp_path)
    assert (track.subset, track.stems) == ("train", ("bass", "other"))


def test_slakhs_loader_in_mirdata_reads_the_same_song(tmp_path, stems):
    mirdata = pytest.importorskip("mirdata.datasets.slakh")
    parts = mono(stems)
    recordings = [("Piano", False, parts["other"]), ("Drums", True, parts["drums"]), ("Bass", False, parts["bass"])]
    root = tmp_path / "slakh2100_flac_redux"
    slakh(root / "train" / "Track00001", recordings)
    place = "slakh2100_flac_redux/train/Track00001"
    index = {
        "version": "2100-redux",
        "tracks": {
            f"Track00001-S0{n}": {
                "metadata": [f"{place}/metadata.yaml", ""], "audio": [f"{place}/stems/S0{n}.flac", ""],
                "midi": [None, None],
            }
            for n in range(3)
        },
        "multitracks": {
            "Track00001": {
                "tracks": [f"Track00001-S0{n}" for n in range(3)],
                "mix": [f"{place}/mix.flac", ""], "metadata": [f"{place}/metadata.yaml", ""], "midi": [None, None],
            }
        },
    }  # fmt: skip
    (track,) = find_tracks("Slakh2100", root)
    waveforms = read(track)
    songs = {}
    for name in index["tracks"]:
        song = mirdata.Track(name, str(tmp_path), "slakh", index, lambda: None)
        ours = "drums" if song.is_drum else "bass" if song.instrument == "Bass" else "other"
        songs[ours] = torch.from_numpy(song.audio[0]).float()[None]
    assert {part: same(waveforms[part], songs[part]) for part in songs} == dict.fromkeys(
        ("other", "drums", "bass"), True
    )
    whole = mirdata.MultiTrack("Track00001", str(tmp_path), "slakh", index, mirdata.Track, lambda: None)
    assert whole.split == "train" and same(waveforms["mixture"], torch.from_numpy(whole.audio[0]).float()[None])


@pytest.mark.parametrize(
    ("dataset", "path", "text"),
    [
        ("MoisesDB", "p/s/data.json", "{"),
        ("MoisesDB", "p/s/data.json", '{"song": "a", "artist": "b", "stems": [{"stemName": "vocals"}]}'),
        ("MedleyDB", "Metadata/A_B_METADATA.yaml", "a: [1"),
        ("MedleyDB", "Metadata/A_B_METADATA.yaml", "text"),
        ("Slakh2100", "train/Track1/metadata.yaml", "stems: {S00: null}"),
    ],
)
def test_a_damaged_description_is_named(tmp_path, dataset, path, text):
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(text)
    with pytest.raises(UserError) as error:
        find_tracks(dataset, tmp_path)
    assert error.value.code == "damaged" and path in str(error.value) and "\n" not in str(error.value)


def table(root: Path, *rows: str) -> None:
    root.mkdir(exist_ok=True)
    (root / "songs.csv").write_text("\n".join(["path,stem,song,split", *rows, ""]), encoding="utf-8-sig")


def test_a_table_reads_any_other_collection(tmp_path, stems):
    write_files(
        tmp_path / "songs" / "any where", {"a 1": stems["vocals"], "b": stems["drums"], "c": stems["bass"]}, RATE
    )
    write_files(tmp_path / "elsewhere", {"whole": stems["other"]}, RATE)
    rows = ["any where/a 1.wav,Acapella,one,", "any where/b.wav,drums,one,", "any where/c.wav,drums,one,train"]
    table(tmp_path / "songs", *rows, f"{tmp_path}/elsewhere/whole.wav,mixture,two,validation")
    one, two = find_tracks("CSV", tmp_path / "songs")
    assert (one.name, one.subset, one.stems) == ("one", "train", ("vocals", "drums"))
    assert (two.name, two.subset, tuple(two.parts)) == ("two", "valid", ("mixture",))
    assert same(read(one)["drums"], stems["drums"] + stems["bass"])
    assert same(read(two)["mixture"], stems["other"])


@pytest.mark.parametrize(
    "row", [",vocals,a,", "a.wav,lute,a,", "a.wav,vocals,,", "a.wav,vocals,a,dev", "b.wav,drums,good,test", "a.wav"]
)
def test_a_row_that_cannot_be_is_named_by_its_line(tmp_path, row):
    table(tmp_path, "x.wav,vocals,good,train", row)
    with pytest.raises(UserError) as error:
        find_tracks("CSV", tmp_path)
    assert error.value.code == "bad_row" and "line 3" in str(error.value)
