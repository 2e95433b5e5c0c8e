"""A published checkpoint as a folder of ours, which a profile names like a trained one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from models.checkpoints import file_sha256
from models.composed.checkpoint import save_composed
from models.composed.registry import require_importable, system
from models.settings import Settings

_WEIGHTS: Final = (".pt", ".pth", ".safetensors")


def bring_in(
    name: str, source: Path, out: Path, settings: Settings, not_zero_shot: str
) -> dict[str, Any]:
    """Load a published checkpoint strictly, and write it as a network's folder.

    Args:
        name: Of the system.
        source: The file, or the folder where the form has several.
        out: An empty folder, or one to be made.
        settings: The system's own.
        not_zero_shot: Why its results must not be called zero-shot; empty where they may be.

    Returns:
        Width of its vectors, number of weights, and the sha256 of each file.

    Raises:
        ValueError: The system has no published form, or the folder holds something.
        UnusableCheckpoint: A weight is missing, unknown or misshapen; the message names it.
    """
    record = system(name)
    require_importable(name)
    assert record.published is not None
    record.require_published(source)
    network = record.published(source, settings)
    inside = [source] if source.is_file() else sorted(source.iterdir())
    files = [file for file in inside if file == source or file.suffix in _WEIGHTS]
    hashes = {file.name: file_sha256(file) for file in files}
    base = network.base or {
        "model": record.title,
        "pretrained": "published",
        "weights_sha256": next(iter(hashes.values()), ""),
    }
    provenance = {
        "published": {"file": " and ".join(hashes) or source.name, "sha256": hashes},
        "zero_shot": not not_zero_shot,
        "zero_shot_reason": not_zero_shot,
    }
    save_composed(out, name, network, settings, base=base, provenance=provenance)
    weights = sum(parameter.numel() for parameter in network.parameters())
    return {"dim": network.dim, "weights": weights, "sha256": hashes}
