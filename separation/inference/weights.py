"""Weights are a safetensors file that says which network is inside: enough to separate with, and never unpickled.

The metadata of the file is a contract, each entry JSON but for the first:

    format      "separation weights 2"
    network     what `NetworkSettings` holds: targets, spectral (the STFT), network (the name of its class; where it is
                missing, unet) and generator (the arguments of the class)
    version     of this program, that wrote the file
    licence     of the weights, in words
    provenance  what they were trained with and how they scored: for people, never needed to separate

The weights that are shipped are at the end of this file. Importing it needs no torch.
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
from separation.files import replacing
from separation.inference.config import NETWORKS, NetworkSettings, build, on_meta, parse
from separation.inference.device import choose_device, choose_engine
from separation.stems import STEMS, source_names, with_aliases

if TYPE_CHECKING:
    import torch

    from separation.inference.masking import MaskingNetwork

FORMAT = "separation weights 2"
MOST_PARAMETERS = 10**9
UNKNOWN_LICENCE = "not stated: ask who made the weights"


@dataclass(frozen=True)
class Weights:
    """What a weights file holds: a network ready to separate, and its metadata."""

    network: MaskingNetwork
    settings: NetworkSettings
    licence: str
    provenance: dict[str, Any]


def build_network(settings: NetworkSettings) -> MaskingNetwork:
    """An untrained network of these settings, whose code is imported if it is of another package.

    Raises `UserError` when the arguments do not fit together, or the network is beyond memory.
    """
    from separation.inference.masking import MaskingNetwork

    try:
        if (parameters := sum(map(math.prod, expected_shapes(settings).values()))) > MOST_PARAMETERS:
            raise ValueError(f"it would have {parameters:,} parameters: lower its widths or blocks")
        return MaskingNetwork(settings.targets, settings.spectral, build(settings))
    except ValueError as error:
        raise UserError(f"the config's generator cannot be built: {error}.", code="bad_network") from error


def expected_shapes(settings: NetworkSettings) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor in a network of these settings, by name. Raises ValueError as `build` does."""
    return {f"generator.{name}": tuple(tensor.shape) for name, tensor in on_meta(settings).state_dict().items()}


def save_weights(
    path: str | Path,
    network: MaskingNetwork,
    settings: NetworkSettings,
    provenance: Mapping[str, Any] | None = None,
    licence: str = UNKNOWN_LICENCE,
) -> None:
    """Write weights in half precision, all or nothing, with the `settings` that the network was built from."""
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().half().contiguous() for name, tensor in network.state_dict().items()}
    metadata = {
        "network": {key.name: asdict(settings)[key.name] for key in fields(NetworkSettings)},
        "version": separation.__version__,
        "licence": licence,
        "provenance": provenance or {},
    }
    # save_file would let nobody else read the file.
    content = save(tensors, {"format": FORMAT, **{name: json.dumps(value) for name, value in metadata.items()}})
    with replacing(Path(path)) as partial:
        partial.write_bytes(content)


def load_weights(path: str | Path, device: str | torch.device = "cpu", network: str | None = None) -> Weights:
    """What a weights file holds, the network on `device` and in evaluation mode.

    A network whose code is not of this package is imported only when `network` names it, as the file does.

    Raises `UserError` when the file is missing, damaged or foreign, or needs code that was not named.
    """
    path = Path(path)
    metadata, tensors = _read(path)
    try:
        settings = parse(NetworkSettings, json.loads(metadata["network"]), "")
        trusted = settings.network in NETWORKS or settings.network == network
        if trusted:
            found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
            _compare(found, expected_shapes(settings))  # before anything of the size that it says is built
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
            f"{path} needs code that is not part of this program: if you trust it, say --network {settings.network}.",
            code="untrusted_network",
        )
    built.load_state_dict(tensors)
    about: dict[str, Any] = {"licence": UNKNOWN_LICENCE, "provenance": {}}
    for name in about:  # for people alone: an entry that cannot be read refuses nothing
        with suppress(KeyError, ValueError, RecursionError):
            about[name] = json.loads(metadata[name])
    provenance = about["provenance"] if isinstance(about["provenance"], dict) else {}
    built.licence = str(about["licence"])
    return Weights(built.to(choose_device(device)).eval(), settings, built.licence, provenance)


