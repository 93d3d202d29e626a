"""The loss terms of a training step, and the objective that computes them.

Labelled music is compared in decibels. Unlabelled music is trained with `exchange` or with the terms of `paper.py`. All
signals are complex `[batch, 2 channels, bins, frames]`, all terms `[]`. Under DDP each term is a process's share of one
mean over all processes, so that the averaged gradients equal the gradient of the whole batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn

from separation.inference.masking import MaskingNetwork
from separation.training.batches import Batch
from separation.training.config import DataSettings, LossWeights
from separation.training.paper import Discriminators, Estimates, paper_terms

ERROR_FLOOR = 1e-3
"""Error energy, relative to the mixture, below which improvement hardly counts: -30 dB."""


def error_level(estimate: Tensor, reference: Tensor, mixture: Tensor, floor: Tensor | float = ERROR_FLOOR) -> Tensor:
    """Error energy relative to the mixture, in dB: complex `[..., 2 channels, bins, frames]` to `[...]`.

    Its mean is the negative SDR, up to a constant and a soft floor that keeps it finite where a source is silent:
    Wisdom et al., "What's all the fuss about free universal sound separation data?", ICASSP 2021. Its optimal mask is
    the expected share of the source; that of an L1 loss is the likelier extreme.

    `floor`, `[...]`, is a fraction of the mixture's energy. For pseudo-labels it must be as high as their own error: a
    network soon reproduces them with errors so small that in dB they outweigh the true labels.
    """
    return 10 * torch.log10(_energy(estimate - reference) / (_energy(mixture) + 1e-8) + floor)


def _energy(spectrogram: Tensor) -> Tensor:
    return torch.view_as_real(spectrogram).square().sum(dim=(-4, -3, -2, -1))


def mean_of_labelled(levels: Tensor, labelled: Tensor) -> Tensor:
    """This process's share of the mean of `levels` over all entries with `labelled` 1 in all processes, `[]`.

    Processes may hold different numbers of labels, and a mean of means is not the mean. Each process divides its sum by
    the average number of labels, so that averaging over processes gives the mean over all labels.
    """
    count = labelled.sum()
    if distributed.is_initialized():
        distributed.all_reduce(count)
        count = count / distributed.get_world_size()
    return (levels * labelled).sum() / count.clamp_min(1e-6)


def exchange(target_of_sum: Tensor, mixture: Tensor, rest: Tensor) -> Tensor:
    """|t - (b - a)|^2 / |b + a|^2, where t is the target taken out of b + a, b a mixture and a another song's rest.

    The rest of b and the rest a are exchangeable: given their sum, both have the same expectation. So b - a, the target
    plus the difference of two rests, has the expectation of the target, and least squares over many pairs finds it.
    This trains separation without a target and without an adversary: Moran et al., "Noisier2Noise: Learning to denoise
    from unpaired noisy data", CVPR 2020. It requires squares, and mixtures and rests of the same kind of music at the
    same levels.
    """
    error = _energy(target_of_sum - (mixture - rest))
    return (error / (_energy(mixture + rest) + 1e-8)).mean()


class GeneratorObjective(nn.Module):
    """Losses of the network on a batch, as one module with one forward pass per step, which DDP requires."""

    def __init__(
        self, network: MaskingNetwork, weights: LossWeights, pseudo_label_floor: float = DataSettings.pseudo_label_floor
    ):
        super().__init__()
        self.network, self.weights = network, weights
        self.pseudo_label_floor = 10 ** (pseudo_label_floor / 10)

    def forward(
        self, batch: Batch, discriminators: Discriminators | None = None
    ) -> tuple[dict[str, Tensor], Estimates | None]:
        """Return named losses, and the estimates for the discriminators to judge, if any.

        `discriminators` is None at steps without adversarial terms.
        """
        terms: dict[str, Tensor] = {}
        estimates = None
        if "sources" in batch:
            terms |= self._supervised(batch)
        if "mixtures" in batch:
            index = int(batch["target"])

            def take_out(mixture: Tensor) -> Tensor:
                return self.network(mixture)[:, index]

            if self.weights.exchange:
                mixture, rest = batch["mixtures"], batch["rests"]
                terms["exchange"] = exchange(take_out(mixture + rest), mixture, rest)
            if self.weights.circular or discriminators:
                more, estimates = paper_terms(take_out, batch, self.weights, discriminators)
                terms |= more
        return terms, estimates

    def _supervised(self, batch: Batch) -> dict[str, Tensor]:
        sources, labelled, count = batch["sources"], batch["labelled"], len(self.network.targets)
        mixture, targets, rest = sources.sum(dim=1), sources[:, :count], sources[:, count:]
        floor = torch.where(batch["pseudo_labelled"].bool(), self.pseudo_label_floor, ERROR_FLOOR)
        estimates = self.network(mixture)
        levels = error_level(estimates, targets, mixture[:, None], floor[:, None])
        terms = {"supervised_target": mean_of_labelled(levels, labelled)}
        if rest.shape[1] and self.weights.supervised_rest:
            levels = error_level(mixture - estimates.sum(dim=1), rest[:, 0], mixture, floor)
            terms["supervised_rest"] = mean_of_labelled(levels, labelled.amin(dim=1))
        return terms
