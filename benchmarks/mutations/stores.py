"""Stores of spectrograms: damaged and missing files, and descriptions that say nonsense."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
from pathlib import Path

import numpy as np
import torch

from benchmarks.made_up import SMALL, make_store, write_config
from benchmarks.mutations.damage import damage, edit
from separation.dataset.build import plan_store
from separation.errors import UserError
from separation.training.config import load_config
from separation.training.trainer import Trainer

ARRAYS = {
    "fewer frames": lambda array: array[:-1],
    "no frames": lambda array: array[:0],
    "fewer bins": lambda array: array[:, :, :-1],
    "three channels": lambda array: np.concatenate([array, array[:, :1]], axis=1),
    "float32": lambda array: array.astype(np.float32),
    "integers": lambda array: array.astype(np.int16),
    "flat": lambda array: array.ravel(),
    "in Fortran's order": np.asfortranarray,
    "no numbers": lambda array: array * np.float16("nan"),
    "objects": lambda array: np.array([{"a": 1}]),
}


class Stores:
    def __init__(self, folder: Path):
        self.folder = folder
        self.good = make_store(folder / "good")

    def mutate(self, rng: random.Random, case: Path) -> str:
        store, chance = case / "store", rng.random()
        shutil.copytree(self.good, store)
        path = rng.choice(sorted(path for path in store.rglob("*") if path.is_file()))
        name = path.relative_to(store)
        if chance < 0.1:
            path.unlink()
            return f"{name} is gone"
        if chance < 0.15:
            shutil.rmtree(path.parent)
            return f"{name.parent} is gone"
        if chance < 0.2:
            path.unlink()
            path.mkdir()
            return f"{name} is a folder"
        if chance < 0.45 or (path.suffix == ".npy" and chance < 0.6):
            content, what = damage(rng, path.read_bytes(), rng.choice([None, 128]))
            path.write_bytes(content)
            return f"{name}: {what}"
        if path.suffix == ".npy":
            what = rng.choice(sorted(ARRAYS))
            np.save(path, ARRAYS[what](np.load(path)))
            return f"{name}: {what}"
        values = json.loads(path.read_text(encoding="utf-8"))
        what = edit(rng, values)
        path.write_text(json.dumps(values), encoding="utf-8")
        return f"{name}: {what}"

    def attempt(self, case: Path) -> None:
        """dataset.py looks at it, and train.py trains on it."""
        with contextlib.suppress(UserError):  # training must tell as well
            plan_store(case / "store", SMALL, [], ["vocals"], root=case)
        config = load_config(write_config(self.folder / "config.yaml", case / "store"))
        trainer = Trainer(config, self.folder / "run", torch.device("cpu"))
        try:
            trainer.run()
        finally:
            shutil.rmtree(self.folder / "run")
