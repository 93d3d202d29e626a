"""The weights that come with the program, and which of them serve for which stems."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import separation
from separation.errors import UserError
from separation.stems import STEMS, source_names

_PLACES = [Path(folder) / "pretrained" for folder in separation.__path__]
PRETRAINED = next((folder for folder in _PLACES if folder.is_dir()), _PLACES[0])


def pretrained(target: str) -> Path:
    """Where the shipped weights for a target lie: a stem, or `all` four at once."""
    return PRETRAINED / f"{target}.safetensors"


def default_weights(stems: Sequence[str]) -> Path:
    """The shipped weights for these stems: those for one target where they suffice, else those for all.

    Raises `UserError` when there is no such stem.
    """
    return shipped_weights(stems)[0]


def shipped_weights(stems: Sequence[str]) -> list[Path]:
    """All shipped weights for these stems, `default_weights` first. Raises `UserError` when there is no such stem."""
    known = {stem for target in STEMS for stem in source_names([target])}
    if unknown := [stem for stem in stems if stem not in known]:
        raise UserError(f"there is no stem called {unknown[0]}: the stems are {', '.join(sorted(known))}.")
    fitting = [target for target in STEMS if set(stems) <= set(source_names([target]))]
    candidates = [pretrained(name) for name in (*fitting, "all")]
    return [path for path in candidates if path.is_file()] or candidates[:1]
