"""Weights files: safetensors that describe their network, which is all that separation needs. Nothing is unpickled.

The metadata of the file is a contract; every entry except the first is JSON:

    format      "separation weights 2"
    network     the fields of `NetworkSettings`: targets, spectral (the STFT), network (the name of its class; unet if
                missing) and generator (the arguments of the class)
    version     of the program that wrote the file
    licence     of the weights, in words
    provenance  what they were trained with and how they scored: for people, never needed to separate

The end of this module lists the shipped weights. Importing it does not require torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import separation
from separation.errors import UserError
from separation.files import write_file
from separation.inference.config import NETWORKS, NetworkSettings, build, on_meta, parse
from separation.inference.device import choose_device, choose_engine
from separation.stems import STEMS, source_names, with_aliases

if TYPE_CHECKING:
    import torch

    from separation.inference.masking import MaskingNetwork

FORMAT = "separation weights 2"
MOST_PARAMETERS = 10**9
UNKNOWN_LICENCE = "not stated in the weights file"


@dataclass(frozen=True)
class Weights:
    """The content of a weights file: a network ready to separate, and its metadata."""

    network: MaskingNetwork
    settings: NetworkSettings
    licence: str
    provenance: dict[str, Any]


def build_network(settings: NetworkSettings) -> MaskingNetwork:
    """Build an untrained network; its code is imported if it belongs to another package.

    Raises `UserError` if the arguments do not fit together, or the network has more than `MOST_PARAMETERS`.
    """
    from separation.inference.masking import MaskingNetwork

    try:
        if (parameters := sum(map(math.prod, expected_shapes(settings).values()))) > MOST_PARAMETERS:
            raise ValueError(f"it would have {parameters:,} parameters: lower its widths or blocks")
        return MaskingNetwork(settings.targets, settings.spectral, build(settings))
    except ValueError as error:
        raise UserError(f"the config's generator cannot be built: {error}.", code="bad_network") from error


def expected_shapes(settings: NetworkSettings) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor in a network with these settings, by name. Raises ValueError as `build` does."""
    return {f"generator.{name}": tuple(tensor.shape) for name, tensor in on_meta(settings).state_dict().items()}


def save_weights(
    path: str | Path,
    network: MaskingNetwork,
    settings: NetworkSettings,
    provenance: Mapping[str, Any] | None = None,
    licence: str = UNKNOWN_LICENCE,
) -> None:
    """Write weights atomically, in half precision, with the `settings` that the network was built from."""
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().half().contiguous() for name, tensor in network.state_dict().items()}
    metadata = {
        "network": {key.name: asdict(settings)[key.name] for key in fields(NetworkSettings)},
        "version": separation.__version__,
        "licence": licence,
        "provenance": provenance or {},
    }
    # save_file would make the file unreadable for other users.
    content = save(tensors, {"format": FORMAT, **{name: json.dumps(value) for name, value in metadata.items()}})
    write_file(Path(path), content)


def load_weights(path: str | Path, device: str | torch.device = "cpu", network: str | None = None) -> Weights:
    """Load a weights file, with the network on `device` and in evaluation mode.

    Code from outside this package is imported only if `network` names the same class as the file.

    Raises `UserError` if the file is missing, damaged or foreign, or needs code that was not named.
    """
    path = Path(path)
    metadata, tensors = _read(path)
    try:
        settings = parse(NetworkSettings, json.loads(metadata["network"]), "")
        trusted = settings.network in NETWORKS or settings.network == network
        if trusted:
            found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
            _compare(found, expected_shapes(settings))  # before anything of the stated size is built
            built = build_network(settings)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, UserError) as error:
        if isinstance(error, UserError) and error.code == "no_network":
            raise
        reason = f"it lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:300].rstrip(".:")
        raise UserError(
            f"{path} is damaged, or was made by another version of this program ({reason}).", code="bad_weights"
        ) from error
    if not trusted:
        raise UserError(
            f"{path} needs code that is not part of this program: if you trust it, give --network {settings.network}.",
            code="untrusted_network",
        )
    built.load_state_dict(tensors)
    about: dict[str, Any] = {"licence": UNKNOWN_LICENCE, "provenance": {}}
    for name in about:  # informative only: an unreadable entry is not an error
        with suppress(KeyError, ValueError, RecursionError):
            about[name] = json.loads(metadata[name])
    provenance = about["provenance"] if isinstance(about["provenance"], dict) else {}
    built.licence = str(about["licence"])
    return Weights(built.to(choose_device(device)).eval(), settings, built.licence, provenance)


def load_network(path: str | Path, device: str | torch.device = "cpu", network: str | None = None) -> MaskingNetwork:
    """Load only the network; see `load_weights`."""
    return load_weights(path, device, network).network


