"""Spectrogram discriminators, which tell real rests and real mixtures from estimates."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d


class Discriminator(nn.Module):
    """A multi-scale patch discriminator, as in the paper: stride-2 4x4 convolutions without normalisation.

    It sees both channels at once; mid and side among the views expose their phase difference.

    Args:
        views: compressed magnitudes per bin.
        targets: number of judgements, one for each target of the generator.
        widths: channels of the convolutions in each scale.
        scales: number of scales, each at half the resolution of the one before.
    """

    def __init__(
        self, views: int = 4, targets: int = 1, widths: tuple[int, ...] = (64, 128, 256, 512), scales: int = 3
    ):
        super().__init__()
        self.scales = nn.ModuleList(self._scale(views, targets, widths) for _ in range(scales))

    @staticmethod
    def _scale(views: int, targets: int, widths: tuple[int, ...]) -> nn.Sequential:
        layers: list[nn.Module] = []
        for inputs, outputs in zip((views, *widths[:-1]), widths, strict=True):
            layers += [nn.Conv2d(inputs, outputs, 4, 2, padding=1), nn.LeakyReLU(0.2)]
        return nn.Sequential(*layers, nn.Conv2d(widths[-1], targets, 1))

    def forward(self, views: Tensor, target: int = 0) -> list[Tensor]:
        """Judge `views` `[batch, views, bins, frames]` for one target: one `[batch, bands, frames]` per scale."""
        judgements = []
        for scale in self.scales:
            judgements.append(scale(views)[:, target])
            views = avg_pool2d(views, 3, 2, padding=1)
        return judgements
