"""Receipts: a plan with nothing missing costs one listing.

A receipt says: with exactly these parts (names and sizes), none of these keys is missing, so many
have an ok row and so many only failed ones. The sentence is the name of an empty file: finding it
in a listing is enough, and there is no content to be damaged. A part that is added, put aside or
truncated makes all earlier receipts say something about another table. Receipts of earlier versions
(``complete-*.json``) had their counts inside; nobody reads them.
"""

from __future__ import annotations

import contextlib
import re
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
    def names(self) -> tuple[str, ...]:
        """Names of the parts."""
        return tuple(entry.path.rsplit("/", 1)[-1] for entry in self.parts)

    @property
    def parts_by_name(self) -> list[list[str | int]]:
        """Name and size of every part: a published part of a name and size never changes."""
        return [[entry.path.rsplit("/", 1)[-1], entry.size] for entry in self.parts]


def find_receipt(survey: Survey, planned: Sequence[str] | str) -> Coverage | None:
    """Return the coverage of some keys if it was established for exactly these parts.

    Args:
        survey: The table's folder now.
        planned: Sorted, unique keys, or the identity of derived ones.
    """
    stem = _stem(survey, planned)
    for path in survey.files:
        if path.startswith(stem) and (counts := COUNTS.fullmatch(path.removeprefix(stem))):
            ok, failed = map(int, counts.groups())
            if not isinstance(planned, str) and ok + failed != len(planned):
                continue  # a name that somebody changed
            return Coverage(planned=ok + failed, ok=ok, failed=failed, missing=0)
    return None


def leave_receipt(
    location: Location, survey: Survey, planned: Sequence[str] | str, coverage: Coverage
) -> None:
    """Remember that none of the keys is missing; a reader without the right to write does not."""
    if coverage.missing:
        raise ValueError(f"{coverage.missing} keys are missing; a receipt says that none is")
    with contextlib.suppress(PermissionError):
        location.create(f"{_stem(survey, planned)}-{coverage.ok}-{coverage.failed}", b"")


COUNTS = re.compile(r"-(\d+)-(\d+)")
"""Rows that are ok and rows that failed, after the stem of a receipt's name."""


def _stem(survey: Survey, planned: Sequence[str] | str) -> str:
    keys = planned if isinstance(planned, str) else list(planned)
    return f"{survey.folder}/complete-{content_key([keys, survey.parts_by_name])}"
