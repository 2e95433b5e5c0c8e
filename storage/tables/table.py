"""Tables: everything derived, as publish-once Parquet parts under the key of their spec.

``{root}/{table}/{spec_key}/part-{shard_key}.parquet`` next to a ``spec.json`` that says what
produced them. The life of a table is a loop that may stop and start anywhere, in any number of
processes at once::

    table = open_table(location, "captions", spec)
    for shard in table.plan(image_ids, shard_size=256).shards:   # missing = planned - present
        table.publish(shard, rows_of(shard.members))             # atomic; the first of racers wins
    require_complete(table, image_ids, allow_gaps=0.0)
    captions = table.read()

Racers that start from the same state cut the same shards, because shards are whole runs of the
missing keys, sorted or in the one order in which their inputs lie, and their names are made of
their members. Racers that start from different
states may publish one row twice; readers keep one of them by a fixed rule.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from storage.locations import manifest
from storage.locations.damage import put_aside
from storage.locations.location import Entry, Location
from storage.tables.costs import Cost, TableCost, leave_note, read_notes
from storage.tables.footers import Footer
from storage.tables.frames import as_polars, unique_rows
from storage.tables.index import Held, Index, each_ahead, index_of, known_of, steady
from storage.tables.key_columns import KeyColumn, key_series
from storage.tables.keys import canonical_json, content_key
from storage.tables.part_files import CorruptPart, PartReader, open_bytes, open_part
from storage.tables.parts import MIN_PARQUET_BYTES, checked_rows, encode_part, read_part
from storage.tables.plans import (
    Coverage,
    DerivedKeys,
    IncompleteTable,
    Keys,
    Part,
    Plan,
    Problem,
    Shard,
    Shards,
    SpecConflict,
)
from storage.tables.receipts import Survey
from storage.tables.schemas import TableSchema, make_rows, table_schema
from storage.tables.specs import find_spec, known_spec, read_spec, spec_text
from storage.tables.standing import settled, standing_of
from storage.words import agreed

__all__ = [
    "CorruptPart",
    "Coverage",
    "DerivedKeys",
    "IncompleteTable",
    "Keys",
    "Part",
    "Plan",
    "Problem",
    "Shard",
    "SpecConflict",
    "Table",
    "load_table",
    "open_table",
    "require_complete",
]

PART_FILE = re.compile(r"part-[0-9a-f]{8,64}\.parquet")
SPEC_KEY = re.compile(r"[0-9a-f]{8,64}")


def open_table(location: Location, name: str, spec: Mapping[str, Any]) -> Table:
    """Open the table of a spec, writing its spec.json if this is the first time.

    Raises:
        ValueError: no such table, or a spec that is not plain JSON or lacks a field of the table.
        SpecConflict: the spec.json there says something else.
    """
    schema = table_schema(name, spec)
    plain = json.loads(canonical_json(spec))
    table = Table(location, schema, content_key(plain), plain)
    if find_spec(location, name, table.spec_key) is None:
        location.create(f"{table.folder}/spec.json", spec_text(plain))
        read_spec(location, name, table.spec_key)  # one of the racing writers has written it
    return table


def load_table(location: Location, name: str, spec_key: str) -> Table:
    """Open a table that exists by its spec key (the form in which tasks refer to tables).

    Raises:
        UnknownTable: no table of that name has the key.
        SpecConflict: its spec.json does not have that key.
    """
    spec = known_spec(location, name, spec_key)
    return Table(location, table_schema(name, spec), spec_key, spec)


@dataclass(frozen=True)
class Table:
    """A table of one spec at one location. Make it with `open_table` or `load_table`."""

    location: Location
    schema: TableSchema
    spec_key: str
    spec: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The kind of table."""
        return self.schema.name

    @property
    def folder(self) -> str:
        """The table's folder below the root."""
        return f"{self.schema.name}/{self.spec_key}"

    def rows(self, **columns: Sequence[Any] | np.ndarray) -> pa.Table:
        """Build rows for `publish` from columns; see `schemas.make_rows`."""
        return make_rows(self.schema, columns)

    # -- writing ---------------------------------------------------------------------------------

    def plan(
        self,
        keys: Keys,
        shard_size: int,
        retry_failed: bool = False,
        order: Callable[[KeyColumn], Sequence[str] | pl.Series] = KeyColumn.of,
    ) -> Plan:
        """Cut the planned keys that have no row yet into shards.

        `order` puts the keys whose rows are to be made into the order in which they are cut, so
        that what is read together is made together; without it they are sorted. A failed row
        counts as present; with `retry_failed`, keys that have only failed rows are planned again,
        in shards of their own with a new attempt number. Where nothing is missing and that was
        established before, this costs one listing.

        Raises:
            CorruptPart: a part cannot be read, so it is unknown which rows are missing.
        """
        if shard_size < 1:
            raise ValueError(f"a shard has at least one member, not {shard_size}")
        survey = self._survey()
        seen = settled(self.location, survey, keys)
        if seen is not None and not (retry_failed and seen.failed):
            return Plan(Shards(shard_size), seen, survey.names, read_notes(survey.files))
        survey, index = steady(self._survey, self._indexed, survey)
        standing = standing_of(self.location, survey, index, keys)
        runs = [(order(standing.missing), 0)]
        if retry_failed and standing.failed:
            last = index.last_attempt(standing.failed.series)
            runs.append((order(standing.failed), last + 1))
        shards = Shards(shard_size, *runs)
        return Plan(shards, standing.coverage, survey.names, read_notes(survey.files))

    def holds(self, shard: Shard) -> bool:
        """Tell whether the part of a shard is published."""
        return self.location.exists(f"{self.folder}/part-{shard.key}.parquet")

    def publish(self, shard: Shard, rows: pa.Table, seconds: float = 0.0) -> Part:
        """Check the rows of a shard and publish them as its part, unless another worker did.

        Args:
            shard: The shard that the rows belong to.
            rows: One row for each member.
            seconds: The time that making them took, for estimates.

        Raises:
            ValueError: the rows are not exactly those of the shard (see `parts.checked_rows`).
            CorruptPart: another part has the name and is broken.
        """
        rows = checked_rows(self.schema, rows, shard.members)
        footer = Footer(
            self.name, self.spec_key, shard.key, shard.attempt, rows.num_rows, round(seconds, 3)
        )
        data = encode_part(self.schema, rows, footer, self.spec)
        name = f"part-{shard.key}.parquet"
        published = manifest.publish(self.location, f"{self.folder}/{name}", data)
        self._look_again()
        if not published:
            self._read(name, [self.schema.key])  # the part that was there first must be a good one
        size = len(data) if published else self.location.size(f"{self.folder}/{name}")
        return Part(name, rows.num_rows, size, published)

    def note(self, shard: Shard, cost: Cost, *, published: bool) -> None:
        """Note what working on a shard took; `published` says whether its rows were used."""
        leave_note(self.location, self.folder, shard.key, cost, published=published)

    def cost(self) -> TableCost:
        """What making the table took so far (one listing)."""
        return read_notes(self._survey(tolerant=True).files)

    def quarantine(self, part: str) -> str:
        """Rename a broken part aside, so that its rows can be made again; return the new name.

        Nothing is deleted. The new name does not end in ``.parquet``: no reader sees it.
        """
        if not PART_FILE.fullmatch(part):
            raise ValueError(f"{part!r} is not the name of a part (part-<key>.parquet)")
        path = f"{self.folder}/{part}"
        aside = put_aside(self.location, path)
        self._look_again()
        manifest.forget(self.location, path)
        return aside.rpartition("/")[2]

    # -- reading ---------------------------------------------------------------------------------

    def parts(self) -> list[Entry]:
        """List the published parts, by name."""
        return list(self._survey().parts)

    def read(
        self, columns: Sequence[str] | None = None, keys: Sequence[str] | None = None
    ) -> pl.DataFrame:
        """Read rows, unique and sorted by key, of all keys or of some (absent ones are left out).

        Where a key has several rows, ok wins over failed, then the part with the smaller name.
        With `columns`, the key column comes first and then those, in their order.

        Raises:
            CorruptPart: a part cannot be read; the message says how to go on.
            ValueError: no such column.
        """
        names = self._columns(columns)
        if keys is not None:
            return self._read_some(names, KeyColumn.of(keys))
        needed = list(dict.fromkeys([*names, "status"]))
        tables = steady(self._survey, lambda now: [own for own, _ in self._each(now.parts, needed)])
        if not tables:
            return as_polars(self.schema.arrow.empty_table().select(names))
        rows = unique_rows(pa.concat_tables(tables), self.schema.key)
        return as_polars(rows.select(names))

    def iter_parts(
        self, columns: Sequence[str] | None = None, keys: Sequence[str] | None = None
    ) -> Iterator[pl.DataFrame]:
        """Stream the rows part by part, each key once, by the same rule as `read`."""
        names = self._columns(columns)
        if keys is not None:
            yield from (rows for rows, _ in self._taken(names, KeyColumn.of(keys).series))
            return
        _, index = steady(self._survey, self._indexed)
        for part, _, places in index.by_part(index.kept_rows()):
            yield as_polars(self._read(part.name, names, part.size)[0].take(pa.array(places)))

    def vectors(self, keys: Sequence[str], column: str = "vector") -> np.ndarray:
        """Return the vectors of some keys, in their order, as an array (len(keys), dim).

        Reads each part that holds some of them once, into one array in the table's own type.

        Raises:
            IncompleteTable: a key has no ok row.
        """
        kind = self.schema.arrow.field(column).type
        if not pa.types.is_fixed_size_list(kind):
            raise ValueError(f"{self.name}.{column} is not a column of vectors")
        asked = key_series(keys)
        lacking = np.ones(len(asked), bool)
        out = np.empty((len(asked), kind.list_size), kind.value_type.to_pandas_dtype())
        for rows, places in self._taken([self.schema.key, column], asked, only_ok=True):
            out[places] = rows[column].to_numpy().reshape(-1, kind.list_size)
            lacking[places] = False
        if lacking.any():
            distinct = KeyColumn.of(asked.filter(lacking))
            raise IncompleteTable(_incomplete(self, distinct, asked.n_unique()))
        return out

    def usable(self, keys: Sequence[str]) -> KeyColumn:
        """The keys among some that have an ok row."""
        asked = KeyColumn.of(keys)
        index, rows = self._find(asked.series)
        return asked.only(pl.Series(index.is_ok(rows)))

    def keys_of(self, part: str) -> list[str]:
        """The keys of one part, whatever their status.

        Raises:
            CorruptPart: it cannot be read.
        """
        return list(self._read(part, [self.schema.key])[0].column(0).to_pylist())

    def statuses_of(self, part: Entry) -> tuple[pa.Table, Footer]:
        """The key and the status of every row of one part as listed, and its footer.

        Raises:
            CorruptPart: it cannot be read.
        """
        return self._read(part.path.rpartition("/")[2], [self.schema.key, "status"], part.size)

    def pace(self, parts: int = 20) -> float | None:
        """Rows a second, measured over the last parts made; None without measurements."""
        _, index = steady(self._survey, self._indexed)
        measured = [part for part in index.parts if part.seconds]
        last = sorted(measured, key=lambda part: part.created)[-parts:]
        seconds = sum(part.seconds for part in last)
        return sum(len(part.codes) for part in last) / seconds if seconds else None

    def rows_by_status(self) -> dict[str, int]:
        """Count the unique rows of each status, most frequent first."""
        return steady(self._survey, self._indexed)[1].count_by_status()

    def completeness(self, planned: Keys) -> Coverage:
        """Count how many of the planned keys are ok, failed and missing."""
        survey = self._survey()
        if seen := settled(self.location, survey, planned):
            return seen
        survey, index = steady(self._survey, self._indexed, survey)
        return standing_of(self.location, survey, index, planned).coverage

    def state(self) -> str:
        """Return a hash of the published parts: while it stays, so does every row (one listing)."""
        return content_key([self.spec_key, self._survey().parts_by_name])

    def verify(self) -> list[Problem]:
        """Read every part completely; return each problem, in words that say what to do."""
        problems = []
        for part in self._survey(tolerant=True).parts:
            what = self.fault_of(part.path, self.location.read_bytes(part.path))
            if what:
                fault = CorruptPart(self.location.join(part.path), what)
                problems.append(Problem(part.path.rpartition("/")[2], str(fault)))
        return problems

    def fault_of(self, path: str, data: bytes) -> str:
        """Return what is wrong with the content of a part, or "" if all is well."""
        where = self.location.join(path)
        try:
            with open_bytes(data, where) as part:
                rows, _ = read_part(part, where, self.schema, self.spec_key, self.schema.columns)
                if self.schema.keys_in_footer:
                    _check_groups(part, rows[self.schema.key].to_pylist())
            checked_rows(self.schema, rows, sorted(set(rows[self.schema.key].to_pylist())))
        except CorruptPart as error:
            return error.what
        except (ValueError, pa.ArrowException) as error:
            return str(error)
        return ""

    # -- internals -------------------------------------------------------------------------------

    def _columns(self, columns: Sequence[str] | None) -> list[str]:
        unknown = set(columns or ()) - set(self.schema.columns)
        if unknown:
            raise ValueError(
                f"{self.name} has no column {', '.join(sorted(unknown))};"
                f" it has {', '.join(self.schema.columns)}"
            )
        asked = self.schema.columns if columns is None else columns
        return list(dict.fromkeys([self.schema.key, *asked]))

    def _read(
        self, part: str, columns: Sequence[str], size: int | None = None
    ) -> tuple[pa.Table, Footer]:
        path = f"{self.folder}/{part}"
        with open_part(self.location, path, size) as file:
            where = self.location.join(path)
            return read_part(file, where, self.schema, self.spec_key, columns)

    def _each(
        self, parts: Sequence[Entry], columns: Sequence[str]
    ) -> Iterator[tuple[pa.Table, Footer]]:
        """Some columns of some parts, one after the other."""

        def read(entry: Entry) -> tuple[pa.Table, Footer]:
            return self._read(entry.path.rpartition("/")[2], columns, entry.size)

        return each_ahead(self.location, read, parts)

    def _find(self, keys: pl.Series) -> tuple[Index, npt.NDArray[np.int64]]:
        """The index, and the row of each key in it, -1 where there is none.

        Parts are listed only where those known to this process do not hold an ok row of each key.
        """
        index = known_of(self.location, self.folder).index
        if index is not None:
            rows = index.find(keys)
            if index.is_ok(rows).all():
                return index, rows
        _, index = steady(self._survey, self._indexed)
        return index, index.find(keys)

    def _taken(
        self, columns: Sequence[str], asked: pl.Series, only_ok: bool = False
    ) -> Iterator[tuple[pl.DataFrame, npt.NDArray[np.int64]]]:
        """Read the rows of some keys part by part, with their places among the keys."""
        left = np.arange(len(asked))
        for is_last in (False, True):
            index, rows = self._find(asked[left])
            wanted = np.where(index.is_ok(rows), rows, -1) if only_ok else rows
            held = list(index.by_part(wanted))

            def take(own: Held) -> tuple[pa.Table, Footer]:
                return self._read(own[0].name, columns, own[0].size)

            tables = each_ahead(self.location, take, held)
            read = []
            try:
                for (part, places, own), (table, _) in zip(held, tables, strict=True):
                    whole = len(own) == len(part.codes) and bool((np.diff(own) > 0).all())
                    frame = as_polars(table if whole else table.take(pa.array(own)))
                    same = frame[self.schema.key] == asked[left[places]]
                    read.append(places)
                    yield frame.filter(same), left[places][same.to_numpy()]
            except FileNotFoundError:  # a part was put aside since it was listed
                if is_last:
                    raise
                self._look_again()
                left = np.delete(left, np.concatenate(read)) if read else left
            else:
                return

    def _read_some(self, names: Sequence[str], asked: KeyColumn) -> pl.DataFrame:
        """Rows of some keys, sorted by key; where the index knows the columns, no part is read."""
        if set(names) <= {self.schema.key, "status"}:
            index, rows = self._find(asked.series)
            held = rows[rows >= 0]
            status = pl.Series(index.statuses, dtype=pl.String)[index.codes[held]]
            keys = asked.series.filter(pl.Series(rows >= 0))
            return pl.DataFrame({self.schema.key: keys, "status": status}).select(names)
        frames, places = [], []
        for frame, own in self._taken(names, asked.series):
            frames.append(frame)
            places.append(own)
        if not frames:
            return as_polars(self.schema.arrow.empty_table().select(names))
        return pl.concat(frames)[np.argsort(np.concatenate(places))]

    def _look_again(self) -> None:
        """Let the next reader list the parts."""
        known_of(self.location, self.folder).index = None

    def _survey(self, tolerant: bool = False) -> Survey:
        entries = self.location.entries(self.folder)
        parts = [e for e in entries if PART_FILE.fullmatch(e.path.removeprefix(f"{self.folder}/"))]
        for part in parts:
            if part.size < MIN_PARQUET_BYTES and not tolerant:
                size = f"{part.size} {agreed(part.size, 'byte')}"
                raise CorruptPart(self.location.join(part.path), f"it has {size}")
        return Survey(self.folder, tuple(parts), frozenset(e.path for e in entries))

    def _indexed(self, survey: Survey) -> tuple[Survey, Index]:
        """Which part holds which row: only keys and statuses of parts not known yet are read."""
        return survey, index_of(self.location, survey, self.statuses_of)


