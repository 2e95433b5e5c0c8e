"""Facts about a trained reformulation network from its folder, without weights and torch.

`models.instructcir.checkpoint` lists its files, writes and loads them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from models.checkpoints import checkpoint_identity
from models.encoders.backbone_files import library_name
from models.encoders.spec import BPE_FILE
from models.encoders.spec import CONFIG_FILE as BACKBONE_FILE

if TYPE_CHECKING:
    from models.instructcir.training_settings import Branch
    from models.protocols import Dtype, Fingerprint

FORMAT: Final = "cirflow-reformulation-1"
CONFIG_FILE: Final = "config.json"
ONLINE_FILE: Final = "model.safetensors"
TARGET_FILE: Final = "target.safetensors"
COMBINER_FILE: Final = "combiner.safetensors"

_WEIGHTS: Final = (ONLINE_FILE, TARGET_FILE, COMBINER_FILE)


class CheckpointError(ValueError):
    """A folder holds no reformulation network, or a damaged one."""


def network_fingerprint(folder: str | Path) -> Fingerprint:
    """Identity of a checkpoint, from its files and without loading weights.

    Provenance is left out: the same weights trained elsewhere are the same network.

    Raises:
        CheckpointError: The folder holds no checkpoint, or one that lacks a file.
    """
    folder = Path(folder)
    config = read_config(folder)
    require_files(folder, config)
    del config["provenance"]
    files = checkpoint_identity(str(folder))
    described = json.dumps(config, sort_keys=True).encode()
    return {
        "network": FORMAT,
        "config_sha256": hashlib.sha256(described).hexdigest(),
        "files": {name: files[name] for name in (*_WEIGHTS, BPE_FILE) if name in files},
    }


def features_fingerprint(network: Fingerprint, branch: Branch, dtype: Dtype) -> Fingerprint:
    """The part of a feature table's spec that names the network; no weights are loaded.

    Args:
        network: `network_fingerprint` of the folder.
        branch: The weights that embed queries; galleries are embedded by the moving average.
        dtype: Precision of the computation.
    """
    return {"engine": library_name(), **network, "branch": branch, "dtype": dtype}


def read_config(folder: str | Path) -> dict[str, Any]:
    """The checkpoint's configuration, checked.

    Raises:
        CheckpointError: It is missing, unreadable, or another format's.
    """
    path = Path(folder, CONFIG_FILE)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(_why_missing(Path(folder))) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    given = config.get("format") if isinstance(config, dict) else None
    if given != FORMAT:
        raise CheckpointError(
            f"{path} is of format {given!r}, this version reads {FORMAT!r}; give the folder "
            "that training a reformulation network published"
        )
    lacking = {"network", "combiner", "architecture", "preprocess", "base", "dim", "provenance"}
    lacking -= config.keys()
    if lacking:
        raise CheckpointError(f"{path} is damaged: it lacks {', '.join(sorted(lacking))}")
    return config


def require_files(folder: Path, config: dict[str, Any]) -> None:
    """Refuse a checkpoint that lacks a file: without it another network would be loaded.

    Raises:
        CheckpointError: The message names the file.
    """
    for name in _needed(config):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder} lacks {name}; the checkpoint is incomplete, take it as it was published"
            )


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


def _why_missing(folder: Path) -> str:
    advice = "give the folder that training a reformulation network published"
    if not folder.is_dir():
        return f"there is no folder {folder}; {advice}"
    if (folder / BACKBONE_FILE).is_file():
        return f"{folder} holds a backbone, not a network trained on it; {advice}"
    return f"{folder} holds no {CONFIG_FILE}; {advice}"
