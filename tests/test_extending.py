"""Every example of docs/extending.md, made from the page itself in a copy of the package."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import soundfile
import torch
import yaml
from conftest import REPOSITORY, environment, refused
from music import TINY, make_store

PAGE = (REPOSITORY / "docs" / "extending.md").read_text(encoding="utf-8")
EDIT = re.compile(
    r"In `(?P<file>[^`]+)`, (?P<place>after|before|in place of) `(?P<anchor>[^`]+)`, add"
    r"\n\n```python\n(?P<code>.*?)```",
    re.S,
)

CHECKS = {
    "A loss term": """
import sys
from pathlib import Path
import torch
from separation.training.config import parse_config
from separation.training.trainer import Trainer
config = parse_config({"data": {"stores": {"store": 1.0}, "workers": 0, "batch_size": 2, "crop_frames": 16},
    "spectral": {"sample_rate": 8000, "n_fft": 256, "hop": 64}, "generator": {"band_layout": [[96, 4]], "widths": [6]},
    "losses": {"smoothness": 0.1}, "schedule": {"steps": 1, "precision": "fp32", "temperatures": []}}, "test")
trainer = Trainer(config, Path("run"), torch.device("cpu"))
seen = []
step = trainer.train_step
trainer.train_step = lambda batch: seen.append(step(batch)) or seen[-1]
trainer.run()
assert seen[0]["smoothness"] > 0, seen
""",
    "A dataset layout": """
from pathlib import Path
from separation.dataset.layouts import find_tracks
(track,) = find_tracks("PAIRS", Path("pairs"))
assert track.name == "a" and set(track.files) == {"mixture", "vocals"}, track
""",
}


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def blocks(title: str, language: str) -> list[str]:
    """The blocks of a section that are no edits."""
    return re.findall(rf"```{language}\n(.*?)```", EDIT.sub("", section(title)), re.S)


@pytest.fixture
def package(tmp_path) -> Path:
    """A copy of the package, to be edited."""
    for folder in ("separation", "models"):
        ignored = shutil.ignore_patterns("__pycache__", "models", "node_modules")
        shutil.copytree(REPOSITORY / folder, tmp_path / folder, ignore=ignored, symlinks=True)
    return tmp_path


@pytest.mark.parametrize("title", ["A loss term", "A stem", "An output format", "A dataset layout"])
def test_an_edit_does_what_the_page_says(package, title):
    edits = list(EDIT.finditer(section(title)))
    assert edits
    for edit in edits:
        path = package / edit["file"]
        source, anchor = path.read_text(encoding="utf-8"), edit["anchor"]
        assert source.count(f"{anchor}\n") == 1, f"{edit['file']} has not one line {anchor}"
        code = edit["code"]
        added = {"after": f"{anchor}\n{code}", "before": f"{code}{anchor}\n", "in place of": code}[edit["place"]]
        path.write_text(source.replace(f"{anchor}\n", added), encoding="utf-8")
    make_store(package / "store")
    (package / "pairs").mkdir()
    for part in ("mix", "vox"):
        soundfile.write(package / "pairs" / f"a_{part}.wav", [0.1] * 100, 8000)
    program = CHECKS.get(title) or blocks(title, "python")[0]
    assert "assert" in program
    settings = {**environment(), "PYTHONPATH": str(package)}
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, cwd=package, env=settings, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_a_network_of_ones_own_is_trained_and_separates(tmp_path, monkeypatch):
    from separation.inference.separator import Separator
    from separation.training.config import parse_config
    from separation.training.trainer import Trainer

    (code,), (text,) = blocks("A network", "python"), blocks("A network", "yaml")
    assert len(code.splitlines()) < 40
    (tmp_path / "my_network.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_network", raising=False)
    values = yaml.safe_load(text)
    assert values["schedule"]["steps"] == 30
    values["data"] = {"stores": {str(make_store(tmp_path / "store")): 1.0}, "workers": 0, "crop_frames": 16}
    values["spectral"] = {"sample_rate": TINY.sample_rate, "n_fft": TINY.n_fft, "hop": TINY.hop}
    values["schedule"] |= {"steps": 2, "precision": "fp32"}
    trainer = Trainer(parse_config(values, "my_network.yaml"), tmp_path / "run", torch.device("cpu"))
    trainer.run()
    weights = tmp_path / "run" / "best.safetensors"
    separator = Separator.load(weights, "cpu", network=values["network"])
    song = 0.1 * torch.randn(2, 20_000, generator=torch.Generator().manual_seed(0))
    stems = separator(song, TINY.sample_rate)
    assert tuple(stems) == ("vocals", "accompaniment") and stems["vocals"].std() > 1e-4
    torch.testing.assert_close(sum(stems.values()), song, atol=1e-6, rtol=0)


def test_another_stft_is_a_config():
    from separation.inference.config import NetworkSettings, parse
    from separation.inference.weights import build_network

    (text,) = blocks("Another STFT", "yaml")
    network = build_network(parse(NetworkSettings, yaml.safe_load(text), ""))
    mixture = torch.randn(1, 2, 1025, 16, dtype=torch.complex64)
    assert network(mixture).shape == (1, 1, 2, 1025, 16)


@pytest.mark.parametrize(("step", "arguments"), re.findall(r"^python (dataset|test)\.py (.*)$", PAGE, re.M))
def test_a_command_on_the_page_lacks_nothing_but_its_songs(tmp_path, monkeypatch, step, arguments):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"{step}.py", *arguments.split()])
    with refused("no_folder"):
        import_module(f"separation.{'scoring' if step == 'test' else step}.command").main()


def test_the_table_names_files_that_are_there():
    named = set(re.findall(r"`((?:models|separation)/[\w/]+\.py)`", PAGE))
    assert len(named) >= 8 and all((REPOSITORY / path).is_file() for path in named)
