"""Random crops, remixing and augmentation make training batches.

Batch n of a run depends on the seed and on n alone: a run taken up again sees the batches that it would have seen, and
several processes share a batch out among them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from separation.dataset.signals import Signal, rest_of, target_of
from separation.errors import UserError
from separation.stems import rest_name
from separation.training.augmentation import equalised, transposed
from separation.training.config import Config
from separation.training.pools import Pools, levelled

Batch = dict[str, Tensor]
"""
    sources   complex [batch, sources, 2 channels, bins, frames]: the targets, then the rest if there is one
    labelled     real    [batch, targets]: 1 for the targets that are, 0 for those that may sound in other sources too
    mixtures  complex [unlabelled batch, 2 channels, bins, frames]
    rests     complex [unlabelled batch, 2 channels, bins, frames]: music of other songs, without the target
    target    [], the index of the target that mixtures and rests are about

The first two are there when there are supervised losses, the others at steps with terms for unlabelled music.
"""


class Batches(Dataset):
    """The batches of a run, by step."""

    def __init__(self, config: Config, pools: Pools, rank: int = 0, processes: int = 1):
        data = config.data
        self.config, self.data, self.pools = config, data, pools
        self.bins, self.frames = config.generator.bins, data.crop_frames
        self.has_rest = rest_name(config.targets) is not None
        self.supervised = config.losses.supervised and _all_filled(pools, self.has_rest)
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
        if empty := [target for target in data.pairs if not len(pools.rests_without[target])]:
            raise UserError(f"data.pairs needs music without {empty[0]}: add such songs to data.stores.")
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
                "there is nothing to learn from at the first steps: lower schedule.adversarial_from or "
                "schedule.teacher_from, or give another loss a weight."
            )
        if not self.supervised and config.schedule.unlabelled_every > 1:
            raise UserError(
                "without labelled songs schedule.unlabelled_every must be 1: other steps have nothing to learn."
            )

    def __len__(self) -> int:
        return self.config.schedule.steps

    def __getitem__(self, step: int) -> Batch:
        batch: Batch = {}
        if self.supervised:
            rngs = [np.random.default_rng([self.config.seed, step, i]) for i in range(self.data.batch_size)]
            examples = [self._labelled(rng) for rng in rngs[self.own]]
            batch["sources"], batch["labelled"] = (torch.stack(parts) for parts in zip(*examples, strict=True))
        if self.semi_supervised and step % self.config.schedule.unlabelled_every == 0:
            target = step // self.config.schedule.unlabelled_every % len(self.config.targets)
            rests = self.pools.rests_without[self.config.targets[target]]
            first, last = self.data.batch_size, self.data.batch_size + self.data.unlabelled_batch_size
            rngs = [np.random.default_rng([self.config.seed, step, i]) for i in range(first, last)]
            pairs = [self._unlabelled(rng, rests) for rng in rngs[self.own]]
            batch["mixtures"], batch["rests"] = (torch.stack(signals) for signals in zip(*pairs, strict=True))
            batch["target"] = torch.tensor(target)
        return batch

    def _labelled(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """One labelled example: a crop of one song, a remix of several, or a target with music that lacks it."""
        chance = rng.random()
        for target, share in self.data.pairs.items():
            if chance < share:
                return self._pair(rng, target)
            chance -= share
        targets = self.config.targets
        if self.data.taught and rng.random() < self.data.taught:
            return self._taught(rng), torch.ones(len(targets))
        if not len(self.pools.labelled) or rng.random() < self.data.remix:
            signals = [self.pools.targets[target].draw(rng) for target in targets]
            signals += [self.pools.rests.draw(rng)] if self.has_rest else []
            sources = self._remix(rng, signals)
        else:
            track = self.pools.labelled.draw(rng).track
            whole = [target_of(track, target) for target in targets]
            whole += [rest_of(track, targets)] if self.has_rest else []
            signals = [levelled(signal) for signal in whole]
            start, ratio = self._start(rng, signals[0]), self._ratio(rng)
            crops = [self._crop(signal, start, ratio) for signal in signals]
            # The sources of one song keep their balance.
            sources = self._limit(self._augment(rng, torch.stack(crops)), [track.bandwidth * ratio])
        return sources, torch.ones(len(targets))

    def _taught(self, rng: np.random.Generator) -> Tensor:
        """What a teacher heard in one song, with new gains, or in several."""
        count, targets = len(self.config.targets) + self.has_rest, self.config.targets
        several = rng.random() < self.data.remix
        tracks = [self.pools.taught.draw(rng).track for _ in range(count if several else 1)]
        tracks *= 1 if several else count
        signals = [target_of(track, target) for track, target in zip(tracks, targets, strict=False)]
        signals += [rest_of(tracks[-1], targets)] if self.has_rest else []
        signals = [levelled(signal) for signal in signals]
        if several:
            return self._remix(rng, signals)
        start, ratio = self._start(rng, signals[0]), self._ratio(rng)
        crops = [self._augment(rng, self._crop(signal, start, ratio)) for signal in signals]
        return self._limit(torch.stack(crops), [tracks[0].bandwidth * ratio])

    def _pair(self, rng: np.random.Generator, target: str) -> tuple[Tensor, Tensor]:
        """A remix of one target and music that lacks it, and of which nothing else is labelled."""
        index = self.config.targets.index(target)
        labelled = torch.zeros(len(self.config.targets))
        labelled[index] = 1
        remix = self._remix(rng, [self.pools.targets[target].draw(rng), self.pools.rests_without[target].draw(rng)])
        sources = remix.new_zeros(len(labelled) + self.has_rest, *remix.shape[1:])
        sources[index], sources[index - 1] = remix
        return sources, labelled

    def _remix(self, rng: np.random.Generator, signals: Sequence[Signal]) -> Tensor:
        """Crops of several songs, each augmented on its own: `[signals, 2 channels, bins, frames]`."""
        crops, bandwidths = zip(*(self._varied(rng, signal) for signal in signals), strict=True)
        crops = [self._augment(rng, crop) * (rng.random() >= self.data.mute) for crop in crops]
        return self._limit(torch.stack(crops), bandwidths)

    def _limit(self, sources: Tensor, bandwidths: Sequence[float]) -> Tensor:
        """Silence above what all of the sources can hold, where a missing sound is no sign of a missing source."""
        spectral, bandwidth = self.config.spectral, min(bandwidths)
        if bandwidth < spectral.sample_rate / 2:
            sources[..., spectral.bin_of(0.95 * bandwidth) :, :] = 0
        return sources

    def _unlabelled(self, rng: np.random.Generator, rests) -> tuple[Tensor, Tensor]:
        """A mixture and a rest of another song."""
        mixture, rest = self.pools.mixtures.draw(rng), rests.draw(rng)
        for _ in range(8):  # with one song in both pools there may be no other
            if mixture.track.song != rest.track.song:
                break
            rest = rests.draw(rng)
        (first, _), (second, _) = (self._varied(rng, signal) for signal in (mixture, rest))
        return self._augment(rng, first), self._augment(rng, second)

    def _start(self, rng: np.random.Generator, signal: Signal) -> int:
        spans = signal.spans or ((0, signal.track.frames),)
        starts = np.array([end - first - self.frames + 1 for first, end in spans])
        place = int(rng.integers(starts.sum()))
        number = int(np.searchsorted(starts.cumsum(), place, side="right"))
        return spans[number][0] + place - int(starts[:number].sum())

    def _ratio(self, rng: np.random.Generator) -> float:
        """What to multiply frequencies with, to transpose a source."""
        semitones = self.data.transpose
        return 2 ** (rng.uniform(-semitones, semitones) / 12) if semitones else 1.0

    def _crop(self, signal: Signal, start: int, ratio: float) -> Tensor:
        if ratio == 1:
            return signal.crop(start, self.frames, self.bins)
        bins = min(math.ceil(self.bins / ratio) + 1, self.config.spectral.bins)
        return transposed(signal.crop(start, self.frames, bins), ratio, self.bins)

    def _varied(self, rng: np.random.Generator, signal: Signal) -> tuple[Tensor, float]:
        """A crop from anywhere in a signal, transposed and equalised; and up to where it has sound, in hertz."""
        start, ratio = self._start(rng, signal), self._ratio(rng)
        crop = self._crop(signal, start, ratio)
        crop = equalised(crop, rng, self.data.equalise) if self.data.equalise else crop
        return crop, signal.track.bandwidth * ratio

    def _augment(self, rng: np.random.Generator, crop: Tensor) -> Tensor:
        """Random level, polarity, and left and right swapped: `[..., 2 channels, bins, frames]`."""
        gain = rng.uniform(*self.data.gain) * (-1 if rng.random() < self.data.flip else 1)
        if rng.random() < self.data.swap:
            crop = crop.flip(-3)
        return crop * gain


def _all_filled(pools: Pools, has_rest: bool) -> bool:
    """Whether every source of a remix has somewhere to come from."""
    return all(len(pool) for pool in pools.targets.values()) and (len(pools.rests) > 0 or not has_rest)


def load(batches: Batches, first: int) -> Iterator[Batch]:
    """The batches from step `first` on, made ahead of time by worker processes.

    Raises `UserError` when music cannot be read any more, or a worker process is killed.
    """
    workers = batches.data.workers
    loader = DataLoader(
        _Told(batches),
        batch_size=None,
        sampler=range(first, len(batches)),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_one_thread,
        pin_memory=torch.cuda.is_available(),
    )
    try:
        for batch in loader:
            if isinstance(batch, UserError):
                raise batch
            yield batch
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            "a process that makes batches was killed, perhaps for want of memory: lower data.workers or "
            "data.batch_size, and go on with --resume."
        ) from error


class _Told(Dataset):
    """The same batches, with an error for the user in place of one that cannot be made: no trace of a worker's."""

    def __init__(self, batches: Batches):
        self.batches = batches

    def __getitem__(self, step: int) -> Batch | UserError:
        try:
            return self.batches[step]
        except UserError as error:
            return error


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)  # the cores belong to the network
