from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import refused
from music import TINY, add_track, make_song, make_store
from networks import CIRCULAR, PAPER, read_facts
from torch import Tensor

from separation.errors import UserError
from separation.inference.weights import UNKNOWN_LICENCE, load_network, load_weights
from separation.models import UNet
from separation.training import losses, paper
from separation.training import trainer as trainer_module
from separation.training.batches import Batches
from separation.training.checkpoints import BEST, LAST, load_state, save_state
from separation.training.config import Config, ScheduleSettings, parse_config
from separation.training.logging import HISTORY, RunLog
from separation.training.optimizer import GeneratorOptimizer, learning_rate_factor
from separation.training.trainer import Trainer

CPU = torch.device("cpu")
SUPERVISED = {"supervised_target", "supervised_rest"}
ADVERSARIAL = {"adversarial_rest", "adversarial_mixture", "discriminator_rest", "discriminator_mixture"}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return make_store(tmp_path_factory.mktemp("trainer") / "store")


@pytest.fixture
def configure(store):
    def make_config(schedule: dict | None = None, **sections) -> Config:
        values = {
            "spectral": {"sample_rate": TINY.sample_rate, "n_fft": TINY.n_fft, "hop": TINY.hop},
            "generator": {"band_layout": [[32, 2], [96, 8]], "widths": [6, 8]},
            "discriminator": {"widths": [4, 8], "scales": 2},
            "losses": PAPER,
            "schedule": {
                "steps": 6,
                "warmup": 0,
                "average": 0.9,
                "precision": "fp32",
                "validate_every": 3,
                "checkpoint_every": 3,
                "temperatures": [],
                **(schedule or {}),
            },
        }
        data = {"stores": {str(store): 1}, "crop_frames": 16, "batch_size": 2, "unlabelled_batch_size": 2, "workers": 0}
        return parse_config({**values, **sections, "data": {**data, **sections.get("data", {})}}, "test")

    return make_config


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested state as one dict by dotted names."""
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in flat(item, f"{name}.{key}").items()}
    if isinstance(value, list):
        return flat(dict(enumerate(value)), name)
    return {name: value}


def assert_same_state(one: Path, other: Path) -> None:
    first, second = flat(load_state(one)), flat(load_state(other))
    assert first.keys() == second.keys()
    for name, value in first.items():
        same = torch.equal(value, second[name]) if isinstance(value, Tensor) else value == second[name]
        assert same, name


def assert_same_weights(one: Path, other: Path) -> None:
    assert read_facts(one) == read_facts(other)
    first, second = (load_network(path).state_dict() for path in (one, other))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def stop_at(monkeypatch, step: int) -> None:
    """Let a run be interrupted in the middle of a step."""
    train_step = Trainer.train_step

    def interrupted(self, batch):
        terms = train_step(self, batch)
        if self.step == step:
            raise KeyboardInterrupt
        return terms

    monkeypatch.setattr(Trainer, "train_step", interrupted)


def test_a_run_stopped_before_its_last_validation_is_validated_once(configure, tmp_path, monkeypatch):
    config = configure(schedule={"steps": 2})
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "_validate", stop_now)
        Trainer(config, tmp_path, CPU).run()
    assert (load_state(tmp_path / LAST)["step"], load_state(tmp_path / LAST)["validated"]) == (2, -1)
    Trainer(config, tmp_path, CPU, resume=True).run()
    assert load_state(tmp_path / LAST)["validated"] == 2


def stop_now(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(configure, tmp_path, monkeypatch, workers):
    config = configure(data={"workers": workers}, schedule={"steps": 8, "adversarial_from": 2, "unlabelled_every": 2})
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    Trainer(config, whole, CPU).run()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at(patch, 4)
        Trainer(config, stopped, CPU).run()
    assert load_state(stopped / LAST)["step"] == 3
    Trainer(config, stopped, CPU, resume=True).run()
    assert load_state(stopped / LAST)["step"] == 8
    assert_same_state(whole / LAST, stopped / LAST)
    assert_same_weights(whole / BEST, stopped / BEST)


@pytest.mark.parametrize("moment", ["step", "data", "validation", "temperature"])
def test_ctrl_c_at_any_moment_loses_nothing(configure, tmp_path, monkeypatch, moment):
    """Also before the first checkpoint, which here would come long after the end."""
    schedule = {"steps": 4, "validate_every": 2, "checkpoint_every": 100, "temperatures": [2.0]}
    config = configure(schedule=schedule, losses={})
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    Trainer(config, whole, CPU).run()
    calls = []

    def interrupting(function: Callable) -> Callable:
        def call(*arguments, **options):
            result = function(*arguments, **options)
            calls.append(moment)
            if (
                len(calls) == {"step": 2, "data": 7, "validation": 1, "temperature": 1}[moment]
            ):  # after 4 to fit the input
                signal.raise_signal(signal.SIGINT)
            return result

        return call

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        if moment == "step":
            patch.setattr(GeneratorOptimizer, "step", interrupting(GeneratorOptimizer.step))
        elif moment == "data":
            patch.setattr(Batches, "__getitem__", interrupting(Batches.__getitem__))
        else:
            name = "validate" if moment == "validation" else "fit_temperature"
            patch.setattr(trainer_module, name, interrupting(getattr(trainer_module, name)))
        Trainer(config, stopped, CPU).run()
    assert load_state(stopped / LAST)["step"] == {"step": 2, "data": 2, "validation": 2, "temperature": 4}[moment]
    Trainer(config, stopped, CPU, resume=True).run()
    assert_same_state(whole / LAST, stopped / LAST)
    assert_same_weights(whole / BEST, stopped / BEST)


def test_a_state_is_never_saved_in_the_middle_of_a_step(configure, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at(patch, 1)
        Trainer(configure(schedule={"checkpoint_every": 100}), tmp_path, CPU).run()
    assert not (tmp_path / LAST).exists()


def write_gradients(rank: int, processes: int, config: Config, folder: Path) -> None:
    """The gradients of the first step of one of several processes, into a file."""
    if processes > 1:
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(processes)}
        torch.set_num_threads(1)
        meeting = f"file://{folder / 'meeting'}"
        torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=processes)
    trainer = Trainer(config, folder / "run", CPU)
    values = trainer.train_step(trainer.batches[0])
    gradients = {name: parameter.grad for name, parameter in trainer.network.named_parameters()}
    torch.save((values, gradients), folder / f"{processes}-{rank}.pt")
    if processes > 1:
        torch.distributed.destroy_process_group()


def test_two_processes_have_the_gradient_of_one(configure, tmp_path):
    """With examples of which only a target is labelled, and with pseudo-labels, in other numbers in each process."""
    stems = ("vocals", "drums")
    folder = make_store(tmp_path / "store", parts=("mixture", *stems, "bass", "other"))
    song = make_song(9, 2.0, TINY.sample_rate)
    estimates = {part: song[part] for part in ("mixture", *stems, "bass", "other")}
    add_track(folder, TINY, "labelled by a network", estimates, teacher=["all"], silent={})
    data = {"stores": {str(folder): 1}, "batch_size": 6, "pairs": {"vocals": 0.4}, "pseudo_labelled": 0.4}
    config = configure(targets=stems, data=data, losses={"exchange": 1.0}, schedule={"clip": 1e9}, seed=2)
    batch = Trainer(config, tmp_path / "none", CPU).batches[0]
    for kind in (batch["labelled"], batch["labelled"].amin(dim=1), batch["pseudo_labelled"]):
        assert kind[0::2].sum() != kind[1::2].sum()  # or a mean of means would do
    write_gradients(0, 1, config, tmp_path)
    torch.multiprocessing.spawn(write_gradients, (2, config, tmp_path), nprocs=2)
    values, one = torch.load(tmp_path / "1-0.pt")
    for rank in range(2):
        others, two = torch.load(tmp_path / f"2-{rank}.pt")
        assert others == pytest.approx(values, rel=1e-4)
        for name, gradient in one.items():
            torch.testing.assert_close(two[name], gradient, rtol=1e-3, atol=1e-5 * float(gradient.abs().max()) + 1e-7)


def test_weights_keep_the_licence_of_those_they_started_from(configure, tmp_path):
    Trainer(configure(licence="CC BY-SA 4.0", schedule={"steps": 1}), tmp_path / "parent", CPU).run()
    weights = [str(tmp_path / "parent" / BEST)]
    config = configure(weights=weights, schedule={"steps": 2})
    Trainer(config, tmp_path / "child", CPU).run()
    (tmp_path / "child" / BEST).unlink()
    Trainer(config, tmp_path / "child", CPU, resume=True).run()
    Trainer(configure(weights=weights, licence="MIT", schedule={"steps": 1}), tmp_path / "other", CPU).run()
    Trainer(configure(schedule={"steps": 1}), tmp_path / "own", CPU).run()
    licences = [load_weights(tmp_path / name / BEST).licence for name in ("child", "other", "own")]
    assert licences == ["CC BY-SA 4.0", "MIT", UNKNOWN_LICENCE]


def test_a_run_can_be_repeated(configure, tmp_path):
    for name in ("one", "two"):
        Trainer(configure(schedule={"steps": 2}), tmp_path / name, CPU).run()
    assert_same_state(tmp_path / "one" / LAST, tmp_path / "two" / LAST)
    Trainer(configure(schedule={"steps": 2}, seed=1), tmp_path / "three", CPU).run()
    with pytest.raises(AssertionError):
        assert_same_state(tmp_path / "one" / LAST, tmp_path / "three" / LAST)


def test_a_finished_run_taken_up_again_stays_as_it_is(configure, tmp_path):
    config = configure(schedule={"steps": 2})
    Trainer(config, tmp_path, CPU).run()
    before = (tmp_path / LAST).read_bytes()
    Trainer(config, tmp_path, CPU, resume=True).run()
    assert (tmp_path / LAST).read_bytes() == before


def test_a_run_with_its_music_in_memory_learns_the_same(configure, tmp_path):
    store = make_store(tmp_path / "compact", compact=True)
    for name, in_memory in (("read", False), ("kept", True)):
        config = configure(data={"stores": {str(store): 1}, "in_memory": in_memory}, schedule={"steps": 3})
        Trainer(config, tmp_path / name, CPU).run()
    read, kept = (flat(load_state(tmp_path / name / LAST)["network"]) for name in ("read", "kept"))
    for name, value in read.items():
        torch.testing.assert_close(kept[name], value, rtol=1e-2, atol=1e-4)


def test_a_run_ends_when_its_time_is_up(configure, tmp_path, monkeypatch):
    """A step takes a minute on this clock; the learning rate falls by the time, and a run taken up goes on counting."""
    rates = []

    minutes = count()
    monkeypatch.setattr(trainer_module.time, "monotonic", lambda: 60.0 * next(minutes))
    learn = Trainer.train_step

    def watched(self, batch):
        terms = learn(self, batch)
        rates.append(self.optimizer.parts[0].param_groups[0]["lr"])
        return terms

    monkeypatch.setattr(Trainer, "train_step", watched)
    config = configure(schedule={"steps": 1000, "minutes": 4, "learning_rate": 1e-3})
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at(patch, 3)
        Trainer(config, tmp_path, CPU).run()
    trainer = Trainer(config, tmp_path, CPU, resume=True)
    trainer.run()
    state = load_state(tmp_path / LAST)
    assert state["step"] == 4 and state["minutes"] == 4
    assert rates[-1] == pytest.approx(1e-3 * 0.5 * (1 + math.cos(math.pi * 3 / 4)))
    assert rates[0] == pytest.approx(1e-3)
    again = Trainer(config, tmp_path, CPU, resume=True)
    again.run()
    assert load_state(tmp_path / LAST)["step"] == 4 and "finished before" in again.describe_result()


@pytest.mark.parametrize("compiled", [False, True])
def test_the_generator_is_compiled_if_that_is_asked_for(configure, tmp_path, monkeypatch, compiled):
    asked = []
    monkeypatch.setattr(UNet, "compile", lambda self: asked.append(self))
    trainer = Trainer(configure(schedule={"compiled": compiled}), tmp_path, CPU)
    assert asked == ([trainer.network.generator] if compiled else [])


def test_a_run_in_the_way_is_not_overwritten(configure, tmp_path):
    Trainer(configure(schedule={"steps": 1}), tmp_path, CPU).run()
    with refused("run_exists"):
        Trainer(configure(schedule={"steps": 1}), tmp_path, CPU)


def test_resuming_with_other_settings_names_them(configure, tmp_path):
    Trainer(configure(schedule={"steps": 1}), tmp_path, CPU).run()
    other = configure(schedule={"steps": 2, "betas": [0.5, 0.9]}, seed=3)
    with refused("other_settings"):
        Trainer(other, tmp_path, CPU, resume=True)
    with refused("run_finished"):
        Trainer(configure(schedule={"steps": 2}), tmp_path, CPU, resume=True)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_the_temperature_is_fitted_once_however_often_the_end_is_resumed(configure, tmp_path, monkeypatch, moment):
    config = configure(schedule={"steps": 2, "temperatures": [2.0]})
    Trainer(config, tmp_path / "whole", CPU).run()

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        if moment == "before":
            patch.setattr(trainer_module, "fit_temperature", killed)
        else:
            finish = Trainer._finish
            patch.setattr(Trainer, "_finish", lambda *arguments: (finish(*arguments), killed()))
        Trainer(config, tmp_path / "killed", CPU).run()
    for _ in range(2):
        again = Trainer(config, tmp_path / "killed", CPU, resume=True)
        again.run()
    assert "it had finished before; to train further" in again.describe_result()
    assert_same_weights(tmp_path / "killed" / BEST, tmp_path / "whole" / BEST)


def test_best_weights_that_were_taken_away_are_chosen_anew(configure, tmp_path):
    config = configure(schedule={"steps": 2})
    Trainer(config, tmp_path, CPU).run()
    before = (tmp_path / BEST).rename(tmp_path / "before.safetensors")
    Trainer(config, tmp_path, CPU, resume=True).run()
    assert_same_weights(tmp_path / BEST, before)


def without(name: str):
    return lambda state: {key: value for key, value in state.items() if key != name}


def without_setting(optimizer: dict) -> dict:
    return optimizer | {"param_groups": [without("weight_decay")(group) for group in optimizer["param_groups"]]}


def with_values(name: str, change: Callable[[Tensor], Tensor]):
    """Changes what the optimizers remember under a name, where they do."""

    def damage(state: dict) -> dict:
        for optimizer in state["optimizer"]:
            for values in optimizer["state"].values():
                values |= {name: change(values[name])} if name in values else {}
        return state

    return damage


DAMAGES = {
    "no step": without("step"),
    "no network": without("network"),
    "no optimizer": without("optimizer"),
    "a step past the end": lambda state: state | {"step": 7},
    "a step that is none": lambda state: state | {"step": "2"},
    "no best": lambda state: state | {"best": None},
    "no number": lambda state: state | {"best": math.nan},
    "a lone optimizer": lambda state: state | {"optimizer": state["optimizer"][:1]},
    "an optimizer without state": lambda state: state | {"optimizer": [o | {"state": {}} for o in state["optimizer"]]},
    "an optimizer before its first step": with_values("step", lambda step: step * 0 - 1),
    "an optimizer past the run": with_values("step", lambda step: step + 7),
    "an optimizer without numbers": with_values("exp_avg", lambda mean: mean * math.nan),
    "an optimizer without settings": lambda state: (
        state | {"optimizer": [without_setting(o) for o in state["optimizer"]]}
    ),
    "a tensor less": lambda state: state | {"network": dict([*state["network"].items()][1:])},
    "no tensors": lambda state: state | {"network": dict.fromkeys(state["network"], 1)},
    "no numbers": lambda state: state | {"network": {name: x * math.nan for name, x in state["network"].items()}},
    "other shapes": lambda state: state | {"average": {name: x[None] for name, x in state["average"].items()}},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return tmp_path_factory.mktemp("finished")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_state_that_is_not_whole_is_refused(configure, finished, damage, tmp_path):
    config = configure(schedule={"steps": 2}, losses={})
    if not (finished / LAST).exists():
        Trainer(config, finished, CPU).run()
    save_state(tmp_path / LAST, DAMAGES[damage](load_state(finished / LAST)))
    with refused("damaged_state"):
        Trainer(config, tmp_path, CPU, resume=True)


def test_a_run_is_taken_up_whichever_way_its_settings_were_written(configure, tmp_path):
    Trainer(configure(schedule={"steps": 1}), tmp_path, CPU).run()
    state = load_state(tmp_path / LAST)
    assert state["config"]["weights"] == ()
    state["config"]["weights"] = None  # as it was before there could be several
    save_state(tmp_path / LAST, state)
    assert Trainer(configure(schedule={"steps": 1}), tmp_path, CPU, resume=True).step == 1


def test_a_run_may_be_taken_up_with_other_workers_and_intervals(configure, tmp_path):
    Trainer(configure(schedule={"steps": 1}), tmp_path, CPU).run()
    other = configure(schedule={"steps": 1, "validate_every": 7}, data={"workers": 1})
    assert Trainer(other, tmp_path, CPU, resume=True).step == 1


def test_an_output_that_is_a_file_is_a_sentence(configure, tmp_path):
    (tmp_path / "run").write_text("in the way")
    with refused("not_a_folder"):
        Trainer(configure(), tmp_path / "run", CPU)


@pytest.mark.parametrize(
    "settings",
    [
        {"resume": True},
        {"data": {"stores": {"nowhere": 1}}},
        {"data": {"crop_frames": 60_000}},
        {"generator": {"band_layout": [[30, 4]]}},
        {"weights": "none.safetensors"},
        {"data": {"labelled": 0, "remaining": "drop"}, "losses": {}},
    ],
    ids=str,
)
def test_what_is_refused_leaves_no_folder_behind(configure, tmp_path, settings):
    resume = settings.pop("resume", False)
    with pytest.raises(UserError) as error:
        Trainer(configure(**settings), tmp_path / "runs" / "mine", CPU, resume)
    assert not list(tmp_path.iterdir())
    assert not resume or error.value.code == "no_run"


def test_stores_with_other_spectral_settings_are_refused(configure, tmp_path):
    spectral = {"sample_rate": TINY.sample_rate, "n_fft": TINY.n_fft, "hop": 32}
    with refused("other_stft"):
        Trainer(configure(spectral=spectral), tmp_path, CPU)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        ("losses.error_level", "supervised_target"),
        ("paper.l1", "identity"),
        ("paper.adversarial", "adversarial_rest"),
        ("paper.discrimination", "discriminator_rest"),
    ],
)
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(
    configure, tmp_path, monkeypatch, function, name
):
    trainer = Trainer(configure(), tmp_path, CPU)
    train_step = Trainer.train_step

    def poisoned(self, batch):
        if self.step == 4:
            module, _, name_there = function.partition(".")
            poison = torch.full((2, 1), torch.inf) if module == "losses" else torch.tensor(torch.inf)
            monkeypatch.setattr({"losses": losses, "paper": paper}[module], name_there, lambda *_: poison)
        return train_step(self, batch)

    monkeypatch.setattr(Trainer, "train_step", poisoned)
    with refused("not_finite") as error:
        trainer.run()
    assert all(fact in str(error.value) for fact in (name, "step 4", str(tmp_path / LAST)))
    state = load_state(tmp_path / LAST)
    assert state["step"] == 3
    assert all(value.isfinite().all() for value in flat(state).values() if isinstance(value, Tensor))
    load_network(tmp_path / BEST)


def test_a_gradient_that_is_not_finite_stops_the_run_before_it_harms_the_weights(configure, tmp_path, monkeypatch):
    monkeypatch.setattr(paper, "l1", lambda estimate, rest: (0 * (estimate - rest).abs().mean()).sqrt())
    trainer = Trainer(configure(), tmp_path, CPU)
    with refused("not_finite"):
        trainer.run()
    assert all(parameter.isfinite().all() for parameter in trainer.network.parameters())


def terms_of(trainer: Trainer) -> list[set[str]]:
    """The names of the losses at each step of a run."""
    names = []
    for step in range(trainer.schedule.steps):
        names.append(set(trainer.train_step(trainer.batches[step])))
        trainer.step += 1
    return names


def test_the_schedule_says_which_losses_are_taken_when(configure, tmp_path):
    trainer = Trainer(configure(schedule={"unlabelled_every": 2, "adversarial_from": 3}), tmp_path, CPU)
    before = [parameter.clone() for parameter in trainer.discriminators.parameters()]
    unlabelled = SUPERVISED | {*CIRCULAR}
    assert terms_of(trainer) == [
        unlabelled,
        SUPERVISED,
        unlabelled,
        SUPERVISED,
        unlabelled | ADVERSARIAL,
        SUPERVISED,
    ]
    after = list(trainer.discriminators.parameters())
    assert not any(torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_without_adversarial_losses_there_are_no_discriminators(configure, tmp_path):
    trainer = Trainer(configure(losses=CIRCULAR), tmp_path, CPU)
    assert terms_of(trainer)[0] == SUPERVISED | {*CIRCULAR}
    assert set(trainer.parts) == {"network", "average", "optimizer"}


def test_a_run_without_labels(configure, tmp_path):
    """The paper's protocol: some songs give their mixture, the others their rest, and none its vocals."""
    config = configure(data={"labelled": 0, "remaining": "split"}, losses=PAPER | dict.fromkeys(SUPERVISED, 0))
    trainer = Trainer(config, tmp_path, CPU)
    before = [parameter.clone() for parameter in trainer.network.parameters()]
    trainer.run()
    assert any(not torch.equal(old, new) for old, new in zip(before, trainer.network.parameters(), strict=True))
    assert terms_of(Trainer(config, tmp_path / "again", CPU))[0] == {*CIRCULAR} | ADVERSARIAL
    config, facts = read_facts(tmp_path / BEST)
    assert config.data.labelled == 0 and set(facts["validation_sdr"]) == {"vocals", "accompaniment"}


