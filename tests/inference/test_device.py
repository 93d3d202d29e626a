from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, environment

from separation.errors import UserError
from separation.inference.device import choose_device, choose_precision, memory_is_told

ASK_FOR_HUGE_PAGES = """
import sys
import torch
from separation.inference.device import use_huge_pages

if sys.argv[1] == "huge":
    use_huge_pages()
tensor = torch.ones(64 << 20, dtype=torch.uint8)
print(any(line.startswith("VmFlags") and " hg" in line for line in open("/proc/self/smaps")))
"""


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
    with pytest.raises(told, match=r"too little memory: buy more|cannot be multiplied"), memory_is_told("buy more"):
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
    assert choose_precision("auto", torch.device("cpu")) == expected
    assert choose_precision("bf16", torch.device("cpu")) == torch.bfloat16
    assert choose_precision("fp32", torch.device("cpu")) == torch.float32


@pytest.mark.skipif(
    not (Path("/sys/kernel/mm/transparent_hugepage").is_dir() and Path("/proc/self/smaps").is_file()),
    reason="this system has no huge pages to ask for",
)
@pytest.mark.parametrize(("choice", "asked"), [("huge", "True"), ("plain", "False")])
def test_large_tensors_ask_for_huge_pages_where_they_should(choice, asked):
    variables = {name: value for name, value in environment().items() if name != "THP_MEM_ALLOC_ENABLE"}
    command = [sys.executable, "-c", ASK_FOR_HUGE_PAGES, choice]
    run = subprocess.run(command, cwd=REPOSITORY, env=variables, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == asked
