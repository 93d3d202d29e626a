"""hubconf.py, which torch.hub reads."""

from __future__ import annotations

from inspect import signature

import torch
from conftest import REPOSITORY
from networks import random_weights

import hubconf
from separation.inference.separator import Separator


def test_the_hub_loads_a_separator(tmp_path):
    weights = random_weights(tmp_path / "my.safetensors")
    separator = torch.hub.load(str(REPOSITORY), "separator", weights, "cpu", "vocals", "torch", source="local")
    assert separator.stems == ("vocals",) and separator.place.startswith("torch, CPU")


def test_the_hub_takes_the_arguments_of_load():
    found, expected = (signature(function).parameters.values() for function in (hubconf.separator, Separator.load))
    assert [(one.name, one.default) for one in found] == [(one.name, one.default) for one in expected]
