"""benchmarks/hearings.py: the mean of what is heard at some speeds, and its gain."""

from __future__ import annotations

import torch
from networks import random_network

from benchmarks.hearings import Hearings, row
from separation import Separator
from separation.network.ensemble import Ensemble


def test_it_hears_what_an_ensemble_hears():
    separator = Separator(random_network(), precision="fp32")
    song = 0.1 * torch.randn(2, 20_000, generator=torch.Generator().manual_seed(0))
    found, expected = Hearings(separator, [1.0, 0.89])(song, 44100), Ensemble([separator] * 2)(song, 44100)
    torch.testing.assert_close(found["vocals"], expected["vocals"], atol=1e-5, rtol=0)


def test_gains_are_paired_by_song():
    first = {"a": {"vocals": 1.0}, "b": {"vocals": 5.0}, "c": {}}
    second = {"a": {"vocals": 2.0}, "b": {"vocals": 8.0}, "c": {}}
    assert row("1.12", second, first) == "| 1.12 | 5.00 (+2.00 ± 1.00) |"
