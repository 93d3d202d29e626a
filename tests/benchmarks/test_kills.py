from __future__ import annotations

import os

import pytest


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("script", ["dataset", "train", "train_stops"])
def test_a_script_that_is_killed_anywhere_makes_the_same_in_the_end(run, script):
    """The whole of it is `python -m benchmarks.kills`."""
    result = run("-m", "benchmarks.kills", script, "--kills", "3", "--seed", "1")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"{script}: 3 kills; ")
    assert "all equal bit for bit, nothing left behind" in result.stdout
