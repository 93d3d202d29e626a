"""Weights are a safetensors file with what the network is inside: enough to separate with, and never unpickled.

The metadata of the file is a contract, each entry JSON but for the first:

    format      "separation weights 2"
    network     targets, spectral (the STFT) and generator (its sizes): what `NetworkSettings` holds, and no more
    version     of this program, that wrote the file
    licence     of the weights, in words
    provenance  what they were trained with and how they scored: for people, never needed to separate
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

import separation
from separation.errors import UserError
from separation.files import replacing
from separation.models import Generator
from separation.network.config import NetworkSettings, parse
from separation.network.masking import MaskingNetwork
from separation.stems import rest_name

FORMAT, OLDER_FORMAT = "separation weights 2", "separation weights 1"
UNKNOWN_LICENCE = "not stated: ask who made the weights"


@dataclass(frozen=True)
class Weights:
    """What a weights file holds: a network ready to separate, and what is said about it."""

    network: MaskingNetwork
    settings: NetworkSettings
    licence: str
    provenance: dict[str, Any]


def build_network(settings: NetworkSettings) -> MaskingNetwork:
    """An untrained network of these sizes. Raises `UserError` when they do not fit together."""
    try:
        generator = Generator(len(settings.targets), rest_name(settings.targets) is None, **asdict(settings.generator))
    except ValueError as error:
        raise UserError(f"the config's generator cannot be built: {error}.") from error
    return MaskingNetwork(settings.targets, settings.spectral, generator)


def save_weights(
    path: str | Path,
    network: MaskingNetwork,
    settings: NetworkSettings,
    provenance: Mapping[str, Any] | None = None,
    licence: str = UNKNOWN_LICENCE,
) -> None:
    """Write weights in half precision, all or nothing, with the `settings` that the network was built from."""
    tensors = {name: tensor.detach().cpu().half().contiguous() for name, tensor in network.state_dict().items()}
    contract = {key.name: asdict(settings)[key.name] for key in fields(NetworkSettings)}
    said = {"network": contract, "version": separation.__version__, "licence": licence, "provenance": provenance or {}}
    metadata = {"format": FORMAT, **{name: json.dumps(value) for name, value in said.items()}}
    with replacing(Path(path)) as partial:
        partial.write_bytes(save(tensors, metadata))  # save_file would let nobody else read the file


def load_weights(path: str | Path, device: str | torch.device = "cpu") -> Weights:
    """What a weights file holds, the network on `device` and in evaluation mode.

    Raises `UserError` when the file is missing, damaged or foreign.
    """
    path = Path(path)
    metadata, tensors = _read(path)
    try:
        said = {name: json.loads(text) for name, text in metadata.items() if name != "format"}
        if metadata["format"] == OLDER_FORMAT:
            said = _from_older(said)
        settings = parse(NetworkSettings, said["network"], "")
        network = build_network(settings)
        network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, UserError) as error:
        reason = str(error).splitlines()[0].rstrip(".:")
        raise UserError(f"{path} is damaged, or was made by another version of this program ({reason}).") from error
    licence = str(said.get("licence", UNKNOWN_LICENCE))
    return Weights(network.to(device).eval(), settings, licence, said.get("provenance", {}))


def load_network(path: str | Path, device: str | torch.device = "cpu") -> MaskingNetwork:
    """The network alone; see `load_weights`."""
    return load_weights(path, device).network


def _read(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    if not path.is_file():
        raise UserError(f"there are no weights at {path}: train some with train.py, or name others.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is no weights file of this program, or is damaged ({error}).") from error
    if metadata.get("format") not in (FORMAT, OLDER_FORMAT):
        raise UserError(f"{path} holds weights of another program: name a .safetensors file that train.py wrote.")
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise UserError(f"{path} holds weights that are not finite numbers: the file is damaged.")
    return metadata, tensors


def _from_older(said: dict[str, Any]) -> dict[str, Any]:
    """What the first version of the format said, in the words of this one: it kept the whole config of a training."""
    config = said["config"]
    network = {key.name: config[key.name] for key in fields(NetworkSettings)}
    return {"network": network, "provenance": {"config": config, **said.get("facts", {})}}
