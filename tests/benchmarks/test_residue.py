"""benchmarks/residue.py: what stays of a stem in music that is known to lack it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from benchmarks.residue import parts_without, residue
from separation.dataset.layouts import find_tracks
from separation.stems import STEMS

RATE = 8000


class Half:
    """In place of a separator: half of the song's amplitude for every stem."""

    def __call__(self, song: torch.Tensor, sample_rate: int) -> dict[str, torch.Tensor]:
        assert sample_rate == RATE
        return dict.fromkeys(STEMS, song / 2)


@pytest.fixture
def track(tmp_path):
    def make_track(**levels: float):
        for part, level in levels.items():
            (tmp_path / "song").mkdir(exist_ok=True)
            noise = np.random.default_rng(len(part)).standard_normal((RATE, 2)) * level
            soundfile.write(tmp_path / "song" / f"{part}.wav", noise, RATE, subtype="FLOAT")
        return find_tracks("FOLDER", Path(tmp_path))[0]

    return make_track


def test_the_stem_is_not_in_what_the_separator_hears(track):
    song = track(vocals=0.1, drums=0.2, bass=0.1, other=0)
    heard = []

    def silent(waveform, sample_rate):
        heard.append(waveform)
        return {"drums": torch.zeros_like(waveform)}

    assert residue(song, silent, "drums") == pytest.approx(-120)
    parts, _ = song.read(("vocals", "bass"))
    torch.testing.assert_close(heard[0], parts["vocals"] + parts["bass"])


@pytest.mark.parametrize("parts", [{"accompaniment": 0.1}, {"vocals": 0.2, "accompaniment": 0.1}])
def test_an_accompaniment_lacks_vocals_and_nothing_else_is_known_of_it(track, parts):
    song = track(**parts)
    assert residue(song, Half(), "vocals") == pytest.approx(-6.02, abs=0.01)
    assert parts_without(song, "drums") == ()


def test_silence_has_no_residue(track):
    assert residue(track(accompaniment=0), Half(), "vocals") is None
