"""Batches made of waveforms in memory are those made of the stores, whatever is drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import refused
from music import TINY, add_track, make_song, make_store
from networks import PAPER

from separation.stems import STEMS
from separation.training.batches import Batches, load
from separation.training.config import Config, parse_config
from separation.training.gpu_batches import resident_waveforms
from separation.training.sources import open_pools

CPU = torch.device("cpu")
FRAMES, BINS = 24, 96
WHOLE = ("mixture", *STEMS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Whole songs, a mono voice, an accompaniment of few highs, and a song with a teacher's stems: all compact."""
    folder = tmp_path_factory.mktemp("compact") / "store"
    make_store(folder, parts=WHOLE, compact=True)
    song = make_song(7, 1.5, TINY.sample_rate)
    add_track(folder, TINY, "voice", {"vocals": song["vocals"][:1]}, compact=True)
    lone = {"accompaniment": song["accompaniment"]}
    add_track(folder, TINY, "dull", lone, compact=True, bandwidth=2000.0)
    taught = {"teacher": ["all"], "silent": {"vocals": [[3, 90]]}}
    add_track(folder, TINY, "pseudo_labelled", {part: song[part] for part in WHOLE}, compact=True, **taught)
    return folder


def make_config(folder: Path, targets=("vocals",), losses=None, workers: int = 0, **data) -> Config:
    values = {
        "targets": list(targets),
        "spectral": {"sample_rate": TINY.sample_rate, "n_fft": TINY.n_fft, "hop": TINY.hop},
        "generator": {"band_layout": [[BINS, 4]], "widths": [4]},
        "data": {"stores": {str(folder): 1}, "crop_frames": FRAMES, "batch_size": 5, "workers": workers, **data},
        "discriminator": {"widths": [4, 8], "scales": 2},
        "losses": losses or {},
        "schedule": {"steps": 12},
    }
    return parse_config(values, "test")


DRAWN = {
    "songs": {"remix": 0},
    "mono": {"remix": 0.5, "mono": 0.5},
    "remixes": {"remix": 1, "mute": 0.3},
    "equalised": {"remix": 1, "equalise": 12},
    "pairs": {"targets": STEMS, "pairs": {"vocals": 0.5, "drums": 0.2}},
    "pseudo_labelled": {"targets": STEMS, "pseudo_labelled": 0.8},
    "unlabelled": {"losses": PAPER, "unlabelled_batch_size": 3},
}


@pytest.mark.parametrize("drawn", DRAWN)
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_from_memory_are_those_of_the_store(folder, drawn, workers):
    config = make_config(folder, workers=workers, **DRAWN[drawn])
    pools = open_pools(config.targets, config.data, config.spectral, 1000.0)
    waveforms = resident_waveforms(pools, replace(config, data=replace(config.data, in_memory=True)), CPU)
    planned = load(Batches(config, pools, plan=waveforms.planner), 2, CPU, waveforms.finish)
    stored = Batches(config, pools)
    count = 0
    for step, batch in enumerate(planned, start=2):
        expected = stored[step]
        assert batch.keys() == expected.keys()
        for name, value in expected.items():
            assert batch[name].dtype == value.dtype
            torch.testing.assert_close(batch[name], value, rtol=1e-4, atol=1e-5)
        count += 1
    assert count == 10
    assert any(batch["sources"].abs().max() > 0.1 for batch in (stored[step] for step in range(3)))


def test_plans_are_small(folder):
    """A worker sends numbers and no music."""
    config = make_config(folder, targets=STEMS)
    pools = open_pools(config.targets, config.data, config.spectral, 1000.0)
    waveforms = resident_waveforms(pools, replace(config, data=replace(config.data, in_memory=True)), CPU)
    plan = Batches(config, pools, plan=waveforms.planner)[0]["sources"]
    numbers = [value for value in vars(plan).values() if isinstance(value, torch.Tensor)]
    assert sum(value.numel() for value in numbers) < 20 * 5 * len(STEMS)


def test_only_a_gpu_takes_waveforms_into_its_memory_unasked(folder):
    config = make_config(folder)
    pools = open_pools(config.targets, config.data, config.spectral, 1000.0)
    assert resident_waveforms(pools, config, CPU) is None


def test_stores_of_spectrograms_cannot_be_taken_into_memory(tmp_path):
    config = make_config(make_store(tmp_path / "spectra"), in_memory=True)
    pools = open_pools(config.targets, config.data, config.spectral, 1000.0)
    with refused("not_compact"):
        resident_waveforms(pools, config, CPU)
