"""The paper's loss terms and two discriminators: Michelashvili, Benaim and Wolf, "Semi-supervised monaural singing
voice separation with a masking network trained on synthetic mixtures", ICASSP 2019.

b is a mixture, and a is a rest, music without the target, of another song. g(x) is the network's estimate of the rest
of x, and x - g(x) that of the target. m = (b - g(b)) + a is the synthetic mixture. Masks multiply complex spectrograms,
so these sums and differences are exact. All signals are complex `[batch, 2 channels, bins, frames]`.
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
    """Estimates from unlabelled music for the discriminators to judge, without gradient."""

    rest: Tensor
    remix: Tensor


def l1(estimate: Tensor, reference: Tensor) -> Tensor:
    """Mean magnitude of the difference of two complex spectrograms of the same shape."""
    return (estimate - reference).abs().mean()


def adversarial(judgements: Sequence[Tensor]) -> Tensor:
    """Generator loss of a least-squares GAN: estimates should be judged real, 1, at every scale."""
    return torch.stack([(judgement.float() - 1).square().mean() for judgement in judgements]).mean()


def discrimination(real: Sequence[Tensor], estimated: Sequence[Tensor]) -> Tensor:
    """Discriminator loss of a least-squares GAN: real music should be judged 1, estimates 0, at every scale."""
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
    """Compute the paper's terms, each `[]`, the adversarial ones if `discriminators` are given, and the estimates.

    Passes that only terms of weight 0 would need are skipped. `take_out` gives x - g(x) for the target of the batch.
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
        terms["identity"] = l1(rest - rest_target[0], rest)  # |g(a) - a|: a rest stays as it is
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
    """The paper's two discriminators: one judges rests, for each target, the other judges mixtures."""

    def __init__(self, targets: int, settings: DiscriminatorSettings):
        super().__init__()
        self.rest = Discriminator(targets=targets, widths=settings.widths, scales=settings.scales)
        self.mixture = Discriminator(targets=1, widths=settings.widths, scales=settings.scales)

    def forward(self, batch: Batch, estimates: Estimates) -> dict[str, Tensor]:
        """Losses of both discriminators, each `[]`, on real music and on estimates."""
        index = int(batch["target"])
        rests = self.rest(compress(torch.cat([batch["rests"], estimates.rest])), index)
        mixtures = self.mixture(compress(torch.cat([batch["mixtures"], estimates.remix])), 0)
        return {
            name: discrimination(*zip(*(judgement.chunk(2) for judgement in judgements), strict=True))
            for name, judgements in (("discriminator_rest", rests), ("discriminator_mixture", mixtures))
        }