def load_network(path: str | Path, device: str | torch.device = "cpu", network: str | None = None) -> MaskingNetwork:
    """The network alone; see `load_weights`."""
    return load_weights(path, device, network).network


def _read(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """The metadata of a weights file, and its tensors in float32. Raises `UserError` as `load_weights` does."""
    if not find_spec("torch"):
        problem = "needs torch: pip install torch safetensors, or export it as ONNX where torch is installed"
        raise UserError(f"{path} {problem}.", code="no_engine")
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"there are no weights at {path}: train some with train.py, or name others.", code="no_weights")
    try:
        with safe_open(path, framework="pt") as file:
            metadata, names = file.metadata() or {}, file.keys()
            foreign = {file.get_slice(name).get_dtype() for name in names} - {"F16", "BF16", "F32"}
            tensors = {} if foreign else {name: file.get_tensor(name).float() for name in names}
    except (SafetensorError, OSError) as error:
        message = f"{path} is no weights file of this program, or is damaged ({error})."
        raise UserError(message, code="bad_weights") from error
    if metadata.get("format") != FORMAT:
        message = f"{path} holds weights of another program: name a .safetensors file that train.py wrote."
        raise UserError(message, code="foreign_weights")
    if foreign:
        message = f"{path} holds weights of another kind ({min(foreign)}) than this program writes."
        raise UserError(message, code="foreign_weights")
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise UserError(f"{path} holds weights that are not finite numbers: the file is damaged.", code="bad_weights")
    return metadata, tensors


def _compare(found: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]]) -> None:
    """Raises ValueError naming a tensor that is missing, unknown, or of another shape than the settings imply."""
    for name in sorted({*found, *expected}):
        if found.get(name) != expected.get(name):
            wanted = f"should be {list(expected[name])}" if name in expected else "is not in such a network"
            has = f"{name} is {list(found[name])}" if name in found else f"{name} is missing"
            raise ValueError(f"{has}, {wanted}")


SUFFIXES = {"torch": ".safetensors", "onnx": ".onnx"}
"""What the weights that an engine takes end with."""

SETS = ("fast", "best", "live", "free")
"""What shipped weights are called: those that suffice, all that help, those that are least late, and those that any
program may ship (see `Separator.licence`)."""

PASSES = 3
"""How many passes the best quality makes, each at another speed: see `Separator`."""

HELPED = {"vocals", "accompaniment", "other"}
"""The stems that gain when the network for vocals and the one for four stems are averaged."""

_PLACES = [Path(folder) / "pretrained" for folder in separation.__path__]
PRETRAINED = next((folder for folder in _PLACES if folder.is_dir()), _PLACES[0])


def pretrained(target: str, engine: str = "torch") -> Path:
    """Where the shipped weights for a target are: a stem, or `all` four at once."""
    return PRETRAINED / f"{target}{SUFFIXES[engine]}"


def default_weights(stems: Sequence[str], engine: str = "torch") -> Path:
    """The shipped weights for these stems: those for one target where they suffice, else those for all.

    Raises `UserError` when there is no such stem.
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
    """The files that a choice of weights stands for: a path, several, or one of `SETS` (of the shipped ones).

    `best` is three times the networks that help, in turn: those for four stems and for vocals where both do, for four
    stems, vocals or their accompaniment. `live` is the one for vocals that is least late, `free` the one for four stems
    that learned from freely licensed music alone. Shipped weights are those of
    the engine that `choose_engine` gives; files tell their engine.

    Raises `UserError` when a file is for another engine than the one that is asked for.
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
    """The stems to give: those that are named or, where `best` is chosen, those that `fast` gives; else none are named.

    So a better quality gives better stems, and no others.
    """
    return tuple(stems) or (source_names(["vocals"]) if "best" in map(str, _chosen(weights)) else ())


def _chosen(weights: str | Path | Sequence[str | Path] | None) -> list[str | Path]:
    """One choice, several or none, as a list."""
    return [weights] if isinstance(weights, str | Path) else list(weights or [])


def absolute(weights: Iterable[str | Path]) -> tuple[str, ...]:
    """The same choice of weights, with the absolute paths of files: it holds in other processes, wherever they began.

    >>> absolute(["best", "/my.safetensors"])
    ('best', '/my.safetensors')
    """
    return tuple(str(name) if str(name) in SETS else str(Path(name).absolute()) for name in weights)