def test_a_run_for_several_targets(configure, tmp_path):
    stems = ("vocals", "drums", "bass", "other")
    folder = make_store(tmp_path / "store", parts=("mixture", *stems), train=2)
    config = configure(targets=stems, data={"stores": {str(folder): 1}}, schedule={"steps": 4})
    trainer = Trainer(config, tmp_path / "run", CPU)
    trainer.run()
    assert read_facts(tmp_path / "run" / BEST)[1]["validation_sdr"].keys() == {*stems}
    assert load_network(tmp_path / "run" / BEST).sources == stems


def test_a_run_goes_on_from_finished_weights(configure, tmp_path):
    """With next to no learning rate it ends with the weights, and the input's measures, that it started from."""
    Trainer(configure(), tmp_path / "first", CPU).run()
    still = configure({"learning_rate": 1e-9}, weights=str(tmp_path / "first" / BEST), seed=1)
    Trainer(still, tmp_path / "second", CPU).run()
    first, second = (load_network(tmp_path / run / BEST).state_dict() for run in ("first", "second"))
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, atol=1e-6, rtol=1e-3)
    (tmp_path / "first" / BEST).unlink()
    Trainer(still, tmp_path / "second", CPU, resume=True)  # its own checkpoint has all that it takes


def test_a_run_goes_on_from_the_mean_of_several_weights(configure, tmp_path):
    for seed, name in enumerate(("one", "other")):
        Trainer(configure(seed=seed), tmp_path / name, CPU).run()
    paths = [str(tmp_path / name / BEST) for name in ("one", "other")]
    trainer = Trainer(configure(weights=paths), tmp_path / "mean", CPU)
    one, other = (load_network(path).state_dict() for path in paths)
    for network in (trainer.network, trainer.average.module):
        for name, tensor in network.state_dict().items():
            torch.testing.assert_close(tensor, (one[name] + other[name]) / 2)


