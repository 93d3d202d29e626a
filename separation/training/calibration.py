"""Trained masks are made as soft as scores best.

An L1 loss makes masks nearly binary, and more so the better a network knows its training songs; SDR, a ratio of
energies, rewards masks that admit their doubts. Scaling all log-shares by one factor is temperature scaling (Guo et
al., "On calibration of modern neural networks", ICML 2017): it costs nothing later.
"""

from __future__ import annotations

from collections.abc import Sequence

from separation.dataset.store import StoredTrack
from separation.inference.masking import MaskingNetwork
from separation.training.validation import Scores, mean_of, validate


def soften(network: MaskingNetwork, tracks: Sequence[StoredTrack], factors: Sequence[float]) -> tuple[float, Scores]:
    """Scale the network's log-shares by whichever of `factors` gives the best mean SDR of its targets on `tracks`.

    Returns the factor, and the scores with it. Without anything to score, the network stays as it is.
    """
    tried = {}
    for factor in factors:
        network.generator.scale_logits(factor)
        tried[factor] = validate(network, tracks)
        network.generator.scale_logits(1 / factor)

    def merit(factor: float) -> float:
        mean = mean_of(network.targets, tried[factor])
        return -abs(factor - 1) if mean is None else mean

    best = max(tried, key=merit)
    network.generator.scale_logits(best)
    return best, tried[best]
