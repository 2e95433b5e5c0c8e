"""Where pictures lie, as columns: no object of Python's for a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl


@dataclass(frozen=True)
class Slots:
    """Where pictures lie, sorted by digest, each once.

    Attributes:
        digests: (n,) the first 64 bits of the image ids.
        starts, sizes: (n,) bytes of the picture in its file; a negative start is -1 - its row
            group, of which the bytes are not known.
        parts: (n,) places in a list of parts.
    """

    digests: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray
    parts: np.ndarray

    def __len__(self) -> int:
        return len(self.digests)

    def take(self, rows: np.ndarray) -> Slots:
        """Some of them."""
        return Slots(*(each[rows] for each in vars(self).values()))

    @classmethod
    def stacked(cls, slots: Sequence[Slots]) -> Slots:
        """All of some, one behind the other."""
        return cls(*map(np.concatenate, zip(*(vars(each).values() for each in slots), strict=True)))

    @classmethod
    def joined(cls, slots: Sequence[Slots]) -> Slots:
        """All of some; of a picture that lies in two parts, the place in the first one."""
        every = cls.stacked(slots)
        order = np.lexsort((every.parts, every.digests))
        digests = every.digests[order]
        return every.take(order[np.append(True, digests[1:] != digests[:-1])[: len(order)]])


NONE = Slots(*(np.empty(0, kind) for kind in (np.uint64, np.int64, np.int64, np.int64)))


def digests_of(ids: pl.Series) -> np.ndarray:
    """(n,) uint64: the first 64 bits of some image ids; 0 for a text that is not one."""
    heads = ids.str.head(16).str.decode("hex", strict=False)
    return heads.bin.reinterpret(dtype=pl.UInt64, endianness="big").fill_null(0).to_numpy()