def test_weights_that_a_run_goes_on_from_stay_the_best_until_they_are_beaten(configure, tmp_path, monkeypatch):
    Trainer(configure(), tmp_path / "first", CPU).run()
    first = tmp_path / "first" / BEST
    scores = iter([6.0, 4.0, 5.0])
    monkeypatch.setattr("separation.training.trainer.validate", lambda *_: {"song": {"vocals": next(scores)}})
    trainer = Trainer(configure(weights=str(first)), tmp_path / "second", CPU)
    trainer.run()
    best = tmp_path / "second" / BEST
    assert read_facts(best)[1] == {"step": 0, "validation_sdr": {"vocals": 6.0}}
    assert "the weights it started from, which no later step has beaten" in trainer.describe_result()
    for name, tensor in load_network(first).state_dict().items():
        torch.testing.assert_close(load_network(best).state_dict()[name], tensor)


def test_a_run_may_leave_out_blocks_of_the_weights_that_it_goes_on_from(configure, tmp_path):
    sizes = {"band_layout": [[32, 2], [96, 8]], "widths": [6, 8]}
    full, thin = (sizes | {"decoder_levels": levels, "frequency_levels": levels} for levels in (None, 0))
    Trainer(configure(generator=full), tmp_path / "full", CPU).run()
    weights = tmp_path / "full" / BEST
    pruned = configure({"learning_rate": 1e-9}, weights=str(weights), generator=thin)
    Trainer(pruned, tmp_path / "pruned", CPU).run()
    before, after = (load_network(tmp_path / run / BEST).state_dict() for run in ("full", "pruned"))
    assert after.keys() < before.keys()
    for name, tensor in after.items():
        torch.testing.assert_close(tensor, before[name], atol=1e-6, rtol=1e-3)


