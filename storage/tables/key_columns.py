"""Keys as one column: millions of them without a Python object each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, Final, overload

import polars as pl

_BLOCK: Final = 2**16
_ESCAPED: Final = r'["\\\x00-\x1f]'
"""What JSON does not write as it is."""


class KeyColumn(Sequence[str]):
    """Sorted, unique keys. A sequence of texts, which hot paths use as a column (`series`)."""

    def __init__(self, series: pl.Series) -> None:
        """Take a column that is sorted and unique; others go through `of`."""
        self.series: Final = series

    @classmethod
    def of(cls, keys: Iterable[str]) -> KeyColumn:
        """The sorted, unique keys among some; a column that is so already is taken as it is."""
        if isinstance(keys, KeyColumn):
            return keys
        series = key_series(keys)
        if not (series.slice(1) > series.slice(0, max(0, len(series) - 1))).all():
            series = series.sort()
            series = series.filter(series.ne_missing(series.shift()))
        return cls(series)

    def only(self, wanted: pl.Series) -> KeyColumn:
        """The keys for which a boolean column is true."""
        return KeyColumn(self.series.filter(wanted))

    @cached_property
    def content_key(self) -> str:
        """The `content_key` of the list of the keys, written block by block."""
        digest = hashlib.sha256(b"[")
        for start in range(0, len(self), _BLOCK):
            block = self.series.slice(start, _BLOCK)
            if block.str.contains(_ESCAPED).any():
                text = json.dumps(block.to_list(), separators=(",", ":"), ensure_ascii=False)[1:-1]
            else:
                text = f'"{block.str.join(chr(34) + "," + chr(34)).item()}"'
            digest.update(f"{',' if start else ''}{text}".encode())
        digest.update(b"]")
        return digest.hexdigest()[:20]

    def __len__(self) -> int:
        """How many keys there are."""
        return len(self.series)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> KeyColumn: ...
    def __getitem__(self, place: int | slice) -> str | KeyColumn:
        """One key, or some of them in their order."""
        if isinstance(place, slice):
            return KeyColumn.of(self.series[place])
        return str(self.series[place])

    def __iter__(self) -> Iterator[str]:
        """The keys one by one, for few of them."""
        return iter(self.series)

    def __contains__(self, key: object) -> bool:
        """Whether a key is among them."""
        if not isinstance(key, str):
            return False
        place = int(self.series.search_sorted(key))
        return place < len(self) and self.series[place] == key

    def __eq__(self, other: object) -> bool:
        """Whether another sequence has the same keys in the same order."""
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and self.series.equals(key_series(other))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """The number of keys, and the first."""
        return f"KeyColumn({len(self)} keys, {self.series.head(3).to_list()})"


def key_series(keys: Iterable[str]) -> pl.Series:
    """Keys as a column of texts, in their order."""
    if isinstance(keys, KeyColumn):
        return keys.series
    values: Any = keys if isinstance(keys, pl.Series) else list(keys)
    return pl.Series("key", values, dtype=pl.String)
