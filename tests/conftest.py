"""What the tests share: files of made-up songs, real music where it is there, and scripts run as a user runs them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from music import make_song
from torch import Tensor

from separation.errors import UserError
from separation.stems import STEMS

REPOSITORY = Path(__file__).resolve().parents[1]
MUSIC = REPOSITORY.parent / "shared" / "data"

if "PYTEST_XDIST_WORKER" in os.environ:  # tests run side by side: a thread each
    torch.set_num_threads(1)


def make_stems(seed: int = 0, seconds: float = 2.0, sample_rate: int = 44100) -> dict[str, Tensor]:
    """The four stems `[2 channels, samples]` of a made-up song."""
    song = make_song(seed, seconds, sample_rate)
    return {stem: song[stem] for stem in STEMS}


def write_files(folder: Path, signals: Mapping[str, Tensor], sample_rate: int = 44100, suffix: str = ".wav") -> Path:
    """Write one file for each of `signals`, `[channels, samples]`, called after its key, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, waveform in signals.items():
        subtype = "FLOAT" if suffix == ".wav" else None  # the sum of the stems may go beyond full scale
        soundfile.write(folder / f"{name}{suffix}", waveform.T.numpy(), sample_rate, subtype)
    return folder


def refused(code: str) -> Any:
    """A block that must raise a `UserError` with this code, in one line."""
    return pytest.raises(UserError, check=lambda error: error.code == code and "\n" not in str(error))


@pytest.fixture
def song() -> dict[str, Tensor]:
    """The stems of one made-up song of 2 seconds."""
    return make_stems()


@pytest.fixture
def write(tmp_path) -> Callable[..., Path]:
    """Write a text to a file, `my.yaml` unless it is named."""

    def write_text(text: str, name: str = "my.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write_text


@pytest.fixture(scope="session")
def real_musdb() -> Path:
    """MUSDB18's 7-second sample; the test is skipped where it is not there."""
    if not (MUSIC / "musdb18-7s").is_dir():
        pytest.skip("the real music is not there")
    return MUSIC / "musdb18-7s"


def environment() -> dict[str, str]:
    """The environment that scripts run in: a thread each, for tests may share the machine."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def _hear_signals() -> None:
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


hear_signals = _hear_signals if os.name == "posix" else None
"""For `preexec_fn`: a script hears signals even where the tests themselves run in the background, deaf to them."""


@pytest.fixture(scope="session")
def run() -> Callable[..., subprocess.CompletedProcess]:
    """Run a script of the repository as a user does, `run("dataset.py", "--vocals")`, and capture what it says."""

    def run_script(*arguments: str | Path) -> subprocess.CompletedProcess:
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(command, cwd=REPOSITORY, env=environment(), capture_output=True, text=True, check=False)

    return run_script


BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@pytest.fixture(scope="module")
def browser():
    """Chromium or Chrome, without a window."""
    playwright = pytest.importorskip("playwright.sync_api")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        missing = "neither Chromium nor Chrome is installed"
        pytest.fail(missing) if "CI" in os.environ else pytest.skip(missing)
    options = ["--no-sandbox", "--disable-gpu", "--mute-audio", "--disable-background-networking"]
    options.append("--autoplay-policy=no-user-gesture-required")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=options)
        yield browser
        browser.close()


SLOW_FIXTURES = {"run", "browser", "real_musdb"}
"""Tests that ask for these start processes or a browser, or separate real music."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if SLOW_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
