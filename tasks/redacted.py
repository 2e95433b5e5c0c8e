"""No secret in rows, logs, artifacts or states: what leaves a task or a flow goes through here."""

from __future__ import annotations

import functools
import logging
import traceback
from collections.abc import Callable
from types import FunctionType
from typing import Any, ParamSpec, TypeVar, cast

import pyarrow as pa
from prefect.settings import get_current_settings
from pydantic import BaseModel, SecretStr

from models.redaction import redact, redact_error, redactor, remember

P = ParamSpec("P")
R = TypeVar("R")


def redacting(work: Callable[P, R]) -> Callable[P, R]:
    """The function of a flow or task, whose errors and logs hold no secrets.

    It stands below `@flow` and `@task`: Prefect writes what they raise into states, logs and files.
    """
    prepare, clear = _prepare, redact_error

    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        prepare()
        try:
            return work(*args, **kwargs)
        except BaseException as error:
            cleared = clear(error)
            if cleared is error:
                raise
            raise cleared from None

    # Prefect looks up the names in a flow's annotations among its function's globals.
    named = FunctionType(run.__code__, work.__globals__, closure=run.__closure__)
    return cast(Callable[P, R], functools.wraps(work)(named))


def _prepare() -> None:
    remember_settings()
    redact_logs()


def remember_settings() -> None:
    """Count Prefect's own secrets, also those of its profiles: auth strings, keys, addresses."""
    remember(*_secrets(get_current_settings()))


def _secrets(settings: BaseModel) -> list[str]:
    found: list[str] = []
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            found.append(value.get_secret_value())
        elif isinstance(value, BaseModel):
            found += _secrets(value)
    return found


def without_secrets(rows: pa.Table, key: str) -> pa.Table:
    """Rows whose texts hold no secrets; their key column stays as it is."""
    clear = redactor()
    for place, field in enumerate(rows.schema):
        text = field.type.value_type if pa.types.is_list(field.type) else field.type
        if field.name == key or not (pa.types.is_string(text) or pa.types.is_large_string(text)):
            continue
        values = rows.column(place).to_pylist()
        cleared = [_cell(value, clear) for value in values]
        if cleared != values:
            rows = rows.set_column(place, field, pa.array(cleared, field.type))
    return rows


def _cell(value: Any, clear: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return clear(value)
    return [_cell(each, clear) for each in value] if isinstance(value, list) else value


def redact_logs() -> None:
    """Let every record that is logged from now on be without secrets, with its traceback."""
    make = logging.getLogRecordFactory()
    if getattr(make, "redacts", False):
        return

    def redacted(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        try:
            said = record.getMessage()
        except (TypeError, ValueError):  # logging reports the wrong arguments itself
            return record
        if (cleared := redact(said)) != said:
            record.msg, record.args = cleared, ()
        if record.exc_info and record.exc_info[1] is not None and not record.exc_text:
            shown = "".join(traceback.format_exception(record.exc_info[1])).rstrip("\n")
            if (cleared := redact(shown)) != shown:
                record.exc_text = cleared  # formatters take it instead of their own
        return record

    redacted.redacts = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(redacted)
