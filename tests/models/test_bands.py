from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from separation.models.unet import BandMerge, BandSplit, layout_zones, overlapping

ZONES = layout_zones(((8, 2), (24, 4), (40, 8)), 40)  # bands end at 2, 4, 6, 8, 12, 16, 20, 24, 32 and 40
ENDS = [2, 4, 6, 8, 12, 16, 20, 24, 32, 40]


def test_zones_follow_each_other():
    assert [tuple(zone) for zone in ZONES] == [(0, 8, 2), (8, 24, 4), (24, 40, 8)]
    assert [zone.bands for zone in ZONES] == [4, 4, 2]


@pytest.mark.parametrize(
    ("zones", "complaint"),
    [
        (((63, 3),), "even number of bins, not 3"),
        (((64, 0),), "even number of bins, not 0"),
        (((64, 4), (70, 4)), "from bin 64 to 70 cannot be filled with bands of 4"),
        (((64, 4), (32, 4)), "from bin 64 to 32 cannot be filled"),
        (((104, 4),), "end at bin 100"),
        ((), "1 to 64 zones"),
    ],
)
def test_zones_that_bands_do_not_fill_are_refused(zones, complaint):
    with pytest.raises(ValueError, match=complaint):
        layout_zones(zones, 100)


def test_a_zone_sees_half_a_band_of_its_neighbours_and_silence_outside():
    bins = torch.arange(1.0, 41)
    low, middle, high = overlapping(bins, ZONES)
    assert low.tolist() == [0, *range(1, 10)]
    assert middle.tolist() == [*range(7, 27)]
    assert high.tolist() == [*range(21, 41), 0, 0, 0, 0]


@torch.no_grad()
@pytest.mark.parametrize("bin", range(40))
def test_a_bin_is_seen_by_its_band_and_the_nearer_neighbour(bin):
    torch.manual_seed(0)
    split, spectrum = BandSplit(1, 3, ZONES), torch.randn(1, 1, 4, 40)
    changed = spectrum.clone()
    changed[..., bin] += 1
    (bands,) = torch.nonzero((split(changed) - split(spectrum)).abs().amax(dim=(0, 1, 2)), as_tuple=True)
    expected = []
    for band, (first, end) in enumerate(pairwise([0, *ENDS])):
        half = (end - first) // 2
        if first - half <= bin < end + half:
            expected.append(band)
    assert bands.tolist() == expected


@torch.no_grad()
@pytest.mark.parametrize("band", range(10))
def test_a_band_gives_the_bins_of_its_zone_that_lie_within_half_a_band_of_it(band):
    torch.manual_seed(0)
    merge, bands = BandMerge(3, 2, ZONES), torch.randn(1, 3, 4, 10)
    merge.norm = torch.nn.Identity()  # which lets every band of a frame see all others
    changed = bands.clone()
    changed[..., band] += 1
    (bins,) = torch.nonzero((merge(changed) - merge(bands)).abs().amax(dim=(0, 1, 2)), as_tuple=True)
    first, end = [0, *ENDS][band], ENDS[band]
    (zone,) = (zone for zone in ZONES if zone.first <= first < zone.end)
    half = zone.width // 2
    assert bins.tolist() == list(range(max(first - half, zone.first), min(end + half, zone.end)))


@torch.no_grad()
def test_every_bin_comes_back():
    assert BandMerge(3, 2, ZONES)(BandSplit(4, 3, ZONES)(torch.randn(2, 4, 5, 40))).shape == (2, 2, 5, 40)


@pytest.mark.parametrize("width", [2, 8, 16, 32])
def test_bfloat16_gives_what_float32_does_but_for_rounding(width):
    """Some processors' kernels give noise instead; see `separation.models.unet`."""
    torch.manual_seed(0)
    zones = layout_zones(((10 * width, width),), 10 * width)
    split, merge = BandSplit(4, 24, zones), BandMerge(24, 2, zones)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        for module in (split, merge):
            module.zero_grad()
        x = torch.randn(2, 4, 30, 10 * width, generator=torch.Generator().manual_seed(1)).requires_grad_()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            bands = split(x)
            bands.retain_grad()
            bins = merge(bands)
        bins.float().square().sum().backward()
        gradients = [parameter.grad for module in (split, merge) for parameter in module.parameters()]
        found.append([bands.detach(), bins.detach(), x.grad, bands.grad, *gradients])
    for exact, rounded in zip(*found, strict=True):
        assert (rounded.float() - exact).norm() < 0.03 * exact.norm()


def test_bands_are_those_of_wide_convolutions():
    split, merge = BandSplit(4, 3, ZONES), BandMerge(3, 2, ZONES)
    spectrum = torch.randn(2, 4, 5, 40)
    bands = split(spectrum)
    wide = [layer(piece) for layer, piece in zip(split.layers, overlapping(spectrum, ZONES), strict=True)]
    torch.testing.assert_close(bands, torch.cat(wide, dim=-1))
    pieces = merge.norm(bands).split([zone.bands for zone in ZONES], dim=-1)
    wide = [layer(piece) for layer, piece in zip(merge.layers, pieces, strict=True)]
    torch.testing.assert_close(merge(bands), torch.cat(wide, dim=-1))
