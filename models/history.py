"""What a stream remembers of the frames before."""

from __future__ import annotations

import torch
from torch import Tensor


class History:
    """The last `length` frames that came, put before those that come next; zeros before the first.

    Frames are the axis `dim`.
    """

    def __init__(self, length: int, dim: int = 0):
        self.length, self.dim = length, dim
        self.frames: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """As many frames as come, and `length` more."""
        x = torch.cat([self._before(x), x], self.dim)
        self.frames = x.narrow(self.dim, x.shape[self.dim] - self.length, self.length).clone()
        return x

    def delay(self, x: Tensor) -> Tensor:
        """As many frames as come, `length` frames late."""
        return self(x).narrow(self.dim, 0, x.shape[self.dim]) if self.length else x

    def add_late(self, x: Tensor, y: Tensor) -> Tensor:
        """`y`, to which `x` has been added `length` frames late, without a copy; `dim` is the first axis."""
        before, new = self._before(x), min(self.length, len(x))
        y[:new] += before[:new]
        y[new:] += x[: len(x) - new]
        self.frames = torch.cat([before, x[-self.length :]])[-self.length :]
        return y

    def _before(self, x: Tensor) -> Tensor:
        if self.frames is None:
            return torch.zeros_like(x.narrow(self.dim, 0, 1)).repeat_interleave(self.length, self.dim)
        return self.frames
