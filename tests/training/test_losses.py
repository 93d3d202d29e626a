"""Each term against numbers worked out by hand, and the losses of networks whose answers are known."""

from __future__ import annotations

import math

import pytest
import torch
from networks import CIRCULAR, PAPER
from torch import Tensor, nn

from separation.models import compress
from separation.stems import source_names
from separation.training import losses, paper
from separation.training.config import DiscriminatorSettings, LossWeights
from separation.training.losses import ERROR_FLOOR, GeneratorObjective
from separation.training.paper import Discriminators, Estimates

A = torch.tensor([3 + 4j, 0])
B = torch.tensor([0, 2j])


def test_l1_is_the_mean_magnitude_of_the_difference():
    assert paper.l1(A, A) == 0
    assert paper.l1(A, torch.zeros(2)) == 2.5  # (5 + 0) / 2
    assert paper.l1(A, B) == paper.l1(B, A) == 3.5  # (|3 + 4i| + |-2i|) / 2


def test_l1_has_a_finite_gradient_where_the_estimate_is_right():
    estimate = A.clone().requires_grad_()
    paper.l1(estimate, A).backward()
    assert estimate.grad.abs().max() == 0


def test_phases_count():
    assert paper.l1(A, -A) == 5.0  # |6 + 8i| / 2


MIXTURE, TARGET = torch.full((2, 1, 1), 10 + 0j), torch.full((2, 1, 1), 6 + 0j)


@pytest.mark.parametrize(("error", "decibels"), [(10, 0), (1j, -20), (-0.1, -40)])
def test_the_level_of_an_error_is_in_decibels_of_the_mixture_above_a_floor(error, decibels):
    wanted = 10 * math.log10(10 ** (decibels / 10) + ERROR_FLOOR)
    assert float(losses.error_level(TARGET + error, TARGET, MIXTURE)) == pytest.approx(wanted, abs=1e-4)


def test_levels_do_not_depend_on_how_loud_the_song_is():
    quiet = losses.error_level((TARGET + 1) / 100, TARGET / 100, MIXTURE / 100)
    assert float(quiet) == pytest.approx(float(losses.error_level(TARGET + 1, TARGET, MIXTURE)), abs=1e-3)


def test_a_silent_source_of_a_silent_song_has_a_finite_gradient():
    estimate = torch.zeros(2, 1, 1, dtype=torch.complex64, requires_grad=True)
    losses.error_level(estimate, torch.zeros(2, 1, 1), torch.zeros(2, 1, 1, dtype=torch.complex64)).backward()
    assert estimate.grad.isfinite().all()


def test_a_mean_is_over_what_is_labelled():
    levels, labelled = torch.tensor([1.0, 10.0, 5.0]), torch.tensor([1.0, 1.0, 0.0])
    assert float(losses.mean_of_labelled(levels, labelled)) == pytest.approx(5.5)
    assert float(losses.mean_of_labelled(levels, torch.zeros(3))) == 0


def test_adversarial_is_the_mean_square_distance_from_real():
    fine, coarse = torch.tensor([1.0, 0.0, 3.0, 1.0]), torch.tensor([0.5])
    # Scales weigh the same: ((0 + 1 + 4 + 0) / 4 + 0.25) / 2.
    assert paper.adversarial([fine, coarse]) == 0.75
    assert paper.adversarial([torch.ones(3)]) == 0


def test_discrimination_wants_1_for_real_and_0_for_estimates():
    real, estimated = [torch.tensor([1.0, 0.0])], [torch.tensor([2.0, 0.0])]
    assert paper.discrimination(real, estimated) == 2.5  # (0 + 1) / 2 + (4 + 0) / 2
    assert paper.discrimination([torch.ones(2)], [torch.zeros(2)]) == 0
    assert paper.discrimination([*real, torch.ones(1)], [*estimated, torch.zeros(1)]) == 1.25


def test_half_precision_judgements_are_averaged_in_full_precision():
    judgements = torch.full((1000,), 1 / 3, dtype=torch.bfloat16)
    expected = (float(judgements[0]) - 1) ** 2
    assert float(paper.adversarial([judgements])) == pytest.approx(expected, rel=1e-6)


class Taker(nn.Module):
    """Takes out the same share of every bin for each target: `shares` is `[targets]` or `[targets, bins]`."""

    def __init__(self, shares: Tensor, targets: tuple[str, ...] = ("vocals",)):
        super().__init__()
        self.targets, self.sources = targets, source_names(targets)
        self.shares = shares[:, None, :, None] if shares.dim() == 2 else shares[:, None, None, None]

    def forward(self, mixture: Tensor) -> Tensor:
        return self.shares * mixture[:, None]


