"""Weights are a safetensors file with what the network is inside: enough to separate with, and never unpickled.

The metadata of the file is a contract, each entry JSON but for the first:

    format      "separation weights 2"
    network     targets, spectral (the STFT) and generator (its sizes): what `NetworkSettings` holds, and no more
    version     of this program, that wrote the file
    ranges      what comes to the convolutions of each block, as `Generator.ranges`; there where it has been measured
    licence     of the weights, in words
    provenance  what they were trained with and how they scored: for people, never needed to separate
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch.overrides import TorchFunctionMode

import separation
from separation.errors import UserError
from separation.files import replacing
from separation.inference.config import NetworkSettings, parse
from separation.inference.masking import MaskingNetwork
from separation.models import Generator
from separation.models.blocks import Range
from separation.stems import rest_name

FORMAT, OLDER_FORMAT = "separation weights 2", "separation weights 1"
MOST_PARAMETERS = 10**9
UNKNOWN_LICENCE = "not stated: ask who made the weights"


@dataclass(frozen=True)
class Weights:
    """What a weights file holds: a network ready to separate, and what is said about it."""

    network: MaskingNetwork
    settings: NetworkSettings
    licence: str
    provenance: dict[str, Any]


def build_network(settings: NetworkSettings) -> MaskingNetwork:
    """An untrained network of these sizes. Raises `UserError` when they do not fit together, or are beyond memory."""
    shapes = expected_shapes(settings)
    if (parameters := sum(math.prod(shape) for shape in shapes.values())) > MOST_PARAMETERS:
        raise UserError(f"the config's generator would have {parameters:,} parameters: lower its widths or blocks.")
    return MaskingNetwork(settings.targets, settings.spectral, _generator(settings))


def expected_shapes(settings: NetworkSettings) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor in a network of these settings, by name, without the memory that it would take.

    Raises `UserError` as `build_network` does.
    """
    with torch.device("meta"), _Uninitialised():
        return {f"generator.{name}": tuple(x.shape) for name, x in _generator(settings).state_dict().items()}


class _Uninitialised(TorchFunctionMode):
    """Leaves out what fills tensors: random numbers without memory would have torch load its compiler, for a second."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(function, "__module__", "") == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return function(*args, **kwargs)


def _generator(settings: NetworkSettings) -> Generator:
    try:
        return Generator(len(settings.targets), rest_name(settings.targets) is None, **asdict(settings.generator))
    except ValueError as error:
        raise UserError(f"the config's generator cannot be built: {error}.") from error


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
    ranges = {"ranges": network.ranges} if network.ranges else {}
    said = {
        "network": contract,
        **ranges,
        "version": separation.__version__,
        "licence": licence,
        "provenance": provenance or {},
    }
    metadata = {"format": FORMAT, **{name: json.dumps(value) for name, value in said.items()}}
    content = save(tensors, metadata)  # save_file would let nobody else read the file
    with replacing(Path(path)) as partial:
        partial.write_bytes(content)


def load_weights(path: str | Path, device: str | torch.device = "cpu") -> Weights:
    """What a weights file holds, the network on `device` and in evaluation mode.

    Raises `UserError` when the file is missing, damaged or foreign.
    """
    path = Path(path)
    metadata, shapes = _read_header(path)
    try:
        said = {
            name: json.loads(metadata[name]) for name in ("network", "config", "facts", "ranges") if name in metadata
        }
        if metadata["format"] == OLDER_FORMAT:
            said = _from_older(said)
        settings = parse(NetworkSettings, said["network"], "")
        _compare(shapes, expected_shapes(settings))  # before anything of the size that it says is built
        ranges = _ranges(said.pop("ranges", None))
        network = build_network(settings)
        network.generator.ranges = ranges
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, UserError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:300].rstrip(".:")
        raise UserError(f"{path} is damaged, or was made by another version of this program ({reason}).") from error
    network.load_state_dict(_read_tensors(path))
    about = {"licence": UNKNOWN_LICENCE, "provenance": {}, **_about(metadata), **said}
    provenance = about["provenance"] if isinstance(about["provenance"], dict) else {}
    return Weights(network.to(device).eval(), settings, str(about["licence"]), provenance)


def load_network(path: str | Path, device: str | torch.device = "cpu") -> MaskingNetwork:
    """The network alone; see `load_weights`."""
    return load_weights(path, device).network


def _read_header(path: Path) -> tuple[dict[str, str], dict[str, tuple[int, ...]]]:
    """The metadata of a weights file, and the shapes of its tensors by name."""
    if not path.is_file():
        raise UserError(f"there are no weights at {path}: train some with train.py, or name others.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
            shapes = {name: tuple(slice.get_shape()) for name, slice in slices.items()}
            kinds = {slice.get_dtype() for slice in slices.values()}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is no weights file of this program, or is damaged ({error}).") from error
    if metadata.get("format") not in (FORMAT, OLDER_FORMAT):
        raise UserError(f"{path} holds weights of another program: name a .safetensors file that train.py wrote.")
    if foreign := kinds - {"F16", "BF16", "F32"}:
        raise UserError(f"{path} holds weights of another kind ({min(foreign)}) than this program writes.")
    return metadata, shapes


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (it is no dict)
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise UserError(f"{path} holds weights that are not finite numbers: the file is damaged.")
    return tensors


def _compare(found: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]]) -> None:
    """Raises ValueError naming a tensor that is missing, unknown, or of another shape than the settings imply."""
    for name in sorted({*found, *expected}):
        if found.get(name) != expected.get(name):
            wanted = f"should be {list(expected[name])}" if name in expected else "is not in such a network"
            has = f"{name} is {list(found[name])}" if name in found else f"{name} is missing"
            raise ValueError(f"{has}, {wanted}")


def _ranges(said: Any) -> tuple[tuple[Range, Range], ...] | None:
    """Raises ValueError when what is said is not two ranges, each around 0, for every block."""
    if said is None:
        return None
    ranges = tuple(tuple((float(low), float(high)) for low, high in block) for block in said)
    if not all(len(block) == 2 and all(-1e6 < low <= 0 <= high < 1e6 for low, high in block) for block in ranges):
        raise ValueError("ranges should be the least and the largest value, around 0, for both convolutions of a block")
    return ranges


def _about(metadata: dict[str, str]) -> dict[str, Any]:
    """What is said for people alone: what of it cannot be read refuses nothing."""
    about = {}
    for name in ("licence", "provenance"):
        with suppress(KeyError, ValueError, RecursionError):
            about[name] = json.loads(metadata[name])
    return about


def _from_older(said: dict[str, Any]) -> dict[str, Any]:
    """What the first version of the format said, in the words of this one: it kept the whole config of a training."""
    config, facts = said["config"], said.get("facts", {})
    network = {key.name: config[key.name] for key in fields(NetworkSettings)}
    return {"network": network, "provenance": {"config": config, **(facts if isinstance(facts, dict) else {})}}
