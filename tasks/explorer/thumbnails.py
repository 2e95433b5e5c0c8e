"""Images as JPEG files for pages, each made once and kept in bounded memory."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from typing import Final

from storage.collections.decoding import decode_image
from storage.collections.reading import read_pictures
from storage.locations.location import Location

SIDES: Final = (160, 320, 640, 1280)
"""Longest sides in pixels."""


class Thumbnails:
    """Pictures of a root.

    Args:
        root: Root of the tables.
        most: Bytes kept; those not asked for the longest go first.
    """

    def __init__(self, root: str, most: int = 64 * 2**20) -> None:
        self._root = root
        self._most = most
        self._held = 0
        self._made: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def jpeg(self, image_id: str, side: int) -> bytes:
        """An image whose longest side has at most so many pixels.

        Args:
            image_id: sha256 of its file.
            side: One of `SIDES`.

        Raises:
            IncompleteTable: no collection of the root holds it.
            ValueError: another size, or a file that does not decode.
        """
        if side not in SIDES:
            raise ValueError(f"side={side} is not made; sides are {', '.join(map(str, SIDES))}")
        asked = (image_id, side)
        with self._lock:
            if asked in self._made:
                self._made.move_to_end(asked)
                return self._made[asked]
        made = _jpeg(self._root, image_id, side)
        with self._lock:
            if asked not in self._made:
                self._made[asked] = made
                self._held += len(made)
            while self._held > self._most and len(self._made) > 1:
                self._held -= len(self._made.popitem(last=False)[1])
        return made


def _jpeg(root: str, image_id: str, side: int) -> bytes:
    ((_, data),) = read_pictures(Location(root), [image_id])
    image = decode_image(data)
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()
