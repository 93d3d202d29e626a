"""A run is taken up again: only with the settings it was begun with, and only from a state that is whole."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.optim import Optimizer

from separation.errors import UserError
from separation.training.config import Config, decisive_differences, parse_config
from separation.training.optimizer import GeneratorOptimizer
from separation.training.state import load_state

LAST, BEST = "last.pt", "best.safetensors"

OPTIMIZER_STATE = ({"momentum_buffer"}, {"step", "exp_avg", "exp_avg_sq"})
"""What Muon and Adam remember of a parameter."""


def go_on(output: Path) -> str:
    """How a finished run is trained further, in words."""
    return (
        "to train further, begin another run with its weights: "
        f"--set weights={output / BEST} schedule.steps=MORE --output ANOTHER"
    )


def read_run(output: Path, config: Config, resume: bool) -> dict[str, Any] | None:
    """The state to take a run up with, or None for a new one.

    Raises `UserError` when there is none to take up, it is damaged, or has other settings; and, without `resume`, when
    a run is there already.
    """
    path = output / LAST
    if not resume:
        if path.exists():
            raise UserError(f"{output} holds a training run already: go on with --resume, or name another --output.")
        return None
    state = load_state(path)
    before = parse_config(state["config"], str(path))
    changed = decisive_differences(before, config)
    if changed == ["schedule.steps"] and state.get("step") == before.schedule.steps:
        raise UserError(f"the run in {output} has finished its {before.schedule.steps} steps: {go_on(output)}.")
    if changed:
        raise UserError(
            f"{path} was trained with other settings ({', '.join(changed)}): "
            "resume with the same config, or name another --output."
        )
    return state


def restore(state: Mapping[str, Any], parts: Mapping[str, Any], steps: int, path: Path) -> tuple[int, float]:
    """Give `parts` their state; the step and the best score of the run. Raises `UserError` when it is not whole."""
    try:
        step, best = state["step"], state["best"]
        if type(step) is not int or not 0 <= step <= steps or not isinstance(best, int | float) or math.isnan(best):
            raise ValueError("no such step or score")
        for name, part in parts.items():
            options = _options(part)
            part.load_state_dict(state[name])
            _check(part, step)
            if _options(part) != options:
                raise ValueError("it has other settings")
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        raise UserError(
            f"the training state {path} is damaged or incomplete: delete it and start without --resume."
        ) from error
    return step, best


def _check(part: Any, step: int) -> None:
    """Raises ValueError when a network has numbers that are none, or an optimizer lacks what it goes on from."""
    if isinstance(part, GeneratorOptimizer):
        if step and not all(inner.state for inner in part.parts):
            raise ValueError("nothing is known of its steps")
        for inner in part.parts:
            _check(inner, step)
    elif isinstance(part, Optimizer):
        for parameter, values in part.state.items():
            shapes = {name: value.shape for name, value in values.items() if name != "step"}
            if values.keys() not in OPTIMIZER_STATE or any(shape != parameter.shape for shape in shapes.values()):
                raise ValueError("it is of other parameters")
            if not 0 < float(values.get("step", 1)) <= max(step, 1):
                raise ValueError("it has taken no such number of steps")
            if not all(bool(value.isfinite().all()) for name, value in values.items() if name != "step"):
                raise ValueError("it has numbers that are none")
    elif not all(bool(tensor.isfinite().all()) for tensor in part.state_dict().values()):
        raise ValueError("it has numbers that are none")


def _options(part: Any) -> list[dict[str, Any]]:
    """The settings of an optimizer that the schedule does not change: the config says them, whatever the state says."""
    inner = part.parts if isinstance(part, GeneratorOptimizer) else [part] if isinstance(part, Optimizer) else []
    groups = [group for optimizer in inner for group in optimizer.param_groups]
    return [{name: value for name, value in group.items() if name not in ("params", "lr")} for group in groups]
