from __future__ import annotations

import pytest
import torch
from networks import FAST, random_network
from torch import Tensor, nn
from torch.nn.functional import pad

from separation.errors import UserError
from separation.inference import device as device_module
from separation.inference.device import (
    choose_device,
    choose_engine,
    choose_precision,
    report_out_of_memory,
    trusted_precision,
)
from separation.inference.masking import MaskingNetwork
from separation.inference.separator import Separator


def test_the_device_is_as_asked(monkeypatch):
    assert choose_device("cpu") == choose_device(torch.device("cpu")) == torch.device("cpu")
    for count, auto in ((0, "cpu"), (2, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda count=count: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        assert choose_device("auto") == torch.device(auto)
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("mps") == torch.device("mps")
    assert choose_precision("auto", torch.device("mps")) == torch.float32


@pytest.mark.parametrize(
    ("name", "count", "sentence"),
    [
        ("cuda", 0, "no CUDA device is available"),
        ("cuda:1", 0, "no CUDA device is available"),
        ("cuda:2", 2, "there are 2 CUDA devices here"),
        ("mps", 0, "no Apple GPU is available"),
        ("gpu", 0, "there is no such device"),
        ("cuda:one", 2, "there is no such device"),
        ("meta", 0, "only the CPU, CUDA and Apple GPUs"),
        (None, 0, "there is no such device"),
    ],
)
def test_a_device_that_is_not_there_is_a_sentence(monkeypatch, name, count, sentence):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match=sentence):
        choose_device(name)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError(), UserError),
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), UserError),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), UserError),
        (RuntimeError("shapes cannot be multiplied"), RuntimeError),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)[:20]),
)
def test_too_little_memory_is_a_sentence_and_nothing_else_is_taken_for_it(error, told):
    with (
        pytest.raises(told, match=r"too little memory: buy more|cannot be multiplied"),
        report_out_of_memory("buy more"),
    ):
        raise error


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx2": True, "avx512_f": True}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True, "avx512_bf16": False}, torch.bfloat16),
        ({}, torch.float32),
    ],
)
def test_bf16_is_chosen_only_where_the_processor_has_it(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert choose_precision("auto", torch.device("cpu")) == expected
    assert choose_precision("bf16", torch.device("cpu")) == torch.bfloat16
    assert choose_precision("fp32", torch.device("cpu")) == torch.float32
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")  # by ATEN_CPU_CAPABILITY
    assert choose_precision("auto", torch.device("cpu")) == torch.float32


class Noisy(nn.Module):
    """A network whose only convolution some processors get wrong in bfloat16, if `broken` or not."""

    context = 4

    def __init__(self, channels: int, broken: bool = False):
        super().__init__()
        torch.manual_seed(0)
        self.inlet, self.middle = nn.Conv2d(2, channels, 1), nn.Conv2d(channels, 32, 4, 4)
        self.broken = broken

    def forward(self, mixture: Tensor) -> Tensor:
        x = pad(mixture.abs(), (0, -mixture.shape[-1] % 4, 0, -mixture.shape[-2] % 4))
        x = self.middle(self.inlet(x)).mean(1, keepdim=True)
        if self.broken and torch.is_autocast_enabled("cpu"):
            x = torch.randn_like(x)
        masks = torch.sigmoid(50 * x).repeat_interleave(4, -1).repeat_interleave(4, -2)
        return masks[:, None, :, : mixture.shape[-2], : mixture.shape[-1]].expand(-1, -1, 2, -1, -1)


def network(generator: nn.Module) -> MaskingNetwork:
    return MaskingNetwork(("vocals",), FAST, generator)


def test_noise_in_bfloat16_is_noticed_and_float32_taken(caplog):
    song = 0.1 * torch.randn(2, 20_000, generator=torch.Generator().manual_seed(0))
    for generator in (Noisy(24, broken=True), Noisy(24, broken=False)):
        exact = Separator(network(generator), precision="fp32")(song, 44100)["vocals"]
        found = Separator(network(generator), precision="bf16")(song, 44100)["vocals"]
        assert exact.std() > 0.01
        assert (found - exact).std() < 0.03 * exact.std()  # on processors with AMX, as well
    assert caplog.text.count("bfloat16 gives noise on this processor") == 1 + has_amx()


def test_networks_that_bfloat16_rounds_keep_it(caplog):
    separator = Separator(random_network(), precision="bf16")
    assert separator.network.begin(separator.masked, "bf16").masks.dtype == torch.bfloat16
    assert not caplog.text


def test_gradients_count_too():
    exact, rounded, noise = torch.ones(100), 1.01 * torch.ones(100), torch.full((100,), torch.nan)
    cpu, kinds = torch.device("cpu"), (torch.float32, torch.bfloat16)
    for gradients, expected in ((rounded, kinds[1]), (1.1 * rounded, kinds[0]), (noise, kinds[0])):
        results = dict(zip(kinds, ([exact, exact], [rounded, gradients]), strict=True))
        assert trusted_precision(torch.bfloat16, cpu, results.get) == expected
    assert trusted_precision(torch.float32, cpu, lambda dtype: []) == torch.float32


def has_amx() -> bool:
    """Whether oneDNN computes bfloat16 with AMX here, which it does wrong for some convolutions."""
    layer, x = Noisy(24).middle, torch.randn(1, 24, 64, 64, generator=torch.Generator().manual_seed(0))
    exact = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = layer(x)
    return bool((rounded - exact).norm() > 0.1 * exact.norm())


@pytest.mark.parametrize(
    ("installed", "device", "gpu", "bf16", "expected"),
    [
        (("torch", "onnxruntime"), "auto", False, False, "onnx"),
        (("torch", "onnxruntime"), "auto", False, True, "torch"),
        (("torch", "onnxruntime"), "auto", True, False, "torch"),
        (("torch", "onnxruntime"), "cpu", True, False, "onnx"),
        (("torch", "onnxruntime"), "cuda:1", False, False, "torch"),
        (("onnxruntime",), "auto", True, True, "onnx"),
        (("torch",), "auto", False, False, "torch"),
        ((), "auto", False, False, None),
    ],
)
def test_the_engine_is_the_faster_one_of_those_installed(monkeypatch, installed, device, gpu, bf16, expected):
    monkeypatch.setattr(device_module, "find_spec", lambda name: name in installed or None)
    monkeypatch.setattr(device_module, "has_gpu", lambda: gpu)
    monkeypatch.setattr(device_module, "has_bf16", lambda: bf16)
    if expected:
        assert choose_engine("auto", device) == expected
    else:
        with pytest.raises(UserError) as error:
            choose_engine("auto", device)
        assert error.value.code == "no_engine"
    for name, package in (("torch", "torch"), ("onnx", "onnxruntime")):
        if package in installed:
            assert choose_engine(name, device) == name
        else:
            with pytest.raises(UserError) as error:
                choose_engine(name, device)
            assert error.value.code == "no_engine"
