"""The columns of every table.

Each row has a ``status`` (``ok`` or a kind of failure) and a ``reason`` (empty when ok). A column
of a row that is not ok may be null; a row that is ok has no nulls, no number that is not finite and
none outside its column's range.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.text import CONTROLS, visible
from storage.words import agreed

OK = "ok"
"""The one status of a row whose values may be used."""

_TEXTS = pa.list_(pa.string())
_PERCENT = (-1e-6, 100 + 1e-6)  # means of percentages may be rounded beyond their ends
_SHARE = (0.0, 1.0)
_COUNT = (0.0, float("inf"))
_VECTOR_TYPES = {"float16": pa.float16(), "float32": pa.float32()}


@dataclass(frozen=True)
class TableSchema:
    """A table's name, the column that identifies a row, and all columns in order.

    Attributes:
        group_bytes: size of a Parquet row group, the least that is read to get one row.
        keys_in_footer: whether the footer of a part lists its keys, so that the row group of a key
            is known without reading a column; for tables of few, large rows.
        ranges: column -> least and greatest number of an ok row, for those that have bounds.
        ordered: pairs of columns of which the first is not above the second.
    """

    name: str
    key: str
    arrow: pa.Schema
    group_bytes: int = 8 * 2**20
    keys_in_footer: bool = False
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    ordered: tuple[tuple[str, str], ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Column names in order."""
        return tuple(self.arrow.names)


def _fixed(name: str, key: str, **columns: pa.DataType) -> Callable[..., TableSchema]:
    def schema(spec: Mapping[str, Any]) -> TableSchema:
        return _schema(name, key, columns)

    return schema


def _measured(
    schema_of: Callable[..., TableSchema],
    ranges: Mapping[str, tuple[float, float]],
    *ordered: tuple[str, str],
) -> Callable[..., TableSchema]:
    """A table some of whose numbers have bounds."""

    def schema(spec: Mapping[str, Any]) -> TableSchema:
        return dataclasses.replace(schema_of(spec), ranges=ranges, ordered=ordered)

    return schema


def _texts(name: str, key: str, **columns: pa.DataType) -> Callable[..., TableSchema]:
    """A table of a model's replies; from the second producer on, rows say which model answered."""

    def schema(spec: Mapping[str, Any]) -> TableSchema:
        first = str(spec.get("producer", "")).endswith("/1")
        return _schema(name, key, columns if first else {**columns, "answered_by": pa.string()})

    return schema


def _vectors(name: str, key: str, **columns: pa.DataType) -> Callable[..., TableSchema]:
    def schema(spec: Mapping[str, Any]) -> TableSchema:
        dim, dtype = spec.get("dim"), spec.get("dtype")
        if not isinstance(dim, int) or dim < 1 or dtype not in _VECTOR_TYPES:
            raise ValueError(
                f"the spec of a {name} table needs 'dim' (a positive integer) and 'dtype'"
                f" ({' or '.join(_VECTOR_TYPES)}); it has dim={dim!r}, dtype={dtype!r}"
            )
        vector = pa.list_(pa.field("element", _VECTOR_TYPES[dtype]), dim)
        return _schema(name, key, {"vector": vector, **columns})

    return schema


def _images(spec: Mapping[str, Any]) -> TableSchema:
    """One row per distinct image; image_id is the sha256 of the bytes."""
    columns = {
        "data": pa.large_binary(),
        "bytes": pa.int64(),
        "width": pa.int32(),
        "height": pa.int32(),
        "format": pa.string(),
    }
    # Images are read a few at a time, from anywhere in a part.
    schema = _schema("images", "image_id", columns)
    return dataclasses.replace(schema, group_bytes=2**19, keys_in_footer=True)


def _edited_pictures(spec: Mapping[str, Any]) -> TableSchema:
    """One row per reference image and text; data is the edited picture's file."""
    columns = {
        "reference": pa.string(),
        "text": pa.string(),
        "data": pa.large_binary(),
        "picture_id": pa.string(),
        "making": pa.string(),
    }
    schema = _schema("edited_pictures", "edit_key", columns)
    return dataclasses.replace(schema, group_bytes=2**19)


def _schema(name: str, key: str, columns: Mapping[str, pa.DataType]) -> TableSchema:
    fields = {key: pa.string(), **columns, "status": pa.string(), "reason": pa.string()}
    return TableSchema(name, key, pa.schema(list(fields.items())))


