"""Where networks run, and in which precision."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from pathlib import Path

import torch

from separation.errors import UserError


def choose_device(name: str) -> torch.device:
    """`auto` (the GPU if there is one), `cpu` or `cuda`. Raises `UserError` when CUDA is asked for and missing."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UserError("--device cuda: no CUDA device is available here; use --device cpu or auto.")
    return torch.device("cuda" if name != "cpu" and available else "cpu")


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """What networks compute in: `fp32`, `bf16`, or `auto` for bf16 where the device computes in it itself.

    Others only imitate it: a step of training on a CPU without it takes ten times as long as in fp32.
    """
    if name == "auto":
        name = "bf16" if is_bf16_native(device) else "fp32"
    return {"bf16": torch.bfloat16, "fp32": torch.float32}[name]


def is_bf16_native(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def use_huge_pages() -> None:
    """Let torch ask for pages of 2 MB for large tensors (on Linux), unless the environment says otherwise.

    A step of training makes hundreds of large tensors, and waits for every page of each. Torch reads this variable at
    its first large tensor, as do processes that are started later.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def release_cuda_libraries() -> None:
    """Drop from memory the 120 MB of CUDA's libraries that torch reads in even where they are of no use (on Linux).

    Only pages that are as they are in their files go, so they come back by themselves if they are touched after all.
    """
    smaps = Path("/proc/self/smaps")
    if not (sys.platform.startswith("linux") and smaps.is_file()):  # some containers have no /proc
        return
    drop = 4  # MADV_DONTNEED
    madvise = ctypes.CDLL(None).madvise
    for mapping in re.split(r"\n(?=\w+-\w+ )", smaps.read_text()):
        library = re.match(r"(\w+)-(\w+) r-.*/lib(?:cu|nv|torch_cuda)[^/]*\n", mapping)
        if library and re.search(r"^Anonymous: +0 kB$", mapping, re.MULTILINE):
            start, stop = (int(address, 16) for address in library.groups())
            madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), drop)
