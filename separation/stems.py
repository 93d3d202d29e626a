"""The names of the stems, said once."""

from __future__ import annotations

from collections.abc import Sequence

STEMS = ("vocals", "drums", "bass", "other")

MIXTURE = "mixture"
ACCOMPANIMENT = "accompaniment"

PARTS = (MIXTURE, *STEMS, ACCOMPANIMENT)
"""Every signal a song can come with: what a file of a plain folder or of the store may be called."""


def rest_name(targets: Sequence[str]) -> str | None:
    """Name of what is left of a song when `targets` are taken out; None when nothing is left.

    >>> rest_name(["vocals"]), rest_name(["drums"]), rest_name(STEMS)
    ('accompaniment', 'no_drums', None)
    """
    if set(targets) == set(STEMS):
        return None
    if list(targets) == ["vocals"]:
        return ACCOMPANIMENT
    return "no_" + "_".join(targets)


def source_names(targets: Sequence[str]) -> tuple[str, ...]:
    """The sources a network for `targets` shares a song out to: the targets, then the rest if there is one."""
    rest = rest_name(targets)
    return (*targets, rest) if rest else tuple(targets)
