"""The state of a run as a file: whole, damaged, or something else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import refused

from separation.errors import UserError
from separation.inference.weights import Weights
from separation.training import checkpoints
from separation.training.checkpoints import init_from_weights, load_state, save_state
from separation.training.config import parse_config

STATE = {
    "config": {"targets": ("vocals",), "data": {"labelled": None, "stores": {"a": 1.0}}},
    "step": 3,
    "best": -torch.inf,
    "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"betas": (0.5, 0.9), "params": [0]}]},
}


def test_training_state_is_loaded_as_it_was_saved(tmp_path):
    save_state(tmp_path / "run" / "last.pt", STATE)
    assert load_state(tmp_path / "run" / "last.pt") == STATE


def test_a_failed_save_keeps_the_file_that_was_there(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    save_state(path, STATE)

    def fail_half_way(path: Path, content: bytes = b"half") -> None:
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail_half_way)
    with pytest.raises(UserError, match="cannot be written"):
        save_state(path, {**STATE, "step": 4})
    assert load_state(path)["step"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


class Foreign:
    """Something that loading would have to unpickle."""


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (None, "no_run"),
        (b"nonsense", "damaged_state"),
        ({"config": Foreign()}, "damaged_state"),
        ({"weights": torch.zeros(2)}, "foreign_state"),
        ([1, 2], "foreign_state"),
    ],
)
def test_a_state_that_cannot_be_resumed_is_named(tmp_path, content, code):
    path = tmp_path / "last.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        save_state(path, content)
    with refused(code) as error:
        load_state(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("place", [0.02, 0.3, 0.6, 0.9, 0.999])
def test_any_damage_to_the_training_state_is_noticed(tmp_path, place):
    path = tmp_path / "last.pt"
    save_state(path, {**STATE, "weights": torch.arange(20_000.0) + 1})
    content = bytearray(path.read_bytes())
    start = int(place * len(content))
    content[start : start + 3000] = bytes(len(content[start : start + 3000]))
    path.write_bytes(content)
    with refused("damaged_state"):
        load_state(path)


def test_no_good_file_is_to_be_deleted_for_want_of_memory(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    save_state(tmp_path / "last.pt", STATE)
    monkeypatch.setattr(torch, "load", fail)
    with refused("out_of_memory") as error:
        load_state(tmp_path / "last.pt")
    assert "delete" not in str(error.value)


def test_weights_whose_network_leaves_an_argument_unset_are_refused(monkeypatch):
    """Null and unset may mean different things to a network of another package."""
    networks = [
        {"targets": ["vocals"], "network": "theirs:Net", "generator": given} for given in ({}, {"hidden": None})
    ]
    theirs, ours = (parse_config(values, "test") for values in networks)
    monkeypatch.setattr(checkpoints, "load_weights", lambda *_: Weights(torch.nn.Identity(), theirs, "", {}))
    with refused("other_network"):
        init_from_weights(["weights"], ours, {}, torch.device("cpu"), list)
