"""Hidden layers get orthogonal steps of the size of AdamW's, all else gets AdamW's; and both are taken up again."""

from __future__ import annotations

import math

import pytest
import torch
from networks import random_network
from torch import nn

from separation.training.config import ScheduleSettings
from separation.training.optimizer import GeneratorOptimizer, Muon, hidden_kernels


@pytest.fixture
def generator() -> nn.Module:
    return random_network(("vocals",)).generator


def learn(generator: nn.Module, optimizer: GeneratorOptimizer, steps: int, seed: int) -> None:
    """Steps along random gradients."""
    torch.manual_seed(seed)
    for _ in range(steps):
        generator.zero_grad()
        for parameter in generator.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()


def test_the_kernels_of_all_hidden_layers_are_found(generator):
    hidden = {id(kernel) for kernel in hidden_kernels(generator)}
    names = {name for name, parameter in generator.named_parameters() if id(parameter) in hidden}
    kernels = {name for name, parameter in generator.named_parameters() if name.endswith("weight")}
    assert names == {name for name in kernels if not name.startswith(("inlet", "outlet"))}
    assert any(name.startswith("bottom") for name in names) and any(name.startswith("up") for name in names)


def test_hidden_layers_learn_in_all_directions_alike(generator):
    """Also from a gradient that has next to one direction only."""
    before = {id(kernel): kernel.detach().clone() for kernel in hidden_kernels(generator)}
    for parameter in generator.parameters():
        gradient = torch.randn(parameter.shape[0]), torch.randn(parameter[0].numel())
        parameter.grad = torch.outer(*gradient).view_as(parameter) + 0.1 * torch.randn_like(parameter)
    GeneratorOptimizer(generator, ScheduleSettings(learning_rate=1e-2, weight_decay=0)).step()
    for kernel in hidden_kernels(generator):
        step = (kernel.detach() - before[id(kernel)]).flatten(1)
        sizes = torch.linalg.svdvals(step) / (1e-2 * 0.2 * math.sqrt(max(step.shape)))
        assert sizes.min() > 0.3 and sizes.max() < 1.4


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon of its own")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 1e-5), (torch.float32, 0.03)])
def test_muon_is_that_of_torch_but_for_its_precision(dtype, tolerance):
    torch.manual_seed(0)
    start = [torch.randn(shape) for shape in ((8, 24), (24, 8), (16, 16))]
    ours, theirs = ([matrix.clone() for matrix in start] for _ in range(2))
    optimizers = (
        Muon(ours, lr=0.01, weight_decay=0.1, dtype=dtype),
        torch.optim.Muon(theirs, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(3):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = other.grad = torch.randn_like(one)
        for optimizer in optimizers:
            optimizer.step()
    for before, one, other in zip(start, ours, theirs, strict=True):
        assert (one - other).norm() < tolerance * (other - before).norm()


def test_all_other_weights_get_steps_of_adamw(generator):
    others = {name: p for name, p in generator.named_parameters() if all(p is not k for k in hidden_kernels(generator))}
    before = {name: parameter.detach().clone() for name, parameter in others.items()}
    learn(generator, GeneratorOptimizer(generator, ScheduleSettings(learning_rate=1e-3, weight_decay=0)), 1, seed=1)
    for name, parameter in others.items():  # Adam's first step is the sign of the gradient
        torch.testing.assert_close(parameter.detach(), before[name] - 1e-3 * parameter.grad.sign(), atol=1e-5, rtol=0)


def test_state_that_is_taken_up_again_leads_to_the_same_weights():
    through, stopped = (random_network(("vocals",)).generator for _ in range(2))
    optimizer = GeneratorOptimizer(through, ScheduleSettings())
    learn(through, optimizer, 3, seed=1)
    learn(through, optimizer, 2, seed=2)
    first = GeneratorOptimizer(stopped, ScheduleSettings())
    learn(stopped, first, 3, seed=1)
    resumed = GeneratorOptimizer(stopped, ScheduleSettings())
    resumed.load_state_dict(first.state_dict())
    learn(stopped, resumed, 2, seed=2)
    for one, other in zip(through.parameters(), stopped.parameters(), strict=True):
        assert torch.equal(one, other)


def test_weights_without_a_gradient_stand_still(generator):
    optimizer = GeneratorOptimizer(generator, ScheduleSettings(weight_decay=0))
    before = [parameter.detach().clone() for parameter in generator.parameters()]
    generator.zero_grad()
    optimizer.step()
    assert all(torch.equal(old, new) for old, new in zip(before, generator.parameters(), strict=True))
