from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from conftest import REPOSITORY

from separation.errors import UserError
from separation.inference.weights import build_network
from separation.training.config import RENAMED, Config, load_config, parse_config


def complaint(path: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as error:
        load_config(path, overrides)
    return str(error.value)


def test_an_empty_file_gives_the_defaults(write):
    assert load_config(write("")) == load_config(write("# nothing\n")) == Config()


CONFIGS = [path for path in sorted((REPOSITORY / "configs").glob("*.yaml")) if not path.stem.endswith("_variants")]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_configs_of_the_repository_load_and_build_a_network(path):
    config = load_config(path)
    assert sum(parameter.numel() for parameter in build_network(config).parameters()) > 10_000
    if path.stem.endswith("_new"):
        assert config.targets == (path.stem.removesuffix("_new"),)


def test_values_are_read_as_their_types(write):
    config = load_config(
        write(
            "targets: [drums, bass]\n"
            "data: {stores: {a: 1, b: 0.5}, labelled: 20, gain: [0.5, 1]}\n"
            "schedule: {learning_rate: 1e-4, weight_decay: 0, steps: 20_000}\n"
        )
    )
    assert config.targets == ("drums", "bass")
    assert config.data.stores == {"a": 1.0, "b": 0.5}
    assert config.data.labelled == 20
    assert config.data.gain == (0.5, 1.0)
    assert (config.schedule.learning_rate, config.schedule.weight_decay) == (1e-4, 0.0)
    assert isinstance(config.schedule.weight_decay, float)
    assert config.schedule.steps == 20_000


def test_set_overrides_single_keys(write):
    path = write("schedule: {steps: 10, warmup: 3}\n")
    config = load_config(path, ["schedule.steps=20", "data.labelled=null", "targets=[bass]", "seed=7"])
    assert (config.schedule.steps, config.schedule.warmup) == (20, 3)
    assert (config.data.labelled, config.targets, config.seed) == (None, ("bass",), 7)
    assert load_config(path, ["schedule.learning_rate=1e-4"]).schedule.learning_rate == 1e-4
    assert load_config(path, ["data.stores={some/store: 1}"]).data.stores == {"some/store": 1.0}
    for text, valid in (("5", 5), ("null", None), ("A - song", ("A - song",)), ("[A, B - song]", ("A", "B - song"))):
        assert load_config(path, [f"data.valid={text}"]).data.valid == valid
    for text, weights in (("null", ()), ("a", ("a",)), ("[a, b]", ("a", "b"))):
        assert load_config(path, [f"weights={text}"]).weights == weights


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40)) + "targets: *a39\n"


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("shedule: {}", ["unknown key shedule", "schedule"]),
        ("data: {bach_size: 3}", ["unknown key data.bach_size", "batch_size"]),
        ("data: 3", ["data must hold keys and values"]),
        ("[1, 2]", ["the file must hold keys and values"]),
        ("schedule: {steps: 1.5}", ["schedule.steps must be a whole number, not 1.5"]),
        ("schedule: {steps: true}", ["schedule.steps must be a whole number, not True"]),
        ("schedule: {clip: true}", ["schedule.clip must be a number, not True"]),
        ("schedule: {clip: loud}", ["schedule.clip must be a number, not 'loud'"]),
        ("schedule: {precision: 16}", ["schedule.precision must be a text, not 16"]),
        ("schedule: {betas: [0.9]}", ["schedule.betas must have 2 values, not 1"]),
        ("schedule: {betas: 0.9}", ["schedule.betas must be a list"]),
        ("generator: {widths: [8, big]}", ["generator.widths must be a whole number, not 'big'"]),
        ("data: {stores: [a]}", ["data.stores must hold keys and values"]),
        ("data: {stores: {a: many}}", ["data.stores.a must be a number"]),
        ("data: {labelled: some}", ["data.labelled must be a whole number"]),
        ("data: {valid: true}", ["data.valid must be a whole number, not True"]),
        ("data: {valid: [1]}", ["data.valid must be a text, not 1"]),
        ("seed: 2001-99-99", ["seed: '2001-99-99' is no such value (month must be in 1..12)", "line 1"]),
        ("data: {labelled: !!int x}", ["labelled: 'x' is no such value"]),
        ("targets: [!!float x]", ["'x' is no such value"]),
        ("seed: !!bool maybe", ["seed: 'maybe' is no such value"]),
        ("seed: !!timestamp x", ["seed: 'x' is no such value"]),
        ("data: !!python/object:os.system {}", ["could not determine a constructor"]),
        ("schedule:\n  steps: 1\n  warmup: 2\n  steps: 3\n", ["the key steps occurs twice", "line 4"]),
        ("seed: 1\nseed: 2\n", ["the key seed occurs twice"]),
        ("{[1, 2]: 3}", ["unhashable key"]),
        ("targets: " + "[" * 10_000, ["too many brackets"]),
        ("targets: &a [*a]", ["more than 10000 values"]),
        (BOMB, ["more than 10000 values"]),
        ("seed: " + "9" * 5000, ["seed: ", "is no such value"]),
        (f"licence: [{'x' * 5000}]", ["licence must be a text, not ['xx"]),
        ("x" * 500 + ": 1", ["unknown key xxx"]),
        ("schedule: null", ["schedule must hold keys and values"]),
    ],
)
def test_unknown_keys_and_other_types_are_named_with_the_file(write, text, sentences):
    path = write(text)
    message = complaint(path)
    assert message.startswith(f"{path}: ") or message.startswith(f"{path} is not valid YAML: ")
    assert "\n" not in message and len(message) < 700
    for sentence in sentences:
        assert sentence in message


WHOLE = ("data.workers", "data.batch_size", "data.crop_frames", "schedule.steps", "schedule.validate_every")
BROKEN = ("data.remix", "data.equalise", "losses.exchange", "schedule.learning_rate", "schedule.clip")


