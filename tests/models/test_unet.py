from __future__ import annotations

import math

import pytest
import torch

from separation.models import UNet, compress

SIZES = [
    {"widths": (6, 8, 8)},
    {"widths": (4, 6), "blocks": (2,)},
    {"widths": (4, 4, 4, 4), "blocks": (1, 2)},
    {"widths": (6,)},
    {"widths": (4, 4), "blocks": (0,)},
    {"widths": (6, 8, 8), "decoder_levels": None, "frequency_levels": None},
    {"widths": (6, 8, 8), "decoder_levels": 0, "frequency_levels": 0},
]


def random_network(targets: int = 1, bins: int = 90, complete: bool = False, **sizes) -> UNet:
    """A small network whose every layer does something."""
    torch.manual_seed(0)
    sizes = {"band_layout": ((32, 2), (64, 4)), "widths": (6, 8, 8), "squeeze": 2} | sizes
    network = UNet(targets, bins, complete, **sizes).eval()
    for parameter in network.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return network


def random_mixture(frames: int, batch: int = 1, bins: int = 90) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 2, bins, frames, generator=generator, dtype=torch.complex64)


@torch.no_grad()
def test_masks_are_shares():
    masks = random_network(targets=4, complete=True)(random_mixture(12))
    assert masks.shape == (1, 4, 2, 90, 12)
    assert masks.min() >= 0
    torch.testing.assert_close(masks.sum(dim=1), torch.ones(1, 2, 90, 12))
    assert masks.std(dim=1).mean() > 0.01  # no target has the same share everywhere


@pytest.mark.parametrize("targets", [1, 2])
@torch.no_grad()
def test_targets_that_are_not_everything_leave_a_rest(targets):
    """The rest has a logit of 0, whatever the targets have: masks are exp(l) / (1 + sum of exp(l))."""
    network = random_network(targets=targets)
    mixture = random_mixture(12, bins=64)
    shares = network.logits(compress(mixture)).exp()
    expected = shares / (1 + shares.sum(dim=1, keepdim=True))
    torch.testing.assert_close(network(mixture), expected)


@pytest.mark.parametrize("zones, first", [(((32, 2), (64, 4)), 32), (((64, 16),), 0)], ids=["eight", "fewer"])
@torch.no_grad()
def test_bins_above_the_network_get_the_mean_mask_of_the_top_bands(zones, first):
    masks = random_network(band_layout=zones)(random_mixture(8))
    top = masks[..., first:64, :].mean(dim=-2)
    for bin in (64, 77, 89):
        torch.testing.assert_close(masks[..., bin, :], top)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@torch.no_grad()
def test_a_mask_depends_on_the_frames_within_context_and_on_no_others(sizes):
    network = random_network(**sizes)
    frames = 4 * (network.context // network.stride + 1) * network.stride
    views = random_mixture(frames)
    masks = network(views)
    reach = 0
    for moved in range(frames // 2, frames // 2 + network.stride):
        changed = views.clone()
        changed[..., moved] += 10
        difference = (network(changed) - masks).abs().amax(dim=(0, 1, 2, 3))
        (affected,) = torch.nonzero(difference, as_tuple=True)
        reach = max(reach, moved - int(affected.min()), int(affected.max()) - moved)
    assert reach <= network.context < reach + max(2, network.stride)


@torch.no_grad()
def test_a_song_moved_by_stride_frames_gives_moved_masks():
    network = random_network()
    views = random_mixture(160)
    moved = network(views[..., network.stride :])
    inside = slice(network.context, -network.context)
    torch.testing.assert_close(moved[..., inside], network(views)[..., network.stride :][..., inside])


@torch.no_grad()
def test_songs_of_a_batch_do_not_see_each_other():
    network, views = random_network(), random_mixture(16, batch=3)
    together = network.train()(views)
    alone = torch.cat([network.eval()(song[None]) for song in views])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_the_input_is_centred_and_scaled():
    network, views = random_network(), compress(random_mixture(8, bins=64))
    expected = network.logits(views)
    network.fit_input(torch.full((4, 90), 3.0), torch.full((4, 90), 0.5))
    torch.testing.assert_close(network.logits(2 * views + 3), expected)


@torch.no_grad()
def test_silence_gives_masks_that_are_numbers():
    assert random_network()(torch.zeros(1, 2, 64, 8, dtype=torch.complex64)).isfinite().all()


def test_every_parameter_learns():
    network = UNet(2, 64, band_layout=((32, 4), (64, 8)), widths=(6, 8, 8))
    masks = network(random_mixture(8, bins=64))
    masks[:, 0].square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_an_untrained_generator_shares_out_evenly_enough_to_learn():
    torch.manual_seed(0)
    masks = UNet(4, 64, band_layout=((32, 4), (64, 8)), widths=(6, 8, 8))(random_mixture(8, bins=64))
    assert masks.min() > 0.02 and masks.max() < 0.9


@pytest.mark.parametrize(
    ("sizes", "complaint"),
    [
        ({"band_layout": ((64, 4),), "widths": (4, 4, 4, 4, 4, 4)}, "bands must be a multiple of 32 .*, not 16"),
        ({"band_layout": ((63, 3),), "widths": (4,)}, "even number of bins, not 3"),
        ({"band_layout": ((80, 4),)}, "end at bin 64"),
        ({"widths": (0, 4)}, "widths must be 1 to 16 numbers from 1 to 8,192"),
        ({"blocks": (10**9,)}, "blocks must be 1 to 16 numbers from 0 to 64"),
        ({"squeeze": 0}, "squeeze must be"),
        ({"decoder_levels": -1}, "decoder_levels must be"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, complaint):
    with pytest.raises(ValueError, match=complaint):
        UNet(2, 64, **sizes)


@torch.no_grad()
def test_compressed_input_has_bins_of_the_network_only():
    """What training crops spectrograms to gives the same masks there."""
    network, mixture = random_network(), random_mixture(8)
    assert network.used_bins == 64
    torch.testing.assert_close(network(mixture[:, :, :64]), network(mixture)[:, :, :, :64])


def test_compression_shows_left_right_middle_and_side():
    left, right = torch.full((1, 1), 16 + 0j), torch.full((1, 1), -16j)
    views = compress(torch.stack([left, right]))
    assert views.shape == (4, 1, 1)
    diagonal = math.hypot(8, 8)  # |16 - 16j| / 2, and |16 + 16j| / 2
    floor = 1e-10**0.125
    expected = [16**0.25 - floor, 16**0.25 - floor, diagonal**0.25 - floor, diagonal**0.25 - floor]
    assert views.flatten().tolist() == pytest.approx(expected, rel=1e-5)


def test_compression_tells_a_wide_signal_from_one_in_the_middle():
    middle = compress(torch.full((2, 1, 1), 1 + 0j))
    wide = compress(torch.tensor([1 + 0j, -1 + 0j])[:, None, None])
    assert torch.equal(middle[:2], wide[:2])
    assert middle[3].item() == wide[2].item() == 0
    assert middle[2].item() == wide[3].item() > 0.9


def test_silence_is_compressed_to_zero_with_a_finite_gradient():
    silence = torch.zeros(2, 3, 4, dtype=torch.complex64, requires_grad=True)
    views = compress(silence)
    views.sum().backward()
    assert views.abs().max() == 0
    assert silence.grad.isfinite().all()