def test_a_run_may_add_blocks_to_the_weights_that_it_goes_on_from(configure, tmp_path):
    """At first they change next to nothing, and they learn."""
    sizes = {"band_layout": [[32, 2], [96, 8]], "widths": [6, 8]}
    Trainer(configure(generator=sizes), tmp_path / "first", CPU).run()
    weights = tmp_path / "first" / BEST
    grown = configure(weights=str(weights), generator=sizes | {"blocks": [1, 2], "frequency_levels": None})
    trainer = Trainer(grown, tmp_path / "grown", CPU)
    start, before = load_network(weights), trainer.network.state_dict()
    added = before.keys() - start.state_dict().keys()
    assert {name.split(".")[1] for name in added} == {"bottom"}
    song = torch.randn(1, 2, 257, 16, dtype=torch.complex64)
    torch.testing.assert_close(trainer.network(song), start(song), atol=0.01, rtol=0)
    before = {name: tensor.clone() for name, tensor in before.items()}
    trainer.run()
    after = trainer.network.state_dict()
    assert all(not torch.equal(after[name], before[name]) for name in added)


def test_weights_of_another_kind_of_network_are_refused(configure, tmp_path):
    Trainer(configure(), tmp_path / "first", CPU).run()
    weights = str(tmp_path / "first" / BEST)
    wider = configure(weights=weights, generator={"band_layout": [[32, 2], [96, 8]], "widths": [6, 12], "blocks": [2]})
    with refused("other_network"):
        Trainer(wider, tmp_path / "second", CPU)
    store = make_store(tmp_path / "store", parts=("mixture", "drums"))
    drums = configure(weights=weights, targets=["drums"], losses={}, data={"stores": {str(store): 1}})
    with refused("other_network"):
        Trainer(drums, tmp_path / "second", CPU)


