"""Which part holds a key's row, and with which status: read once from each part.

A published part never changes: what was read of it holds while a listing names it with its size.
So a process remembers it, and where many parts were read, it leaves what it read for other
processes in files next to the parts, ``keys-{hash of the content}``. They are derived: a damaged
or foreign one is not believed, one that speaks of parts that are gone is read without those, and
what none covers is read from the parts.

In memory a key is its 64-bit digest: among 10 million keys the odds that a missing key is taken for
a present one are below 6e-6. Readers of rows compare the keys themselves.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.locations.damage import MALFORMED
from storage.locations.location import Entry, Location
from storage.tables.footers import Footer
from storage.tables.receipts import Survey
from storage.tables.schemas import OK

A = TypeVar("A")
B = TypeVar("B")

INDEX: Final = re.compile(r"keys-[0-9a-f]{32}")
"""The name of a file of an index."""
WORTH_KEEPING: Final = 64
"""Parts that were read, from which on they are left for other processes."""
FILE_ROWS: Final = 2**20
"""Rows of one file of an index, about: 34 MB where keys are hashes."""

_ABOUT = b"cirflow.index"
_ON_S3 = 8
_TRIES = 5
_BAD = 2**48


@dataclass(frozen=True)
class PartRows:
    """What is known of a part.

    Attributes:
        name, size: as listed.
        attempt, seconds, created: of its footer.
        digests: (rows,) uint64, of the keys in the order of its rows.
        codes: (rows,) uint16, places of the rows' statuses in `Known.statuses`; 0 is ok.
    """

    name: str
    size: int
    attempt: int
    seconds: float
    created: str
    digests: npt.NDArray[np.uint64]
    codes: npt.NDArray[np.uint16]


Held = tuple[PartRows, npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""A part, the places of its rows among those asked for, and their places in the part."""


