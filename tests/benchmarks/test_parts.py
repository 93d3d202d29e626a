"""benchmarks/parts.py: whose time it is, where parts lie within each other."""

from __future__ import annotations

from benchmarks.parts import Stopwatch


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_inner_part_is_not_the_outer_ones():
    clock = Clock()
    stopwatch = Stopwatch(clock)

    def inner():
        clock.now += 2

    def outer():
        clock.now += 1
        stopwatch.watch("inner", inner)()
        clock.now += 4

    clock.now += 8
    stopwatch.watch("outer", outer)()
    assert stopwatch.times == {"joints": 8, "outer": 5, "inner": 2}


def test_steps_of_an_iterator_are_its_own_and_what_lies_between_is_not():
    clock = Clock()
    stopwatch = Stopwatch(clock)

    def decode():
        for block in range(3):
            clock.now += 1
            yield block

    blocks = []
    with stopwatch.part("joints"):
        for block in stopwatch.watch("decode", decode)():
            clock.now += 10
            blocks.append(block)
    assert blocks == [0, 1, 2]
    assert stopwatch.times == {"decode": 3, "joints": 30}
