"""Where a teacher doubts its labels most, nothing is drawn."""

from __future__ import annotations

import math

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
    song = spectral(mixture)
    assert doubts(0.5 * song, song) == pytest.approx([-6.0] * 5, abs=0.05)
    assert max(doubts(song, song)) == max(doubts(0 * song, song)) == LEAST_DOUBT
    assert doubts(0 * song, 0 * song) == [LEAST_DOUBT] * 5


def track_of(folder, name: str, frames: int, **levels: float | list[float]):
    """A stored song whose targets have these doubts, in every stretch or in each."""
    mixture = torch.randn(2, frames * TINY.hop - TINY.padding, generator=torch.Generator().manual_seed(1))
    parts = {"mixture": mixture, **dict.fromkeys(levels, 0.5 * mixture)}
    count = math.ceil(frames / STRETCH)
    doubt = {target: value if isinstance(value, list) else [value] * count for target, value in levels.items()}
    add_track(folder, TINY, name, parts, teacher=["all"], silent={}, doubt=doubt)
    track = Store(folder).track(name)
    assert track.frames == frames
    return track


def test_the_most_doubtful_places_are_left_out_wherever_they_are(tmp_path):
    sure = track_of(tmp_path, "sure", 6 * STRETCH, vocals=-20.0)
    half = track_of(tmp_path, "half", 6 * STRETCH, vocals=[-20.0, -20.0, -20.0, -3.0, -3.0, -3.0])
    wrong = track_of(tmp_path, "wrong", 6 * STRETCH, vocals=-3.0)
    tracks = [sure, half, wrong]
    everywhere = sure_places(tracks, ["vocals"], 0.0, 60)
    assert everywhere == {track.folder: ((0, 6 * STRETCH),) for track in tracks}
    # Crops of 60 frames lie in places of two stretches, five a song: seven of the fifteen are without doubt.
    places = sure_places(tracks, ["vocals"], 8 / 15, 60)
    assert places == {sure.folder: ((0, 6 * STRETCH),), half.folder: ((0, 3 * STRETCH),), wrong.folder: ()}


def test_a_place_at_the_end_has_room_for_a_crop(tmp_path):
    track = track_of(tmp_path, "song", 5 * STRETCH + 1, vocals=[-3.0, -3.0, -3.0, -3.0, -20.0, -20.0])
    ((first, end),) = sure_places([track], ["vocals"], 0.8, 60)[track.folder]
    assert (first, end) == (5 * STRETCH + 1 - 60, 5 * STRETCH + 1)


def test_of_several_targets_the_errors_add_up(tmp_path):
    """-10 and -10 dB are -7 dB together, and worse than -8 and -60."""
    first = track_of(tmp_path, "first", 3 * STRETCH, vocals=-10.0, bass=-10.0)
    second = track_of(tmp_path, "second", 3 * STRETCH, vocals=-8.0, bass=-60.0)
    whole = ((0, 3 * STRETCH),)
    assert sure_places([first, second], ["vocals", "bass"], 0.5, 60) == {first.folder: (), second.folder: whole}
    assert sure_places([first, second], ["vocals"], 0.5, 60) == {first.folder: whole, second.folder: ()}


def test_labels_of_before_there_were_doubts_are_to_be_made_again(tmp_path):
    track = track_of(tmp_path, "song", 3 * STRETCH, vocals=-10.0)
    with pytest.raises(UserError, match=r"song has not: run dataset\.py --label again"):
        sure_places([track], ["vocals", "bass"], 0.5, 60)
