from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from music import make_song
from networks import FAST, random_network, tiny_config
from safetensors import safe_open
from safetensors.torch import save_file

import separation
from separation.errors import UserError
from separation.inference import weights as weights_module
from separation.inference.config import NetworkSettings
from separation.inference.separator import Separator
from separation.inference.weights import build_network, load_network, load_weights, pretrained, save_weights


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
    assert loaded.settings == NetworkSettings(("drums",), FAST, generator=tiny_config().generator)
    assert (loaded.licence, loaded.provenance) == ("MIT", {"step": 12})
    with safe_open(weights, framework="pt") as file:
        said = file.metadata()
    assert json.loads(said["network"]).keys() == {"targets", "spectral", "network", "generator"}
    assert json.loads(said["version"]) == separation.__version__


def test_what_weights_were_trained_with_refuses_nothing(weights):
    """The provenance of another version."""
    rewrite(weights, provenance=json.dumps({"config": {"schedule": {"unheard_of": 1}}}))
    assert load_weights(weights).provenance["config"]["schedule"] == {"unheard_of": 1}


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
    assert "is not a weights file of this program, or is damaged" in refusal(path)


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


INLET = "generator.inlet.layers.0.bias"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda tensors: {**tensors, INLET: torch.zeros(7).half()}, rf"{INLET} is [7], should be [6]"),
        (lambda tensors: {**tensors, "more": torch.zeros(1)}, "more is [1], is not in this network"),
        (lambda tensors: {name: tensors[name] for name in tensors if name != INLET}, f"{INLET} is missing"),
        (lambda tensors: {**tensors, INLET: torch.zeros(6).to(torch.float8_e5m2)}, "of another kind (F8_E5M2)"),
        (lambda tensors: {**tensors, INLET: torch.zeros(6, dtype=torch.int64)}, "of another kind (I64)"),
    ],
)
def test_weights_that_do_not_fit_their_settings_are_refused(weights, change, reason):
    rewrite(weights, change)
    assert reason in refusal(weights)


def settings(**changes) -> str:
    said = json.loads(json.dumps(asdict(NetworkSettings(("drums",), FAST, generator=tiny_config().generator))))
    return json.dumps({**said, **{key: {**said[key], **change} for key, change in changes.items()}})


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"network": json.dumps({"generator": {"depth": 3}})}, "unknown key generator.depth"),
        ({"network": "[]"}, "must hold keys and values"),
        ({"network": "{"}, "Expecting property name"),
        ({"network": "[" * 100_000}, "recursion"),
        ({"network": "null"}, "must hold keys and values"),
        ({"network": settings(generator={"widths": [None]})}, "generator.widths must be a whole number, not None"),
        ({"network": settings(generator={"blocks": [10**9]})}, "blocks must be 1 to 16 numbers from 0 to 64"),
        (
            {"network": settings(generator={"blocks": [64], "widths": [8192] * 3})},
            "is [8, 1, 1], should be [8192, 1, 1]",
        ),
        ({"network": settings(generator={"squeeze": 10**30})}, "squeeze must be 1 to 16 numbers from 1 to 1,000,000"),
        ({"network": settings(generator={"band_layout": [[10**12, 2]]})}, "end at bin 257"),
        ({"network": settings(spectral={"n_fft": 2**40, "hop": 2**38})}, "n_fft at most"),
    ],
)
def test_settings_that_this_program_does_not_know_are_named(weights, metadata, reason, monkeypatch):
    """Before anything of their size is built."""
    rewrite(weights, **metadata)
    monkeypatch.setattr(weights_module, "build_network", None)
    assert reason in refusal(weights) and len(refusal(weights)) < 600


def test_weights_of_earlier_versions_load(weights):
    """Which had no name for the network, zones for its band layout, and ranges of 8-bit integers beside."""
    with safe_open(weights, framework="pt") as file:
        network = json.loads(file.metadata()["network"])
    del network["network"]
    network["generator"]["zones"] = network["generator"].pop("band_layout")
    rewrite(weights, network=json.dumps(network), ranges="[[[-1.0, 1.0], [-0.2, 2.0]]]")
    assert load_weights(weights).settings == NetworkSettings(("drums",), FAST, generator=tiny_config().generator)


def test_weights_without_settings_are_refused_and_those_without_a_licence_load(weights):
    with safe_open(weights, framework="pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    save_file(tensors, weights, {"format": metadata["format"], "network": metadata["network"]})
    assert (load_weights(weights).licence, load_weights(weights).provenance) == (weights_module.UNKNOWN_LICENCE, {})
    for said in ("[1]", "[" * 100_000, "{", "null"):
        rewrite(weights, provenance=said, licence=said)
        assert load_weights(weights).provenance == {}
    save_file(tensors, weights, {"format": metadata["format"]})
    assert "it lacks 'network'" in refusal(weights)


def test_sizes_that_do_not_fit_together_are_a_sentence():
    with pytest.raises(ValueError, match="an even number of bins, not 5"):
        replace(tiny_config(), generator={"band_layout": ((95, 5),)})
    huge = replace(tiny_config(), generator={"band_layout": ((256, 8),), "blocks": (64,), "widths": (8192,) * 5})
    with pytest.raises(UserError, match=r"would have \d+,\d{3},\d{3},\d{3} parameters: lower its widths or blocks"):
        build_network(huge)


def test_a_failed_save_keeps_the_file_that_was_there(tmp_path, monkeypatch, network):
    weights = tmp_path / "best.safetensors"
    save_weights(weights, network, tiny_config(("drums",)), {"step": 1})

    def fail_half_way(path: Path, content: bytes = b"half") -> None:
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail_half_way)
    with pytest.raises(UserError, match="cannot be written"):
        save_weights(weights, network, tiny_config(("drums",)), {"step": 2})
    assert load_weights(weights).provenance == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["best.safetensors"]


def test_free_weights_carry_the_licence_of_every_work_they_learned_from():
    weights = load_weights(pretrained("free"))
    works = weights.provenance["works"]
    assert weights.licence.startswith("CC BY-SA 4.0") and len(works) > 100
    for work in works:
        assert work["work"] and work["source"] and work["licence_read_in"]
        assert re.match(r"CC0-1\.0|CC-BY(-SA)?-\d|MIT", work["licence"]), work
        assert not re.search(r"musdb|medley|mir-?1k|gtsinger|m4singer|techsinger|opensinger|emotify", str(work), re.I)


@pytest.mark.parametrize("engine", ["torch", "onnx"])
@pytest.mark.parametrize(("weights", "words"), [("free", "CC BY-SA 4.0"), ("fast", "research use only")])
def test_the_licence_of_the_weights_in_use_is_known(engine, weights, words):
    assert words in Separator.load(weights, engine=engine).licence