@pytest.mark.parametrize(
    "override",
    [
        "targets=[]",
        "targets=[voice]",
        "targets=[bass, bass]",
        "seed=-1",
        "spectral.hop=1000",
        "data.stores={}",
        "data.stores={a: 0}",
        "data.labelled=-1",
        "data.remaining=keep",
        "data.valid=-1",
        "data.batch_size=0",
        "data.unlabelled_batch_size=0",
        "data.crop_frames=0",
        "data.remix=1.1",
        "data.swap=-0.1",
        "data.gain=[1, 0.5]",
        "data.workers=-1",
        "generator.band_layout=[[4096, 8]]",
        "generator.band_layout=[]",
        "generator.decoder_levels=-1",
        "generator.band_layout=[256, 768]",
        "generator.widths=[]",
        "generator.widths=[8, 0]",
        "generator.squeeze=0",
        "discriminator.widths=[]",
        "discriminator.scales=0",
        "discriminator.learning_rate=0",
        "losses.identity=-1",
        "losses.remix_rest=.nan",
        "schedule.steps=0",
        "schedule.learning_rate=0",
        "schedule.warmup=-1",
        "schedule.weight_decay=-1",
        "schedule.betas=[0.9, 1]",
        "schedule.decay=linear",
        "schedule.unlabelled_every=0",
        "schedule.average=1",
        "schedule.temperatures=[1, 0]",
        "schedule.precision=fp16",
        "seed=18446744073709551616",
        *(f"{key}=100000000000000000000" for key in WHOLE),
        *(f"{key}={value}" for key in BROKEN for value in (".inf", "-.inf", ".nan", "1e300")),
        "data.stores={a: .inf}",
        "data.gain=[0, 1]",
        "data.gain=[1, .inf]",
        "generator.blocks=[1000000000]",
        "generator.widths=[1000000000]",
        "schedule.temperatures=[.inf]",
        "discriminator.widths=[1000000000]",
    ],
)
def test_values_out_of_range_are_named_with_the_file(write, override):
    path = write("")
    message = complaint(path, override)
    assert message.startswith(f"{path}: ")
    assert override.partition("=")[0].rpartition(".")[2] in message


def test_crops_too_short_for_the_discriminators_are_refused(write):
    path = write("{data: {crop_frames: 32}, losses: {adversarial_rest: 1}}")
    assert "data.crop_frames must be at least 64" in complaint(path)
    load_config(path, ["discriminator.scales=2"])
    load_config(path, ["losses.adversarial_rest=0"])


@pytest.mark.parametrize(
    "override", ["schedule.steps", "seed.steps=3", "seed=[", "no.such.key=1", "seed=2001-99-99", "seed=!!int x", "=3"]
)
def test_a_wrong_override_is_named(write, override):
    message = complaint(write("seed: 1"), override)
    assert override.partition("=")[0].partition(".")[0] in message


def test_a_config_that_is_a_list_takes_no_overrides(write):
    path = write("[1, 2]")
    assert complaint(path, "seed=3") == complaint(path) == f"{path}: the file must hold keys and values."


def test_a_merged_mapping_may_be_changed(write):
    path = write("schedule: &base {steps: 7, warmup: 1}\ndata: {workers: 0}\n<<: {seed: 3}\nseed: 4\n")
    assert (load_config(path).seed, load_config(path).schedule.steps) == (4, 7)


def test_a_missing_file_and_one_that_is_no_yaml(write, tmp_path):
    assert (
        complaint(tmp_path / "none.yaml")
        == f"cannot read the config {tmp_path / 'none.yaml'}: No such file or directory."
    )
    path = write("a: [")
    assert complaint(path).startswith(f"{path} is not valid YAML")
    path.write_bytes(b"\xff\xfe\xfa")
    assert complaint(path).startswith(f"{path} is not valid YAML")


def test_a_config_survives_json():
    config = parse_config({"targets": ["bass"], "schedule": {"steps": 7}, "data": {"labelled": 5}}, "here")
    assert parse_config(json.loads(json.dumps(asdict(config))), "there") == config


def test_what_has_no_weight_is_not_asked_for(write):
    path = write("losses: {supervised_target: 0, supervised_rest: 0}")

    def asked_for(*weights: str) -> tuple[bool, bool, bool]:
        losses = load_config(path, weights).losses
        return losses.supervised, losses.unlabelled, losses.adversarial

    assert asked_for() == (False, False, False)
    assert asked_for("losses.supervised_rest=1") == (True, False, False)
    assert asked_for("losses.identity=1") == (False, True, False)
    assert asked_for("losses.adversarial_mixture=1") == (False, True, True)


@pytest.mark.parametrize("old", ["data.taught=0.4", "data.taught_floor=-12", "schedule.soften=[0.5]"])
def test_a_key_of_an_earlier_version_names_the_new_one(write, old):
    key = old.partition("=")[0]
    message = complaint(write(""), old)
    assert f"unknown key {key}: it is called {RENAMED[key]} now" in message


def test_a_config_is_built_on_another(write):
    write("targets: [vocals]\ndata: {remix: 0.5, stores: {a: 1}}\nseed: 3\n", "base.yaml")
    config = load_config(write("base: base.yaml\ntargets: [drums]\ndata: {stores: {b: 2}}\n"), ["seed=4"])
    assert (config.targets, config.data.remix, config.data.stores, config.seed) == (("drums",), 0.5, {"b": 2.0}, 4)


@pytest.mark.parametrize("text", ["base: my.yaml", "base: 3", "base: [a]", "base: none.yaml"])
def test_a_base_that_is_none_is_refused(write, text):
    assert "\n" not in complaint(write(text))
