"""What `--help` says of each command."""

import re
import sys
from importlib import import_module

import pytest

from separation.inference.weights import SETS


@pytest.mark.parametrize("module", ["apps.app", "dataset.command", "training.command", "scoring.command"])
def test_defaults_are_said_once_and_all_shipped_weights_are_listed(monkeypatch, capsys, module):
    monkeypatch.setattr(sys, "argv", ["command", "--help"])
    with pytest.raises(SystemExit):
        import_module(f"separation.{module}").parse_arguments()
    text = " ".join(capsys.readouterr().out.split())
    assert not re.search(r"\(default: (None|False|\[\])\)|\) \(default", text)
    assert "--weights" not in text or {*SETS} <= {*re.findall(r"`(\w+)`", text)}
