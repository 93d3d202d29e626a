"""Training batches: random crops, remixed and augmented.

Batch n of a run depends on the seed and on n alone, so a resumed run sees the batches it would have seen, and several
processes divide one batch among them.
"""

from __future__ import annotations

import math
import shutil
import signal
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
from separation.runtime import STOP_SIGNALS
from separation.stems import rest_name
from separation.training.config import Config
from separation.training.sources import SourcePool, SourcePools, levelled

Batch = dict[str, Tensor]
"""
    sources    complex [batch, sources, 2 channels, bins, frames]: the targets, then the rest if there is one
    labelled      real [batch, targets]: 1 where the source is all of the target, 0 where others may hold some of it
    pseudo_labelled bool [batch]: whether the sources are pseudo-labels
    mixtures   complex [unlabelled batch, 2 channels, bins, frames]
    rests      complex [unlabelled batch, 2 channels, bins, frames]: music of other songs, without the target
    target             [], the index of the target that mixtures and rests are about

The first three are present when there are supervised terms, the others at steps with terms for unlabelled music.
"""

AHEAD = 4
"""Batches that each worker process keeps ready."""

SHARED_MEMORY = "/dev/shm"
"""Where Linux keeps the memory that processes share."""


@dataclass(frozen=True)
class Draw:
    """A crop of a signal from frame `start`, and its augmentation, in the order in which it is applied.

    `equaliser` holds gains in dB at octaves, or nothing. `swap` exchanges left and right, `mono` makes both their mean.
    `gain` is a factor: negative inverts the polarity, 0 is silence.
    """

    signal: Signal
    start: int
    equaliser: tuple[float, ...] = ()
    swap: bool = False
    mono: bool = False
    gain: float = 1.0


@dataclass(frozen=True)
class Example:
    """The sources of an example; None is silence. All are silent above `bandwidth`, in hertz.

    `labelled` says for each target whether its source is all of it (1) or others may hold some (0).
    """

    draws: tuple[Draw | None, ...]
    bandwidth: float = math.inf
    labelled: tuple[float, ...] = ()
    pseudo_labelled: bool = False

    def limit(self, settings: SpectralSettings) -> int:
        """The bin above which all sources are silenced: missing sound there is no sign of a missing source."""
        if self.bandwidth >= settings.sample_rate / 2:
            return settings.bins
        return settings.bin_of(0.95 * self.bandwidth)


def equaliser_factors(gains: Sequence[float], bins: int) -> Tensor:
    """A smooth equaliser, float32 `[bins]`: gains at octaves in dB, interpolated linearly over log frequency."""
    octaves = np.log2(1 + np.arange(bins))
    return torch.from_numpy(10 ** (np.interp(octaves, np.arange(len(gains)), gains) / 20)).float()


def read_examples(examples: Sequence[Example], settings: SpectralSettings, bins: int, frames: int) -> Tensor:
    """The sources of examples, read from their stores: complex `[examples, sources, 2 channels, bins, frames]`."""
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
    """A batch, from its parts as they are drawn: the pairs in `music` become mixtures and rests."""
    batch = dict(parts)
    if "music" in batch:
        batch["mixtures"], batch["rests"] = batch.pop("music").unbind(dim=1)
    return batch


def mixtures_in(batch: Batch) -> Tensor:
    """The mixtures of a batch, complex `[batch, 2 channels, bins, frames]`: the labelled ones, if there are any."""
    return batch["sources"].sum(dim=1) if "sources" in batch else batch["mixtures"]


