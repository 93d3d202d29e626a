"""The command where torch is not installed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, environment, refused
from music import make_song
from networks import random_weights
from sounds import read

from separation.audio.io import write
from separation.inference.onnx import OnnxNetwork
from separation.inference.separator import Separator
from separation.inference.weights import load_network, load_weights, pretrained
from separation.stems import STEMS

HIDE_TORCH = """
import sys
from importlib.machinery import PathFinder
find = PathFinder.find_spec
def hide(name, *rest):
    return None if name.partition(".")[0] in ("torch", "onnx") else find(name, *rest)
PathFinder.find_spec = hide
"""
SEPARATE = f"{HIDE_TORCH}from separation.__main__ import separate; separate()"


def separate(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess:
    return run(folder, SEPARATE, *map(str, arguments))


def run(folder: Path, *command: str) -> subprocess.CompletedProcess:
    settings = {**environment(), "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [sys.executable, "-c", *command], cwd=folder, env=settings, capture_output=True, text=True, check=False
    )


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
    song, stem = noise(30000, 2).numpy(), "vocals"
    separator = Separator(OnnxNetwork(weights["one"].with_suffix(".onnx")), chunk_frames=1)
    (whole,) = (np.concatenate([piece[stem] for piece in separator.stream([song])], axis=1),)
    live = separator.live(44100)
    blocks = [live.push(block)[stem] for block in np.split(song, [100, 101, 20000], axis=1)]
    assert np.array_equal(np.concatenate([*blocks, live.flush()[stem]], axis=1), whole)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--weights", "one.safetensors"), "needs torch: pip install '.[gpu]'"),
        (("--weights", "nothere.safetensors"), "no weights at nothere.safetensors"),
        (("--device", "cuda"), "pip install '.[gpu]'"),
        (("--engine", "torch"), "--engine torch is not installed here: pip install '.[gpu]'"),
        (("--weights", "one.onnx", "--engine", "torch"), "--engine torch does not run one.onnx"),
        (("--weights", "foreign.onnx"), "foreign.onnx is not an ONNX file"),
        (("--weights", "one.onnx", "--stems", "drums"), "do not separate drums"),
        (("--weights", "one.onnx", "--device", "cuda"), "--device cuda"),
    ],
)
def test_what_cannot_be_done_without_torch_is_one_sentence(tmp_path, weights, arguments, said):
    write(tmp_path / "song.wav", noise(1000, 2), 44100)
    (tmp_path / "foreign.onnx").write_text("no network")
    (tmp_path / "one.safetensors").write_bytes(weights["one"].read_bytes())
    (tmp_path / "one.onnx").write_bytes(weights["one"].with_suffix(".onnx").read_bytes())
    result = separate(tmp_path, "song.wav", *arguments)
    assert result.returncode == 1
    assert said in result.stderr and "Traceback" not in result.stderr


def test_a_file_that_is_missing_damaged_or_foreign_is_refused(tmp_path, monkeypatch):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    other = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "other", [value], [other])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "other.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "damaged.onnx").write_bytes(model.SerializeToString()[:-10])
    for name, code in {"none": "no_weights", "damaged": "bad_weights", "other": "foreign_weights"}.items():
        with refused(code):
            OnnxNetwork(tmp_path / f"{name}.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as if it were not installed
    with refused("no_engine"):
        OnnxNetwork(tmp_path / "other.onnx")


@pytest.mark.parametrize("options", [(), ("--stems", "all", "--quality", "best")], ids=str)
def test_installed_without_torch_songs_are_separated_and_shown(tmp_path, options):
    song = noise(60_000, 2)
    write(tmp_path / "song.flac", song, 44100)
    result = separate(tmp_path, "song.flac", "--page", *options)
    assert result.returncode == 0, result.stderr
    assert "; ONNX Runtime, CPU, 1 thread" in result.stdout
    stems = [read(path)[0] for path in (tmp_path / "outputs" / "song").glob("*.wav")]
    assert len(stems) == (4 if options else 2) and torch.equal(sum(stems), song)
    assert (tmp_path / "outputs" / "index.html").is_file()


@pytest.mark.parametrize("page", ["README.md", "docs/api.md"])
def test_the_documented_python_needs_no_torch(tmp_path, page):
    write(tmp_path / "song.mp3", noise(60_000, 2), 44100)
    code = re.search(r"```python\n(import separation\n.*?)```", (REPOSITORY / page).read_text("utf-8"), re.DOTALL)[1]
    assert (result := run(tmp_path, HIDE_TORCH + code)).returncode == 0, result.stderr
    vocals, accompaniment = (read(tmp_path / f"{stem}.wav")[0] for stem in ("vocals", "accompaniment"))
    torch.testing.assert_close(vocals + accompaniment, read(tmp_path / "song.mp3")[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["vocals", "all", "vocals_live"])
def test_shipped_onnx_files_are_the_shipped_weights(name):
    """Their error is that of half precision: 60 dB below the stems, where that of bfloat16 is 45 to 55."""
    path, song = pretrained(name, "onnx"), make_song(3, 4.0, 44100)["mixture"]
    assert path.stat().st_size < 5_000_000
    exact = Separator(load_network(pretrained(name)), precision="fp32")(song, 44100)
    found = Separator(OnnxNetwork(path))(song, 44100)
    assert found.keys() == exact.keys()
    for stem, wanted in exact.items():
        assert 20 * torch.log10((found[stem] - wanted).norm() / wanted.norm()) < -60
    about = OnnxNetwork(path).session.get_modelmeta().custom_metadata_map
    assert json.loads(about["licence"]) == load_weights(pretrained(name)).licence


def test_whole_numbers_come_in_at_their_full_scale(weights):
    separator, song = Separator(OnnxNetwork(weights["one"].with_suffix(".onnx"))), noise(20_000, 2).numpy()
    expected = separator(song, 44100)
    found = separator((song * 2**15).astype(np.int16), 44100)
    for stem, wanted in expected.items():
        assert isinstance(found[stem], np.ndarray) and np.array_equal(found[stem], wanted)
