"""Songs packed as Ogg Vorbis are the same songs, in the layout that `FOLDER` reads."""

from __future__ import annotations

import math
import subprocess
import sys
from functools import partial

import pytest
import torch
from conftest import make_stems, write_files

from separation.dataset.layouts import Track, find_tracks
from separation.dataset.pack import pack_song, packed_parts, plan_packing
from separation.errors import UserError
from separation.jobs import run_jobs
from separation.stems import STEMS


def packed(folder, root, seconds=None):
    """What could not be packed, by song."""
    jobs = plan_packing(folder, find_tracks("FOLDER", root), seconds)
    return {track.name: error for track, error in run_jobs(partial(pack_song, folder, seconds), jobs)}


@pytest.fixture
def root(tmp_path):
    stems = make_stems(seconds=2.0)
    write_files(tmp_path / "songs" / "train" / "whole", {"mixture": sum(stems.values()), **stems})
    write_files(tmp_path / "songs" / "valid" / "voice", {"vocals": stems["vocals"][:1]})
    return tmp_path / "songs"


def test_what_is_packed_sums_to_the_song():
    def chosen(*files):
        return packed_parts(Track("song", "train", dict.fromkeys(files)))

    assert chosen("mixture", *STEMS) == STEMS
    assert chosen("mixture", "vocals", "accompaniment") == ("vocals", "accompaniment")
    assert chosen("mixture", "vocals", "drums") == ("mixture", "vocals", "drums")
    assert chosen("mixture") == ("mixture",)


def test_packed_songs_are_those_of_the_dataset(root, tmp_path):
    assert set(packed(tmp_path / "packed", root).values()) == {None}
    before, after = (find_tracks("FOLDER", place) for place in (root, tmp_path / "packed"))
    assert [(track.name, track.subset) for track in after] == [(track.name, track.subset) for track in before]
    for track, other in zip(before, after, strict=True):
        parts = packed_parts(track)
        one, two = track.read(parts), other.read(parts)
        assert one[1] == two[1]
        for part in parts:
            assert two[0][part].shape == one[0][part].shape
            error = (two[0][part] - one[0][part]).square().sum() / one[0][part].square().sum()
            assert error < (0.5 if part == "drums" else 0.03)  # noise is what no codec keeps the waveform of


def test_of_longer_songs_the_middle_is_packed(root, tmp_path):
    packed(tmp_path / "packed", root, seconds=0.5)
    whole, rate = find_tracks("FOLDER", root)[0].read(["vocals"])
    middle = find_tracks("FOLDER", tmp_path / "packed")[0].read(["vocals"])[0]["vocals"]
    assert middle.shape[-1] == round(0.5 * rate)
    wanted = whole["vocals"][:, round(0.75 * rate) :][:, : middle.shape[-1]]
    assert (middle - wanted).square().sum() < 0.1 * wanted.square().sum()


@pytest.mark.parametrize("seconds", [0, -3, math.nan, math.inf])
def test_a_length_that_is_none_is_refused(root, tmp_path, seconds):
    with pytest.raises(UserError, match="--pack-seconds must be a number above 0"):
        packed(tmp_path / "packed", root, seconds)
    assert not (tmp_path / "packed").exists()


def test_packing_goes_on_where_it_was_stopped(root, tmp_path):
    packed(tmp_path / "packed", root)
    (tmp_path / "packed" / "train" / "whole" / "bass.ogg").unlink()
    assert list(packed(tmp_path / "packed", root)) == ["whole"]
    assert packed(tmp_path / "packed", root) == {}


def test_a_song_that_cannot_be_read_is_told_and_the_others_are_packed(root, tmp_path):
    (root / "train" / "whole" / "bass.wav").write_bytes(b"no audio")
    results = packed(tmp_path / "packed", root)
    assert isinstance(results["whole"], UserError) and results["voice"] is None
    assert not list((tmp_path / "packed").glob("train/whole/*"))


def test_the_script_packs_and_says_how_much(root, tmp_path):
    command = [sys.executable, "dataset.py", "--dataset", "FOLDER", "--root", root, "--pack", tmp_path / "packed"]
    done = subprocess.run([*command, "--workers", "1"], capture_output=True, text=True)
    assert done.returncode == 0 and "2 songs, 2 to pack" in done.stdout and "--dataset FOLDER" in done.stdout
    assert len(list((tmp_path / "packed").rglob("*.ogg"))) == 5


def test_quiet_numbers_stay_within_full_scale(tmp_path):
    write_files(tmp_path / "songs" / "loud", {"vocals": torch.full((2, 44100), 3.0)})
    assert packed(tmp_path / "packed", tmp_path / "songs") == {"loud": None}