class Batches(Dataset):
    """The batches of a run by step, or with a `plan` function what it makes of their examples.

    Raises `UserError` when the pools cannot give what the losses need.
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
        # Every source of a remix has somewhere to come from.
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
        """This process's examples of a step: `sources`, and `music`, which are pairs of a mixture and a rest."""
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
        """The index of the target that the unlabelled music of a step is about."""
        return step // self.config.schedule.unlabelled_every % len(self.config.targets)

    def _labelled(self, rng: np.random.Generator) -> Example:
        """One labelled example: a crop of one song, a remix of several, or a target with music that lacks it."""
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
        # The sources of one song keep their balance.
        return self._example([Draw(signal, start, gain=gain, swap=swap) for signal in signals])

    def _pseudo_labelled(self, rng: np.random.Generator) -> Example:
        """Estimates out of one song with new gains, or out of several, beside a true rest if there is one.

        The latter is the paper's synthetic mixture.
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
        """A remix of one target and music that lacks it, in which nothing else is labelled."""
        index = self.config.targets.index(target)
        draws: list[Draw | None] = [None] * (len(self.config.targets) + self.has_rest)
        signals = [self.pools.targets[target].draw(rng), self.pools.rests_without[target].draw(rng)]
        draws[index], draws[index - 1] = self._remix(rng, signals)
        return self._example(draws, only=index)

    def _unlabelled(self, rng: np.random.Generator, rests: SourcePool) -> Example:
        """A mixture and a rest of another song."""
        mixture, rest = self.pools.mixtures.draw(rng), rests.draw(rng)
        for _ in range(8):  # with one song in both pools there may be no other
            if mixture.track.song != rest.track.song:
                break
            rest = rests.draw(rng)
        return Example((self._augmented(rng, mixture), self._augmented(rng, rest)))

    def _sources_of(self, track: StoredTrack) -> list[Signal]:
        """The targets of a song, and the rest if there is one, in balance."""
        return [levelled(signal) for signal in shares_of(track, self.config.targets)]

    def _remix(self, rng: np.random.Generator, signals: Sequence[Signal]) -> list[Draw]:
        """Crops of several songs, each augmented on its own."""
        draws = [self._augmented(rng, signal) for signal in signals]
        return [replace(draw, gain=draw.gain * (rng.random() >= self.data.mute)) for draw in draws]

    def _example(self, draws: Sequence[Draw | None], only: int | None = None) -> Example:
        """An example in which all targets are labelled, or `only` one."""
        labelled = tuple(float(only in (None, index)) for index in range(len(self.config.targets)))
        return Example(tuple(draws), min(draw.signal.track.bandwidth for draw in draws if draw), labelled)

    def _narrowed(self, rng: np.random.Generator, example: Example) -> Example:
        """The example, or by chance the same in mono."""
        if rng.random() >= self.data.mono:
            return example
        return replace(example, draws=tuple(draw and replace(draw, mono=True) for draw in example.draws))

    def _start(self, rng: np.random.Generator, signal: Signal) -> int:
        """The first frame of a crop, from anywhere in the signal's spans."""
        spans = signal.spans or ((0, signal.track.frames),)
        starts = np.array([end - first - self.frames + 1 for first, end in spans])
        place = int(rng.integers(starts.sum()))
        number = int(np.searchsorted(starts.cumsum(), place, side="right"))
        return spans[number][0] + place - int(starts[:number].sum())

    def _augmented(self, rng: np.random.Generator, signal: Signal) -> Draw:
        """A crop from anywhere in a signal, equalised and changed."""
        start, decibels, equaliser = self._start(rng, signal), self.data.equalise, ()
        if decibels:
            equaliser = tuple(rng.uniform(-decibels, decibels, int(np.log2(self.bins)) + 2).tolist())
        gain, swap = self._change(rng)
        return Draw(signal, start, equaliser, swap, gain=gain)

    def _change(self, rng: np.random.Generator) -> tuple[float, bool]:
        """A random gain and polarity, and whether to swap left and right."""
        gain = rng.uniform(*self.data.gain) * (-1 if rng.random() < self.data.flip else 1)
        return gain, bool(rng.random() < self.data.swap)


def load(
    batches: Batches, first: int, device: torch.device, finish: Callable[[Any], Batch] | None = None
) -> Generator[Batch, None, None]:
    """The batches from step `first` on, on a device, made ahead of time by worker processes.

    `finish` makes batches of what the workers plan. Raises `UserError` when music cannot be read.
    """
    workers = batches.data.workers
    loader = DataLoader(
        _Reporting(batches, workers > 0 and not batches.plan and _is_shared_memory_small(batches)),
        batch_size=None,
        collate_fn=_unchanged,  # torch's own makes tensors of arrays in the worker, and so shares their memory
        sampler=range(first, len(batches)),
        num_workers=workers,
        prefetch_factor=AHEAD if workers else None,
        worker_init_fn=_prepare_worker,
        pin_memory=torch.cuda.is_available(),
    )
    with _signals_blocked():  # workers inherit this: the main process alone decides when to stop
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
    finally:  # the exit of Python would wait for workers that are left, which do not hear its SIGTERM
        getattr(iterator, "_shutdown_workers", bool)()


@contextmanager
def worker_failures_reported() -> Iterator[None]:
    """Raise `UserError` in place of torch's RuntimeError when a worker process dies: its SIGCHLD handler may raise that
    anywhere in the block (torch 2.4 to 2.14)."""
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
    """Whether the batches that workers keep ready do not fit into shared memory, which Docker limits to 64 MB.

    A worker of torch 2.14 that runs out of it dies of SIGBUS, or waits forever. Batches then come through a pipe.
    """
    drawn = batches.draw(0)  # has all that a batch can have
    crops = sum(len(example.draws) for examples in drawn.values() for example in examples)
    needed = crops * 2 * batches.bins * batches.frames * 8 * batches.data.workers * (AHEAD + 1)
    try:
        return shutil.disk_usage(SHARED_MEMORY).free < needed
    except OSError:  # not Linux
        return False


@contextmanager
def _signals_blocked() -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {getattr(signal, name) for name in STOP_SIGNALS})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Reporting(Dataset):
    """The same batches, with the `UserError` in place of one that cannot be made: an exception would bring its trace.

    With `as_arrays` tensors leave as numpy arrays, which need no shared memory.
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
    torch.set_num_threads(1)  # the processors belong to the network
    # Errors reach the main process. Only Python's thread that shares memory (multiprocessing.resource_sharer, 3.10 to
    # 3.13) would print a trace, when the main process stops while it receives a batch.
    sys.excepthook = lambda *_: None
