"""Songs become stems. `Separator` takes them apart from Python; docs/architecture.md shows the wings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from separation.network.separator import Separator

__version__ = "0.2.0"
__all__ = ["Separator", "__version__"]

_INSIDE = Path(__file__).parent
if not (_INSIDE / "models").is_dir():
    # An installed package has models/ and pretrained/ inside; a checkout has them on top.
    __path__.append(str(_INSIDE.parent))


def __getattr__(name: str) -> object:
    """`Separator`, imported when it is first asked for: what needs no torch starts without it."""
    if name != "Separator":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from separation.network.separator import Separator

    return Separator
