"""Songs become stems: `Separator` separates them from Python. docs/architecture.md shows the packages."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:  # as typing's, without the time that it takes to import
    from separation.inference.separator import Separator

__version__ = "0.3.0"
__all__ = ["Separator", "__version__"]

if not os.path.isdir(os.path.join(__path__[0], "pretrained")):  # noqa: PTH112, PTH118 (pathlib takes long to import)
    # An installed package has pretrained/ and models/ inside; a checkout has them on top, and links to models/.
    __path__.append(os.path.dirname(__path__[0]))  # noqa: PTH120


def __getattr__(name: str) -> object:
    """`Separator`, imported when it is first asked for: what needs no torch starts without it."""
    if name != "Separator":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from separation.inference.separator import Separator

    return Separator
