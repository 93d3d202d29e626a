"""Input to networks as a stream: it is checked, and blocks of any length become chunks of frames.

Nothing here requires torch or depends on the engine that computes the masks.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from separation.audio.stft import SpectralSettings
from separation.errors import UserError

HIGHEST_RATE = 1_000_000
"""In hertz: any higher rate is a typing error."""

SILENCE = 10 ** (-150 / 20)
"""Samples below -150 dBFS are set to zero for networks: fade-outs end in subnormal numbers, far below, on which
processors are many times slower (1.4 to 2.2 times for a whole song)."""


def check_rate(sample_rate: Any) -> int:
    """A sample rate in hertz as an integer. Raises `UserError` if it is not a valid one."""
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
        raise UserError("the song has samples that are NaN or infinite: export it again.", code="not_finite")


def check_channels(channels: int) -> None:
    """Raise `UserError` unless a song with this many channels can be separated."""
    if channels not in (1, 2):
        hint = "put the channels first" if channels > 64 else "mix it down to stereo first"
        raise UserError(f"a song with {channels} channels cannot be separated: {hint}.", code="channels")


def is_finite(waveform: np.ndarray) -> bool:
    """Whether all samples are finite: `isfinite().all()`, but many times faster."""
    with np.errstate(all="ignore"):  # a sum can overflow
        return math.isfinite(waveform.sum()) or bool(np.isfinite(waveform).all())


class Step(Protocol):
    """A network at work on one song."""

    lag: int
    """Frames by which the output is late."""

    def __call__(self, piece: np.ndarray) -> np.ndarray:
        """`[2, (frames - 1) * hop + n_fft]` to as many samples of each target, `[targets, 2, n]`, for overlap-add."""


class Network(Protocol):
    """What a `Separator` runs: `masking.MaskingNetwork` in torch, `onnx.OnnxNetwork` in ONNX Runtime."""

    settings: SpectralSettings
    targets: tuple[str, ...]
    sources: tuple[str, ...]
    """The targets and the rest, if any."""
    licence: str
    """Of the weights, in words."""

    @property
    def stride(self) -> int:
        """The number of frames in a piece must be a multiple of this."""

    @property
    def context(self) -> int:
        """Frames on either side that a frame depends on or, in a network with segments, by which segments overlap."""

    @property
    def place(self) -> str:
        """Engine and device, in words."""

    def chunk(self, frames: int | None) -> int:
        """How many frames to separate at a time: about as many as requested, or as many as suit the network."""

    def begin(self, targets: Sequence[str], precision: str) -> Step:
        """Start a song, for some of the targets."""


class TargetsStream:
    """Separates a song at the network's rate into its masked targets: `[2, n]` to `[targets, 2, m]`, chunk by chunk.

    The mirrored song is the context of its first and last frames: an excerpt then continues like music, whereas silence
    would be nothing like the music that the network was trained on.
    """

    def __init__(self, network: Network, step: Step, chunk: int):
        self.settings, self.stride, self.step, self.chunk = network.settings, network.stride, step, chunk
        context = whole_strides(network.context, self.stride)
        self.missing = context + step.lag
        self.lead = context * self.settings.hop + self.settings.padding
        # No more than must arrive before the first output anyway, so that live audio is not delayed.
        self.mirrored = min(context, step.lag) * self.settings.hop + self.settings.padding
        self.reach = (context + self.stride) * self.settings.hop + self.settings.n_fft  # what the last frames depend on
        self.buffer, self.recent = Queue(2), np.zeros((2, 0), np.float32)
        self.skipped = self.missing * self.settings.hop + self.settings.padding
        self.tail: np.ndarray | float = 0.0
        self.samples = 0

    @property
    def delay(self) -> int:
        """Maximum delay of the output behind the input, in samples."""
        return (self.step.lag + self.chunk) * self.settings.hop + self.settings.padding

    def push(self, block: np.ndarray, last: bool = False) -> Iterator[np.ndarray]:
        """Take a block; yield the output that is ready. After the `last`, it extends past the end by under a stride."""
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
    """Round `frames` up to whole strides, at least one."""
    return -(-max(frames, 1) // stride) * stride


class Queue:
    """A FIFO queue of samples `[channels, n]`. Blocks are concatenated when they are taken, not before."""

    def __init__(self, channels: int = 0):
        self._blocks: deque[np.ndarray] = deque([np.zeros((channels, 0), np.float32)] if channels else [])
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def put(self, block: np.ndarray) -> None:
        self._blocks.append(block)
        self._length += block.shape[1]

    def take(self, count: int, keep: int = 0) -> np.ndarray:
        """Take the first `count` samples, or as many as there are; the last `keep` of them stay in the queue."""
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
