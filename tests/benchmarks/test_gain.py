"""benchmarks/passes.py: the gain of passes at other speeds."""

from __future__ import annotations

from benchmarks.passes import row


def test_gains_are_paired_by_song():
    first = {"a": {"vocals": 1.0}, "b": {"vocals": 5.0}, "c": {}}
    second = {"a": {"vocals": 2.0}, "b": {"vocals": 8.0}, "c": {}}
    assert row("1.12", second, first) == "| 1.12 | 5.00 (+2.00 ± 1.00) |"
