"""benchmarks/parts.py: whose time it is, where parts lie within each other."""

from __future__ import annotations

from conftest import make_stems, write_files
from music import TINY
from networks import random_network
from torch import nn

from benchmarks.parts import PARTS, Stopwatch, measure, multiplications
from separation.inference.masking import MaskingNetwork
from separation.inference.separator import Separator


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


def test_every_part_of_a_song_is_measured(tmp_path):
    write_files(tmp_path, {"song": make_stems()["vocals"]})
    times = measure(Separator(random_network()), tmp_path / "song.wav", tmp_path)
    assert set(times) == {*PARTS, "joints"}
    assert all(times.values())


class Product(nn.Module):
    """Masks by a product of 2 by 2 numbers for each bin of each frame."""

    context = 3

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(2, 2, 1)

    def forward(self, mixture):
        return self.layer(mixture.abs())[:, None]


def test_multiplications_are_those_of_a_second_with_the_context_that_chunks_share():
    separator = Separator(MaskingNetwork(["vocals"], TINY, Product()), chunk_frames=12, precision="fp32")
    frames = TINY.sample_rate / TINY.hop * (12 + 2 * Product.context) / 12
    assert multiplications(separator) == 2 * 2 * TINY.bins * frames