def test_the_average_follows_the_weights(configure, tmp_path):
    trainer = Trainer(configure(schedule={"average": 0.75}), tmp_path, CPU)
    expected = None
    for step in range(4):
        trainer.train_step(trainer.batches[step])
        trainer.step += 1
        weights = torch.cat([parameter.detach().flatten() for parameter in trainer.network.parameters()])
        expected = weights if expected is None else 0.75 * expected + 0.25 * weights
    average = torch.cat([parameter.flatten() for parameter in trainer.average.module.parameters()])
    torch.testing.assert_close(average, expected)
    assert not torch.allclose(average, weights, atol=1e-5)


def test_the_best_weights_are_kept_and_not_the_latest(configure, tmp_path, monkeypatch):
    scores = iter([4.0, 6.0, 5.0])
    monkeypatch.setattr("separation.training.trainer.validate", lambda *_: {"song": {"vocals": next(scores)}})
    Trainer(configure(schedule={"validate_every": 2}), tmp_path, CPU).run()
    _, facts = read_facts(tmp_path / BEST)
    assert facts == {"step": 4, "validation_sdr": {"vocals": 6.0}}
    assert load_state(tmp_path / LAST)["best"] == 6.0


def test_the_best_weights_are_those_with_the_best_mean_over_songs(configure, tmp_path, monkeypatch):
    songs = iter([(1.0, 5.0, 5.5), (3.0, 4.5, 5.0)])  # the median falls, the mean rises
    monkeypatch.setattr(
        "separation.training.trainer.validate", lambda *_: dict(enumerate({"vocals": sdr} for sdr in next(songs)))
    )
    Trainer(configure(), tmp_path, CPU).run()
    assert read_facts(tmp_path / BEST)[1] == {"step": 6, "validation_sdr": {"vocals": 4.5}}


