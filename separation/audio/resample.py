"""A waveform changes its sample rate, whole or block by block: the same samples either way, none early or late."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor


def resample(waveform: Tensor, source_rate: int, target_rate: int) -> Tensor:
    """`[channels, samples]` at `source_rate` hertz as `[channels, round(samples * target_rate / source_rate)]`."""
    return torch.cat(list(resample_blocks([waveform], source_rate, target_rate)), dim=-1)


def resample_blocks(blocks: Iterable[Tensor], source_rate: int, target_rate: int) -> Iterator[Tensor]:
    """Resample a stream of `[channels, n]`; the blocks that come out are not as long as those that went in."""
    if source_rate == target_rate:
        yield from blocks
        return
    import soxr

    stream = None
    for block in blocks:
        stream = stream or soxr.ResampleStream(source_rate, target_rate, len(block))
        yield torch.from_numpy(stream.resample_chunk(block.T.contiguous().numpy())).T
        rest = block[:, :0]
    if stream:
        yield torch.from_numpy(stream.resample_chunk(rest.T.contiguous().numpy(), last=True)).T
