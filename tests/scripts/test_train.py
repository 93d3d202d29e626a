"""train.py as its users run it."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from conftest import REPOSITORY, environment, hear_signals
from music import TINY, make_song, make_store
from networks import PAPER, read_facts
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from separation.audio.stft import SpectralSettings
from separation.inference.separator import Separator, sdr
from separation.inference.weights import load_network
from separation.training import command
from separation.training.checkpoints import load_state
from separation.training.config import LossWeights
from separation.training.validation import medians, validate, validation_tracks

LOSSES = {*vars(LossWeights()), "discriminator_rest", "discriminator_mixture"}


@pytest.fixture(scope="module")
def smoke(tmp_path_factory, run):
    """A whole training by configs/smoke.yaml on made-up songs; others than those that it is validated on."""
    folder = tmp_path_factory.mktemp("smoke")
    store = make_store(folder / "store", SpectralSettings(), train=8, valid=3, seconds=5)
    result = run(
        "train.py", "--config", "configs/smoke.yaml", "--set", f"data.stores={{{store}: 1}}",
        "--device", "cpu", "--output", folder / "run",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return SimpleNamespace(store=store, output=folder / "run", printed=result.stdout, bar=result.stderr)


@pytest.fixture(scope="module")
def events(smoke):
    return EventAccumulator(str(smoke.output / "events"), size_guidance={"images": 0, "audio": 0}).Reload()


def test_training_separates_songs_that_it_has_not_heard(smoke):
    found = medians(
        validate(Separator(load_network(smoke.output / "best.safetensors")), validation_tracks([str(smoke.store)]))
    )
    songs = [make_song(seed, seconds=5) for seed in (8, 9, 10)]
    doing_nothing = {name: max(sdr(song[name], song["mixture"]) for song in songs) for name in found}
    assert found["vocals"] > doing_nothing["vocals"] + 8
    assert found["accompaniment"] > doing_nothing["accompaniment"] + 5


def test_training_says_what_it_does_and_where_the_weights_are(smoke):
    assert re.search(r"^songs: 8 labelled, 0 unlabelled, 3 to validate on$", smoke.printed, re.MULTILINE)
    assert re.search(r"done: \S+best.safetensors, vocals \d+\.\d\d dB, accompaniment \d+\.\d\d dB", smoke.printed)
    assert "100/100" in smoke.bar and "identity=" in smoke.bar
    config, facts = read_facts(smoke.output / "best.safetensors")
    assert config.data.stores == {str(smoke.store): 1.0}
    assert facts["step"] in (50, 100) and facts["validation_sdr"].keys() == {"vocals", "accompaniment"}
    assert facts["temperature"] in config.schedule.temperatures
    assert load_state(smoke.output / "last.pt")["step"] == 100
    assert {path.name for path in smoke.output.iterdir()} == {
        "best.safetensors",
        "events",
        "history.jsonl",
        "last.pt",
    }


def test_tensorboard_has_the_losses_and_the_validation_sdr(events):
    scalars = {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]}
    assert {tag.removeprefix("loss/") for tag in scalars if tag.startswith("loss/")} == LOSSES
    assert scalars["loss/supervised_target"][100] < scalars["loss/supervised_target"][50]
    assert scalars["loss/discriminator_rest"].keys() == {100}  # adversarial from step 50 on
    assert scalars["validation SDR/vocals"].keys() == {50, 100}
    assert 0 <= scalars["time/share waiting for data"][100] < 1
    shares = [scalars[f"share of the song's energy/{name}"][100] for name in ("vocals", "accompaniment")]
    assert shares == pytest.approx([0.28, 0.72], abs=0.1)


def test_tensorboard_has_pictures_and_sound(events):
    names = {"mixture", "vocals", "accompaniment"}
    assert {tag for tag in events.Tags()["images"] if tag.startswith("spectrogram/")} >= {
        f"spectrogram/{n}" for n in names
    }
    assert {tag for tag in events.Tags()["audio"] if tag.startswith("audio/")} >= {f"audio/{name}" for name in names}
    image, sound = events.Images("spectrogram/vocals")[-1], events.Audio("audio/vocals")[-1]
    assert image.encoded_image_string.startswith(b"\x89PNG") and image.width > 200
    assert (sound.sample_rate, sound.length_frames) == (44100, 5 * 44100)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """A config of a run of a few seconds with every kind of loss, without validation songs."""
    folder = tmp_path_factory.mktemp("tiny")
    store = make_store(folder / "store", valid=0)
    settings = {
        "spectral": {"sample_rate": TINY.sample_rate, "n_fft": TINY.n_fft, "hop": TINY.hop},
        "data": {"stores": {str(store): 1}, "crop_frames": 16, "batch_size": 4, "unlabelled_batch_size": 2},
        "generator": {"band_layout": [[32, 2], [96, 8]], "widths": [6, 8]},
        "discriminator": {"widths": [4, 8], "scales": 2},
        "losses": PAPER,
        "schedule": {"steps": 60, "warmup": 5, "precision": "fp32", "average": 0.9, "checkpoint_every": 2},
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def weights_of(output: Path) -> dict[str, torch.Tensor]:
    state = load_state(output / "last.pt")
    return {
        f"{part} {name}": tensor
        for part in ("network", "average", "discriminators")
        for name, tensor in state[part].items()
    }


def test_a_killed_run_taken_up_again_ends_with_the_same_weights(tiny, run, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run("train.py", "--config", tiny, "--device", "cpu", "--output", whole).returncode == 0

    command = [sys.executable, "train.py", "--config", tiny, "--device", "cpu", "--output", killed]
    process = subprocess.Popen(
        command, cwd=REPOSITORY, env=environment(), stderr=subprocess.DEVNULL, start_new_session=True
    )
    while not (killed / "last.pt").exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 0 < load_state(killed / "last.pt")["step"] < 60

    result = run("train.py", "--config", tiny, "--device", "cpu", "--output", killed, "--resume")
    assert result.returncode == 0, result.stderr
    expected, found = weights_of(whole), weights_of(killed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())


@pytest.mark.skipif(os.name != "posix", reason="other systems have no process groups")
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_stopped_group_of_processes_leaves_a_state_and_no_trace(tiny, run, tmp_path, number):
    """Ctrl-C, Slurm and systemd, and a terminal that closes: all of them long before the first checkpoint."""
    number, output = getattr(signal, number), tmp_path / "run"
    changes = ["schedule.steps=100000", "schedule.checkpoint_every=100000", "data.workers=2"]
    command = [sys.executable, "train.py", "--config", tiny, "--device", "cpu", "--output", output, "--set", *changes]
    process = subprocess.Popen(
        [*map(str, command)], cwd=REPOSITORY, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True, preexec_fn=hear_signals,
    )  # fmt: skip
    while not ((output / "history.jsonl").exists() and (output / "history.jsonl").stat().st_size):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + number, errors
    assert "Traceback" not in errors and "Error" not in errors
    hint = re.search(r"stopped after step (\d+); to continue: python (train\.py .* --resume)$", errors, re.MULTILINE)
    assert hint and load_state(output / "last.pt")["step"] == int(hint[1]) > 0
    assert "there is no run" not in run(*shlex.split(hint[2]), "--check").stdout  # which trains no further


def test_a_check_tries_everything_and_writes_nothing(tiny, run, tmp_path):
    result = run("train.py", "--check", "--config", tiny, "--device", "cpu", "--output", tmp_path / "run")
    assert result.returncode == 0, result.stderr
    rows = [line.split(maxsplit=1) for line in result.stdout.splitlines()]
    found = {line.split("  ")[0] for status, line in rows if status == "ok"}
    assert found >= {"config", "songs", "network", "one batch", "one step", "memory", "time to the end"}
    assert any(status == "warning" and "no songs to validate on" in line for status, line in rows)
    assert not list(tmp_path.iterdir())


def test_a_check_is_of_one_process(tiny, run, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = run("train.py", "--check", "--config", tiny, "--device", "cpu")
    assert result.returncode == 1 and result.stderr.startswith("error") and "Traceback" not in result.stderr


def test_a_check_of_what_cannot_run_fails(tiny, run, tmp_path):
    changes = ["--set", "data.batch_size=4", "data.stores={nowhere: 1}"]
    result = run("train.py", "--check", "--config", tiny, "--device", "cpu", "--output", tmp_path / "run", *changes)
    assert result.returncode == 1 and result.stdout.splitlines()[-1].startswith("error")
    assert "nowhere" in result.stdout and "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


NETWORK = '''
import torch
from torch import nn


class Small(nn.Module):
    """Two layers over the bins of a frame, alone."""

    context = 0

    def __init__(self, targets, bins, complete, hidden: int = 8):
        super().__init__()
        self.targets = targets
        self.layers = nn.Sequential(nn.Linear(2 * bins, hidden), nn.ReLU(), nn.Linear(hidden, targets * 2 * bins))

    def forward(self, mixture):
        frames = mixture.abs().sqrt().flatten(1, 2).transpose(1, 2)  # [batch, frames, channels * bins]
        masks = torch.sigmoid(self.layers(frames)).transpose(1, 2)
        return masks.unflatten(1, (self.targets, 2, mixture.shape[-2])).float()
'''


def test_a_network_of_the_users_is_trained(tiny, tmp_path, monkeypatch):
    (tmp_path / "theirs.py").write_text(NETWORK, encoding="utf-8")
    settings = yaml.safe_load(tiny.read_text(encoding="utf-8"))
    settings |= {"network": "theirs:Small", "generator": {"hidden": 12}, "losses": {"exchange": 1.0}}
    settings["schedule"] |= {"steps": 30}
    settings["data"] |= {"valid": 1}
    (tmp_path / "theirs.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    command = [sys.executable, "train.py", "--config", tmp_path / "theirs.yaml", "--output", tmp_path / "run"]
    result = subprocess.run(
        [*map(str, command)], cwd=REPOSITORY, env=environment() | {"PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert re.search(r"done: \S+best.safetensors, vocals -?\d", result.stdout)
    lines = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    losses = [line["losses"]["supervised_target"] for line in lines if "losses" in line]
    assert losses[-1] < losses[0]


def test_two_processes_or_two_machines_end_with_the_weights_of_one(tiny, run, tmp_path):
    """Two machines are two agents of torchrun that meet at a port; here they are on one machine."""
    changes = ["schedule.steps=8", "schedule.learning_rate=1e-3"]
    settings = ["train.py", "--config", tiny, "--set", *changes, "--device", "cpu", "--output"]
    assert run(*settings, tmp_path / "one").returncode == 0
    torchrun = ["-m", "torch.distributed.run"]
    result = run(*torchrun, "--standalone", "--nproc-per-node", "2", *settings, tmp_path / "two")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("done:") == 1
    with socket.create_server(("127.0.0.1", 0)) as free:
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    meeting = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint]
    with ThreadPoolExecutor() as agents:
        machines = [agents.submit(run, *torchrun, *meeting, *settings, tmp_path / "machines") for _ in range(2)]
    assert [machine.result().returncode for machine in machines] == [0, 0], machines[0].result().stderr
    assert sum(machine.result().stdout.count("done:") for machine in machines) == 1
    one = weights_of(tmp_path / "one")
    for others in (weights_of(tmp_path / "two"), weights_of(tmp_path / "machines")):
        for name, tensor in one.items():  # sums of gradients are rounded otherwise; each step moves a weight by 1e-3
            torch.testing.assert_close(others[name], tensor, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--config", "none.yaml"], "error: cannot read the config none.yaml: No such file or directory."),
        (["--set", "data.stores={nowhere: 1}"], "error: nowhere is not a store"),
    ],
)
def test_bad_input_is_one_sentence(run, tmp_path, arguments, sentence):
    result = run("train.py", "--device", "cpu", "--output", tmp_path, *arguments)
    assert result.returncode == 1
    assert result.stderr.startswith(sentence)
    assert result.stderr.count("\n") == 1


def test_a_missing_gpu_is_a_sentence(run, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    result = run("train.py", "--device", "cuda", "--output", tmp_path)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "no CUDA device is available" in result.stderr


@pytest.mark.parametrize("rank", [0, 3])
def test_every_process_of_torchrun_takes_a_device_of_its_own(monkeypatch, rank):
    taken = []
    monkeypatch.setattr(command, "choose_device", lambda _: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    device = command.training_device("auto")
    assert device == torch.device("cuda", rank)
    assert taken == [device]
