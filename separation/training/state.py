"""The state of a training run, which `--resume` takes it up with: tensors and plain values, never unpickled objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from separation.errors import UserError
from separation.files import replacing


def save_state(path: str | Path, state: dict[str, Any]) -> None:
    """Write training state: nested dicts and lists of tensors and plain values."""
    with replacing(Path(path)) as partial:
        torch.save(state, partial)


def load_state(path: str | Path) -> dict[str, Any]:
    """Read training state onto the CPU. Raises `UserError` when there is none or it is damaged."""
    if not Path(path).is_file():
        raise UserError(f"there is no training to take up at {path}: start it without --resume, or give its --output.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for damaged files
        raise UserError(f"the training state {path} is damaged: delete it and start without --resume.") from error
    if not isinstance(state, dict) or "config" not in state:
        raise UserError(f"{path} is no training state of this program: name another --output.")
    return state
