from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, environment

from separation.errors import UserError
from separation.network.device import choose_device, choose_precision

ASK_FOR_HUGE_PAGES = """
import sys
import torch
from separation.network.device import use_huge_pages

if sys.argv[1] == "huge":
    use_huge_pages()
tensor = torch.ones(64 << 20, dtype=torch.uint8)
print(any(line.startswith("VmFlags") and " hg" in line for line in open("/proc/self/smaps")))
"""


def test_the_device_is_as_asked():
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_a_missing_gpu_is_said_to_be_missing(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no CUDA device"):
        choose_device("cuda")


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
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
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
