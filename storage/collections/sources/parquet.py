"""Images in a bytes column of a Parquet file: bytes, or a struct of bytes and path."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.collections.sources.candidates import (
    Candidate,
    Limits,
    SourceFault,
    fault,
    first_folder,
    given,
)
from storage.text import valid_text

_USUAL_NAMES = ("image", "img", "jpg", "png", "image_bytes", "bytes", "data", "content")
_ROWS_AT_ONCE = 16


def parquet_candidates(
    file: IO[bytes], name: str, container: str, limits: Limits, class_field: str
) -> Iterator[Candidate]:
    """Stream the rows of a Parquet file as candidates, named by their path or row number.

    The image column is the one with a usual name (``image``, ``jpg``, ``bytes``, ...), or the only
    one that holds bytes. The class is the column `class_field`, else the first folder of the row's
    path or of the file. A file that cannot be read (further) yields one candidate of its own with
    the fault ``truncated_archive``; one without an image column, ``no_image_column``.
    """
    row = 0
    try:
        content = pq.ParquetFile(file)
        column = _image_column(content.schema_arrow)
        wanted = [c for c in (column, class_field) if c in content.schema_arrow.names]
        for record in _records(content, wanted):
            yield _candidate(record, column, class_field, name, container, row, limits)
            row += 1
    except SourceFault as error:
        yield Candidate(name, container, first_folder(name), fault(error), container)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = f"the file is cut off or damaged after {row} rows: {error}"
        problem = fault(SourceFault("truncated_archive", reason))
        yield Candidate(name, container, first_folder(name), problem, container)


def _records(content: pq.ParquetFile, columns: list[str]) -> Iterator[dict[str, Any]]:
    # Group by group: a batch across two would lose rows of the first when the second is damaged.
    for group in range(content.num_row_groups):
        # In this thread alone: see storage/tables/part_files.py.
        for batch in content.iter_batches(
            _ROWS_AT_ONCE, row_groups=[group], columns=columns, use_threads=False
        ):
            yield from batch.to_pylist()


def _image_column(schema: pa.Schema) -> str:
    holding = [field.name for field in schema if _holds_bytes(field.type)]
    usual = [name for name in _USUAL_NAMES if name in holding]
    if usual or len(holding) == 1:
        return (usual or holding)[0]
    raise SourceFault(
        "no_image_column",
        f"no single column of bytes among {', '.join(schema.names)}; name it 'image'",
    )


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _holds_bytes(kind.field(index).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _candidate(
    record: dict[str, Any],
    column: str,
    class_field: str,
    name: str,
    container: str,
    row: int,
    limits: Limits,
) -> Candidate:
    value, stated = record[column], record.get(class_field)
    data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, "")
    member = valid_text(path) if path else f"row-{row:09d}"
    load = given(data) if data is not None else _no_bytes(path)
    if data is not None:
        try:
            limits.check_bytes(len(data))
        except SourceFault as error:
            load = fault(error)
    return Candidate(
        path=f"{name}!{member}",
        stamp=f"{container}:{row}",
        meta_class=valid_text(str(stated))
        if stated is not None
        else first_folder(member) or first_folder(name),
        load=load,
        container=container,
    )


def _no_bytes(path: str | None) -> Callable[[], bytes]:
    where = f"; it names the file {valid_text(path)}, which is not followed" if path else ""
    return fault(SourceFault("no_bytes", f"the row holds no bytes{where}"))
