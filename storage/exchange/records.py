"""Records of JSON, JSON lines, CSV and Parquet files, one after the other with their places."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from storage.benchmarks.parsing import strict_json
from storage.exchange.sources import ExchangeError

Record = Mapping[str, Any]
Placed = tuple[str, Record]
"""Where a record lies, in words, and the record."""
KEY: Final = "KEY"
"""Field that holds the key of a record in a JSON object of objects."""


def read_records(path: Path) -> Iterator[Placed]:
    """The records of a file, by its ending; JSON is loaded whole, other forms are streamed.

    Raises:
        ExchangeError: the ending is unknown, or a record cannot be read; it is named.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ExchangeError(f"{path}: give one of {', '.join(_READERS)}, not {path.suffix!r}")
    for where, record in reader(path):
        if not isinstance(record, Mapping):
            raise ExchangeError(f"{path}, {where}: not an object with fields, but {record!r:.80}")
        yield where, record


def write_records(path: Path, records: Iterable[Record]) -> int:
    """Write records in the form of a file's ending; returns their number.

    Raises:
        ExchangeError: the ending is unknown, the file is there, or there are no records.
    """
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        raise ExchangeError(f"{path}: give one of {', '.join(_WRITERS)}, not {path.suffix!r}")
    if path.exists():
        raise ExchangeError(f"{path} exists; name another file")
    rows = list(records)
    if not rows:
        raise ExchangeError("there is nothing to write")
    path.parent.mkdir(parents=True, exist_ok=True)
    writer(path, rows)
    return len(rows)


def _json(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        content = strict_json(path.read_bytes(), finite=False)
    except ValueError as error:
        raise ExchangeError(f"{path} is not JSON: {error}") from error
    if isinstance(content, dict):
        for key, value in content.items():
            yield f"record {key!r}", {KEY: key, **value} if isinstance(value, dict) else value
    elif isinstance(content, list):
        yield from ((f"record {n}", each) for n, each in enumerate(content, start=1))
    else:
        raise ExchangeError(f"{path}: neither a list nor an object of records")


def _json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    yield f"line {number}", strict_json(line, finite=False)
                except ValueError as error:
                    raise ExchangeError(f"{path}, line {number}: not JSON: {error}") from error


def _csv(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            for record in reader:
                if None in record or None in record.values():
                    raise ExchangeError(
                        f"{path}, line {reader.line_num}: it has not as many fields as the header"
                    )
                yield f"line {reader.line_num}", record
    except (UnicodeDecodeError, csv.Error) as error:
        raise ExchangeError(f"{path} is not CSV in UTF-8: {error}") from error


def _parquet(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        with pq.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(4096):
                for record in batch.to_pylist():
                    number += 1
                    yield f"row {number}", record
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise ExchangeError(f"{path} is not Parquet: {error}") from error


def _write_json(path: Path, rows: list[Record]) -> None:
    path.write_text(json.dumps(rows, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_json_lines(path: Path, rows: list[Record]) -> None:
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(lines, encoding="utf-8")


def _write_csv(path: Path, rows: list[Record]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _write_parquet(path: Path, rows: list[Record]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path, compression="zstd")


_READERS: Final[Mapping[str, Callable[[Path], Iterator[tuple[str, Any]]]]] = {
    ".json": _json,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".csv": _csv,
    ".parquet": _parquet,
}
_WRITERS: Final[Mapping[str, Callable[[Path, list[Record]], None]]] = {
    ".json": _write_json,
    ".jsonl": _write_json_lines,
    ".csv": _write_csv,
    ".parquet": _write_parquet,
}
