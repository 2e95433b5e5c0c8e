"""Pictures that were uploaded or read lately, in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict

from storage.tables.keys import sha256_hex


class Pictures:
    """Bytes of pictures by id, up to a limit; the one used longest ago goes first.

    Args:
        most: Bytes that are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._data: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, data: bytes) -> str:
        """Keep a picture; returns its id."""
        image_id = sha256_hex(data)
        with self._lock:
            if image_id not in self._data:
                self._held += len(data)
            self._data[image_id] = data
            self._data.move_to_end(image_id)
            while self._held > self._most and len(self._data) > 1:
                _, gone = self._data.popitem(last=False)
                self._held -= len(gone)
        return image_id

    def get(self, image_id: str) -> bytes | None:
        """The bytes of a picture; None where it is not kept."""
        with self._lock:
            if image_id not in self._data:
                return None
            self._data.move_to_end(image_id)
            return self._data[image_id]
