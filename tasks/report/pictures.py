"""Evenly drawn examples, and images as small pictures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Final, TypeVar

from PIL import Image, ImageDraw

from storage.collections.decoding import decode_image
from tasks.report.records import Thumbnail

Item = TypeVar("Item")

THUMBNAIL: Final = 112
"""Longest side of a picture on a page, in pixels."""
LARGE: Final = 224
"""Longest side of one that enlarges."""


def thumbnail(data: bytes, alt: str, side: int = THUMBNAIL) -> Thumbnail:
    """A small JPEG of an image, its longest side at most so many pixels."""
    image = decode_image(data, shortest=side)
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return Thumbnail(buffer.getvalue(), *image.size, alt=alt)


def nothing() -> Thumbnail:
    """A grey square with a line across, where there is no image."""
    image = Image.new("RGB", (THUMBNAIL, THUMBNAIL), "#dddddd")
    ImageDraw.Draw(image).line((0, THUMBNAIL, THUMBNAIL, 0), fill="#999999", width=2)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return Thumbnail(buffer.getvalue(), *image.size, alt="no image")


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` items at even distances: the first and, of two or more, the last."""
    if len(items) <= count or count < 2:
        return list(items[:count])
    step = (len(items) - 1) / (count - 1)
    return [items[round(place * step)] for place in range(count)]