@dataclass(frozen=True)
class Index:
    """The rows of some parts, numbered in the order of the parts' names.

    Attributes:
        parts: by name.
        statuses: of which `PartRows.codes` are places.
    """

    parts: tuple[PartRows, ...]
    statuses: Sequence[str]

    @cached_property
    def starts(self) -> npt.NDArray[np.int64]:
        """(parts + 1,) number of each part's first row."""
        return np.cumsum([0, *(len(part.codes) for part in self.parts)], dtype=np.int64)

    @cached_property
    def codes(self) -> npt.NDArray[np.uint16]:
        """(rows,) code of the status of each row."""
        none = np.empty(0, np.uint16)
        return np.concatenate([none, *(part.codes for part in self.parts)])

    def _digests(self) -> npt.NDArray[np.uint64]:
        none = np.empty(0, np.uint64)
        return np.concatenate([none, *(part.digests for part in self.parts)])

    @cached_property
    def kept(self) -> pl.DataFrame:
        """`digest` and `rank` of the one row that readers keep of each key.

        ok wins over failed, then the part with the smaller name; failed rows rank from 2**48 on.
        """
        ranks = np.arange(len(self.codes)) + np.where(self.codes == 0, 0, _BAD)
        frame = pl.DataFrame({"digest": self._digests(), "rank": ranks})
        return frame.group_by("digest").agg(pl.col("rank").min())

    def kept_rows(self) -> npt.NDArray[np.int64]:
        """(keys,) numbers of all rows that readers keep, sorted."""
        ranks = self.kept["rank"].to_numpy()
        return np.sort(np.where(ranks >= _BAD, ranks - _BAD, ranks))

    def find(self, keys: pl.Series) -> npt.NDArray[np.int64]:
        """(keys,) number of the row that readers keep of each key, -1 where there is none."""
        asked = pl.DataFrame({"digest": digests_of(keys)})
        found = asked.join(self.kept, on="digest", how="left", maintain_order="left")
        ranks: npt.NDArray[np.int64] = found["rank"].fill_null(-1).to_numpy()
        return np.where(ranks >= _BAD, ranks - _BAD, ranks)

    def is_ok(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """(rows,) whether each row is there (not -1) and ok."""
        codes = np.append(self.codes, np.uint16(1))  # of row -1
        good: npt.NDArray[np.bool_] = codes[rows] == 0
        return good

    def by_part(self, rows: npt.NDArray[np.int64]) -> Iterator[Held]:
        """Each part that holds some of the rows."""
        order = np.argsort(rows, kind="stable")
        order = order[np.searchsorted(rows[order], 0) :]
        held = np.searchsorted(self.starts, rows[order], side="right") - 1
        cuts = np.flatnonzero(np.diff(held)) + 1
        for places in np.split(order, cuts) if len(order) else ():
            number = int(np.searchsorted(self.starts, rows[places[0]], side="right")) - 1
            yield self.parts[number], places, rows[places] - self.starts[number]

    def last_attempt(self, keys: pl.Series) -> int:
        """The last attempt at any of some keys."""
        wanted = digests_of(keys).implode()
        rows = np.flatnonzero(pl.Series(self._digests()).is_in(wanted).to_numpy())
        held = np.unique(np.searchsorted(self.starts, rows, side="right") - 1)
        return max((self.parts[number].attempt for number in held), default=0)

    def count_by_status(self) -> dict[str, int]:
        """How many keys there are of each status, most frequent first."""
        counts = np.bincount(self.codes[self.kept_rows()], minlength=len(self.statuses)).tolist()
        found = [(s, n) for s, n in zip(self.statuses, counts, strict=True) if n]
        return dict(sorted(found, key=lambda each: (-each[1], each[0])))


def digests_of(keys: pl.Series) -> pl.Series:
    """A 64-bit digest of each key; it holds within a process and is written nowhere."""
    return keys.hash(0)


@dataclass
class Known:
    """What this process knows of a table's parts."""

    statuses: list[str] = field(default_factory=lambda: [OK])
    parts: dict[tuple[str, int], PartRows] = field(default_factory=dict)
    stamps: dict[str, str] = field(default_factory=dict)
    index: Index | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)

    def rows_of(
        self, name: str, size: int, footer: Footer, keys: pa.ChunkedArray, status: pa.ChunkedArray
    ) -> PartRows:
        """Make what is remembered of a part from its two columns."""
        digests = digests_of(pl.Series("key", keys)).to_numpy()
        coded = pc.dictionary_encode(status.combine_chunks())
        for each in coded.dictionary.to_pylist():
            if each not in self.statuses:
                self.statuses.append(each)
        codes = np.array([self.statuses.index(s) for s in coded.dictionary.to_pylist()], np.uint16)
        own = codes[coded.indices.to_numpy(zero_copy_only=False)]
        facts = footer.attempt, footer.seconds, footer.created
        return PartRows(name, size, *facts, digests, own)


@lru_cache(maxsize=16)
def known_of(location: Location, folder: str) -> Known:
    """What this process knows of the table in a folder."""
    return Known()


ReadPart = Callable[[Entry], tuple[pa.Table, Footer]]
"""Reads the key and the status, in this order, of every row of a part."""


def index_of(location: Location, survey: Survey, read: ReadPart) -> Index:
    """The index of the parts of a survey.

    Raises:
        CorruptPart: a part that is not known yet cannot be read.
    """
    known = known_of(location, survey.folder)
    with known.lock:
        entries = {(entry.path.rpartition("/")[2], entry.size): entry for entry in survey.parts}
        _forget_all_but(known, entries)
        new = [key for key in entries if key not in known.parts]
        if len(new) >= WORTH_KEEPING:
            for path in sorted(filter(is_index, survey.files)):
                _learn(location, path, known, entries)
            new = [key for key in entries if key not in known.parts]
        _read_parts(location, survey, known, [entries[key] for key in new], read)
        if new or known.index is None or len(known.index.parts) != len(entries):
            ordered = tuple(known.parts[key] for key in sorted(entries))
            known.index = Index(ordered, known.statuses)
        known.stamps = {name: entry.stamp for (name, _), entry in entries.items()}
        return known.index


def is_index(path: str) -> bool:
    """Whether a path has the name of an index file."""
    return INDEX.fullmatch(path.rpartition("/")[2]) is not None


