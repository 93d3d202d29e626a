from __future__ import annotations

import pytest
import torch

from separation.models import Generator
from separation.models.generator import pad_frames

SIZES = [
    {"widths": (6, 8, 8)},
    {"widths": (4, 6), "blocks": (2,)},
    {"widths": (4, 4, 4, 4), "blocks": (1, 2)},
    {"widths": (6,)},
    {"widths": (4, 4), "blocks": (0,)},
    {"widths": (6, 8, 8), "decoder_levels": None, "frequency_levels": None},
    {"widths": (6, 8, 8), "decoder_levels": 0, "frequency_levels": 0},
]


def random_generator(targets: int = 1, **sizes) -> Generator:
    """A small generator whose every layer does something."""
    torch.manual_seed(0)
    sizes = {"zones": ((32, 2), (64, 4)), "widths": (6, 8, 8), "squeeze": 2} | sizes
    generator = Generator(targets, **sizes).eval()
    for parameter in generator.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return generator


def random_views(frames: int, batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, 4, 64, frames, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_masks_are_shares():
    masks = random_generator(targets=4, complete=True)(random_views(12), 90)
    assert masks.shape == (1, 4, 2, 90, 12)
    assert masks.min() >= 0
    torch.testing.assert_close(masks.sum(dim=1), torch.ones(1, 2, 90, 12))
    assert masks.std(dim=1).mean() > 0.01  # no target has the same share everywhere


@pytest.mark.parametrize("targets", [1, 2])
@torch.no_grad()
def test_targets_that_are_not_everything_leave_a_rest(targets):
    """The rest has a log-share of 0, whatever the targets have: masks are exp(l) / (1 + sum of exp(l))."""
    generator = random_generator(targets=targets)
    shares = generator.logits(random_views(12)).exp()
    expected = shares / (1 + shares.sum(dim=1, keepdim=True))
    torch.testing.assert_close(generator(random_views(12), 64), expected)


@pytest.mark.parametrize("zones, first", [(((32, 2), (64, 4)), 32), (((64, 16),), 0)], ids=["eight", "fewer"])
@torch.no_grad()
def test_bins_above_the_network_get_the_mean_mask_of_the_top_bands(zones, first):
    masks = random_generator(zones=zones)(random_views(8), 90)
    top = masks[..., first:64, :].mean(dim=-2)
    for bin in (64, 77, 89):
        torch.testing.assert_close(masks[..., bin, :], top)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@torch.no_grad()
def test_a_mask_depends_on_the_frames_within_context_and_on_no_others(sizes):
    generator = random_generator(**sizes)
    frames = 4 * (generator.context // generator.stride + 1) * generator.stride
    views = random_views(frames)
    masks = generator(views, 64)
    reach = 0
    for moved in range(frames // 2, frames // 2 + generator.stride):
        changed = views.clone()
        changed[..., moved] += 10
        difference = (generator(changed, 64) - masks).abs().amax(dim=(0, 1, 2, 3))
        (affected,) = torch.nonzero(difference, as_tuple=True)
        reach = max(reach, moved - int(affected.min()), int(affected.max()) - moved)
    assert reach <= generator.context < reach + max(2, generator.stride)


@torch.no_grad()
def test_a_song_moved_by_stride_frames_gives_moved_masks():
    generator = random_generator()
    views = random_views(160)
    moved = generator(views[..., generator.stride :], 64)
    inside = slice(generator.context, -generator.context)
    torch.testing.assert_close(moved[..., inside], generator(views, 64)[..., generator.stride :][..., inside])


@torch.no_grad()
def test_songs_of_a_batch_do_not_see_each_other():
    generator, views = random_generator(), random_views(16, batch=3)
    together = generator.train()(views, 64)
    alone = torch.cat([generator.eval()(song[None], 64) for song in views])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_the_input_is_centred_and_scaled():
    generator, views = random_generator(), random_views(8)
    expected = generator(views, 64)
    generator.input_mean += 3.0
    generator.input_scale *= 0.5
    torch.testing.assert_close(generator(2 * views + 3, 64), expected)


@torch.no_grad()
def test_silence_gives_masks_that_are_numbers():
    assert random_generator()(torch.zeros(1, 4, 64, 8), 64).isfinite().all()


def test_every_parameter_learns():
    generator = Generator(2, zones=((32, 4), (64, 8)), widths=(6, 8, 8))
    masks = generator(random_views(8), 64)
    masks[:, 0].square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in generator.parameters())


def test_an_untrained_generator_shares_out_evenly_enough_to_learn():
    torch.manual_seed(0)
    masks = Generator(4, zones=((32, 4), (64, 8)), widths=(6, 8, 8))(random_views(8), 64)
    assert masks.min() > 0.02 and masks.max() < 0.9


@pytest.mark.parametrize(
    ("sizes", "complaint"),
    [
        ({"zones": ((64, 4),), "widths": (4, 4, 4, 4, 4, 4)}, "bands must be a multiple of 32 .*, not 16"),
        ({"zones": ((63, 3),), "widths": (4,)}, "even number of bins, not 3"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, complaint):
    with pytest.raises(ValueError, match=complaint):
        Generator(2, **sizes)


@pytest.mark.parametrize(("frames", "padded"), [(1, 8), (7, 8), (8, 8), (9, 16)])
def test_frames_are_padded_with_silence_up_to_a_multiple(frames, padded):
    signal = torch.ones(2, 3, frames)
    result = pad_frames(signal, 8)
    assert result.shape == (2, 3, padded)
    assert torch.equal(result[..., :frames], signal)
    assert result[..., frames:].abs().sum() == 0
