"""Results of tasks as plain JSON, and no other record is read: whoever can write to the result
store can falsify a result, but not run code.

A stored record names the serializer that reads it back, and Prefect obeys the record, not the task:
`pickle` written into it would be unpickled. So the reader is narrowed here, once, for the whole
process. What it refuses counts as missing, and the task runs again.
"""

from __future__ import annotations

import json
from typing import Any

from prefect.results import ResultRecord
from prefect.serializers import JSONSerializer

PLAIN_JSON = JSONSerializer(object_encoder=None, object_decoder=None)
"""Reading such a result imports and builds nothing."""

_PLAIN = PLAIN_JSON.model_dump(mode="json")
_deserialize = ResultRecord.deserialize


class NotPlain(ValueError):
    """A stored result that wants to be read as something else than plain JSON."""


def _read_plain(data: bytes, backup_serializer: Any = None) -> ResultRecord[Any]:
    """A record from storage; takes the place of `ResultRecord.deserialize`.

    Raises:
        NotPlain: the record names another serializer, or none.
    """
    record = json.loads(data)
    if not isinstance(record, dict) or set(record) != {"metadata", "result"}:
        raise NotPlain("a stored result is not a record of this version of Prefect")
    metadata = record["metadata"]
    named = metadata.get("serializer") if isinstance(metadata, dict) else None
    if named != _PLAIN:
        raise NotPlain(f"a stored result asks for the serializer {named!r}")
    # Written anew: another parser may see other things in repeated names.
    return _deserialize(json.dumps(record).encode())


def _refuse(result: bytes, metadata: bytes) -> ResultRecord[Any]:
    """Takes the place of the reader of records in two files, which nothing here writes."""
    raise NotPlain("a stored result lies apart from its record")


setattr(ResultRecord, "deserialize", staticmethod(_read_plain))  # noqa: B010
setattr(ResultRecord, "deserialize_from_result_and_metadata", staticmethod(_refuse))  # noqa: B010
