"""All losses of one training step, for the generator and for the discriminators.

Each objective is one module with one forward pass a step, which is what DistributedDataParallel asks for.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models import Discriminator
from separation import losses
from separation.batches import Batch
from separation.masking import MaskingNetwork
from separation.spectral import compress

Losses = dict[str, Tensor]


@dataclass
class Estimates:
    """What the generator made of unlabelled music: complex `[batch, 2 channels, bins, frames]`, without gradient."""

    rest: Tensor
    remix: Tensor


class GeneratorObjective(nn.Module):
    """The losses of the masking network on a batch."""

    def __init__(self, network: MaskingNetwork):
        super().__init__()
        self.network = network

    def forward(self, batch: Batch, critics: DiscriminatorObjective | None) -> tuple[Losses, Estimates | None]:
        """Named losses, and the estimates that the discriminators have to judge, if any.

        `critics` is None at steps without adversarial terms.
        """
        terms: Losses = {}
        estimates = None
        if "sources" in batch:
            terms |= self._supervised(batch["sources"], batch["known"])
        if "mixtures" in batch:
            unlabelled, estimates = self._semi_supervised(batch["mixtures"], batch["rests"], batch["target"], critics)
            terms |= unlabelled
        return terms, estimates

    def _supervised(self, sources: Tensor, known: Tensor) -> Losses:
        mixture, count = sources.sum(dim=1), len(self.network.targets)
        estimates, targets, rest = self.network(mixture), sources[:, :count], sources[:, count:]
        terms = {"supervised_target": losses.supervised_target(estimates, targets, mixture[:, None], known)}
        if rest.shape[1]:
            left = mixture - estimates.sum(dim=1)
            terms["supervised_rest"] = losses.supervised_rest(left, rest[:, 0], mixture, known.amin(dim=1))
        return terms

    def _semi_supervised(
        self, mixture: Tensor, rest: Tensor, target: Tensor, critics: DiscriminatorObjective | None
    ) -> tuple[Losses, Estimates]:
        """METHOD.md's table, about one of the targets; b is `mixture`, a is `rest`."""
        index = int(target)

        def take_out(*signals: Tensor) -> tuple[Tensor, ...]:
            """x - g(x) of each signal x, in one pass through the network."""
            return self.network(torch.cat(signals))[:, index].chunk(len(signals))

        target_estimate, target_of_rest = take_out(mixture, rest)
        rest_estimate = mixture - target_estimate
        remix = target_estimate + rest
        target_of_estimate, target_of_remix = take_out(rest_estimate, remix)
        terms = {
            "identity": losses.identity(rest - target_of_rest, rest),
            "idempotence": losses.idempotence(rest_estimate - target_of_estimate, rest_estimate),
            "remix_rest": losses.remix_rest(remix - target_of_remix, rest),
            "remix_target": losses.remix_target(target_of_remix, target_estimate),
        }
        if critics:
            terms["adversarial_rest"] = losses.adversarial(critics.rest(compress(rest_estimate), index))
            terms["adversarial_mixture"] = losses.adversarial(critics.mixture(compress(remix)))
        return terms, Estimates(rest_estimate.detach(), remix.detach())


class DiscriminatorObjective(nn.Module):
    """The two discriminators, and their losses on real and estimated music."""

    def __init__(self, rest: Discriminator, mixture: Discriminator):
        super().__init__()
        self.rest = rest
        self.mixture = mixture

    def forward(self, batch: Batch, estimates: Estimates) -> Losses:
        index = int(batch["target"])

        def judge(discriminator: Discriminator, real: Tensor, estimate: Tensor, about: int) -> Tensor:
            judgements = discriminator(compress(torch.cat([real, estimate])), about)
            halves = [judgement.chunk(2) for judgement in judgements]
            return losses.discrimination([half[0] for half in halves], [half[1] for half in halves])

        return {
            "discriminator_rest": judge(self.rest, batch["rests"], estimates.rest, index),
            "discriminator_mixture": judge(self.mixture, batch["mixtures"], estimates.remix, 0),
        }
