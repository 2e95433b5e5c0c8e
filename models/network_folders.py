"""Facts about a trained network from its folder, without weights and torch.

A folder has `config.json`, which says its format, and files of weights. `models.instructcir` and
`models.composed` each have a format.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from models.checkpoints import checkpoint_identity
from models.encoders.backbone_files import library_name
from models.encoders.spec import CONFIG_FILE as BACKBONE_FILE

if TYPE_CHECKING:
    from models.protocols import Fingerprint

CONFIG_FILE: Final = "config.json"
FORMATS: Final[Mapping[str, frozenset[str]]] = {
    "cirflow-reformulation-1": frozenset(
        ("network", "combiner", "architecture", "preprocess", "base", "dim", "provenance")
    ),
    "cirflow-composed-1": frozenset(
        ("system", "settings", "architecture", "preprocess", "base", "dim", "files", "provenance")
    ),
}
"""Format -> what its configuration holds at least."""

_GIVE: Final = "give the folder that a training published"


class CheckpointError(ValueError):
    """A folder holds no trained network, or a damaged one."""


def read_config(folder: str | Path, only: str = "") -> dict[str, Any]:
    """A network's configuration, checked.

    Args:
        folder: Of the network.
        only: The format that it must have; empty allows every one.

    Raises:
        CheckpointError: It is missing, unreadable, or of another format.
    """
    path = Path(folder, CONFIG_FILE)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(_why_missing(Path(folder))) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    given = str(config.get("format")) if isinstance(config, dict) else ""
    if given not in FORMATS or given != (only or given):
        raise CheckpointError(
            f"{path} is of format {given!r}, read here is {only or ' or '.join(FORMATS)}; {_GIVE}"
        )
    lacking = FORMATS[given] - config.keys()
    if lacking:
        raise CheckpointError(f"{path} is damaged: it lacks {', '.join(sorted(lacking))}")
    return config


def require_new(folder: Path) -> None:
    """Refuse a place for a network that is taken.

    Raises:
        ValueError: It is a file, or a folder that holds something.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; save to a new folder")
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} holds something already; save to a new folder")


def require_files(folder: Path, names: Sequence[str]) -> None:
    """Refuse a network that lacks a file: without it another network would be loaded.

    Raises:
        CheckpointError: The message names the file.
    """
    for name in names:
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder} lacks {name}; the checkpoint is incomplete, take it as it was published"
            )


def identity_of(folder: Path, config: Mapping[str, Any], names: Sequence[str]) -> Fingerprint:
    """Identity of a network: its configuration without provenance, and files that are there.

    The same weights trained elsewhere are the same network.

    Args:
        folder: Of the network.
        config: From `read_config`.
        names: Files that its computation reads.
    """
    files = checkpoint_identity(str(folder))
    own = {key: value for key, value in config.items() if key != "provenance"}
    described = json.dumps(own, sort_keys=True).encode()
    return {
        "network": config["format"],
        "config_sha256": hashlib.sha256(described).hexdigest(),
        "files": {name: files[name] for name in names if name in files},
    }


def features_identity(network: Fingerprint, **choices: str) -> Fingerprint:
    """The part of a feature table's spec that names the network; no weights are loaded.

    Args:
        network: `identity_of` its folder.
        choices: Branch and precision of the computation.
    """
    return {"engine": library_name(), **network, **choices}


def _why_missing(folder: Path) -> str:
    if not folder.is_dir():
        return f"the folder {folder} does not exist; {_GIVE}"
    if (folder / BACKBONE_FILE).is_file():
        return f"{folder} holds a backbone, not a network trained on it; {_GIVE}"
    return f"{folder} holds no {CONFIG_FILE}; {_GIVE}"
