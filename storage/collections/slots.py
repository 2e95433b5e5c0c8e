"""Where pictures lie, as columns: no object of Python's for a picture."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_HEX = re.compile(r"[0-9a-f]{16,}")


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


def digests_of(ids: Sequence[str]) -> np.ndarray:
    """(n,) uint64: the first 64 bits of some image ids; 0 for a text that is not one."""
    heads = [each[:16] for each in ids]
    if not _HEX.fullmatch("".join(heads) or "0" * 16) or any(len(head) < 16 for head in heads):
        heads = [head if _HEX.fullmatch(head) else "0" * 16 for head in heads]
    return np.frombuffer(bytes.fromhex("".join(heads)), ">u8").astype(np.uint64)
