"""A waveform of any length becomes stems, in constant memory."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from separation.errors import UserError
from separation.inference.stream import (
    Network,
    NetworkSong,
    StreamSeparator,
    check_stems,
    grid_of,
    masked_targets,
    names,
    surroundings_of,
)
from separation.inference.weights import find_weights, load_network, stems_of


def open_network(path: Path, device: Any = "auto", network: str | None = None) -> Network:
    """The network of a weights file: an ONNX file by ONNX Runtime, without torch; any other by torch.

    Raises `UserError` as `load_weights`, `OnnxNetwork` and `choose_device` do.
    """
    if path.suffix == ".onnx":
        from separation.inference.onnx import OnnxNetwork

        if str(device) not in ("auto", "cpu"):
            raise UserError(f"--device {device}: ONNX files run on the CPU here; omit it.", code="no_device")
        return OnnxNetwork(path)
    from separation.inference.device import choose_device

    return load_network(path, choose_device(device), network)


class Separator(StreamSeparator):
    """Takes songs apart with a network.

        separator = Separator.load()
        stems = separator(waveform, sample_rate)

    A song goes through the network in chunks, each with all that its frames depend on, so the stems do not depend on
    where the chunks begin. The last source of the network, like the rest of a target, is not computed but what the
    others leave of the song: the sources sum to the song, at any sample rate.

    Args:
        network: the trained network, used where it is: a `MaskingNetwork`, or an `OnnxNetwork`.
        stems: name or names of the stems to give, of `available_stems`; by default the sources of the network.
        chunk_frames: frames separated at a time: more take more memory. By default what suits the network.
        precision: of the network: `fp32`, `bf16`, or `auto` for whichever is fastest on its device.

    Raises:
        UserError: the network has no such stem, or there is no such precision.
    """

    def __init__(
        self,
        network: Network,
        stems: str | Sequence[str] | None = None,
        chunk_frames: int | None = None,
        precision: str = "auto",
    ):
        self.network: Network = network
        self.stems = names(stems) or network.sources
        check_stems(network, self.stems)
        self.settings, self.precision = network.settings, precision
        self.masked = masked_targets(network, self.stems)
        self.chunk = network.chunk(chunk_frames)

    @classmethod
    def load(
        cls,
        weights: str | Path | Sequence[str | Path] | None = None,
        device: Any = "auto",
        stems: str | Sequence[str] | None = None,
        network: str | None = None,
    ) -> StreamSeparator:
        """The separator of a weights file, or of several, whose estimates are averaged; see `choose_device`.

        `fast`, the default, stands for the shipped weights for these stems, `best` for three passes of all shipped
        ones that help them. A file that is named several times is used as often, each time at another speed. Where no
        stems are named, both give vocals and accompaniment, and files what they have. `network` names the class of a
        network that is not part of this package, as `package.module:Class`; see `load_weights`.

        Raises `UserError` when the weights are missing, damaged or foreign, or do not separate these stems, and when
        there is no such device.
        """
        from separation.inference.passes import Passes

        wanted = stems_of(weights, names(stems))
        paths = find_weights(weights, wanted)
        networks = {path: open_network(path, device, network) for path in dict.fromkeys(paths)}
        if len(paths) == 1:
            return cls(networks[paths[0]], wanted)
        return Passes([networks[path] for path in paths], wanted)

    @property
    def grid(self) -> Fraction:
        return grid_of(self.network)

    @property
    def surroundings(self) -> float:
        return surroundings_of(self.network)

    def open(self, sample_rate: int, live: bool = False) -> NetworkSong:
        chunk = self.network.chunk(1) if live else self.chunk
        step = self.network.begin(self.masked, self.precision)
        return NetworkSong(self.network, self.stems, self.masked, sample_rate, step, chunk)
