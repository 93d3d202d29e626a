"""Everything the scripts share, one thing a file. `Separator` takes songs apart from Python."""

from separation.separator import Separator

__all__ = ["Separator"]
