"""The networks, and nothing but the networks: they need torch alone."""

from models.discriminator import Discriminator
from models.generator import Generator

__all__ = ["Discriminator", "Generator"]
