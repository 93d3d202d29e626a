"""benchmarks/separation.py: peers that are not installed are passed over with a reason."""

from __future__ import annotations

import sys

from benchmarks.separation import first_missing


def test_what_is_installed_lacks_nothing():
    assert first_missing(sys.executable, ("json", "numpy")) == ""


def test_the_missing_module_is_named():
    assert "no_such_peer" in first_missing(sys.executable, ("json", "no_such_peer"))
