"""Random crops, remixing and augmentation make training batches.

Batch n of a run depends on the seed and on n alone: a run taken up again sees the batches that it would have seen, and
several processes share a batch out among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from separation.dataset.store import Signal, StoredTrack, shares_of
from separation.errors import UserError
from separation.stems import rest_name
from separation.training.augmentation import random_equaliser
from separation.training.config import Config
from separation.training.draws import Draw, Example, make
from separation.training.pools import Pool, Pools, levelled
from separation.training.waveforms import Clerk, Orders, Waveforms

Batch = dict[str, Tensor]
"""
    sources   complex [batch, sources, 2 channels, bins, frames]: the targets, then the rest if there is one
    labelled     real    [batch, targets]: 1 for the targets that are, 0 for those that may sound in other sources too
    taught       bool    [batch]: whether a teacher says what the sources are
    mixtures  complex [unlabelled batch, 2 channels, bins, frames]
    rests     complex [unlabelled batch, 2 channels, bins, frames]: music of other songs, without the target
    target    [], the index of the target that mixtures and rests are about

The first three are there when there are supervised losses, the others at steps with terms for unlabelled music.
"""


def mixture_of(batch: Batch) -> Tensor:
    """The mixtures of a batch, complex `[batch, 2 channels, bins, frames]`: the labelled ones, if there are any."""
    return batch["sources"].sum(dim=1) if "sources" in batch else batch["mixtures"]


class Batches(Dataset):
    """The batches of a run, by step; or with a clerk the orders for them, which `finished` makes batches of."""

    def __init__(self, config: Config, pools: Pools, rank: int = 0, processes: int = 1, clerk: Clerk | None = None):
        data = config.data
        self.config, self.data, self.pools, self.clerk = config, data, pools, clerk
        self.bins, self.frames = config.used_bins, data.crop_frames
        self.has_rest = rest_name(config.targets) is not None
        self.isolated = _all_filled(pools, self.has_rest)
        self.supervised = config.losses.supervised and (self.isolated or bool(data.taught and len(pools.taught)))
        self.semi_supervised = config.losses.semi_supervised
        self.own = slice(rank, None, processes)
        for key, taken in (("batch_size", self.supervised), ("unlabelled_batch_size", self.semi_supervised)):
            if taken and getattr(data, key) % processes:
                raise UserError(f"data.{key} must be a multiple of the {processes} processes.")
        if self.semi_supervised and not (len(pools.mixtures) and all(len(p) for p in pools.rests_without.values())):
            raise UserError(
                "the losses for unlabelled music need mixtures, and music without each target: "
                "add such songs to data.stores, or set the weights of those losses to 0."
            )
        for target in data.pairs:
            if not (len(pools.targets[target]) and len(pools.rests_without[target])):
                raise UserError(f"data.pairs needs {target}, and music without it: add such songs to data.stores.")
        if data.taught and not len(pools.taught):
            raise UserError(
                "data.taught needs songs that a teacher has labelled: build a store with dataset.py --label."
            )
        if not (self.supervised or self.semi_supervised):
            raise UserError(
                "there is nothing to learn from: the stores hold no labelled song, and no other loss has a weight."
            )
        if not (self.supervised or config.learns_unsupervised_at(0)):
            raise UserError(
                "there is nothing to learn from at the first steps: lower schedule.adversarial_from, "
                "or give another loss a weight."
            )
        if not self.supervised and config.schedule.unlabelled_every > 1:
            raise UserError(
                "without labelled songs schedule.unlabelled_every must be 1: other steps have nothing to learn."
            )

    def __len__(self) -> int:
        return self.config.schedule.steps

    def __getitem__(self, step: int) -> Batch | dict[str, Orders | Tensor]:
        drawn, make_of = self.drawn(step), self.clerk.orders if self.clerk else self._make
        made: dict[str, Orders | Tensor] = {name: make_of(examples) for name, examples in drawn.items()}
        if "sources" in drawn:
            made["labelled"] = torch.tensor([example.labelled for example in drawn["sources"]])
            made["taught"] = torch.tensor([example.taught for example in drawn["sources"]])
        if "music" in drawn:
            made["target"] = torch.tensor(self._target(step))
        return made if self.clerk else self._named(made)

    def finished(self, orders: dict[str, Orders | Tensor], waveforms: Waveforms) -> Batch:
        """The batch of such orders, on the device of the waveforms."""
        device = waveforms.samples.device
        return self._named(
            {
                name: waveforms.make(value, self.frames) if isinstance(value, Orders) else value.to(device)
                for name, value in orders.items()
            }
        )

    def _named(self, made: dict[str, Tensor]) -> Batch:
        music = made.pop("music", None)
        if music is not None:
            made["mixtures"], made["rests"] = music.unbind(dim=1)
        return made

    def _make(self, examples: Sequence[Example]) -> Tensor:
        return make(examples, self.config.spectral, self.bins, self.frames)

    def drawn(self, step: int) -> dict[str, list[Example]]:
        """The examples of a step: `sources`, and `music`, which are pairs of a mixture and a rest."""
        drawn = {}
        if self.supervised:
            rngs = [np.random.default_rng([self.config.seed, step, i]) for i in range(self.data.batch_size)]
            drawn["sources"] = [self._narrowed(rng, self._labelled(rng)) for rng in rngs[self.own]]
        if self.semi_supervised and step % self.config.schedule.unlabelled_every == 0:
            rests = self.pools.rests_without[self.config.targets[self._target(step)]]
            first, last = self.data.batch_size, self.data.batch_size + self.data.unlabelled_batch_size
            rngs = [np.random.default_rng([self.config.seed, step, i]) for i in range(first, last)]
            drawn["music"] = [self._narrowed(rng, self._unlabelled(rng, rests)) for rng in rngs[self.own]]
        return drawn

    def _target(self, step: int) -> int:
        """The index of the target that the unlabelled music of a step is about."""
        return step // self.config.schedule.unlabelled_every % len(self.config.targets)

    def _labelled(self, rng: np.random.Generator) -> Example:
        """One labelled example: a crop of one song, a remix of several, or a target with music that lacks it."""
        chance = rng.random()
        for target, share in self.data.pairs.items():
            if chance < share:
                return self._pair(rng, target)
            chance -= share
        targets = self.config.targets
        if self.data.taught and (rng.random() < self.data.taught or not self.isolated):
            return replace(self._taught(rng), taught=True)
        if not len(self.pools.labelled) or rng.random() < self.data.remix:
            signals = [self.pools.targets[target].draw(rng) for target in targets]
            signals += [self.pools.rests.draw(rng)] if self.has_rest else []
            return self._example(self._remix(rng, signals))
        signals = self._sources_of(self.pools.labelled.draw(rng).track)
        start, (gain, swap) = self._start(rng, signals[0]), self._change(rng)
        # The sources of one song keep their balance.
        return self._example([Draw(signal, start, gain=gain, swap=swap) for signal in signals])

    def _taught(self, rng: np.random.Generator) -> Example:
        """What a teacher heard in one song, with new gains, or in several, and then beside a true rest if there is one.

        The latter is the paper's synthetic mixture.
        """
        if rng.random() < self.data.remix:
            count = len(self.config.targets) + self.has_rest
            signals = [self._sources_of(self.pools.taught.draw(rng).track)[index] for index in range(count)]
            if self.has_rest and len(self.pools.rests):
                signals[-1] = self.pools.rests.draw(rng)
            return self._example(self._remix(rng, signals))
        signals = self._sources_of(self.pools.taught.draw(rng).track)
        start = self._start(rng, signals[0])
        changes = [self._change(rng) for _ in signals]
        pairs = zip(signals, changes, strict=True)
        return self._example([Draw(signal, start, gain=gain, swap=swap) for signal, (gain, swap) in pairs])

    def _pair(self, rng: np.random.Generator, target: str) -> Example:
        """A remix of one target and music that lacks it, and of which nothing else is labelled."""
        index = self.config.targets.index(target)
        draws: list[Draw | None] = [None] * (len(self.config.targets) + self.has_rest)
        signals = [self.pools.targets[target].draw(rng), self.pools.rests_without[target].draw(rng)]
        draws[index], draws[index - 1] = self._remix(rng, signals)
        return self._example(draws, only=index)

    def _sources_of(self, track: StoredTrack) -> list[Signal]:
        """The targets of a song, and the rest if there is one, in balance."""
        return [levelled(signal) for signal in shares_of(track, self.config.targets)]

    def _remix(self, rng: np.random.Generator, signals: Sequence[Signal]) -> list[Draw]:
        """Crops of several songs, each changed on its own."""
        draws = [self._varied(rng, signal) for signal in signals]
        return [replace(draw, gain=draw.gain * (rng.random() >= self.data.mute)) for draw in draws]

    def _example(self, draws: Sequence[Draw | None], only: int | None = None) -> Example:
        """An example of which all targets are labelled, or `only` one."""
        labelled = tuple(float(only in (None, index)) for index in range(len(self.config.targets)))
        return Example(tuple(draws), min(draw.signal.track.bandwidth for draw in draws if draw), labelled)

    def _unlabelled(self, rng: np.random.Generator, rests: Pool) -> Example:
        """A mixture and a rest of another song."""
        mixture, rest = self.pools.mixtures.draw(rng), rests.draw(rng)
        for _ in range(8):  # with one song in both pools there may be no other
            if mixture.track.song != rest.track.song:
                break
            rest = rests.draw(rng)
        return Example((self._varied(rng, mixture), self._varied(rng, rest)))

    def _narrowed(self, rng: np.random.Generator, example: Example) -> Example:
        """The example, or the same in mono."""
        if rng.random() >= self.data.mono:
            return example
        return replace(example, draws=tuple(draw and replace(draw, mono=True) for draw in example.draws))

    def _start(self, rng: np.random.Generator, signal: Signal) -> int:
        spans = signal.spans or ((0, signal.track.frames),)
        starts = np.array([end - first - self.frames + 1 for first, end in spans])
        place = int(rng.integers(starts.sum()))
        number = int(np.searchsorted(starts.cumsum(), place, side="right"))
        return spans[number][0] + place - int(starts[:number].sum())

    def _varied(self, rng: np.random.Generator, signal: Signal) -> Draw:
        """A crop from anywhere in a signal, equalised, and changed."""
        start = self._start(rng, signal)
        equaliser = random_equaliser(rng, self.data.equalise, self.bins) if self.data.equalise else ()
        gain, swap = self._change(rng)
        return Draw(signal, start, equaliser, swap, gain=gain)

    def _change(self, rng: np.random.Generator) -> tuple[float, bool]:
        """A random gain and polarity, and whether left and right change places."""
        gain = rng.uniform(*self.data.gain) * (-1 if rng.random() < self.data.flip else 1)
        return gain, bool(rng.random() < self.data.swap)


def _all_filled(pools: Pools, has_rest: bool) -> bool:
    """Whether every source of a remix has somewhere to come from."""
    return all(len(pool) for pool in pools.targets.values()) and (len(pools.rests) > 0 or not has_rest)
