"""What leaves flows and tasks holds no secret: errors, logs with tracebacks, rows, artifacts."""

from __future__ import annotations

import base64
import io
import logging

import pyarrow as pa
import pytest

from models.redaction import HIDDEN, redact
from tests.tasks.test_stored_results import flows_and_tasks

KEY = "sk-a-key-that-nobody-shall-see"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", KEY)


def test_every_flow_and_task_goes_through_it() -> None:
    from tasks.redacted import redacting

    code = redacting(test_every_flow_and_task_goes_through_it).__code__
    bare = [value.name for value in flows_and_tasks() if value.fn.__code__ is not code]
    assert bare == []


def test_what_a_task_raises_and_logs_is_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.redacted import redacting

    shown = io.StringIO()
    handler = logging.StreamHandler(shown)
    logger = logging.getLogger("a.test.of.redaction")
    logger.addHandler(handler)
    monkeypatch.setattr(logger, "propagate", False)

    class Odd(Exception):
        def __str__(self) -> str:
            return KEY

    @redacting
    def work(kind: type[Exception]) -> None:
        logger.error("asked with %s and %r", KEY, [base64.b64encode(KEY.encode())])
        try:
            raise OSError(f"the server said {KEY}")
        except OSError:
            logger.exception("failed")
            raise kind(f"of {KEY}") from None

    before = logging.getLogRecordFactory()
    try:
        with pytest.raises(ValueError, match=r"of \[secret\]"):
            work(ValueError)
        with pytest.raises(RuntimeError, match=r"Odd: \[secret\]"):
            work(Odd)
    finally:
        logging.setLogRecordFactory(before)
        logger.removeHandler(handler)
    told = shown.getvalue()
    assert told.count("Traceback") == 2
    assert "the server said [secret]" in told
    assert redact(told) == told


def test_prefects_own_secrets_count(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import PREFECT_API_AUTH_STRING, temporary_settings

    from tasks.redacted import remember_settings

    monkeypatch.setattr("models.redaction._remembered", set())
    with temporary_settings({PREFECT_API_AUTH_STRING: "somebody:in-no-environment"}):
        remember_settings()
    sent = base64.b64encode(b"somebody:in-no-environment").decode()
    for text in ("in-no-environment", f"Basic {sent}"):
        assert HIDDEN in redact(text)


def test_rows_are_cleared_except_their_key() -> None:
    from tasks.redacted import without_secrets

    fields = {"image_id": pa.string(), "captions": pa.list_(pa.string()), "n": pa.int64()}
    schema = pa.schema([*fields.items(), ("reason", pa.string())])
    clean = [("a", ["x", "y"], 1, ""), ("b", None, 2, None)]
    leaky = [*clean, (KEY, ["fine", f"no {KEY}"], 3, f"401: {KEY}")]

    def table(rows: list[tuple[object, ...]]) -> pa.Table:
        return pa.table([list(column) for column in zip(*rows, strict=True)], schema=schema)

    assert without_secrets(table(clean), "image_id").equals(table(clean))
    found = without_secrets(table(leaky), "image_id")
    assert found.schema == schema
    assert found.slice(0, 2).equals(table(clean))
    last = (KEY, ["fine", f"no {HIDDEN}"], 3, f"401: {HIDDEN}")
    assert tuple(found.to_pylist()[2].values()) == last


def test_secrets_are_collected_once_for_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """They stand in the environment, which a ranking's thousands of names need not ask each."""
    from models import redaction
    from tasks.redacted import without_secrets

    collected = []
    known = redaction._known
    monkeypatch.setattr(redaction, "_known", lambda: collected.append(1) or known())
    rows = pa.table({"query_id": ["a", "b"], "names": [["x", "y"], [f"at {KEY}", "x"]]})
    found = without_secrets(rows, "query_id")
    assert found.column("names").to_pylist() == [["x", "y"], [f"at {HIDDEN}", "x"]]
    assert len(collected) == 1
