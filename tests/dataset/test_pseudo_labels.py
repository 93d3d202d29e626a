"""A teacher labels songs that have a mixture alone: here the shipped weights label made-up songs."""

from __future__ import annotations

import json
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch
from conftest import write_files
from music import make_song

from separation import Separator
from separation.audio.stft import Spectral, SpectralSettings
from separation.dataset.build import build_song, plan_store
from separation.dataset.layouts import find_tracks
from separation.dataset.pseudo_labels import DEPTH, SHORTEST, Teacher, label, silent_spans
from separation.dataset.store import Store, frames_of, silence_of
from separation.errors import UserError
from separation.jobs import run_jobs
from separation.training.batches import Batches
from separation.training.config import parse_config
from separation.training.sources import open_pools

SETTINGS = SpectralSettings()
RATE = SETTINGS.sample_rate


def build(root, folder, *weights, stems=("vocals",), depth=DEPTH):
    """Label the songs under `root`; the names of those that were built."""
    tracks = find_tracks("FOLDER", root)
    tracks = label(tracks, Teacher(weights, stems, depth)) if weights else tracks
    jobs = plan_store(folder, SETTINGS, tracks, stems, root=root).jobs
    for _, result in run_jobs(partial(build_song, folder, SETTINGS), jobs):
        assert not isinstance(result, UserError), result
    return {job.track.name for job in jobs}


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A folder of a song with stems, a song without, and one to validate on; and the store of them."""
    folder = tmp_path_factory.mktemp("labelled")
    first, second = make_song(0, 8.0, RATE), make_song(1, 8.0, RATE)
    write_files(folder / "songs" / "train" / "whole", {part: first[part] for part in ("vocals", "accompaniment")})
    write_files(folder / "songs" / "train" / "mixed", {"mixture": second["mixture"]})
    write_files(folder / "songs" / "valid" / "heard", {"mixture": first["mixture"]})
    assert build(folder / "songs", folder / "store", "fast") == {"whole", "mixed", "heard"}
    return folder


def test_a_mixture_alone_gets_the_stems_that_its_teacher_hears(labelled):
    tracks = {track.name: track for track in Store(labelled / "store").tracks()}
    assert {name: track.parts for name, track in tracks.items()} == {
        "whole": ("mixture", "vocals", "accompaniment"),
        "mixed": ("mixture", "vocals"),
        "heard": ("mixture",),  # nobody is validated on a teacher's labels
    }
    assert {name: track.teacher for name, track in tracks.items()} == {"whole": (), "mixed": ("fast",), "heard": ()}
    stems = Separator.load(stems=["vocals"])(make_song(1, 8.0, RATE)["mixture"], RATE)
    expected = Spectral(SETTINGS)(stems["vocals"])
    assert (tracks["mixed"].crop("vocals") - expected).abs().max() < 2e-3 * expected.abs().max()


def test_another_teacher_labels_again_and_the_same_one_does_not(labelled):
    assert build(labelled / "songs", labelled / "store", "fast") == set()
    assert build(labelled / "songs", labelled / "store", "pretrained/all.safetensors") == {"mixed"}
    assert build(labelled / "songs", labelled / "store", "fast", depth=12) == {"mixed"}
    assert build(labelled / "songs", labelled / "store", "fast") == {"mixed"}
    assert build(labelled / "songs", labelled / "store", "fast", depth=27) == set()


def test_the_share_of_a_song_that_is_labelled_is_told(labelled, tmp_path):
    tracks = label(find_tracks("FOLDER", labelled / "songs"), Teacher(("fast",), ("vocals",)))
    jobs = plan_store(tmp_path, SETTINGS, [track for track in tracks if track.name == "mixed"], ["vocals"]).jobs
    shares: list[float] = []
    for _, result in run_jobs(partial(build_song, tmp_path, SETTINGS), jobs, 4, sizes=[8.0], progress=shares.append):
        assert result == []
    assert len(shares) > 1 and shares == sorted(shares) and 0 < shares[0] < shares[-1] == 8


def test_weights_that_have_not_learned_a_stem_are_refused():
    with pytest.raises(UserError, match="do not separate bass"):
        Teacher(("pretrained/vocals.safetensors",), ("vocals", "bass"))


def test_labels_of_a_teacher_are_never_taken_for_true_ones(labelled):
    stores = {str(labelled / "store"): 1.0}
    config = parse_config({"data": {"crop_frames": 64, "pseudo_labelled": 1.0, "stores": stores}}, "")
    pools = open_pools(["vocals"], config.data, SETTINGS, 15_000)
    assert pools.labelled_songs == ["whole"] and pools.whole.songs == {"whole"}
    assert pools.targets["vocals"].songs == pools.rests.songs - {"mixed"} == {"whole"}
    assert pools.pseudo_labelled.songs == {"mixed"} and pools.mixtures.songs == {"whole", "mixed"}
    config = parse_config({"data": {"crop_frames": 64, "labelled": 0, "stores": {str(labelled / "store"): 1.0}}}, "")
    assert open_pools(["vocals"], config.data, SETTINGS, 15_000).pseudo_labelled.songs == {"mixed"}


def is_crop_of(source, whole) -> bool:
    """Whether a complex spectrogram is a stretch of another, but for its level."""
    lags = [whole[..., start : start + 64] for start in range(whole.shape[-1] - 63)]
    scale = source.abs().max() / torch.stack([lag.abs().max() for lag in lags])
    errors = [(source - s * lag).abs().max() / source.abs().max() for s, lag in zip(scale, lags, strict=True)]
    return min(errors) < 1e-3


@pytest.mark.parametrize(("remix", "labels"), [(0.0, None), (1.0, None), (0.0, 0)])
def test_examples_that_a_teacher_labelled_are_its_stems_with_new_gains(labelled, remix, labels):
    """A remix has a true rest beside them; without labels there are no other examples."""
    data = {"crop_frames": 64, "pseudo_labelled": 0.5 if labels == 0 else 1.0, "remix": remix, "labelled": labels}
    data |= {"mute": 0, "gain": [0.5, 0.5], "swap": 0, "flip": 0, "stores": {str(labelled / "store"): 1.0}}
    config = parse_config({"data": data}, "")
    batches = Batches(config, open_pools(["vocals"], config.data, SETTINGS, 15_000))
    bins, store = config.used_bins, Store(labelled / "store")
    mixed, whole = store.track("mixed"), store.track("whole")
    vocals = mixed.crop("vocals", bins=bins)
    rest = whole.crop("accompaniment", bins=bins) if remix else mixed.crop("mixture", bins=bins) - vocals
    for voice, other in batches[0]["sources"]:
        assert is_crop_of(voice, vocals) and is_crop_of(other, rest)


@pytest.mark.parametrize(("depth", "seconds"), [(12, 7), (18, 0)])
def test_how_far_below_the_song_a_silent_stem_lies_can_be_chosen(depth, seconds):
    mixture = 0.1 * torch.randn(2, 8 * RATE, generator=torch.Generator().manual_seed(0))
    spans = silent_spans(10 ** (-15 / 20) * mixture, mixture, RATE, depth)
    assert sum(end - first for first, end in spans) == seconds * RATE


def test_where_a_stem_is_silent():
    mixture = 0.1 * torch.randn(2, 20 * RATE, generator=torch.Generator().manual_seed(0))
    estimate = 0.5 * mixture
    estimate[:, 3 * RATE : 9 * RATE] *= 0.01  # 46 dB below
    estimate[:, 11 * RATE : 14 * RATE] = 0  # too short
    mixture[:, 15 * RATE :] = estimate[:, 15 * RATE :] = 0  # where nothing sounds nothing can be told
    spans = silent_spans(estimate, mixture, RATE)
    assert spans == [(round(3.5 * RATE), round(8.5 * RATE))]
    assert silent_spans(estimate[:, : round(SHORTEST / 2 * RATE)], mixture[:, : round(SHORTEST / 2 * RATE)], RATE) == []


@pytest.mark.parametrize("speed", [Fraction(1), Fraction(9, 10)])
def test_the_frames_of_a_span_hold_what_sounds_in_it(speed):
    first, end = 3 * RATE, 5 * RATE
    pulse = torch.zeros(2, round(8 * RATE / speed))
    pulse[:, round(first / speed)] = pulse[:, round(end / speed)] = 1
    energy = Spectral(SETTINGS)(pulse).abs().square().sum(dim=(0, 1))
    ((begin, stop),) = frames_of([(first / speed, end / speed)], SETTINGS, len(energy))
    centre = [int(energy[: len(energy) // 2].argmax()), len(energy) // 2 + int(energy[len(energy) // 2 :].argmax())]
    assert abs(begin - centre[0]) <= 1 and abs(stop - centre[1]) <= 1


def test_crops_of_a_silent_place_stay_in_it(labelled):
    folder = labelled / "store" / "mixed"
    description = json.loads((folder / "track.json").read_text())
    try:
        (folder / "track.json").write_text(
            json.dumps(description | {"silent": {"vocals": [[10, 40], [100, 170], [200, 290]]}})
        )
        config = parse_config({"data": {"crop_frames": 64, "stores": {str(labelled / "store"): 1.0}}}, "")
        pools = open_pools(["vocals"], config.data, SETTINGS, 15_000)
        assert pools.rests_without["vocals"].songs == {"whole", "mixed"}
        signal = silence_of(Store(labelled / "store").track("mixed"), ["vocals"], 64)
        batches = Batches(config, pools)
        starts = {batches._start(np.random.default_rng(seed), signal) for seed in range(600)}
        assert starts == {*range(100, 107), *range(200, 227)}
    finally:
        (folder / "track.json").write_text(json.dumps(description))
