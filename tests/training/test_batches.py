"""Batches of songs whose vocals and accompaniments are sines in bins of their own, to tell everything apart."""

from __future__ import annotations

import math
import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import refused
from music import TINY, add_track
from networks import PAPER
from torch import Tensor

from separation.dataset.store import Store, target_of
from separation.stems import MIXTURE
from separation.training import batches as batches_module
from separation.training.batches import Batch, Batches, equaliser_factors, load
from separation.training.config import Config, LossWeights, parse_config
from separation.training.sources import LEVELS, SourcePool, SourcePools, levelled, open_pools

SONGS, FRAMES, BINS = 5, 12, 96
NARROW = 2000.0
"""Bandwidth of the last song, in hertz; the others have 4000."""
LEVEL = math.sqrt(1.6 * 10 ** (LEVELS["mixture"] / 10)) * math.sqrt(TINY.n_fft) / 4
"""Magnitude of the louder channel of every sine in its bin, in songs of two sines that are as loud as in training."""


def sine(bin: int, left: float = 0.5, right: float = 0.25) -> Tensor:
    """A sine that is louder on the left. At a bin that is a multiple of 4 all its frames are the same."""
    time = torch.arange(TINY.sample_rate, dtype=torch.float64) / TINY.sample_rate
    tone = torch.sin(2 * math.pi * bin * TINY.sample_rate / TINY.n_fft * time).float()
    return torch.stack([left * tone, right * tone])


def origin(source: Tensor) -> int:
    """The song that a spectrogram `[2 channels, bins, frames]` is taken from."""
    return (int(source.abs().sum(dim=(0, 2)).argmax()) - 4) // 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("batches") / "store"
    for n in range(SONGS):
        song = {"vocals": sine(4 + 8 * n), "accompaniment": sine(8 + 8 * n)}
        song["mixture"] = song["vocals"] + song["accompaniment"]
        add_track(folder, TINY, str(n), song, bandwidth=NARROW if n == SONGS - 1 else None)
    return folder


def make_config(folder: Path, losses: dict | None = None, schedule: dict | None = None, **data) -> Config:
    values = {
        "spectral": {"sample_rate": TINY.sample_rate, "n_fft": TINY.n_fft, "hop": TINY.hop},
        "generator": {"band_layout": [[BINS, 4]], "widths": [4, 4]},
        "discriminator": {"widths": [4, 4], "scales": 1},
        "data": {
            "stores": {str(folder): 1},
            "crop_frames": FRAMES,
            "batch_size": 4,
            "unlabelled_batch_size": 2,
            **data,
        },
        "losses": PAPER if losses is None else losses,
        "schedule": {"steps": 50, **(schedule or {})},
    }
    return parse_config(values, "test")


def pools_of(config: Config) -> SourcePools:
    return open_pools(config.targets, config.data, config.spectral, 3000.0)


def make_batches(folder: Path, rank: int = 0, processes: int = 1, **settings) -> Batches:
    config = make_config(folder, **settings)
    return Batches(config, pools_of(config), rank, processes)


def assert_same(one: Batch, other: Batch) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def test_a_batch_holds_what_the_losses_take(folder):
    batch = make_batches(folder)[3]
    assert {name: tuple(value.shape) for name, value in batch.items()} == {
        "sources": (4, 2, 2, BINS, FRAMES),
        "labelled": (4, 1),
        "pseudo_labelled": (4,),
        "mixtures": (2, 2, BINS, FRAMES),
        "rests": (2, 2, BINS, FRAMES),
        "target": (),
    }
    assert batch["sources"].dtype == batch["mixtures"].dtype == torch.complex64


def test_what_has_no_weight_is_not_made(folder):
    assert make_batches(folder, losses={})[0].keys() == {"sources", "labelled", "pseudo_labelled"}
    unsupervised = make_batches(folder, losses=PAPER | {"supervised_target": 0, "supervised_rest": 0})
    assert unsupervised[0].keys() == {"mixtures", "rests", "target"}


def test_unlabelled_music_comes_at_every_nth_step(folder):
    batches = make_batches(folder, schedule={"unlabelled_every": 3})
    assert ["mixtures" in batches[step] for step in range(7)] == [True, False, False, True, False, False, True]
    assert all("sources" in batches[step] for step in range(7))


def test_a_batch_depends_on_the_seed_and_its_step_alone(folder):
    config = make_config(folder)
    batches = Batches(config, pools_of(config))
    for step in range(5):
        batches[step]
    assert_same(batches[7], Batches(config, pools_of(config))[7])
    assert not torch.equal(batches[7]["sources"], batches[8]["sources"])
    other_seed = Batches(replace(config, seed=1), pools_of(config))
    assert not torch.equal(batches[7]["sources"], other_seed[7]["sources"])
    examples = batches[7]["sources"]
    assert not any(torch.equal(examples[0], example) for example in examples[1:])


