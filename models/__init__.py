"""The networks, and nothing but the networks: they need torch alone.

A network that separates is built as `Class(targets, bins, complete, **arguments)`: the number of targets, the bins of
the spectrogram, and whether the targets make up the whole mixture. Its `forward` takes the mixture, complex
`[batch, 2 channels, bins, frames]`, and returns masks that multiply it, real or complex
`[batch, targets, 2 channels, bins, frames]`. It names what a frame depends on:

    context     frames to either side, or, where there is no end to it,
    segment     frames of the pieces that it is used on; they overlap and are crossfaded
    stride      optional: frames that inputs are a multiple of

Optional, and used where present:

    used_bins               lowest bins that it looks at: training may give it only these
    stream(dtype)           the same masks for a song in pieces, with no frame computed twice; see `UNet.stream`
    fit_input(mean, scale)  statistics of its input by view and bin, from the training data; see `compress`
    scale_logits(factor)    temperature of the masks
"""

from .discriminator import Discriminator
from .open_unmix import OpenUnmix
from .unet import UNet, compress

__all__ = ["Discriminator", "OpenUnmix", "UNet", "compress"]
