"""What happens to files and values: bytes are lost, and someone writes nonsense."""

from __future__ import annotations

import random
from typing import Any


def damage(rng: random.Random, content: bytes, first: int | None = None) -> tuple[bytes, str]:
    """Bytes with something wrong, perhaps among the `first` of them; and what."""
    changed, length = bytearray(content), len(content)
    start = rng.randrange(min(length, first or length)) if length else 0
    count = rng.choice([1, 8, 100, 3000])
    stretch = slice(start, min(start + count, length))
    way = rng.choice(["zeros", "noise", "cut", "lost", "doubled", "empty"] if rng.random() < 0.95 else ["text"])
    if way == "zeros":
        changed[stretch] = bytes(len(changed[stretch]))
    elif way == "noise":
        changed[stretch] = rng.randbytes(len(changed[stretch]))
    elif way == "cut":
        del changed[start:]
    elif way == "lost":
        del changed[stretch]
    elif way == "doubled":
        changed[start:start] = changed[stretch]
    elif way == "empty":
        changed.clear()
    else:
        changed[:] = b"this is something else\n"
    return bytes(changed), f"{way} at byte {start}, {count} of {length}"


NONSENSE: list[Any] = [
    None, True, False, 0, -1, 1, 3, 7.5, -0.0, 1e-300, 1e300, float("inf"), float("-inf"), float("nan"), 10**9, 10**20,
    2**64, "", "text", "1", "\u0000", "x" * 5000, [], [1], [-1], [10**9], [[]], {}, {"a": 1}, {"": None}, [None],
    ["a", 2],
]  # fmt: skip


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """Where nested mappings and lists have values: the keys that lead there."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, item in items for place in ((*path, key), *places(item, (*path, key)))]


def edit(rng: random.Random, values: Any) -> str:
    """Put nonsense somewhere into nested values, take something out of them, or add to it; and what."""
    *way, last = rng.choice(places(values))
    inner = values
    for key in way:
        inner = inner[key]
    name, chance = ".".join(map(str, (*way, last))), rng.random()
    if chance < 0.15:
        del inner[last]
        return f"without {name}"
    if chance < 0.3 and isinstance(inner, dict):
        inner[rng.choice(["unheard_of", "", "weights", "name"])] = rng.choice(NONSENSE)
        return f"more beside {name}"
    nonsense = rng.choice(NONSENSE)
    if type(inner[last]) in (int, float) and rng.random() < 0.5:  # what may well be meant
        nonsense = rng.choice([inner[last] * 2, inner[last] + 1, inner[last] / 2, 0, 0.1, 0.5, 1, 2, 3, 5, 16])
    inner[last] = nonsense
    return f"{name} is {nonsense!r:.60}"
