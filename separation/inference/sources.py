"""What stems a network can give, which masks they need, and what follows from these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from separation.errors import UserError
from separation.stems import rest_name


class Network(Protocol):
    targets: tuple[str, ...]
    sources: tuple[str, ...]


def names(stems: str | Sequence[str] | None) -> tuple[str, ...]:
    """Names of stems, each once; a lone name is one stem."""
    return tuple(dict.fromkeys([stems] if isinstance(stems, str) else stems or ()))


def check_stems(network: Network, stems: Sequence[str]) -> None:
    """Raise `UserError` unless a network can give these stems."""
    if missing := [stem for stem in stems if stem not in available_stems(network)]:
        choices = ", ".join(available_stems(network))
        raise UserError(f"these weights do not separate {' and '.join(map(str, missing))}: choose among {choices}.")


def with_rests(network: Network, stems: dict[str, Any], song: Any) -> dict[str, Any]:
    """Masked targets of a song, and what follows from them: the network's last source, and the rest of each target.

    All are `[channels, n]`, tensors or arrays.
    """
    *others, last = network.sources
    stems = dict(stems)
    if tuple(stems) == tuple(others):
        stems[last] = song - sum(stems.values())
    for target in set(network.targets) & set(stems):
        stems.setdefault(rest_name([target]), song - stems[target])
    return stems


def available_stems(network: Network) -> tuple[str, ...]:
    """The stems that a network can give: its sources, and for each target what is left without it."""
    rests = (rest_name([target]) for target in network.targets)
    return tuple(dict.fromkeys((*network.sources, *rests)))


def masked_targets(network: Network, stems: Sequence[str]) -> tuple[str, ...]:
    """The targets whose masks are needed for some of the `available_stems`, in the order of the network."""
    *others, last = network.sources
    needed = [target for target in network.targets if target in stems or rest_name([target]) in stems]
    if len(needed) == len(network.sources) or (last in stems and last not in network.targets):
        return tuple(others)
    return tuple(needed)
