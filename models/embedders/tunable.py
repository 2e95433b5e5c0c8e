"""Which checkpoints of transformers an embedding model can be tuned from, by their files alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from models.checkpoints import CONFIG_FILE, UnusableCheckpoint, identity_files

MODEL_TYPES: Final = ("qwen3_vl", "qwen2_5_vl", "qwen2_vl")


def require_tunable(folder: Path) -> None:
    """Refuse what is not a folder of a checkpoint that can be tuned; no weight is read.

    Raises:
        UnusableCheckpoint: Its configuration is missing, or is another model's.
        ValueError: It holds no weights.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise UnusableCheckpoint(
            f"{folder} has no {CONFIG_FILE}; give the folder of a Qwen-VL checkpoint"
        )
    try:
        kind = json.loads(path.read_bytes()).get("model_type")
    except (ValueError, AttributeError) as error:
        raise UnusableCheckpoint(f"{path} cannot be read: {error}") from error
    if kind not in MODEL_TYPES:
        raise UnusableCheckpoint(
            f"{folder} is a checkpoint of {kind!r}; one of {', '.join(MODEL_TYPES)} can be tuned"
        )
    identity_files(str(folder), folder)
