"""Network settings: targets, STFT, class and its arguments; and how settings are parsed and validated.

A mapping, from YAML or from a weights file, becomes a dataclass. An unknown key, or a value of the wrong type or out of
range, is an error that names the key.
"""

from __future__ import annotations

import inspect
import math
import reprlib
import types
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property, lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Union, cast, get_args, get_origin, get_type_hints

from separation.audio.stft import SpectralSettings
from separation.errors import UserError
from separation.stems import STEMS, rest_name

if TYPE_CHECKING:
    from torch import nn

NETWORKS = {"unet": "UNet", "open_unmix": "OpenUnmix"}
"""The networks of `separation.models`, by their names in configs."""

OLDER_ARGUMENTS = {"unet": {"zones": "band_layout"}}
"""Argument names of earlier versions of this program, with the current ones."""


def require(condition: bool, complaint: str) -> None:
    if not condition:
        raise ValueError(complaint)


def one_of(value: str, choices: Sequence[str], key: str) -> None:
    require(value in choices, f"{key} must be one of {', '.join(choices)}, not {reprlib.repr(value)}")


def between(values: Iterable[float], least: float, most: float, complaint: str) -> None:
    """Raise ValueError unless all values lie between `least` and `most`, which only catches absurd values."""
    values = list(values)
    require(all(value >= least for value in values), complaint)
    require(all(value <= most for value in values), f"{complaint}, and at most {most:,}")


@dataclass(frozen=True)
class NetworkSettings:
    """Everything that a network is built from, and that a weights file must state about it."""

    targets: tuple[str, ...] = ("vocals",)
    """The stems to separate: one or several."""
    spectral: SpectralSettings = field(default_factory=SpectralSettings)
    network: str = "unet"
    """`unet`, `open_unmix`, or your own class as `package.module:Class`."""
    generator: dict[str, Any] = field(default_factory=dict)
    """Arguments of the network's class, apart from those that follow from the settings above."""

    def __post_init__(self):
        require(bool(self.targets), f"targets must name at least one of {', '.join(STEMS)}")
        for target in self.targets:
            one_of(target, STEMS, "targets")
        require(len(set(self.targets)) == len(self.targets), "targets must name each stem once")
        if self.network in NETWORKS:
            older = OLDER_ARGUMENTS.get(self.network, {})
            arguments = {older.get(name, name): value for name, value in self.generator.items()}
            object.__setattr__(self, "generator", complete_arguments(network_class(self.network), arguments))
            require(self.used_bins > 0, "generator must look at some bins")
        else:
            module, _, name = self.network.partition(":")
            path = [*module.split("."), name]
            require(
                all(part.isidentifier() for part in path),
                f"network must be one of {', '.join(NETWORKS)}, or package.module:Class, not {self.network!r:.80}",
            )

    @property
    def complete(self) -> bool:
        """Whether the targets make up the whole mixture."""
        return rest_name(self.targets) is None

    @cached_property
    def used_bins(self) -> int:
        """Number of bins, from the lowest, that the network uses: all, unless a network of this package uses fewer."""
        if self.network not in NETWORKS:
            return self.spectral.bins  # its code is imported when it is built, not before
        return getattr(on_meta(self), "used_bins", self.spectral.bins)


def network_class(name: str) -> type[nn.Module]:
    """The class of a network by its name in a config. Imports code, also third-party code if the name refers to it.

    Raises `UserError` with the code `no_network` if there is no such class.
    """
    module, _, attribute = name.partition(":")
    if name in NETWORKS:
        module, attribute = "separation.models", NETWORKS[name]
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"the network {name} cannot be imported ({error}): name a class as package.module:Class, "
            "in an installed package or in a folder on PYTHONPATH.",
            code="no_network",
        ) from error