def test_processes_share_a_batch_out(folder):
    whole = make_batches(folder)[5]
    shares = [make_batches(folder, rank=rank, processes=2)[5] for rank in range(2)]
    for name in ("sources", "labelled", "pseudo_labelled", "mixtures", "rests"):
        interleaved = torch.stack([share[name] for share in shares], dim=1).flatten(0, 1)
        assert torch.equal(interleaved, whole[name])
    assert [share["target"] for share in shares] == [whole["target"]] * 2


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_loaded_in_order_from_any_step_on(folder, workers):
    batches = make_batches(folder, workers=workers, schedule={"steps": 7})
    loaded = list(load(batches, 3, torch.device("cpu")))
    assert len(loaded) == 4
    for step, batch in enumerate(loaded, start=3):
        assert_same(batch, batches[step])


def test_workers_do_without_shared_memory_where_there_is_little(folder, monkeypatch):
    """Docker gives 64 MB of it by default, in which a worker of torch dies or waits forever."""
    batches = make_batches(folder, workers=2, schedule={"steps": 4})
    monkeypatch.setattr(batches_module, "SHARED_MEMORY", "/")  # there is room here
    assert not batches_module._is_shared_memory_small(batches)
    monkeypatch.setattr(batches_module.shutil, "disk_usage", lambda _: SimpleNamespace(free=100_000))
    assert batches_module._is_shared_memory_small(batches)
    arrays = batches_module._Reporting(batches, True)[0]
    assert all(isinstance(value, np.ndarray) for value in arrays.values())
    for step, batch in enumerate(load(batches, 0, torch.device("cpu"))):
        assert_same(batch, batches[step])


def test_batches_can_be_sent_to_a_process_without_their_music(folder):
    batches = make_batches(folder)
    batch = batches[2]
    sent = pickle.dumps(batches)
    assert len(sent) < 20_000
    assert_same(pickle.loads(sent)[2], batch)


def test_the_sources_of_one_song_keep_their_balance(folder):
    """The same crop of the same song, times one gain: their sum is a crop of the mixture, times that gain."""
    store = {track.name: track for track in Store(folder).tracks()}
    batches = make_batches(folder, remix=0, swap=0)
    for step in range(5):
        for vocals, rest in batches[step]["sources"]:
            assert origin(vocals) == origin(rest)
            song = levelled(target_of(store[str(origin(vocals))], MIXTURE))
            crops = song.crop(0, song.track.frames, BINS).unfold(-1, FRAMES, 1)  # [2, bins, starts, frames]
            mixture = vocals + rest
            gains = (mixture[..., None, :] * crops.conj()).sum((0, 1, 3)).real / crops.abs().square().sum((0, 1, 3))
            errors = (mixture[..., None, :] - gains[:, None] * crops).abs().amax((0, 1, 3))
            best = int(errors.argmin())
            assert errors[best] < 1e-2 * mixture.abs().max()
            assert 0.25 <= abs(float(gains[best])) <= 1.26


def test_remixes_take_their_sources_from_any_songs_at_levels_of_their_own(folder):
    batches = make_batches(folder, remix=1, mute=0)
    examples = [sources for step in range(10) for sources in batches[step]["sources"]]
    pairs = Counter((origin(vocals), origin(rest)) for vocals, rest in examples)
    others = sum(count for (vocals, rest), count in pairs.items() if vocals != rest)
    assert 0.6 < others / len(examples) < 1  # 4 in 5
    assert {vocals for vocals, _ in pairs} == {rest for _, rest in pairs} == set(range(SONGS))
    levels = torch.stack(examples).abs().amax(dim=(2, 3, 4)) / LEVEL
    assert 0.24 < levels.min() < 0.45 and 1.05 < levels.max() < 1.26
    assert (levels[:, 0] - levels[:, 1]).abs().mean() > 0.2


def test_about_the_wanted_share_is_remixed(folder):
    batches = make_batches(folder, remix=0.5)
    examples = [sources for step in range(40) for sources in batches[step]["sources"]]
    other = sum(origin(vocals) != origin(rest) for vocals, rest in examples) / len(examples)
    assert 0.25 < other < 0.55  # half of them, less the fifth that meets its own song again


@pytest.mark.parametrize(("swap", "share"), [(0, 0), (1, 1), (0.5, 0.5)])
def test_left_and_right_are_swapped(folder, swap, share):
    batches = make_batches(folder, swap=swap, remix=1, mute=0)
    sources = torch.cat([batches[step]["sources"].flatten(0, 1) for step in range(20)])
    left, right = sources.abs().amax(dim=(2, 3)).unbind(1)
    assert float((right > left).float().mean()) == pytest.approx(share, abs=0.15)


