"""The terms of the method, each a pure function by its name. All but the adversarial ones are on complex spectrograms.

Labelled music is compared in decibels, unlabelled music by an L1 distance.

Notation of the paper (Michelashvili, Benaim, Wolf 2019): b is a mixture, a is a rest (music without the target) of
another song, g(x) is the rest that the generator leaves of x, and x - g(x) the target it takes out. Masks multiply
complex spectrograms, so sums and differences are exact. Every term is a mean, of shape `[]`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def l1(estimate: Tensor, reference: Tensor) -> Tensor:
    """Mean magnitude of the difference of two complex spectrograms of the same shape."""
    return (estimate - reference).abs().mean()


QUIET = 1e-3
"""An error this far below its mixture in energy (-30 dB) is nearly as good as none."""


def error_level(estimate: Tensor, reference: Tensor, mixture: Tensor, quiet: Tensor | float = QUIET) -> Tensor:
    """Energy of the error against that of the mixture, in dB: complex `[..., 2 channels, bins, frames]` to `[...]`.

    Its mean is the negative SDR that evaluation measures, but for a constant and a soft floor, which keeps it finite
    where a source is silent (Wisdom et al., "What's all the fuss about free universal sound separation data?", ICASSP
    2021). Unlike an L1 loss it asks for masks that admit their doubts: the expected share, not the likelier side.

    `quiet`, `[...]`, is that floor, as a share of the mixture's energy. Where a network has made the labels, it must be
    as high as the network's own error: another soon finds its labels again, with errors so small that in dB they would
    outweigh all that true labels have to say.
    """
    energy = _energy(mixture) + 1e-8
    return 10 * torch.log10(_energy(estimate - reference) / energy + quiet)


def _energy(spectrogram: Tensor) -> Tensor:
    return torch.view_as_real(spectrogram).square().sum(dim=(-4, -3, -2, -1))


def supervised_target(
    target_estimate: Tensor, target: Tensor, mixture: Tensor, labelled: Tensor, quiet: Tensor | float = QUIET
) -> Tensor:
    """The targets taken out of a labelled mixture are the true ones, as far as these are `labelled` (1, or else 0)."""
    return _mean_of_labelled(error_level(target_estimate, target, mixture, quiet), labelled)


def supervised_rest(rest_estimate: Tensor, rest: Tensor, mixture: Tensor, labelled: Tensor) -> Tensor:
    """What is left of a labelled mixture is its true rest, as far as that is `labelled` (1, or else 0)."""
    return _mean_of_labelled(error_level(rest_estimate, rest, mixture), labelled)


def _mean_of_labelled(levels: Tensor, labelled: Tensor) -> Tensor:
    return (levels * labelled).sum() / labelled.sum().clamp_min(1)


def identity(rest_of_rest: Tensor, rest: Tensor) -> Tensor:
    """|g(a) - a|: a rest is left alone."""
    return l1(rest_of_rest, rest)


def idempotence(rest_of_estimate: Tensor, rest_estimate: Tensor) -> Tensor:
    """|g(g(b)) - g(b)|: what has been left once is left again."""
    return l1(rest_of_estimate, rest_estimate)


def remix_rest(rest_of_remix: Tensor, rest: Tensor) -> Tensor:
    """|g(m) - a| for the synthetic mixture m = (b - g(b)) + a: the rest that went in comes out."""
    return l1(rest_of_remix, rest)


def remix_target(target_of_remix: Tensor, target_estimate: Tensor) -> Tensor:
    """|(m - g(m)) - (b - g(b))|: the target that went in comes out."""
    return l1(target_of_remix, target_estimate)


def exchange(target_of_sum: Tensor, mixture: Tensor, rest: Tensor) -> Tensor:
    """|t - (b - a)|^2 / |b + a|^2 for what is taken out of b + a: t is, on average, as much as b is more than a.

    The rest of b and the rest a of another song may be exchanged without anyone noticing: given their sum, each is
    expected to be the same. So b - a, which is the target and the difference of two rests, is expected to be the
    target, and that is what the least squares over many pairs come to: separation learned without a target, and
    without an adversary. It takes mixtures and rests of the same kind of music, at the same levels (Moran et al.,
    "Noisier2Noise: Learning to denoise from unpaired noisy data", CVPR 2020). Only squares have this property.

    All three complex `[..., 2 channels, bins, frames]`.
    """
    error = _energy(target_of_sum - (mixture - rest))
    return (error / (_energy(mixture + rest) + 1e-8)).mean()


def adversarial(judgements: Sequence[Tensor]) -> Tensor:
    """Least-squares GAN (LSGAN), the generator's side: estimates should be judged real (1), at every scale."""
    return torch.stack([(judgement.float() - 1).square().mean() for judgement in judgements]).mean()


def discrimination(real: Sequence[Tensor], estimated: Sequence[Tensor]) -> Tensor:
    """LSGAN, the discriminator's side: real music should be judged 1 and estimates 0, at every scale."""
    scales = [
        (judged_real.float() - 1).square().mean() + judged_estimate.float().square().mean()
        for judged_real, judged_estimate in zip(real, estimated, strict=True)
    ]
    return torch.stack(scales).mean()
