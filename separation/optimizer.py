"""How the generator's weights follow their gradient: Muon for its hidden layers, AdamW for all else.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024: momentum made orthogonal, so that a
layer learns in all directions alike. With few songs and short runs it needs half the steps of AdamW.
"""

from __future__ import annotations

from typing import Any

from torch.nn import Parameter
from torch.optim import AdamW, Muon

from models import Generator
from separation.config import ScheduleSettings

State = list[dict[str, Any]]


class GeneratorOptimizer:
    """One step of both optimizers at a time, at one learning rate."""

    def __init__(self, generator: Generator, schedule: ScheduleSettings):
        kernels = hidden_kernels(generator)
        others = [parameter for parameter in generator.parameters() if parameter not in set(kernels)]
        # Muon knows matrices alone: these are the same memory, with a row for every first index of a kernel.
        self.matrices = [(kernel, kernel.detach().flatten(1)) for kernel in kernels]
        rates = {"lr": schedule.learning_rate, "weight_decay": schedule.weight_decay}
        self.parts = [
            # Steps as large as AdamW's, so that one learning rate does for both.
            Muon([matrix for _, matrix in self.matrices], adjust_lr_fn="match_rms_adamw", **rates),
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
