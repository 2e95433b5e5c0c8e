"""Files that say where pictures lie, so that a process need not ask the footer of every part.

``images/{spec}/places-{rows}-{hash}`` holds, column by column and sorted by digest, 24 bytes for
each picture of some parts, and then the names and sizes of these parts as JSON. Local files are
mapped; of one on S3 a few pictures cost a few ranges. The files are derived: one that is lost or
damaged costs footers. Who reads a picture compares its hash.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from typing import Final

import numpy as np

from storage.collections.slots import NONE, Slots
from storage.locations.damage import MALFORMED
from storage.locations.location import Entry, Location

PLACES = re.compile(r"places-(\d+)-([0-9a-f]{20})")
"""The name of such a file."""
COLUMNS: Final = {"digests": "<u8", "starts": "<i8", "sizes": "<u4", "parts": "<u4"}
_ROW = sum(np.dtype(kind).itemsize for kind in COLUMNS.values())
_FEW = 16
"""Pictures that are looked for one by one; for more of them a file on S3 is fetched whole."""


def named_hash(data: bytes) -> str:
    """The hash by which such a file is named."""
    return hashlib.sha256(data).hexdigest()[:20]


def write_places(location: Location, folder: str, slots: Slots, parts: Sequence[Entry]) -> Entry:
    """Publish where some pictures lie; `slots.parts` are places in `parts`."""
    columns = [vars(slots)[name].astype(kind).tobytes() for name, kind in COLUMNS.items()]
    names = [[entry.path.rpartition("/")[2], entry.size] for entry in parts]
    data = b"".join([*columns, json.dumps(names).encode()])
    path = f"{folder}/places-{len(slots)}-{named_hash(data)}"
    location.replace(path, data)  # of this content, or damaged
    return Entry(path, len(data), "")


class PlaceFile:
    """One such file."""

    def __init__(self, location: Location, entry: Entry) -> None:
        """Read which parts it speaks of: `covered`, (path, size) each; none if it is damaged."""
        folder, _, name = entry.path.rpartition("/")
        match = PLACES.fullmatch(name)
        self.path = entry.path
        self._location, self._size = location, entry.size
        self._rows = int(match[1]) if match else 0
        self._slots: Slots | None = None
        self.covered: list[tuple[str, int]] = []
        try:
            (tail,) = location.read_spans([(self.path, self._rows * _ROW, entry.size)])
            self.covered = [(f"{folder}/{part}", int(size)) for part, size in json.loads(tail)]
        except (*MALFORMED, OSError):
            self._rows = 0

    def near(self, digests: np.ndarray) -> Slots:
        """Where the pictures of these digests lie, and perhaps others; none if it is lost."""
        if not self._rows:
            return NONE
        if self._slots is None:
            local = self._location.local_path(self.path)
            try:
                if local is not None:
                    self._slots = self._columns(np.memmap(local, np.uint8, "r"))
                elif len(digests) > _FEW:
                    data = self._location.read_bytes(self.path)
                    self._slots = self._columns(np.frombuffer(data, np.uint8))
                else:
                    return self._few(digests)
            except OSError:
                self._slots = NONE
        return self._slots

    def _columns(self, data: np.ndarray) -> Slots:
        columns, at = {}, 0
        for name, kind in COLUMNS.items():
            size = self._rows * np.dtype(kind).itemsize
            columns[name] = data[at : at + size].view(kind)
            at += size
        return Slots(**columns)

    def _few(self, digests: np.ndarray) -> Slots:
        """Hashes are spread evenly, so that each can only lie in a window of a few thousand."""
        slack = 4 * math.isqrt(self._rows) + 64  # eight standard deviations
        middles = (digests.astype(np.float64) / 2.0**64 * self._rows).astype(np.int64)
        windows = [(max(0, m - slack), min(self._rows, m + slack)) for m in middles.tolist()]
        held = self._location.read_spans([(self.path, 8 * a, 8 * b) for a, b in windows])
        rows: dict[int, np.uint64] = {}
        for digest, (first, _), data in zip(digests, windows, held, strict=True):
            near = np.frombuffer(data, "<u8")
            at = int(np.searchsorted(near, digest))
            if at < len(near) and near[at] == digest:
                rows[first + at] = digest
        found = sorted(rows)
        spans, before = [], 0
        for kind in COLUMNS.values():
            width = np.dtype(kind).itemsize
            starts = [before * self._rows + row * width for row in found]
            spans += [(self.path, start, start + width) for start in starts]
            before += width
        size = len(found)  # the digests are known, the other columns come together
        values = self._location.read_spans(spans[size:])
        columns = {"digests": np.array([rows[row] for row in found], np.uint64)}
        for number, (name, kind) in enumerate([*COLUMNS.items()][1:]):
            own = b"".join(values[number * size : (number + 1) * size])
            columns[name] = np.frombuffer(own, kind)
        return Slots(**columns)
