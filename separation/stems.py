"""The names of the stems, said once."""

from __future__ import annotations

from collections.abc import Collection, Sequence

STEMS = ("vocals", "drums", "bass", "other")

MIXTURE = "mixture"
ACCOMPANIMENT = "accompaniment"

KNOWN_AS = {"karaoke": ACCOMPANIMENT, "instrumental": ACCOMPANIMENT, "acapella": "vocals"}
"""What people call some stems."""

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


def rest_parts(parts: Collection[str], targets: Sequence[str]) -> dict[str, int] | None:
    """The parts of a song, each with its sign, that sum to the song without `targets`; None when nobody can tell.

    A lone part is no song, and a stem missing beside a mixture is unknown: it may well sound in another, but vocals do
    not sound in drums, bass and other. Two parts or more without a mixture are a whole song: a missing stem is silent.

    >>> rest_parts(["mixture", "vocals", "drums"], ["drums"])
    {'mixture': 1, 'drums': -1}
    """
    if ACCOMPANIMENT in parts and list(targets) == ["vocals"]:
        return {ACCOMPANIMENT: 1}
    if rest_name(targets) is None:
        return None
    others = [stem for stem in STEMS if stem in parts and stem not in targets]
    isolated = set(targets) <= set(parts)
    complete = len(others) + len(targets) == len(STEMS) and (isolated or list(targets) == ["vocals"])
    if others and (complete or is_whole(parts)):
        return dict.fromkeys(others, 1)
    if MIXTURE in parts and isolated:
        return {MIXTURE: 1, **dict.fromkeys(targets, -1)}
    return None


def is_whole(parts: Collection[str]) -> bool:
    """Whether these parts, without a mixture among them, are a whole song between them."""
    return len(parts) > 1 and MIXTURE not in parts
