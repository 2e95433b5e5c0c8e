"""Small versions of pictures, made once and kept in a folder."""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

from PIL import Image

from storage.collections.decoding import decode_image

SIDES: Final = (160, 320, 640, 1280)
"""Longest sides in pixels."""
QUALITY: Final = 85


def thumbnail(data: bytes, side: int) -> bytes:
    """A picture as a JPEG whose longer side has at most `side` pixels.

    Raises:
        ImageProblem: the bytes give no image.
    """
    image = decode_image(data, shortest=side)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


def kept_thumbnail(folder: Path, image_id: str, side: int, make: Callable[[], bytes]) -> bytes:
    """The thumbnail of an image, made when it is first asked for.

    Args:
        folder: Where thumbnails are kept.
        image_id: sha256 of the picture, in hexadecimal.
        side: One of `SIDES`.
        make: Makes the thumbnail.
    """
    file = folder / image_id[:2] / f"{image_id}-{side}.jpg"
    try:
        return file.read_bytes()
    except FileNotFoundError:
        pass
    made = make()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        aside = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
        aside.write_bytes(made)
        os.replace(aside, file)
    except OSError:  # a full or closed disk costs the time of making it again
        return made
    return made
