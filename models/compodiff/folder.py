"""Facts about a CompoDiff denoiser from its folder, without weights and torch.

Two forms are known. A folder of our own training holds `config.json` of the format below and
`model.safetensors`. The released one, `navervision/CompoDiff-Aesthetic`, is a folder of
transformers whose `config.json` says `"model_type": "CompoDiff"`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from models.checkpoints import UnusableCheckpoint, file_sha256

if TYPE_CHECKING:
    from models.protocols import Fingerprint

FORMAT: Final = "cirflow-compodiff-1"
RELEASED: Final = "CompoDiff"
"""`model_type` of the released form."""
CONFIG_FILE: Final = "config.json"
WEIGHTS_FILE: Final = "model.safetensors"
RELEASED_WEIGHTS: Final = (WEIGHTS_FILE, "pytorch_model.bin")
RELEASED_SETTINGS: Final = ("embed_dim", "model_depth", "model_dim", "model_heads", "timesteps")

_OWN: Final = ("settings", "shape", "base", "provenance")
_ADVICE: Final = (
    "give the folder that cirflow run train-compodiff published, or a copy of "
    "navervision/CompoDiff-Aesthetic"
)


class CompoDiffError(UnusableCheckpoint):
    """A folder holds no CompoDiff denoiser, or a damaged one."""


@dataclass(frozen=True)
class CompoDiffFolder:
    """A denoiser that is not loaded.

    Attributes:
        path: The folder.
        config: Its configuration.
        weights: The file of its weights.
        released: Whether it is of the released form.
    """

    path: Path
    config: Mapping[str, Any]
    weights: Path
    released: bool

    @property
    def dim(self) -> int:
        """d, width of the image features that it reads."""
        return int(self.config["embed_dim"] if self.released else self.config["shape"]["dim"])

    @property
    def backbone(self) -> Mapping[str, Any] | None:
        """Fingerprint of the backbone whose features it was trained on, where it is written."""
        base: Mapping[str, Any] | None = None if self.released else self.config["base"]
        return base

    @property
    def provenance(self) -> Mapping[str, Any]:
        """How it was trained, as far as its folder says."""
        if self.released:
            return {"zero_shot": True, "published": {"file": self.weights.name}}
        found: Mapping[str, Any] = self.config["provenance"]
        return found

    @property
    def fingerprint(self) -> Fingerprint:
        """Identity of weights and configuration; the same weights trained elsewhere are the same.

        Of the released form only what the denoiser is built from counts.
        """
        chosen = RELEASED_SETTINGS if self.released else ("settings", "shape")
        described = json.dumps({name: self.config[name] for name in chosen}, sort_keys=True)
        return {
            "network": RELEASED if self.released else FORMAT,
            "config_sha256": hashlib.sha256(described.encode()).hexdigest(),
            "weights_sha256": file_sha256(self.weights),
        }


def read_folder(path: str | Path) -> CompoDiffFolder:
    """The denoiser of a folder of either form.

    Raises:
        CompoDiffError: It holds none, or lacks a file or a part of its configuration.
    """
    path = Path(path)
    try:
        config = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise CompoDiffError(f"{path} holds no {CONFIG_FILE}; {_ADVICE}") from None
    except (ValueError, RecursionError) as error:
        raise CompoDiffError(f"{path / CONFIG_FILE} is damaged: {error}") from error
    given = config if isinstance(config, dict) else {}
    released = given.get("model_type") == RELEASED
    if not released and given.get("format") != FORMAT:
        raise CompoDiffError(
            f"{path / CONFIG_FILE} is neither of format {FORMAT} nor of model_type {RELEASED}; "
            f"{_ADVICE}"
        )
    lacking = [name for name in (RELEASED_SETTINGS if released else _OWN) if name not in given]
    if lacking:
        raise CompoDiffError(f"{path / CONFIG_FILE} is damaged: it lacks {', '.join(lacking)}")
    names = RELEASED_WEIGHTS if released else (WEIGHTS_FILE,)
    weights = next((path / name for name in names if (path / name).is_file()), None)
    if weights is None:
        raise CompoDiffError(f"{path} lacks {' or '.join(names)}; take it as it was published")
    return CompoDiffFolder(path, given, weights, released)
