"""A listed file."""

from __future__ import annotations

from dataclasses import dataclass, field

STAGING = ".staging"
"""Folder of unfinished local files, directly under the root and never listed."""


@dataclass(frozen=True)
class Entry:
    """One listed file: path relative to the root, size in bytes, and a stamp of its version.

    The stamp is the modification time in nanoseconds locally and the ETag on S3. `modified` is the
    time of the last change in seconds since 1970. `odd` says what has the name of a file and is
    something else; it is empty for files.
    """

    path: str
    size: int
    stamp: str
    modified: float = field(default=0.0, compare=False)
    odd: str = ""