def test_a_run_says_what_it_found_and_what_it_made(configure, tmp_path):
    folder = make_store(tmp_path / "store", valid=2)
    song = make_song(9, 2.0, TINY.sample_rate)
    add_track(folder, TINY, "unlabelled", {"mixture": song["mixture"]})
    trainer = Trainer(configure(data={"stores": {str(folder): 1}}, schedule={"steps": 2}), tmp_path / "run", CPU)
    parameters = sum(parameter.numel() for parameter in trainer.network.parameters())
    assert trainer.describe().splitlines() == [
        "songs: 3 labelled, 1 unlabelled, 2 to validate on",
        f"network: vocals; {parameters:,} parameters; on cpu in fp32",
        "steps: 2",
    ]
    trainer.run()
    made = rf"done: \S+{BEST}, vocals -?\d+\.\d\d dB, accompaniment \S+ dB \(step 2, the best on the validation songs\)"
    assert re.fullmatch(made, trainer.describe_result())


def test_without_validation_songs_the_latest_weights_are_kept_and_that_is_said(configure, tmp_path):
    folder = make_store(tmp_path / "store", valid=0)
    trainer = Trainer(configure(data={"stores": {str(folder): 1}}), tmp_path / "run", CPU)
    assert "warning: there are no songs to validate on" in trainer.describe()
    assert "data.valid=1" in trainer.describe()
    trainer.run()
    assert read_facts(tmp_path / "run" / BEST)[1]["step"] == 6
    assert "(step 6, the last, without songs to choose by)" in trainer.describe_result()
    held_out = Trainer(configure(data={"stores": {str(folder): 1}, "valid": 1}), tmp_path / "held out", CPU)
    assert "songs: 2 labelled, 0 unlabelled, 1 to validate on" in held_out.describe()
    assert "warning" not in held_out.describe()


