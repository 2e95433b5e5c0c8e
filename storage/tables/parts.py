"""One part of a table: a Parquet file with typed columns and its provenance in the footer."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.locations.location import Location
from storage.tables.schemas import OK, TableSchema

PRODUCER = "cirflow/storage/1"
"""Format of the parts; written into every footer."""

MIN_PARQUET_BYTES = 12
"""A Parquet file has a magic number at both ends and the length of its footer."""

_FOOTER = b"cirflow"
_KEYS = b"cirflow.keys"
_NOT_CORRUPTION = (FileNotFoundError, PermissionError, TimeoutError, ConnectionError)


class CorruptPart(ValueError):
    """A published part cannot be read; the message names it and says how to put it aside."""

    def __init__(self, path: str, what: str) -> None:
        name = path.rsplit("/", 1)[-1]
        super().__init__(
            f"{path} is broken: {what}. Put it aside with `cirflow cache verify --quarantine` or"
            f" Table.quarantine({name!r}) (nothing is deleted) and run the same backfill again:"
            " it makes only the rows that are lost"
        )
        self.path = path
        self.what = what

    def __reduce__(self) -> tuple[type[CorruptPart], tuple[str, str]]:
        return type(self), (self.path, self.what)


@dataclass(frozen=True)
class Footer:
    """Provenance of a part: producer, table, spec, shard, time, and number of rows.

    `seconds` is the time that making the rows took, 0 where it was not measured.
    """

    table: str
    spec_key: str
    shard_key: str
    attempt: int
    rows: int
    seconds: float = 0.0
    producer: str = PRODUCER
    created: str = field(
        default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    )


def checked_rows(schema: TableSchema, rows: pa.Table, members: Sequence[str]) -> pa.Table:
    """Return the rows of a shard in the schema's column order, sorted by key.

    Raises:
        ValueError: a column is missing, unknown or of another type; a member has no row or two;
            a row has no status, or a status and reason that contradict each other; a row that is
            ok has a null or a vector that is not finite.
    """
    if set(rows.column_names) != set(schema.columns):
        raise ValueError(
            f"rows of {schema.name} have exactly the columns {', '.join(schema.columns)};"
            f" given: {', '.join(rows.column_names)}"
        )
    try:
        rows = rows.select(list(schema.columns)).cast(schema.arrow)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(f"rows of {schema.name} do not fit its columns: {error}") from error
    rows = rows.sort_by(schema.key).combine_chunks()
    keys = rows[schema.key].to_pylist()
    if keys != sorted(members):
        raise ValueError(_membership_fault(schema, keys, members))
    _check_status(schema, rows)
    return rows


def _membership_fault(schema: TableSchema, keys: list[str], members: Sequence[str]) -> str:
    seen = set(keys)
    lost = [member for member in members if member not in seen]
    extra = sorted(seen - set(members), key=str)
    return (
        f"a part of {schema.name} has one row for each member of its shard:"
        f" {len(lost)} without a row {lost[:3]}, {len(extra)} that are not members {extra[:3]},"
        f" {len(keys) - len(seen)} rows too many for their key"
    )


def _check_status(schema: TableSchema, rows: pa.Table) -> None:
    statuses, reasons = rows["status"].to_pylist(), rows["reason"].to_pylist()
    for key, status, reason in zip(rows[schema.key].to_pylist(), statuses, reasons, strict=True):
        if not status or reason is None or (status == OK) != (reason == ""):
            raise ValueError(
                f"{schema.name} row {key}: status {status!r} with reason {reason!r};"
                " a row is 'ok' with an empty reason, or names its failure and a reason"
            )
    good = rows.filter(pc.equal(rows["status"], OK))
    for name in schema.columns:
        column = good[name]
        if column.null_count:
            raise ValueError(f"{schema.name}: {column.null_count} ok rows have no {name}")
        if pa.types.is_fixed_size_list(column.type) and not _all_finite(column):
            raise ValueError(f"{schema.name}: ok rows whose {name} is not finite")


def _all_finite(column: pa.ChunkedArray) -> bool:
    # float32 first: pyarrow has no is_finite for float16
    values = pc.list_flatten(column).cast(pa.float32())
    return bool(pc.all(pc.is_finite(values), min_count=0).as_py())


def encode_part(schema: TableSchema, rows: pa.Table, footer: Footer) -> bytes:
    """Return the Parquet file of checked rows, after reading it back and comparing.

    Pages carry checksums, so that a flipped bit is found when it is read; row groups have about
    ``schema.group_bytes``, so that a few rows can be read without the rest. Image bytes are
    compressed already and are stored as they are, vectors have no useful dictionary or bounds.
    """
    metadata = {_FOOTER: json.dumps(footer.__dict__, sort_keys=True)}
    if schema.keys_in_footer:
        metadata[_KEYS] = "\n".join(rows[schema.key].to_pylist())
    small = [f.name for f in rows.schema if pa.types.is_string(f.type)]
    sink = pa.BufferOutputStream()
    pq.write_table(
        rows.replace_schema_metadata(metadata),
        sink,
        compression={f.name: _codec(f.type) for f in rows.schema},
        use_dictionary=small,
        write_statistics=small,
        row_group_size=max(1, int(rows.num_rows * schema.group_bytes / max(rows.nbytes, 1))),
        write_page_checksum=True,
        store_schema=True,
    )
    data = sink.getvalue()
    again = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
    if not again.equals(rows):
        raise RuntimeError(f"a part of {footer.table} changed when it was written as Parquet")
    return bytes(data)


def _codec(kind: pa.DataType) -> str:
    return "none" if pa.types.is_large_binary(kind) else "zstd"


@contextlib.contextmanager
def open_part(location: Location, path: str) -> Iterator[pq.ParquetFile]:
    """Open a part; anything wrong with its content, inside the block too, is a CorruptPart."""
    with location.open_read(path) as file:
        try:
            yield pq.ParquetFile(file, pre_buffer=True, page_checksum_verification=True)
        except _NOT_CORRUPTION:
            raise
        except (pa.ArrowInvalid, OSError) as error:
            # Parquet's own complaints are OSErrors without a number; a disk's have one.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise CorruptPart(location.join(path), str(error)) from error


def footer_of(part: pq.ParquetFile, path: str) -> Footer:
    """Return a part's provenance.

    Raises:
        CorruptPart: the footer has no provenance, or contradicts the number of rows in the file.
    """
    try:
        footer = Footer(**json.loads((part.metadata.metadata or {})[_FOOTER]))
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptPart(path, f"its footer has no provenance of ours ({error!r})") from error
    if footer.rows != part.metadata.num_rows:
        raise CorruptPart(path, f"{part.metadata.num_rows} rows, its footer says {footer.rows}")
    return footer


def keys_by_group(part: pq.ParquetFile, path: str) -> tuple[frozenset[str], ...]:
    """Return the keys of each row group from the footer alone (where the table keeps them there).

    Raises:
        CorruptPart: the footer does not hold one key for each row.
    """
    metadata = part.metadata
    keys = (metadata.metadata or {}).get(_KEYS, b"").decode().split("\n")
    if len(keys) != metadata.num_rows:
        raise CorruptPart(path, f"its footer has {len(keys)} keys for {metadata.num_rows} rows")
    rest = iter(keys)
    sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    return tuple(frozenset(itertools.islice(rest, size)) for size in sizes)


def read_part(
    location: Location,
    path: str,
    schema: TableSchema,
    spec_key: str,
    columns: Sequence[str],
) -> tuple[pa.Table, Footer]:
    """Read some columns of a part.

    Raises:
        CorruptPart: it is truncated or damaged, of another table, or has other columns.
    """
    with open_part(location, path) as part:
        where = location.join(path)
        footer = footer_of(part, where)
        if (footer.table, footer.spec_key) != (schema.name, spec_key):
            raise CorruptPart(where, f"it belongs to {footer.table}/{footer.spec_key}")
        if not part.schema_arrow.equals(schema.arrow):
            raise CorruptPart(where, f"its columns are {part.schema_arrow.names} of other types")
        return part.read(columns=list(columns)).replace_schema_metadata(None), footer
