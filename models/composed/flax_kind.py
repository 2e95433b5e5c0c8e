"""Whether a file holds parameters of Flax, by how it begins; nothing in it is run."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Final

from models.checkpoints import UnusableCheckpoint, refuse_pointer

PICKLE: Final = b"\x80"
EXPECTED: Final = "parameters of Flax (MessagePack, or a pickle of its bytes)"
_ZIP: Final = b"PK\x03\x04"
_TORCH: Final = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
"""How files of `torch.save` began before they were ZIP archives: the pickle of a large number."""
_COUNTED: Final = (b"\xde", b"\xdf")
"""First bytes of a dictionary of MessagePack with 16 or more entries."""
_TEXTS: Final = tuple(bytes([first]) for first in (*range(0xA0, 0xC0), 0xD9, 0xDA, 0xDB))
"""First bytes of a text."""


def require_flax(path: Path) -> None:
    """Refuse what begins otherwise than parameters of Flax.

    Raises:
        UnusableCheckpoint: It is not a file, or is one of another kind.
    """
    if not path.is_file():
        raise UnusableCheckpoint(f"{path} is not a file; give the published file itself")
    refuse_pointer(path)
    if given := _other_kind(path):
        raise UnusableCheckpoint(
            f"{path} is {given} and not {EXPECTED}; give the published file itself"
        )


def _other_kind(path: Path) -> str:
    """What a file is by its first bytes, where that is another kind; nothing of it is unpickled."""
    with path.open("rb") as file:
        head = file.read(16)
    if head.startswith(_ZIP):
        return "a file of PyTorch (a ZIP archive)" if _is_of_torch(path) else "a ZIP archive"
    if head.startswith(_TORCH):
        return "a file of PyTorch (several pickles)"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return "a file of safetensors"
    return "" if head.startswith(PICKLE) or _is_named(head) else "a file of another kind"


def _is_named(head: bytes) -> bool:
    """Whether bytes begin a dictionary of MessagePack whose first key is a text."""
    counted = {0xDE: 3, 0xDF: 5}.get(head[0], 1) if head else 0  # behind the number of entries
    is_map = head[:1] in _COUNTED or b"\x81" <= head[:1] <= b"\x8f"
    return is_map and head[counted : counted + 1] in _TEXTS


def _is_of_torch(path: Path) -> bool:
    """Whether a ZIP archive is one of `torch.save`, by the names in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError):
        return False
