"""Audio source separation: `Separator` splits songs into stems. docs/architecture.md describes the packages."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:  # like typing.TYPE_CHECKING, without the cost of importing it
    from separation.inference.separator import Separator

__version__ = "0.3.0"
__all__ = ["Separator", "__version__"]

if not os.path.isdir(os.path.join(__path__[0], "pretrained")):  # noqa: PTH112, PTH118 (pathlib is slow to import)
    # An installed package contains pretrained/ and models/; a checkout has them at the top level, and links to models/.
    __path__.append(os.path.dirname(__path__[0]))  # noqa: PTH120


def __getattr__(name: str) -> object:
    """Import `Separator` on first access, to keep the import of the package fast."""
    if name != "Separator":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from separation.inference.separator import Separator

    return Separator