TABLES: Mapping[str, Callable[[Mapping[str, Any]], TableSchema]] = {
    "images": _images,
    # One row per input file, readable or not; image_id is null where it could not be read.
    "sources": _fixed(
        "sources",
        "source_key",
        source=pa.string(),
        path=pa.string(),
        stamp=pa.string(),
        container=pa.string(),
        image_id=pa.string(),
        meta_class=pa.string(),
        bytes=pa.int64(),
        width=pa.int32(),
        height=pa.int32(),
        format=pa.string(),
    ),
    "captions": _fixed("captions", "image_id", captions=_TEXTS, n=pa.int32(), raw=_TEXTS),
    # Replies of a text generator: edited captions or added objects, as the spec's prompt says.
    # answered_by is the model that a server's reply names, empty for other engines.
    "rewrites": _texts(
        "rewrites",
        "request_key",
        caption=pa.string(),
        text=pa.string(),
        answer=pa.string(),
        raw=pa.string(),
        finish_reason=pa.string(),
        attempts=pa.int32(),
    ),
    # Replies of a text generator that say a query's text in other words; number counts from 1.
    "paraphrases": _texts(
        "paraphrases",
        "request_key",
        number=pa.int32(),
        text=pa.string(),
        answer=pa.string(),
        raw=pa.string(),
        finish_reason=pa.string(),
        attempts=pa.int32(),
    ),
    # Texts that others made, with the file that they came from. query_key is the query's content;
    # failures and rest are JSON objects.
    "imported_queries": _fixed(
        "imported_queries",
        "query_id",
        query_key=pa.string(),
        reference=pa.string(),
        text=pa.string(),
        captions=_TEXTS,
        edits=_TEXTS,
        joined_edit=pa.string(),
        single_caption=pa.string(),
        single_edit=pa.string(),
        objects=pa.string(),
        failures=pa.string(),
        rest=pa.string(),
        source=pa.string(),
    ),
    "imported_images": _fixed(
        "imported_images", "image_id", image=pa.string(), captions=_TEXTS, source=pa.string()
    ),
    # InstructCIR's training examples; position is the pair's place in the seeded sample.
    "triplets": _texts(
        "triplets",
        "triplet_id",
        position=pa.int64(),
        reference=pa.string(),
        target=pa.string(),
        source=pa.string(),
        meta_class=pa.string(),
        reference_caption=pa.string(),
        target_caption=pa.string(),
        text=pa.string(),
        attempts=pa.int32(),
        raw=pa.string(),
    ),
    # Reference images edited as texts ask, here or elsewhere. picture_id is the sha256 of data,
    # making a JSON object: the editor, its settings and the seed.
    "edited_pictures": _edited_pictures,
    "image_features": _vectors("image_features", "image_id"),
    "caption_features": _vectors("caption_features", "image_id", n_captions=pa.int32()),
    # The vectors of all captions of an image, side by side.
    "caption_vectors": _vectors("caption_vectors", "image_id", n_captions=pa.int32()),
    # Pseudo tokens: vectors of the space of a text tower's word embeddings.
    "pseudo_tokens": _vectors("pseudo_tokens", "image_id"),
    "concept_features": _vectors("concept_features", "concept"),
    # Sentences of a text generator about a concept; raw holds all of its replies.
    "concept_phrases": _fixed("concept_phrases", "concept", phrases=_TEXTS, raw=_TEXTS),
    "query_features": _vectors("query_features", "query_key"),
    # Best first; names[i] has scores[i]. subset_names: the query's group, where there is one.
    "rankings": _fixed(
        "rankings",
        "query_id",
        category=pa.string(),
        names=_TEXTS,
        scores=pa.list_(pa.float32()),
        subset_names=_TEXTS,
    ),
    # A second stage's scores of a query's candidates: candidates[i] (an image id) has scores[i].
    "rerank_scores": _fixed(
        "rerank_scores",
        "list_key",
        query_key=pa.string(),
        candidates=_TEXTS,
        scores=pa.list_(pa.float32()),
    ),
    # A verifier's verdict on one candidate: margin = logit(yes) - logit(no), mass = P(yes) + P(no).
    # A row that is `censored` has a bound of its margin, which orders it, too.
    "verifications": _fixed(
        "verifications",
        "pair_key",
        reference=pa.string(),
        text=pa.string(),
        candidate=pa.string(),
        margin=pa.float32(),
        mass=pa.float32(),
        answer=pa.string(),
        attempts=pa.int32(),
    ),
    # A verifier's choice among a query's candidates in one picture: candidates[i] (an image id)
    # has margins[i], the log-odds of its probability to be chosen; mass: of all of them.
    "list_verifications": _fixed(
        "list_verifications",
        "list_key",
        reference=pa.string(),
        text=pa.string(),
        candidates=_TEXTS,
        margins=pa.list_(pa.float32()),
        mass=pa.float32(),
        answer=pa.string(),
        attempts=pa.int32(),
    ),
    # Questions with yes or no as an answer that are drawn from a modification text.
    "questions": _fixed(
        "questions",
        "text_key",
        text=pa.string(),
        questions=_TEXTS,
        raw=pa.string(),
        finish_reason=pa.string(),
        attempts=pa.int32(),
        answered_by=pa.string(),
    ),
    # Quality under fusion weights: one setting of CVSI's a row; metrics[i] has values[i], percent.
    "sweeps": _measured(
        _fixed(
            "sweeps",
            "setting",
            alpha=pa.float64(),
            beta=pa.float64(),
            gamma=pa.float64(),
            metrics=_TEXTS,
            values=pa.list_(pa.float64()),
        ),
        {"values": _PERCENT},
    ),
    # Evaluations that finished: methods[i] ranked the benchmark in the rankings runs[i]. ref and
    # profile are JSON; folder is where the report was written, on the machine that made it.
    "evaluations": _fixed(
        "evaluations",
        "evaluation_key",
        benchmark=pa.string(),
        split=pa.string(),
        title=pa.string(),
        backbone=pa.string(),
        world=pa.string(),
        queries=pa.int64(),
        methods=_TEXTS,
        runs=_TEXTS,
        ref=pa.string(),
        profile=pa.string(),
        folder=pa.string(),
        created=pa.string(),
    ),
    # The ledger: one number a row, with everything that says how it was made.
    "results": _measured(
        _fixed(
            "results",
            "result_key",
            run=pa.string(),
            method=pa.string(),
            backbone=pa.string(),
            benchmark=pa.string(),
            split=pa.string(),
            category=pa.string(),
            metric=pa.string(),
            value=pa.float64(),
            low=pa.float64(),
            high=pa.float64(),
            queries=pa.int64(),
            coverage=pa.float64(),
            protocol=pa.string(),
            provenance=pa.string(),
            created=pa.string(),
        ),
        {
            **dict.fromkeys(("value", "low", "high"), _PERCENT),
            **{"coverage": _SHARE, "queries": _COUNT},
        },
        ("low", "high"),
    ),
}
"""Table name -> function from the table's spec to its schema. A new table is one entry."""


