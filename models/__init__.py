"""The networks, and nothing but the networks: they need torch alone."""

from .discriminator import Discriminator
from .generator import Generator

__all__ = ["Discriminator", "Generator"]
