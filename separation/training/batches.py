"""Training batches: random crops, remixed and augmented.

Batch n depends only on the seed and on n. A resumed run therefore sees the batches that it would have seen anyway, and
several processes can share one batch.
"""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from separation.audio.stft import SpectralSettings
from separation.dataset.store import Signal, StoredTrack, shares_of
from separation.errors import UserError
from separation.runtime import signals_blocked
from separation.stems import rest_name
from separation.training.config import Config
from separation.training.sources import SourcePool, SourcePools, levelled

Batch = dict[str, Tensor]
"""
    sources          complex [batch, sources, 2 channels, bins, frames]: the targets, then the rest if there is one
    labelled         real [batch, targets]: 1 if the source is all of the target, 0 if others may hold some of it
    pseudo_labelled  boolean [batch]: whether the sources are pseudo-labels
    mixtures         complex [unlabelled batch, 2 channels, bins, frames]
    rests            complex [unlabelled batch, 2 channels, bins, frames]: music of other songs, without the target
    target           integer []: the index of the target that mixtures and rests are for

The first three are present in runs with supervised terms, the others at steps with terms for unlabelled music.
"""

AHEAD = 4
"""Batches that each worker process prefetches."""

SHARED_MEMORY = "/dev/shm"
"""Where Linux mounts the memory that processes share."""


@dataclass(frozen=True)
class Draw:
    """A crop of a signal from frame `start`, with its augmentations in the order they are applied.

    `equaliser` holds gains in dB at octave points, or is empty. `swap` exchanges left and right; `mono` replaces both
    by their mean. `gain` is a linear factor: negative inverts the polarity, 0 mutes.
    """

    signal: Signal
    start: int
    equaliser: tuple[float, ...] = ()
    swap: bool = False
    mono: bool = False
    gain: float = 1.0


@dataclass(frozen=True)
class Example:
    """The sources of one example, with None for silence. All are silenced above `bandwidth`, in hertz.

    `labelled` has a value per target: 1 if its source is all of the target, 0 if other sources may hold some of it.
    """

    draws: tuple[Draw | None, ...]
    bandwidth: float = math.inf
    labelled: tuple[float, ...] = ()
    pseudo_labelled: bool = False

    def limit(self, settings: SpectralSettings) -> int:
        """First of the bins silenced in all sources: missing treble must not hint at a missing source."""
        if self.bandwidth >= settings.sample_rate / 2:
            return settings.bins
        return settings.bin_of(0.95 * self.bandwidth)


def equaliser_factors(gains: Sequence[float], bins: int) -> Tensor:
    """Smooth equaliser, float32 `[bins]`: octave gains in dB, interpolated linearly over log frequency."""
    octaves = np.log2(1 + np.arange(bins))
    return torch.from_numpy(10 ** (np.interp(octaves, np.arange(len(gains)), gains) / 20)).float()


def read_examples(examples: Sequence[Example], settings: SpectralSettings, bins: int, frames: int) -> Tensor:
    """Read the sources of examples from their stores: complex `[examples, sources, 2 channels, bins, frames]`."""
    batch = torch.zeros(len(examples), len(examples[0].draws), 2, bins, frames, dtype=torch.complex64)
    for sources, example in zip(batch, examples, strict=True):
        for source, draw in zip(sources, example.draws, strict=True):
            if draw and draw.gain:
                source.copy_(_read_crop(draw, bins, frames))
        sources[..., example.limit(settings) :, :] = 0
    return batch


def _read_crop(draw: Draw, bins: int, frames: int) -> Tensor:
    crop = draw.signal.crop(draw.start, frames, bins)
    if draw.equaliser:
        crop = crop * equaliser_factors(draw.equaliser, bins)[:, None]
    if draw.swap:
        crop = crop.flip(0)
    if draw.mono:
        crop = crop.mean(0, keepdim=True).expand_as(crop)
    return crop * draw.gain


def assemble(parts: Mapping[str, Tensor]) -> Batch:
    """Build a batch from its drawn parts, splitting the pairs in `music` into mixtures and rests."""
    batch = dict(parts)
    if "music" in batch:
        batch["mixtures"], batch["rests"] = batch.pop("music").unbind(dim=1)
    return batch


def mixtures_in(batch: Batch) -> Tensor:
    """Mixtures of a batch, complex `[batch, 2 channels, bins, frames]`: the labelled ones, if it has any."""
    return batch["sources"].sum(dim=1) if "sources" in batch else batch["mixtures"]


