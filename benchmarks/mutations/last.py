"""The state of a training run, `last.pt`: damaged bytes, parts that are missing, and nonsense for values."""

from __future__ import annotations

import contextlib
import random
import shutil
from pathlib import Path
from typing import Any

import torch

from benchmarks.made_up import make_store, write_config
from benchmarks.mutations.damage import NONSENSE, damage, places
from separation.training.checkpoints import load_state, save_state
from separation.training.config import load_config
from separation.training.trainer import Trainer


class Last:
    def __init__(self, folder: Path):
        """A run of two steps that was stopped after the first, and the weights that it ends with undisturbed."""
        self.folder = folder
        path = write_config(folder / "config.yaml", make_store(folder / "store"), checkpoint_every=1, validate_every=1)
        self.config = load_config(path)
        trainer = Trainer(self.config, folder / "good", torch.device("cpu"))
        step = trainer.train_step

        def stopped(batch: dict) -> dict[str, float]:
            if trainer.step == 1:
                raise KeyboardInterrupt
            return step(batch)

        trainer.train_step = stopped
        with contextlib.suppress(KeyboardInterrupt):
            trainer.run()
        shutil.copytree(folder / "good", folder / "whole")
        self.expected = self._finish(folder / "whole")

    def _finish(self, output: Path) -> dict[str, torch.Tensor]:
        Trainer(self.config, output, torch.device("cpu"), resume=True).run()
        return load_state(output / "last.pt")["network"]

    def mutate(self, rng: random.Random, case: Path) -> str:
        path = case / "last.pt"
        if rng.random() < 0.5:
            content, what = damage(rng, (self.folder / "good" / "last.pt").read_bytes())
            path.write_bytes(content)
            return what
        state = load_state(self.folder / "good" / "last.pt")
        *way, last = rng.choice(places(state))
        inner: Any = state
        for key in way:
            inner = inner[key]
        name, chance = ".".join(map(str, (*way, last))), rng.random()
        if chance < 0.3:
            del inner[last]
            what = f"without {name}"
        elif chance < 0.6 and isinstance(inner[last], torch.Tensor):
            inner[last] = rng.choice([inner[last][..., None], inner[last] * torch.nan, inner[last].flatten()[:1]])
            what = f"{name} is another tensor"
        else:
            inner[last] = rng.choice(NONSENSE)
            what = f"{name} is {inner[last]!r:.60}"
        save_state(path, state) if rng.random() < 0.5 else torch.save(state, path)
        return f"edited: {what}"

    def attempt(self, case: Path) -> None:
        """Take the run up again. Where it is not refused, it ends as it would have, unless the state was edited."""
        output, good = self.folder / "run", (self.folder / "good" / "last.pt").read_bytes()
        shutil.rmtree(output, ignore_errors=True)
        shutil.copytree(self.folder / "good", output)
        shutil.copy(case / "last.pt", output)
        network = self._finish(output)
        if len((case / "last.pt").read_bytes()) == len(good):
            for name, tensor in self.expected.items():
                assert torch.equal(network[name], tensor), f"{name} is another, and nothing was said"
