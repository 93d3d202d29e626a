from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from music import make_song
from networks import FAST, random_network, tiny_config
from safetensors import safe_open
from safetensors.torch import save_file

import separation
from separation.errors import UserError
from separation.network.checkpoint import build_network, load_network, load_weights, save_weights
from separation.network.config import GeneratorSettings, NetworkSettings
from separation.training.state import load_state, save_state


@pytest.fixture
def network():
    return random_network(("drums",))


@pytest.fixture
def weights(tmp_path, network):
    path = tmp_path / "runs" / "drums.safetensors"
    save_weights(path, network, tiny_config(("drums",)), {"step": 12}, licence="MIT")
    return path


def rewrite(path, change_tensors=lambda tensors: tensors, **metadata: str) -> None:
    """Write a weights file again with some of its tensors or its metadata changed."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
        metadata = {**file.metadata(), **metadata}
    save_file(change_tensors(tensors), path, metadata)


@torch.no_grad()
def test_weights_are_loaded_as_they_were_saved_in_half_precision(weights, network):
    loaded = load_network(weights)
    assert (loaded.targets, loaded.settings) == (("drums",), network.settings)
    assert not loaded.training
    saved = network.state_dict()
    assert loaded.state_dict().keys() == saved.keys()
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, saved[name].half().float())
    mixture = network.spectral(make_song(0, 0.5)["mixture"])[None]
    torch.testing.assert_close(loaded(mixture), network(mixture), atol=0.02, rtol=0)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert weights.stat().st_size < 2.5 * parameters + 20_000


def test_weights_say_what_they_are(weights):
    loaded = load_weights(weights)
    assert loaded.settings == NetworkSettings(("drums",), FAST, tiny_config().generator)
    assert (loaded.licence, loaded.provenance) == ("MIT", {"step": 12})
    with safe_open(weights, framework="pt") as file:
        said = file.metadata()
    assert json.loads(said["network"]).keys() == {"targets", "spectral", "generator"}
    assert json.loads(said["version"]) == separation.__version__


def test_what_weights_were_trained_with_refuses_nothing(weights):
    """The provenance of another version, and weights as the first version wrote them: with its whole config."""
    rewrite(weights, provenance=json.dumps({"config": {"schedule": {"unheard_of": 1}}}))
    assert load_weights(weights).provenance["config"]["schedule"] == {"unheard_of": 1}
    with safe_open(weights, framework="pt") as file:
        config = json.loads(file.metadata()["network"]) | {"schedule": {"softness": [1.0], "devices": []}}
    rewrite(weights, format="separation weights 1", config=json.dumps(config), facts=json.dumps({"step": 7}))
    assert load_weights(weights).provenance["step"] == 7
    assert load_network(weights).targets == ("drums",)


@pytest.mark.skipif(os.name != "posix", reason="elsewhere files have no such modes")
def test_whoever_may_read_the_folder_may_read_the_weights(weights):
    plain = weights.with_name("plain")
    plain.touch()
    assert weights.stat().st_mode == plain.stat().st_mode


def test_nothing_but_the_file_is_left_behind(weights):
    assert [path.name for path in weights.parent.iterdir()] == ["drums.safetensors"]


def refusal(path) -> str:
    with pytest.raises(UserError) as error:
        load_network(path)
    assert str(path) in str(error.value)
    return str(error.value)


def test_missing_weights_are_named(tmp_path):
    assert "there are no weights at" in refusal(tmp_path / "none.safetensors")
    assert "there are no weights at" in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not weights at all", b"\x80\x04\x95pickle", b"{}" * 500])
def test_a_file_that_holds_no_weights_is_refused(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    assert "is no weights file of this program, or is damaged" in refusal(path)


def test_weights_that_were_cut_short_are_refused(weights):
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "damaged" in refusal(weights)


def test_weights_of_another_program_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    assert "holds weights of another program" in refusal(path)


def test_weights_that_are_no_numbers_are_refused(weights):
    rewrite(weights, lambda tensors: {**tensors, "generator.inlet.layers.0.bias": torch.full((6,), torch.nan).half()})
    assert "not finite" in refusal(weights)


def test_weights_that_do_not_fit_their_settings_are_refused(weights):
    rewrite(weights, lambda tensors: {**tensors, "generator.inlet.layers.0.bias": torch.zeros(7).half()})
    assert "is damaged, or was made by another version" in refusal(weights)
    rewrite(
        weights, lambda tensors: {name: tensor for name, tensor in tensors.items() if "inlet.layers.0.bias" not in name}
    )
    assert "is damaged, or was made by another version" in refusal(weights)


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"network": json.dumps({"generator": {"depth": 3}})}, "unknown key generator.depth"),
        ({"network": "[]"}, "must hold keys and values"),
        ({"network": "{"}, "Expecting property name"),
        ({"format": "separation weights 1"}, "'config'"),
    ],
)
def test_settings_that_this_program_does_not_know_are_named(weights, metadata, reason):
    rewrite(weights, **metadata)
    assert reason in refusal(weights)


def test_sizes_that_do_not_fit_together_are_a_sentence():
    config = replace(tiny_config(), generator=GeneratorSettings(zones=((95, 5),)))
    with pytest.raises(UserError, match=r"the config's generator cannot be built: .* an even number of bins, not 5"):
        build_network(config)


STATE = {
    "config": {"targets": ("vocals",), "data": {"labelled": None, "stores": {"a": 1.0}}},
    "step": 3,
    "best": -torch.inf,
    "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"betas": (0.5, 0.9), "params": [0]}]},
}


def test_training_state_is_loaded_as_it_was_saved(tmp_path):
    save_state(tmp_path / "run" / "last.pt", STATE)
    assert load_state(tmp_path / "run" / "last.pt") == STATE


def test_a_failed_save_keeps_the_file_that_was_there(tmp_path, monkeypatch, network):
    state, weights = tmp_path / "last.pt", tmp_path / "best.safetensors"
    save_state(state, STATE)
    save_weights(weights, network, tiny_config(("drums",)), {"step": 1})

    def fail_half_way(path: Path, content: bytes = b"half") -> None:
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", lambda state, path: fail_half_way(path))
    monkeypatch.setattr(Path, "write_bytes", fail_half_way)
    with pytest.raises(UserError, match="cannot be written"):
        save_state(state, {**STATE, "step": 4})
    with pytest.raises(UserError, match="cannot be written"):
        save_weights(weights, network, tiny_config(("drums",)), {"step": 2})
    assert load_state(state)["step"] == 3
    assert load_weights(weights).provenance == {"step": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.safetensors", "last.pt"]


class Foreign:
    """Something that loading would have to unpickle."""


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "there is no training to take up at"),
        (b"nonsense", "is damaged"),
        ({"config": Foreign()}, "is damaged"),
        ({"weights": torch.zeros(2)}, "is no training state of this program"),
        ([1, 2], "is no training state of this program"),
    ],
)
def test_training_state_that_cannot_be_taken_up_is_named(tmp_path, content, sentence):
    path = tmp_path / "last.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(UserError, match=sentence) as error:
        load_state(path)
    assert str(path) in str(error.value)