class Batches(Dataset):
    """The batches of a run, indexed by step. With a `plan` function, its plans of the examples instead.

    Raises `UserError` when the pools lack what the losses need.
    """

    def __init__(
        self,
        config: Config,
        pools: SourcePools,
        rank: int = 0,
        processes: int = 1,
        plan: Callable[[Sequence[Example]], Any] | None = None,
    ):
        self.config, self.data, self.pools, self.plan = config, config.data, pools, plan
        self.bins, self.frames = config.used_bins, config.data.crop_frames
        self.has_rest = rest_name(config.targets) is not None
        self.own = slice(rank, None, processes)
        # Whether the pools offer every source of a remix.
        self.isolated = all(map(len, pools.targets.values())) and (len(pools.rests) > 0 or not self.has_rest)
        pseudo_labelled = self.data.pseudo_labelled > 0 and len(pools.pseudo_labelled) > 0
        self.supervised = config.losses.supervised and (self.isolated or pseudo_labelled)
        self._check(processes)

    def _check(self, processes: int) -> None:
        data, pools, unlabelled = self.data, self.pools, self.config.losses.unlabelled
        for key, taken in (("batch_size", self.supervised), ("unlabelled_batch_size", unlabelled)):
            if taken and getattr(data, key) % processes:
                raise UserError(f"data.{key} must be a multiple of the {processes} processes.", code="bad_config")
        complaint = ""
        if unlabelled and not (len(pools.mixtures) and all(map(len, pools.rests_without.values()))):
            complaint = (
                "the losses for unlabelled music need mixtures, and music without each target: "
                "add such songs to data.stores, or set the weights of those losses to 0."
            )
        for target in data.pairs:
            if not (len(pools.targets[target]) and len(pools.rests_without[target])):
                complaint = f"data.pairs needs {target}, and music without it: add such songs to data.stores."
        if data.pseudo_labelled and not len(pools.pseudo_labelled):
            complaint = "data.pseudo_labelled needs songs with pseudo-labels: build a store with dataset.py --label."
        if not (self.supervised or unlabelled):
            complaint = (
                "there is nothing to learn from: the stores hold no labelled song, and no other loss has a weight."
            )
        elif not (self.supervised or self.config.learns_unlabelled_at(0)):
            complaint = (
                "there is nothing to learn from at the first steps: lower schedule.adversarial_from, "
                "or give another loss a weight."
            )
        elif not self.supervised and self.config.schedule.unlabelled_every > 1:
            complaint = (
                "without labelled songs schedule.unlabelled_every must be 1: other steps have nothing to learn from."
            )
        if complaint:
            raise UserError(complaint, code="nothing_to_learn")

    def __len__(self) -> int:
        return self.config.schedule.steps

    def __getitem__(self, step: int) -> Any:
        drawn = self.draw(step)
        parts = {name: (self.plan or self._read)(examples) for name, examples in drawn.items()}
        if "sources" in drawn:
            parts["labelled"] = torch.tensor([example.labelled for example in drawn["sources"]])
            parts["pseudo_labelled"] = torch.tensor([example.pseudo_labelled for example in drawn["sources"]])
        if "music" in drawn:
            parts["target"] = torch.tensor(self._target(step))
        return parts if self.plan else assemble(parts)

    def _read(self, examples: Sequence[Example]) -> Tensor:
        return read_examples(examples, self.config.spectral, self.bins, self.frames)

    def draw(self, step: int) -> dict[str, list[Example]]:
        """This process's examples for a step: `sources`, and `music` as pairs of a mixture and a rest."""
        drawn = {}
        first, last = self.data.batch_size, self.data.batch_size + self.data.unlabelled_batch_size
        if self.supervised:
            rngs = [np.random.default_rng([self.config.seed, step, i]) for i in range(first)]
            drawn["sources"] = [self._narrowed(rng, self._labelled(rng)) for rng in rngs[self.own]]
        if self.config.losses.unlabelled and step % self.config.schedule.unlabelled_every == 0:
            rests = self.pools.rests_without[self.config.targets[self._target(step)]]
            rngs = [np.random.default_rng([self.config.seed, step, i]) for i in range(first, last)]
            drawn["music"] = [self._narrowed(rng, self._unlabelled(rng, rests)) for rng in rngs[self.own]]
        return drawn

    def _target(self, step: int) -> int:
        """Index of the target that the unlabelled music of a step trains."""
        return step // self.config.schedule.unlabelled_every % len(self.config.targets)

    def _labelled(self, rng: np.random.Generator) -> Example:
        """One supervised example: one song, a remix of several, a target with music that lacks it, or pseudo-labels."""
        chance = rng.random()
        for target, share in self.data.pairs.items():
            if chance < share:
                return self._pair(rng, target)
            chance -= share
        if self.data.pseudo_labelled and (rng.random() < self.data.pseudo_labelled or not self.isolated):
            return replace(self._pseudo_labelled(rng), pseudo_labelled=True)
        if not len(self.pools.whole) or rng.random() < self.data.remix:
            signals = [self.pools.targets[target].draw(rng) for target in self.config.targets]
            signals += [self.pools.rests.draw(rng)] if self.has_rest else []
            return self._example(self._remix(rng, signals))
        signals = self._sources_of(self.pools.whole.draw(rng).track)
        start, (gain, swap) = self._start(rng, signals[0]), self._change(rng)
        # One gain and swap for all sources keeps the song's balance.
        return self._example([Draw(signal, start, gain=gain, swap=swap) for signal in signals])

    def _pseudo_labelled(self, rng: np.random.Generator) -> Example:
        """Estimates from one song with new gains, or remixed from several songs, with a true rest if there is one.

        The remix is the paper's synthetic mixture.
        """
        if rng.random() < self.data.remix:
            count = len(self.config.targets) + self.has_rest
            signals = [self._sources_of(self.pools.pseudo_labelled.draw(rng).track)[index] for index in range(count)]
            if self.has_rest and len(self.pools.rests):
                signals[-1] = self.pools.rests.draw(rng)
            return self._example(self._remix(rng, signals))
        signals = self._sources_of(self.pools.pseudo_labelled.draw(rng).track)
        start = self._start(rng, signals[0])
        changes = [self._change(rng) for _ in signals]
        pairs = zip(signals, changes, strict=True)
        return self._example([Draw(signal, start, gain=gain, swap=swap) for signal, (gain, swap) in pairs])

    def _pair(self, rng: np.random.Generator, target: str) -> Example:
        """A remix of one target with music that lacks it. Only this target is labelled."""
        index = self.config.targets.index(target)
        draws: list[Draw | None] = [None] * (len(self.config.targets) + self.has_rest)
        signals = [self.pools.targets[target].draw(rng), self.pools.rests_without[target].draw(rng)]
        draws[index], draws[index - 1] = self._remix(rng, signals)
        return self._example(draws, only=index)

    def _unlabelled(self, rng: np.random.Generator, rests: SourcePool) -> Example:
        """A mixture, and a rest from another song."""
        mixture, rest = self.pools.mixtures.draw(rng), rests.draw(rng)
        for _ in range(8):  # both pools may hold the same single song
            if mixture.track.song != rest.track.song:
                break
            rest = rests.draw(rng)
        return Example((self._augmented(rng, mixture), self._augmented(rng, rest)))

    def _sources_of(self, track: StoredTrack) -> list[Signal]:
        """The targets of a song, and its rest if there is one, at their original balance."""
        return [levelled(signal) for signal in shares_of(track, self.config.targets)]

    def _remix(self, rng: np.random.Generator, signals: Sequence[Signal]) -> list[Draw]:
        """Crops of several songs, each augmented independently."""
        draws = [self._augmented(rng, signal) for signal in signals]
        return [replace(draw, gain=draw.gain * (rng.random() >= self.data.mute)) for draw in draws]

    def _example(self, draws: Sequence[Draw | None], only: int | None = None) -> Example:
        """An example with all targets labelled, or `only` one."""
        labelled = tuple(float(only in (None, index)) for index in range(len(self.config.targets)))
        return Example(tuple(draws), min(draw.signal.track.bandwidth for draw in draws if draw), labelled)

    def _narrowed(self, rng: np.random.Generator, example: Example) -> Example:
        """Make the example mono at random."""
        if rng.random() >= self.data.mono:
            return example
        return replace(example, draws=tuple(draw and replace(draw, mono=True) for draw in example.draws))

    def _start(self, rng: np.random.Generator, signal: Signal) -> int:
        """Draw the first frame of a crop uniformly from the signal's spans."""
        spans = signal.spans or ((0, signal.track.frames),)
        starts = np.array([end - first - self.frames + 1 for first, end in spans])
        place = int(rng.integers(starts.sum()))
        number = int(np.searchsorted(starts.cumsum(), place, side="right"))
        return spans[number][0] + place - int(starts[:number].sum())

    def _augmented(self, rng: np.random.Generator, signal: Signal) -> Draw:
        """A random crop of a signal, with random equaliser, gain, polarity and channel swap."""
        start, decibels, equaliser = self._start(rng, signal), self.data.equalise, ()
        if decibels:
            equaliser = tuple(rng.uniform(-decibels, decibels, int(np.log2(self.bins)) + 2).tolist())
        gain, swap = self._change(rng)
        return Draw(signal, start, equaliser, swap, gain=gain)

    def _change(self, rng: np.random.Generator) -> tuple[float, bool]:
        """Draw a gain with its polarity, and whether to swap left and right."""
        gain = rng.uniform(*self.data.gain) * (-1 if rng.random() < self.data.flip else 1)
        return gain, bool(rng.random() < self.data.swap)


