"""What a network is: its targets, its STFT and the sizes of its generator; and how settings are read and checked.

A mapping, from YAML or from a weights file, becomes a dataclass. An unknown key, a value of another type or one out of
range is an error that names the key.
"""

from __future__ import annotations

import math
import reprlib
import types
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from separation.audio.spectral import SpectralSettings
from separation.stems import STEMS


def require(condition: bool, complaint: str) -> None:
    if not condition:
        raise ValueError(complaint)


def one_of(value: str, choices: Sequence[str], key: str) -> None:
    require(value in choices, f"{key} must be one of {', '.join(choices)}, not {reprlib.repr(value)}")


def between(values: Iterable[float], least: float, most: float, complaint: str) -> None:
    """Raises ValueError unless all values lie between `least` and `most`, which is for what nobody means."""
    values = list(values)
    require(all(value >= least for value in values), complaint)
    require(all(value <= most for value in values), f"{complaint}, and at most {most:,}")


@dataclass(frozen=True)
class GeneratorSettings:
    """Sizes of the generator; see `models.Generator`."""

    zones: tuple[tuple[int, int], ...] = ((256, 2), (768, 8), (1536, 16))
    """Up to which bin the network looks at how many bins to a band, from the lowest up."""
    widths: tuple[int, ...] = (32, 64, 96, 128)
    blocks: tuple[int, ...] = (1,)
    """How many blocks each level has on either side, from the top down; levels past the last number have as many."""
    decoder_levels: int | None = 1
    """How many levels, from the top down, have blocks on the way up; null: all."""
    frequency_levels: int | None = 1
    """How many levels, from the top down, look at all frequencies at once; null: all."""
    squeeze: int = 8

    def __post_init__(self):
        require(0 < len(self.zones) <= 64, "generator.zones must name at least one zone, and at most 64")
        between((n for zone in self.zones for n in zone), 1, 1e6, "generator.zones must hold numbers of bins")
        between([self.squeeze], 1, 1e6, "generator.squeeze must be at least 1")
        for key in ("decoder_levels", "frequency_levels"):
            require((getattr(self, key) or 0) >= 0, f"generator.{key} must be at least 0")
        require(bool(self.blocks), "generator.blocks must hold a number")
        between(self.blocks, 0, 64, "generator.blocks must hold numbers of at least 0")
        require(0 < len(self.widths) <= 16, "generator.widths must name a width for each of at most 16 levels")
        between(self.widths, 1, 8192, "generator.widths must be at least 1")

    @property
    def bins(self) -> int:
        """Lowest bins of the spectrogram, that the network looks at."""
        return self.zones[-1][0]


@dataclass(frozen=True)
class NetworkSettings:
    """All that a network is built from, and all that a weights file must say about it."""

    targets: tuple[str, ...] = ("vocals",)
    """The stems to take out of a song: one, or several."""
    spectral: SpectralSettings = field(default_factory=SpectralSettings)
    generator: GeneratorSettings = field(default_factory=GeneratorSettings)

    def __post_init__(self):
        require(bool(self.targets), f"targets must name at least one of {', '.join(STEMS)}")
        for target in self.targets:
            one_of(target, STEMS, "targets")
        require(len(set(self.targets)) == len(self.targets), "targets must name each stem once")
        require(
            self.generator.bins <= self.spectral.bins, "generator.zones must end at bin spectral.n_fft / 2 + 1 at most"
        )


def parse(kind: Any, value: Any, key: str) -> Any:
    """`value` as the type `kind`; `key` is its dotted name. Raises ValueError."""
    if is_dataclass(kind):
        require(isinstance(value, dict), f"{key or 'the file'} must hold keys and values")
        known = get_type_hints(kind)
        prefix = f"{key}." if key else ""
        for name in value:
            require(
                name in known,
                f"unknown key {prefix}{name!s:.80} (known here: {', '.join(f.name for f in fields(kind))})",
            )
        return kind(**{name: parse(known[name], item, prefix + name) for name, item in value.items()})
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
            value = [] if value is None else [value]  # nothing is a list of none, a lone value a list of one
        require(isinstance(value, list | tuple), f"{key} must be a list, not {reprlib.repr(value)}")
        require(length in (None, len(value)), f"{key} must have {length} values, not {len(value)}")
        return tuple(parse(item, entry, key) for entry in value)
    if origin is dict:
        require(isinstance(value, dict), f"{key} must hold keys and values, not {reprlib.repr(value)}")
        return {str(name): parse(arguments[1], entry, f"{key}.{name}") for name, entry in value.items()}
    if kind is float and isinstance(value, int | str) and not isinstance(value, bool):
        with suppress(ValueError, OverflowError):
            value = float(value)  # YAML reads 1e-4 as text
    fits = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
    require(fits, f"{key} must be {NAMES[kind]}, not {reprlib.repr(value)}")
    require(kind is not float or math.isfinite(value), f"{key} must be a number that is finite, not {value}")
    return value


NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
