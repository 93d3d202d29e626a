"""`torch.hub.load(REPOSITORY, "separator")`: the same as `separation.Separator.load`."""

dependencies = ["torch", "numpy", "safetensors", "soxr"]


def separator(weights=None, device="auto", stems=None):
    """A ready `separation.Separator`; the arguments are those of `Separator.load`."""
    from separation import Separator

    return Separator.load(weights, device, stems)
