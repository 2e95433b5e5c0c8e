"""A growing set of keys: tens of bytes each where a set of texts has two hundred."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa

from storage.tables.key_columns import KeyColumn, key_series

_HEAD: Final = 8
"""Bytes of a key that say where it is looked for. All of its bytes are compared."""
_LEAST: Final = 2**10


class KeySet:
    """Keys of one length in lower-case hexadecimal digits, in the order in which they were added.

    Bytes lie one behind the other; a table of their numbers, at most half full, is probed from the
    place that a key's first bytes say. One thread may add while others ask.
    """

    def __init__(self, digits: int, keys: Iterable[str] = ()) -> None:
        """Take the digits of a key, 16 or more, and the first keys, each once.

        Raises:
            ValueError: a key has other digits.
        """
        self._width = digits // 2
        self._bytes = bytearray(self._packed(key_series(keys)))
        self._slots = self._table()

    def _packed(self, keys: pl.Series) -> bytes:
        raw = keys.str.decode("hex", strict=False)
        if not (raw.bin.size() == self._width).fill_null(False).all():
            raise ValueError(f"these are not keys of {2 * self._width} hexadecimal digits")
        packed = raw.to_arrow().cast(pa.binary(self._width))
        if not len(packed):
            return b""
        start, size = packed.offset * self._width, len(packed) * self._width
        return bytes(packed.buffers()[1].slice(start, size))

    def _table(self) -> memoryview:
        """The number of each key, counted from one, at or behind its place; 0 is free."""
        count, size = len(self), _LEAST
        while size < 4 * count:  # a quarter full, so that it serves until it is half full
            size *= 2
        table = np.zeros(size, np.int64)
        rows = np.frombuffer(bytes(self._bytes), np.uint8).reshape(count, self._width)
        heads = np.ascontiguousarray(rows[:, :_HEAD]).view(">u8")[:, 0].astype(np.uint64)
        places = (heads & np.uint64(size - 1)).astype(np.int64)
        left = np.arange(1, count + 1)
        while len(left):
            free = table[places] == 0
            table[places[free]] = left[free]
            beside = table[places] != left
            left, places = left[beside], (places[beside] + 1) & (size - 1)
        return table.data

    def add(self, key: str) -> None:
        """Add a key, if it is not there.

        Raises:
            ValueError: it has other digits.
        """
        raw = self._raw(key)
        if raw is None:
            raise ValueError(f"{key!r} is not a key of {2 * self._width} hexadecimal digits")
        place, found = self._found(raw)
        if found:
            return
        self._bytes += raw
        self._slots[place] = len(self)
        if 2 * len(self) > len(self._slots):
            self._slots = self._table()

    def _raw(self, key: str) -> bytes | None:
        try:
            raw = bytes.fromhex(key)
        except ValueError:
            return None
        return raw if len(raw) == self._width and raw.hex() == key else None

    def _found(self, raw: bytes) -> tuple[int, bool]:
        """The slot of a key, or the free one where it belongs."""
        slots, width = self._slots, self._width
        place = int.from_bytes(raw[:_HEAD]) & (len(slots) - 1)
        while number := slots[place]:
            if self._bytes[(number - 1) * width : number * width] == raw:
                return place, True
            place = (place + 1) & (len(slots) - 1)
        return place, False

    def __contains__(self, key: object) -> bool:
        """Whether a key is among them; another text never is."""
        raw = self._raw(key) if isinstance(key, str) else None
        return raw is not None and self._found(raw)[1]

    def __len__(self) -> int:
        """How many keys there are."""
        return len(self._bytes) // self._width

    def __iter__(self) -> Iterator[str]:
        """The keys one by one, as they were added."""
        for start in range(0, len(self._bytes), self._width):
            yield self._bytes[start : start + self._width].hex()

    def column(self) -> KeyColumn:
        """The keys, sorted."""
        data = pa.py_buffer(bytes(self._bytes))
        raw = pa.FixedSizeBinaryArray.from_buffers(pa.binary(self._width), len(self), [None, data])
        return KeyColumn.of(pl.Series("key", raw.cast(pa.binary())).bin.encode("hex"))
