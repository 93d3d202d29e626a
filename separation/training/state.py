"""The state of a training run, which `--resume` takes it up with: tensors and plain values, never unpickled objects.

The file is what `torch.save` writes, and after it a line with its SHA-256: damage that torch would not notice is known.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import torch

from separation.errors import UserError
from separation.files import replacing

MARK = b"\nsha256 "
END_OF_ZIP = b"PK\x05\x06"


def save_state(path: str | Path, state: dict[str, Any]) -> None:
    """Write training state: nested dicts and lists of tensors and plain values."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    with replacing(Path(path)) as partial:
        partial.write_bytes(payload + _seal(payload))


def load_state(path: str | Path) -> dict[str, Any]:
    """Read training state onto the CPU. Raises `UserError` when there is none or it is damaged."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no training to take up at {path}: start it without --resume, or give its --output.")
    try:
        content = path.read_bytes()
        payload = memoryview(content)[: -len(_seal(b""))]
        # Runs that began before there were checksums end as a zip file does.
        if content[len(payload) :] != _seal(payload) and content[-22:-18] != END_OF_ZIP:
            raise ValueError("its checksum is another")
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"the training state {path} cannot be read: {error.strerror}.") from error
    except MemoryError as error:
        raise UserError(f"there is too little memory to read the training state {path}.") from error
    except Exception as error:  # torch raises half a dozen kinds for damaged files
        raise UserError(f"the training state {path} is damaged: delete it and start without --resume.") from error
    if not isinstance(state, dict) or "config" not in state:
        raise UserError(f"{path} is no training state of this program: name another --output.")
    return state


def _seal(payload: bytes | memoryview) -> bytes:
    return MARK + hashlib.sha256(payload).hexdigest().encode() + b"\n"
