"""An exported network, in a host that knows of it only what its metadata says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, environment
from music import make_song
from networks import FAST, random_weights

from separation.apps.export import export
from separation.errors import UserError
from separation.inference.config import NetworkSettings
from separation.inference.separator import Separator
from separation.inference.weights import build_network, load_network, pretrained, save_weights
from separation.stems import STEMS

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")


def host(model: Path, song: np.ndarray, sizes: list[int]) -> dict[str, np.ndarray]:
    """The targets of a song `[2, samples]`, fed in pieces of so many strides in turn, without a line of torch."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    said = {key: json.loads(text) for key, text in session.get_modelmeta().custom_metadata_map.items()}
    stft, stride = said["spectral"], said["stride"]
    size, hop = stft["n_fft"], stft["hop"]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    late = said["context"] + said["lag"]
    frames = -(-(song.shape[1] - stft["first_sample"]) // hop) + late
    frames = -(-frames // stride) * stride
    before = said["context"] * hop - stft["first_sample"]
    sound = np.zeros((2, (frames - 1) * hop + size))
    mirrored = min(said["context"], said["lag"]) * hop - stft["first_sample"]
    edges = (mirrored, sound.shape[1] - before - song.shape[1])
    sound[:, before - mirrored :] = np.pad(song, ((0, 0), edges), mode="symmetric")
    framed = np.lib.stride_tricks.sliding_window_view(sound, size, axis=1)[:, ::hop] * window
    spectrum = (np.fft.rfft(framed) * stft["scale"]).astype(np.complex64)
    mixture = np.ascontiguousarray(spectrum).view(np.float32).reshape(2, frames, -1, 2)

    first, *inputs = session.get_inputs()
    states = {state.name: np.zeros(state.shape, np.float32) for state in inputs}
    pieces, start = [], 0
    while start < frames:
        stop = start + sizes[len(pieces) % len(sizes)] * stride
        targets, *following = session.run(None, {first.name: mixture[:, start:stop], **states})
        states, start = dict(zip(states, following, strict=True)), stop
        pieces.append(targets)
    targets = np.concatenate(pieces, axis=2)
    targets = np.fft.irfft((targets[..., 0] + 1j * targets[..., 1]) / stft["scale"], size)
    targets *= window * stft["synthesis_gain"]
    waveforms = np.zeros((len(said["targets"]), 2, sound.shape[1]))
    for frame in range(frames):
        waveforms[..., frame * hop : frame * hop + size] += targets[:, :, frame]
    begin = late * hop - stft["first_sample"]
    return dict(zip(said["targets"], waveforms[..., begin : begin + song.shape[1]], strict=True))


@pytest.mark.parametrize("weights", ["random", "random four", "vocals", "all"])
def test_a_host_gets_the_stems_of_a_whole_song(tmp_path, weights):
    if weights.startswith("random"):
        targets = STEMS if "four" in weights else ("vocals",)
        path, seconds = random_weights(tmp_path / "weights.safetensors", targets), 1.5
    else:
        path, seconds = pretrained(weights), 12.0
    said = export(path, tmp_path / "model.onnx")
    song = make_song(3, seconds)["mixture"]
    network = load_network(path)
    stems = Separator(network, network.targets, precision="fp32")(song, 44100)
    heard = host(tmp_path / "model.onnx", song.numpy(), [1, 7, 2, 16])
    assert list(heard) == list(stems) == json.loads(said["targets"])
    for stem, waveform in heard.items():
        assert np.abs(waveform - stems[stem].numpy()).max() < 1e-4
    assert heard["vocals"].std() > 0.001


def test_the_command_says_what_it_wrote(tmp_path):
    weights = random_weights(tmp_path / "weights.safetensors")
    command = [sys.executable, "-m", "separation", "export", weights, tmp_path / "out" / "model.onnx"]
    result = subprocess.run(command, cwd=REPOSITORY, env=environment(), capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert "model.onnx: " in result.stdout and "vocals, accompaniment; " in result.stdout
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx", providers=["CPUExecutionProvider"])
    said = session.get_modelmeta().custom_metadata_map
    live = Separator.load(weights, "cpu").live(44100)
    assert json.loads(said["latency"]) == pytest.approx(live.latency)
    assert json.loads(said["licence"]) and json.loads(said["sources"]) == ["vocals", "accompaniment"]
    shapes = [state.shape for state in session.get_inputs()[1:]]
    assert shapes == [state.shape for state in session.get_outputs()[1:]]


def test_what_is_no_weights_file_is_not_exported(tmp_path):
    (tmp_path / "foreign.safetensors").write_text("no weights at all")
    with pytest.raises(UserError, match=r"foreign\.safetensors"):
        export(tmp_path / "foreign.safetensors", tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


class MagnitudeMask(torch.nn.Module):
    """A network as a user may write it: masks from the magnitudes of three frames."""

    context = 1

    def __init__(self, targets: int, bins: int, complete: bool, scale: float = 1.0):
        super().__init__()
        self.targets, self.scale = targets, scale
        self.layer = torch.nn.Conv2d(2, 2 * targets, (5, 3), padding=(2, 1))

    def forward(self, mixture: torch.Tensor) -> torch.Tensor:
        masks = torch.sigmoid(self.scale * self.layer(torch.log1p(torch.abs(mixture))))
        return masks.unflatten(1, (self.targets, 2))


class PhaseMask(MagnitudeMask):
    def forward(self, mixture: torch.Tensor) -> torch.Tensor:
        return super().forward(mixture * torch.exp(1j * torch.angle(mixture)))


class LengthMask(MagnitudeMask):
    """What it does depends on the length of a piece, which the tracer takes for a constant."""

    def forward(self, mixture: torch.Tensor) -> torch.Tensor:
        return super().forward(mixture) / float(mixture.shape[-1])


def own_weights(folder: Path, network: str, **arguments) -> Path:
    settings = NetworkSettings(("vocals",), FAST, network, arguments)
    path = folder / "own.safetensors"
    torch.manual_seed(0)
    save_weights(path, build_network(settings), settings, {}, licence="MIT")
    return path


def test_a_network_of_ones_own_is_exported(tmp_path):
    name = f"{__name__}:MagnitudeMask"
    path = own_weights(tmp_path, name, scale=3.0)
    export(path, tmp_path / "model.onnx", name)
    song = make_song(3, 1.5)["mixture"]
    separator = Separator.load(path, "cpu", network=name)
    separator.precision = "fp32"
    expected = separator(song, 44100)["vocals"]
    heard = host(tmp_path / "model.onnx", song.numpy(), [1, 7, 2, 16])["vocals"]
    assert np.abs(heard - expected.numpy()).max() < 1e-4 and heard.std() > 0.001


@pytest.mark.parametrize("network", ["PhaseMask", "LengthMask", "open_unmix"])
def test_what_onnx_cannot_do_is_refused_in_a_sentence(tmp_path, network):
    name = network if network == "open_unmix" else f"{__name__}:{network}"
    path = own_weights(tmp_path, name)
    with pytest.raises(UserError) as error:
        export(path, tmp_path / "model.onnx", name)
    assert error.value.code == "no_export" and "\n" not in str(error.value)
    assert not (tmp_path / "model.onnx").exists()


def test_code_is_not_imported_because_a_file_says_so(tmp_path):
    path = own_weights(tmp_path, f"{__name__}:MagnitudeMask")
    with pytest.raises(UserError):
        export(path, tmp_path / "model.onnx")
