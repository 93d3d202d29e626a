"""Starting points of a run: the state of a stopped run, finished weights, or statistics of the training music.

A state file holds tensors and plain values as written by `torch.save`, and is loaded with `weights_only=True`. A line
with its SHA-256 follows, because torch does not detect all damage.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from separation.errors import UserError
from separation.files import write_file
from separation.inference.masking import MaskingNetwork
from separation.inference.weights import Weights, load_weights
from separation.models import compress
from separation.training.batches import Batch, mixtures_in
from separation.training.config import Config, changed_keys, parse_config
from separation.training.optimizer import GeneratorOptimizer
from separation.training.pruning import narrowed

LAST, BEST = "last.pt", "best.safetensors"
MARK = b"\nsha256 "

OPTIMIZER_STATE = ({"momentum_buffer"}, {"step", "exp_avg", "exp_avg_sq"})
"""What Muon and AdamW store per parameter."""

GROWING = ("blocks", "decoder_levels", "frequency_levels")
"""U-Net arguments that may differ from those of the initial weights. Widths may also be smaller."""


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write training state atomically: nested dicts and lists of tensors and plain values."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    write_file(path, payload + _seal(payload))


def load_state(path: Path) -> dict[str, Any]:
    """Load training state onto the CPU. Raises `UserError` when it is missing, unreadable or damaged."""
    if not path.is_file():
        raise UserError(
            f"there is no run to resume at {path}: start without --resume, or give the run's --output.", code="no_run"
        )
    try:
        content = path.read_bytes()
        payload = memoryview(content)[: -len(_seal(b""))]
        if content[len(payload) :] != _seal(payload):
            raise ValueError("its checksum does not match")
        state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"the state {path} cannot be read: {error.strerror}.", code="unreadable") from error
    except MemoryError as error:
        raise UserError(f"not enough memory to read the state {path}.", code="out_of_memory") from error
    except Exception as error:  # torch raises half a dozen exception types for damaged files
        raise _damaged(path) from error
    if not isinstance(state, dict) or "config" not in state:
        raise UserError(f"{path} is not a training state of this program: name another --output.", code="foreign_state")
    return state


def _seal(payload: bytes | memoryview) -> bytes:
    return MARK + hashlib.sha256(payload).hexdigest().encode() + b"\n"


def _damaged(path: Path) -> UserError:
    return UserError(
        f"the state {path} is damaged or incomplete: delete it and start without --resume.", code="damaged_state"
    )


def finetune_hint(output: Path) -> str:
    """How to train a finished run further, in words."""
    return (
        "to train further, start another run from its weights: "
        f"--set weights={output / BEST} schedule.steps=MORE --output ANOTHER"
    )


def read_run(output: Path, config: Config, resume: bool) -> dict[str, Any] | None:
    """Load the state to resume from; None for a new run.

    Raises `UserError` when the state is missing, damaged or has other settings; without `resume`, when the folder
    already holds a run.
    """
    path = output / LAST
    if not resume:
        if path.exists():
            raise UserError(
                f"{output} already holds a training run: continue it with --resume, or name another --output.",
                code="run_exists",
            )
        return None
    state = load_state(path)
    before = parse_config(state["config"], str(path))
    changed = changed_keys(before, config)
    if changed == ["schedule.steps"] and state.get("step") == before.schedule.steps:
        raise UserError(
            f"the run in {output} has finished its {before.schedule.steps} steps: {finetune_hint(output)}.",
            code="run_finished",
        )
    if changed:
        raise UserError(
            f"{path} was trained with other settings ({', '.join(changed)}): "
            "resume with the same config, or name another --output.",
            code="other_settings",
        )
    return state


def restore(
    state: Mapping[str, Any], parts: Mapping[str, Any], steps: int, path: Path
) -> tuple[int, int, float, float]:
    """Load `state` into `parts`. Returns the step, the last validated step, the best score and the minutes taken.

    Raises `UserError` when the state is incomplete or inconsistent.
    """
    try:
        step, best, minutes = state["step"], state["best"], float(state.get("minutes", 0))
        validated = state.get("validated", step)
        if any(type(number) is not int or not -1 <= number <= steps for number in (step, validated)) or step < 0:
            raise ValueError("no such step")
        if not isinstance(best, int | float) or math.isnan(best) or not minutes >= 0:
            raise ValueError("no such score or time")
        for name, part in parts.items():
            options = _options(part)
            part.load_state_dict(state[name])
            _check(part, step)
            if _options(part) != options:
                raise ValueError("it has other settings")
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        raise _damaged(path) from error
    return step, validated, best, minutes


def _check(part: Any, step: int) -> None:
    """Raise ValueError when a network has non-finite values, or optimizer state is missing or invalid."""
    if isinstance(part, GeneratorOptimizer):
        if step and not all(inner.state for inner in part.parts):
            raise ValueError("an optimizer has no state")
        for inner in part.parts:
            _check(inner, step)
    elif isinstance(part, Optimizer):
        for parameter, values in part.state.items():
            shapes = {name: value.shape for name, value in values.items() if name != "step"}
            if values.keys() not in OPTIMIZER_STATE or any(shape != parameter.shape for shape in shapes.values()):
                raise ValueError("it is of other parameters")
            if not 0 < float(values.get("step", 1)) <= max(step, 1):
                raise ValueError("its number of steps is wrong")
            if not all(bool(value.isfinite().all()) for name, value in values.items() if name != "step"):
                raise ValueError("it is not finite")
    elif not all(bool(tensor.isfinite().all()) for tensor in part.state_dict().values()):
        raise ValueError("it is not finite")


def _options(part: Any) -> list[dict[str, Any]]:
    """Optimizer settings that the schedule does not change: a state must agree with the config on them."""
    inner = part.parts if isinstance(part, GeneratorOptimizer) else [part] if isinstance(part, Optimizer) else []
    groups = [group for optimizer in inner for group in optimizer.param_groups]
    return [{name: value for name, value in group.items() if name not in ("params", "lr")} for group in groups]


class Start(NamedTuple):
    """What a run starts from: the tensors of its network, the licence of its weights, and what was pruned, in words."""

    tensors: dict[str, Tensor]
    licence: str
    pruned: str


def init_from_weights(
    paths: Sequence[str],
    config: Config,
    own: dict[str, Tensor],
    device: torch.device,
    batches: Callable[[], Iterable[Batch]],
) -> Start:
    """The tensors `own` of a new network, replaced by those of finished weights or, for several, by their mean.

    Blocks and TDFs that the config leaves out are dropped, and those that it adds are near zero at first, so training
    continues from where it was. If U-Net levels are narrower, the channels that matter most for `batches` are kept.
    Raises `UserError` if the weights are of another network, or of several widths.
    """
    found = [_fitting(path, config, device) for path in paths]
    if len({tuple(weights.settings.generator.get("widths", ())) for weights in found}) > 1:
        raise UserError(
            f"weights: {' and '.join(paths)} differ in generator.widths, so they have no mean: name one of them.",
            code="other_network",
        )
    states = [weights.network.state_dict() for weights in found]
    names = dict.fromkeys(name for state in states for name in state)
    known = {name: torch.stack([state[name] for state in states if name in state]).mean(dim=0) for name in names}
    pruned = ""
    if any(own[name].shape != known[name].shape for name in own if name in known):
        first = found[0].network
        first.load_state_dict({name: known[name] for name in states[0]})
        widths, wider = ([*settings.generator["widths"]] for settings in (config, found[0].settings))
        known = narrowed(first, widths, islice(batches(), 8))
        pruned = (
            f"{paths[0]} is pruned from {wider} to {widths} channels, which costs quality until it is trained: "
            f"generator.widths={wider} keeps them all."
        )
    licence = "; ".join(dict.fromkeys(weights.licence for weights in found))
    return Start({name: known.get(name, tensor) for name, tensor in own.items()}, licence, pruned)


def _fitting(path: str, config: Config, device: torch.device) -> Weights:
    start = load_weights(path, device, config.network)
    sizes = {key: config.generator[key] for key in GROWING if key in config.generator}
    if config.network == "unet" and _is_narrower(config.generator["widths"], start.settings.generator["widths"]):
        sizes["widths"] = config.generator["widths"]
    fitting = replace(start.settings, generator={**start.settings.generator, **sizes})
    for key in ("targets", "spectral", "network", "generator"):
        theirs, ours = getattr(fitting, key), getattr(config, key)
        if theirs == ours:
            continue
        if key == "generator":
            pairs = {name: (theirs.get(name, "unset"), ours.get(name, "unset")) for name in {**ours, **theirs}}
            name, (theirs, ours) = next(item for item in pairs.items() if item[1][0] != item[1][1])
            key = f"generator.{name}"
        raise UserError(f"weights: {path} has {key}: {theirs}, but the config asks for {ours}.", code="other_network")
    return start


def _is_narrower(ours: Sequence[int], theirs: Sequence[int]) -> bool:
    return len(ours) == len(theirs) and all(our <= their for our, their in zip(ours, theirs, strict=True))


@torch.no_grad()
def fit_input(network: MaskingNetwork, batches: Iterable[Batch]) -> None:
    """Normalise each view and bin to mean 0 and variance 1 over `batches`, in networks that offer `fit_input`."""
    offered = getattr(network.generator, "fit_input", None)
    if offered is None:
        return
    moments = []
    for batch in batches:
        views = compress(mixtures_in(batch))
        moments.append(torch.stack([views.mean(dim=(0, 3)), views.square().mean(dim=(0, 3))]))
    mean, square = torch.stack(moments).mean(dim=0)
    offered(mean, 1 / ((square - mean.square()).clamp_min(0).sqrt() + 0.01))
