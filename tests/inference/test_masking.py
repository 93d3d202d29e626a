from __future__ import annotations

import pytest
import torch
from music import make_song
from networks import random_network

from separation.stems import STEMS


@pytest.fixture(scope="module")
def network():
    return random_network(("vocals", "bass"))


@pytest.fixture(scope="module")
def mixture(network):
    return network.spectral(make_song(0, 0.5)["mixture"])[None]


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 7, 50])
def test_there_is_an_estimate_for_each_target(network, mixture, frames):
    mixture = mixture[..., :frames]
    assert network.sources == ("vocals", "bass", "no_vocals_bass")
    assert network(mixture).shape == (1, 2, *mixture.shape[1:])


@torch.no_grad()
def test_a_target_is_its_mask_times_the_mixture(network, mixture):
    frames = mixture.shape[-1] // network.stride * network.stride
    mixture = mixture[..., :frames]
    masks = network.generator(mixture)
    torch.testing.assert_close(network(mixture), masks * mixture[:, None])


@torch.no_grad()
def test_all_four_stems_sum_to_the_mixture(mixture):
    network = random_network(STEMS)
    assert network.sources == STEMS
    torch.testing.assert_close(network(mixture).sum(dim=1), mixture)


@torch.no_grad()
def test_a_target_is_a_share_of_the_mixture_in_its_phase(network, mixture):
    shares = network(mixture) / mixture[:, None]
    sounding = (mixture.abs() > 1e-3)[:, None].expand_as(shares)
    assert shares[sounding].imag.abs().max() < 1e-4
    assert shares[sounding].real.min() > -1e-4 and shares[sounding].real.max() < 1 + 1e-4


@torch.no_grad()
def test_what_is_above_the_band_of_the_network_is_shared_out(network, mixture):
    bins = network.generator.used_bins
    above = network(mixture)[..., bins:, :]
    assert above.shape[-2] == network.settings.bins - bins > 0
    assert all(target.abs().max() > 0 for target in above[0])


@torch.no_grad()
def test_silence_stays_silence(network, mixture):
    assert network(torch.zeros_like(mixture)).abs().max() == 0


@torch.no_grad()
def test_both_channels_are_looked_at_together(network, mixture):
    changed = mixture.clone()
    changed[:, 1] *= -1
    assert not torch.allclose(network(changed)[:, :, 0], network(mixture)[:, :, 0])


@torch.no_grad()
def test_polarity_does_not_matter(network, mixture):
    torch.testing.assert_close(network(-mixture), -network(mixture))