@pytest.mark.parametrize(("mono", "share"), [(0, 0), (1, 1), (0.5, 0.5)])
def test_whole_examples_are_mono(folder, mono, share):
    batches = make_batches(folder, mono=mono, remix=1, mute=0)
    steps = [batches[step] for step in range(20)]
    pairs = [torch.stack([step["mixtures"], step["rests"]], dim=1) for step in steps]
    for examples in (torch.cat([step["sources"] for step in steps]), torch.cat(pairs)):
        same = (examples[:, :, 0] == examples[:, :, 1]).all(dim=(2, 3))  # [examples, sources]
        assert (same[:, 0] == same[:, 1]).all()
        assert float(same[:, 0].float().mean()) == pytest.approx(share, abs=0.2)


@pytest.mark.parametrize(("flip", "share"), [(0, 0), (1, 1), (0.5, 0.5)])
def test_polarity_is_inverted(folder, flip, share):
    batches = make_batches(folder, flip=flip, remix=1, mute=0)
    rests = [rest for step in range(20) for _, rest in batches[step]["sources"]]
    inverted = [float(rest[0, 8 + 8 * origin(rest)].imag.mean()) > 0 for rest in rests]  # a sine is -i times its level
    assert sum(inverted) / len(inverted) == pytest.approx(share, abs=0.15)


@pytest.mark.parametrize("mute", [0, 1])
def test_sources_of_remixes_are_muted(folder, mute):
    sources = make_batches(folder, mute=mute, remix=1)[0]["sources"]
    assert ((sources.abs().amax(dim=(2, 3, 4)) == 0) == bool(mute)).all()
    assert make_batches(folder, mute=1, remix=0)[0]["sources"].abs().amax(dim=(2, 3, 4)).min() > 0


@pytest.mark.parametrize("name", ["sources", "mixtures", "rests"])
def test_the_equaliser_is_smooth_and_keeps_within_its_gain(folder, name):
    flat = {"remix": 1, "mute": 0, "gain": [1, 1], "flip": 0, "swap": 0}
    batches = make_batches(folder, **flat, equalise=6.0)
    signals = torch.cat([batches[step][name].reshape(-1, 2, BINS, FRAMES) for step in range(10)])
    decibels = 20 * torch.log10(signals.abs().amax(dim=(1, 2, 3)) / LEVEL)
    assert decibels.abs().max() < 6.1 and decibels.std() > 1


def test_above_what_a_file_can_hold_every_source_is_silent(tmp_path):
    """Noise in every bin, out of a song of full bandwidth, remixed with a song whose file ends at 2 kHz."""
    generator = torch.Generator().manual_seed(0)
    for name, bandwidth in (("wide", None), ("narrow", NARROW)):
        song = {part: 0.1 * torch.randn(2, 8000, generator=generator) for part in ("vocals", "accompaniment")}
        add_track(tmp_path, TINY, name, {**song, "mixture": sum(song.values())}, bandwidth=bandwidth)
    batches, seen = make_batches(tmp_path, remix=1, mute=0, losses={}), Counter()
    edge = TINY.bin_of(0.95 * NARROW)
    for step in range(5):
        names = [{draw.signal.track.name for draw in example.draws} for example in batches.draw(step)["sources"]]
        for sources, of in zip(batches[step]["sources"], names, strict=True):
            sounds = sources.abs().amax(dim=(0, 1, 3)) > 0
            assert sounds[:edge].all() and sounds[edge:].all() == sounds[edge:].any() == ("narrow" not in of)
            seen[frozenset(of)] += 1
    assert len(seen) == 3


def test_pairs_know_one_target_and_the_sum_of_the_others(tmp_path):
    stems = {"vocals": sine(6), "drums": sine(14), "bass": sine(22), "other": sine(30)}
    add_track(tmp_path, TINY, "whole", {**stems, "mixture": sum(stems.values())})
    add_track(tmp_path, TINY, "instrumental", {"accompaniment": sine(38)})
    config = replace(make_config(tmp_path, mute=0), targets=("vocals", "drums", "bass", "other"))
    config = replace(config, data=replace(config.data, pairs={"vocals": 0.3, "bass": 0.2}))
    batches, seen = Batches(config, pools_of(config)), Counter()
    for step in range(40):
        batch = batches[step]
        for sources, known in zip(batch["sources"], batch["labelled"], strict=True):
            levels = sources.sum(dim=0).abs().amax(dim=0).median(dim=-1).values
            present = {bin for bin in (6, 14, 22, 30, 38) if levels[bin] > 0.05}
            seen[tuple(known.tolist())] += 1
            if known.sum() == 1:
                index = int(known.argmax())
                assert sources[index].abs().sum(dim=(0, 2)).argmax() == (6, 14, 22, 30)[index]
                assert present == {6, 14, 22, 30} or (index == 0 and present == {6, 38})
            else:
                assert present == {6, 14, 22, 30}
    shares = {known: count / seen.total() for known, count in seen.items()}
    assert shares == {
        (1, 0, 0, 0): pytest.approx(0.3, abs=0.12),
        (0, 0, 1, 0): pytest.approx(0.2, abs=0.12),
        (1, 1, 1, 1): pytest.approx(0.5, abs=0.12),
    }


