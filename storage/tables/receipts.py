"""Receipts: a plan with nothing missing costs one listing.

A receipt says: with exactly these parts (names and sizes), none of these keys is missing. Its name
is the hash of that sentence, so that finding it in a listing is enough. A part that is added, put
aside or truncated makes all earlier receipts say something about another table.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from storage.locations.location import Entry, Location
from storage.tables.keys import content_key
from storage.tables.plans import Coverage


@dataclass(frozen=True)
class Survey:
    """One listing of a table's folder: its parts by name, and the paths of all its files."""

    folder: str
    parts: tuple[Entry, ...]
    files: frozenset[str]

    @property
    def parts_by_name(self) -> list[list[str | int]]:
        """Name and size of every part: a published part of a name and size never changes."""
        return [[entry.path.rsplit("/", 1)[-1], entry.size] for entry in self.parts]


def find_receipt(
    location: Location, survey: Survey, planned: Sequence[str] | str
) -> Coverage | None:
    """Return the coverage of some keys if it was established for exactly these parts.

    Args:
        location: The root.
        survey: The table's folder now.
        planned: Sorted, unique keys, or the identity of derived ones.
    """
    path = _path(survey, planned)
    if path not in survey.files:
        return None
    return Coverage(**json.loads(location.read_bytes(path)))


def leave_receipt(
    location: Location, survey: Survey, planned: Sequence[str] | str, coverage: Coverage
) -> None:
    """Remember that none of the keys is missing; a reader without the right to write does not."""
    if coverage.missing:
        raise ValueError(f"{coverage.missing} keys are missing; a receipt says that none is")
    text = json.dumps(coverage.__dict__) + "\n"
    with contextlib.suppress(PermissionError):
        location.create(_path(survey, planned), text.encode())


def _path(survey: Survey, planned: Sequence[str] | str) -> str:
    keys = planned if isinstance(planned, str) else list(planned)
    return f"{survey.folder}/complete-{content_key([keys, survey.parts_by_name])}.json"
