"""`torch.hub.load(REPOSITORY, "separator")` is equivalent to `separation.Separator.load`."""

dependencies = ["torch", "numpy", "safetensors", "soxr"]


def separator(weights=None, device="auto", stems=None, engine="auto", network=None):
    """Load a `separation.Separator`; the arguments are those of `Separator.load`."""
    from separation import Separator

    return Separator.load(weights, device, stems, engine, network)
