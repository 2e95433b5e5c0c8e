"""The provenance in a part's footer."""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from storage.tables.keys import canonical_json

PRODUCER = "cirflow/storage/1"
"""Format of the parts; written into every footer."""

FOOTER = b"cirflow"
KEYS = b"cirflow.keys"
SPANS = b"cirflow.spans"
"""Base64 of (rows, 2) int64: where in the file each row's `data` starts, and its size."""
SPEC = b"cirflow.spec"
LIBRARIES = b"cirflow.libraries"
"""Versions of the libraries on the machine that made the rows, for people: no reader asks."""

_LIBRARIES = ("torch", "transformers", "tokenizers", "open_clip_torch", "timm", "peft", "pillow")


@dataclass(frozen=True)
class Footer:
    """Provenance of a part: producer, table, spec, shard, time, and number of rows.

    `seconds` is the time that making the rows took, 0 where it was not measured.
    """

    table: str
    spec_key: str
    shard_key: str
    attempt: int
    rows: int
    seconds: float = 0.0
    producer: str = PRODUCER
    created: str = field(
        default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    )


def footer_metadata(
    footer: Footer, keys: bytes | None, spec: Mapping[str, Any]
) -> dict[bytes, bytes]:
    """Return what the footer of a part holds, with a hash of it: Parquet has none for its footer.

    Args:
        footer: The provenance.
        keys: The part's keys, a line each, where the table keeps them in the footer.
        spec: The table's spec, from which its spec.json can be written again.
    """
    said = footer.__dict__ | {"check": footer_check(footer, keys or b"")}
    own = {
        FOOTER: json.dumps(said, sort_keys=True).encode(),
        SPEC: canonical_json(spec).encode(),
        LIBRARIES: _libraries(),
    }
    return own if keys is None else own | {KEYS: keys}


@functools.cache
def _libraries() -> bytes:
    versions = {}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return json.dumps(versions).encode()


def footer_check(footer: Footer, keys: bytes) -> str:
    """Return the hash of a footer's content; parts of earlier versions have none."""
    said = json.dumps(footer.__dict__, sort_keys=True).encode()
    return hashlib.sha256(said + b"\n" + keys).hexdigest()[:20]
