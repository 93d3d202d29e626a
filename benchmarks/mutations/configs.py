"""Configs: damaged text, nonsense for values, and all that YAML allows and nobody means."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path

import torch
import yaml

from benchmarks.made_up import make_store, write_config
from benchmarks.mutations.damage import NONSENSE, damage, edit, places
from separation.errors import UserError
from separation.training.config import load_config
from separation.training.trainer import Trainer

ODD = (
    "2001-99-99", "2001-01-01", "!!int x", "!!float x", "!!bool maybe", "!!timestamp x", "!!binary x", "!!set {a, b}",
    "!!python/none ''", "!!omap [a: 1]", "&a [*a]", "*nowhere", "[" * 10_000, "{a: " * 2_000, "0x", "1_0", "1:30:00",
    "~", "'", '"\\x"', "%TAG", "|", ">", "- a", "? b", "<<: 3", "{<<: [1]}", "9" * 5_000, "1e400", "-.inf", ".NaN",
    "\t", "@", "`",
)  # fmt: skip
WHOLE = (
    "[1, 2]",
    "3",
    "---\n---",
    "a: &a [x, x]\n" + "".join(f"b{n}: &b{n} [*a, *a]\n" for n in range(9)),
    "a: [" * 999,
)


class Configs:
    def __init__(self, folder: Path):
        self.output = folder / "runs" / "mine"
        self.text = write_config(folder / "good.yaml", make_store(folder / "store")).read_text(encoding="utf-8")

    def mutate(self, rng: random.Random, case: Path) -> str:
        chance, values = rng.random(), yaml.safe_load(self.text)
        content = self.text.encode()
        if chance < 0.2:
            content, what = damage(rng, content)
        elif chance < 0.6:
            what = edit(rng, values)
            content = yaml.safe_dump(values, allow_unicode=True).encode()
        elif chance < 0.85:
            lines, odd = self.text.splitlines(), rng.choice(ODD)
            number = rng.randrange(len(lines))
            lines[number] = f"{lines[number].partition(':')[0]}: {odd}"
            content, what = "\n".join(lines).encode(), f"{lines[number][:50]}"
        elif chance < 0.95:
            lines = self.text.splitlines()
            number = rng.randrange(len(lines))
            lines.insert(rng.randrange(len(lines)), lines[number])
            content, what = "\n".join(lines).encode(), f"twice: {lines[number]}"
        else:
            what = rng.choice(WHOLE)
            content = what.encode()
        (case / "config.yaml").write_bytes(content)
        override = ".".join(map(str, rng.choice(places(values)))) if values else "seed"
        (case / "overrides").write_text(
            f"{override}={rng.choice([*ODD, *map(repr, NONSENSE)])}" if rng.random() < 0.2 else ""
        )
        return what

    def attempt(self, case: Path) -> None:
        overrides = (case / "overrides").read_text().split("\n")[:1] if (case / "overrides").stat().st_size else []
        try:
            trainer = Trainer(load_config(case / "config.yaml", overrides), self.output, torch.device("cpu"))
        except UserError:
            assert not self.output.exists(), "an empty folder is left behind"
            raise
        for folder in (self.output, self.output.parent):  # which the trainer makes when it first writes there
            with suppress(FileNotFoundError):
                folder.rmdir()
        assert len(trainer.describe().splitlines()) >= 2
        trainer.train_step(trainer.batches[0])
