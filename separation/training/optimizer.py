"""How the generator's weights follow their gradient: Muon for its hidden layers, AdamW for all else.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024: momentum made orthogonal, so that a
layer learns in all directions alike. With few songs and short runs it needs half the steps of AdamW.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import AdamW, Optimizer

from separation.models import Generator
from separation.training.config import ScheduleSettings

State = list[dict[str, Any]]


class Muon(Optimizer):
    """Steps of matrices along their momentum made orthogonal, as large as AdamW's: one learning rate does for both.

    `torch.optim.Muon` with `adjust_lr_fn="match_rms_adamw"`, but for the precision: that one always computes in bf16,
    which a CPU that has to imitate it does ten times slower than in fp32.
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
    def step(self) -> None:
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(matrix)
                momentum = state["momentum_buffer"].lerp_(matrix.grad, 1 - group["momentum"])
                direction = orthogonal(matrix.grad.lerp(momentum, group["momentum"]).to(self.dtype))
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(direction, alpha=-0.2 * group["lr"] * math.sqrt(max(matrix.shape)))


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """A matrix `[rows, columns]` with its singular values brought near 1, by Newton-Schulz iterations.

    They come to lie between 0.7 and 1.2: the coefficients, those of Muon's authors, raise small ones fast.
    """
    x = matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x.mT if matrix.shape[0] > matrix.shape[1] else x


class GeneratorOptimizer:
    """One step of both optimizers at a time, at one learning rate; Muon computes in `dtype`."""

    def __init__(self, generator: Generator, schedule: ScheduleSettings, dtype: torch.dtype = torch.float32):
        kernels = hidden_kernels(generator)
        others = [parameter for parameter in generator.parameters() if parameter not in set(kernels)]
        # Muon knows matrices alone: these are the same memory, with a row for every first index of a kernel.
        self.matrices = [(kernel, kernel.detach().flatten(1)) for kernel in kernels]
        assert all(kernel.data_ptr() == matrix.data_ptr() for kernel, matrix in self.matrices), "a kernel was copied"
        rates = {"lr": schedule.learning_rate, "weight_decay": schedule.weight_decay}
        self.parts = [
            Muon([matrix for _, matrix in self.matrices], dtype=dtype, **rates),
            AdamW(others, betas=schedule.betas, fused=True, **rates),
        ]

    def set_learning_rate(self, rate: float) -> None:
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = rate

    def step(self) -> None:
        for kernel, matrix in self.matrices:
            matrix.grad = None if kernel.grad is None else kernel.grad.flatten(1)
        for part in self.parts:
            part.step()

    def state_dict(self) -> State:
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, state: State) -> None:
        for part, values in zip(self.parts, state, strict=True):
            part.load_state_dict(values)


def hidden_kernels(generator: Generator) -> list[Parameter]:
    """Weights of the layers between the first and the last: convolutions and matrices, neither biases nor scales."""
    outer = {*generator.inlet.parameters(), *generator.outlet.parameters()}
    return [parameter for parameter in generator.parameters() if parameter not in outer and parameter[0].numel() > 1]


def learning_rate_factor(step: int, schedule: ScheduleSettings) -> float:
    """What the learning rate is multiplied with at a step: a linear warm-up, then the chosen decay."""
    warmup = min(1.0, (step + 1) / schedule.warmup) if schedule.warmup else 1.0
    if schedule.decay == "cosine":
        return warmup * 0.5 * (1 + math.cos(math.pi * step / schedule.steps))
    if schedule.decay == "halving":
        return warmup * 0.5 ** (step // schedule.halve_every)
    return warmup
