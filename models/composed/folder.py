"""Facts about a composed query encoder from its folder, without weights and torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from models import network_folders
from models.network_folders import identity_of, require_files

if TYPE_CHECKING:
    from models.protocols import Fingerprint

FORMAT: Final = "cirflow-composed-1"
WEIGHTS_FILE: Final = "model.safetensors"


def read_config(folder: str | Path) -> dict[str, Any]:
    """The network's configuration, checked; see `network_folders.read_config`."""
    return network_folders.read_config(folder, FORMAT)


def composed_fingerprint(folder: str | Path) -> Fingerprint:
    """Identity of a network from its files; no weights are loaded.

    Raises:
        CheckpointError: The folder holds no such network, or lacks a file.
    """
    folder = Path(folder)
    config = read_config(folder)
    names = [WEIGHTS_FILE, *config["files"]]
    require_files(folder, names)
    return identity_of(folder, config, names)
