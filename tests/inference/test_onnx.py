"""The command where torch is not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, environment
from networks import random_weights

from separation.audio.io import read, write
from separation.errors import UserError
from separation.inference.separator import Separator
from separation.inference.weights import load_network
from separation.stems import STEMS

WITHOUT_TORCH = """
import sys
from importlib.machinery import PathFinder
find = PathFinder.find_spec
def hide(name, *rest):
    return None if name.partition(".")[0] in ("torch", "onnx") else find(name, *rest)
PathFinder.find_spec = hide
from separation.__main__ import separate
separate()
"""


def separate(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)]
    settings = {**environment(), "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, check=False)


def noise(samples: int, channels: int) -> torch.Tensor:
    song = 0.1 * torch.randn(channels, samples, generator=torch.Generator().manual_seed(0)).clamp(-3, 3)
    return (song * 2**15).round() / 2**15


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> dict[str, Path]:
    """The same weights for torch and for others, of one target and of four."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from separation.apps.export import export

    folder = tmp_path_factory.mktemp("weights")
    files = {}
    for name, targets in (("one", ("vocals",)), ("four", STEMS)):
        files[name] = random_weights(folder / f"{name}.safetensors", targets)
        export(files[name], files[name].with_suffix(".onnx"))
    return files


@pytest.mark.parametrize(
    ("name", "stems", "channels", "rate"),
    [("one", (), 2, 44100), ("four", (), 2, 44100), ("four", ("vocals", "no_bass"), 1, 48000)],
)
def test_the_same_command_gives_the_same_stems(tmp_path, weights, name, stems, channels, rate):
    song = noise(100_000, channels)
    write(tmp_path / "song.flac", song, rate)
    options = ["--weights", weights[name].with_suffix(".onnx"), *(("--stems", *stems) if stems else ())]
    result = separate(tmp_path, "song.flac", *options, "--bits", "32f", "--output", "exact")
    assert result.returncode == 0, result.stderr
    assert "; ONNX Runtime, CPU, 1 thread" in result.stdout
    separator = Separator(load_network(weights[name]), stems, precision="fp32")
    for stem, wanted in separator(song, rate).items():
        found = read(tmp_path / "exact" / "song" / f"{stem}.wav")[0]
        assert wanted.std() > 0.005
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)
    if not stems:
        assert separate(tmp_path, "song.flac", *options).returncode == 0
        rounded = [read(path)[0] for path in (tmp_path / "outputs" / "song").glob("*.wav")]
        assert torch.equal(sum(rounded), song)


def test_live_is_the_whole_song_to_the_bit(weights):
    from separation.inference.onnx import OnnxNetwork

    song, stem = noise(30000, 2).numpy(), "vocals"
    separator = Separator(OnnxNetwork(weights["one"].with_suffix(".onnx")), chunk_frames=1)
    (whole,) = (np.concatenate([piece[stem] for piece in separator.stream([song])], axis=1),)
    live = separator.live(44100)
    blocks = [live.push(block)[stem] for block in np.split(song, [100, 101, 20000], axis=1)]
    assert np.array_equal(np.concatenate([*blocks, live.flush()[stem]], axis=1), whole)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "python -m separation export"),
        (("--weights", "foreign.onnx"), "foreign.onnx is no ONNX file"),
        (("--weights", "one.onnx", "--stems", "drums"), "do not separate drums"),
        (("--weights", "one.onnx", "--device", "cuda"), "--device cuda"),
        (("--weights", "one.onnx", "--page"), "--page needs torch"),
    ],
)
def test_what_cannot_be_done_without_torch_is_one_sentence(tmp_path, weights, arguments, said):
    write(tmp_path / "song.wav", noise(1000, 2), 44100)
    (tmp_path / "foreign.onnx").write_text("no network")
    (tmp_path / "one.onnx").write_bytes(weights["one"].with_suffix(".onnx").read_bytes())
    result = separate(tmp_path, "song.wav", *arguments)
    assert result.returncode == 1
    assert said in result.stderr and "Traceback" not in result.stderr


def test_what_is_no_file_of_ours_is_refused(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from separation.inference.onnx import OnnxNetwork

    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    other = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "other", [value], [other])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "other.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match="another program"):
        OnnxNetwork(tmp_path / "other.onnx")
