"""Training state and weights are saved, all or nothing, and loaded, never by unpickling objects.

Weights are a safetensors file with the settings inside: enough to separate with, and nothing else. Training state is
what `--resume` needs: tensors and plain values only.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from models import Generator
from separation.config import Config, parse_config
from separation.errors import UserError
from separation.files import replacing
from separation.masking import MaskingNetwork
from separation.stems import rest_name

PRETRAINED = Path(__file__).resolve().parents[1] / "pretrained"
FORMAT = "separation weights 1"


def build_network(config: Config) -> MaskingNetwork:
    """An untrained network with the sizes that a config asks for. Raises `UserError` when they do not fit together."""
    try:
        generator = Generator(len(config.targets), rest_name(config.targets) is None, **asdict(config.generator))
    except ValueError as error:
        raise UserError(f"the config's generator cannot be built: {error}.") from error
    return MaskingNetwork(config.targets, config.spectral, generator)


def save_weights(path: str | Path, network: MaskingNetwork, config: Config, **facts: Any) -> None:
    """Write weights in half precision, with the config, and `facts` about them (such as the step and the score)."""
    tensors = {name: tensor.detach().cpu().half().contiguous() for name, tensor in network.state_dict().items()}
    metadata = {"format": FORMAT, "config": json.dumps(asdict(config)), "facts": json.dumps(facts)}
    with replacing(Path(path)) as partial:
        partial.write_bytes(save(tensors, metadata))  # save_file would let nobody else read the file


def load_weights(path: str | Path, device: str | torch.device = "cpu") -> tuple[MaskingNetwork, Config, dict[str, Any]]:
    """The network of a weights file, ready to separate, the config it was trained with, and the facts saved about it.

    Raises `UserError` when the file is missing, damaged or foreign.
    """
    config, facts, tensors = _read_weights(Path(path))
    network = build_network(config)
    try:
        network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except RuntimeError as error:
        raise UserError(f"{path}: the weights do not fit the settings saved with them: the file is damaged.") from error
    return network.to(device).eval(), config, facts


def load_network(path: str | Path, device: str | torch.device = "cpu") -> MaskingNetwork:
    """The network alone; see `load_weights`."""
    return load_weights(path, device)[0]


def read_facts(path: str | Path) -> tuple[Config, dict[str, Any]]:
    """The config that weights were trained with, and the facts saved about them."""
    config, facts, _ = _read_weights(Path(path))
    return config, facts


def _read_weights(path: Path) -> tuple[Config, dict[str, Any], dict[str, torch.Tensor]]:
    if not path.is_file():
        raise UserError(f"there are no weights at {path}: train some with train.py, or name others.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is no weights file of this program, or is damaged ({error}).") from error
    if metadata.get("format") != FORMAT:
        raise UserError(f"{path} holds weights of another program: name a .safetensors file that train.py wrote.")
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise UserError(f"{path} holds weights that are not finite numbers: the file is damaged.")
    return parse_config(json.loads(metadata["config"]), str(path)), json.loads(metadata["facts"]), tensors


def pretrained(target: str) -> Path:
    """Where the shipped weights for a target lie: a stem, or `all` four at once."""
    return PRETRAINED / f"{target}.safetensors"


def save_state(path: str | Path, state: dict[str, Any]) -> None:
    """Write training state: nested dicts and lists of tensors and plain values."""
    with replacing(Path(path)) as partial:
        torch.save(state, partial)


def load_state(path: str | Path) -> dict[str, Any]:
    """Read training state onto the CPU. Raises `UserError` when there is none or it is damaged."""
    if not Path(path).is_file():
        raise UserError(f"there is no training to take up at {path}: start it without --resume, or give its --output.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for damaged files
        raise UserError(f"the training state {path} is damaged: delete it and start without --resume.") from error
    if not isinstance(state, dict) or "config" not in state:
        raise UserError(f"{path} is no training state of this program: name another --output.")
    return state
