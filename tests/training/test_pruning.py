"""separation/training/pruning.py: which channels are left of a U-Net."""

from __future__ import annotations

from dataclasses import replace

import torch
from conftest import refused
from networks import random_network, random_weights, tiny_config

from separation.inference.weights import build_network, load_network, save_weights
from separation.training.checkpoints import init_from_weights
from separation.training.pruning import channel_axes, narrowed

CPU = torch.device("cpu")
WIDTHS, LAST = (4, 5, 6), 2


def config(widths):
    return replace(tiny_config(), generator={**tiny_config().generator, "widths": widths})


def batches(count=2):
    random = torch.Generator().manual_seed(0)
    return [{"mixtures": torch.randn(1, 2, 257, 16, dtype=torch.complex64, generator=random)} for _ in range(count)]


def surrounded(narrow, wide):
    """Give `wide` the layers of `narrow`, among channels that nothing hears; where they lie is drawn at random."""
    random, places = torch.Generator().manual_seed(1), {}
    inner, outer = narrow.state_dict(), wide.state_dict()
    for name, tensor in outer.items():
        index = []
        for axis, channels in enumerate(channel_axes(name.removeprefix("generator.").split("."), LAST)):
            drawn = torch.randperm(tensor.shape[axis], generator=random)[: inner[name].shape[axis]].sort().values
            index.append(places.setdefault(channels, drawn))
        if len(index) == 2:
            tensor.zero_()[torch.meshgrid(*index, indexing="ij")] = inner[name]
        elif index:
            tensor.zero_()[index[0]] = inner[name]
        else:
            tensor.copy_(inner[name])
    wide.load_state_dict(outer)


def test_channels_that_nothing_hears_are_left_out():
    narrow, wide = (build_network(config(widths)).eval() for widths in (WIDTHS, (6, 8, 8)))
    torch.manual_seed(0)
    for parameter in narrow.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    surrounded(narrow, wide)
    state = narrowed(wide, WIDTHS, batches())
    for name, tensor in narrow.state_dict().items():
        assert torch.equal(state[name], tensor), name


def test_a_narrower_config_begins_with_what_is_left(tmp_path):
    path = str(random_weights(tmp_path / "wide.safetensors"))
    own = build_network(config(WIDTHS)).state_dict()
    start = init_from_weights([path], config(WIDTHS), own, CPU, batches)
    assert "[4, 5, 6]" in start.pruned
    assert {name: tensor.shape for name, tensor in start.tensors.items()} == {
        name: tensor.shape for name, tensor in own.items()
    }
    whole = random_network().state_dict()
    # No music is asked for where nothing is left out.
    same, _, pruned = init_from_weights([path], tiny_config(), whole, CPU, list)
    assert not pruned
    assert all(torch.allclose(same[name], whole[name], atol=1e-3) for name in whole)


def test_a_wider_config_is_refused(tmp_path):
    path = str(random_weights(tmp_path / "weights.safetensors"))
    with refused("other_network"):
        init_from_weights([path], config((6, 8, 10)), {}, CPU, batches)


def test_weights_of_several_widths_have_no_mean(tmp_path):
    paths = [str(tmp_path / name) for name in ("wide", "narrow")]
    for path, widths in zip(paths, ((6, 8, 8), WIDTHS), strict=True):
        save_weights(path, build_network(config(widths)), config(widths))
    with refused("other_network"):
        init_from_weights(paths, config(WIDTHS), build_network(config(WIDTHS)).state_dict(), CPU, batches)


def test_a_block_that_only_some_weights_have_is_the_mean_of_those(tmp_path):
    paths = []
    for seed, blocks in enumerate(((1,), (1, 1, 2), (1, 1, 2))):
        torch.manual_seed(seed)
        settings = replace(tiny_config(), generator={**tiny_config().generator, "blocks": blocks})
        network = build_network(settings)
        paths.append(str(tmp_path / f"{seed}.safetensors"))
        save_weights(paths[-1], network, settings)
    own = build_network(settings).state_dict()
    state = init_from_weights(paths, settings, own, CPU, list).tensors
    stored = [load_network(path).state_dict() for path in paths]
    for name in own:
        holders = [tensors[name] for tensors in stored if name in tensors]
        assert len(holders) == (2 if ".bottom.1." in name else 3)
        torch.testing.assert_close(state[name], torch.stack(holders).mean(dim=0))
