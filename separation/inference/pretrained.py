"""The weights that come with the program, and which of them serve for which stems."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path

import separation
from separation.errors import UserError
from separation.stems import STEMS, source_names

_PLACES = [Path(folder) / "pretrained" for folder in separation.__path__]
PRETRAINED = next((folder for folder in _PLACES if folder.is_dir()), _PLACES[0])


SUFFIX = ".safetensors" if find_spec("torch") else ".onnx"


def pretrained(target: str) -> Path:
    """Where the shipped weights for a target lie: a stem, or `all` four at once; without torch, those in ONNX."""
    return PRETRAINED / f"{target}{SUFFIX}"


def default_weights(stems: Sequence[str]) -> Path:
    """The shipped weights for these stems: those for one target where they suffice, else those for all.

    Raises `UserError` when there is no such stem.
    """
    known = {stem for target in STEMS for stem in source_names([target])}
    if unknown := [stem for stem in stems if stem not in known]:
        raise UserError(f"there is no stem called {unknown[0]}: the stems are {', '.join(sorted(known))}.")
    fitting = [target for target in STEMS if set(stems) <= set(source_names([target]))]
    candidates = [pretrained(name) for name in (*fitting, "all")]
    return next((path for path in candidates if path.is_file()), candidates[0])


def find_weights(weights: str | Path | Sequence[str | Path] | None, stems: Sequence[str]) -> tuple[Path, ...]:
    """The files that a choice of weights stands for: a path, several, or one of `SETS` (of the shipped ones).

    `best` is three times the networks that help, in turn: those for four stems and for vocals where both do, for four
    stems, vocals or their accompaniment. `live` is the one for vocals that is least late.
    """
    paths = []
    for name in _chosen(weights) or ["fast"]:
        if str(name) not in SETS:
            paths.append(Path(name))
            continue
        if str(name) == "live":
            paths.append(pretrained("vocals_live"))
            continue
        helping = [default_weights(stems)]
        if str(name) == "best" and ({*stems} & HELPED or not stems):
            helping = [pretrained("all"), pretrained("vocals")]
        paths += islice(cycle(helping), HEARINGS if str(name) == "best" else 1)
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


SETS = ("fast", "best", "live")
"""What shipped weights are called: those that suffice, all that help, and those that are least late."""

HEARINGS = 3
"""How often the best quality hears a song, each time at another speed: see `Ensemble`."""

HELPED = {"vocals", "accompaniment", "other"}
"""The stems that gain when the network for vocals and the one for four stems are heard together."""
