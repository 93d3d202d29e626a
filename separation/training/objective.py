"""All losses of one training step, for the generator and for the discriminators.

Each objective is one module with one forward pass a step, which is what DistributedDataParallel asks for.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from separation.inference.masking import MaskingNetwork
from separation.models import Discriminator, compress
from separation.training import losses
from separation.training.batches import Batch
from separation.training.config import DataSettings, LossWeights

Losses = dict[str, Tensor]


@dataclass
class Estimates:
    """What the generator made of unlabelled music: complex `[batch, 2 channels, bins, frames]`, without gradient."""

    rest: Tensor
    remix: Tensor


class GeneratorObjective(nn.Module):
    """The losses of the masking network on a batch: those that have a weight."""

    def __init__(self, network: MaskingNetwork, weights: LossWeights, taught_floor: float = DataSettings.taught_floor):
        super().__init__()
        self.network = network
        self.weights = weights
        self.taught_quiet = 10 ** (taught_floor / 10)

    def forward(self, batch: Batch, critics: DiscriminatorObjective | None = None) -> tuple[Losses, Estimates | None]:
        """Named losses, and the estimates that the discriminators have to judge, if any.

        `critics` is None at steps without adversarial terms.
        """
        terms: Losses = {}
        estimates = None
        if "sources" in batch:
            terms |= self._supervised(batch["sources"], batch["labelled"], batch["taught"])
        if "mixtures" in batch:
            music = batch["mixtures"], batch["rests"], int(batch["target"])
            if self.weights.exchange:
                terms["exchange"] = self._exchange(*music)
            if self.weights.circular or critics:
                circular, estimates = self._circular(*music, critics)
                terms |= circular
        return terms, estimates

    def _supervised(self, sources: Tensor, labelled: Tensor, taught: Tensor) -> Losses:
        mixture, count = sources.sum(dim=1), len(self.network.targets)
        estimates, targets, rest = self.network(mixture), sources[:, :count], sources[:, count:]
        quiet = torch.where(taught.bool(), self.taught_quiet, losses.QUIET)[:, None]
        terms = {"supervised_target": losses.supervised_target(estimates, targets, mixture[:, None], labelled, quiet)}
        if rest.shape[1] and self.weights.supervised_rest:
            left = mixture - estimates.sum(dim=1)
            terms["supervised_rest"] = losses.supervised_rest(left, rest[:, 0], mixture, labelled.amin(dim=1))
        return terms

    def _exchange(self, mixture: Tensor, rest: Tensor, target: int) -> Tensor:
        """The term that knows what to take out of a sum of b and a."""
        return losses.exchange(self.network(mixture + rest)[:, target], mixture, rest)

    def _circular(
        self, mixture: Tensor, rest: Tensor, target: int, critics: DiscriminatorObjective | None
    ) -> tuple[Losses, Estimates]:
        """METHOD.md's table: the generator's own estimates, taken up by it again; b is `mixture`, a is `rest`."""
        given = {"mixture": mixture} | ({"rest": rest} if self.weights.identity else {})
        taken = self._take_out(given, target)
        rest_estimate = mixture - taken["mixture"]
        remix = taken["mixture"] + rest
        again = {"estimate": rest_estimate} if self.weights.idempotence else {}
        again |= {"remix": remix} if self.weights.remix_rest or self.weights.remix_target else {}
        taken |= self._take_out(again, target)
        terms: Losses = {}
        if "rest" in taken:
            terms["identity"] = losses.identity(rest - taken["rest"], rest)
        if "estimate" in taken:
            terms["idempotence"] = losses.idempotence(rest_estimate - taken["estimate"], rest_estimate)
        if "remix" in taken:
            terms["remix_rest"] = losses.remix_rest(remix - taken["remix"], rest)
            terms["remix_target"] = losses.remix_target(taken["remix"], taken["mixture"])
        if critics:
            judgements = critics.rest(compress(rest_estimate), target)
            terms["adversarial_rest"] = losses.adversarial(judgements)
            terms["adversarial_mixture"] = losses.adversarial(critics.mixture(compress(remix)))
        return terms, Estimates(rest_estimate.detach(), remix.detach())

    def _take_out(self, signals: dict[str, Tensor], target: int) -> dict[str, Tensor]:
        """x - g(x) of each signal x, in one pass through the network."""
        if not signals:
            return {}
        taken = self.network(torch.cat(list(signals.values())))[:, target]
        return dict(zip(signals, taken.chunk(len(signals)), strict=True))


class DiscriminatorObjective(nn.Module):
    """The two discriminators, and their losses on real and estimated music."""

    def __init__(self, rest: Discriminator, mixture: Discriminator):
        super().__init__()
        self.rest = rest
        self.mixture = mixture

    def forward(self, batch: Batch, estimates: Estimates) -> Losses:
        index = int(batch["target"])

        def judge(discriminator: Discriminator, views: Tensor, about: int) -> Tensor:
            halves = [judgement.chunk(2) for judgement in discriminator(views, about)]
            return losses.discrimination([half[0] for half in halves], [half[1] for half in halves])

        rests = torch.cat([batch["rests"], estimates.rest])
        mixtures = torch.cat([batch["mixtures"], estimates.remix])
        return {
            "discriminator_rest": judge(self.rest, compress(rests), index),
            "discriminator_mixture": judge(self.mixture, compress(mixtures), 0),
        }
