"""Freed memory is kept where malloc is glibc's, and nowhere against the user's own settings."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import pytest

from separation.allocator import M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, keep_freed_memory

SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


@pytest.fixture
def calls(monkeypatch):
    """What is asked of a C library with glibc's malloc."""
    told = []
    library = SimpleNamespace(mallopt=lambda *words: told.append(words))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    return told


def test_pieces_of_a_song_are_kept(calls):
    keep_freed_memory()
    told = dict(calls)
    assert told.keys() == {M_MMAP_THRESHOLD, M_TRIM_THRESHOLD}
    assert 16 << 20 <= told[M_MMAP_THRESHOLD] <= told[M_TRIM_THRESHOLD] < 1 << 30


@pytest.mark.parametrize("name", SETTINGS)
def test_the_environment_comes_first(calls, monkeypatch, name):
    monkeypatch.setenv(name, "1")
    keep_freed_memory()
    assert calls == []


def test_other_systems_are_left_alone(calls, monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    keep_freed_memory()

    def no_library(name):
        raise TypeError(name)  # as on Windows

    monkeypatch.setattr(ctypes, "CDLL", no_library)
    keep_freed_memory()
    assert calls == []
