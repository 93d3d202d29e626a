"""Separate waveforms of any length into stems, in constant memory. Importing this module does not require torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import cycle
from math import gcd, lcm, log10
from pathlib import Path
from typing import Any

import numpy as np

from separation.audio.resample import as_waveform
from separation.errors import UserError
from separation.inference.passes import SPEEDS, Pass
from separation.inference.stream import Network, Queue, check_rate, check_waveform, whole_strides
from separation.inference.weights import find_weights, load_network, stems_of
from separation.stems import rest_name, with_aliases

Stems = dict[str, Any]
"""A piece of a song: `[channels, n]` for each stem, by name; tensors if the song came as tensors, else arrays."""

BLOCK = 1 << 16
"""Samples processed at a time."""


class Separator:
    """Separates songs into stems, with one network or several.

        separator = Separator.load()
        stems = separator(waveform, sample_rate)

    A song goes through the network in chunks, each with the full context of its frames, so the stems do not depend on
    where the chunks begin. The last source of the network, like the rest of a target, is not computed but is the song
    minus the others: the sources sum to the song, at any sample rate.

    Several networks, or one used several times, make passes at different speeds (test-time augmentation); the stems are
    their means. A network contributes to the targets that it has; targets that none of the stems needs are skipped. At
    other speeds, frames start at different samples, so the stems of an excerpt then only nearly match those of the
    whole song.

    Args:
        networks: one or several trained networks, each a `MaskingNetwork` or an `OnnxNetwork`, used on its own device.
        stems: name or names of the stems to return, from `available_stems`; by default the sources of the network.
        chunk_frames: frames separated at a time; more take more memory. By default what suits the network.
        precision: of the network: `fp32`, `bf16`, or `auto` for whichever is fastest on its device.
        speeds: speeds at which the song is played to the networks, in turn.

    Raises:
        UserError: the network has no such stem, or there is no such precision.
    """

    def __init__(
        self,
        networks: Network | Sequence[Network],
        stems: str | Sequence[str] | None = None,
        chunk_frames: int | None = None,
        precision: str = "auto",
        speeds: Sequence[float] = SPEEDS,
    ):
        every: list[Any] = [*networks] if isinstance(networks, Sequence) else [networks]
        self.network: Network = max(every, key=lambda network: len(network.sources))
        self.settings, self.chunk_frames, self.precision = self.network.settings, chunk_frames, precision
        self.targets, self.sources = self.network.targets, self.network.sources
        if precision not in ("auto", "bf16", "fp32"):
            raise UserError(
                f"there is no precision called {precision}: choose auto, bf16 or fp32.", code="no_precision"
            )
        self.stems = names(stems) or self.sources
        self.masked = masked_targets(self.network, self.stems)
        shared = [tuple(target for target in self.masked if target in network.targets) for network in every]
        passes = zip(every, cycle(speeds), shared, strict=False)
        self.passes = [(network, speed, targets) for network, speed, targets in passes if targets]

    @classmethod
    def load(
        cls,
        weights: str | Path | Sequence[str | Path] | None = None,
        device: Any = "auto",
        stems: str | Sequence[str] | None = None,
        engine: str = "auto",
        network: str | None = None,
    ) -> Separator:
        """Load a weights file, or several, whose estimates are averaged; `device` is as in `choose_device`.

        `fast`, the default, stands for the shipped weights for these stems, `best` for three passes of all shipped
        weights that help them; see `find_weights` for others. A file that is named several times makes as many passes,
        each at another speed. If no stems are named, `fast` and `best` return vocals and accompaniment, and files the
        sources of their networks. `engine` is as in `choose_engine`. `network` names the class of a network that is not
        part of this package, as `package.module:Class`; see `load_weights`.

        Raises `UserError` if the weights are missing, damaged or foreign, or do not separate these stems, or if there
        is no such device or engine.
        """
        wanted = stems_of(weights, names(stems))
        paths = find_weights(weights, wanted, engine, device)
        networks = {path: open_network(path, device, network) for path in dict.fromkeys(paths)}
        return cls([networks[path] for path in paths], wanted)

    @property
    def licence(self) -> str:
        """Licences of the weights in use, in words, without duplicates."""
        return " ".join(dict.fromkeys(network.licence for network, _, _ in self.passes))

    @property
    def place(self) -> str:
        """Engine and device of the network, in words."""
        return self.network.place

    @property
    def grid(self) -> Fraction:
        """Seconds: an excerpt that starts at a multiple of this has exactly the song's frames, in all networks."""
        grids = [Fraction(one.stride * one.settings.hop, one.settings.sample_rate) for one, _, _ in self.passes]
        return Fraction(lcm(*(grid.numerator for grid in grids)), gcd(*(grid.denominator for grid in grids)))

    @property
    def surroundings(self) -> float:
        """Seconds of context before and after an excerpt that its stems depend on."""

        def seconds(network: Network) -> float:
            frames = whole_strides(network.context, network.stride) + network.stride
            return (frames * network.settings.hop + network.settings.n_fft) / network.settings.sample_rate

        return max(speed * seconds(network) for network, speed, _ in self.passes)

    def __call__(self, waveform: Any, sample_rate: int) -> Stems:
        """Separate a song into stems, by name, each float32 and of the song's shape and sample rate, in hertz.

        A song is a tensor or a numpy array `[1 or 2 channels, samples]`, or `[samples]` for mono; full scale is 1 for
        floats, and that of the type for integers. `[batch, channels, samples]` holds songs of equal length. Stems are
        tensors if the song is a tensor, else arrays.

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
            joined = join(self.stream([song], rate), self.stems, len(song))
        return {stem: like(waveform, signal) for stem, signal in joined.items()}

    def stream(self, blocks: Iterable[Any], sample_rate: int | None = None) -> Iterator[Stems]:
        """Separate a song that arrives in blocks `[1 or 2 channels, n]`; yield its stems by name, in blocks as well.

        Output blocks have the total length of the input blocks, but not block for block. `sample_rate` is in hertz, by
        default the network's. Samples may be of any type that a whole song may have.

        Raises `UserError` if there are more than two channels, if samples are not finite or have no full scale, or if
        the sample rate is invalid.
        """
        song = Song(self, self.settings.sample_rate if sample_rate is None else sample_rate, self.chunk_frames)
        for block in blocks:
            yield from song.pieces(block)
        yield from song.rest()

    def live(self, sample_rate: int) -> Song:
        """Start a song that is still playing: `push(block)` returns the stems that are ready, `flush()` the rest.

            live = separator.live(44100)
            for block in microphone:  # [1 or 2 channels, n], of any length
                stems = live.push(block)  # {"vocals": [channels, m], ...}
            stems = live.flush()

        The stems are at most `live.latency` seconds late. They are bit-identical to those of the whole song, by a
        separator with `chunk_frames` of 1.

        Raises `UserError` if the sample rate is invalid.
        """
        return Song(self, sample_rate, 1)


class Song:
    """A song that arrives in blocks `[1 or 2 channels, n]` of any length; its stems are output when they are ready.

    The concatenated output of all calls is as long as the song.
    """

    def __init__(self, separator: Separator, sample_rate: int, chunk_frames: int | None):
        self.network, self.stems, rate = separator.network, separator.stems, check_rate(sample_rate)
        # Each pass gets every block as it arrives, so none runs ahead and buffers stay bounded.
        self.passes = [Pass(*one[::2], rate, one[1], chunk_frames, separator.precision) for one in separator.passes]
        self.latency = max(one.delay * one.rate for one in self.passes) / rate
        self.song, self.channels = Queue(), 0  # until the first block arrives
        self.given: Any = None  # the latest block as it was given

    @property
    def waiting(self) -> int:
        """Number of samples that are buffered, of the song and of its separated targets."""
        return len(self.song) + sum(len(one.waiting) for one in self.passes)

    def push(self, block: Any) -> Stems:
        """Take the next block and return the stems that are ready, of any length, possibly empty.

        Raises `UserError` as `Separator.stream` does.
        """
        return self._joined(self.pieces(block))

    def flush(self) -> Stems:
        """End the song and return the rest of its stems."""
        return self._joined(self.rest())

    def pieces(self, block: Any) -> Iterator[Stems]:
        """The output of `push`, chunk by chunk."""
        self.given, waveform = block, as_waveform(block)
        check_waveform(waveform)
        self.channels = self.channels or len(waveform)
        if len(waveform) != self.channels:
            raise UserError(f"the song has {self.channels} channels, but one of its blocks has {len(waveform)}.")
        for start in range(0, max(waveform.shape[1], 1), BLOCK):
            piece = waveform[:, start : start + BLOCK]
            self.song.put(piece)
            yield from self._ready(piece)

    def rest(self) -> Iterator[Stems]:
        """The output of `flush`, chunk by chunk."""
        if self.channels:
            yield from self._ready(None)

    def _ready(self, block: np.ndarray | None) -> Iterator[Stems]:
        for one in self.passes:
            one.push(block, self.channels, len(self.song))
        if not (ready := min(len(one.waiting) for one in self.passes)):
            return
        song = self.song.take(ready)
        found: dict[str, list[np.ndarray]] = {}
        for one in self.passes:
            signals = one.waiting.take(ready).reshape(len(one.targets), self.channels, ready)[..., : song.shape[1]]
            for target, signal in zip(one.targets, signals, strict=True):
                found.setdefault(target, []).append(signal)
        if song.shape[1]:
            targets = {name: np.mean(each, axis=0) if len(each) > 1 else each[0] for name, each in found.items()}
            stems = with_rests(self.network, targets, song)
            yield {stem: like(self.given, stems[stem]) for stem in self.stems}

    def _joined(self, pieces: Iterable[Stems]) -> Stems:
        ready = list(pieces)  # this also sets `channels`
        return {stem: like(self.given, signal) for stem, signal in join(ready, self.stems, self.channels or 2).items()}


def open_network(path: Path, device: Any = "auto", network: str | None = None) -> Network:
    """Open the network of a weights file: an ONNX file in ONNX Runtime, without torch; any other in torch.

    Raises `UserError` as `load_weights`, `OnnxNetwork` and `choose_device` do.
    """
    if path.suffix == ".onnx":
        from separation.inference.onnx import OnnxNetwork

        if str(device) not in ("auto", "cpu"):
            advice = "omit it, or use weights for torch, with pip install '.[gpu]'"
            raise UserError(f"--device {device}: ONNX files run on the CPU: {advice}.", code="no_device")
        return OnnxNetwork(path)
    return load_network(path, device, network)


def join(pieces: Iterable[Stems], stems: Sequence[str], channels: int) -> Stems:
    """Concatenate pieces of a song, as arrays."""
    collected, nothing = list(pieces), np.zeros((channels, 0), np.float32)
    return {stem: np.concatenate([nothing, *(np.asarray(piece[stem]) for piece in collected)], 1) for stem in stems}


def sdr(reference: Any, estimate: Any) -> float:
    """10 log10 of the energy of `reference` over that of the error, in dB, over whole signals of any shape.

    Over a song, this is the plain SDR of the Sony MDX challenges (usdr). A floor keeps it finite for silence.
    """
    energy, error = (float((signal**2).sum()) + 1e-10 for signal in (reference, reference - estimate))
    return 10 * log10(energy / error)


def names(stems: str | Sequence[str] | None) -> tuple[str, ...]:
    """Names of stems, without duplicates; a single string is one stem."""
    return tuple(dict.fromkeys([stems] if isinstance(stems, str) else stems or ()))


def available_stems(network: Network) -> tuple[str, ...]:
    """The stems that a network can output: its sources, and the rest of each single target."""
    rests = (rest_name([target]) for target in network.targets)
    return tuple(dict.fromkeys((*network.sources, *(rest for rest in rests if rest))))


def masked_targets(network: Network, stems: Sequence[str]) -> tuple[str, ...]:
    """The targets whose masks are needed for `stems`, in the order of the network.

    Raises `UserError` if a stem is not among the `available_stems`.
    """
    choices = available_stems(network)
    if missing := [stem for stem in stems if stem not in choices]:
        *others, last = map(str, missing)
        named = f"{', '.join(others)} or {last}" if others else last
        raise UserError(
            f"these weights do not separate {named}: choose among {with_aliases(choices)}.", code="unknown_stem"
        )
    *others, last = network.sources
    needed = [target for target in network.targets if target in stems or rest_name([target]) in stems]
    if len(needed) == len(network.sources) or (last in stems and last not in network.targets):
        return tuple(others)
    return tuple(needed)


def with_rests(network: Network, stems: Mapping[str, np.ndarray], song: np.ndarray) -> dict[str, np.ndarray]:
    """Add to masked targets what follows from them: the network's last source, and the rest of each target."""
    *others, last = network.sources
    given = dict(stems)
    if tuple(given) == tuple(others):
        given[last] = song - sum(given.values())
    for target in set(network.targets) & set(given):
        given.setdefault(rest_name([target]) or "", song - given[target])
    return given


def like(samples: Any, stem: np.ndarray) -> Any:
    """A stem in the form in which the song was given: a tensor for a tensor, else an array."""
    if not hasattr(samples, "detach"):
        return stem
    import torch

    return torch.from_numpy(np.ascontiguousarray(stem))
