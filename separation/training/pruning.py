"""Prune a trained U-Net to a narrower one: each level keeps the channels that the estimates depend on most.

The importance of a channel is, to first order, its values times the gradient of the estimates there, squared and summed
over some music: Molchanov et al., "Importance estimation for neural network pruning", CVPR 2019. The gradient is that
of a random projection of the estimates, which weighs all bins alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from separation.inference.masking import MaskingNetwork
from separation.models.unet import Block, UNet
from separation.training.batches import Batch, mixtures_in

Channels = int | str
"""The channels of a level, shared by all its blocks, by number; or those inside a block, by the block's name."""


def narrowed(network: MaskingNetwork, widths: Sequence[int], batches: Iterable[Batch]) -> dict[str, Tensor]:
    """State of `network`, a U-Net, pruned to the `widths` most important channels of each level, from the top down.

    Importance is measured on the mixtures of `batches`.
    """
    unet = network.generator
    assert isinstance(unet, UNet)
    last = len(unet.down)
    kept = {}
    for channels, values in importance(network, unet, batches).items():
        level = channels if isinstance(channels, int) else _level(channels.split("."), last)
        kept[channels] = values.topk(widths[level]).indices.sort().values
    state = network.state_dict()
    for name in state:
        for axis, channels in enumerate(channel_axes(name.removeprefix("generator.").split("."), last)):
            state[name] = state[name].index_select(axis, kept[channels])
    return state


def importance(network: MaskingNetwork, unet: UNet, batches: Iterable[Batch]) -> dict[Channels, Tensor]:
    """Importance of each channel to the estimates: `[channels]`, per level and for the inside of each block."""
    found: dict[Channels, Tensor] = {}

    def watch(channels: Channels, module: nn.Module, inputs: object, output: Tensor) -> None:
        def add(gradient: Tensor) -> None:
            found[channels] = found.get(channels, 0) + (output.detach() * gradient).square().sum((0, 2, 3))

        output.register_hook(add)

    handles = [module.register_forward_hook(partial(watch, channels)) for channels, module in places(unet)]
    for batch in batches:
        estimates = torch.view_as_real(network(mixtures_in(batch).to(network.device)))
        (estimates * torch.randn_like(estimates)).sum().backward()
        network.zero_grad()
    for handle in handles:
        handle.remove()
    return found


def places(unet: UNet) -> Iterator[tuple[Channels, nn.Module]]:
    """Modules whose outputs are the channels of a level, or those inside a block."""
    last = len(unet.down)
    yield 0, unet.inlet
    for level, (down, up) in enumerate(zip(unet.down, unet.up, strict=True)):
        yield level + 1, down
        yield level, up
    for name, module in unet.named_modules():
        if isinstance(module, Block):
            yield _level(name.split("."), last), module
            yield name, module.convolution[2]


def channel_axes(name: list[str], last: int) -> list[Channels]:
    """Channels that the first axes of a U-Net tensor stand for; further axes hold no channels.

    >>> channel_axes("down.1.weight".split("."), last=3)
    [2, 1]
    >>> channel_axes("encoder.1.0.convolution.1.weight".split("."), last=3)
    ['encoder.1.0', 1]
    """
    match name:
        case ["inlet", *_] | ["outlet", "norm", _] | ["outlet", _, _, "weight"]:
            return [0]
        case ["down" | "up", level, "weight"]:
            return [int(level) + 1, int(level)]
        case ["down", level, "bias"]:
            return [int(level) + 1]
        case ["up", level, "bias"]:
            return [int(level)]
        case [*block, "convolution", "1", kind]:
            return [".".join(block), _level(block, last)] if kind == "weight" else [".".join(block)]
        case [*block, "convolution", "3", "weight"]:
            return [_level(block, last), ".".join(block)]
        case [*block, "convolution", _, _] | [*block, "frequency", "0", "scale"]:
            return [_level(block, last)]
    return []


def _level(block: list[str], last: int) -> int:
    """The level that a block belongs to, from its name."""
    return last if block[0] == "bottom" else int(block[1])
