"""Identity of a mapping network, from its files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from models.checkpoints import file_sha256
from models.textual_inversion.mapping_files import (
    FORMAT,
    WEIGHTS_FILE,
    MappingError,
    MappingShape,
    fingerprint_of,
    read_arrays,
    read_shape,
    recognise,
    require_torch_file,
)
from models.user_cache import recall, remember

if TYPE_CHECKING:
    from models.protocols import Json

FINGERPRINTS: Final = "mapping-fingerprints"
"""Where `models.user_cache` keeps them, by the hash of the weights."""


def mapping_fingerprint(path: str | Path) -> Mapping[str, Json]:
    """The fingerprint of a mapping network; its weights are hashed, no network is built.

    It is remembered for files of that content: a published checkpoint is a pickle that only torch
    reads (`weights_only`), and torch is then needed once for it.

    Raises:
        MappingError: As `models.textual_inversion.network.load_mapping`, for what the files tell.
    """
    path = Path(path)
    shape = read_shape(path) if path.is_dir() else None
    weights = path / WEIGHTS_FILE if shape else path
    if not weights.is_file():
        raise MappingError(f"there is no mapping network at {path}")
    content = file_sha256(weights)
    state = {"format": FORMAT, "shape": shape.record if shape else None}
    known = recall(FINGERPRINTS, content, state)
    if isinstance(known, dict):
        return known
    found = _fingerprint(weights, shape)
    remember(FINGERPRINTS, content, state, dict(found))
    return found


def _fingerprint(weights: Path, shape: MappingShape | None) -> Mapping[str, Json]:
    if weights.suffix != ".safetensors":
        require_torch_file(weights)
        from models.textual_inversion.network import published_fingerprint

        return published_fingerprint(weights)
    arrays = read_arrays(weights)
    if shape is None:
        arrays = {name.removeprefix("module."): values for name, values in arrays.items()}
        shape = recognise(arrays, str(weights))
    return fingerprint_of(shape, arrays.items())
