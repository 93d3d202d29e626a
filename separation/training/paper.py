"""The terms of the paper and its two adversaries: Michelashvili, Benaim and Wolf, "Semi-supervised monaural singing
voice separation with a masking network trained on synthetic mixtures", ICASSP 2019.

b is a mixture, a is a rest (music without the target) of another song, g(x) is the rest that the network leaves of x
and x - g(x) the target that it takes out. m = (b - g(b)) + a is the synthetic mixture. Masks multiply complex
spectrograms, so these sums and differences are exact. All signals are complex `[batch, 2 channels, bins, frames]`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from separation.models import Discriminator, compress
from separation.training.batches import Batch
from separation.training.config import DiscriminatorSettings, LossWeights


@dataclass
class Estimates:
    """What the discriminators have to judge: estimates out of unlabelled music, without gradient."""

    rest: Tensor
    remix: Tensor


def l1(estimate: Tensor, reference: Tensor) -> Tensor:
    """Mean magnitude of the difference of two complex spectrograms of the same shape."""
    return (estimate - reference).abs().mean()


def adversarial(judgements: Sequence[Tensor]) -> Tensor:
    """Least-squares GAN, the generator's side: estimates should be judged real (1), at every scale."""
    return torch.stack([(judgement.float() - 1).square().mean() for judgement in judgements]).mean()


def discrimination(real: Sequence[Tensor], estimated: Sequence[Tensor]) -> Tensor:
    """Least-squares GAN, the discriminator's side: real music should be judged 1 and estimates 0, at every scale."""
    scales = [
        (judged_real.float() - 1).square().mean() + judged_estimate.float().square().mean()
        for judged_real, judged_estimate in zip(real, estimated, strict=True)
    ]
    return torch.stack(scales).mean()


def paper_terms(
    take_out: Callable[[Tensor], Tensor],
    batch: Batch,
    weights: LossWeights,
    discriminators: Discriminators | None = None,
) -> tuple[dict[str, Tensor], Estimates]:
    """The paper's terms that have a weight, each `[]`; those of the adversaries where `discriminators` are given.

    `take_out` gives x - g(x) for the target of the batch.
    """
    mixture, rest = batch["mixtures"], batch["rests"]
    given = [mixture, rest] if weights.identity else [mixture]
    target, *rest_target = take_out(torch.cat(given)).chunk(len(given))
    rest_estimate, remix = mixture - target, target + rest
    again = {"rest": rest_estimate} if weights.idempotence else {}
    again |= {"remix": remix} if weights.remix_rest or weights.remix_target else {}
    taken = {}
    if again:
        taken = dict(zip(again, take_out(torch.cat([*again.values()])).chunk(len(again)), strict=True))

    terms = {}
    if rest_target:
        terms["identity"] = l1(rest - rest_target[0], rest)  # |g(a) - a|: a rest is left alone
    if "rest" in taken:
        terms["idempotence"] = l1(rest_estimate - taken["rest"], rest_estimate)  # |g(g(b)) - g(b)|
    if "remix" in taken:
        terms["remix_rest"] = l1(remix - taken["remix"], rest)  # |g(m) - a|
        terms["remix_target"] = l1(taken["remix"], target)  # |(m - g(m)) - (b - g(b))|
    if discriminators:
        terms["adversarial_rest"] = adversarial(discriminators.rest(compress(rest_estimate), int(batch["target"])))
        terms["adversarial_mixture"] = adversarial(discriminators.mixture(compress(remix)))
    return terms, Estimates(rest_estimate.detach(), remix.detach())


class Discriminators(nn.Module):
    """The two adversaries: is this a real rest, for each of the targets, and is this a real mixture?"""

    def __init__(self, targets: int, settings: DiscriminatorSettings):
        super().__init__()
        self.rest = Discriminator(targets=targets, widths=settings.widths, scales=settings.scales)
        self.mixture = Discriminator(targets=1, widths=settings.widths, scales=settings.scales)

    def forward(self, batch: Batch, estimates: Estimates) -> dict[str, Tensor]:
        """Their own losses, each `[]`, on real music and on estimates."""
        index = int(batch["target"])
        rests = self.rest(compress(torch.cat([batch["rests"], estimates.rest])), index)
        mixtures = self.mixture(compress(torch.cat([batch["mixtures"], estimates.remix])), 0)
        return {
            name: discrimination(*zip(*(judgement.chunk(2) for judgement in judgements), strict=True))
            for name, judgements in (("discriminator_rest", rests), ("discriminator_mixture", mixtures))
        }
