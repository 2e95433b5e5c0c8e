"""One part of a table: a Parquet file with typed columns and its provenance in the footer."""

from __future__ import annotations

import base64
import io
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.tables.footers import SPANS, Footer, footer_metadata
from storage.tables.part_files import CorruptPart, PartReader
from storage.tables.schemas import OK, TableSchema
from storage.words import agreed

_MARK = 32
_WINDOW = 2**12

MIN_PARQUET_BYTES = 12
"""A Parquet file has a magic number at both ends and the length of its footer."""


def checked_rows(schema: TableSchema, rows: pa.Table, members: Sequence[str]) -> pa.Table:
    """Return the rows of a shard in the schema's column order, sorted by key.

    Raises:
        ValueError: a column is missing, unknown or of another type; a member has no row or two;
            a row has no status, or a status and reason that contradict each other; a row that is
            ok has a null, a number that is not finite, or one outside its column's range.
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
    keys, ordered = rows[schema.key].to_pylist(), sorted(members)
    if keys != ordered:
        rows = rows.sort_by(schema.key)
        keys = rows[schema.key].to_pylist()
    rows = rows.combine_chunks()
    if keys != ordered:
        raise ValueError(_membership_fault(schema, keys, members))
    _check_status(schema, rows)
    return rows


def _membership_fault(schema: TableSchema, keys: list[str], members: Sequence[str]) -> str:
    seen = set(keys)
    lost = [member for member in members if member not in seen]
    extra = sorted(seen - set(members), key=str)
    twice = len(keys) - len(seen)
    return (
        f"a part of {schema.name} has one row for each member of its shard:"
        f" {len(lost)} without a row {lost[:3]},"
        f" {len(extra)} that {agreed(len(extra), 'is not a member', 'are not members')}"
        f" {extra[:3]}, {twice} {agreed(twice, 'row')} too many for"
        f" {agreed(twice, 'its', 'their')} key"
    )


def _check_status(schema: TableSchema, rows: pa.Table) -> None:
    statuses, reasons = rows["status"].to_pylist(), rows["reason"].to_pylist()
    for key, status, reason in zip(rows[schema.key].to_pylist(), statuses, reasons, strict=True):
        if not status or reason is None or (status == OK) != (reason == ""):
            raise ValueError(
                f"{schema.name} row {key}: status {status!r} with reason {reason!r};"
                " a row is 'ok' with an empty reason, or names its failure and a reason"
            )
    all_ok = statuses.count(OK) == len(statuses)
    good = rows if all_ok else rows.filter(pc.equal(rows["status"], OK))  # pictures are large
    for name in schema.columns:
        column = good[name]
        if column.null_count:
            rows_have = agreed(column.null_count, "ok row has", "ok rows have")
            raise ValueError(f"{schema.name}: {column.null_count} {rows_have} no {name}")
        if (numbers := _numbers(column)) is not None:
            _check_numbers(schema, name, numbers)
    for low, high in schema.ordered:
        if pc.any(pc.greater(good[low], good[high])).as_py():
            raise ValueError(f"{schema.name}: ok rows whose {low} is above their {high}")


def _numbers(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """The numbers of a column, of its lists too; None for other columns."""
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        column = pc.list_flatten(column)
    if pa.types.is_float16(column.type):  # pyarrow has no is_finite for it
        column = column.cast(pa.float32())
    return column if pa.types.is_floating(column.type) or pa.types.is_integer(column.type) else None


def _check_numbers(schema: TableSchema, name: str, numbers: pa.ChunkedArray) -> None:
    if numbers.null_count or not pc.all(pc.is_finite(numbers), min_count=0).as_py():
        raise ValueError(f"{schema.name}: ok rows whose {name} is not finite")
    if name not in schema.ranges:
        return
    low, high = schema.ranges[name]
    found = pc.min_max(numbers).as_py()
    if len(numbers) and not (low <= found["min"] and found["max"] <= high):
        raise ValueError(
            f"{schema.name}: ok rows whose {name} is not within {low:g} and {high:g} (from"
            f" {found['min']:g} to {found['max']:g})"
        )


def encode_part(
    schema: TableSchema, rows: pa.Table, footer: Footer, spec: Mapping[str, Any]
) -> bytes:
    """Return the Parquet file of checked rows, after reading it back and comparing.

    Pages carry checksums, so that a flipped bit is found when it is read; row groups have about
    ``schema.group_bytes``, so that a few rows can be read without the rest. Image bytes are
    compressed already and are stored as they are, vectors have no useful dictionary or bounds.
    """
    keys = "\n".join(rows[schema.key].to_pylist()).encode() if schema.keys_in_footer else None
    small = [f.name for f in rows.schema if pa.types.is_string(f.type)]
    described = rows.replace_schema_metadata(footer_metadata(footer, keys, spec))
    group_rows = max(1, int(rows.num_rows * schema.group_bytes / max(rows.nbytes, 1)))
    sink = io.BytesIO()
    with pq.ParquetWriter(
        sink,
        described.schema,
        compression={f.name: _codec(f.type) for f in rows.schema},
        use_dictionary=small,
        write_statistics=small,
        write_page_checksum=True,
        store_schema=True,
    ) as writer:
        writer.write_table(described, row_group_size=group_rows)
        if schema.keys_in_footer:
            spans = base64.b64encode(_spans(sink.getbuffer(), rows["data"]).tobytes())
            writer.add_key_value_metadata({SPANS: spans})
    data = sink.getvalue()
    if not _holds(data, rows):
        raise RuntimeError(f"a part of {footer.table} changed when it was written as Parquet")
    return data


def _holds(data: bytes, rows: pa.Table) -> bool:
    """Read a written part and compare it with its rows, in the memory of one row group."""
    start = 0
    with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as written:
        for number in range(written.num_row_groups):
            group = written.read_row_group(number, use_threads=False)
            if not group.equals(rows.slice(start, len(group))):
                return False
            start += len(group)
    return start == len(rows)


def _spans(written: memoryview, column: pa.ChunkedArray) -> np.ndarray:
    """(rows, 2) int64: start and size of each value of a column in the pages written so far.

    Parquet stores large, uncompressed values as they are, each behind its length. Readers compare
    what they find with its hash, so that this is a shortcut and never the truth.
    """
    spans, end = [], 0
    for value in column:
        data = memoryview(value.as_buffer())
        mark = struct.pack("<I", len(data)) + data[:_MARK].tobytes()
        at = end
        while (found := written[at : at + _WINDOW].tobytes().find(mark)) < 0 and at < len(written):
            at += _WINDOW - len(mark)
        spans.append((at + found + 4, len(data)))
        end = at + found + 4 + len(data)
    return np.array(spans, "<i8").reshape(-1, 2)


def _codec(kind: pa.DataType) -> str:
    return "none" if pa.types.is_large_binary(kind) else "zstd"


def read_part(
    part: PartReader, where: str, schema: TableSchema, spec_key: str, columns: Sequence[str]
) -> tuple[pa.Table, Footer]:
    """Read some columns of an open part.

    Args:
        part: The part.
        where: Its whole name, for messages.
        schema: Of the table that it should belong to.
        spec_key: Of that table.
        columns: The columns to read.

    Raises:
        CorruptPart: it is truncated or damaged, of another table or shard, or has other columns.
    """
    footer = part.footer()
    if (footer.table, footer.spec_key) != (schema.name, spec_key):
        raise CorruptPart(where, f"it belongs to {footer.table}/{footer.spec_key}")
    if not where.endswith(f"/part-{footer.shard_key}.parquet"):
        raise CorruptPart(where, "it has another part's name")
    found = part.schema()
    if not found.equals(schema.arrow):
        raise CorruptPart(where, f"its columns are {found.names} of other types")
    rows = part.table(columns)
    if rows.num_rows != footer.rows:
        held = f"{rows.num_rows} {agreed(rows.num_rows, 'row')}"
        raise CorruptPart(where, f"{held}, its footer says {footer.rows}")
    if schema.key in columns and pc.count_distinct(rows[schema.key]).as_py() != rows.num_rows:
        raise CorruptPart(where, "a key has two rows, or a row has no key")
    return rows, footer
