"""The losses of generators whose answers are known, with numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from networks import CIRCULAR, PAPER
from torch import Tensor, nn

from separation.models import Discriminator, compress
from separation.stems import source_names
from separation.training.config import LossWeights
from separation.training.losses import QUIET
from separation.training.objective import DiscriminatorObjective, Estimates, GeneratorObjective


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


def make_objective(network: nn.Module, **weights: float) -> GeneratorObjective:
    """With the weights of the paper, or with those given alone."""
    return GeneratorObjective(network, LossWeights(**weights or PAPER))


def constant(value: complex, bins: int = 2) -> Tensor:
    return torch.full((1, 2, bins, 3), value, dtype=torch.complex64)


def unlabelled(mixture: Tensor, rest: Tensor, target: int = 0) -> dict[str, Tensor]:
    return {"mixtures": mixture, "rests": rest, "target": torch.tensor(target)}


def decibels(error: float) -> float:
    """The level of an error of this share of the mixture's magnitude."""
    return 10 * math.log10(error**2 + QUIET)


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
    batch |= {"sources": torch.stack([target, rest], dim=1), "labelled": torch.ones(1, 1), "taught": torch.zeros(1)}
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
    terms, estimates = objective({"sources": sources, "labelled": torch.ones(1, 2), "taught": torch.zeros(1)}, None)
    wanted = {"supervised_target": (decibels(3 / 8) + decibels(1 / 8)) / 2, "supervised_rest": decibels(4 / 8)}
    assert values(terms) == wanted
    assert estimates is None


def test_what_is_not_known_does_not_count():
    """Of the second example only the drums are known: 4 of them in a mixture of 8, of which 2 are found."""
    objective = make_objective(Taker(torch.tensor([0.5, 0.25]), ("vocals", "drums")))
    sources = torch.stack([constant(1), constant(1), constant(6)], dim=1)
    pair = torch.stack([constant(0), constant(4), constant(4)], dim=1)
    known = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    terms, _ = objective(
        {"sources": torch.cat([sources, pair]), "labelled": known, "taught": torch.zeros(len(known))}, None
    )
    wanted = (decibels(3 / 8) + decibels(1 / 8) + decibels(2 / 8)) / 3
    assert values(terms) == {"supervised_target": wanted, "supervised_rest": decibels(4 / 8)}


def test_small_errors_in_what_a_teacher_says_weigh_little():
    """The same error of 1 in 8, -18 dB, in a true label and in a teacher's: below the floor it hardly matters."""
    shares = torch.tensor([0.5], requires_grad=True)
    sources = torch.stack([constant(3), constant(5)], dim=1)
    gradients = {}
    for taught in (0.0, 1.0):
        for floor in (-12.0, -30.0):
            objective = GeneratorObjective(Taker(shares), LossWeights(supervised_rest=0), taught_floor=floor)
            terms, _ = objective({"sources": sources, "labelled": torch.ones(1, 1), "taught": torch.tensor([taught])})
            level = 10 * math.log10(1 / 64 + (10 ** (floor / 10) if taught else QUIET))
            assert values(terms) == {"supervised_target": level}
            (gradients[taught, floor],) = torch.autograd.grad(terms["supervised_target"], shares)
    assert gradients[0.0, -12.0] == gradients[0.0, -30.0] == gradients[1.0, -30.0]
    ratio = (1 / 64 + QUIET) / (1 / 64 + 10**-1.2)
    torch.testing.assert_close(gradients[1.0, -12.0], ratio * gradients[0.0, -12.0])


def test_a_network_for_all_four_stems_has_no_rest():
    network = Taker(torch.full((4,), 0.25), ("vocals", "drums", "bass", "other"))
    sources = torch.stack([constant(1), constant(1), constant(1), constant(5)], dim=1)
    terms, _ = make_objective(network)(
        {"sources": sources, "labelled": torch.ones(1, 4), "taught": torch.zeros(1)}, None
    )
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
    critics = DiscriminatorObjective(Judge(), Judge())
    objective = make_objective(Taker(torch.tensor([0.0, 0.5]), ("vocals", "drums")))
    batch = unlabelled(constant(16), constant(1), target=1)
    terms, estimates = objective(batch, critics)
    rest, remix = (compress(constant(value))[0, 0, 0, 0] for value in (8, 9))
    assert float(terms["adversarial_rest"]) == pytest.approx(float((2 * rest - 1) ** 2))
    assert float(terms["adversarial_mixture"]) == pytest.approx(float((remix - 1) ** 2))

    real_rest, real_mixture = (compress(constant(value))[0, 0, 0, 0] for value in (1, 16))
    judged = critics(batch, estimates)
    assert float(judged["discriminator_rest"]) == pytest.approx(float((2 * real_rest - 1) ** 2 + (2 * rest) ** 2))
    assert float(judged["discriminator_mixture"]) == pytest.approx(float((real_mixture - 1) ** 2 + remix**2))


def test_the_generator_learns_through_critics_that_stand_still():
    shares = torch.tensor([0.5], requires_grad=True)
    critics = DiscriminatorObjective(*(Discriminator(widths=(4, 4), scales=1) for _ in range(2)))
    critics.requires_grad_(False)
    batch = unlabelled(torch.randn(1, 2, 8, 8, dtype=torch.complex64), torch.randn(1, 2, 8, 8, dtype=torch.complex64))
    terms, estimates = make_objective(Taker(shares))(batch, critics)
    (terms["adversarial_rest"] + terms["adversarial_mixture"]).backward()
    assert shares.grad.abs() > 0
    assert all(parameter.grad is None for parameter in critics.parameters())

    critics.requires_grad_(True)
    shares.grad = None
    sum(critics(batch, estimates).values()).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in critics.parameters())
    assert shares.grad is None and not estimates.rest.requires_grad


def test_estimates_are_what_the_discriminators_see():
    seen: list[Tensor] = []
    batch, estimates = unlabelled(constant(2), constant(3)), Estimates(rest=constant(4), remix=constant(5))
    DiscriminatorObjective(Watcher(seen), Watcher(seen))(batch, estimates)
    torch.testing.assert_close(seen[0], compress(torch.cat([constant(3), constant(4)])))
    torch.testing.assert_close(seen[1], compress(torch.cat([constant(2), constant(5)])))
