"""Songs come in blocks and leave as stems: any array of samples in, `[channels, n]` for each stem out, bounded memory.

Nothing here needs torch, and nothing knows what computes the masks.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, Protocol

import numpy as np

from separation.audio.resample import Resampler
from separation.audio.stft import SpectralSettings
from separation.errors import UserError
from separation.stems import rest_name

Stems = dict[str, Any]
"""A piece of a song: `[channels, n]` for each stem, by name; tensors if the song came as tensors, else arrays."""

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


def like(samples: Any, stem: np.ndarray) -> Any:
    """A stem as the song's samples were given: a tensor for a tensor, else an array."""
    if not hasattr(samples, "detach"):
        return stem
    import torch

    return torch.from_numpy(np.ascontiguousarray(stem))


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


class Sources(Protocol):
    """What a network separates: its targets, and its sources, which are these and the rest if there is one."""

    targets: tuple[str, ...]
    sources: tuple[str, ...]


def names(stems: str | Sequence[str] | None) -> tuple[str, ...]:
    """Names of stems, each once; a lone name is one stem."""
    return tuple(dict.fromkeys([stems] if isinstance(stems, str) else stems or ()))


def check_stems(network: Sources, stems: Sequence[str]) -> None:
    """Raise `UserError` unless a network can give these stems."""
    if missing := [stem for stem in stems if stem not in available_stems(network)]:
        choices = ", ".join(available_stems(network))
        raise UserError(
            f"these weights do not separate {' and '.join(map(str, missing))}: choose among {choices}.",
            code="unknown_stem",
        )


def available_stems(network: Sources) -> tuple[str, ...]:
    """The stems that a network can give: its sources, and for each target what is left without it."""
    rests = (rest_name([target]) for target in network.targets)
    return tuple(dict.fromkeys((*network.sources, *(rest for rest in rests if rest))))


def masked_targets(network: Sources, stems: Sequence[str]) -> tuple[str, ...]:
    """The targets whose masks are needed for some of the `available_stems`, in the order of the network."""
    *others, last = network.sources
    needed = [target for target in network.targets if target in stems or rest_name([target]) in stems]
    if len(needed) == len(network.sources) or (last in stems and last not in network.targets):
        return tuple(others)
    return tuple(needed)


def with_rests(network: Sources, stems: Mapping[str, np.ndarray], song: np.ndarray) -> dict[str, np.ndarray]:
    """Masked targets of a song, and what follows from them: the network's last source, and the rest of each target."""
    *others, last = network.sources
    given = dict(stems)
    if tuple(given) == tuple(others):
        given[last] = song - sum(given.values())
    for target in set(network.targets) & set(given):
        given.setdefault(rest_name([target]) or "", song - given[target])
    return given


class Step(Protocol):
    """A network within a song."""

    lag: int
    """Frames that what comes out is late."""

    def __call__(self, piece: np.ndarray) -> np.ndarray:
        """`[2, (frames - 1) * hop + n_fft]` to as many samples of each target, `[targets, 2, n]`, to be overlapped."""


class Network(Sources, Protocol):
    """What a `Separator` runs: `masking.MaskingNetwork` by torch, `onnx.OnnxNetwork` by ONNX Runtime."""

    settings: SpectralSettings

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


def grid_of(network: Network) -> Fraction:
    """Seconds after which a song may begin later and have the very same frames."""
    return Fraction(network.stride * network.settings.hop, network.settings.sample_rate)


def surroundings_of(network: Network) -> float:
    """Seconds before and after a part of a song that its stems depend on."""
    frames = whole_strides(network.context, network.stride) + network.stride
    return (frames * network.settings.hop + network.settings.n_fft) / network.settings.sample_rate


class StreamSeparator:
    """Takes songs apart: what `Separator` and `Passes` have in common."""

    network: Network
    settings: SpectralSettings
    stems: tuple[str, ...]
    masked: tuple[str, ...]
    """Targets whose masks are needed for the stems."""

    @property
    def place(self) -> str:
        """Where the networks are computed, in words."""
        return self.network.place

    @property
    def targets(self) -> tuple[str, ...]:
        return self.network.targets

    @property
    def sources(self) -> tuple[str, ...]:
        return self.network.sources

    def open(self, sample_rate: int, live: bool = False) -> Any:
        """A song that is about to come, with `pieces(block)`, `rest()`, `push`, `flush` and `latency`."""
        raise NotImplementedError

    @property
    def grid(self) -> Fraction:
        """As `grid_of` its networks."""
        raise NotImplementedError

    @property
    def surroundings(self) -> float:
        """As `surroundings_of` its networks."""
        raise NotImplementedError

    def __call__(self, waveform: Any, sample_rate: int) -> Stems:
        """The stems of a song by name, each float32 and of the song's shape, at its sample rate in hertz.

        A song is a tensor or a numpy array `[1 or 2 channels, samples]`, or `[samples]` for mono; full scale is 1 for
        floats, and that of their type for whole numbers. `[batch, channels, samples]` are songs of one length. Stems
        are tensors for a tensor, else arrays.

        Raises `UserError` as `stream` does.
        """
        song, rate = as_waveform(waveform), check_rate(sample_rate)
        if song.ndim == 3:
            songs = [self(one, rate) for one in song]
            joined = {stem: np.stack([one[stem] for one in songs]) if songs else song for stem in self.stems}
        elif song.ndim == 1:
            joined = {stem: signal[0] for stem, signal in self(song[None], rate).items()}
        else:
            check_waveform(song)
            blocks = (song[:, start : start + (1 << 16)] for start in range(0, song.shape[1], 1 << 16))
            joined = join(self.stream(blocks, rate), self.stems, len(song))
        return {stem: like(waveform, signal) for stem, signal in joined.items()}

    def stream(self, blocks: Iterable[Any], sample_rate: int | None = None) -> Iterator[Stems]:
        """The stems of a song that comes in blocks `[1 or 2 channels, n]`, as blocks by name.

        The blocks that come out are as long together as those that went in, but not one by one. `sample_rate` is in
        hertz, by default the network's. Samples may be of any kind that a whole song may have.

        Raises `UserError` when there are more than two channels, samples that are not numbers or have no full scale,
        or no such sample rate.
        """
        song = self.open(self.settings.sample_rate if sample_rate is None else check_rate(sample_rate))
        for block in blocks:
            yield from song.pieces(block)
        yield from song.rest()

    def live(self, sample_rate: int) -> Any:
        """A song that is still being heard: `push(block)` gives the stems that are ready, `flush()` the rest.

            live = separator.live(44100)
            for block in microphone:  # [1 or 2 channels, n], of any length
                stems = live.push(block)  # {"vocals": [channels, m], ...}
            stems = live.flush()

        The stems are `live.latency` seconds behind at most, and the same as of the whole song.

        Raises `UserError` when there is no such sample rate.
        """
        return self.open(check_rate(sample_rate), live=True)


