"""Files of published checkpoints, looked at by name and by how they begin: without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from models.checkpoints import UnusableCheckpoint, refuse_pointer

_BY_TORCH: Final = (b"PK", b"\x80")
"""How files of torch begin: ZIP archives, and pickles of its early versions."""


def begins_as_weights(path: Path) -> bool:
    """Whether a file begins as its name says: as one of safetensors, or as one of torch."""
    with path.open("rb") as file:
        head = file.read(9)
    if path.suffix == ".safetensors":
        return head[8:] == b"{" or head[8:].isspace()  # behind the length of its header
    return head.startswith(_BY_TORCH)


def require_weights(path: Path) -> None:
    """Refuse what is not a file of weights; nothing heavy is imported.

    Raises:
        UnusableCheckpoint: It is not a file, or begins otherwise.
    """
    if path.is_dir():
        raise UnusableCheckpoint(f"{path} is a folder; give the published file in it")
    if not path.is_file():  # reading a pipe would wait for ever
        raise UnusableCheckpoint(f"{path} is not a file; give the published file itself")
    refuse_pointer(path)
    if not begins_as_weights(path):
        kind = "safetensors" if path.suffix == ".safetensors" else "torch"
        raise UnusableCheckpoint(
            f"{path} cannot be read as weights: it is not a file of {kind}; take the published "
            "file again, or one that holds tensors alone"
        )


def only_file(folder: Path, pattern: str, needed: str) -> Path:
    """The one file of a folder that fits a pattern, which begins as a file of weights.

    Args:
        folder: Of a published checkpoint that has several files.
        pattern: Of the file's name.
        needed: What to put into the folder, for the message.

    Raises:
        UnusableCheckpoint: There is none, or there are several, or it is not a file of weights.
    """
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise UnusableCheckpoint(
            f"{folder} holds {len(found)} files {pattern}, and one is needed; {needed}"
        )
    require_weights(found[0])
    return found[0]
