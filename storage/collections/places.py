"""Where pictures lie: the part of the `images` table and the bytes of each, known to a process.

Footers of parts say which pictures a part holds and where (`PartReader.spans`), once for each
part and process: 24 bytes a picture, no object of Python's. All of it is a shortcut: who reads a
picture compares its hash, and looks again where that differs.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from storage.locations.location import Entry, Location
from storage.tables.part_files import CorruptPart, open_part
from storage.tables.table import open_table

IMAGES_SPEC: Mapping[str, Any] = {"producer": "cirflow/images/1"}
"""Spec of the images table: no collection, no source, so that a photo is stored once."""
_AT_ONCE = 16
"""Footers that are fetched from S3 at the same time."""
_HEX = re.compile(r"[0-9a-f]{16,}")


@dataclass(frozen=True)
class Slots:
    """Where pictures lie, sorted by digest, each once.

    Attributes:
        digests: (n,) uint64, the first 64 bits of the image ids.
        parts: (n,) int32, places in the list of parts, which is sorted by name.
        starts, sizes: (n,) int64, bytes of the picture in that file; a negative start is -1 - its
            row group, of which the bytes are not known.
    """

    digests: np.ndarray
    parts: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray

    def __len__(self) -> int:
        return len(self.digests)

    def take(self, rows: np.ndarray) -> Slots:
        """Some of them."""
        return Slots(*(each[rows] for each in vars(self).values()))

    @classmethod
    def joined(cls, slots: Sequence[Slots]) -> Slots:
        """All of some; of a picture that lies in two parts, the place in the first one."""
        every = cls(*map(np.concatenate, zip(*(vars(s).values() for s in slots), strict=True)))
        order = np.lexsort((every.parts, every.digests))
        digests = every.digests[order]
        return every.take(order[np.append(True, digests[1:] != digests[:-1])[: len(order)]])


@dataclass(frozen=True)
class Found:
    """Pictures and where they lie, in the order in which they are stored."""

    ids: list[str]
    slots: Slots
    parts: Sequence[Entry]


class Places:
    """Where the pictures below a root lie. Make it with `places_of`."""

    def __init__(self, location: Location) -> None:
        self.table = open_table(location, "images", IMAGES_SPEC)
        self._lock = threading.Lock()
        self._looked = False
        self._parts: list[Entry] = []
        self._slots = _NONE

    def find(self, ids: Sequence[str], *, anew: bool = False) -> Found:
        """The pictures that are stored, in stored order; `anew` lists the parts again.

        Pictures in a part that cannot be read are not found.
        """
        with self._lock:
            if anew or not self._looked:
                self._look()
            parts, slots = self._parts, self._slots
        wanted = digests_of(ids)
        rows = np.searchsorted(slots.digests, wanted)
        there = rows < len(slots)
        there[there] = slots.digests[rows[there]] == wanted[there]
        chosen, own = slots.take(rows[there]), np.flatnonzero(there)
        order = np.lexsort((np.abs(chosen.starts), chosen.parts))
        return Found([ids[i] for i in own[order]], chosen.take(order), parts)

    def in_order(self, ids: Sequence[str]) -> list[str]:
        """The same pictures, those of one part next to each other; unknown ones come last."""
        found = self.find(ids, anew=True).ids
        return found if len(found) == len(ids) else [*found, *sorted(set(ids) - set(found))]

    def _look(self) -> None:
        """List the parts and read the footers of new ones: a published part never changes."""
        there = self.table.parts()
        known = set(self._parts)
        new = [entry for entry in there if entry not in known]
        read = functools.partial(_slots_of, self.table.location)
        with ThreadPoolExecutor(1 if self.table.location.is_local else _AT_ONCE) as pool:
            own = dict(zip(new, pool.map(read, new), strict=True))
        parts = [entry for entry in there if entry in known or own[entry] is not None]
        number = {entry: place for place, entry in enumerate(parts)}
        places = np.array([number.get(entry, -1) for entry in self._parts], np.int32)
        kept = replace(self._slots, parts=places[self._slots.parts])
        fresh = [
            replace(slots, parts=np.full(len(slots), number[entry], np.int32))
            for entry, slots in own.items()
            if slots is not None
        ]
        self._slots = Slots.joined([kept.take(kept.parts >= 0), *fresh])
        self._parts, self._looked = parts, True


_NONE = Slots(
    np.empty(0, np.uint64), np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.int64)
)


@functools.lru_cache(maxsize=8)
def places_of(location: Location) -> Places:
    """What this process knows of a root."""
    return Places(location)


def _slots_of(location: Location, entry: Entry) -> Slots | None:
    """The pictures of a part; None where its footer cannot be read."""
    try:
        with open_part(location, entry.path, entry.size) as part:
            digests, spans = digests_of(part.keys()), part.spans()
    except (CorruptPart, FileNotFoundError):
        return None
    if len(spans) != len(digests):
        return None
    return Slots(digests, np.zeros(len(digests), np.int32), spans[:, 0], spans[:, 1])


def digests_of(ids: Sequence[str]) -> np.ndarray:
    """(n,) uint64: the first 64 bits of some image ids; 0 for a text that is not one."""
    heads = [each[:16] for each in ids]
    if not _HEX.fullmatch("".join(heads) or "0" * 16) or any(len(head) < 16 for head in heads):
        heads = [head if _HEX.fullmatch(head) else "0" * 16 for head in heads]
    return np.frombuffer(bytes.fromhex("".join(heads)), ">u8").astype(np.uint64)
