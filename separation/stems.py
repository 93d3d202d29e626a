"""The names of the stems. A new stem is one more name in `STEMS`."""

from __future__ import annotations

from collections.abc import Collection, Sequence

FOUR = ("vocals", "drums", "bass", "other")
"""The stems of MUSDB18, which make up a whole song: `other` is everything else."""

STEMS = (
    *FOUR,
    # A further stem, say "guitar": songs may have it, networks may have it as a target.
)

MIXTURE = "mixture"
ACCOMPANIMENT = "accompaniment"

KNOWN_AS = {"karaoke": ACCOMPANIMENT, "instrumental": ACCOMPANIMENT, "acapella": "vocals"}
"""Other names of stems, which users may ask for."""

PARTS = (MIXTURE, *STEMS, ACCOMPANIMENT)
"""Every signal a song can come with: what a file of a plain folder or of the store may be called."""


def rest_name(targets: Sequence[str]) -> str | None:
    """Name of what is left of a song without `targets`; None when nothing is left.

    >>> rest_name(["vocals"]), rest_name(["drums"]), rest_name(FOUR)
    ('accompaniment', 'no_drums', None)
    """
    if set(FOUR) <= set(targets):
        return None
    if list(targets) == ["vocals"]:
        return ACCOMPANIMENT
    return "no_" + "_".join(targets)


def source_names(targets: Sequence[str]) -> tuple[str, ...]:
    """The sources that a network for `targets` divides a song into: the targets, then the rest if there is one."""
    rest = rest_name(targets)
    return (*targets, rest) if rest else tuple(targets)


def with_aliases(stems: Sequence[str]) -> str:
    """Names of stems, with what else they are called.

    >>> with_aliases(["vocals", "drums", "accompaniment"])
    'vocals (or acapella), drums, accompaniment (or karaoke, instrumental)'
    """
    aliases = {stem: [name for name, other in KNOWN_AS.items() if other == stem] for stem in stems}
    return ", ".join(f"{stem} (or {', '.join(names)})" if names else stem for stem, names in aliases.items())


def rest_parts(parts: Collection[str], targets: Sequence[str]) -> dict[str, int] | None:
    """The parts of a song, each with its sign, that sum to the song without `targets`; None when that is unknown.

    A lone part is no song. A stem missing beside a mixture is unknown and may sound in another, but vocals never sound
    in drums, bass and other. Two parts or more without a mixture are a whole song, in which a missing stem is silent;
    only a stem that is none of `FOUR` may then sound in `other`.

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
    """Whether these parts, without a mixture among them, make up a whole song."""
    return len(parts) > 1 and MIXTURE not in parts
