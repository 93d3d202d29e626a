"""Export a network to ONNX, for hosts without torch: one step of its stream, with its states as inputs and outputs.

Apart from the states, the input is `mixture`, a piece of the song's STFT: float32 `[2 channels, frames, bins, 2]`, the
last axis real and imaginary part, with a multiple of `stride` frames. The outputs are `targets`, `[targets, 2 channels,
frames, bins, 2]`, `lag` frames late, and for each state a `next_...` to pass with the next piece. States start at zero;
feed `context` frames before the song: its mirror image, or silence, which costs some quality where the song starts. The
rest is the song minus the targets. The metadata states what a host must know; every entry is JSON:

    format    "separation onnx 1"
    targets   names of the stems in `targets`
    sources   the same and, if there is a rest, its name
    spectral  sample_rate, n_fft, hop, and the window: frame t covers the samples from t * hop - (n_fft - hop), times a
              periodic Hann window, and the spectrum is multiplied by `scale`, 1 / sqrt(n_fft); the inverse divides by
              `scale` and overlap-adds frames times the window and `synthesis_gain`, hop / sum(window ** 2)
    stride, context, lag    in frames
    states    shape of each state, by name
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
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

import separation
from separation.errors import UserError
from separation.files import write_file
from separation.inference.masking import MaskingNetwork
from separation.inference.onnx import FORMAT
from separation.inference.weights import Weights, load_weights
from separation.models.unet import UNet, compress_powers
from separation.models.unet_stream import Memory, UNetStream

OPSET = 17
"""ONNX opset version; every runtime since 2022 supports it."""

TOLERANCE = 1e-2
"""Maximum difference between ONNX Runtime, with half-precision constants, and torch, on noise of unit power."""


def export(weights: str | Path, path: str | Path, network: str | None = None) -> dict[str, str]:
    """Write the network of a weights file as ONNX, atomically, and return its metadata.

    `network` names the class of a network that is not part of this package. Raises `UserError` if the weights are
    missing, damaged or foreign, if the network does something that ONNX does not support, if the file cannot be
    written, or if the packages onnx and onnxruntime are not installed.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise UserError(f"writing ONNX needs {error.name}: pip install onnx onnxruntime.", "missing_package") from error
    loaded = load_weights(weights, network=network)
    try:
        step = Step(loaded.network)
        model = onnx.load_from_string(trace(step))
    except Exception as error:  # raised by the network or by the tracer
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{weights} cannot be exported to ONNX: {reason[0].rstrip('.')}.", "no_export") from error
    facts = metadata(loaded, step)
    onnx.helper.set_model_props(model, facts)
    for state, following in zip(model.graph.input[1:], model.graph.output[1:], strict=True):
        following.type.CopyFrom(state.type)  # the tracer loses the shapes of these
    halve(model.graph)
    model.producer_name, model.producer_version = "separation", separation.__version__
    onnx.checker.check_model(model)
    content = model.SerializeToString()
    check(step, onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]))
    write_file(Path(path), content)
    return facts


def halve(graph: Any) -> None:
    """Store large constants in half precision, as in weights files, each with a cast: this halves the file size."""
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


class Complex:
    """A mixture as two real tensors, as ONNX has no complex ones: its parts, its magnitude, slices and reshapes."""

    def __init__(self, real: Tensor, imag: Tensor):
        self.real, self.imag = real, imag

    def abs(self) -> Tensor:
        return (self.real.square() + self.imag.square()).sqrt()

    def __getitem__(self, places: Any) -> Complex:
        return Complex(self.real[places], self.imag[places])

    def __getattr__(self, name: str) -> Any:
        if name in ("shape", "device", "ndim", "size", "dim"):
            return getattr(self.real, name)
        if name not in ("transpose", "permute", "flatten", "unflatten", "reshape", "narrow", "unsqueeze", "squeeze"):
            raise AttributeError(f"the network uses {name} on its complex mixture, which ONNX does not support")
        return lambda *places: Complex(getattr(self.real, name)(*places), getattr(self.imag, name)(*places))

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        first, *others = arguments
        return getattr(first, function.__name__)(*others, **(options or {}))


class UNetMasks:
    """The U-Net's masks as a stream: `[2 channels, frames, bins, 2]` to `[targets, 2 channels, frames, bins]`."""

    def __init__(self, unet: UNet):
        self.unet, self.stream = unet, UNetStream(unet, torch.float32)
        self.lag = self.stream.lag

    def __call__(self, mixture: Tensor) -> Tensor:
        left, right = mixture[:, :, : self.unet.used_bins].unbind(0)
        views = (left, right, (left + right) / 2, (left - right) / 2)
        logits = self.stream.logits(compress_powers(torch.stack([view.square().sum(-1) for view in views])))
        return self.unet.masks(logits[None], mixture.shape[2], dim=-1)[0]


