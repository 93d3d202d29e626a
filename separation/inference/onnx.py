"""Songs become stems where torch is not installed: by an ONNX file that `separation.apps.export` wrote."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from separation.audio.numpy_stft import Stft
from separation.audio.settings import SpectralSettings
from separation.errors import UserError
from separation.inference.sources import check_stems, masked_targets, names
from separation.inference.stream import StreamSeparator
from separation.runtime import count, threads

FORMAT = "separation onnx 1"
"""What the metadata of our files says first; see `separation.apps.export`."""


class PortableSeparator(StreamSeparator):
    """A `Separator` that ONNX Runtime computes: float32 arrays in, the same stems out, as arrays.

    Args:
        path: the ONNX file.
        device: `auto` or `cpu`.
        stems: name or names of the stems to give; by default all that the network has.
        chunk_frames: frames separated at a time.

    Raises:
        UserError: the file is missing, damaged or foreign, has no such stem, or ONNX Runtime is not installed.
    """

    def __init__(
        self,
        path: str | Path,
        device: str = "auto",
        stems: str | Sequence[str] | None = None,
        chunk_frames: int = 64,
    ):
        if device not in ("auto", "cpu"):
            raise UserError(f"--device {device}: ONNX files run on the CPU here; leave it away.")
        self.session = open_session(Path(path))
        try:
            said = {key: json.loads(text) for key, text in self.session.get_modelmeta().custom_metadata_map.items()}
            stft = said["spectral"]
            self.settings = SpectralSettings(stft["sample_rate"], stft["n_fft"], stft["hop"])
            self.targets, self.sources = tuple(said["targets"]), tuple(said["sources"])
            self.stride, self.context, self.lag = said["stride"], said["context"], said["lag"]
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(f"{path} is damaged, or was made by another version of this program ({error}).") from error
        self.stems = names(stems) or self.sources
        check_stems(self, self.stems)
        self.masked = masked_targets(self, self.stems)
        self.chunk = self.whole_strides(chunk_frames)
        self.stft = Stft(self.settings)

    @property
    def place(self) -> str:
        return f"ONNX Runtime, CPU, {count(threads(), 'thread')}"

    def begin(self) -> OnnxStep:
        return OnnxStep(self)

    def take(self, block: Any) -> np.ndarray:
        return np.asarray(block, np.float32)

    def give(self, stem: np.ndarray) -> np.ndarray:
        return stem


class OnnxStep:
    """A network within a song; see `separation.inference.stream.Step`."""

    def __init__(self, separator: PortableSeparator):
        self.session, self.stft, self.lag = separator.session, separator.stft, separator.lag
        self.masked = [separator.targets.index(target) for target in separator.masked]
        first, *states = self.session.get_inputs()
        self.mixture = first.name
        self.states = {state.name: np.zeros(state.shape, np.float32) for state in states}

    def __call__(self, piece: np.ndarray) -> np.ndarray:
        targets, *states = self.session.run(None, {self.mixture: self.stft.analyse(piece), **self.states})
        self.states = dict(zip(self.states, states, strict=True))
        return self.stft.synthesise(targets[self.masked])


def open_session(path: Path) -> Any:
    """An ONNX Runtime session of one of our files. Raises `UserError` as `PortableSeparator` does."""
    if not path.is_file():
        raise UserError(
            f"there are no weights at {path}: where torch is installed, `python -m separation export WEIGHTS {path}` "
            "writes them."
        )
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"{path} needs ONNX Runtime: pip install onnxruntime.") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # it has a class of its own for each trouble
        raise UserError(f"{path} is no ONNX file, or is damaged: export it anew.") from error
    if session.get_modelmeta().custom_metadata_map.get("format") != json.dumps(FORMAT):
        raise UserError(f"{path} is an ONNX file of another program: name one that `separation export` wrote.")
    return session
