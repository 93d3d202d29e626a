"""A song as networks take it: any array of samples becomes float32, and blocks of any length become chunks of frames.

Nothing here needs torch, and nothing knows what computes the masks.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from separation.audio.stft import SpectralSettings
from separation.errors import UserError

FULL_SCALE = {"int8": 1 << 7, "int16": 1 << 15, "int32": 1 << 31}
"""Steps from silence to full scale of signed samples, as wav files and numpy hold them; uint8 has 128 for silence."""

HIGHEST_RATE = 1_000_000
"""In hertz: any rate above was mistyped."""

SILENCE = 10 ** (-150 / 20)
"""Samples below -150 dBFS are silence to networks: a fade-out into subnormal numbers, on which processors are many
times slower (1.4 to 2.2 times for a whole song), is further down."""


def as_waveform(samples: Any) -> np.ndarray:
    """Samples of any kind of number, a tensor or what numpy takes for an array, as float32 with full scale at 1.

    Raises `UserError` for numbers that samples are not made of: those without a full scale, truth values, complex ones.
    """
    if hasattr(samples, "detach"):  # a tensor, on any device
        samples = samples.detach().cpu()
        samples = (samples.float() if samples.is_floating_point() else samples).numpy()
    try:
        samples = np.asarray(samples)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"the song is not an array of samples ({error}): give a tensor or a numpy array.") from error
    name = samples.dtype.name
    if samples.dtype.kind == "f":
        return samples.astype(np.float32, copy=False)
    if name == "uint8":
        return (samples.astype(np.float32) - 128) / 128
    if name in FULL_SCALE:
        return (samples / float(FULL_SCALE[name])).astype(np.float32)
    if samples.dtype.kind not in "biuc":
        raise UserError("the song is not an array of samples: give a tensor or a numpy array.")
    raise UserError(f"samples of type {name} have no full scale: give int16, int32, uint8 or floats between -1 and 1.")


def check_rate(sample_rate: Any) -> int:
    """A sample rate in hertz as a whole number. Raises `UserError` when it cannot be one."""
    try:
        rate = math.nan if isinstance(sample_rate, bool) else float(sample_rate)
    except (TypeError, ValueError) as error:
        raise UserError(f"the sample rate must be a number of hertz, not {sample_rate!r}.") from error
    if not (math.isfinite(rate) and rate == int(rate) and 0 < rate <= HIGHEST_RATE):
        raise UserError(f"the sample rate must be a whole number of hertz above 0, not {sample_rate!r}.")
    return int(rate)


def check_waveform(waveform: np.ndarray) -> None:
    """Raise `UserError` unless this is `[1 or 2 channels, samples]` of finite numbers."""
    if waveform.ndim != 2:
        shape = list(waveform.shape)
        raise UserError(f"the song has the shape {shape}: give [channels, samples], [samples] or a batch of songs.")
    check_channels(len(waveform))
    if not is_finite(waveform):
        raise UserError("the song has samples that are not numbers: export it again.", code="not_finite")


def check_channels(channels: int) -> None:
    """Raise `UserError` unless a song with so many channels can be separated."""
    if channels not in (1, 2):
        hint = "put the channels first" if channels > 64 else "mix it down to stereo first"
        raise UserError(f"a song with {channels} channels cannot be separated: {hint}.", code="channels")


def is_finite(waveform: np.ndarray) -> bool:
    """Whether all samples are numbers: `isfinite().all()`, but many times faster."""
    return math.isfinite(waveform.sum()) or bool(np.isfinite(waveform).all())  # a sum can overflow


class Step(Protocol):
    """A network within a song."""

    lag: int
    """Frames that what comes out is late."""

    def __call__(self, piece: np.ndarray) -> np.ndarray:
        """`[2, (frames - 1) * hop + n_fft]` to as many samples of each target, `[targets, 2, n]`, to be overlapped."""


class Network(Protocol):
    """What a `Separator` runs: `masking.MaskingNetwork` by torch, `onnx.OnnxNetwork` by ONNX Runtime."""

    settings: SpectralSettings
    targets: tuple[str, ...]
    sources: tuple[str, ...]
    """The targets, and the rest if there is one."""
    licence: str
    """Of the weights, in words."""

    @property
    def stride(self) -> int:
        """Frames that pieces are a multiple of."""

    @property
    def context(self) -> int:
        """Frames on either side that a frame depends on; of a network with segments, as many as these overlap."""

    @property
    def place(self) -> str:
        """Where it is computed, in words."""

    def chunk(self, frames: int | None) -> int:
        """How many frames to separate at a time: about as many as asked for, or as many as suit the network."""

    def begin(self, targets: Sequence[str], precision: str) -> Step:
        """The network at the beginning of a song, for some of its targets."""


class TargetsStream:
    """A song at the network's rate becomes its masked targets: `[2, n]` to `[targets, 2, m]`, chunk by chunk.

    The song stands in, mirrored, for what its first frames and its last ones depend on: a song that is cut out of
    another goes on as music does, where silence would be no music that the network has ever heard.
    """

    def __init__(self, network: Network, step: Step, chunk: int):
        self.settings, self.stride, self.step, self.chunk = network.settings, network.stride, step, chunk
        context = whole_strides(network.context, self.stride)
        self.missing = context + step.lag
        self.lead = context * self.settings.hop + self.settings.padding
        # No more than has come anyway before anything can be told: a song that is being heard is not held up.
        self.mirrored = min(context, step.lag) * self.settings.hop + self.settings.padding
        self.reach = (context + self.stride) * self.settings.hop + self.settings.n_fft  # what the last frames depend on
        self.buffer, self.recent = Queue(2), np.zeros((2, 0), np.float32)
        self.skipped = self.missing * self.settings.hop + self.settings.padding
        self.tail: np.ndarray | float = 0.0
        self.samples = 0

    @property
    def delay(self) -> int:
        """Samples that what comes out is behind what went in, at most."""
        return (self.step.lag + self.chunk) * self.settings.hop + self.settings.padding

    def push(self, block: np.ndarray, last: bool = False) -> Iterator[np.ndarray]:
        """What a block lets out. After the `last` one it goes on past the end, by less than a stride of frames."""
        padding, chunk = self.settings.padding, self.chunk * self.settings.hop
        self.samples += block.shape[1]
        self.buffer.put(block)
        if block.shape[1]:
            self.recent = np.concatenate([self.recent, block[:, -self.reach :]], axis=1)[:, -self.reach :]
        if self.lead:
            if self.samples < self.mirrored and not (last and self.samples):
                return
            start = np.pad(self.buffer.take(self.samples), ((0, 0), (self.mirrored, 0)), mode="symmetric")
            self.buffer.put(np.pad(start, ((0, 0), (self.lead - self.mirrored, 0))))
            self.lead = 0
        while len(self.buffer) >= chunk + padding:
            self.missing -= self.chunk
            yield self._separate(self.buffer.take(chunk + padding, keep=padding))
        if last and self.samples:
            frames = self.settings.frames(self.samples) + self.missing
            rest = -(-frames // self.stride) * self.stride * self.settings.hop
            beyond = rest + padding - len(self.buffer)
            self.buffer.put(np.pad(self.recent, ((0, 0), (0, beyond)), mode="symmetric")[:, self.recent.shape[1] :])
            while len(self.buffer) > padding:
                yield self._separate(self.buffer.take(chunk + padding, keep=padding))

    def _separate(self, piece: np.ndarray) -> np.ndarray:
        waveform = self.step(piece)
        if not is_finite(waveform):
            raise UserError(
                "the song is so loud that its numbers overflow: scale its samples to at most 1.", code="not_finite"
            )
        samples = piece.shape[1] - self.settings.padding
        waveform[..., :-samples] += self.tail
        waveform, self.tail = waveform[..., :samples], waveform[..., samples:]
        skipped, self.skipped = self.skipped, max(0, self.skipped - samples)
        return waveform[..., skipped:]


def whole_strides(frames: int, stride: int) -> int:
    """Frames of as few strides as hold `frames`, at least one."""
    return -(-max(frames, 1) // stride) * stride


class Queue:
    """Samples `[channels, n]` that wait, first in, first out. Blocks are joined when they are taken, not before."""

    def __init__(self, channels: int = 0):
        self._blocks: deque[np.ndarray] = deque([np.zeros((channels, 0), np.float32)] if channels else [])
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def put(self, block: np.ndarray) -> None:
        self._blocks.append(block)
        self._length += block.shape[1]

    def take(self, count: int, keep: int = 0) -> np.ndarray:
        """The first `count` samples, or as many as there are, of which the last `keep` stay."""
        taken, found = [self._blocks[0][:, :0]], 0
        while self._blocks and found < count:
            block = self._blocks.popleft()
            taken.append(block[:, : count - found])
            found += taken[-1].shape[1]
            if taken[-1].shape[1] < block.shape[1]:
                self._blocks.appendleft(block[:, taken[-1].shape[1] :])
        joined = np.concatenate(taken, axis=1) if len(taken) != 2 else taken[1]
        kept = joined[:, found - min(keep, found) :]
        self._blocks.appendleft(kept)
        self._length += kept.shape[1] - found
        return joined
