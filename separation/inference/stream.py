"""A song that is still being heard becomes stems: blocks are pushed in, and what is ready comes out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any, Protocol

import numpy as np

from separation.audio.resample import Resampler
from separation.audio.settings import SpectralSettings
from separation.errors import UserError
from separation.inference.sources import with_rests
from separation.inference.waveforms import check_rate, check_waveform, is_finite

Stems = dict[str, Any]
"""A piece of a song: `[channels, n]` for each stem, by name, tensors or arrays as the network gives them."""


class StreamSeparator:
    """Takes a song apart as a stream, with torch or without; see `separation.inference.separator.Separator`."""

    settings: SpectralSettings
    targets: tuple[str, ...]
    sources: tuple[str, ...]
    stems: tuple[str, ...]
    masked: tuple[str, ...]
    stride: int
    """Frames that pieces are a multiple of."""
    context: int
    """Frames to put before a song."""
    chunk: int
    """Frames separated at a time."""
    place: str
    """Where the network is computed, in words."""

    def begin(self) -> Step:
        """The network at the beginning of a song."""
        raise NotImplementedError

    def take(self, block: Any) -> np.ndarray:
        """A block of the song as float32 `[channels, n]`."""
        raise NotImplementedError

    def give(self, stem: np.ndarray) -> Any:
        """A piece of a stem `[channels, n]` as users get it."""
        raise NotImplementedError

    def stream(self, blocks: Iterable[Any], sample_rate: int | None = None) -> Iterator[Stems]:
        """The stems of a song that comes in blocks `[1 or 2 channels, n]`, as blocks by name.

        The blocks that come out are as long together as those that went in, but not one by one. `sample_rate` is in
        hertz, by default the network's. Samples may be of any kind that a whole song may have.

        Raises `UserError` when there are more than two channels, samples that are not numbers or have no full scale,
        or no such sample rate.
        """
        song = SongStream(self, self.settings.sample_rate if sample_rate is None else sample_rate, self.chunk)
        for block in blocks:
            yield from song.pieces(block)
        yield from song.rest()

    def live(self, sample_rate: int, chunk_frames: int = 1) -> SongStream:
        """A song that is still being heard: `push(block)` gives the stems that are ready, `flush()` the rest.

            live = separator.live(44100)
            for block in microphone:  # [1 or 2 channels, n], of any length
                stems = live.push(block)  # {"vocals": [channels, m], ...}
            stems = live.flush()

        The stems are `live.latency` seconds behind at most. They are those of the whole song: the same bits as of a
        separator with these `chunk_frames`, of which more cost less time and more latency; one stride is the least.

        Raises `UserError` when there is no such sample rate.
        """
        return SongStream(self, sample_rate, self.whole_strides(chunk_frames))

    @property
    def grid(self) -> Fraction:
        """Seconds after which a song may begin later, and have the very same frames."""
        return Fraction(self.stride * self.settings.hop, self.settings.sample_rate)

    def whole_strides(self, frames: int) -> int:
        """Frames of as few strides as hold `frames`, at least one."""
        return -(-max(frames, 1) // self.stride) * self.stride


class Step(Protocol):
    """A network within a song."""

    lag: int
    """Frames that what comes out is late."""

    def __call__(self, piece: np.ndarray) -> np.ndarray:
        """`[2, (frames - 1) * hop + n_fft]` to as many samples of each target, `[targets, 2, n]`, to be overlapped."""


class SongStream:
    """One song, in blocks `[1 or 2 channels, n]` of any length: `push` each, then `flush`. See `Separator.live`.

    What all calls give, one after the other, is as long as the song.

    Args:
        separator: what takes the song apart.
        sample_rate: of the song, in hertz.
        chunk: frames separated at a time, whole strides of the network.
    """

    def __init__(self, separator: StreamSeparator, sample_rate: int, chunk: int):
        self.separator, self.stems = separator, separator.stems
        self.sample_rate = check_rate(sample_rate)
        own_rate = separator.settings.sample_rate
        self._inward = Resampler(self.sample_rate, own_rate, 2)
        self._outward = Resampler(own_rate, self.sample_rate, 2 * len(separator.masked))
        self._targets = TargetsStream(separator, chunk)
        self._song, self._channels = Queue(), 0  # until the first block tells

    @property
    def latency(self) -> float:
        """Seconds of sound that the stems are behind the song, at most."""
        own_rate = self.separator.settings.sample_rate
        return self._targets.delay / own_rate + self._inward.delay() + self._outward.delay()

    def push(self, block: Any) -> Stems:
        """The stems of what can be told after the next block: none, a little or a lot.

        Raises `UserError` as `Separator.stream` does.
        """
        return self._join(self.pieces(block))

    def flush(self) -> Stems:
        """The stems of the rest: the song has ended."""
        return self._join(self.rest())

    def pieces(self, block: Any) -> Iterator[Stems]:
        """What `push` gives, in pieces of the chunks."""
        block = self.separator.take(block)
        check_waveform(block)
        self._channels = self._channels or len(block)
        if len(block) != self._channels:
            raise UserError(f"the song has {self._channels} channels, and one of its blocks {len(block)}.")
        self._song.put(block)
        for targets in self._targets.push(self._inward.push(np.broadcast_to(block, (2, block.shape[1])))):
            yield from self._ready(self._outward.push(targets.reshape(2 * len(targets), -1)))

    def rest(self) -> Iterator[Stems]:
        """What `flush` gives, in pieces of the chunks."""
        if not self._channels:
            return
        for targets in self._targets.push(self._inward.flush(), last=True):
            yield from self._ready(self._outward.push(targets.reshape(2 * len(targets), -1)))
        yield from self._ready(self._outward.flush())
        # Resampled back, a song can have lost a sample at its end.
        yield from self._ready(np.zeros((2 * len(self.separator.masked), len(self._song)), np.float32))

    def _ready(self, targets: np.ndarray) -> Iterator[Stems]:
        song = self._song.take(targets.shape[-1])
        if length := song.shape[-1]:
            targets = targets[:, :length].reshape(-1, 2, length)
            if len(song) == 1:
                targets = targets.mean(axis=1, keepdims=True)
            stems = with_rests(self.separator, dict(zip(self.separator.masked, targets, strict=True)), song)
            yield {stem: self.separator.give(stems[stem]) for stem in self.stems}

    def _join(self, pieces: Iterator[Stems]) -> Stems:
        pieces, nothing = list(pieces), np.zeros((self._channels or 2, 0), np.float32)
        joined = {stem: [nothing, *(np.asarray(piece[stem]) for piece in pieces)] for stem in self.stems}
        return {stem: self.separator.give(np.concatenate(blocks, axis=1)) for stem, blocks in joined.items()}


class TargetsStream:
    """A song at the network's rate becomes its masked targets: `[2, n]` to `[targets, 2, m]`, chunk by chunk.

    The song stands in, mirrored, for what its first frames and its last ones depend on: a song that is cut out of
    another goes on as music does, where silence would be no music that the network has ever heard.
    """

    def __init__(self, separator: StreamSeparator, chunk: int):
        self.settings, self.stride, self.chunk = separator.settings, separator.stride, chunk
        self.step = separator.begin()
        self.missing = separator.context + self.step.lag
        self.lead = separator.context * self.settings.hop + self.settings.padding
        # No more than has come anyway before anything can be told: a song that is being heard is not held up.
        self.mirrored = min(separator.context, self.step.lag) * self.settings.hop + self.settings.padding
        self.buffer = self.recent = np.zeros((2, 0), np.float32)
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
        self.buffer = np.concatenate([self.buffer, block], axis=1)
        self.recent = np.concatenate([self.recent, block], axis=1)[:, -self.mirrored :]
        if self.lead:
            if self.samples < self.mirrored and not (last and self.samples):
                return
            self.buffer = np.pad(self.buffer, ((0, 0), (self.mirrored, 0)), mode="symmetric")
            self.buffer = np.pad(self.buffer, ((0, 0), (self.lead - self.mirrored, 0)))
            self.lead = 0
        while self.buffer.shape[1] >= chunk + padding:
            piece, self.buffer = self.buffer[:, : chunk + padding], self.buffer[:, chunk:]
            self.missing -= self.chunk
            yield self._separate(piece)
        if last and self.samples:
            frames = self.settings.frames(self.samples) + self.missing
            rest = -(-frames // self.stride) * self.stride * self.settings.hop
            beyond = rest + padding - self.buffer.shape[1]
            mirrored = np.pad(self.recent, ((0, 0), (0, beyond)), mode="symmetric")[:, self.recent.shape[1] :]
            self.buffer = np.concatenate([self.buffer, mirrored], axis=1)
            for start in range(0, rest, chunk):
                yield self._separate(self.buffer[:, start : start + chunk + padding])

    def _separate(self, piece: np.ndarray) -> np.ndarray:
        waveform = self.step(piece)
        if not is_finite(waveform):
            raise UserError("the song is so loud that its numbers overflow: scale its samples to at most 1.")
        samples = piece.shape[1] - self.settings.padding
        waveform[..., :-samples] += self.tail
        waveform, self.tail = waveform[..., :samples], waveform[..., samples:]
        skipped, self.skipped = self.skipped, max(0, self.skipped - samples)
        return waveform[..., skipped:]


class Queue:
    """Samples `[channels, n]` that wait, first in, first out."""

    def __init__(self):
        self._samples: np.ndarray | None = None

    def __len__(self) -> int:
        return 0 if self._samples is None else self._samples.shape[1]

    def put(self, block: np.ndarray) -> None:
        self._samples = block if self._samples is None else np.concatenate([self._samples, block], axis=1)

    def take(self, count: int) -> np.ndarray:
        """The first `count` samples, or as many as there are."""
        taken, self._samples = self._samples[:, :count], self._samples[:, count:]
        return taken
