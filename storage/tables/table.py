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
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from storage.locations import manifest
from storage.locations.damage import put_aside
from storage.locations.location import Entry, Location
from storage.tables.costs import Cost, TableCost, leave_note, read_notes
from storage.tables.footers import Footer
from storage.tables.frames import as_polars, unique_rows, winners
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
    SpecConflict,
)
from storage.tables.receipts import Survey, find_receipt, leave_receipt
from storage.tables.schemas import OK, TableSchema, make_rows, table_schema
from storage.tables.specs import read_spec, spec_text

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
    try:
        read_spec(location, name, table.spec_key)
    except FileNotFoundError:
        location.create(f"{table.folder}/spec.json", spec_text(plain))
        read_spec(location, name, table.spec_key)  # one of the racing writers has written it
    return table


def load_table(location: Location, name: str, spec_key: str) -> Table:
    """Open a table that exists by its spec key (the form in which tasks refer to tables).

    Raises:
        FileNotFoundError: there is no such table.
        SpecConflict: its spec.json does not have that key.
    """
    spec = read_spec(location, name, spec_key)
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
        order: Callable[[Sequence[str]], Sequence[str]] = tuple,
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
        seen = self._settled(survey, keys)
        if seen is not None and not (retry_failed and seen.failed):
            return Plan((), seen, survey.names, read_notes(survey.files))
        standing = self._standing(survey, keys)
        shards = _cut(order(standing.missing), shard_size, attempt=0)
        if retry_failed:
            shards += _cut(order(standing.failed), shard_size, attempt=standing.attempt + 1)
        return Plan(tuple(shards), standing.coverage, survey.names, read_notes(survey.files))

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
        needed = list(dict.fromkeys([*names, "status"]))
        tables = list(self._selected(needed, keys))
        if not tables:
            return as_polars(self.schema.arrow.empty_table().select(names))
        rows = unique_rows(pa.concat_tables(tables), self.schema.key)
        return as_polars(rows.select(names))

    def iter_parts(
        self, columns: Sequence[str] | None = None, keys: Sequence[str] | None = None
    ) -> Iterator[pl.DataFrame]:
        """Stream the rows part by part, each key once, by the same rule as `read`."""
        names = self._columns(columns)
        rows_of_keys = winners(self._index(self._survey().parts), self.schema.key)
        wanted = (
            rows_of_keys
            if keys is None
            else rows_of_keys.filter(pl.col("key").is_in(list(set(keys))))
        )
        for name, group in sorted(wanted.partition_by("part", as_dict=True).items()):
            part = str(name[0])
            rows = as_polars(self._read(part, names)[0])
            yield rows.filter(pl.col(self.schema.key).is_in(group["key"].implode()))

    def vectors(self, keys: Sequence[str], column: str = "vector") -> np.ndarray:
        """Return the vectors of some keys, in their order, as an array (len(keys), dim).

        Reads part by part into one array, in the table's own type.

        Raises:
            IncompleteTable: a key has no ok row.
        """
        kind = self.schema.arrow.field(column).type
        if not pa.types.is_fixed_size_list(kind):
            raise ValueError(f"{self.name}.{column} is not a column of vectors")
        rows_of: dict[str, list[int]] = {}
        for row, key in enumerate(keys):
            rows_of.setdefault(key, []).append(row)
        out = np.empty((len(keys), kind.list_size), kind.value_type.to_pandas_dtype())
        for part in self.iter_parts([column, "status"], list(rows_of)):
            good = part.filter(pl.col("status") == OK)
            found = [rows_of.pop(key) for key in good[self.schema.key]]
            vectors = good[column].to_numpy().reshape(-1, kind.list_size)
            sources = np.repeat(np.arange(len(found)), [len(rows) for rows in found])
            out[[row for rows in found for row in rows]] = vectors[sources]
        if rows_of:
            raise IncompleteTable(_incomplete(self, sorted(rows_of), len(set(keys))))
        return out

    def keys_of(self, part: str) -> list[str]:
        """The keys of one part, whatever their status.

        Raises:
            CorruptPart: it cannot be read.
        """
        rows, _ = self._read(part, [self.schema.key])
        return list(rows[self.schema.key].to_pylist())

    def pace(self, parts: int = 20) -> float | None:
        """Rows a second, measured over the last parts made; None without measurements."""
        footers = []
        for entry in self._survey().parts:
            with open_part(self.location, entry.path) as part:
                footer = part.footer()
            if footer.seconds:
                footers.append(footer)
        last = sorted(footers, key=lambda footer: footer.created)[-parts:]
        seconds = sum(footer.seconds for footer in last)
        return sum(footer.rows for footer in last) / seconds if seconds else None

    def rows_by_status(self) -> dict[str, int]:
        """Count the unique rows of each status, most frequent first."""
        counts = self.read(["status"]).group_by("status").len()
        return dict(counts.sort(["len", "status"], descending=[True, False]).iter_rows())

    def completeness(self, planned: Keys) -> Coverage:
        """Count how many of the planned keys are ok, failed and missing."""
        survey = self._survey()
        seen = self._settled(survey, planned)
        return self._standing(survey, planned).coverage if seen is None else seen

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

    def _read(self, part: str, columns: Sequence[str]) -> tuple[pa.Table, Footer]:
        path = f"{self.folder}/{part}"
        with open_part(self.location, path) as file:
            where = self.location.join(path)
            return read_part(file, where, self.schema, self.spec_key, columns)

    def _selected(self, columns: Sequence[str], keys: Sequence[str] | None) -> Iterator[pa.Table]:
        """Yield the rows of each part, of all keys or of some."""
        wanted = None if keys is None else pa.array(sorted(set(keys)), pa.string())
        for entry in self._survey().parts:
            rows, _ = self._read(entry.path.rsplit("/", 1)[-1], columns)
            if wanted is not None:
                rows = rows.filter(pc.is_in(rows[self.schema.key], wanted))
            yield rows

    def _survey(self, tolerant: bool = False) -> Survey:
        entries = self.location.entries(self.folder)
        parts = [e for e in entries if PART_FILE.fullmatch(e.path.removeprefix(f"{self.folder}/"))]
        for part in parts:
            if part.size < MIN_PARQUET_BYTES and not tolerant:
                raise CorruptPart(self.location.join(part.path), f"it has {part.size} bytes")
        return Survey(self.folder, tuple(parts), frozenset(e.path for e in entries))

    def _index(self, parts: Sequence[Entry]) -> pl.DataFrame:
        """Return (key, ok, attempt, part) of every row: only these columns are read."""
        frames = []
        for entry in parts:
            name = entry.path.rsplit("/", 1)[-1]
            rows, footer = self._read(name, [self.schema.key, "status"])
            frames.append(
                as_polars(rows).select(
                    pl.col(self.schema.key).alias("key"),
                    (pl.col("status") == OK).alias("ok"),
                    pl.lit(footer.attempt, pl.Int64).alias("attempt"),
                    pl.lit(name).alias("part"),
                )
            )
        empty = {"key": pl.String, "ok": pl.Boolean, "attempt": pl.Int64, "part": pl.String}
        return pl.concat([pl.DataFrame(schema=empty), *frames])

    def _settled(self, survey: Survey, keys: Keys) -> Coverage | None:
        """Return the coverage of some keys if a receipt says that none is missing."""
        if not isinstance(keys, DerivedKeys):
            return find_receipt(survey, sorted(set(keys)))
        seen = find_receipt(survey, keys.identity)
        if seen is None:
            seen = find_receipt(survey, sorted(set(keys.make())))
            if seen is not None:
                leave_receipt(self.location, survey, keys.identity, seen)
        return seen

    def _standing(self, survey: Survey, keys: Keys) -> _Standing:
        """Compare planned keys with all rows; leave a receipt where none is missing."""
        planned = sorted(set(keys.make() if isinstance(keys, DerivedKeys) else keys))
        known = (
            self._index(survey.parts)
            .group_by("key")
            .agg(pl.col("ok").any(), pl.col("attempt").max())
        )
        asked = pl.DataFrame({"key": planned}, schema={"key": pl.String})
        joined = asked.join(known, on="key", how="left", maintain_order="left", validate="1:1")
        failed = joined.filter(~pl.col("ok"))
        missing = joined.filter(pl.col("ok").is_null())["key"].to_list()
        coverage = Coverage(
            planned=len(planned),
            ok=len(planned) - len(missing) - len(failed),
            failed=len(failed),
            missing=len(missing),
        )
        if not missing:
            named = keys.identity if isinstance(keys, DerivedKeys) else planned
            leave_receipt(self.location, survey, named, coverage)
        attempts = failed["attempt"].to_list()
        return _Standing(coverage, missing, failed["key"].to_list(), max(attempts, default=0))


