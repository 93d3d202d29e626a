"""Where a teacher doubts its labels most, nothing is drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from music import TINY, add_track

from separation.audio.spectral import Spectral
from separation.dataset.label import LEAST_DOUBT, doubts
from separation.dataset.store import STRETCH, Store
from separation.errors import UserError
from separation.training.doubts import sure_places


def test_what_masks_expect_to_be_wrong():
    """A mask of a half on noise is half the energy of the mixture and as much of doubt: a quarter of it, -6 dB."""
    spectral = Spectral(TINY)
    mixture = torch.randn(2, 5 * STRETCH * TINY.hop - TINY.padding, generator=torch.Generator().manual_seed(0))
    assert doubts(0.5 * mixture, mixture, spectral) == pytest.approx([-6.0] * 5, abs=0.05)
    assert max(doubts(mixture, mixture, spectral)) == max(doubts(0 * mixture, mixture, spectral)) == LEAST_DOUBT
    assert doubts(0 * mixture, 0 * mixture, spectral) == [LEAST_DOUBT] * 5


def track_of(folder, name: str, levels: list[float], frames: int, targets=("vocals",)):
    mixture = torch.randn(2, frames * TINY.hop - TINY.padding, generator=torch.Generator().manual_seed(1))
    parts = {"mixture": mixture, **{target: 0.5 * mixture for target in targets}}
    add_track(folder, TINY, name, parts, teacher=["all"], silent={}, doubt=dict.fromkeys(targets, levels))
    track = Store(folder).track(name)
    assert track.frames == frames
    return track


def test_the_most_doubtful_places_are_left_out_wherever_they_are(tmp_path):
    sure = track_of(tmp_path, "sure", [-20.0] * 6, 6 * STRETCH)
    half = track_of(tmp_path, "half", [-20.0, -20.0, -20.0, -3.0, -3.0, -3.0], 6 * STRETCH)
    wrong = track_of(tmp_path, "wrong", [-3.0] * 6, 6 * STRETCH)
    tracks = [sure, half, wrong]
    everywhere = sure_places(tracks, ["vocals"], 0.0, 60)
    assert everywhere == {track.folder: ((0, 6 * STRETCH),) for track in tracks}
    # Crops of 60 frames lie in places of two stretches, five a song: seven of the fifteen are without doubt.
    places = sure_places(tracks, ["vocals"], 8 / 15, 60)
    assert places == {sure.folder: ((0, 6 * STRETCH),), half.folder: ((0, 3 * STRETCH),), wrong.folder: ()}


def test_a_place_at_the_end_has_room_for_a_crop(tmp_path):
    track = track_of(tmp_path, "song", [-3.0, -3.0, -3.0, -3.0, -20.0, -20.0], 5 * STRETCH + 1)
    ((first, end),) = sure_places([track], ["vocals"], 0.8, 60)[track.folder]
    assert (first, end) == (5 * STRETCH + 1 - 60, 5 * STRETCH + 1)


def test_of_several_targets_the_errors_add_up(tmp_path):
    first = track_of(tmp_path, "first", [-10.0] * 3, 3 * STRETCH, ("vocals", "bass"))
    second = track_of(tmp_path, "second", [-9.0] * 3, 3 * STRETCH, ("vocals",))
    assert np.isclose(10 * np.log10(2 * 0.1), -7, atol=0.1)
    assert sure_places([first], ["vocals", "bass"], 0.5, 60) == {first.folder: ((0, 3 * STRETCH),)}
    with pytest.raises(UserError, match="second has not: run dataset.py --label again"):
        sure_places([first, second], ["vocals", "bass"], 0.5, 60)