def load(
    batches: Batches, first: int, device: torch.device, finish: Callable[[Any], Batch] | None = None
) -> Generator[Batch, None, None]:
    """Yield the batches from step `first` on, moved to `device` and prefetched by worker processes.

    `finish` turns the workers' plans into batches. Raises `UserError` when music cannot be read.
    """
    workers = batches.data.workers
    loader = DataLoader(
        _Reporting(batches, workers > 0 and not batches.plan and _is_shared_memory_small(batches)),
        batch_size=None,
        collate_fn=_unchanged,  # the default would turn arrays into tensors, which take shared memory
        sampler=range(first, len(batches)),
        num_workers=workers,
        prefetch_factor=AHEAD if workers else None,
        worker_init_fn=_prepare_worker,
        pin_memory=torch.cuda.is_available(),
    )
    with signals_blocked():  # workers inherit the mask, so only the main process decides when to stop
        iterator = iter(loader)
    try:
        for batch in iterator:
            if isinstance(batch, UserError):
                raise batch
            if finish:
                yield finish(batch)
                continue
            tensors = {name: torch.as_tensor(value) for name, value in batch.items()}
            yield {name: value.to(device, non_blocking=True) for name, value in tensors.items()}
    finally:  # at exit Python would wait for remaining workers, which block its SIGTERM
        getattr(iterator, "_shutdown_workers", bool)()


