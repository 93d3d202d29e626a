"""A bidirectional LSTM over the frames of a spectrogram: the network that this field knows best."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .unet import compress, soft_masks


class OpenUnmix(nn.Module):
    """One LSTM for all targets, after Stöter et al., "Open-Unmix - A reference implementation for music source
    separation", JOSS 2019.

    Each frame is encoded to `hidden` features, related to the frames before and after it, and decoded to soft masks. It
    departs from the original so that the same stores, losses and training serve both networks: a softmax shares the
    mixture among the masks, the input is compressed magnitudes, all targets share a trunk, and LayerNorm normalises
    frame by frame where the original normalises over the batch.

    Args:
        targets: number of targets.
        bins: bins of the spectrogram.
        complete: whether the masks sum to one over the targets; otherwise the remainder is an implicit rest.
        hidden: features per frame; the LSTM has half as many units in each direction.
        layers: LSTM layers.
        dropout: dropout probability between LSTM layers.
        input_bins: lowest bins used as input, by default those up to 16 kHz; None: all.
        segment: frames of a song that the LSTM processes at a time.

    Raises:
        ValueError: the arguments do not fit together.
    """

    audio_channels, views = 2, 4
    input_mean: Tensor
    input_scale: Tensor

    def __init__(
        self,
        targets: int,
        bins: int,
        complete: bool = False,
        hidden: int = 512,
        layers: int = 3,
        dropout: float = 0.4,
        input_bins: int | None = 1487,
        segment: int = 512,
    ):
        super().__init__()
        if not (2 <= hidden <= 8192 and hidden % 2 == 0 and 1 <= layers <= 16 and 0 <= dropout < 1 and segment >= 8):
            raise ValueError(
                "hidden must be an even number from 2 to 8,192, layers 1 to 16, dropout from 0 to below 1, "
                "and segment at least 8 frames"
            )
        self.targets, self.bins, self.complete, self.segment = targets, bins, complete, segment
        self.input_bins = min(input_bins or bins, bins)
        self.register_buffer("input_mean", torch.zeros(self.views, self.input_bins))
        self.register_buffer("input_scale", torch.ones(self.views, self.input_bins))
        self.squeeze = nn.Sequential(nn.Linear(self.views * self.input_bins, hidden), nn.LayerNorm(hidden), nn.Tanh())
        self.lstm = nn.LSTM(
            hidden, hidden // 2, layers, batch_first=True, bidirectional=True, dropout=dropout if layers > 1 else 0
        )
        self.expand = nn.Sequential(
            nn.Linear(2 * hidden, hidden),
            nn.LayerNorm(hidden),
            nn.ReLU(),
            nn.Linear(hidden, targets * self.audio_channels * bins),
        )

    def forward(self, mixture: Tensor) -> Tensor:
        """Complex mixture `[batch, 2 channels, bins, frames]` to masks `[batch, targets, 2 channels, bins, frames]`."""
        views = compress(mixture[..., : self.input_bins, :])
        x = (views - self.input_mean[..., None]) * self.input_scale[..., None]
        x = self.squeeze(x.flatten(1, 2).transpose(1, 2))  # [batch, frames, hidden]
        x = torch.cat([x, self.lstm(x)[0]], dim=-1)
        logits = self.expand(x).float().unflatten(-1, (self.targets, self.audio_channels, self.bins))
        return soft_masks(logits.movedim(1, -1), self.complete)

    @torch.no_grad()
    def fit_input(self, mean: Tensor, scale: Tensor) -> None:
        """Set input normalisation: subtract `mean` from the views, multiply by `scale`, both `[4 views, bins]`."""
        self.input_mean.copy_(mean[:, : self.input_bins])
        self.input_scale.copy_(scale[:, : self.input_bins])

    @torch.no_grad()
    def scale_logits(self, factor: float) -> None:
        """Scale the logits of all masks: a `factor` below 1 softens them, above 1 it hardens them."""
        for parameter in self.expand[-1].parameters():
            parameter.mul_(factor)
