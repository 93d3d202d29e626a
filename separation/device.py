"""Where networks run."""

from __future__ import annotations

import torch

from separation.errors import UserError


def choose_device(name: str) -> torch.device:
    """`auto` (the GPU if there is one), `cpu` or `cuda`. Raises `UserError` when CUDA is asked for and missing."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UserError("--device cuda: no CUDA device is available here; use --device cpu or auto.")
    return torch.device("cuda" if name != "cpu" and available else "cpu")
