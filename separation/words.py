"""Words that several wings say alike."""

from __future__ import annotations

DEVICE_HELP = "where to compute: auto (the GPU if there is one), cpu, cuda, cuda:1 (the second GPU), mps"


def count(number: int, thing: str) -> str:
    """A number of things.

    >>> count(1, "song"), count(3, "song")
    ('1 song', '3 songs')
    """
    return f"{number} {thing}{'' if number == 1 else 's'}"
