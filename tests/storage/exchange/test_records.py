"""Records of files: read as they are, or refused with their place, never with a traceback."""

from __future__ import annotations

import codecs
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.exchange.records import read_records
from storage.exchange.sources import ExchangeError


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": 1, "a": 2}\n', "line 2: not JSON: key 'a' occurs twice"),
        ("a.jsonl", b'{"a": "\\ud800"}\n', "line 1: not JSON: .*surrogates not allowed"),
        ("a.jsonl", b'{"a": 1}\n' + b"[" * 100_000, "line 2: not JSON: it is nested too deeply"),
        ("a.json", b"[" * 100_000, "is not JSON: it is nested too deeply"),
        ("a.json", b'[{"a": 1, "a": 2}]', "is not JSON: key 'a' occurs twice"),
        ("a.csv", b"a,b\n1\n", "line 2: it has not as many fields"),
    ],
)
def test_a_damaged_record_is_named(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ExchangeError, match=message):
        list(read_records(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.json", b'[{"a": "1"}]'), ("a.jsonl", b'{"a": "1"}\n'), ("a.csv", b"a\r\n1\r\n")],
)
def test_a_byte_order_mark_is_no_part_of_a_record(
    name: str, content: bytes, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(codecs.BOM_UTF8 + content)
    assert [record["a"] for _, record in read_records(tmp_path / name)] == ["1"]


def test_numbers_that_nobody_reads_need_not_be_finite(tmp_path: Path) -> None:
    """Python's own writer leaves NaN in scores that stand next to triplets."""
    (tmp_path / "a.jsonl").write_text('{"text": "make it red", "score": NaN}')
    ((_, record),) = read_records(tmp_path / "a.jsonl")
    assert record["text"] == "make it red"


def test_parquet_with_texts_that_are_not_utf8_is_refused(tmp_path: Path) -> None:
    _, offsets, data = pa.array([b"\xff"]).buffers()
    texts = pa.StringArray.from_buffers(1, offsets, data)
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    with pytest.raises(ExchangeError, match=r"is not Parquet: .*can't decode byte 0xff"):
        list(read_records(tmp_path / "a.parquet"))
