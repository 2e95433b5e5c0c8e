import numpy as np
import pyarrow as pa
import pytest

from storage.tables.schemas import TABLES, make_rows, table_schema

VECTORS = {"dim": 3, "dtype": "float16"}


@pytest.mark.parametrize("name", TABLES)
def test_every_table_has_a_key_first_and_a_status_and_reason_last(name: str) -> None:
    schema = table_schema(name, VECTORS)
    assert schema.name == name
    assert schema.columns[0] == schema.key
    assert schema.columns[-2:] == ("status", "reason")
    assert {str(schema.arrow.field(c).type) for c in (schema.key, "status", "reason")} == {"string"}


def test_vector_columns_take_width_and_type_from_the_spec() -> None:
    assert table_schema("image_features", VECTORS).arrow.field("vector").type == pa.list_(
        pa.field("element", pa.float16()), 3
    )
    wide = table_schema("caption_features", {"dim": 1280, "dtype": "float32", "model": "x"})
    assert wide.arrow.field("vector").type.list_size == 1280
    assert wide.columns == ("image_id", "vector", "n_captions", "status", "reason")


@pytest.mark.parametrize(
    "spec", [{}, {"dim": 3}, {"dim": 0, "dtype": "float32"}, {"dim": 3, "dtype": "float64"}]
)
def test_vector_specs_that_say_too_little_are_refused(spec: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"'dim'.*'dtype'"):
        table_schema("query_features", spec)


def test_an_unknown_table_lists_those_that_exist() -> None:
    with pytest.raises(ValueError, match=r"no table 'caption'.*captions"):
        table_schema("caption", {})


def test_make_rows_fills_in_what_follows_from_the_rest() -> None:
    schema = table_schema("image_features", VECTORS)
    rows = make_rows(schema, {"image_id": ["a", "b"], "vector": np.eye(2, 3)})
    assert rows.schema == schema.arrow
    assert rows.to_pylist() == [
        {"image_id": "a", "vector": [1, 0, 0], "status": "ok", "reason": ""},
        {"image_id": "b", "vector": [0, 1, 0], "status": "ok", "reason": ""},
    ]


def test_vectors_of_failed_rows_become_null() -> None:
    rows = make_rows(
        table_schema("image_features", VECTORS),
        {
            "image_id": ["a", "b"],
            "vector": np.array([[np.nan] * 3, [1, 2, 3]]),
            "status": ["decode_error", "ok"],
            "reason": ["cut off", ""],
        },
    )
    assert rows["vector"].to_pylist() == [None, [1, 2, 3]]


@pytest.mark.parametrize(
    "columns",
    [
        {"image_id": ["a"], "vektor": np.eye(1, 3)},
        {"vector": np.eye(1, 3)},
        {"image_id": ["a"], "vector": np.eye(1, 4)},
        {"image_id": ["a"], "vector": np.eye(2, 3)},
        {"image_id": [1], "vector": np.eye(1, 3)},
        {"image_id": ["a"], "vector": [[1.0, 2.0]]},
    ],
)
def test_columns_that_do_not_fit_are_refused(columns: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="image_features"):
        make_rows(table_schema("image_features", VECTORS), columns)


def test_control_characters_are_shown_and_never_stored() -> None:
    schema = table_schema("captions", {})
    rows = make_rows(
        schema,
        {
            "image_id": ["a", "b", "c"],
            "captions": [["x\x1b[31m\x00", "line\n\ttab"], None, ["\u202eabc\x85"]],
            "n": [2, None, 1],
            "raw": [["\x07"], [], ["caf\u00e9 \u6f22"]],
            "status": ["ok", "rejected", "ok"],
            "reason": ["", "no \x1b]0;way", ""],
        },
    )
    assert rows["captions"].to_pylist() == [
        ["x\\x1b[31m\\x00", "line\n\ttab"],
        None,
        ["\\u202eabc\\x85"],
    ]
    assert rows["raw"].to_pylist() == [["\\x07"], [], ["caf\u00e9 \u6f22"]]
    assert rows["reason"].to_pylist() == ["", "no \\x1b]0;way", ""]
    only_nul = make_rows(
        schema, {"image_id": ["\x00"], "captions": [["a"]], "n": [1], "raw": [["a"]]}
    )
    assert only_nul["image_id"].to_pylist() == ["\\x00"]
