"""A waveform of any length becomes stems, in constant memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from separation.errors import UserError
from separation.network.checkpoint import load_network
from separation.network.device import choose_device, choose_precision
from separation.network.masking import MaskingNetwork
from separation.network.pretrained import find_weights
from separation.network.stream import SongStream
from separation.network.waveforms import as_waveform, check_rate, check_waveform
from separation.stems import rest_name


class Separator:
    """Takes songs apart with a masking network.

        separator = Separator.load()
        stems = separator(waveform, sample_rate)

    A song goes through the network as a stream, in which every frame is computed once, with all the frames that it
    depends on, so the stems do not depend on where the chunks begin. The last source of the network, like the rest of a
    target, is not computed but what the others leave of the song: the sources sum to the song, at any sample rate.

    Args:
        network: the trained network; it is used where it is.
        stems: name or names of the stems to give, of `available_stems`; by default the sources of the network.
        chunk_frames: frames separated at a time: more take more memory.
        precision: of the network: `fp32`, `bf16`, or `auto` for whichever is faster on its device.

    Raises:
        UserError: the network has no such stem.
    """

    def __init__(
        self,
        network: MaskingNetwork,
        stems: str | Sequence[str] | None = None,
        chunk_frames: int = 128,
        precision: str = "auto",
    ):
        self.network = network
        self.stems = names(stems) or network.sources
        missing = [stem for stem in self.stems if stem not in available_stems(network)]
        if missing:
            choices = ", ".join(available_stems(network))
            raise UserError(f"these weights do not separate {' and '.join(map(str, missing))}: choose among {choices}.")
        self.masked = masked_targets(network, self.stems)
        self.context = self._whole_strides(network.context) if network.context else 0
        self.chunk = self._whole_strides(chunk_frames)
        self.device = network.spectral.window.device
        self.dtype = choose_precision(precision, self.device)

    @classmethod
    def load(
        cls,
        weights: str | Path | Sequence[str | Path] | None = None,
        device: str | torch.device = "auto",
        stems: str | Sequence[str] | None = None,
    ) -> Separator:
        """The separator of a weights file, or of several, whose estimates are averaged; see `choose_device`.

        `fast`, the default, stands for the shipped weights for these stems, `best` for all shipped ones that help them.

        Raises `UserError` when the weights are missing, damaged or foreign, or do not separate these stems, and when
        there is no such device.
        """
        stems, chosen = names(stems), choose_device(device)
        paths = find_weights(weights, stems)
        if len(paths) == 1:
            return cls(load_network(paths[0], chosen), stems)
        from separation.network.ensemble import Ensemble  # which is a Separator itself

        return Ensemble([cls(load_network(path, chosen)) for path in paths], stems)

    def __call__(self, waveform: Tensor | Any, sample_rate: int) -> dict[str, Tensor]:
        """The stems of a song by name, each a float32 tensor of the song's shape, at its sample rate in hertz.

        A song is a tensor or a numpy array `[1 or 2 channels, samples]`, or `[samples]` for mono; full scale is 1 for
        floats, and that of their type for whole numbers. `[batch, channels, samples]` are songs of one length.

        Raises `UserError` as `stream` does.
        """
        waveform, rate = as_waveform(waveform), check_rate(sample_rate)
        if waveform.dim() == 1:
            return {stem: signal[0] for stem, signal in self(waveform[None], rate).items()}
        if waveform.dim() == 3:
            songs = [self(song, rate) for song in waveform]
            return {stem: torch.stack([song[stem] for song in songs]) if songs else waveform for stem in self.stems}
        check_waveform(waveform)
        pieces = list(self.stream(waveform.split(1 << 16, dim=-1), rate))
        return {stem: torch.cat([waveform[:, :0], *(piece[stem] for piece in pieces)], dim=-1) for stem in self.stems}

    def stream(self, blocks: Iterable[Tensor | Any], sample_rate: int | None = None) -> Iterator[dict[str, Tensor]]:
        """The stems of a song that comes in blocks `[1 or 2 channels, n]`, as blocks by name.

        The blocks that come out are as long together as those that went in, but not one by one. `sample_rate` is in
        hertz, by default the network's. Samples may be of any kind that a whole song may have.

        Raises `UserError` when there are more than two channels, samples that are not numbers or have no full scale,
        or no such sample rate.
        """
        own_rate = self.network.settings.sample_rate
        song = SongStream(self, own_rate if sample_rate is None else sample_rate, self.chunk)
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
        return SongStream(self, sample_rate, self._whole_strides(chunk_frames))

    @property
    def grid(self) -> Fraction:
        """Seconds after which a song may begin later, and have the very same frames."""
        return Fraction(self.network.stride * self.network.settings.hop, self.network.settings.sample_rate)

    def _whole_strides(self, frames: int) -> int:
        return -(-max(frames, 1) // self.network.stride) * self.network.stride

    def share_out(self, song: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The stems of a piece `[channels, n]` of a song, from its masked targets `[targets * 2, n]`."""
        targets = targets.unflatten(0, (-1, 2))
        if len(song) == 1:
            targets = targets.mean(dim=1, keepdim=True)
        stems = with_rests(self.network, dict(zip(self.masked, targets, strict=True)), song)
        return {stem: stems[stem] for stem in self.stems}


def names(stems: str | Sequence[str] | None) -> tuple[str, ...]:
    """Names of stems, each once; a lone name is one stem."""
    return tuple(dict.fromkeys([stems] if isinstance(stems, str) else stems or ()))


def with_rests(network: MaskingNetwork, stems: dict[str, Tensor], song: Tensor) -> dict[str, Tensor]:
    """Masked targets of a song, and what follows from them: the network's last source, and the rest of each target.

    All are `[channels, n]`.
    """
    *others, last = network.sources
    stems = dict(stems)
    if tuple(stems) == tuple(others):
        stems[last] = song - sum(stems.values())
    for target in set(network.targets) & set(stems):
        stems.setdefault(rest_name([target]), song - stems[target])
    return stems


def available_stems(network: MaskingNetwork) -> tuple[str, ...]:
    """The stems that a network can give: its sources, and for each target what is left without it."""
    rests = (rest_name([target]) for target in network.targets)
    return tuple(dict.fromkeys((*network.sources, *rests)))


def masked_targets(network: MaskingNetwork, stems: Sequence[str]) -> tuple[str, ...]:
    """The targets whose masks are needed for some of the `available_stems`, in the order of the network."""
    *others, last = network.sources
    needed = [target for target in network.targets if target in stems or rest_name([target]) in stems]
    if len(needed) == len(network.sources) or (last in stems and last not in network.targets):
        return tuple(others)
    return tuple(needed)