def join(pieces: Iterable[Stems], stems: Sequence[str], channels: int) -> Stems:
    """Pieces of a song, one after the other, as arrays."""
    collected, nothing = list(pieces), np.zeros((channels, 0), np.float32)
    return {stem: np.concatenate([nothing, *(np.asarray(piece[stem]) for piece in collected)], 1) for stem in stems}


class Song:
    """A song that comes in blocks `[1 or 2 channels, n]` of any length, and whose stems leave when they are ready.

    What all calls give, one after the other, is as long as the song.

    Args:
        network: what is separated; see `Sources`.
        stems: names of the stems to give.
        sample_rate: of the song, in hertz.
    """

    def __init__(self, network: Sources, stems: Sequence[str], sample_rate: int):
        self.network, self.stems, self.sample_rate = network, tuple(stems), sample_rate
        self.song, self.channels = Queue(), 0  # until the first block tells
        self.given: Any = None  # a block as it came

    @property
    def latency(self) -> float:
        """Seconds of sound that the stems are behind the song, at most."""
        raise NotImplementedError

    def separate(self, block: np.ndarray | None) -> Iterator[dict[str, np.ndarray]]:
        """The masked targets that a block `[channels, n]` lets out, or the end of the song (None), `[channels, m]`."""
        raise NotImplementedError

    def push(self, block: Any) -> Stems:
        """The stems of what can be told after the next block: none, a little or a lot.

        Raises `UserError` as `stream` does.
        """
        return self._joined(self.pieces(block))

    def flush(self) -> Stems:
        """The stems of the rest: the song has ended."""
        return self._joined(self.rest())

    def pieces(self, block: Any) -> Iterator[Stems]:
        """What `push` gives, in pieces of the chunks."""
        self.given, waveform = block, as_waveform(block)
        check_waveform(waveform)
        self.channels = self.channels or len(waveform)
        if len(waveform) != self.channels:
            raise UserError(f"the song has {self.channels} channels, and one of its blocks {len(waveform)}.")
        self.song.put(waveform)
        for targets in self.separate(waveform):
            yield from self._ready(targets)

    def rest(self) -> Iterator[Stems]:
        """What `flush` gives, in pieces of the chunks."""
        if self.channels:
            for targets in self.separate(None):
                yield from self._ready(targets)

    def _ready(self, targets: dict[str, np.ndarray]) -> Iterator[Stems]:
        song = self.song.take(min((signal.shape[1] for signal in targets.values()), default=0))
        if length := song.shape[1]:
            stems = with_rests(self.network, {name: signal[:, :length] for name, signal in targets.items()}, song)
            yield {stem: like(self.given, stems[stem]) for stem in self.stems}

    def _joined(self, pieces: Iterable[Stems]) -> Stems:
        ready = list(pieces)  # the first one tells how many channels there are
        return {stem: like(self.given, signal) for stem, signal in join(ready, self.stems, self.channels or 2).items()}


class NetworkSong(Song):
    """A song that one network separates, `chunk` frames at a time."""

    def __init__(
        self, network: Network, stems: Sequence[str], masked: Sequence[str], sample_rate: int, step: Step, chunk: int
    ):
        super().__init__(network, stems, sample_rate)
        self.masked, self.own_rate = tuple(masked), network.settings.sample_rate
        self._inward = Resampler(sample_rate, self.own_rate, 2)
        self._outward = Resampler(self.own_rate, sample_rate, 2 * len(masked))
        self._targets = TargetsStream(network, step, chunk)

    @property
    def latency(self) -> float:
        return self._targets.delay / self.own_rate + self._inward.delay() + self._outward.delay()

    def separate(self, block: np.ndarray | None) -> Iterator[dict[str, np.ndarray]]:
        last = block is None
        if block is None:
            heard = self._inward.flush()
        else:
            audible = np.where(abs(block) < SILENCE, np.float32(0), block)
            heard = self._inward.push(np.broadcast_to(audible, (2, block.shape[1])))
        for targets in self._targets.push(heard, last):
            yield self._named(self._outward.push(targets.reshape(2 * len(targets), -1)))
        if last:
            yield self._named(self._outward.flush())
            # Resampled back, a song can have lost a sample at its end.
            yield self._named(np.zeros((2 * len(self.masked), len(self.song)), np.float32))

    def _named(self, targets: np.ndarray) -> dict[str, np.ndarray]:
        pairs = targets.reshape(len(self.masked), 2, targets.shape[1])
        if self.channels == 1:
            pairs = pairs.mean(axis=1, keepdims=True)
        return dict(zip(self.masked, pairs, strict=True))


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
