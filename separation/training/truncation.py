"""Labels that a teacher made, and that are most likely wrong, do not count."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Truncation(nn.Module):
    """Leaves out the labels whose error is among the largest of late, a `share` of them, target by target.

    A network learns what labels have in common before it learns their mistakes, so what it misses most is most likely
    mislabelled ("loss truncation", as in the label-noise track of the Sound Demixing Challenge 2023, Fabbro et al.,
    TISMIR 2024). What counts as large is told by the last `recent` labels: batches have too few of them.
    """

    def __init__(self, targets: int, share: float, recent: int = 256):
        super().__init__()
        self.share = share
        # 0 dB is an error as loud as the mixture: hardly anything is left out before that many labels were seen.
        self.register_buffer("levels", torch.zeros(recent, targets))

    @torch.no_grad()
    def forward(self, levels: Tensor, taught: Tensor) -> Tensor:
        """1 for labels that count, else 0, `[batch, targets]`: of errors in dB of the same shape, and of whether a
        teacher labelled the example, `[batch]`. True labels always count."""
        threshold = self.levels.quantile(1 - self.share, dim=0)
        seen = levels[taught.bool()].to(self.levels.dtype)
        self.levels = torch.cat([self.levels, seen])[-len(self.levels) :]
        return ((levels <= threshold) | ~taught.bool()[:, None]).to(levels.dtype)
