"""A waveform of any length becomes stems, in constant memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from separation.inference.checkpoint import load_network
from separation.inference.device import choose_device, choose_eight_bits, choose_precision
from separation.inference.masking import MaskingNetwork
from separation.inference.pretrained import find_weights, stems_of
from separation.inference.sources import check_stems, masked_targets, names
from separation.inference.stream import StreamSeparator
from separation.inference.waveforms import as_waveform, check_rate, check_waveform
from separation.runtime import count


class Separator(StreamSeparator):
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
        precision: of the network: `fp32`, `bf16`, `int8` (its convolutions; the rest as `auto` says), or `auto` for
            whichever is fastest on its device.

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
        check_stems(network, self.stems)
        self.settings, self.targets, self.sources = network.settings, network.targets, network.sources
        self.stride = network.stride
        self.masked = masked_targets(network, self.stems)
        self.context = self.whole_strides(network.context)
        self.chunk = self.whole_strides(chunk_frames)
        self.device = network.spectral.window.device
        self.dtype = choose_precision(precision, self.device)
        self.eight_bits = choose_eight_bits(precision, self.device, network.ranges is not None)

    @classmethod
    def load(
        cls,
        weights: str | Path | Sequence[str | Path] | None = None,
        device: str | torch.device = "auto",
        stems: str | Sequence[str] | None = None,
    ) -> Separator:
        """The separator of a weights file, or of several, whose estimates are averaged; see `choose_device`.

        `fast`, the default, stands for the shipped weights for these stems, `best` for three hearings by all shipped
        ones that help them. A file that is named several times hears the song as often, each time at another speed.
        Where no stems are named, both give vocals and accompaniment, and files what they have.

        Raises `UserError` when the weights are missing, damaged or foreign, or do not separate these stems, and when
        there is no such device.
        """
        stems, chosen = stems_of(weights, names(stems)), choose_device(device)
        paths = find_weights(weights, stems)
        if len(paths) == 1:
            return cls(load_network(paths[0], chosen), stems)
        from separation.inference.ensemble import Ensemble  # which is a Separator itself

        networks = {path: load_network(path, chosen) for path in dict.fromkeys(paths)}
        return Ensemble([cls(networks[path]) for path in paths], stems)

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

    @property
    def place(self) -> str:
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"{self.device.type.upper()}, {count(torch.get_num_threads(), 'thread')}"

    def begin(self) -> TorchStep:
        return TorchStep(self)

    def take(self, block: Tensor | Any) -> np.ndarray:
        return as_waveform(block).numpy()

    def give(self, stem: np.ndarray) -> Tensor:
        return torch.from_numpy(stem)


class TorchStep:
    """A network within a song; see `separation.inference.stream.Step`."""

    def __init__(self, separator: Separator):
        self.spectral, self.device = separator.network.spectral, separator.device
        self.stream = separator.network.stream(separator.dtype, separator.masked, separator.eight_bits)
        self.lag = self.stream.lag

    @torch.no_grad()
    def __call__(self, piece: np.ndarray) -> np.ndarray:
        spectrogram = self.spectral.analyse(torch.from_numpy(piece).to(self.device))
        return self.spectral.synthesise(self.stream(spectrogram)).cpu().numpy()
