"""How many processor threads to compute with."""

from __future__ import annotations

import os

_chosen: list[int] = []


def use_threads(number: int) -> None:
    """Compute with so many threads from now on, but with no more than there are processors."""
    _chosen[:] = [min(number, os.cpu_count() or 1)]  # more would only stand in each other's way


def tell_torch() -> None:
    """Let torch have the threads that were chosen; it is told where it is loaded, which takes a second."""
    import torch

    if _chosen:
        torch.set_num_threads(_chosen[0])


def threads() -> int:
    """Threads to compute with where torch does not decide it: as chosen, as the environment says, or all."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    return _chosen[0] if _chosen else int(said) if said.isdigit() and int(said) else os.cpu_count() or 1
