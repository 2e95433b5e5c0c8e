"""Our own form of texts: JSONL or Parquet with one row for each query or image.

Columns: ``query_id``, ``captions``, ``edits``, ``joined_edit``, ``single_caption``,
``single_edit``, ``objects``, and for comparison ``reference`` and ``text``; rows about gallery
images have ``image`` and ``captions``. What is absent, null or empty is not there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from storage.benchmarks.records import Benchmark, Query
from storage.exchange.records import read_records
from storage.exchange.sources import ExchangeError
from storage.exchange.texts import (
    FIELDS,
    LISTS,
    QueryTexts,
    Texts,
    require_agreement,
    text_of,
    texts_of,
)

FORM: Final = "own"
OWN_ENDINGS: Final = (".jsonl", ".ndjson", ".parquet")
"""Endings of files that are read as this form."""
_TEXTS: Final = pa.list_(pa.string())
_OF_IMAGE: Final = ("image", "captions")
"""The columns of a row about a gallery image."""
SCHEMA: Final = pa.schema(
    [
        ("query_id", pa.string()),
        ("image", pa.string()),
        ("reference", pa.string()),
        ("text", pa.string()),
        *((name, _TEXTS if name in LISTS else pa.string()) for name in FIELDS),
    ]
)
"""The columns of a Parquet file, which are the keys of a line of JSONL."""


def read_own(path: Path, benchmark: Benchmark) -> Texts:
    """The texts of a JSONL or Parquet file.

    Raises:
        ExchangeError: Naming the record that does not fit.
    """
    known = {query.query_id: query for query in benchmark.queries}
    names = {name for gallery in benchmark.galleries.values() for name in gallery}
    names |= {query.reference for query in benchmark.queries}
    queries: dict[str, QueryTexts] = {}
    images: dict[str, tuple[str, ...]] = {}
    for place, record in read_records(path):
        where = f"{path}, {place}"
        unknown = record.keys() - set(SCHEMA.names)
        if unknown:
            raise ExchangeError(
                f"{where}: the form has no column {', '.join(sorted(unknown))}; columns are "
                f"{', '.join(SCHEMA.names)}"
            )
        if record.get("image"):
            _add_image(record, names, images, where)
        else:
            own = _query(record, known, where)
            if own.query_id in queries:
                raise ExchangeError(f"{where}: query {own.query_id!r} occurs twice; keep one")
            queries[own.query_id] = own
    return Texts(form=FORM, queries=queries, images=images)


def own_records(texts: Texts, queries: Sequence[Query]) -> Iterator[dict[str, Any]]:
    """The rows of a file in this form, in the order of the queries; absent texts are left out."""
    for query in queries:
        own = texts.queries.get(query.query_id)
        if own is None:
            continue
        values = {name: getattr(own, name) for name in FIELDS}
        yield {
            "query_id": query.query_id,
            "reference": query.reference,
            "text": query.text,
            **{k: list(v) if k in LISTS else v for k, v in values.items() if v},
        }
    for name, captions in texts.images.items():
        yield {"image": name, "captions": list(captions)}


def write_own(records: Iterator[dict[str, Any]], path: Path) -> int:
    """Write rows as JSONL or, by the name's ending, as Parquet; return their number."""
    rows = list(records)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)
    else:
        lines = (json.dumps(row, ensure_ascii=False) for row in rows)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return len(rows)


def _add_image(
    record: Mapping[str, Any], names: set[str], images: dict[str, tuple[str, ...]], where: str
) -> None:
    name = record["image"]
    if not isinstance(name, str) or name not in names:
        raise ExchangeError(f"{where}: the benchmark has no image {name!r}")
    if others := [each for each in SCHEMA.names if each not in _OF_IMAGE and record.get(each)]:
        raise ExchangeError(
            f"{where}: a row about image {name!r} has its captions alone, not "
            f"{', '.join(others)}; rows about queries have no image"
        )
    if name in images:
        raise ExchangeError(f"{where}: image {name!r} occurs twice; keep one")
    images[name] = texts_of(record.get("captions"), f"{where}, captions")


def _query(record: Mapping[str, Any], known: Mapping[str, Query], where: str) -> QueryTexts:
    query_id = record.get("query_id")
    if not isinstance(query_id, str) or query_id not in known:
        raise ExchangeError(
            f"{where}: the benchmark's split has no query {query_id!r}; query_id is its own id, as "
            f"text, such as {next(iter(known), '')!r}"
        )
    text = record.get("text")
    given = None if text is None else (text_of(text, f"{where}, text"),)
    require_agreement(known[query_id], record.get("reference"), given, where)
    values: dict[str, Any] = {}
    for name in FIELDS:
        value = record.get(name)
        if name in LISTS:
            values[name] = () if value is None else texts_of(value, f"{where}, {name}")
        else:
            values[name] = text_of(value, f"{where}, {name}")
    return QueryTexts(query_id=query_id, **values)