def _check_groups(part: PartReader, keys: list[str]) -> None:
    start = 0
    for group in part.keys_by_group():
        if group != set(keys[start : start + len(group)]):
            raise ValueError("the keys in its footer are not those of its rows")
        start += len(group)


def require_complete(
    table: Table, planned: Keys, allow_gaps: float = 0.0, coverage: Coverage | None = None
) -> Coverage:
    """Refuse a table that lacks ok rows for more than a fraction of the planned keys.

    Args:
        table: The table.
        planned: Keys that it should hold.
        allow_gaps: Fraction that may lack an ok row.
        coverage: The coverage of the keys, if it is known already.

    Raises:
        IncompleteTable: says how many rows are lacking, which first and why, and what to do.
        ValueError: `allow_gaps` is not within 0 and 1.
    """
    if not 0.0 <= allow_gaps <= 1.0:
        raise ValueError(f"allow_gaps is a fraction within 0 and 1, not {allow_gaps}")
    coverage = table.completeness(planned) if coverage is None else coverage
    if coverage.gaps > allow_gaps:
        keys = KeyColumn.of(planned.make() if isinstance(planned, DerivedKeys) else planned)
        lacking = keys.only(~keys.series.is_in(table.usable(keys).series.implode()))
        raise IncompleteTable(_incomplete(table, lacking, coverage.planned, allow_gaps))
    return coverage


def _incomplete(table: Table, lacking: Sequence[str], planned: int, allow_gaps: float = 0.0) -> str:
    first = list(lacking[:3])
    rows = table.read(["status", "reason"], first)
    why = {key: f"{status}: {reason}" for key, status, reason in rows.iter_rows()}
    examples = "; ".join(f"{key} ({why.get(key, 'missing')})" for key in first)
    return (
        f"{table.folder} has no ok row for {len(lacking)} of {planned} {agreed(planned, 'key')}"
        f" ({len(lacking) / planned:.2%}, allowed {allow_gaps:.2%}); first: {examples}."
        " Run the backfill again for missing rows, with retry_failed for failed ones, or allow the"
        " gaps"
    )
