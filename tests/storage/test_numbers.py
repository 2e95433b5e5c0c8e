"""Scores and vectors that are no numbers, or out of range: never published, and found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.checks.root import check_root, repair_root
from storage.locations import manifest
from storage.locations.location import Location
from storage.tables.table import Shard, Table, open_table
from tests.storage.test_odd_files import rewrite

NAN, INF = float("nan"), float("inf")
KEYS = ["a", "b"]
TEXTS = ("run", "method", "backbone", "benchmark", "split", "category", "metric")

COLUMNS: dict[str, dict[str, Any]] = {
    "results": {
        **{name: ["x", "x"] for name in (*TEXTS, "protocol", "provenance", "created")},
        **{"value": [50.0, 0.0], "low": [40.0, 0.0], "high": [60.0, 0.0]},
        **{"queries": [3, 3], "coverage": [1.0, 0.5]},
    },
    "sweeps": {
        **{name: [0.5, 1.5] for name in ("alpha", "beta", "gamma")},
        **{"metrics": [["x"], ["x"]], "values": [[100.0], [0.0]]},
    },
    "rankings": {
        **{"category": ["", ""], "names": [["i", "j"]] * 2, "subset_names": [[], []]},
        "scores": [[0.5, -0.5]] * 2,
    },
    "image_features": {"vector": np.ones((2, 3))},
    "caption_features": {"vector": np.ones((2, 3)), "n_captions": [1, 1]},
    "caption_vectors": {"vector": np.ones((2, 3)), "n_captions": [1, 1]},
    "query_features": {"vector": np.ones((2, 3))},
}
VECTORS = [name for name, columns in COLUMNS.items() if "vector" in columns]
WRONG = [
    *(
        ("results", column, bad)
        for column in ("value", "low", "high", "coverage")
        for bad in (NAN,)
    ),
    *(("results", "value", bad) for bad in (INF, -INF, 100.5, -0.5, 1e9)),
    *(("results", "coverage", bad) for bad in (1.5, -0.1)),
    *(
        ("results", column, bad)
        for column, bad in (("low", 70.0), ("high", 101.0), ("queries", -1))
    ),
    *(("sweeps", "alpha", bad) for bad in (NAN, INF)),
    *(("sweeps", "values", [bad]) for bad in (NAN, INF, 101.0, -2.0)),
    *(("rankings", "scores", [0.5, bad]) for bad in (NAN, INF, -INF, None)),
    *((name, "vector", [1.0, bad, 1.0]) for name in VECTORS for bad in (NAN, INF, -INF, None)),
]


@pytest.fixture
def location(tmp_path: Path) -> Location:
    return Location(str(tmp_path))


def table_of(location: Location, name: str, dtype: str = "float32") -> Table:
    spec = {"producer": "numbers/1", **({"dim": 3, "dtype": dtype} if name in VECTORS else {})}
    return open_table(location, name, spec)


def filled(location: Location, name: str, dtype: str = "float32") -> tuple[Table, str]:
    """A table of one good part, and the part's path."""
    table = table_of(location, name, dtype)
    rows = table.rows(**{table.schema.key: KEYS}, **COLUMNS[name])
    part = table.publish(Shard.of(KEYS), rows)
    return table, f"{table.folder}/{part.name}"


def with_value(rows: pa.Table, column: str, value: Any) -> pa.Table:
    """The rows with another value in the second one."""
    kind = rows.schema.field(column).type
    if pa.types.is_fixed_size_list(kind) and kind.value_type == pa.float16():
        value = [None if v is None else np.float16(v) for v in value]
    values = pa.array([rows[column].to_pylist()[0], value], kind)
    return rows.set_column(rows.schema.get_field_index(column), rows.schema.field(column), values)


@pytest.mark.parametrize(("name", "column", "bad"), WRONG)
def test_a_number_that_cannot_be_is_never_published_and_found(
    name: str, column: str, bad: Any, location: Location
) -> None:
    table, path = filled(location, name)
    assert check_root(location).faults == []
    good = table.rows(**{table.schema.key: ["c", "d"]}, **COLUMNS[name])
    with pytest.raises(ValueError, match=column):
        table.publish(Shard.of(["c", "d"]), with_value(good, column, bad))

    before = table.read()
    rows = pq.read_table(location.join(path), partitioning=None)
    rewrite(table, path, with_value(rows, column, bad))
    manifest.forget(location, path)  # as a writer that was killed, or one that lies
    manifest.record(location, path, location.read_bytes(path))
    (fault,) = check_root(location).faults
    assert fault.path == path
    assert column in fault.what
    done, left = repair_root(location)
    assert (len(done), left.faults) == (1, [])
    assert table.plan(KEYS, 2).todo == 2
    filled(location, name)
    assert table.read().equals(before)


@pytest.mark.parametrize("name", VECTORS)
@pytest.mark.parametrize("bad", [NAN, INF])
def test_half_precision_is_looked_at_too(name: str, bad: float, location: Location) -> None:
    table, path = filled(location, name, "float16")
    rows = pq.read_table(location.join(path), partitioning=None)
    rewrite(table, path, with_value(rows, "vector", [1.0, bad, 1.0]))
    manifest.forget(location, path)
    assert "vector" in check_root(location).faults[0].what


def test_a_failed_row_needs_no_number(location: Location) -> None:
    table = table_of(location, "rankings")
    empty = {"category": ["", ""], "names": [None] * 2, "scores": [None] * 2}
    failed = {"subset_names": [None] * 2, "status": ["missing_input"] * 2, "reason": ["x"] * 2}
    table.publish(Shard.of(KEYS), table.rows(query_id=KEYS, **empty, **failed))
    assert check_root(location).faults == []


def test_rounded_percentages_are_within_their_range(location: Location) -> None:
    table = table_of(location, "sweeps")
    columns = COLUMNS["sweeps"] | {"values": [[100.00000000000001], [-1e-15]]}
    table.publish(Shard.of(KEYS), table.rows(setting=KEYS, **columns))
    assert check_root(location).faults == []
