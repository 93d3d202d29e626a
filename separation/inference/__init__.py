"""Inference: network settings, weights files, and the `Separator`."""
