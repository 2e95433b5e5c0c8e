"""Small pictures for the pages."""

from __future__ import annotations

import io
from typing import Final

from storage.collections.decoding import decode_image
from tasks.report.records import Thumbnail

THUMBNAIL: Final = 112
"""Longest side of a picture in a report, in pixels."""


def thumbnail(data: bytes, alt: str) -> Thumbnail:
    """A small JPEG of an image."""
    image = decode_image(data)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return Thumbnail(buffer.getvalue(), *image.size, alt=alt)