class Judge(nn.Module):
    """Judges everything by its mean magnitude in the left channel, times the number of the target plus one."""

    def forward(self, views: Tensor, target: int = 0) -> list[Tensor]:
        return [views[:, 0].mean(dim=-2, keepdim=True) * (target + 1)]


class Watcher(Judge):
    """Notes down what it sees."""

    def __init__(self, seen: list[Tensor]):
        super().__init__()
        self.seen = seen

    def forward(self, views: Tensor, target: int = 0) -> list[Tensor]:
        self.seen.append(views)
        return super().forward(views, target)


def judged_by(rest: nn.Module, mixture: nn.Module) -> Discriminators:
    discriminators = Discriminators(1, DiscriminatorSettings(widths=(4,), scales=1))
    discriminators.rest, discriminators.mixture = rest, mixture
    return discriminators


def make_objective(network: nn.Module, **weights: float) -> GeneratorObjective:
    """With the weights of the paper, or with those given alone."""
    return GeneratorObjective(network, LossWeights(**weights or PAPER))


def constant(value: complex, bins: int = 2) -> Tensor:
    return torch.full((1, 2, bins, 3), value, dtype=torch.complex64)


def unlabelled(mixture: Tensor, rest: Tensor, target: int = 0) -> dict[str, Tensor]:
    return {"mixtures": mixture, "rests": rest, "target": torch.tensor(target)}


def labelled_batch(sources: Tensor, labelled: Tensor, pseudo_labelled: Tensor | None = None) -> dict[str, Tensor]:
    pseudo_labelled = torch.zeros(len(sources)) if pseudo_labelled is None else pseudo_labelled
    return {"sources": sources, "labelled": labelled, "pseudo_labelled": pseudo_labelled}


def decibels(error: float) -> float:
    """The level of an error of this share of the mixture's magnitude."""
    return 10 * math.log10(error**2 + ERROR_FLOOR)


def values(terms: dict[str, Tensor]) -> dict[str, float]:
    return {name: pytest.approx(float(term.detach()), abs=1e-4) for name, term in terms.items()}


def test_taking_nothing_out_makes_every_l1_term_zero():
    """The collapse that METHOD.md warns of: only the adversarial terms see it."""
    terms, _ = make_objective(Taker(torch.zeros(1)))(unlabelled(constant(8), constant(2j)), None)
    assert values(terms) == dict.fromkeys(CIRCULAR, 0)


def test_a_perfect_generator_makes_every_l1_term_zero():
    """Its target is all that lies in the upper bin, and nothing else does."""
    rest = constant(3) * torch.tensor([1.0, 0.0])[:, None]
    other_rest = constant(2j) * torch.tensor([1.0, 0.0])[:, None]
    target = constant(5) * torch.tensor([0.0, 1.0])[:, None]
    objective = make_objective(Taker(torch.tensor([[0.0, 1.0]])))
    batch = unlabelled(rest + target, other_rest)
    batch |= {
        "sources": torch.stack([target, rest], dim=1),
        "labelled": torch.ones(1, 1),
        "pseudo_labelled": torch.zeros(1),
    }
    terms, estimates = objective(batch, None)
    supervised = dict.fromkeys(("supervised_target", "supervised_rest"), decibels(0))
    assert values(terms) == dict.fromkeys(CIRCULAR, 0) | supervised
    torch.testing.assert_close(estimates.rest, rest)
    torch.testing.assert_close(estimates.remix, other_rest + target)


def test_a_generator_that_halves_everything():
    """b = 8 and a = 2: g(b) = 4, m = 4 + 2 = 6, g(m) = 3."""
    terms, estimates = make_objective(Taker(torch.tensor([0.5])))(unlabelled(constant(8), constant(2)), None)
    assert values(terms) == {"identity": 1, "idempotence": 2, "remix_rest": 1, "remix_target": 1}
    torch.testing.assert_close(estimates.rest, constant(4))
    torch.testing.assert_close(estimates.remix, constant(6))


