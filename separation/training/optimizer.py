"""Optimizers of the network: Muon for its hidden layers, AdamW for everything else.

Muon orthogonalises the momentum, so that a layer learns equally in all directions: Jordan et al., "Muon: An optimizer
for hidden layers in neural networks", 2024. With few songs and short runs it needs half the steps of AdamW.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import AdamW, Optimizer

from separation.training.config import ScheduleSettings


class Muon(Optimizer):
    """Moves matrices along their orthogonalised momentum, in steps as large as AdamW's: one learning rate serves both.

    As `torch.optim.Muon` with `adjust_lr_fn="match_rms_adamw"`, except for the precision: torch 2.9 to 2.14 always
    computes in bf16, which takes ten times as long as fp32 on a CPU that emulates it.
    """

    def __init__(
        self,
        matrices: Iterable[Tensor],
        lr: float,
        weight_decay: float,
        momentum: float = 0.95,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.dtype = dtype

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    alike.setdefault(matrix.shape, []).append(matrix)
            for matrices in alike.values():  # batched: one at a time, launches would dominate on a GPU
                self._step(matrices, group)

    def _step(self, matrices: list[Tensor], group: dict[str, Any]) -> None:
        gradients = [matrix.grad for matrix in matrices if matrix.grad is not None]  # `step` passes no others
        for matrix in matrices:
            if not self.state[matrix]:
                self.state[matrix]["momentum_buffer"] = torch.zeros_like(matrix)
        momenta = [self.state[matrix]["momentum_buffer"] for matrix in matrices]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        ahead = torch.stack(torch._foreach_lerp(gradients, momenta, group["momentum"]))
        directions = orthogonal(ahead.to(self.dtype)).to(matrices[0].dtype).unbind()
        torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(matrices, directions, alpha=-0.2 * group["lr"] * math.sqrt(max(matrices[0].shape)))


def orthogonal(matrices: Tensor, steps: int = 5) -> Tensor:
    """Bring the singular values of matrices `[matrices, rows, columns]` near 1, by Newton-Schulz iterations.

    They end between 0.7 and 1.2: the coefficients, chosen by Muon's authors, raise small ones fast.
    """
    upright = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if upright else matrices
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x.mT if upright else x


class GeneratorOptimizer:
    """Both optimizers, stepped together at one learning rate; Muon computes in `dtype`."""

    def __init__(self, generator: nn.Module, schedule: ScheduleSettings, dtype: torch.dtype = torch.float32):
        kernels = hidden_kernels(generator)
        others = [parameter for parameter in generator.parameters() if parameter not in set(kernels)]
        # Muon takes only matrices: these are views of the kernels, with a row for each index of the first axis.
        self.matrices = [(kernel, kernel.detach().flatten(1)) for kernel in kernels]
        assert all(kernel.data_ptr() == matrix.data_ptr() for kernel, matrix in self.matrices), "a kernel was copied"
        rate, decay = schedule.learning_rate, schedule.weight_decay
        self.parts: list[Muon | AdamW] = []
        if kernels:
            self.parts.append(Muon([matrix for _, matrix in self.matrices], rate, decay, dtype=dtype))
        if others:
            self.parts.append(AdamW(others, rate, schedule.betas, weight_decay=decay, fused=True))

    def set_learning_rate(self, rate: float) -> None:
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = rate

    def step(self) -> None:
        for kernel, matrix in self.matrices:
            matrix.grad = None if kernel.grad is None else kernel.grad.flatten(1)
        for part in self.parts:
            part.step()

    def state_dict(self) -> list[dict[str, Any]]:
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        for part, values in zip(self.parts, state, strict=True):
            part.load_state_dict(values)


def hidden_kernels(generator: nn.Module) -> list[Parameter]:
    """Weights of the layers between the first and the last: convolutions and matrices, without biases and scales.

    In a network without layers called `inlet` and `outlet`, the first and the last kernel are left out instead.
    """
    kernels = [parameter for parameter in generator.parameters() if parameter.dim() > 1 and parameter[0].numel() > 1]
    inlet, outlet = (getattr(generator, name, None) for name in ("inlet", "outlet"))
    if inlet is None or outlet is None:
        return kernels[1:-1]
    outer = {*inlet.parameters(), *outlet.parameters()}
    return [kernel for kernel in kernels if kernel not in outer]


def learning_rate_factor(step: int, schedule: ScheduleSettings, minutes: float = 0) -> float:
    """Factor on the learning rate at a step, or after `minutes` of the run: a warm-up, then the decay."""
    warmup = min(1.0, (step + 1) / schedule.warmup) if schedule.warmup else 1.0
    if schedule.decay == "cosine":
        done = min(1.0, max(step / schedule.steps, minutes / schedule.minutes if schedule.minutes else 0))
        return warmup * 0.5 * (1 + math.cos(math.pi * done))
    if schedule.decay == "halving":
        return warmup * 0.5 ** (step // schedule.halve_every)
    return warmup