def _forget_all_but(known: Known, entries: Mapping[tuple[str, int], Entry]) -> None:
    for key in list(known.parts):
        entry = entries.get(key)
        if entry is None or known.stamps.get(key[0], entry.stamp) != entry.stamp:
            del known.parts[key]
            known.index = None


def _read_parts(
    location: Location, survey: Survey, known: Known, entries: Sequence[Entry], read: ReadPart
) -> None:
    """Read parts, and leave what they say for others where it is much."""
    keeps = len(entries) >= WORTH_KEEPING
    held: list[tuple[PartRows, pa.Table]] = []
    count = 0
    found = zip(entries, each_ahead(location, read, entries), strict=True)
    for entry, (rows, footer) in found:
        name = entry.path.rpartition("/")[2]
        part = known.rows_of(name, entry.size, footer, rows.column(0), rows.column(1))
        known.parts[name, entry.size] = part
        if keeps:
            held.append((part, rows))
            count += len(part.codes)
        if count >= FILE_ROWS:
            _leave(location, survey.folder, held)
            held, count = [], 0
    if held:
        _leave(location, survey.folder, held)


def _leave(location: Location, folder: str, held: Sequence[tuple[PartRows, pa.Table]]) -> None:
    """Write one file of an index; a reader without the right to write does not."""
    parts = [[p.name, p.size, len(p.codes), p.attempt, p.seconds, p.created] for p, _ in held]
    about = json.dumps({"folder": folder, "parts": parts}).encode()
    rows = pa.concat_tables([rows.rename_columns(["key", "status"]) for _, rows in held])
    sink = pa.BufferOutputStream()
    pq.write_table(
        rows.replace_schema_metadata({_ABOUT: about}),
        sink,
        compression="zstd",
        use_dictionary=["status"],
        write_statistics=False,
        row_group_size=2**17,
    )
    data = sink.getvalue().to_pybytes()
    name = f"keys-{hashlib.sha256(data).hexdigest()[:32]}"
    location.leave(f"{folder}/{name}", data)


def _learn(
    location: Location, path: str, known: Known, entries: Mapping[tuple[str, int], Entry]
) -> None:
    """Take over what an index file says of the present parts."""
    for key, part in read_index(location, path, known):
        if key in entries:
            known.parts.setdefault(key, part)


def read_index(
    location: Location, path: str, known: Known
) -> Iterator[tuple[tuple[str, int], PartRows]]:
    """What a file of an index says of each part; nothing where it is not to be believed."""
    folder, _, name = path.rpartition("/")
    with contextlib.suppress(*MALFORMED, KeyError, FileNotFoundError, pa.ArrowException):
        data = location.read_bytes(path)
        if name != f"keys-{hashlib.sha256(data).hexdigest()[:32]}":
            return
        file = pq.ParquetFile(pa.BufferReader(data))
        about = json.loads((file.schema_arrow.metadata or {})[_ABOUT])
        if about["folder"] != folder:
            return
        rows, start = file.read(), 0
        for part, size, count, attempt, seconds, created in about["parts"]:
            own = rows.slice(start, count)
            footer = Footer("", "", "", attempt, count, seconds, created=created)
            yield (part, size), known.rows_of(part, size, footer, own["key"], own["status"])
            start += count


def steady(
    listed: Callable[[], Survey], work: Callable[[Survey], A], survey: Survey | None = None
) -> A:
    """Some work on parts as listed; on a new listing where one is put aside meanwhile.

    Raises:
        FileNotFoundError: that happened again and again.
    """
    for _ in range(_TRIES - 1):
        try:
            return work(survey or listed())
        except FileNotFoundError:
            survey = None
    return work(survey or listed())


def each_ahead(location: Location, work: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    """Work on each item, in order; on S3 on a few at a time, a few ahead."""
    if location.is_local:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(_ON_S3, thread_name_prefix="parts") as pool:
        ahead: deque[Future[Any]] = deque()
        for item in items:
            ahead.append(pool.submit(work, item))
            if len(ahead) >= 2 * _ON_S3:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
