"""A network becomes an ONNX file, for hosts without torch: one step of its stream, with its states outside.

Beside the states, the file has the input `mixture`, float32 `[2 channels, frames, bins, 2]` (real and imaginary part),
a piece of the song's STFT, whose frames are a multiple of `stride`. It gives `targets`, `[targets, 2 channels, frames,
bins, 2]`, `lag` frames late, and of each state a `next_...`, which goes with the next piece. States begin as zeros, and
`context` frames come before the song: its mirror image, or silence, which loses a little where the song sets in. What
the targets leave of the song is the rest. The metadata says what a host must know, each entry JSON:

    format    "separation onnx 1"
    targets   names of the stems in `targets`
    sources   the same and, where there is one, the name of the rest
    spectral  sample_rate, n_fft, hop, and the window: frame t covers the samples from t * hop - (n_fft - hop), times a
              periodic Hann window, and the spectrum is times `scale`, 1 / sqrt(n_fft); the inverse is an overlap-add
              of frames times the window and `synthesis_gain`, hop / sum(window ** 2)
    stride, context, lag    in frames
    latency   in seconds, with pieces of one stride
    licence   of the weights
    version   of this program
"""

from __future__ import annotations

import json
import warnings
from contextlib import redirect_stdout
from io import BytesIO, StringIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import separation
from separation.errors import UserError
from separation.files import replacing
from separation.inference.masking import MaskingNetwork
from separation.inference.onnx import FORMAT
from separation.inference.weights import Weights, load_weights
from separation.models.unet import UNet, compress_powers
from separation.models.unet_stream import Memory, UNetStream

OPSET = 17
"""Of ONNX; every runtime since 2022 has it."""


def export(weights: str | Path, path: str | Path, network: str | None = None) -> dict[str, str]:
    """Write the network of a weights file as ONNX, all or nothing, and give its metadata.

    Raises `UserError` when the weights are missing, damaged or foreign, the file cannot be written, or the package onnx
    is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise UserError("writing ONNX needs the package onnx: pip install onnx onnxruntime.") from error
    loaded = load_weights(weights, network=network)
    if not isinstance(loaded.network.generator, UNet):
        raise UserError(
            f"{weights} cannot be written as ONNX: the exporter writes a step of the stream of the U-Net, "
            f"and this is a {type(loaded.network.generator).__name__}.",
            code="no_export",
        )
    step = Step(loaded.network)
    model = onnx.load_from_string(trace(step))
    said = metadata(loaded, step)
    onnx.helper.set_model_props(model, said)
    for state, following in zip(model.graph.input[1:], model.graph.output[1:], strict=True):
        following.type.CopyFrom(state.type)  # the tracer lost the shapes of these
    halve(model.graph)
    model.producer_name, model.producer_version = "separation", separation.__version__
    onnx.checker.check_model(model)
    with replacing(Path(path)) as partial:
        partial.write_bytes(model.SerializeToString())
    return said


def halve(graph: Any) -> None:
    """Store large constants in half precision, as weights files do, each with a cast: half the bytes of the file."""
    from onnx import TensorProto, helper, numpy_helper

    nodes = []
    for node in graph.node:
        nodes.append(node)
        value = node.attribute[0].t if node.op_type == "Constant" else None
        if value is None or value.data_type != TensorProto.FLOAT or prod(value.dims) <= 64:
            continue
        halved = numpy_helper.to_array(value).astype(np.float16)
        if np.isfinite(halved).all():
            name = node.output[0]
            node.output[0] = f"{name}_half"
            value.CopyFrom(numpy_helper.from_array(halved))
            nodes.append(helper.make_node("Cast", [node.output[0]], [name], to=TensorProto.FLOAT))
    del graph.node[:]
    graph.node.extend(nodes)


class Step(nn.Module):
    """A step of a network's stream, with its states as arguments and results; see above."""

    @torch.no_grad()
    def __init__(self, network: MaskingNetwork):
        super().__init__()
        network.requires_grad_(False)
        self.generator, self.bins = network.generator, network.settings.bins
        self.stream = UNetStream(network.generator, torch.float32)
        self.mixture = Memory(self.stream.lag, dim=1)
        self.histories = {name: history for name, history in self._named() if history.length}
        self(torch.zeros(2, network.stride, self.bins, 2))
        self.initial = {name: torch.zeros_like(history.frames) for name, history in self.histories.items()}

    def _named(self):
        stream = self.stream
        yield "mixture", self.mixture
        yield "inlet", stream.before
        yield from ((f"even_{level}", history) for level, history in enumerate(stream.evens))
        yield from ((f"skip_{level}", history) for level, history in enumerate(reversed(stream.skips)))
        levels = {f"encoder_{level}": blocks for level, blocks in enumerate(stream.encoder)}
        levels |= {"bottom": stream.bottom}
        levels |= {f"decoder_{level}": blocks for level, blocks in enumerate(stream.decoder)}
        for level, blocks in levels.items():
            yield from ((f"{level}_{index}", block.before) for index, block in enumerate(blocks))

    def forward(self, mixture: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        for history, state in zip(self.histories.values(), states, strict=False):  # without states they begin anew
            history.frames = state
        left, right = mixture[:, :, : self.generator.used_bins].unbind(0)
        views = (left, right, (left + right) / 2, (left - right) / 2)
        logits = self.stream.logits(compress_powers(torch.stack([view.square().sum(-1) for view in views])))
        masks = self.generator.masks(logits[None], self.bins, dim=-1)[0]
        targets = masks[..., None] * self.mixture.delay(mixture)
        return (targets, *(history.frames for history in self.histories.values()))


def trace(step: Step) -> bytes:
    """The ONNX file of a step, without metadata."""
    example = torch.rand(2, 2 * step.generator.stride, step.bins, 2)
    names = list(step.histories)
    buffer = BytesIO()
    # The tracer warns of what it takes for constant, such as the number of bands, and of being the older one.
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            step,
            (example, *step.initial.values()),
            buffer,
            dynamo=False,
            opset_version=OPSET,
            input_names=["mixture", *names_of_states(names)],
            output_names=["targets", *(f"next_{name}" for name in names_of_states(names))],
            dynamic_axes={"mixture": {1: "frames"}, "targets": {2: "frames"}},
        )
    return buffer.getvalue()


def names_of_states(names: list[str]) -> list[str]:
    return [f"state_{name}" for name in names]


def metadata(weights: Weights, step: Step) -> dict[str, str]:
    """What the file says about itself."""
    network = weights.network
    settings, stride, lag = network.settings, network.stride, step.stream.lag
    said = {
        "format": FORMAT,
        "targets": network.targets,
        "sources": network.sources,
        "spectral": {
            "sample_rate": settings.sample_rate,
            "n_fft": settings.n_fft,
            "hop": settings.hop,
            "window": "hann, periodic",
            "scale": settings.n_fft**-0.5,
            "first_sample": settings.hop - settings.n_fft,
            "synthesis_gain": 1 / network.spectral.gain,
        },
        "stride": stride,
        "context": -(-network.context // stride) * stride,
        "lag": lag,
        "latency": ((lag + stride) * settings.hop + settings.padding) / settings.sample_rate,
        "licence": weights.licence,
        "version": separation.__version__,
    }
    return {key: json.dumps(value) for key, value in said.items()}