def test_pairs_need_music_without_the_target(tmp_path):
    add_track(tmp_path, TINY, "song", {"vocals": sine(6), "mixture": sine(6) + sine(14)})
    config = make_config(tmp_path, pairs={"vocals": 0.3})
    pools = pools_of(config)
    pools.rests_without["vocals"] = SourcePool(config.data.stores)
    with refused("nothing_to_learn"):
        Batches(replace(config, losses=LossWeights()), pools)


def test_mixtures_and_rests_come_from_different_songs(folder):
    batches = make_batches(folder)
    for step in range(20):
        for mixture, rest in zip(batches[step]["mixtures"], batches[step]["rests"], strict=True):
            assert origin(mixture) != origin(rest)
            assert SONGS - 1 not in (origin(mixture), origin(rest))  # its bandwidth is too low


def test_a_single_song_is_its_own_other(tmp_path):
    song = {"vocals": sine(4), "accompaniment": sine(8), "mixture": sine(4) + sine(8)}
    add_track(tmp_path, TINY, "only", song)
    batch = make_batches(tmp_path)[0]
    assert origin(batch["mixtures"][0]) == origin(batch["rests"][0]) == 0


def test_several_targets_take_turns(tmp_path):
    stems = {"vocals": sine(6), "drums": sine(14), "bass": sine(22), "other": sine(30)}
    for name in ("a", "b"):
        add_track(tmp_path, TINY, name, {**stems, "mixture": sum(stems.values())})
    config = replace(make_config(tmp_path, schedule={"unlabelled_every": 2}), targets=("drums", "bass"))
    batches = Batches(config, pools_of(config))
    assert [int(batches[step]["target"]) for step in range(0, 8, 2)] == [0, 1, 0, 1]
    for step, absent in ((0, 14), (2, 22)):
        levels = batches[step]["rests"].abs().amax(dim=(0, 1, 3))
        present = {bin for bin in (6, 14, 22, 30) if levels[bin] > 0.1}
        assert present == {6, 14, 22, 30} - {absent}
    drums, bass, rest = batches[1]["sources"].abs().amax(dim=(0, 2, 4))
    assert [int(source.argmax()) for source in (drums, bass)] == [14, 22]
    assert {bin for bin in (6, 14, 22, 30) if rest[bin] > 0.1} == {6, 30}


def test_songs_without_labels_train_without_the_supervised_terms(folder):
    batches = make_batches(folder, labelled=0, remaining="split")
    assert batches[0].keys() == {"mixtures", "rests", "target"}


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"processes": 3}, "bad_config"),
        ({"processes": 3, "batch_size": 3}, "bad_config"),
        ({"labelled": 0}, "nothing_to_learn"),
        ({"labelled": 0, "remaining": "split", "schedule": {"unlabelled_every": 2}}, "nothing_to_learn"),
    ],
)
def test_what_cannot_work_is_refused(folder, settings, code):
    with refused(code):
        make_batches(folder, **settings)


def test_processes_share_only_what_is_used(folder):
    """A run without losses for unlabelled music has no use for the size of its batches."""
    assert make_batches(folder, processes=3, batch_size=3, losses={})[0].keys() == {
        "sources",
        "labelled",
        "pseudo_labelled",
    }


def test_without_labels_there_is_something_to_learn_from_the_first_step_on(folder):
    settings = {"labelled": 0, "remaining": "split", "schedule": {"adversarial_from": 2}}
    with refused("nothing_to_learn"):
        make_batches(folder, **settings, losses={"adversarial_rest": 1})
    make_batches(folder, **settings | {"schedule": {}}, losses={"adversarial_rest": 1})
    make_batches(folder, **settings, losses={"adversarial_rest": 1, "exchange": 1})


def test_nothing_to_learn_from_is_refused(folder):
    with refused("nothing_to_learn"):
        make_batches(folder, labelled=0, remaining="drop", losses={})


def test_an_equaliser_is_smooth_and_goes_through_its_gains():
    gains = np.random.default_rng(0).uniform(-6, 6, 8)
    decibels = 20 * torch.log10(equaliser_factors(gains, 96))
    at_octaves = [2**octave - 1 for octave in range(7)]
    assert decibels[at_octaves].tolist() == pytest.approx(gains[:7].tolist(), abs=1e-4)
    assert decibels[16:].diff().abs().max() < 12 * math.log2(17 / 16) + 1e-3  # at most 12 dB an octave