def test_the_terms_are_about_the_target_of_the_batch():
    """b = 8 and a = 4. The second target is a quarter: g(b) = 6, g(g(b)) = 4.5, m = 2 + 4 = 6, g(m) = 4.5."""
    objective = make_objective(Taker(torch.tensor([0.5, 0.25]), ("vocals", "drums")))
    terms, estimates = objective(unlabelled(constant(8), constant(4), target=1), None)
    assert values(terms) == {"identity": 1, "idempotence": 1.5, "remix_rest": 0.5, "remix_target": 0.5}
    torch.testing.assert_close(estimates.rest, constant(6))


def test_the_supervised_terms_are_means_over_targets_and_over_the_rest():
    """A mixture of 8 = 1 + 1 + 6, of which 4, 2 and 2 are given to vocals, drums and the rest."""
    objective = make_objective(Taker(torch.tensor([0.5, 0.25]), ("vocals", "drums")))
    sources = torch.stack([constant(1), constant(1), constant(6)], dim=1)
    terms, estimates = objective(labelled_batch(sources, torch.ones(1, 2)), None)
    wanted = {"supervised_target": (decibels(3 / 8) + decibels(1 / 8)) / 2, "supervised_rest": decibels(4 / 8)}
    assert values(terms) == wanted
    assert estimates is None


def test_what_is_not_known_does_not_count():
    """Of the second example only the drums are known: 4 of them in a mixture of 8, of which 2 are found."""
    objective = make_objective(Taker(torch.tensor([0.5, 0.25]), ("vocals", "drums")))
    sources = torch.stack([constant(1), constant(1), constant(6)], dim=1)
    pair = torch.stack([constant(0), constant(4), constant(4)], dim=1)
    known = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    terms, _ = objective(labelled_batch(torch.cat([sources, pair]), known), None)
    wanted = (decibels(3 / 8) + decibels(1 / 8) + decibels(2 / 8)) / 3
    assert values(terms) == {"supervised_target": wanted, "supervised_rest": decibels(4 / 8)}


@pytest.mark.parametrize("name", ["supervised_target", "supervised_rest"])
def test_small_errors_in_pseudo_labels_weigh_little(name):
    """The same error of 1 in 8, -18 dB, in a true label and in a pseudo-label: below the floor it hardly matters."""
    shares = torch.tensor([0.5], requires_grad=True)
    sources = torch.stack([constant(3), constant(5)], dim=1)
    gradients = {}
    for pseudo_labelled in (0.0, 1.0):
        for floor in (-12.0, -30.0):
            objective = GeneratorObjective(Taker(shares), LossWeights(), pseudo_label_floor=floor)
            terms, _ = objective(labelled_batch(sources, torch.ones(1, 1), torch.tensor([pseudo_labelled])))
            level = 10 * math.log10(1 / 64 + (10 ** (floor / 10) if pseudo_labelled else ERROR_FLOOR))
            assert values(terms) == {"supervised_target": level, "supervised_rest": level}
            (gradients[pseudo_labelled, floor],) = torch.autograd.grad(terms[name], shares)
    assert gradients[0.0, -12.0] == gradients[0.0, -30.0] == gradients[1.0, -30.0]
    ratio = (1 / 64 + ERROR_FLOOR) / (1 / 64 + 10**-1.2)
    torch.testing.assert_close(gradients[1.0, -12.0], ratio * gradients[0.0, -12.0])


def test_the_floor_is_each_examples_own():
    """Of a true label and a pseudo-label side by side, for the target and for the rest."""
    sources = torch.stack([constant(3), constant(5)], dim=1).repeat(2, 1, 1, 1, 1)
    objective = GeneratorObjective(Taker(torch.tensor([0.5])), LossWeights(), pseudo_label_floor=-12.0)
    terms, _ = objective(labelled_batch(sources, torch.ones(2, 1), torch.tensor([0.0, 1.0])))
    level = (10 * math.log10(1 / 64 + ERROR_FLOOR) + 10 * math.log10(1 / 64 + 10**-1.2)) / 2
    assert values(terms) == {"supervised_target": level, "supervised_rest": level}


def test_a_network_for_all_four_stems_has_no_rest():
    network = Taker(torch.full((4,), 0.25), ("vocals", "drums", "bass", "other"))
    sources = torch.stack([constant(1), constant(1), constant(1), constant(5)], dim=1)
    terms, _ = make_objective(network)(labelled_batch(sources, torch.ones(1, 4)), None)
    assert values(terms) == {"supervised_target": (3 * decibels(1 / 8) + decibels(3 / 8)) / 4}