def _check_groups(part: PartReader, keys: list[str]) -> None:
    start = 0
    for group in part.keys_by_group():
        if group != set(keys[start : start + len(group)]):
            raise ValueError("the keys in its footer are not those of its rows")
        start += len(group)


@dataclass(frozen=True)
class _Standing:
    """Coverage of planned keys, those without an ok row, and the failed rows' last attempt."""

    coverage: Coverage
    missing: list[str]
    failed: list[str]
    attempt: int


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
        keys = planned.make() if isinstance(planned, DerivedKeys) else planned
        good = set(table.read(["status"], keys).filter(pl.col("status") == OK)[table.schema.key])
        lacking = sorted(set(keys) - good)
        raise IncompleteTable(_incomplete(table, lacking, coverage.planned, allow_gaps))
    return coverage


def _incomplete(table: Table, lacking: Sequence[str], planned: int, allow_gaps: float = 0.0) -> str:
    first = list(lacking[:3])
    rows = table.read(["status", "reason"], first)
    why = {key: f"{status}: {reason}" for key, status, reason in rows.iter_rows()}
    examples = "; ".join(f"{key} ({why.get(key, 'missing')})" for key in first)
    return (
        f"{table.folder} has no ok row for {len(lacking)} of {planned} keys"
        f" ({len(lacking) / planned:.2%}, allowed {allow_gaps:.2%}); first: {examples}."
        " Run the backfill again for missing rows, with retry_failed for failed ones, or allow the"
        " gaps"
    )


def _cut(keys: Sequence[str], size: int, attempt: int) -> list[Shard]:
    return [Shard.of(keys[i : i + size], attempt) for i in range(0, len(keys), size)]
