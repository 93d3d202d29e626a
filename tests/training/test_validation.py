from __future__ import annotations

import math

import pytest
import torch
from music import add_track, make_song
from networks import FAST, BandSplit
from torch import Tensor

from separation.dataset.store import Store
from separation.training.validation import mean_of, medians, sdr, validate, validation_tracks


def test_sdr_is_the_energy_of_the_reference_against_that_of_the_error():
    reference = torch.tensor([[3.0, 0.0], [0.0, 4.0]])  # energy 25
    estimate = torch.tensor([[3.0, 0.5], [0.0, 4.0]])  # error 0.25
    assert sdr(reference, estimate) == pytest.approx(20.0)
    assert sdr(reference, torch.zeros(2, 2)) == pytest.approx(0.0)
    assert sdr(reference, 2 * reference) == pytest.approx(0.0)
    assert sdr(reference, -reference) == pytest.approx(-10 * math.log10(4))


def test_sdr_of_silence_and_of_perfection_is_a_number():
    silence, sound = torch.zeros(2, 5), torch.ones(2, 5)
    for reference, estimate in ((silence, silence), (silence, sound), (sound, sound)):
        assert math.isfinite(sdr(reference, estimate))
    assert sdr(sound, sound) > 100


def test_medians_are_over_the_songs_that_have_a_source():
    scores = {
        "a": {"vocals": 1.0, "accompaniment": 4.0},
        "b": {"vocals": 5.0},
        "c": {"vocals": 3.0, "accompaniment": 8.0},
        "d": {},
    }
    assert medians(scores) == {"vocals": 3.0, "accompaniment": 6.0}
    assert medians({}) == {}


def test_the_mean_is_over_all_songs_and_targets():
    scores = {"one": {"vocals": 1.0, "other": 9.0}, "two": {"vocals": 3.0, "drums": 8.0}, "three": {"other": 0.0}}
    assert mean_of(["vocals", "drums"], scores) == 4.0
    assert mean_of(["bass"], scores) is None
    assert mean_of(["vocals"], {}) is None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Songs whose vocals all lie above 2 kHz and whose other stems all lie below."""
    folder = tmp_path_factory.mktemp("validation") / "store"
    time = torch.arange(44100) / 44100
    low, high = (torch.sin(2 * math.pi * frequency * time).expand(2, -1) / 4 for frequency in (500, 4000))
    whole = {"mixture": low + high, "vocals": high, "accompaniment": low}
    add_track(folder, FAST, "training", whole)
    add_track(folder, FAST, "whole", whole, subset="valid")
    add_track(folder, FAST, "instrumental", {**whole, "mixture": low, "vocals": 0 * high}, subset="valid")
    add_track(folder, FAST, "unlabelled", {"mixture": low + high}, subset="valid")
    add_track(folder, FAST, "wrong", {"mixture": low + high, "vocals": low, "accompaniment": high}, subset="valid")
    return folder


def test_validation_songs_are_those_with_something_to_compare(folder):
    assert [track.name for track in validation_tracks([str(folder)])] == ["instrumental", "whole", "wrong"]
    assert len(validation_tracks([str(folder)] * 2)) == 6


def test_each_source_that_sounds_is_scored(folder):
    scores = validate(BandSplit(2000), validation_tracks([str(folder)]))
    assert {name: set(sources) for name, sources in scores.items()} == {
        "whole": {"vocals", "accompaniment"},
        "wrong": {"vocals", "accompaniment"},
        "instrumental": {"accompaniment"},
    }
    assert min(*scores["whole"].values(), scores["instrumental"]["accompaniment"]) > 25
    # All of one source in place of the other: twice the energy is wrong.
    assert scores["wrong"] == pytest.approx({"vocals": -3.01, "accompaniment": -3.01}, abs=0.05)


def test_songs_are_heard_as_loud_as_they_are(folder):
    """In training they are brought to a level of their own."""

    class Listener(BandSplit):
        loudest = 0.0

        def forward(self, mixture: Tensor) -> Tensor:
            self.loudest = max(self.loudest, float(mixture.abs().max()))
            return super().forward(mixture)

    listener, (track,) = Listener(2000), [track for track in Store(folder).tracks() if track.name == "whole"]
    validate(listener, [track])
    assert listener.loudest == pytest.approx(float(track.crop("mixture").abs().max()), rel=0.05)


def test_a_source_that_no_song_has_is_not_scored(folder, tmp_path):
    song = make_song(0, 0.5)
    add_track(tmp_path / "s", FAST, "song", {"mixture": song["mixture"], "bass": song["bass"]}, subset="valid")
    assert validate(BandSplit(2000), Store(tmp_path / "s").tracks()) == {"song": {}}
