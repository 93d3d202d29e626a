from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from music import add_track, make_song
from networks import random_network

from separation.dataset.store import Store
from separation.training.calibration import soften
from separation.training.validation import validate


@pytest.fixture
def tracks(tmp_path):
    song = make_song(0, 1.0)
    network = random_network()
    add_track(tmp_path, network.settings, "song", {part: song[part] for part in ("mixture", "vocals", "accompaniment")})
    return Store(Path(tmp_path)).tracks()


def test_the_factor_with_the_best_score_is_taken(tracks):
    """What a network is given as logits is known: masks of its own song, far too certain."""
    network = random_network()
    network.generator.scale_logits(40.0)
    before = validate(network, tracks)["song"]["vocals"]
    factor, scores = soften(network, tracks, (1.0, 0.5, 0.02, 1e-4))
    assert factor != 1.0
    assert scores["song"]["vocals"] > before
    assert validate(network, tracks)["song"]["vocals"] == pytest.approx(scores["song"]["vocals"], abs=1e-3)


def test_every_other_factor_scores_worse(tracks):
    factors = (1.0, 0.3, 0.01)
    best, scores = soften(random_network(), tracks, factors)
    for factor in factors:
        network = random_network()
        network.generator.scale_logits(factor)
        assert validate(network, tracks)["song"]["vocals"] <= scores["song"]["vocals"] + 1e-3
    assert best in factors


def test_without_songs_the_network_stays_as_it_is():
    network, untouched = random_network(), random_network()
    factor, scores = soften(network, [], (0.5, 1.0, 2.0))
    assert (factor, scores) == (1.0, {})
    for one, other in zip(network.parameters(), untouched.parameters(), strict=True):
        torch.testing.assert_close(one, other)


@torch.no_grad()
def test_scaled_logits_are_scaled():
    network = random_network()
    views = torch.rand(1, 4, network.generator.used_bins, 8)
    before = network.generator.logits(views)
    network.generator.scale_logits(0.25)
    torch.testing.assert_close(network.generator.logits(views), before / 4)
    assert math.isfinite(float(before.abs().max()))