def test_supervised_losses_that_no_song_serves_are_not_left_out_silently(configure, tmp_path):
    """Mixtures and accompaniments teach by the other terms alone."""
    folder, songs = tmp_path / "store", [make_song(seed, 2.0, TINY.sample_rate) for seed in range(2)]
    add_track(folder, TINY, "one", {"mixture": songs[0]["mixture"]})
    add_track(folder, TINY, "other", {"accompaniment": songs[1]["accompaniment"]})
    store = {"stores": {str(folder): 1}}
    said = Trainer(configure(data=store), tmp_path / "run", CPU).describe()
    assert "songs: 0 labelled, 2 unlabelled" in said
    assert "warning: no song has isolated vocals and a rest, so the supervised losses are left out" in said
    asked = Trainer(configure(data=store, losses=PAPER | dict.fromkeys(SUPERVISED, 0)), tmp_path / "run", CPU)
    assert "supervised" not in asked.describe()


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("damage", ["truncated", "gone"])
def test_a_store_that_is_damaged_meanwhile_is_a_sentence(configure, tmp_path, workers, damage):
    folder = make_store(tmp_path / "store", train=1)
    trainer = Trainer(configure(data={"stores": {str(folder): 1}, "workers": workers}), tmp_path / "run", CPU)
    if damage == "gone":
        shutil.rmtree(folder)
    else:
        path = folder / "train-0" / "vocals.npy"
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"missing or damaged") as error:
        trainer.run()
    assert "Traceback" not in str(error.value)


def test_a_worker_that_is_killed_is_a_sentence(configure, tmp_path, monkeypatch):
    monkeypatch.setattr(Batches, "__getitem__", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    settings = configure(data={"workers": 1}, losses=PAPER | {"supervised_target": 1})
    monkeypatch.setattr(trainer_module, "fit_input", lambda *_: None)
    with refused("worker_killed"):
        Trainer(settings, tmp_path, CPU).run()


def test_a_full_disk_ends_a_run_only_when_its_weights_cannot_be_written(configure, tmp_path, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda path, mode="r", **o: full() if "a" in mode else opened(path, mode, **o))
    monkeypatch.setattr(RunLog, "every", 1)
    Trainer(configure(schedule={"steps": 2}), tmp_path / "run", CPU).run()
    assert capsys.readouterr().out.count("history and events are no longer written") == 1
    assert load_state(tmp_path / "run" / LAST)["step"] == 2
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="cannot be written"):
        Trainer(configure(schedule={"steps": 2}), tmp_path / "other", CPU).run()


def test_the_gradient_is_clipped(configure, tmp_path):
    norms = {}
    for clip in (1e-3, 1e9):
        trainer = Trainer(configure(schedule={"clip": clip}), tmp_path / str(clip), CPU)
        trainer.train_step(trainer.batches[0])
        gradients = [parameter.grad for parameter in trainer.network.parameters() if parameter.grad is not None]
        norms[clip] = float(torch.stack([gradient.norm() for gradient in gradients]).norm())
    assert norms[1e-3] == pytest.approx(1e-3, rel=1e-2)
    assert norms[1e9] > 1


def test_files_below_the_networks_band_give_no_unlabelled_music(configure, tmp_path):
    """The network looks at the lowest 96 bins of 129, so up to 3 kHz: a file that ends below it says nothing there."""
    folder, songs = tmp_path / "store", [make_song(seed, 2.0, TINY.sample_rate) for seed in range(3)]
    for name, bandwidth in (("wide", 4000), ("enough", 3000), ("narrow", 2990)):
        parts = {part: songs[0][part] for part in ("mixture", "vocals", "accompaniment")}
        add_track(folder, TINY, name, parts, bandwidth=bandwidth)
    pools = Trainer(configure(data={"stores": {str(folder): 1}}), tmp_path / "run", CPU).pools
    assert pools.mixtures.songs == pools.rests_without["vocals"].songs == {"wide", "enough"}
    assert pools.whole.songs == {"wide", "enough", "narrow"}


