"""Engine, device and precision of networks. Importing this module does not require torch."""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from separation.errors import UserError

if TYPE_CHECKING:
    import torch

ENGINES = {"torch": "torch", "onnx": "onnxruntime"}
"""Engines that run networks, with their packages: ONNX Runtime takes a fifth of the memory and of the start-up time."""

ENGINE_HELP = "what runs the network: torch or onnx (default: torch where a GPU or bfloat16 makes it faster)"

NETWORK_HELP = "the class of your own network, for weights that need it: its code runs only if you name it here"

NOISE = -30.0
"""In dB: a larger difference between bfloat16 and float32 is not due to rounding but to wrong results."""


def choose_engine(name: str = "auto", device: object = "auto") -> str:
    """`torch` or `onnx`; `auto` is torch if it is installed and faster: on a GPU, or with bfloat16 in hardware.

    Otherwise ONNX Runtime is as fast, starts sooner and needs less memory. Raises `UserError` if the requested engine
    is not installed, or no engine is.
    """
    installed = [engine for engine, package in ENGINES.items() if find_spec(package)]
    if name == "auto":
        if not installed:
            raise UserError("neither torch nor ONNX Runtime is installed: pip install onnxruntime.", code="no_engine")
        wanted = str(device) not in ("auto", "cpu") or (str(device) == "auto" and has_gpu()) or has_bf16()
        return "torch" if "torch" in installed and (wanted or "onnx" not in installed) else "onnx"
    if name not in ENGINES:
        raise UserError(f"--engine {name}: choose torch or onnx.", code="no_engine")
    if name not in installed:
        package = "'.[gpu]'" if name == "torch" else ENGINES[name]
        raise UserError(f"--engine {name} is not installed here: pip install {package}.", code="no_engine")
    return name


@cache
def has_gpu() -> bool:
    """Whether the NVIDIA driver finds a GPU. Takes milliseconds; loading torch would take seconds."""
    with suppress(OSError, AttributeError):
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        count = ctypes.c_int()
        return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
    return False


@cache
def has_bf16() -> bool:
    """Whether Linux reports hardware bfloat16 multiplication, which halves the time that torch takes."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        flags = next((line.split() for line in lines if line.startswith("flags")), [])
        return "avx512_bf16" in flags or "amx_bf16" in flags
    return False


def choose_device(name: str | torch.device) -> torch.device:
    """The device called `cpu`, `cuda`, `cuda:1` or `mps`; `auto` is CUDA if available, else the CPU.

    Raises `UserError` if there is no such device.
    """
    import torch

    if str(name) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    problem = "only the CPU, CUDA and Apple GPUs are supported"
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        problem = "there is no such device; use auto, cpu, cuda, cuda:1 or mps"
    else:
        if device.type == "cpu":
            return device
        if device.type == "cuda":
            count = torch.cuda.device_count() if torch.cuda.is_available() else 0
            if (device.index or 0) < count:
                return device
            problem = "no CUDA device is available here; use --device cpu or auto"
            if count:
                problem = f"there are {count} CUDA devices here, and the first is cuda:0"
        elif device.type == "mps":
            if torch.backends.mps.is_available():
                return device
            problem = "no Apple GPU is available here; use --device cpu or auto"
    raise UserError(f"--device {name}: {problem}.", code="no_device")


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The dtype that networks compute in: `fp32`, `bf16`, or `auto` for bf16 if the device supports it natively.

    Elsewhere it is emulated: a training step on a CPU then takes ten times as long.
    """
    import torch

    if name == "auto":
        name = "bf16" if is_bf16_native(device) else "fp32"
    return {"bf16": torch.bfloat16, "fp32": torch.float32}[name]


def is_bf16_native(device: torch.device) -> bool:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    if not hasattr(torch.cpu, "get_capabilities"):  # before torch 2.6
        return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):  # or limited by ATEN_CPU_CAPABILITY
        return False
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def trusted_precision(
    dtype: torch.dtype, device: torch.device, compute: Callable[[torch.dtype], Iterable[torch.Tensor]]
) -> torch.dtype:
    """`dtype`, or float32 with a logged warning if this processor's bfloat16 results are noise.

    With AMX, oneDNN computes some convolutions wrongly: those of few channels whose kernel width times input channels
    is 64 or more, such as `Conv2d(24, 32, 4, 4)`, in torch 2.13.0 and 2.14.1. They are correct with
    `ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16`. `compute(dtype)` returns tensors of a network's results, in training also its
    gradients as one vector; each tensor is compared separately.
    """
    import torch

    if dtype != torch.bfloat16 or device.type != "cpu":
        return dtype
    pairs = zip(compute(torch.float32), compute(torch.bfloat16), strict=True)
    with torch.no_grad():
        powers = [((rounded - exact).abs().square().sum(), exact.abs().square().sum()) for exact, rounded in pairs]
        errors = [float(10 * torch.log10(error / power.clamp_min(1e-30))) for error, power in powers]
    if all(error < NOISE for error in errors):  # false for NaN
        return dtype
    logging.getLogger("separation").warning(
        "bfloat16 gives noise on this processor (%.0f dB relative to float32): computing in float32 instead.",
        max(errors),
    )
    return torch.float32


@contextmanager
def report_out_of_memory(advice: str) -> Iterator[None]:
    """Report running out of memory as a `UserError` of one sentence with this advice."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch has an exception class for CUDA, but none for the CPU
        torch = sys.modules.get("torch")
        kinds = (MemoryError, torch.cuda.OutOfMemoryError) if torch else (MemoryError,)
        if not (isinstance(error, kinds) or "can't allocate memory" in str(error)):
            raise
        raise UserError(f"there is too little memory: {advice}.", code="out_of_memory") from error
