"""The manifest: which files were published under a root, with their sizes and hashes.

A record is an empty file, ``manifest/{path}.{size}-{sha256}``, written after the file that it
names. So a file without a record is one of an earlier version, or its writer was killed between the
two; a record without its file is a loss. Only `cirflow cache` reads the manifest.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from storage.locations.location import Location

FOLDER = "manifest"
_RECORD = re.compile(rf"{FOLDER}/(.+)\.(\d+)-([0-9a-f]{{32}})")


@dataclass(frozen=True)
class Record:
    """One record: the path, size and hash of a published file, and where the record lies."""

    path: str
    size: int
    digest: str

    @classmethod
    def of(cls, path: str, data: bytes) -> Record:
        """The record of some content."""
        return cls(path, len(data), hashlib.sha256(data).hexdigest()[:32])

    @property
    def place(self) -> str:
        """The record's own file."""
        return f"{FOLDER}/{self.path}.{self.size}-{self.digest}"


def publish(location: Location, path: str, data: bytes) -> bool:
    """Create a file and then its record; false, and no record, if the name was taken."""
    created = location.create(path, data)
    if created:
        record(location, path, data)
    return created


def record(location: Location, path: str, data: bytes) -> None:
    """Record the content of a published file."""
    location.create(Record.of(path, data).place, b"")


def forget(location: Location, path: str) -> None:
    """Remove the records of a file that was put aside or is known to be lost."""
    folder = f"{FOLDER}/{path}".rpartition("/")[0]
    for record in read_records(location.list(folder)).get(path, []):
        location.remove(record.place)


def read_records(paths: Iterable[str]) -> dict[str, list[Record]]:
    """The records among some listed paths, by the path of the file that they name."""
    found: dict[str, list[Record]] = {}
    for each in paths:
        if match := _RECORD.fullmatch(each):
            path, size, digest = match.groups()
            found.setdefault(path, []).append(Record(path, int(size), digest))
    return found
