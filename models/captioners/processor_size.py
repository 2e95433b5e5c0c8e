"""The size to which a checkpoint's processor brings pictures, by its files."""

from __future__ import annotations

import json
from typing import Any

from models.checkpoints import PROCESSOR, checkpoint_folder


def processor_side(model: str, revision: str) -> int | None:
    """The longest side in pixels that pictures are resized or cropped to.

    Args:
        model: Directory or hub id, on this machine.
        revision: Hub revision; ignored for a directory.

    Returns:
        None where the files do not say, or where pictures are not resized.
    """
    folder = checkpoint_folder(model, revision)
    sides: list[int] = []
    for name in PROCESSOR:
        if not (folder / name).is_file():
            continue
        whole = json.loads((folder / name).read_text(encoding="utf-8"))
        own = whole.get("image_processor", whole)
        if not own.get("do_resize", True):
            return None
        sides += [*_numbers(own.get("size")), *_numbers(own.get("crop_size"))]
    return max(sides, default=None)


def _numbers(size: Any) -> list[int]:
    values = size.values() if isinstance(size, dict) else [size]
    return [value for value in values if isinstance(value, int)]
