"""What comes to the convolutions of a network, measured on music, so that they may be computed in 8-bit integers."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from separation.inference.masking import MaskingNetwork
from separation.models.blocks import ConvolutionBranch, FrameNorm, Range


@torch.no_grad()
def measure_ranges(network: MaskingNetwork, mixtures: Iterable[Tensor]) -> None:
    """Let the network know what comes to its convolutions, for spectrograms: complex `[batch, 2, bins, frames]`."""
    seen = {branch: ([0.0, 0.0], [0.0, 0.0]) for branch in network.generator.branches()}

    def widen(limits: list[float], x: Tensor) -> None:
        low, high = (float(limit) for limit in torch.aminmax(x))
        limits[:] = min(low, limits[0]), max(high, limits[1])

    def enter(branch: ConvolutionBranch, inputs: tuple[Tensor]) -> None:
        widen(seen[branch][0], normed(branch[0], inputs[0]))

    hooks = [branch.register_forward_pre_hook(enter) for branch in seen]
    for branch, limits in seen.items():
        hooks.append(branch[-1].register_forward_pre_hook(lambda _, x, limits=limits: widen(limits[1], x[0])))
    try:
        for mixture in mixtures:
            network(mixture)
    finally:
        for hook in hooks:
            hook.remove()
    for branch, limits in seen.items():
        branch.ranges = tuple[Range, Range](tuple(limit) for limit in limits)


def normed(norm: FrameNorm, x: Tensor) -> Tensor:
    """A norm without its scale, which streams have in the weights of the convolution after it."""
    scale, norm.scale.data = norm.scale.data, torch.ones_like(norm.scale.data)
    try:
        return norm(x)
    finally:
        norm.scale.data = scale
