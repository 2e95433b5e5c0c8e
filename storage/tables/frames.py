"""One row for each key, where several parts hold one."""

from __future__ import annotations

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from storage.tables.schemas import OK


def unique_rows(rows: pa.Table, key: str) -> pa.Table:
    """Sort rows, which come in the order of their parts' names, and keep one per key."""
    order = (
        pl.DataFrame({"key": as_polars(rows.select([key]))[key]})
        .with_columns(ok=pl.Series(pc.equal(rows["status"], OK)))
        .with_row_index("row")
        .sort(["key", "ok", "row"], descending=[False, True, False])
        .unique("key", keep="first", maintain_order=True)
    )
    return rows.take(pa.array(order["row"].to_numpy()))


def as_polars(rows: pa.Table) -> pl.DataFrame:
    """Return the same rows as a polars frame."""
    frame = pl.from_arrow(rows)
    assert isinstance(frame, pl.DataFrame)  # of a table, never a series
    return frame
