"""All losses of one training step, for the generator and for the discriminators.

Each objective is one module with one forward pass a step, which is what DistributedDataParallel asks for.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from separation.audio.spectral import compress
from separation.inference.masking import MaskingNetwork
from separation.models import Discriminator
from separation.training import losses
from separation.training.batches import Batch
from separation.training.config import DataSettings, LossWeights
from separation.training.truncation import Truncation

Losses = dict[str, Tensor]


@dataclass
class Estimates:
    """What the generator made of unlabelled music: complex `[batch, 2 channels, bins, frames]`, without gradient."""

    rest: Tensor
    remix: Tensor


class Teacher:
    """Labels mixtures with the moving average of the generator, whose estimates are steadier than its own."""

    def __init__(self, network: MaskingNetwork):
        self.network = network

    @torch.no_grad()
    def __call__(self, mixture: Tensor, target: int) -> tuple[Tensor, Tensor]:
        """The target of each mixture, and 1 where it may be used as a label, else 0.

        Complex `[batch, 2 channels, bins, frames]` to the same, and `[batch]`. Where masks that are right about their
        doubts (a mask m takes out m^2 of a bin's energy, and is m (1 - m) wrong) make more error than signal, there is
        no label.
        """
        label = self.network(mixture)[:, target]
        taken, left = label.abs(), (mixture - label).abs()
        energy, error = (signal.sum(dim=(-3, -2, -1)) for signal in (taken.square(), taken * left))
        return label, (energy >= error).float()


class GeneratorObjective(nn.Module):
    """The losses of the masking network on a batch: those that have a weight."""

    def __init__(
        self,
        network: MaskingNetwork,
        weights: LossWeights,
        truncation: Truncation | None = None,
        taught_floor: float = DataSettings.taught_floor,
    ):
        super().__init__()
        self.network = network
        self.weights = weights
        self.truncation = truncation
        self.taught_quiet = 10 ** (taught_floor / 10)

    def forward(
        self, batch: Batch, critics: DiscriminatorObjective | None = None, teacher: Teacher | None = None
    ) -> tuple[Losses, Estimates | None]:
        """Named losses, and the estimates that the discriminators have to judge, if any.

        `critics` is None at steps without adversarial terms, `teacher` at those without labels of its own.
        """
        terms: Losses = {}
        estimates = None
        if "sources" in batch:
            terms |= self._supervised(batch["sources"], batch["labelled"], batch["taught"])
        if "mixtures" in batch:
            music = batch["mixtures"], batch["rests"], int(batch["target"])
            if self.weights.exchange or teacher:
                terms |= self._direct(*music, teacher)
            if self.weights.circular or critics:
                circular, estimates = self._circular(*music, critics)
                terms |= circular
        return terms, estimates

    def _supervised(self, sources: Tensor, labelled: Tensor, taught: Tensor) -> Losses:
        mixture, count = sources.sum(dim=1), len(self.network.targets)
        estimates, targets, rest = self.network(mixture), sources[:, :count], sources[:, count:]
        if self.truncation:
            levels = losses.error_level(estimates.detach(), targets, mixture[:, None])
            labelled = labelled * self.truncation(levels, taught)
        quiet = torch.where(taught.bool(), self.taught_quiet, losses.QUIET)[:, None]
        terms = {"supervised_target": losses.supervised_target(estimates, targets, mixture[:, None], labelled, quiet)}
        if rest.shape[1] and self.weights.supervised_rest:
            left = mixture - estimates.sum(dim=1)
            terms["supervised_rest"] = losses.supervised_rest(left, rest[:, 0], mixture, labelled.amin(dim=1))
        return terms

    def _direct(self, mixture: Tensor, rest: Tensor, target: int, teacher: Teacher | None) -> Losses:
        """The terms that know what to take out of a sum of b, or of what the teacher takes out of it, and a."""
        sums = {"exchange": mixture + rest} if self.weights.exchange else {}
        if teacher:
            label, labelled = teacher(mixture, target)
            sums["teacher"] = label + rest
        taken = self._take_out(sums, target)
        terms = {}
        if "exchange" in taken:
            terms["exchange"] = losses.exchange(taken["exchange"], mixture, rest)
        if teacher:
            terms["teacher"] = losses.teacher(taken["teacher"], label, sums["teacher"], labelled)
        return terms

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
            judgements = critics.rest(critics.views_of(rest_estimate, mixture), target)
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
    """The two discriminators, and their losses on real and estimated music.

    With `beside` that of rests sees each beside the music it came from: g(b) beside b, and a real rest a beside the
    synthetic mixture m that it went into. So it can judge what was taken out, and what was left behind. Source: Isola
    et al., "Image-to-image translation with conditional adversarial networks", CVPR 2017.
    """

    def __init__(self, rest: Discriminator, mixture: Discriminator, beside: bool = False):
        super().__init__()
        self.rest = rest
        self.mixture = mixture
        self.beside = beside

    def views_of(self, rest: Tensor, music: Tensor) -> Tensor:
        """What the discriminator of rests sees of a rest and the music it came from, real `[batch, views, ...]`."""
        return torch.cat([compress(rest), compress(music)], dim=1) if self.beside else compress(rest)

    def forward(self, batch: Batch, estimates: Estimates) -> Losses:
        index = int(batch["target"])

        def judge(discriminator: Discriminator, views: Tensor, about: int) -> Tensor:
            halves = [judgement.chunk(2) for judgement in discriminator(views, about)]
            return losses.discrimination([half[0] for half in halves], [half[1] for half in halves])

        rests = torch.cat([batch["rests"], estimates.rest])
        origins = torch.cat([estimates.remix, batch["mixtures"]])
        mixtures = torch.cat([batch["mixtures"], estimates.remix])
        return {
            "discriminator_rest": judge(self.rest, self.views_of(rests, origins), index),
            "discriminator_mixture": judge(self.mixture, compress(mixtures), 0),
        }
