"""Weights files: damaged bytes, other metadata, other tensors."""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from benchmarks.made_up import SMALL, make_song
from benchmarks.mutations.damage import damage, edit
from separation import Separator
from separation.inference.config import NetworkSettings
from separation.inference.weights import build_network, save_weights

TYPES = (torch.float64, torch.int64, torch.uint8, torch.bool, torch.bfloat16, torch.float8_e5m2)


class Weights:
    def __init__(self, folder: Path):
        self.file = folder / "good.safetensors"
        generator = {"band_layout": ((32, 2), (96, 8)), "widths": (6, 8), "squeeze": 4}
        settings = NetworkSettings(("vocals",), SMALL, generator=generator)
        save_weights(self.file, build_network(settings), settings, {"step": 3, "config": {"seed": 0}}, "MIT")

    def mutate(self, rng: random.Random, case: Path) -> str:
        path = case / "weights.safetensors"
        if rng.random() < 0.4:
            content, what = damage(rng, self.file.read_bytes(), rng.choice([None, 8, 2000]))
            path.write_bytes(content)
            return what
        with safe_open(self.file, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
            metadata = file.metadata()
        what = self._tensors(rng, tensors) if rng.random() < 0.4 else self._metadata(rng, metadata)
        save_file(tensors, path, metadata)
        return what

    def _metadata(self, rng: random.Random, metadata: dict[str, str]) -> str:
        name, chance = rng.choice(sorted(metadata)), rng.random()
        if chance < 0.2:
            del metadata[name]
            return f"without {name}"
        if chance < 0.4:
            metadata[name] = rng.choice(["", "{", "[" * 100_000, "null", "NaN", "1" * 5000, '{"a": ' * 5000, "\\"])
            return f"{name} is {metadata[name]!r:.40}"
        said = json.loads(metadata["network"])
        what = edit(rng, said)
        metadata["network"] = json.dumps(said)
        return what

    def _tensors(self, rng: random.Random, tensors: dict[str, torch.Tensor]) -> str:
        name = rng.choice(sorted(tensors))
        tensor = tensors.pop(name)
        changes = {
            "gone": lambda: None,
            "renamed": lambda: tensors.update({name + "x": tensor}),
            "longer": lambda: tensors.update({name: torch.cat([tensor, tensor])}),
            "flat": lambda: tensors.update({name: tensor.flatten()[:1]}),
            "empty": lambda: tensors.update({name: tensor[:0]}),
            "no numbers": lambda: tensors.update({name: tensor * torch.nan}),
            "huge": lambda: tensors.update({name: tensor * 0 + 60_000}),
            "more": lambda: tensors.update({name: tensor, "more": torch.zeros(3)}),
            "typed": lambda: tensors.update({name: tensor.to(rng.choice(TYPES))}),
        }
        what = rng.choice(sorted(changes))
        changes[what]()
        return f"{name}: {what}"

    def attempt(self, case: Path) -> None:
        song = sum(make_song(0).values())
        stems = Separator.load(case / "weights.safetensors", "cpu")(song, 8000)
        assert all(bool(stem.isfinite().all()) for stem in stems.values())
        torch.testing.assert_close(sum(stems.values()), song, atol=1e-4, rtol=0)
