"""Where networks run, and in which precision."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from separation.errors import UserError


def choose_device(name: str | torch.device) -> torch.device:
    """`auto` (CUDA if it is there, else the CPU), or the device of that name: `cpu`, `cuda`, `cuda:1`, `mps`.

    Raises `UserError` when there is no such device here.
    """
    if str(name) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise UserError(f"--device {name}: there is no such device; use auto, cpu, cuda, cuda:1 or mps.") from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            raise UserError(f"--device {name}: no CUDA device is available here; use --device cpu or auto.")
        if (device.index or 0) >= count:
            raise UserError(f"--device {name}: there are {count} CUDA devices here, and the first is cuda:0.")
    elif device.type == "mps":
        if not torch.backends.mps.is_available():
            raise UserError(f"--device {name}: no Apple GPU is available here; use --device cpu or auto.")
    elif device.type != "cpu":
        raise UserError(f"--device {name}: only the CPU, CUDA and Apple GPUs are supported.")
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """What networks compute in: `fp32`, `bf16`, or `auto` for bf16 where the device computes in it itself.

    Others only imitate it: a step of training on a CPU without it takes ten times as long as in fp32.
    """
    if name == "auto":
        name = "bf16" if is_bf16_native(device) else "fp32"
    kinds = {"bf16": torch.bfloat16, "fp32": torch.float32}
    if name not in kinds:
        raise UserError(f"there is no precision called {name}: choose auto, bf16 or fp32.", code="no_precision")
    return kinds[name]


def is_bf16_native(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    if not hasattr(torch.cpu, "get_capabilities"):  # before torch 2.6
        return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def use_huge_pages() -> None:
    """Let torch ask for pages of 2 MB for large tensors (on Linux), unless the environment says otherwise.

    A step of training makes hundreds of large tensors, and waits for every page of each. Torch reads this variable at
    its first large tensor, as do processes that are started later.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


@contextmanager
def memory_is_told(advice: str) -> Iterator[None]:
    """Tell of too little memory in a sentence with this advice: a `UserError`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch has an error of its own for CUDA, and none for the CPU
        told = isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or "can't allocate memory" in str(error)
        if not told:
            raise
        raise UserError(f"there is too little memory: {advice}.") from error
