"""What a network begins with: the measures of its input or, where a run goes on from them, finished weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from separation.errors import UserError
from separation.inference.masking import MaskingNetwork
from separation.inference.weights import load_weights
from separation.models import compress
from separation.training.batches import Batch, mixture_of
from separation.training.config import Config

GROWING = ("blocks", "decoder_levels", "frequency_levels")
"""The sizes of the generator that may differ from those of the weights that a run goes on from."""


def grown_from(paths: Sequence[str], config: Config, own: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """The tensors `own` of a new network, with those of finished weights in their place: of several, their mean.

    Blocks and TDFs that the config leaves out are dropped, and those that it adds stay silent, so the network grows
    from where it was. Raises `UserError` when the weights are of another kind of network.
    """
    states = [_fitting(path, config, device) for path in paths]
    known = {name: [state[name] for state in states if name in state] for name in own}
    return {name: torch.stack(known[name]).mean(dim=0) if known[name] else own[name] for name in own}


def _fitting(path: str, config: Config, device: torch.device) -> dict[str, Tensor]:
    start = load_weights(path, device, config.network)
    sizes = {key: config.generator[key] for key in GROWING if key in config.generator}
    fitting = replace(start.settings, generator={**start.settings.generator, **sizes})
    for key in ("targets", "spectral", "network", "generator"):
        if getattr(fitting, key) != (ours := getattr(config, key)):
            theirs = getattr(start.settings, key)
            raise UserError(f"weights: {path} has {key}: {theirs}, but the config asks for {ours}.")
    return start.network.state_dict()


@torch.no_grad()
def measure_input(network: MaskingNetwork, batches: Iterable[Batch]) -> None:
    """Let every bin reach a network that fits its input centred and of unit variance, as in these batches."""
    if not hasattr(network.generator, "fit_input"):
        return
    moments = []
    for batch in batches:
        views = compress(mixture_of(batch))
        moments.append(torch.stack([views.mean(dim=(0, 3)), views.square().mean(dim=(0, 3))]))
    mean, square = torch.stack(moments).mean(dim=0)
    scale = 1 / ((square - mean.square()).clamp_min(0).sqrt() + 0.01)
    network.generator.fit_input(mean, scale)
