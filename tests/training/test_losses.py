"""Each term against numbers worked out by hand. The spectrograms have two bins: [3 + 4i, 0] has magnitudes 5 and 0."""

from __future__ import annotations

import math

import pytest
import torch

from separation.training import losses

A = torch.tensor([3 + 4j, 0])
B = torch.tensor([0, 2j])
L1_TERMS = ["identity", "idempotence", "remix_rest", "remix_target"]


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


MIXTURE, TARGET = torch.full((2, 1, 1), 10 + 0j), torch.full((2, 1, 1), 6 + 0j)


@pytest.mark.parametrize(("error", "decibels"), [(10, 0), (1j, -20), (-0.1, -40)])
def test_the_level_of_an_error_is_in_decibels_of_the_mixture_above_a_floor(error, decibels):
    wanted = 10 * math.log10(10 ** (decibels / 10) + losses.QUIET)
    assert float(losses.error_level(TARGET + error, TARGET, MIXTURE)) == pytest.approx(wanted, abs=1e-4)


def test_levels_do_not_depend_on_how_loud_the_song_is():
    quiet = losses.error_level((TARGET + 1) / 100, TARGET / 100, MIXTURE / 100)
    assert float(quiet) == pytest.approx(float(losses.error_level(TARGET + 1, TARGET, MIXTURE)), abs=1e-3)


def test_a_silent_source_of_a_silent_song_has_a_finite_gradient():
    estimate = torch.zeros(2, 1, 1, dtype=torch.complex64, requires_grad=True)
    losses.error_level(estimate, torch.zeros(2, 1, 1), torch.zeros(2, 1, 1, dtype=torch.complex64)).backward()
    assert estimate.grad.isfinite().all()


@pytest.mark.parametrize("name", ["supervised_target", "supervised_rest"])
def test_supervised_terms_are_means_over_what_is_known(name):
    errors = torch.tensor([1.0, 10.0, 5.0])[:, None, None, None]
    labelled = torch.tensor([1.0, 1.0, 0.0])
    term = getattr(losses, name)(TARGET + errors, TARGET, MIXTURE, labelled)
    wanted = sum(10 * math.log10(level + losses.QUIET) for level in (0.01, 1)) / 2
    assert float(term) == pytest.approx(wanted, abs=1e-4)
    assert float(getattr(losses, name)(TARGET + errors, TARGET, MIXTURE, torch.zeros(3))) == 0


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