def test_the_history_is_a_text_file_and_goes_on_where_the_run_does(configure, tmp_path, monkeypatch):
    monkeypatch.setattr(RunLog, "every", 2)
    monkeypatch.setattr("separation.training.logging.FIRST_POINTS", ())
    config, path = configure(schedule={"steps": 8, "checkpoint_every": 3}), tmp_path / "run" / HISTORY
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at(patch, 5)
        Trainer(config, tmp_path / "run", CPU).run()
    with path.open("a", encoding="utf-8") as file:
        file.write('{"step": 5, "lo')  # as a kill leaves it
    Trainer(config, tmp_path / "run", CPU, resume=True).run()
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines if "losses" in line] == [2, 4, 6, 8]
    assert [line["step"] for line in lines if "validation_sdr" in line] == [3, 6, 8]
    assert lines[0]["losses"].keys() >= SUPERVISED and lines[0]["time"].keys() == {
        "share waiting for data",
        "seconds per step",
    }
    assert lines[-1]["validation_sdr"].keys() == {"vocals", "accompaniment"}


def test_every_bin_reaches_the_generator_centred_and_of_unit_variance(configure, tmp_path):
    trainer = Trainer(configure(data={"batch_size": 8}, schedule={"steps": 100}), tmp_path, CPU)
    seen = []
    inlet = trainer.network.generator.inlet
    hook = inlet.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    for step in range(50, 66):
        trainer.network(trainer.batches[step]["sources"].sum(dim=1))
    hook.remove()
    deviation, mean = torch.std_mean(torch.cat(seen), dim=(0, 2))  # of [batch, views, frames, bins]
    audible = trainer.network.generator.input_scale < 50
    assert mean[audible].abs().max() < 0.6
    assert deviation[audible].log().abs().max() < math.log(1.6)
    buffers = dict(trainer.average.module.named_buffers())
    assert torch.equal(buffers["generator.input_mean"], trainer.network.generator.input_mean)


def test_bfloat16_that_is_noise_is_not_trained_with(configure, tmp_path, monkeypatch):
    """The gradients count too: here they alone are wrong, as some of oneDNN's with AMX are."""
    config = configure(schedule={"precision": "bf16"})
    assert Trainer(config, tmp_path, CPU).dtype == torch.bfloat16
    trial = Trainer._trial

    def noisy(self, dtype):
        estimates, gradient = trial(self, dtype)
        return [estimates, gradient + (dtype == torch.bfloat16) * gradient.flip(0)]

    monkeypatch.setattr(Trainer, "_trial", noisy)
    assert Trainer(config, tmp_path, CPU).dtype == torch.float32


def test_bf16_learns_what_fp32_learns(configure, tmp_path):
    terms = {}
    for precision in ("fp32", "bf16"):
        trainer = Trainer(configure(schedule={"precision": precision}), tmp_path / precision, CPU)
        terms[precision] = trainer.train_step(trainer.batches[0])
    assert terms["bf16"] != terms["fp32"]
    assert terms["bf16"] == pytest.approx(terms["fp32"], rel=0.05)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"warmup": 4, "decay": "constant"}, {0: 0.25, 1: 0.5, 3: 1, 4: 1, 99: 1}),
        ({"warmup": 0, "decay": "constant"}, {0: 1, 50: 1}),
        ({"warmup": 0, "decay": "cosine"}, {0: 1, 25: (1 + math.sqrt(0.5)) / 2, 50: 0.5, 99: 0.000247}),
        ({"warmup": 100, "decay": "cosine"}, {49: 0.5 * 0.5157, 99: 0.000247}),
        ({"warmup": 0, "decay": "halving", "halve_every": 10}, {0: 1, 9: 1, 10: 0.5, 25: 0.25, 99: 2**-9}),
    ],
    ids=str,
)
def test_the_learning_rate_rises_and_falls(settings, expected):
    schedule = ScheduleSettings(steps=100, **settings)
    assert {step: learning_rate_factor(step, schedule) for step in expected} == pytest.approx(expected, rel=2e-3)


def test_both_optimizers_follow_the_schedule(configure, tmp_path):
    config = configure(
        schedule={"steps": 100, "warmup": 10, "learning_rate": 1e-2},
        discriminator={"widths": [4, 8], "scales": 2, "learning_rate": 1e-3},
    )
    trainer = Trainer(config, tmp_path, CPU)
    trainer.step = 4
    trainer.train_step(trainer.batches[4])
    factor = learning_rate_factor(4, config.schedule)
    rates = [group["lr"] for part in trainer.optimizer.parts for group in part.param_groups]
    assert rates == pytest.approx([1e-2 * factor] * 2)
    assert trainer.discriminators_optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 * factor)
