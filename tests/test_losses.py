"""Each term against numbers worked out by hand. The spectrograms have two bins: [3 + 4i, 0] has magnitudes 5 and 0."""

from __future__ import annotations

import pytest
import torch

from separation import losses

A = torch.tensor([3 + 4j, 0])
B = torch.tensor([0, 2j])
L1_TERMS = ["supervised_target", "supervised_rest", "identity", "idempotence", "remix_rest", "remix_target"]


@pytest.mark.parametrize("name", ["l1", *L1_TERMS])
def test_l1_terms_are_the_mean_magnitude_of_the_difference(name):
    term = getattr(losses, name)
    assert term(A, A) == 0
    assert term(A, torch.zeros(2)) == 2.5  # (5 + 0) / 2
    assert term(A, B) == 3.5  # (|3 + 4i| + |-2i|) / 2
    assert term(B, A) == 3.5


def test_l1_has_a_finite_gradient_where_the_estimate_is_right():
    estimate = A.clone().requires_grad_()
    losses.l1(estimate, A).backward()
    assert estimate.grad.abs().max() == 0


def test_phases_count():
    assert losses.l1(A, -A) == 5.0  # |6 + 8i| / 2


def test_adversarial_is_the_mean_square_distance_from_real():
    fine, coarse = torch.tensor([1.0, 0.0, 3.0, 1.0]), torch.tensor([0.5])
    # Scales weigh the same: ((0 + 1 + 4 + 0) / 4 + 0.25) / 2.
    assert losses.adversarial([fine, coarse]) == 0.75
    assert losses.adversarial([torch.ones(3)]) == 0


def test_discrimination_wants_1_for_real_and_0_for_estimates():
    real, estimated = [torch.tensor([1.0, 0.0])], [torch.tensor([2.0, 0.0])]
    assert losses.discrimination(real, estimated) == 2.5  # (0 + 1) / 2 + (4 + 0) / 2
    assert losses.discrimination([torch.ones(2)], [torch.zeros(2)]) == 0
    assert losses.discrimination([*real, torch.ones(1)], [*estimated, torch.zeros(1)]) == 1.25


def test_half_precision_judgements_are_averaged_in_full_precision():
    judgements = torch.full((1000,), 1 / 3, dtype=torch.bfloat16)
    expected = (float(judgements[0]) - 1) ** 2
    assert float(losses.adversarial([judgements])) == pytest.approx(expected, rel=1e-6)