class ChunkedMasks:
    """The same for any network with finite context: each piece is computed with its context on both sides."""

    def __init__(self, network: MaskingNetwork):
        self.generator, self.lag = network.generator, network.context
        self.before = Memory(2 * self.lag, dim=1)

    def __call__(self, mixture: Tensor) -> Tensor:
        real, imag = self.before(mixture).transpose(1, 2).unbind(-1)
        masks = self.generator(Complex(real[None], imag[None]))[0]
        return masks[..., self.lag : self.lag + mixture.shape[1]].transpose(-1, -2)


class Step(nn.Module):
    """One step of a network through a song, with its states as arguments and results; see the module docstring."""

    @torch.no_grad()
    def __init__(self, network: MaskingNetwork):
        super().__init__()
        network.requires_grad_(False)
        self.stride, self.bins = network.stride, network.settings.bins
        if network.segment:
            raise TypeError("its network needs whole segments of a song, not single steps")
        is_unet = isinstance(network.generator, UNet)
        self.masks = UNetMasks(cast(UNet, network.generator)) if is_unet else ChunkedMasks(network)
        self.lag, self.mixture = self.masks.lag, Memory(self.masks.lag, dim=1)
        self.memories = {"state_mixture": self.mixture} if self.lag else {}
        self.memories |= memories(self.masks, "state")
        self(torch.zeros(2, self.stride, self.bins, 2))
        self.initial = [torch.zeros_like(cast(Tensor, memory.frames)) for memory in self.memories.values()]

    def forward(self, mixture: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        for memory, state in zip(self.memories.values(), states, strict=False):  # without states they start at zero
            memory.frames = state
        masks = self.masks(mixture)[..., None]
        # ONNX Runtime 1.32 takes six times as long if the last axis of a product is broadcast.
        targets = torch.cat([masks, masks], dim=-1) * self.mixture.delay(mixture)
        return (targets, *(cast(Tensor, memory.frames) for memory in self.memories.values()))


def memories(holder: Any, name: str) -> dict[str, Memory]:
    """The states that an object holds, by their path in it."""
    if isinstance(holder, Memory):
        return {name: holder} if holder.length else {}
    if isinstance(holder, nn.Module) or not (isinstance(holder, list) or hasattr(holder, "__dict__")):
        return {}
    parts = enumerate(holder) if isinstance(holder, list) else vars(holder).items()
    return {key: memory for part, value in parts for key, memory in memories(value, f"{name}_{part}").items()}


def trace(step: Step) -> bytes:
    """Trace a step to an ONNX file, without metadata."""
    example = torch.rand(2, 2 * step.stride, step.bins, 2)
    names = list(step.memories)
    buffer = BytesIO()
    # The tracer warns about values that it treats as constant, such as the number of bands, and that it is legacy.
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            step,
            (example, *step.initial),
            cast(Any, buffer),  # torch 2.14 accepts it, contrary to its annotations
            dynamo=False,
            opset_version=OPSET,
            input_names=["mixture", *names],
            output_names=["targets", *(f"next_{name}" for name in names)],
            dynamic_axes={"mixture": {1: "frames"}, "targets": {2: "frames"}},
        )
    return buffer.getvalue()


@torch.no_grad()
def check(step: Step, session: Any) -> None:
    """Raise `UserError` unless the file gives the same output as torch, also for a piece of another length."""
    piece = torch.randn(2, 3 * step.stride, step.bins, 2)
    inputs = [state.name for state in session.get_inputs()]
    found, *_ = session.run(None, dict(zip(inputs, [piece.numpy(), *(s.numpy() for s in step.initial)], strict=False)))
    expected, *_ = step(piece, *step.initial)
    if found.shape != expected.shape or not torch.allclose(torch.from_numpy(found), expected, atol=TOLERANCE, rtol=0):
        raise UserError("the network's stems differ between ONNX and torch.", "no_export")


def metadata(weights: Weights, step: Step) -> dict[str, str]:
    """The metadata of the file, as in the module docstring."""
    network = weights.network
    settings, stride, lag = network.settings, network.stride, step.lag
    facts = {
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
        "context": network.context,
        "lag": lag,
        "states": {name: list(state.shape) for name, state in zip(step.memories, step.initial, strict=True)},
        "latency": ((lag + stride) * settings.hop + settings.padding) / settings.sample_rate,
        "licence": weights.licence,
        "version": separation.__version__,
    }
    return {key: json.dumps(value) for key, value in facts.items()}
