"""Where pictures lie: the part of the `images` table and the bytes of each, known to a process.

Footers of parts say which pictures a part holds and where (`PartReader.spans`). Of more than a few
parts this is kept in files next to them (`storage.collections.place_files`). All of it is a
shortcut: who reads a picture compares its hash, and looks again where that differs.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import polars as pl

from storage.collections.place_files import PLACES, PlaceFile, write_places
from storage.collections.slots import NONE, Slots, digests_of
from storage.locations.location import Entry, Location
from storage.locations.stores import IN_FLIGHT
from storage.tables.key_columns import key_series
from storage.tables.part_files import CorruptPart, open_part
from storage.tables.table import PART_FILE, open_table

IMAGES_SPEC: Final[Mapping[str, Any]] = {"producer": "cirflow/images/1"}
"""Spec of the images table: no collection, no source, so that a photo is stored once."""
_ALL: Final = np.zeros(1000, np.uint64)
"""So many digests that a file is read whole."""
_LOOSE: Final = 8
"""Parts of which no file speaks, and files, above which these become one file."""


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
        self._part_sizes = np.zeros(1, np.int64)
        self._files: dict[str, PlaceFile] = {}
        self._own = NONE
        """Of parts of which no file speaks; `parts` are places in `_own_parts`."""
        self._own_parts: list[Entry] = []

    def find(self, ids: Sequence[str], *, again: bool = False) -> Found:
        """The pictures that are stored, in stored order; `again` lists the parts again.

        Pictures in a part that cannot be read are not found.
        """
        column = key_series(ids)
        stored, slots, parts = self._located(column, again)
        return Found(column[stored].to_list(), slots, parts)

    def in_order(self, ids: Sequence[str]) -> pl.Series:
        """The same pictures, those of one part next to each other; unknown ones come last."""
        column = key_series(ids)
        stored = self._located(column, again=True)[0]
        return column[np.append(stored, np.delete(np.arange(len(column)), stored))]

    def _located(self, ids: pl.Series, again: bool) -> tuple[np.ndarray, Slots, Sequence[Entry]]:
        """The places in `ids` of the pictures that are stored, in stored order, and their slots."""
        with self._lock:
            if again or not self._looked:
                self._look()
            parts, wanted = self._parts, digests_of(ids)
            left, hits, found = np.arange(len(ids)), [np.empty(0, np.int64)], [NONE]
            for near, numbers in self._layers():
                slots = near(wanted[left]) if len(left) else NONE
                rows, there = _rows(slots, wanted[left])
                chosen = _numbered(slots.take(rows[there]), numbers)
                room = self._part_sizes[chosen.parts]  # a part has fewer row groups than bytes
                good = (-room <= chosen.starts) & (chosen.starts <= room - chosen.sizes)
                good &= chosen.parts >= 0
                there[there] = good
                found.append(chosen.take(good))
                hits.append(left[there])
                left = left[~there]
        own, slots = np.concatenate(hits), Slots.stacked(found)
        order = np.lexsort((np.abs(slots.starts), slots.parts))
        return own[order], slots.take(order), parts

    def _layers(self) -> Iterator[tuple[Callable[[np.ndarray], Slots], np.ndarray]]:
        """What says where pictures of some digests lie; and for each part that it speaks of the
        place in `_parts`, or -1."""
        number = {(each.path, each.size): place for place, each in enumerate(self._parts)}
        own = [(each.path, each.size) for each in self._own_parts]
        yield lambda digests: self._own, np.array([number[part] for part in own], np.int64)
        for file in self._files.values():
            places = [number.get(part, -1) for part in file.covered]
            yield file.near, np.array(places, np.int64)

    def _look(self) -> None:
        """List the parts; read files of places, and the footers of parts that are in none."""
        location, folder = self.table.location, self.table.folder
        entries = location.entries(folder)
        names = {each: each.path.removeprefix(f"{folder}/") for each in entries}
        self._parts = [each for each, name in names.items() if PART_FILE.fullmatch(name)]
        self._part_sizes = np.array([*(each.size for each in self._parts), 0])
        files = [each for each, name in names.items() if PLACES.fullmatch(name)]
        self._files = {e.path: self._files.get(e.path) or PlaceFile(location, e) for e in files}
        covered = {part for file in self._files.values() for part in file.covered}
        loose = [each for each in self._parts if (each.path, each.size) not in covered]
        known, self._looked = set(self._own_parts), True
        new = [each for each in loose if each not in known]
        read = functools.partial(_slots_of, location)
        with ThreadPoolExecutor(1 if location.is_local else IN_FLIGHT) as pool:
            fresh = dict(zip(new, pool.map(read, new), strict=True))
        kept = [each for each in loose if each in known or fresh[each] is not None]
        number = {each: place for place, each in enumerate(kept)}
        places = np.array([*(number.get(each, -1) for each in self._own_parts), -1])
        before = _numbered(self._own, places)
        slots = [
            replace(each, parts=np.full(len(each), number[entry]))
            for entry, each in fresh.items()
            if each is not None
        ]
        self._own = Slots.joined([before.take(before.parts >= 0), *slots])
        self._own_parts = kept
        if len(kept) > _LOOSE:
            self._keep()

    def _keep(self) -> None:
        """Write a file of what no file speaks of; with many files, one in place of all."""
        location, folder = self.table.location, self.table.folder
        slots, parts, old = self._own, self._own_parts, dict[str, PlaceFile]()
        try:
            if len(self._files) >= _LOOSE:
                old, parts = self._files, self._parts
                layers = [(near(_ALL), numbers) for near, numbers in self._layers()]
                every = [_numbered(slots, numbers) for slots, numbers in layers]
                slots = Slots.joined([each.take(each.parts >= 0) for each in every])
            entry = write_places(location, folder, slots, parts)
            file = PlaceFile(location, entry)
            for path in old.keys() - {entry.path}:
                location.remove(path)
        except OSError:  # who may not write does without
            return
        if file.covered:
            kept = {} if old else self._files
            self._files = {**kept, entry.path: file}
            self._own, self._own_parts = NONE, []


@functools.lru_cache(maxsize=8)
def places_of(location: Location) -> Places:
    """What this process knows of a root."""
    return Places(location)


def _rows(slots: Slots, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The row at which each digest is or would be, and whether it is there."""
    rows = np.searchsorted(slots.digests, wanted)
    there = rows < len(slots)
    there[there] = slots.digests[rows[there]] == wanted[there]
    return rows, there


def _numbered(slots: Slots, numbers: np.ndarray) -> Slots:
    """The same with other numbers of parts; -1 for one that has none."""
    known = slots.parts < len(numbers)
    own = np.append(numbers, -1)[np.where(known, slots.parts, len(numbers)).astype(np.int64)]
    return Slots(slots.digests, slots.starts, slots.sizes, own)


def _slots_of(location: Location, entry: Entry) -> Slots | None:
    """The pictures of a part; None where its footer cannot be read."""
    try:
        with open_part(location, entry.path, entry.size) as part:
            digests, spans = digests_of(key_series(part.keys())), part.spans()
    except (CorruptPart, FileNotFoundError):
        return None
    if len(spans) != len(digests):
        return None
    order = np.argsort(digests)
    slots = Slots(digests, spans[:, 0], spans[:, 1], np.zeros(len(digests), np.int64))
    return slots.take(order)
