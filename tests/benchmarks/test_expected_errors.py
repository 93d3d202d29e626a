"""benchmarks/doubts.py: errors that are expected, and errors that are made."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from music import TINY

from benchmarks.doubts import expected_and_made
from separation.dataset.tracks import find_tracks


class Shares:
    """In place of a separator: a share of the amplitude of whatever it hears."""

    network = SimpleNamespace(settings=TINY)

    def __init__(self, share: float):
        self.share = share

    def __call__(self, song: torch.Tensor, sample_rate: int) -> dict[str, torch.Tensor]:
        assert sample_rate == TINY.sample_rate
        return {"vocals": self.share * song}


@pytest.mark.parametrize(
    ("share", "expected", "made"),
    [
        (0.5, -6.0, -6.0),  # as sure as it may be: half of each error is voice, half is not
        (0.9, 10 * np.log10(0.9 * 0.1), 10 * np.log10((0.1**2 + 0.9**2) / 2)),  # sure of what it cannot know
    ],
)
def test_half_of_the_energy_is_voice(tmp_path, share, expected, made):
    for part in ("vocals", "accompaniment"):
        (tmp_path / "song").mkdir(exist_ok=True)
        noise = 0.1 * np.random.default_rng(len(part)).standard_normal((5 * TINY.sample_rate, 2))
        noise[-2 * TINY.sample_rate :] = 0
        soundfile.write(tmp_path / "song" / f"{part}.wav", noise, TINY.sample_rate, subtype="FLOAT")
    levels = expected_and_made(find_tracks("FOLDER", tmp_path)[0], Shares(share), "vocals")
    assert 5 < levels.shape[1] < 15  # not the silence
    np.testing.assert_allclose(levels[0], expected, atol=0.06)
    np.testing.assert_allclose(levels[1], made, atol=0.4)
