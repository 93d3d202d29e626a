from __future__ import annotations

import pytest
import torch

from separation.models import Discriminator, compress
from separation.training.config import DiscriminatorSettings


def random_views(frames: int = 64, bins: int = 96) -> torch.Tensor:
    return torch.rand(2, 4, bins, frames, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_each_scale_judges_patches_at_half_the_resolution_of_the_one_before():
    judgements = Discriminator(widths=(4, 4, 4), scales=3)(random_views())
    assert [tuple(judgement.shape) for judgement in judgements] == [(2, 12, 8), (2, 6, 4), (2, 3, 2)]


@torch.no_grad()
def test_each_target_has_a_judgement_of_its_own():
    torch.manual_seed(0)
    discriminator = Discriminator(targets=3, widths=(4, 4), scales=2)
    judgements = [discriminator(random_views(), target)[1] for target in range(3)]
    assert not torch.allclose(judgements[0], judgements[1])
    assert not torch.allclose(judgements[1], judgements[2])


@torch.no_grad()
def test_a_patch_is_judged_by_what_is_near_it():
    discriminator = Discriminator(widths=(4, 4), scales=1)
    views = random_views()
    changed = views.clone()
    changed[..., 40:] += 1
    (before,), (after,) = discriminator(views), discriminator(changed)
    same = (before == after).all(dim=(0)).all(dim=0)
    assert same[:8].all() and not same[11:].any()


@torch.no_grad()
def test_it_sees_the_phase_difference_of_the_channels():
    torch.manual_seed(0)
    signal = torch.randn(1, 1, 32, 32, dtype=torch.complex64)
    middle, wide = torch.cat([signal, signal], dim=1), torch.cat([signal, -signal], dim=1)
    discriminator = Discriminator(widths=(4, 4), scales=1)
    assert not torch.allclose(discriminator(compress(middle))[0], discriminator(compress(wide))[0])


@pytest.mark.parametrize(("layers", "scales"), [(2, 1), (2, 3), (4, 2)])
@torch.no_grad()
def test_the_settings_know_how_much_the_coarsest_scale_needs(layers, scales):
    settings = DiscriminatorSettings(widths=(4,) * layers, scales=scales)
    discriminator = Discriminator(widths=settings.widths, scales=scales)
    assert discriminator(random_views(settings.patch, settings.patch))[-1].shape[-2:] == (1, 1)
    with pytest.raises(RuntimeError):
        discriminator(random_views(settings.patch // 2))
