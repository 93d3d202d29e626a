"""The names of the stems. To add a stem, add its name to `STEMS`."""

from __future__ import annotations

from collections.abc import Collection, Sequence

FOUR = ("vocals", "drums", "bass", "other")
"""The stems of MUSDB18, which make up a whole song: `other` is everything else."""

STEMS = (
    *FOUR,
    # Add further stems here, such as "guitar": songs may contain them, and networks may target them.
)

MIXTURE = "mixture"
ACCOMPANIMENT = "accompaniment"

KNOWN_AS = {"karaoke": ACCOMPANIMENT, "instrumental": ACCOMPANIMENT, "acapella": "vocals"}
"""Aliases of stems that users may ask for."""

PARTS = (MIXTURE, *STEMS, ACCOMPANIMENT)
"""Every signal a song can come with, and every name that a file in a plain folder or in the store may have."""


def rest_name(targets: Sequence[str]) -> str | None:
    """Name of what remains of a song without `targets`; None if nothing remains.

    >>> rest_name(["vocals"]), rest_name(["drums"]), rest_name(FOUR)
    ('accompaniment', 'no_drums', None)
    """
    if set(FOUR) <= set(targets):
        return None
    if list(targets) == ["vocals"]:
        return ACCOMPANIMENT
    return "no_" + "_".join(targets)


def source_names(targets: Sequence[str]) -> tuple[str, ...]:
    """The sources that a network for `targets` divides a song into: the targets, then the rest, if any."""
    rest = rest_name(targets)
    return (*targets, rest) if rest else tuple(targets)


def with_aliases(stems: Sequence[str]) -> str:
    """List the names of stems with their aliases.

    >>> with_aliases(["vocals", "drums", "accompaniment"])
    'vocals (or acapella), drums, accompaniment (or karaoke, instrumental)'
    """
    aliases = {stem: [name for name, other in KNOWN_AS.items() if other == stem] for stem in stems}
    return ", ".join(f"{stem} (or {', '.join(names)})" if names else stem for stem, names in aliases.items())


def rest_parts(parts: Collection[str], targets: Sequence[str]) -> dict[str, int] | None:
    """The parts of a song, each with its sign, that sum to the song without `targets`; None if that is unknown.

    A single part is not a song. A stem missing beside a mixture is unknown and may be contained in another stem, but
    drums, bass and other never contain vocals. Two or more parts without a mixture are a whole song, in which a missing
    stem is silent; only a stem outside `FOUR` may then be contained in `other`.

    >>> rest_parts(["mixture", "vocals", "drums"], ["drums"])
    {'mixture': 1, 'drums': -1}
    """
    if ACCOMPANIMENT in parts and list(targets) == ["vocals"]:
        return {ACCOMPANIMENT: 1}
    if rest_name(targets) is None:
        return None
    others = [stem for stem in STEMS if stem in parts and stem not in targets]
    isolated = set(targets) <= set(parts)
    complete = set(FOUR) <= {*others, *targets} and (isolated or list(targets) == ["vocals"])
    whole = is_whole(parts) and (set(targets) <= {*parts, *FOUR} or "other" not in parts)
    if others and (complete or whole):
        return dict.fromkeys(others, 1)
    if MIXTURE in parts and isolated:
        return {MIXTURE: 1, **dict.fromkeys(targets, -1)}
    return None


def is_whole(parts: Collection[str]) -> bool:
    """Whether these parts make up a whole song by themselves: two or more, and no mixture."""
    return len(parts) > 1 and MIXTURE not in parts