@contextmanager
def worker_failures_reported() -> Iterator[None]:
    """Raise `UserError` when a worker process dies. In torch 2.4 to 2.14 a SIGCHLD handler raises RuntimeError for
    that, anywhere in the block."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            "a process that makes batches was killed, perhaps for lack of memory: lower data.workers or "
            "data.batch_size, and continue with --resume.",
            code="worker_killed",
        ) from error


def _is_shared_memory_small(batches: Batches) -> bool:
    """Whether the prefetched batches exceed shared memory, which Docker limits to 64 MB.

    A torch 2.14 worker that runs out of it dies of SIGBUS or hangs, so batches then pass through a pipe.
    """
    drawn = batches.draw(0)  # step 0 has every part that a batch can have
    crops = sum(len(example.draws) for examples in drawn.values() for example in examples)
    needed = crops * 2 * batches.bins * batches.frames * 8 * batches.data.workers * (AHEAD + 1)
    try:
        return shutil.disk_usage(SHARED_MEMORY).free < needed
    except OSError:  # not Linux
        return False


class _Reporting(Dataset):
    """The same batches, but a `UserError` is returned instead of raised: raising it would add a traceback.

    With `as_arrays`, tensors leave as numpy arrays, which need no shared memory.
    """

    def __init__(self, batches: Batches, as_arrays: bool):
        self.batches, self.as_arrays = batches, as_arrays

    def __getitem__(self, step: int) -> Any:
        try:
            batch = self.batches[step]
        except UserError as error:
            return error
        return {name: value.numpy() for name, value in batch.items()} if self.as_arrays else batch


def _unchanged(batch: Any) -> Any:
    return batch


def _prepare_worker(_: int) -> None:
    torch.set_num_threads(1)  # leave the cores to the network
    # Errors reach the main process anyway. In Python 3.10 to 3.13 the thread of multiprocessing.resource_sharer would
    # print a traceback when the main process stops while receiving a batch.
    sys.excepthook = lambda *_: None
