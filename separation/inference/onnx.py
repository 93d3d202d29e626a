"""Separation without torch, by an ONNX file that `separation.apps.export` wrote."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from separation.audio.stft import Spectral, SpectralSettings
from separation.errors import UserError
from separation.inference.stream import whole_strides
from separation.runtime import count, threads

FORMAT = "separation onnx 1"
"""The `format` entry in the metadata of our files; see `separation.apps.export`."""

CHUNK = 32
"""Frames separated at a time."""


class OnnxNetwork:
    """A network run by ONNX Runtime; see `separation.inference.stream.Network`.

    Args:
        path: the ONNX file.

    Raises:
        UserError: the file is missing, damaged or foreign, or ONNX Runtime is not installed.
    """

    def __init__(self, path: str | Path):
        self.session = open_session(Path(path))
        try:
            metadata = {key: json.loads(text) for key, text in self.session.get_modelmeta().custom_metadata_map.items()}
            stft = metadata["spectral"]
            self.settings = SpectralSettings(stft["sample_rate"], stft["n_fft"], stft["hop"])
            self.targets, self.sources = tuple(metadata["targets"]), tuple(metadata["sources"])
            self.licence = str(metadata["licence"])
            self.stride, self.context, self.lag = metadata["stride"], metadata["context"], metadata["lag"]
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(
                f"{path} is damaged, or was made by another version of this program ({error}).", code="bad_weights"
            ) from error
        self.spectral = Spectral(self.settings)

    @property
    def place(self) -> str:
        return f"ONNX Runtime, CPU, {count(threads(), 'thread')}"

    def chunk(self, frames: int | None) -> int:
        return whole_strides(frames or CHUNK, self.stride)

    def begin(self, targets: Sequence[str], precision: str) -> OnnxStep:
        if precision not in ("auto", "fp32"):
            raise UserError(f"ONNX files are computed in fp32, not in {precision}.", code="no_precision")
        return OnnxStep(self, targets)


class OnnxStep:
    """A network at work on one song; see `separation.inference.stream.Step`."""

    def __init__(self, network: OnnxNetwork, targets: Sequence[str]):
        self.session, self.spectral, self.lag = network.session, network.spectral, network.lag
        self.masked = [network.targets.index(target) for target in targets]
        first, *states = self.session.get_inputs()
        self.mixture = first.name
        self.states = {state.name: np.zeros(state.shape, np.float32) for state in states}

    def __call__(self, piece: np.ndarray) -> np.ndarray:
        spectrogram = np.ascontiguousarray(self.spectral.analyse(piece).swapaxes(-1, -2))  # [2, frames, bins]
        mixture = spectrogram.view(np.float32).reshape(*spectrogram.shape, 2)
        targets, *states = self.session.run(None, {self.mixture: mixture, **self.states})
        self.states = dict(zip(self.states, states, strict=True))
        separated = np.ascontiguousarray(targets[self.masked]).view(np.complex64)[..., 0]
        return self.spectral.synthesise(separated.swapaxes(-1, -2))


@cache
def share_memory(onnxruntime: Any) -> None:
    """Let all sessions of this process share one memory arena: the passes of `best` quality take 40 MB less."""
    kind = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    onnxruntime.create_and_register_allocator(onnxruntime.OrtMemoryInfo("Cpu", *kind), None)


def open_session(path: Path) -> Any:
    """An ONNX Runtime session for one of our files. Raises `UserError` as `OnnxNetwork` does."""
    if not path.is_file():
        raise UserError(
            f"there are no weights at {path}: where torch is installed, `python -m separation export WEIGHTS {path}` "
            "writes them.",
            code="no_weights",
        )
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"{path} needs ONNX Runtime: pip install onnxruntime.", code="no_engine") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    # On a busy machine, spinning threads take 1.4 times the CPU time (ONNX Runtime 1.32).
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    share_memory(onnxruntime)
    options.add_session_config_entry("session.use_env_allocators", "1")
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # each kind of failure has its own class
        raise UserError(f"{path} is not an ONNX file, or is damaged: export it again.", code="bad_weights") from error
    if session.get_modelmeta().custom_metadata_map.get("format") != json.dumps(FORMAT):
        message = f"{path} is an ONNX file of another program: name one written by `separation export`."
        raise UserError(message, code="foreign_weights")
    return session
