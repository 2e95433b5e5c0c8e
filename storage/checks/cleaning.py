"""Removing what nobody needs, or what is made again: staged files, marks, matrices, ..."""

from __future__ import annotations

import re
import time

from storage.locations.local_files import A_FOLDER, CLOSED
from storage.locations.location import Entry, Location
from storage.tables.matrices import DERIVED
from storage.tables.receipts import EARLIER

DAY = 86_400.0
MONTH = 30 * DAY

_KINDS = {
    "mark of a begun shard": re.compile(r"begun/.+"),
    "put aside": re.compile(r".+\.quarantined-\d+(/.+)?"),
    "receipt of an earlier version": re.compile(rf"[^/]+/[0-9a-f]+/{EARLIER.pattern}"),
    "made again when needed": re.compile(rf"[^/]+/[0-9a-f]+/({DERIVED.pattern})"),
    "probe": re.compile(r"probe/[0-9a-f]{32}"),
    "staged": re.compile(r"training/.+/\.[^/]+\.new"),
}


def removable(location: Location, older_than_s: float = DAY) -> list[tuple[str, Entry]]:
    """List files of which no living process needs any, by kind.

    Files that were put aside are looked at by people: they stay a day as the others do.
    """
    limit = time.time() - older_than_s
    found = [("staged", entry) for entry in location.staged()]
    for entry in location.entries():
        if entry.odd in (A_FOLDER, CLOSED):
            continue
        kinds = [kind for kind, pattern in _KINDS.items() if pattern.fullmatch(entry.path)]
        found += [(kind, entry) for kind in kinds[:1]]
    return [(kind, entry) for kind, entry in found if entry.modified < limit]


def clean(location: Location, older_than_s: float = DAY) -> list[tuple[str, Entry]]:
    """Remove what `removable` lists, and return it."""
    found = removable(location, older_than_s)
    for _, entry in found:
        location.remove(entry.path)
    return found


def remove_staged(location: Location, older_than_s: float = DAY) -> None:
    """Remove what writers left that were killed; nothing else is listed."""
    limit = time.time() - older_than_s
    for entry in location.staged():
        if entry.modified < limit:
            location.remove(entry.path)
