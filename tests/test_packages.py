"""The table of the packages in docs/architecture.md, read from the imports themselves."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from conftest import REPOSITORY

GROUND = "ground"
MAY_IMPORT = {
    "models": set(),
    GROUND: set(),
    "audio": {GROUND},
    "inference": {"audio", "models", GROUND},
    "dataset": {"inference", "audio", GROUND},
    "training": {"dataset", "inference", "models", "audio", GROUND},
    "scoring": {"dataset", "inference", "audio", GROUND},
    "songs": {"inference", "audio", GROUND},
    "apps": {"songs", "inference", "models", "audio", GROUND},
}
SCRIPTS = ("dataset.py", "train.py", "test.py", "create_songs.py", "app.py")
LONGEST_SCRIPT = 120


def package_of(module: str) -> str | None:
    """The package that a module belongs to: `separation.audio.io` to `audio`; None for those of other projects."""
    top, *inner = module.split(".")
    if top != "separation":
        return None
    return inner[0] if inner and inner[0] in MAY_IMPORT else GROUND


def imported(path: Path) -> set[str]:
    """The modules that a file imports anywhere in it, by their full names."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def modules() -> list[Path]:
    files = [path for folder in ("separation", "models") for path in (REPOSITORY / folder).rglob("*.py")]
    entrances = {REPOSITORY / "separation" / name for name in ("__init__.py", "__main__.py")}
    return sorted(path for path in files if path not in entrances)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_a_module_imports_what_its_package_may(path):
    place = path.relative_to(REPOSITORY).with_suffix("").parts
    own = "models" if place[0] == "models" else package_of(".".join(place))
    found = {package_of(name) for name in imported(path)} - {None, own}
    assert found <= MAY_IMPORT[own]
    if own == "scoring":  # of the datasets it needs the layouts alone
        assert {name for name in imported(path) if package_of(name) == "dataset" and ".layouts" not in name} == set()


@pytest.mark.parametrize("path", [*modules(), *REPOSITORY.glob("*.py")], ids=lambda path: path.name)
def test_nothing_imports_a_script(path):
    assert not {name.partition(".")[0] for name in imported(path)} & {Path(script).stem for script in SCRIPTS}


@pytest.mark.parametrize("path", [*REPOSITORY.glob("*.py")], ids=lambda path: path.name)
def test_scripts_are_thin(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_SCRIPT


def test_networks_need_torch_alone():
    for path in (REPOSITORY / "models").glob("*.py"):
        tops = {name.partition(".")[0] for name in imported(path)}
        assert tops <= {"__future__", "collections", "functools", "itertools", "torch", "typing"}
