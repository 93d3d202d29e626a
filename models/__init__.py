"""The networks and nothing else: they need only torch.

A separation network is built as `Class(targets, bins, complete, **arguments)`: the number of targets, the bins of the
spectrogram, and whether the targets make up the whole mixture. Its `forward` takes the mixture, complex
`[batch, 2 channels, bins, frames]`, and returns masks that multiply it, real or complex
`[batch, targets, 2 channels, bins, frames]`. It declares what a frame depends on:

    context     frames on either side or, if there is no limit,
    segment     frames per segment of a song; segments overlap and are crossfaded
    stride      optional: inputs must be a multiple of this many frames

Optional, and used where present:

    used_bins               lowest bins that it reads: training may give it only these
    stream(dtype)           the same masks for a song in pieces, computing no frame twice; see `UNet.stream`
    fit_input(mean, scale)  statistics of its input by view and bin, from the training data; see `compress`
    scale_logits(factor)    scale the mask logits, to set their temperature
"""

from .discriminator import Discriminator
from .open_unmix import OpenUnmix
from .unet import UNet, compress

__all__ = ["Discriminator", "OpenUnmix", "UNet", "compress"]