def complete_arguments(network: type[nn.Module], arguments: dict[str, Any]) -> dict[str, Any]:
    """Check a config's arguments for a network against the signature of its class, and fill in the defaults.

    Raises ValueError naming the key.
    """
    _, *parameters = inspect.signature(network.__init__).parameters.values()
    first, own = [parameter.name for parameter in parameters[:3]], parameters[3:]
    require(
        first == ["targets", "bins", "complete"],
        f"{network.__name__} must take targets, bins and complete, not {first}",
    )
    known = {parameter.name: parameter for parameter in own if parameter.kind != parameter.VAR_KEYWORD}
    kinds = get_type_hints(network.__init__)
    for name in arguments:
        require(name in known, f"unknown key generator.{name!s:.80} (known here: {', '.join(known)})")
    missing = [name for name, it in known.items() if it.default is it.empty and name not in arguments]
    require(not missing, f"generator.{', '.join(missing)} has no default: the config must name it")
    given = {
        name: parse(kinds[name], value, f"generator.{name}") if name in kinds else value
        for name, value in arguments.items()
    }
    return {name: given.get(name, parameter.default) for name, parameter in known.items()}


def build(settings: NetworkSettings) -> nn.Module:
    """Build the untrained network that the settings describe. Imports its code; see `network_class`.

    Raises ValueError if the arguments do not fit its class.
    """
    network = network_class(settings.network)
    arguments = complete_arguments(network, settings.generator)
    return network(len(settings.targets), settings.spectral.bins, settings.complete, **arguments)


def on_meta(settings: NetworkSettings) -> nn.Module:
    """Build the network on the meta device, without memory for its tensors, to inspect it at no cost."""
    import torch
    from torch.overrides import TorchFunctionMode

    class Uninitialised(TorchFunctionMode):
        # Random initialisation on the meta device would make torch load its compiler, which takes a second.
        def __torch_function__(self, function, types, args=(), kwargs=None):
            kwargs = kwargs or {}
            if getattr(function, "__module__", "") == "torch.nn.init":
                return kwargs["tensor"] if "tensor" in kwargs else args[0]
            return function(*args, **kwargs)

    with torch.device("meta"), Uninitialised():
        return build(settings)


def parse(kind: Any, value: Any, key: str) -> Any:
    """Convert `value` to the type `kind`; `key` is its dotted name. Raises ValueError."""
    if is_dataclass(kind):
        require(isinstance(value, dict), f"{key or 'the file'} must hold keys and values")
        known = _hints(cast(Any, kind))
        prefix = f"{key}." if key else ""
        for name in value:
            require(
                name in known,
                f"unknown key {prefix}{name!s:.80} (known here: {', '.join(f.name for f in fields(kind))})",
            )
        make: Any = kind
        return make(**{name: parse(known[name], item, prefix + name) for name, item in value.items()})
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        options = [option for option in arguments if option is not type(None)]
        fitting = (option for option in options if get_origin(option) is None and isinstance(value, option))
        return parse(next(fitting, options[-1]), value, key)
    if origin is tuple:
        item, *others = arguments
        length = None if others == [Ellipsis] else len(arguments)
        if length is None and not isinstance(value, list | tuple):
            value = [] if value is None else [value]  # null is an empty list, a single value a list of one
        require(isinstance(value, list | tuple), f"{key} must be a list, not {reprlib.repr(value)}")
        require(length in (None, len(value)), f"{key} must have {length} values, not {len(value)}")
        return tuple(parse(item, entry, key) for entry in value)
    if origin is dict:
        require(isinstance(value, dict), f"{key} must hold keys and values, not {reprlib.repr(value)}")
        return {str(name): parse(arguments[1], entry, f"{key}.{name}") for name, entry in value.items()}
    if kind not in NAMES:  # a type specific to the network's class
        return value
    if kind is float and isinstance(value, int | str) and not isinstance(value, bool):
        with suppress(ValueError, OverflowError):
            value = float(value)  # YAML reads 1e-4 as text
    fits = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
    require(fits, f"{key} must be {NAMES[kind]}, not {reprlib.repr(value)}")
    require(kind is not float or math.isfinite(value), f"{key} must be a number that is finite, not {value}")
    return value


_hints = lru_cache(get_type_hints)  # which takes a millisecond, and there may be thousands of tracks

NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
