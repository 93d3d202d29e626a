from __future__ import annotations

import pytest


@pytest.mark.parametrize("kind", ["weights", "configs", "stores", "last"])
def test_damaged_files_are_refused_in_a_sentence_or_work(run, kind):
    """The whole of it is `python -m benchmarks.mutations`."""
    result = run("-m", "benchmarks.mutations", kind, "--count", "12", "--seed", "7")
    assert result.returncode == 0, result.stdout
    assert result.stdout.splitlines()[-1].startswith(f"| {kind} | 12 | ")
    assert result.stdout.splitlines()[-1].endswith(" | 0 |")
