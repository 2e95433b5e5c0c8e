"""Small files whose content is checked when it is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from storage.locations.local_files import OddFile
from storage.locations.location import Location

T = TypeVar("T")

TRIES_ON_S3 = 3
"""Readings of a file or part on S3 before it counts as damaged: a byte may be lost on the way."""

MALFORMED = (ValueError, TypeError, RecursionError)
"""Errors of JSON that is not what was written; brackets nested too deep are a RecursionError."""


class DamagedFile(ValueError):
    """The content of a file is not what was written; the message names it and says what to do."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(
            f"{path} is damaged: {what}. `cirflow cache repair` mends what can be derived and says"
            " what will be made again"
        )
        self.path = path
        self.what = what

    def __reduce__(self) -> tuple[type[DamagedFile], tuple[str, str]]:
        return type(self), (self.path, self.what)


def read_checked(location: Location, path: str, parse: Callable[[bytes], T]) -> T:
    """Read a file whole and parse it; a file on S3 is fetched again before it counts as damaged.

    Args:
        location: The root.
        path: Of the file.
        parse: Returns what the content says, or raises ValueError, TypeError, KeyError or OSError.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFile: the content cannot be parsed.
    """
    fault: Exception = ValueError()
    for _ in range(1 if location.is_local else TRIES_ON_S3):
        try:
            data = location.read_bytes(path)
        except OddFile as error:
            raise DamagedFile(location.join(path), str(error.strerror)) from error
        try:
            return parse(data)
        except (*MALFORMED, KeyError, AttributeError, OSError) as error:
            fault = error
    what = str(fault) if not isinstance(fault, KeyError) else f"it lacks {fault}"
    raise DamagedFile(location.join(path), what or type(fault).__name__) from fault


def put_aside(location: Location, path: str) -> str:
    """Rename a damaged file, so that nobody reads it; return the new name. Nothing is deleted."""
    folder = path.rpartition("/")[0]
    taken = set(location.list(folder))
    number = 1
    while f"{path}.quarantined-{number}" in taken:
        number += 1
    location.rename(path, f"{path}.quarantined-{number}")
    return f"{path}.quarantined-{number}"


def as_text(said: Mapping[str, Any]) -> bytes:
    """Return a record as JSON that ends with a hash of itself."""
    return (json.dumps({**said, "check": _check(said)}, indent=2) + "\n").encode()


def from_text(data: bytes) -> tuple[dict[str, Any], bool]:
    """Read a record back; the second value tells whether it holds its hash (earlier ones do not).

    Raises:
        ValueError: it is not JSON of an object, or was changed since it was written.
    """
    said = json.loads(data)
    if not isinstance(said, dict):
        raise ValueError(f"a record is a JSON object, not {type(said).__name__}")
    check = said.pop("check", None)
    if check is not None and check != _check(said):
        raise ValueError("it was changed since it was written")
    return said, check is not None


def _check(said: Mapping[str, Any]) -> str:
    text = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:20]
