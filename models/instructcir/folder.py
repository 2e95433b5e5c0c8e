"""Facts about a trained reformulation network from its folder, without weights and torch.

`models.instructcir.checkpoint` lists its files, writes and loads them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from models import network_folders
from models.encoders.spec import BPE_FILE
from models.network_folders import CONFIG_FILE, CheckpointError, features_identity, identity_of

if TYPE_CHECKING:
    from models.instructcir.training_settings import Branch
    from models.protocols import Dtype, Fingerprint

FORMAT: Final = "cirflow-reformulation-1"
ONLINE_FILE: Final = "model.safetensors"
TARGET_FILE: Final = "target.safetensors"
COMBINER_FILE: Final = "combiner.safetensors"

_FILES: Final = (ONLINE_FILE, TARGET_FILE, COMBINER_FILE, BPE_FILE)


def network_fingerprint(folder: str | Path) -> Fingerprint:
    """Identity of a checkpoint, from its files and without loading weights.

    Raises:
        CheckpointError: The folder holds no checkpoint, or one that lacks a file.
    """
    folder = Path(folder)
    config = read_config(folder)
    require_files(folder, config)
    return identity_of(folder, config, _FILES)


def features_fingerprint(network: Fingerprint, branch: Branch, dtype: Dtype) -> Fingerprint:
    """The part of a feature table's spec that names the network; no weights are loaded.

    Args:
        network: `network_fingerprint` of the folder.
        branch: The weights that embed queries; galleries are embedded by the moving average.
        dtype: Precision of the computation.
    """
    return features_identity(network, branch=branch, dtype=dtype)


def read_config(folder: str | Path) -> dict[str, Any]:
    """The checkpoint's configuration, checked; see `network_folders.read_config`."""
    return network_folders.read_config(folder, FORMAT)


def require_files(folder: Path, config: dict[str, Any]) -> None:
    """Refuse a checkpoint that lacks a file.

    Raises:
        CheckpointError: The message names the file.
    """
    network_folders.require_files(folder, list(_needed(config)))


def _needed(config: dict[str, Any]) -> Iterator[str]:
    yield ONLINE_FILE
    if config["combiner"] is not None:
        yield COMBINER_FILE
    try:
        if config["architecture"]["text_cfg"].get("tokenizer_kwargs", {}).get("bpe_path"):
            yield BPE_FILE
        trained = config["provenance"].get("spec", {})
        if trained.get("ema", {}).get("enabled"):
            yield TARGET_FILE
    except (AttributeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{CONFIG_FILE} of the network is damaged: {error!r}") from error