@pytest.mark.parametrize("name", ["identity", "idempotence", "exchange"])
def test_terms_without_a_weight_are_not_computed(name):
    terms, _ = make_objective(Taker(torch.tensor([0.5])), **{name: 1.0})(unlabelled(constant(8), constant(2)))
    assert set(terms) == {name}


def test_exchange_asks_for_what_a_mixture_has_more_than_a_rest():
    """b + a = 8 + 2 = 10, of which 5 is taken out, where b - a = 6 was to be."""
    objective = make_objective(Taker(torch.tensor([0.5])), exchange=1)
    terms, estimates = objective(unlabelled(constant(8), constant(2)))
    assert values(terms) == {"exchange": 0.01}
    assert estimates is None


def test_exchange_finds_the_target_that_nobody_ever_heard():
    """Rests and target overlap in every bin: the best share is the target's, which no example tells."""
    generator = torch.Generator().manual_seed(0)

    def noise(*levels: float) -> Tensor:
        draw = torch.randn(4000, 2, len(levels), 1, dtype=torch.complex64, generator=generator)
        return draw * torch.tensor(levels)[:, None]

    target, rest, other_rest = noise(1, 2, 0), noise(2, 1, 3), noise(2, 1, 3)
    shares = torch.full((1, 3), 0.5, requires_grad=True)
    objective = make_objective(Taker(shares), exchange=1)
    optimizer = torch.optim.Adam([shares], 0.02)
    for _ in range(300):
        terms, _ = objective(unlabelled(target + rest, other_rest))
        optimizer.zero_grad()
        terms["exchange"].backward()
        optimizer.step()
    # Wiener's shares of the target in target + rest + other rest: 1 / (1 + 4 + 4), 4 / (4 + 1 + 1) and 0.
    torch.testing.assert_close(shares.detach(), torch.tensor([[1 / 9, 4 / 6, 0]]), atol=0.05, rtol=0)


def test_the_adversarial_terms_judge_the_rest_and_the_remix():
    """g(b) = 8 and m = 8 + 1 = 9, about the second target, which doubles the judgement of the rest."""
    discriminators = judged_by(Judge(), Judge())
    objective = make_objective(Taker(torch.tensor([0.0, 0.5]), ("vocals", "drums")))
    batch = unlabelled(constant(16), constant(1), target=1)
    terms, estimates = objective(batch, discriminators)
    rest, remix = (compress(constant(value))[0, 0, 0, 0] for value in (8, 9))
    assert float(terms["adversarial_rest"]) == pytest.approx(float((2 * rest - 1) ** 2))
    assert float(terms["adversarial_mixture"]) == pytest.approx(float((remix - 1) ** 2))

    real_rest, real_mixture = (compress(constant(value))[0, 0, 0, 0] for value in (1, 16))
    judged = discriminators(batch, estimates)
    assert float(judged["discriminator_rest"]) == pytest.approx(float((2 * real_rest - 1) ** 2 + (2 * rest) ** 2))
    assert float(judged["discriminator_mixture"]) == pytest.approx(float((real_mixture - 1) ** 2 + remix**2))


def test_the_generator_learns_through_discriminators_that_stand_still():
    shares = torch.tensor([0.5], requires_grad=True)
    discriminators = Discriminators(1, DiscriminatorSettings(widths=(4, 4), scales=1))
    discriminators.requires_grad_(False)
    batch = unlabelled(torch.randn(1, 2, 8, 8, dtype=torch.complex64), torch.randn(1, 2, 8, 8, dtype=torch.complex64))
    terms, estimates = make_objective(Taker(shares))(batch, discriminators)
    (terms["adversarial_rest"] + terms["adversarial_mixture"]).backward()
    assert shares.grad.abs() > 0
    assert all(parameter.grad is None for parameter in discriminators.parameters())

    discriminators.requires_grad_(True)
    shares.grad = None
    sum(discriminators(batch, estimates).values()).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in discriminators.parameters())
    assert shares.grad is None and not estimates.rest.requires_grad


def test_estimates_are_what_the_discriminators_see():
    seen: list[Tensor] = []
    batch, estimates = unlabelled(constant(2), constant(3)), Estimates(rest=constant(4), remix=constant(5))
    judged_by(Watcher(seen), Watcher(seen))(batch, estimates)
    torch.testing.assert_close(seen[0], compress(torch.cat([constant(3), constant(4)])))
    torch.testing.assert_close(seen[1], compress(torch.cat([constant(2), constant(5)])))