def _read(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """The metadata of a weights file, and its tensors in float32. Raises `UserError` as `load_weights` does."""
    if not path.is_file():
        raise UserError(f"there are no weights at {path}: train some with train.py, or name others.", code="no_weights")
    if not find_spec("torch"):
        problem = "needs torch: pip install '.[gpu]', or export it as ONNX where torch is installed"
        raise UserError(f"{path} {problem}.", code="no_engine")
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata, names = file.metadata() or {}, file.keys()
            foreign = {file.get_slice(name).get_dtype() for name in names} - {"F16", "BF16", "F32"}
            tensors = {} if foreign else {name: file.get_tensor(name).float() for name in names}
    except (SafetensorError, OSError) as error:
        message = f"{path} is not a weights file of this program, or is damaged ({error})."
        raise UserError(message, code="bad_weights") from error
    if metadata.get("format") != FORMAT:
        message = f"{path} holds weights of another program: name a .safetensors file written by train.py."
        raise UserError(message, code="foreign_weights")
    if foreign:
        message = f"{path} holds weights of another kind ({min(foreign)}) than this program writes."
        raise UserError(message, code="foreign_weights")
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise UserError(f"{path} holds weights that are not finite numbers: the file is damaged.", code="bad_weights")
    return metadata, tensors


def _compare(found: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]]) -> None:
    """Raise ValueError naming a tensor that is missing, unknown, or of another shape than the settings imply."""
    for name in sorted({*found, *expected}):
        if found.get(name) != expected.get(name):
            wanted = f"should be {list(expected[name])}" if name in expected else "is not in this network"
            has = f"{name} is {list(found[name])}" if name in found else f"{name} is missing"
            raise ValueError(f"{has}, {wanted}")


SUFFIXES = {"torch": ".safetensors", "onnx": ".onnx"}
"""Suffixes of weights files, by engine."""

SETS = ("fast", "best", "live", "free")
"""Names of shipped weights: those that suffice, all that help, those with the least latency, and those that any
program may ship; see `Separator.licence`."""

PASSES = 3
"""Number of passes at `best` quality, each at another speed; see `Separator`."""

HELPED = {"vocals", "accompaniment", "other"}
"""The stems that improve when the vocals network and the four-stem network are averaged."""

_PLACES = [Path(folder) / "pretrained" for folder in separation.__path__]
PRETRAINED = next((folder for folder in _PLACES if folder.is_dir()), _PLACES[0])


def pretrained(target: str, engine: str = "torch") -> Path:
    """Path of the shipped weights for a target: a stem, or `all` four at once."""
    return PRETRAINED / f"{target}{SUFFIXES[engine]}"


def default_weights(stems: Sequence[str], engine: str = "torch") -> Path:
    """The shipped weights for these stems: those for one target if they suffice, else those for all.

    Raises `UserError` if there is no such stem.
    """
    known = {stem for target in STEMS for stem in source_names([target])}
    if unknown := [stem for stem in stems if stem not in known]:
        raise UserError(
            f"there is no stem called {unknown[0]}: choose among {with_aliases(sorted(known))}.", code="unknown_stem"
        )
    fitting = [target for target in STEMS if set(stems) <= set(source_names([target]))]
    candidates = [pretrained(name, engine) for name in (*fitting, "all")]
    return next((path for path in candidates if path.is_file()), candidates[0])


def find_weights(
    weights: str | Path | Sequence[str | Path] | None, stems: Sequence[str], engine: str = "auto", device: Any = "auto"
) -> tuple[Path, ...]:
    """The files that a choice of weights stands for: a path, several, or one of `SETS` for shipped weights.

    `best` is `PASSES` files, in turn: those for four stems and for vocals if `stems` contain any of `HELPED` or are
    empty, else those of `fast`. `live` is the vocals network with the least latency, `free` the four-stem network
    trained only on freely licensed music. Shipped weights are for the engine that `choose_engine` chooses; other files
    state their engine by their suffix.

    Raises `UserError` if a file is for another engine than the one requested.
    """
    paths: list[Path] = []
    for name in _chosen(weights) or ["fast"]:
        if str(name) not in SETS:
            paths.append(Path(name))
            if engine != "auto" and (paths[-1].suffix == ".onnx") != (engine == "onnx"):
                raise UserError(
                    f"--engine {engine} does not run {name}: `python -m separation export` makes an ONNX file of it.",
                    code="no_engine",
                )
            continue
        suited = choose_engine(engine, device)
        if alone := {"live": "vocals_live", "free": "free"}.get(str(name)):
            paths.append(pretrained(alone, suited))
            continue
        helping = [default_weights(stems, suited)]
        if str(name) == "best" and ({*stems} & HELPED or not stems):
            helping = [pretrained("all", suited), pretrained("vocals", suited)]
        paths += islice(cycle(helping), PASSES if str(name) == "best" else 1)
    return tuple(paths)


def stems_of(weights: str | Path | Sequence[str | Path] | None, stems: Sequence[str]) -> tuple[str, ...]:
    """The stems to output: those that are named or, for `best`, those of `fast`; otherwise empty.

    So a better quality gives better stems, not other ones.
    """
    return tuple(stems) or (source_names(["vocals"]) if "best" in map(str, _chosen(weights)) else ())


def _chosen(weights: str | Path | Sequence[str | Path] | None) -> list[str | Path]:
    """A choice of weights, one, several or none, as a list."""
    return [weights] if isinstance(weights, str | Path) else list(weights or [])


def absolute(weights: Iterable[str | Path]) -> tuple[str, ...]:
    """The same choice of weights with absolute paths, so that it holds in processes with another working directory.

    >>> absolute(["best", "/my.safetensors"])
    ('best', '/my.safetensors')
    """
    return tuple(str(name) if str(name) in SETS else str(Path(name).absolute()) for name in weights)