def table_schema(name: str, spec: Mapping[str, Any]) -> TableSchema:
    """Return the schema of a table; the width and type of vectors come from its spec.

    Raises:
        ValueError: there is no such table, or a vector table's spec lacks ``dim`` or ``dtype``.
    """
    if name not in TABLES:
        raise ValueError(f"there is no table {name!r}; there are {', '.join(TABLES)}")
    return TABLES[name](spec)


def make_rows(schema: TableSchema, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> pa.Table:
    """Build rows of a table from plain columns; control characters in texts become visible.

    Vectors may be one array of shape (rows, dim); vectors of rows that are not ok become null.
    ``status`` may be left out (all ok) and so may ``reason`` where all is ok; other columns that
    are left out are null, which only rows that are not ok may be.

    Raises:
        ValueError: a column is unknown, of another length, or does not fit its type.
    """
    unknown = set(columns) - set(schema.columns)
    if unknown or schema.key not in columns:
        raise ValueError(
            f"rows of {schema.name} have the columns {', '.join(schema.columns)} and need"
            f" {schema.key}; given: {', '.join(columns)}"
        )
    count = len(columns[schema.key])
    status = list(columns.get("status", [OK] * count))
    given = {"status": status, "reason": [""] * count, **columns}
    arrays = [_array(schema, field, given.get(field.name), status) for field in schema.arrow]
    wrong = {f.name: len(a) for f, a in zip(schema.arrow, arrays, strict=True) if len(a) != count}
    if wrong:
        keys = f"{count} {agreed(count, 'key')}"
        raise ValueError(f"{schema.name}: {keys}, but columns of other lengths: {wrong}")
    return pa.Table.from_arrays(arrays, schema=schema.arrow)


def _array(schema: TableSchema, field: pa.Field, values: Any, status: list[str]) -> pa.Array:
    if values is None:
        return pa.nulls(len(status), field.type)
    try:
        if isinstance(values, np.ndarray) and values.ndim == 2:
            return _vector_array(field.type, values, status)
        if field.type == pa.large_binary() and all(type(value) is bytes for value in values):
            return _files_array(values)
        array = pa.array(values, field.type)
        return _visible(array) if field.type in (pa.string(), _TEXTS) else array
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ValueError(f"{schema.name}.{field.name} must be {field.type}: {error}") from error


def _files_array(values: Sequence[bytes]) -> pa.Array:
    """Whole files, copied once; pyarrow's own builder grows as it goes."""
    offsets = np.cumsum([0, *map(len, values)], dtype=np.int64)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(values))]
    return pa.Array.from_buffers(pa.large_binary(), len(values), buffers)


def _visible(array: pa.Array) -> pa.Array:
    """Texts without control characters: they are shown, whoever wrote them."""
    texts = array.flatten() if pa.types.is_list(array.type) else array
    if not pc.any(pc.match_substring_regex(texts, CONTROLS)).as_py():
        return array
    if pa.types.is_list(array.type):
        lists = [None if own is None else [visible(t) for t in own] for own in array.to_pylist()]
        return pa.array(lists, array.type)
    return pa.array([None if t is None else visible(t) for t in array.to_pylist()], array.type)


def _vector_array(kind: pa.DataType, values: np.ndarray, status: list[str]) -> pa.Array:
    if not pa.types.is_fixed_size_list(kind) or values.shape[1] != kind.list_size:
        raise pa.ArrowInvalid(f"an array of shape {values.shape} is not {kind}")
    flat = np.ascontiguousarray(values, dtype=kind.value_type.to_pandas_dtype()).reshape(-1)
    failed = pa.array([s != OK for s in status]) if any(s != OK for s in status) else None
    return pa.FixedSizeListArray.from_arrays(
        pa.array(flat, kind.value_type), type=kind, mask=failed
    )
